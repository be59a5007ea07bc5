//! The container of a wrapped server: namespaces for processes, mounts, network and host name, and
//! a root directory in which every replica finds the same files at the same paths.
//!
//! ```text
//! /                  the machine's root, with changes in STATE/N/changes (overlay); the same for
//!                    its other file systems. Or a given directory, and nothing else
//! /.brolga/…         bound or created for the caller: working directory, tape, interposer …
//! /dev               a few usual devices; /dev/shm is STATE/N/shm
//! /proc              the container's own processes
//! ```
//!
//! A container consists of a thread of this process that has entered the namespaces, and an empty
//! process 1. [`Container::run`] executes code inside. A process that is started there is a child
//! of this process, so that it can be traced, waited for, and restored as a sibling of CRIU. When
//! the thread ends (with the container, or because this process was killed), process 1 dies, and
//! the kernel kills all other processes of the container.
//!
//! Process numbers below [`FIRST_PID`] are kept free for CRIU, which runs inside and must not
//! occupy a number that it has to restore. The server's IPC namespace is created when the server is
//! started: CRIU saves only those namespaces that differ from its own.
//!
//! runc is not used: it would start and restore the server as process 1, which this process could
//! neither trace nor wait for, and would put all mounts into the image. docs/decisions/no-runc.md
//! tells more.
//!
//! Deliberately absent: isolation. The server has the same privileges as outside.

mod init;
mod mounts;
mod network;

pub(crate) use init::set_last_pid;
use mounts::Root;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, sethostname};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// Directory, inside, for files that are not the machine's.
pub const OWN_DIRECTORY: &str = "/.brolga";
/// Directory, inside, for CRIU in a container with a given root directory.
pub const TOOLS: &str = "/.brolga/tools";
/// Number of the first process that is started in a container.
pub const FIRST_PID: i32 = 1000;
/// Host name inside.
const HOST_NAME: &str = "brolga";

/// The configuration of a container.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directory for the container's changes, on a file system that supports overlays.
    pub state: PathBuf,
    /// Root directory of the container, instead of the machine's.
    pub root: Option<RootDirectory>,
    /// Files and directories to bind into [`OWN_DIRECTORY`], and their names there.
    pub bound: Vec<(PathBuf, &'static str)>,
    /// Files to generate in [`OWN_DIRECTORY`], which is in memory.
    pub generated: Vec<GeneratedFile>,
}

/// A root directory other than the machine's.
#[derive(Clone, Debug)]
pub struct RootDirectory {
    /// The directory. It is not modified.
    pub directory: PathBuf,
    /// The files that CRIU needs to run inside, where its libraries do not exist: CRIU first, its
    /// dynamic linker second. They are bound into [`TOOLS`] under their file names.
    pub criu: Vec<PathBuf>,
}

/// A generated file in the memory of a container.
#[derive(Clone, Debug)]
pub struct GeneratedFile {
    /// File name in [`OWN_DIRECTORY`].
    pub name: &'static str,
    /// Type and content.
    pub content: Content,
}

/// Type and content of a [`GeneratedFile`].
#[derive(Clone, Debug)]
pub enum Content {
    /// A program or library.
    Executable(&'static [u8]),
    /// A file of that many zeros.
    Zeroed(u64),
    /// A FIFO.
    Fifo,
}

/// A failure to create a container. One line.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct ContainerError {
    /// The operation.
    action: String,
    /// The reason.
    #[source]
    source: io::Error,
}

impl ContainerError {
    fn doing<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self {
            action,
            source: source.into(),
        }
    }
}

/// Code to run inside.
type Job = Box<dyn FnOnce() + Send>;

/// The directories of a container that is being created for a restore.
#[derive(Debug)]
pub struct RestoreDirectories<'a>(&'a Path);

impl RestoreDirectories<'_> {
    /// Returns the directory of changes to the file system `name`.
    #[must_use]
    pub fn changes(&self, name: &str) -> PathBuf {
        self.0.join(mounts::CHANGES).join(name)
    }

    /// Returns the directory that is `/dev/shm` inside.
    #[must_use]
    pub fn shared_memory(&self) -> PathBuf {
        self.0.join(mounts::SHARED_MEMORY)
    }
}

/// A process in a container.
struct ContainedProcess {
    /// Its number in this process's namespace.
    pid: Pid,
    /// Its number in the container's namespace.
    number: i32,
}

/// Lists the children of this process that are in the process namespace of `init`, another child.
fn children_beside(init: Pid) -> io::Result<Vec<ContainedProcess>> {
    let namespace = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let ours = namespace(init)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        // The process may have ended since.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let field = |name| {
            status
                .lines()
                .find_map(|line: &str| line.strip_prefix(name))
        };
        let parent = field("PPid:").and_then(|parent| parent.trim().parse().ok());
        let number = field("NSpid:").and_then(|numbers| numbers.split_ascii_whitespace().last());
        let number = number.and_then(|number| number.parse().ok());
        if parent != Some(std::process::id()) || pid == init {
            continue;
        }
        if let (Some(number), Ok(theirs)) = (number, namespace(pid))
            && theirs == ours
        {
            found.push(ContainedProcess { pid, number });
        }
    }
    Ok(found)
}

/// A running container. Dropping it kills all its processes.
#[derive(Debug)]
pub struct Container {
    /// Process 1, while it exists.
    init: Mutex<Option<Pid>>,
    state: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Container {
    /// Creates an empty container. Changes of earlier containers are removed.
    ///
    /// # Errors
    /// See [`ContainerError`]; nothing is left of it then.
    pub fn create(plan: Plan) -> Result<Self, ContainerError> {
        let state = mounts::fresh_state(&plan.state)?;
        Self::create_on(plan, state, FIRST_PID)
    }

    /// Creates a container for processes that are to be restored. `prepare` is called before the
    /// directories of changes are mounted.
    ///
    /// # Errors
    /// See [`ContainerError`], or those of `prepare`; nothing is left of it then.
    pub fn create_for_restore<E: From<ContainerError>>(
        plan: Plan,
        prepare: impl FnOnce(&RestoreDirectories<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let state = mounts::fresh_state(&plan.state)?;
        prepare(&RestoreDirectories(&state))?;
        Ok(Self::create_on(plan, state, 2)?)
    }

    fn create_on(plan: Plan, state: PathBuf, first_pid: i32) -> Result<Self, ContainerError> {
        let (jobs_tx, jobs_rx) = channel();
        let (made_tx, made_rx) = channel();
        let state_of_thread = state.clone();
        let thread = std::thread::Builder::new()
            .name("container".into())
            .spawn(move || {
                let made = enter(&plan, &state_of_thread, first_pid);
                let entered = made.is_ok();
                // The creator waits for the result.
                let _ = made_tx.send(made);
                if entered {
                    serve(&jobs_rx);
                }
            })
            .map_err(ContainerError::doing("start a thread"))?;
        let init = made_rx.recv().unwrap_or_else(|_| {
            Err(ContainerError {
                action: "create a container".into(),
                source: io::ErrorKind::Other.into(),
            })
        })?;
        Ok(Self {
            init: Mutex::new(Some(init)),
            state,
            jobs: Some(jobs_tx),
            thread: Some(thread),
        })
    }

    /// Returns the changes to each file system: its name, the directory, and its path inside.
    ///
    /// # Errors
    /// The directory of changes cannot be read.
    pub fn changes(&self) -> io::Result<Vec<(String, PathBuf, PathBuf)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.state.join(mounts::CHANGES))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(io::Error::other("the path of a file system is not UTF-8"));
            };
            let path = mounts::mount_point_of(&name);
            all.push((name, entry.path(), path));
        }
        all.sort();
        Ok(all)
    }

    /// Returns the directory that is `/dev/shm` inside.
    #[must_use]
    pub fn shared_memory(&self) -> PathBuf {
        RestoreDirectories(&self.state).shared_memory()
    }

    /// Returns the first process that was started or restored in the container: a child of this
    /// process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn first_process(&self) -> io::Result<Pid> {
        let first = |process: &ContainedProcess| process.number == FIRST_PID;
        let found = self.children()?.into_iter().find(first);
        let missing = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                "the container has no first process",
            )
        };
        found.map(|process| process.pid).ok_or_else(missing)
    }

    /// Our children in the container.
    fn children(&self) -> io::Result<Vec<ContainedProcess>> {
        let init = *self.init.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(init) = init else {
            return Ok(Vec::new());
        };
        children_beside(init)
    }

    /// Runs `work` on the container's thread and returns its result: paths are those of the
    /// container, and processes that it starts are inside.
    ///
    /// # Panics
    /// Panics if `work` does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (result_tx, result_rx) = channel();
        let job = Box::new(move || {
            // The caller waits for the result.
            let _ = result_tx.send(work());
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        assert!(
            matches!(sent, Some(Ok(()))),
            "the container's thread is gone"
        );
        result_rx
            .recv()
            .expect("the container's thread finishes its work")
    }
}

impl Container {
    /// Kills all processes and waits until they have ended. Those that were started by
    /// [`Container::run`] are children of this process, and are reaped.
    pub fn end(&self) {
        let mut init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(init) = init.take() {
            // Nothing else waits for this child. The kernel reports its end when all other
            // processes of the namespace have ended.
            let left = children_beside(init);
            let _ = kill(init, Signal::SIGKILL);
            for process in left.into_iter().flatten() {
                // It may have been waited for elsewhere.
                let _ = waitpid(process.pid, None);
            }
            let _ = waitpid(init, None);
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has printed the message already.
            let _ = thread.join();
        }
        mounts::remove_state(&self.state);
    }
}

fn serve(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

/// Moves the calling thread into a new container and starts process 1.
fn enter(plan: &Plan, state: &Path, first_pid: i32) -> Result<Pid, ContainerError> {
    let namespaces = CloneFlags::CLONE_FS
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).map_err(ContainerError::doing("create namespaces (this needs root)"))?;
    sethostname(HOST_NAME).map_err(ContainerError::doing("set the host name"))?;
    network::enable_loopback().map_err(ContainerError::doing("enable the loopback interface"))?;
    let root = match &plan.root {
        Some(root) => Root::mount_directory(&root.directory, state)?,
        None => Root::mount(state)?,
    };
    root.populate(plan, state)?;
    root.enter()?;
    init::start(first_pid).map_err(ContainerError::doing("start process 1 of the container"))
}
