//! The container of a wrapped server: namespaces of its own for processes, mounts, network and host
//! name, and a root in which every replica finds the same at the same place.
//!
//! ```text
//! /                  the machine's, changes go to STATE/N/changes (overlay); other file systems
//!                    alike. Or a directory that was given, and nothing else
//! /.brolga/…         what the caller binds or puts there: working directory, tape, interposer …
//! /dev               the usual few devices; /dev/shm is STATE/N/shm
//! /proc              of the container's own processes
//! ```
//!
//! A container is a thread of ours that lives in the namespaces, and an empty process 1. Whatever is to
//! happen inside is done by [`Container::run`]; what is started there is a child of this process and has
//! its real parent outside, so that it can be traced, waited for and restored as a sibling of CRIU. When
//! the thread ends, with the container or because this process was killed, process 1 dies, and the kernel
//! ends all others with it.
//!
//! Process numbers below [`FIRST_PID`] are kept free for CRIU, which runs inside and must not sit on a
//! number that it is to bring back. The server's own IPC namespace is made when it is started: CRIU only
//! writes down what differs from its own.
//!
//! Not runc: it would start and restore the server as process 1, as nobody's child that could trace it or
//! wait for it, with all mounts in the image. docs/decisions/no-runc.md has what was tried.
//!
//! Deliberately absent: a border. The server has the rights that it has outside.

mod init;
mod mounts;
mod network;

pub(crate) use init::last_number;
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

/// Where the container keeps what is not the machine's.
pub const OWN_DIRECTORY: &str = "/.brolga";
/// Where a container with a root of its own has the program CRIU.
pub const TOOLS: &str = "/.brolga/tools";
/// The first process that is started in a container has this number.
pub const FIRST_PID: i32 = 1000;
/// What `uname` says inside.
const HOST_NAME: &str = "brolga";

/// What a container is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory for the container's changes, on a file system that an overlay can write to.
    pub state: PathBuf,
    /// The directory whose content the container has instead of the machine's files.
    pub root: Option<Foreign>,
    /// Files and directories that are bound into [`OWN_DIRECTORY`], and their names there.
    pub bound: Vec<(PathBuf, &'static str)>,
    /// Files in memory in [`OWN_DIRECTORY`].
    pub made: Vec<Made>,
}

/// A root that is not the machine's.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The directory. It is not changed.
    pub directory: PathBuf,
    /// CRIU runs inside, where its libraries are not: the files that it needs to run, with CRIU first and
    /// its dynamic linker second. They are bound into [`TOOLS`] under their last names.
    pub criu: Vec<PathBuf>,
}

/// A file in the memory of a container.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name in [`OWN_DIRECTORY`].
    pub name: &'static str,
    /// What it is.
    pub kind: MadeKind,
}

/// See [`Made`].
#[derive(Clone, Debug)]
pub enum MadeKind {
    /// A program or library.
    Executable(&'static [u8]),
    /// Zeros.
    Zeroed(u64),
    /// A FIFO.
    Fifo,
}

/// Why there is no container. One line.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct ContainerError {
    /// What was tried.
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

type Job = Box<dyn FnOnce() + Send>;

/// The directories of a container that is about to be made for a restore.
#[derive(Debug)]
pub struct Places<'a>(&'a Path);

impl Places<'_> {
    /// The changes to the file system of a name.
    #[must_use]
    pub fn changes(&self, name: &str) -> PathBuf {
        self.0.join(mounts::CHANGES).join(name)
    }

    /// What is `/dev/shm` inside.
    #[must_use]
    pub fn shared_memory(&self) -> PathBuf {
        self.0.join(mounts::SHARED_MEMORY)
    }
}

/// A process in a container.
struct Inside {
    /// Its number outside.
    pid: Pid,
    /// Its number inside.
    number: i32,
}

/// The children of this process in the process namespace of `init`, another child of it.
fn children_beside(init: Pid) -> io::Result<Vec<Inside>> {
    let namespace = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let ours = namespace(init)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        // It may have ended since.
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
            found.push(Inside { pid, number });
        }
    }
    Ok(found)
}

/// A running container. It ends with all its processes when it is dropped.
#[derive(Debug)]
pub struct Container {
    /// Process 1, while it is there.
    init: Mutex<Option<Pid>>,
    state: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Container {
    /// Makes an empty container. What earlier ones have changed is thrown away.
    ///
    /// # Errors
    /// See [`ContainerError`]; nothing is left then.
    pub fn create(plan: Plan) -> Result<Self, ContainerError> {
        let state = mounts::fresh_state(&plan.state)?;
        Self::create_on(plan, state, FIRST_PID)
    }

    /// Makes a container for processes that are to be restored: `prepare` is given the directory of the
    /// container's changes before it is mounted.
    ///
    /// # Errors
    /// See [`ContainerError`], or those of `prepare`; nothing is left then.
    pub fn create_for_restore<E: From<ContainerError>>(
        plan: Plan,
        prepare: impl FnOnce(&Places<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let state = mounts::fresh_state(&plan.state)?;
        prepare(&Places(&state))?;
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
                // The creator waits for it.
                let _ = made_tx.send(made);
                if entered {
                    serve(&jobs_rx);
                }
            })
            .map_err(ContainerError::doing("start a thread"))?;
        let init = made_rx.recv().unwrap_or_else(|_| {
            Err(ContainerError {
                action: "make a container".into(),
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

    /// The changes to each file system: its name, the directory, and where it is inside.
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
            let place = mounts::place_of(&name);
            all.push((name, entry.path(), place));
        }
        all.sort();
        Ok(all)
    }

    /// The directory that is `/dev/shm` inside.
    #[must_use]
    pub fn shared_memory(&self) -> PathBuf {
        Places(&self.state).shared_memory()
    }

    /// The first process that was started in the container, or brought back: a child of this process.
    ///
    /// # Errors
    /// There is none.
    pub fn first_process(&self) -> io::Result<Pid> {
        let first = |process: &Inside| process.number == FIRST_PID;
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
    fn children(&self) -> io::Result<Vec<Inside>> {
        let init = *self.init.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(init) = init else {
            return Ok(Vec::new());
        };
        children_beside(init)
    }

    /// Does something on the thread that lives in the container: paths mean what they mean inside, and
    /// processes that are started are inside.
    ///
    /// # Panics
    /// When the work does, as it would here.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (result_tx, result_rx) = channel();
        let job = Box::new(move || {
            // Whoever asked waits for it.
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
    /// Kills all processes and waits until they are gone. Those that were started by
    /// [`Container::run`] are children of this process, and are collected.
    pub fn end(&self) {
        let mut init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(init) = init.take() {
            // A child of ours for which nobody else waits; the kernel lets it go when all processes of its
            // namespace are gone.
            let left = children_beside(init);
            let _ = kill(init, Signal::SIGKILL);
            for process in left.into_iter().flatten() {
                // Perhaps somebody else was quicker.
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
            // It has panicked already if it has, and said so.
            let _ = thread.join();
        }
        mounts::forget_state(&self.state);
    }
}

fn serve(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

/// Moves the calling thread into a new container and makes process 1.
fn enter(plan: &Plan, state: &Path, first_pid: i32) -> Result<Pid, ContainerError> {
    let apart = CloneFlags::CLONE_FS
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    unshare(apart).map_err(ContainerError::doing("make namespaces (that takes root)"))?;
    sethostname(HOST_NAME).map_err(ContainerError::doing("set the host name"))?;
    network::raise_loopback().map_err(ContainerError::doing("raise the loopback interface"))?;
    let root = match &plan.root {
        Some(root) => Root::mount_alone(&root.directory, state)?,
        None => Root::mount(state)?,
    };
    root.furnish(plan, state)?;
    root.enter()?;
    init::start(first_pid).map_err(ContainerError::doing("start process 1 of the container"))
}
