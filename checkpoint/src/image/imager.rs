//! Dumps and restores a server that runs in a container: its processes with CRIU, its files as a
//! snapshot.
//!
//! ```text
//! DIR/process/…                 images of CRIU
//! DIR/files.index, DIR/files/…  snapshot of the trees
//! DIR/known                     inode map
//! ```
//!
//! The trees are everything that is bound into the container, the changes to the machine's files,
//! and `/dev/shm`. Files of all three may be compressed after the dump (`compressed_file`).
//!
//! CRIU runs inside the container, in all its namespaces except the server's IPC namespace. Its
//! image therefore contains the processes and that one namespace only. A restore creates a new
//! container with the same files at the same paths, and the server becomes a child of this process
//! again.
//!
//! Deliberately absent: choosing an idle point for the dump, manifests, the tape.

use super::checkpointer::Checkpointer;
use super::layout::{INODE_MAP, PROCESS};
use super::processes::{has_criu_memory, keep_low_numbers_free, writably_mapped_files};
use crate::container::{Container, FIRST_PID, OWN_DIRECTORY, Plan, TOOLS};
use crate::criu::{Criu, first_error};
use crate::error::CheckpointError;
use crate::image::compressed_file;
use crate::image::files::{self, Index, Tree};
use crate::image::inode_map::InodeMap;
use crate::store::manifest::Position;
use brolga_tape::handover::RENUMBERED_PATH;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::personality::{self, Persona};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Directory for decompressed images of CRIU, below that of the container.
const PLAIN: &str = "plain-images";
/// Prefix of the trees that hold the changes to the machine's file systems.
const CHANGES: &str = "changes/";
/// Name of the tree of `/dev/shm`.
const SHARED_MEMORY: &str = "shm";
/// The directory of CRIU's images, which has no path inside the container, is its standard input.
const IMAGES: &str = "/proc/self/fd/0";
/// Deleted files that are still open are included up to this size.
const GHOST_BYTES_MAX: &str = "1073741824";

/// The stack limit of servers: the kernel places mappings below the stack.
const STACK_BYTES: u64 = 8 << 20;

/// The directory of a server's last snapshot, wherever it was moved to. The next dump links files
/// that have not changed since instead of copying them. Clones share the value. A server that is
/// started or restored has other files and needs a new one.
#[derive(Clone, Debug, Default)]
pub struct LastSnapshot(Arc<Mutex<Option<File>>>);

impl LastSnapshot {
    fn take(&self) -> Option<File> {
        // The value is replaced as a whole, so a panic elsewhere cannot have left half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, directory: File) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
    }
}

/// Dumps and restores the server of one replica.
#[derive(Debug)]
pub struct Imager {
    criu: Criu,
    plan: Plan,
    /// The container of the running server.
    container: Option<Arc<Container>>,
    /// The processor to stay on, which is not part of CRIU's image.
    cpu: Option<usize>,
    last_snapshot: LastSnapshot,
}

/// A server that was restored. The caller has to wait for its process.
#[derive(Debug)]
pub struct RestoredServer {
    /// Its first process, a child of this process.
    pub pid: i32,
    /// Its container; the tape in it is not prepared yet.
    pub container: Arc<Container>,
}

impl Imager {
    /// An imager for servers in containers that are created from `plan`. The running server, if
    /// any, is in `container`.
    #[must_use]
    pub fn new(
        criu: Criu,
        plan: Plan,
        container: Option<Arc<Container>>,
        cpu: Option<usize>,
    ) -> Self {
        Self {
            criu,
            plan,
            container,
            cpu,
            last_snapshot: LastSnapshot::default(),
        }
    }

    /// Shares the last snapshot with other imagers of the same server.
    #[must_use]
    pub fn with_last_snapshot(self, last_snapshot: LastSnapshot) -> Self {
        Self {
            last_snapshot,
            ..self
        }
    }

    /// CRIU with the options that dump and restore share.
    fn command(&self, action: &str, images: File, log: &str) -> Command {
        let mut command = self.criu_inside();
        command
            .arg(action)
            .args([
                "--images-dir",
                IMAGES,
                "--work-dir",
                OWN_DIRECTORY,
                "--log-file",
                log,
            ])
            .args(["--manage-cgroups=ignore", "--file-locks", "-v2"])
            .stdin(Stdio::from(OwnedFd::from(images)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// CRIU as it is started inside the container.
    fn criu_inside(&self) -> Command {
        let files = self.plan.root.as_ref().map(|root| root.criu.as_slice());
        let Some([program, linker, ..]) = files else {
            return Command::new(self.criu.program());
        };
        let tools = Path::new(TOOLS);
        let path = |file: &Path| tools.join(file.file_name().unwrap_or_default());
        let mut command = Command::new(path(linker));
        command.arg("--library-path").arg(tools).arg(path(program));
        command
    }

    fn dump_processes(&self, container: &Container, images: File) -> Result<(), CheckpointError> {
        let mut command = self.command("dump", images, "dump.log");
        command
            .args([
                "--tree",
                &FIRST_PID.to_string(),
                "--leave-running",
                "--link-remap",
            ])
            .args(["--ghost-limit", GHOST_BYTES_MAX]);
        container.run(move || {
            run_criu(command, "dump").map_err(|error| match has_criu_memory() {
                true => CheckpointError::Interrupted(error.to_string()),
                false => error,
            })
        })
    }

    fn restore_processes(
        &self,
        container: &Container,
        images: File,
    ) -> Result<(), CheckpointError> {
        let mut command = self.command("restore", images, "restore.log");
        command.args(["--restore-detached", "--restore-sibling"]);
        let set = match self.cpu {
            None => None,
            Some(cpu) => {
                let mut set = CpuSet::new();
                set.set(cpu).map_err(io::Error::from)?;
                Some(set)
            }
        };
        // SAFETY: only system calls.
        unsafe {
            command.pre_exec(move || {
                // The kernel places later mappings by what the process inherits from CRIU's own,
                // whatever else is restored. So CRIU has to start as the server did.
                personality::set(Persona::ADDR_NO_RANDOMIZE)?;
                setrlimit(Resource::RLIMIT_STACK, STACK_BYTES, STACK_BYTES)?;
                if let Some(set) = &set {
                    sched_setaffinity(Pid::from_raw(0), set)?;
                }
                Ok(())
            });
        }
        container.run(move || run_criu(command, "restore"))
    }

    /// Everything that the server may have changed, and its path inside the container.
    fn trees(&self, container: &Container) -> io::Result<Vec<(Tree, PathBuf)>> {
        let own = Path::new(OWN_DIRECTORY);
        let tree = |name: String, top: PathBuf| Tree { name, top };
        let mut trees: Vec<(Tree, PathBuf)> = self
            .plan
            .bound
            .iter()
            .map(|(source, name)| (tree((*name).into(), source.clone()), own.join(name)))
            .collect();
        for (name, changes, path) in container.changes()? {
            trees.push((tree(format!("{CHANGES}{name}"), changes), path));
        }
        let shared = container.shared_memory();
        trees.push((tree(SHARED_MEMORY.into(), shared), "/dev/shm".into()));
        Ok(trees)
    }

    fn restore_files(&self, directory: &Path, index: &Index) -> Result<Container, CheckpointError> {
        for (source, name) in &self.plan.bound {
            files::restore(index, directory, name, source)?;
        }
        Container::create_for_restore(self.plan.clone(), |directories| {
            for name in index.trees() {
                if let Some(changes) = name.strip_prefix(CHANGES) {
                    files::restore(index, directory, name, &directories.changes(changes))?;
                }
            }
            files::restore(
                index,
                directory,
                SHARED_MEMORY,
                &directories.shared_memory(),
            )?;
            Ok(())
        })
    }

    fn finish_restore(
        &self,
        container: &Container,
        inodes: InodeMap,
    ) -> Result<(), CheckpointError> {
        container.run(move || {
            keep_low_numbers_free()?;
            let own = Path::new(OWN_DIRECTORY);
            let aside = own.join("renumbered.new");
            fs::write(&aside, inodes.renumbering()?)?;
            fs::rename(&aside, OsStr::from_bytes(RENUMBERED_PATH.to_bytes()))?;
            Ok(())
        })
    }
}

impl Checkpointer for Imager {
    type Server = RestoredServer;

    fn dump(
        &mut self,
        _server_pid: u32,
        _position: Position,
        directory: &Path,
    ) -> Result<(), CheckpointError> {
        let container = self.container.clone().ok_or_else(|| {
            CheckpointError::Unsupported("the server does not run in a container".into())
        })?;
        let trees = self.trees(&container)?;
        let images = directory.join(PROCESS);
        fs::create_dir(&images)?;
        let volatile = container.run(writably_mapped_files)?;
        self.dump_processes(&container, File::open(&images)?)?;
        // The processes run again, but they sleep until the node feeds them.
        let tops: Vec<Tree> = trees.iter().map(|(tree, _)| tree.clone()).collect();
        let volatile = volatile_in(&trees, &volatile);
        let previous = self.last_snapshot.take();
        let path = previous
            .as_ref()
            .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
        files::take(&tops, directory, path.as_deref().map(Path::new), &volatile)?;
        let index = files::read_index(directory)?;
        let paths = index.paths(|name| {
            let found = trees.iter().find(|(tree, _)| tree.name == name);
            found.map(|(_, path)| path.clone())
        });
        let tops: Vec<PathBuf> = trees.into_iter().map(|(_, path)| path).collect();
        let inodes = container.run(move || InodeMap::read(paths, &tops))?;
        fs::write(directory.join(INODE_MAP), inodes.encode()?)?;
        self.last_snapshot.put(File::open(directory)?);
        Ok(())
    }

    fn restore(&mut self, directory: &Path) -> Result<RestoredServer, CheckpointError> {
        let inodes = InodeMap::decode(&fs::read(directory.join(INODE_MAP))?)?;
        let index = files::read_index(directory)?;
        self.container = None;
        let container = self.restore_files(directory, &index)?;
        let images = directory.join(PROCESS);
        let plain = self.plan.state.join(PLAIN);
        // Left by a process that died.
        let _ = fs::remove_dir_all(&plain);
        let restored = if compressed_file::decompress_all(&images, &plain)? {
            let restored = self.restore_processes(&container, File::open(&plain)?);
            // If this fails, the next restore removes it.
            let _ = fs::remove_dir_all(&plain);
            restored
        } else {
            self.restore_processes(&container, File::open(images)?)
        };
        restored?;
        let pid = container.first_process()?;
        if let Err(error) = self.finish_restore(&container, inodes) {
            // The server may have died already.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            return Err(error);
        }
        let container = Arc::new(container);
        self.container = Some(Arc::clone(&container));
        Ok(RestoredServer {
            pid: pid.as_raw(),
            container,
        })
    }
}

/// Runs CRIU, inside the container. If it fails, the reason is taken from its log.
fn run_criu(mut command: Command, what: &str) -> Result<(), CheckpointError> {
    let log = Path::new(OWN_DIRECTORY).join(format!("{what}.log"));
    let status = command.status()?;
    let said = fs::read(&log).unwrap_or_default();
    // It would only take up memory.
    let _ = fs::remove_file(&log);
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let why = first_error(&said).unwrap_or("it does not say why");
    let told = format!("CRIU's {what} failed ({status}): {why}");
    // CRIU undoes its changes when it fails, but not when it is killed.
    Err(match status.code() {
        Some(_) => CheckpointError::Failed(told),
        None => CheckpointError::Interrupted(told),
    })
}

/// Returns those of the files at these paths that are in a tree, by tree and path below its top.
fn volatile_in(trees: &[(Tree, PathBuf)], paths: &HashSet<PathBuf>) -> HashSet<(String, PathBuf)> {
    let mut found = HashSet::new();
    for path in paths {
        for (tree, top) in trees {
            if let Ok(below) = path.strip_prefix(top) {
                found.insert((tree.name.clone(), below.to_owned()));
            }
        }
    }
    found
}
