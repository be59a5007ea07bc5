//! Images of a server that runs in a container: its processes by CRIU, its files by a snapshot.
//!
//! ```text
//! DIR/process/…                 CRIU's
//! DIR/files.index, DIR/files/…  the trees below
//! DIR/known                     what the kernel called the server's files
//! ```
//!
//! The trees are whatever is bound into the container, its changes to the machine's files, and its
//! `/dev/shm`.
//!
//! Any of these may be compressed once it is written (`compressed_file`).
//!
//! CRIU runs inside the container, in all its namespaces but the server's own for IPC, so that
//! nothing but the processes and that one namespace is in its image. Containers are made anew for a
//! restore, with the same things at the same places, and the server becomes a child of this process
//! again.
//!
//! Deliberately absent: when all is quiet enough for a dump, manifests, the tape.

use super::checkpointer::Checkpointer;
use super::layout::{INODE_MAP, PROCESS};
use super::processes::{is_soiled, keep_low_numbers_free, restless_files};
use crate::container::{Container, FIRST_PID, OWN_DIRECTORY, Plan, TOOLS};
use crate::criu::{Criu, first_error};
use crate::error::CheckpointError;
use crate::image::compressed_file;
use crate::image::files::{self, Index, Tree};
use crate::image::inode_map::Known;
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

/// Where CRIU's files lie, in the container's directory, if they were compressed.
const PLAIN: &str = "plain-images";
/// Trees of changes to the machine's file systems are called by this and their name.
const CHANGES: &str = "changes/";
const SHARED_MEMORY: &str = "shm";
const ENCODING: bincode::config::Configuration = bincode::config::standard();
/// CRIU's standard input is the directory of its images, which it could not find by its path inside.
const IMAGES: &str = "/proc/self/fd/0";
/// Deleted files that are still open go into the image up to this size.
const GHOST_BYTES_MAX: &str = "1073741824";

/// The limit of the stack that servers are started with: mappings are placed below that.
const STACK_BYTES: u64 = 8 << 20;

/// What one dump of a server leaves for the next: the directory of the last snapshot, wherever that
/// has been moved to. Files that have not changed since are linked instead of copied. Clones share
/// it; a server that is started or brought back has other files, and gets a new one.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Option<File>>>);

impl Memory {
    fn take(&self) -> Option<File> {
        // Whoever died while holding it has left all or nothing.
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
    /// The one of the running server.
    container: Option<Arc<Container>>,
    /// Processor to stay on: CRIU does not write it down.
    cpu: Option<usize>,
    memory: Memory,
}

/// A server that was brought back. Nobody else waits for it.
#[derive(Debug)]
pub struct RestoredServer {
    /// Its first process, a child of this one.
    pub pid: i32,
    /// What it lives in; its tape is not prepared yet.
    pub container: Arc<Container>,
}

impl Imager {
    /// For servers in containers that are made by `plan`; the one that runs, if any, lives in `container`.
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
            memory: Memory::default(),
        }
    }

    /// The same, and it knows of dumps that others with this memory have made.
    #[must_use]
    pub fn remembering(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

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

    /// CRIU as it is called in the container.
    fn criu_inside(&self) -> Command {
        let files = self.plan.root.as_ref().map(|root| root.criu.as_slice());
        let Some([program, linker, ..]) = files else {
            return Command::new(self.criu.program());
        };
        let tools = Path::new(TOOLS);
        let place = |file: &Path| tools.join(file.file_name().unwrap_or_default());
        let mut command = Command::new(place(linker));
        command.arg("--library-path").arg(tools).arg(place(program));
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
            carry_out(command, "dump").map_err(|error| match is_soiled() {
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
                // What the kernel goes by when it places later mappings is handed down by CRIU's own
                // process, whatever else is restored: it has to begin as the server did.
                personality::set(Persona::ADDR_NO_RANDOMIZE)?;
                setrlimit(Resource::RLIMIT_STACK, STACK_BYTES, STACK_BYTES)?;
                if let Some(set) = &set {
                    sched_setaffinity(Pid::from_raw(0), set)?;
                }
                Ok(())
            });
        }
        container.run(move || carry_out(command, "restore"))
    }

    /// All that the server may have changed, and where the container has it.
    fn trees(&self, container: &Container) -> io::Result<Vec<(Tree, PathBuf)>> {
        let own = Path::new(OWN_DIRECTORY);
        let tree = |name: String, top: PathBuf| Tree { name, top };
        let mut trees: Vec<(Tree, PathBuf)> = self
            .plan
            .bound
            .iter()
            .map(|(source, name)| (tree((*name).into(), source.clone()), own.join(name)))
            .collect();
        for (name, changes, place) in container.changes()? {
            trees.push((tree(format!("{CHANGES}{name}"), changes), place));
        }
        let shared = container.shared_memory();
        trees.push((tree(SHARED_MEMORY.into(), shared), "/dev/shm".into()));
        Ok(trees)
    }

    fn bring_files_back(
        &self,
        directory: &Path,
        index: &Index,
    ) -> Result<Container, CheckpointError> {
        for (source, name) in &self.plan.bound {
            files::bring_back(index, directory, name, source)?;
        }
        Container::create_for_restore(self.plan.clone(), |places| {
            for name in index.trees() {
                if let Some(changes) = name.strip_prefix(CHANGES) {
                    files::bring_back(index, directory, name, &places.changes(changes))?;
                }
            }
            files::bring_back(index, directory, SHARED_MEMORY, &places.shared_memory())?;
            Ok(())
        })
    }

    fn finish(&self, container: &Container, known: Known) -> Result<(), CheckpointError> {
        container.run(move || {
            keep_low_numbers_free()?;
            let own = Path::new(OWN_DIRECTORY);
            let aside = own.join("renumbered.new");
            fs::write(&aside, known.renumbered()?)?;
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
        let restless = container.run(restless_files)?;
        self.dump_processes(&container, File::open(&images)?)?;
        // The tree goes on, but it sleeps until the node feeds it.
        let tops: Vec<Tree> = trees.iter().map(|(tree, _)| tree.clone()).collect();
        let restless = restless_in(&trees, &restless);
        let previous = self.memory.take();
        let path = previous
            .as_ref()
            .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
        files::take(&tops, directory, path.as_deref().map(Path::new), &restless)?;
        let index = files::read_index(directory)?;
        let paths = index.paths(|name| {
            let found = trees.iter().find(|(tree, _)| tree.name == name);
            found.map(|(_, place)| place.clone())
        });
        let places: Vec<PathBuf> = trees.into_iter().map(|(_, place)| place).collect();
        let known = container.run(move || Known::look(paths, &places))?;
        let encoded = bincode::serde::encode_to_vec(&known, ENCODING).map_err(io::Error::other)?;
        fs::write(directory.join(INODE_MAP), encoded)?;
        self.memory.put(File::open(directory)?);
        Ok(())
    }

    fn restore(&mut self, directory: &Path) -> Result<RestoredServer, CheckpointError> {
        let known = fs::read(directory.join(INODE_MAP))?;
        let (known, _): (Known, usize) = bincode::serde::decode_from_slice(&known, ENCODING)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let index = files::read_index(directory)?;
        self.container = None;
        let container = self.bring_files_back(directory, &index)?;
        let images = directory.join(PROCESS);
        let plain = self.plan.state.join(PLAIN);
        // What a dead one has left.
        let _ = fs::remove_dir_all(&plain);
        let restored = if compressed_file::expand_all(&images, &plain)? {
            let restored = self.restore_processes(&container, File::open(&plain)?);
            // Emptied with the container's directory at the latest.
            let _ = fs::remove_dir_all(&plain);
            restored
        } else {
            self.restore_processes(&container, File::open(images)?)
        };
        restored?;
        let pid = container.first_process()?;
        if let Err(error) = self.finish(&container, known) {
            // It may have died already.
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

/// Runs CRIU, inside; its log says why it has failed.
fn carry_out(mut command: Command, what: &str) -> Result<(), CheckpointError> {
    let log = Path::new(OWN_DIRECTORY).join(format!("{what}.log"));
    let status = command.status()?;
    let said = fs::read(&log).unwrap_or_default();
    // Left there it would only take memory.
    let _ = fs::remove_file(&log);
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let why = first_error(&said).unwrap_or("it does not say why");
    let told = format!("CRIU's {what} failed ({status}): {why}");
    // It undoes what it has done when it fails, but not when it is killed.
    Err(match status.code() {
        Some(_) => CheckpointError::Failed(told),
        None => CheckpointError::Interrupted(told),
    })
}

fn restless_in(
    trees: &[(Tree, PathBuf)],
    restless: &HashSet<PathBuf>,
) -> HashSet<(String, PathBuf)> {
    let mut found = HashSet::new();
    for path in restless {
        for (tree, place) in trees {
            if let Ok(below) = path.strip_prefix(place) {
                found.insert((tree.name.clone(), below.to_owned()));
            }
        }
    }
    found
}
