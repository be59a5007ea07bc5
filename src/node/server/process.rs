//! The wrapped server as the node sees it: something that can be started on a tape, watched, and
//! started again.

use crate::server::start_error::{ContainmentError, StartError};
use brolga_checkpoint::container::{Container, Plan, RootDirectory};
use brolga_checkpoint::criu::Criu;
use brolga_checkpoint::image::{Imager, LastSnapshot, RestoredServer};
use brolga_checkpoint::{CheckpointError, Checkpointer, Position};
use brolga_config::{Containment, NodeConfig};
use brolga_os::sys;
use brolga_server_image::fingerprint::{self, FingerprintError};
use brolga_server_image::launch::contained::{self, Places, Program};
use brolga_server_image::launch::{self, LaunchSpec, Lifeline};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

/// Bytes of the server's standard error that are shown when it ends too early.
const STDERR_TAIL_BYTES: u64 = 2000;

/// Name of a tape's memory object, as `/proc/<pid>/fd` shows it.
const TAPE_NAME: &std::ffi::CStr = c"brolga-tape";

fn not_dumped(why: &str) -> CheckpointError {
    CheckpointError::Unsupported(why.to_owned())
}

/// The objects of a tape: fresh, zeroed memory, and a doorbell that becomes readable when the
/// server writes to it.
#[derive(Debug)]
pub struct Objects {
    /// The memory.
    pub tape: OwnedFd,
    /// The doorbell.
    pub doorbell: OwnedFd,
}

impl Objects {
    /// Anonymous ones, which the server is given as descriptors.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn of_memory(tape_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            tape: sys::memory_object(TAPE_NAME, tape_bytes)?,
            doorbell: sys::event_counter()?,
        })
    }
}

/// Dumps a server, given by its first process, at a position, into an empty directory. The server
/// is idle, and runs on afterwards.
pub type Dumper = Box<dyn FnOnce(u32, Position, &Path) -> Result<(), CheckpointError> + Send>;

/// Starts servers.
pub trait ServerHost {
    /// Returns the objects for the next server's tape.
    ///
    /// # Errors
    /// See [`StartError`].
    fn objects(&mut self, tape_bytes: u64) -> Result<Objects, StartError> {
        Objects::of_memory(tape_bytes).map_err(StartError::doing("cannot make a tape"))
    }

    /// Starts a server in its genesis state on a fresh tape. Called on the thread of the event
    /// loop.
    ///
    /// # Errors
    /// See [`StartError`].
    fn start(
        &mut self,
        tape: BorrowedFd<'_>,
        doorbell: BorrowedFd<'_>,
    ) -> Result<Started, StartError>;

    /// Returns an imager that dumps the running server, on any thread. All of one server share what
    /// they remember of its last dump, so that the next one need not copy files that have not
    /// changed.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`]: it cannot be dumped, and why.
    fn imager(&mut self, _tape_bytes: u64) -> Result<Imager, CheckpointError> {
        Err(not_dumped("no server of this kind can be"))
    }

    /// Returns a dumper of the running server, of whatever kind.
    ///
    /// # Errors
    /// As [`ServerHost::imager`].
    fn dumper(&mut self, tape_bytes: u64) -> Result<Dumper, CheckpointError> {
        let mut imager = self.imager(tape_bytes)?;
        Ok(Box::new(move |pid, position, directory| {
            imager.dump(pid, position, directory)
        }))
    }

    /// Brings a server back from what a dumper has dumped into `directory`, with its files. It
    /// sleeps until a tape is made of the objects, and then goes on from its first entry. Called on
    /// the thread of the event loop.
    ///
    /// # Errors
    /// See [`CheckpointError`]; no process is left then.
    fn restore(
        &mut self,
        directory: &Path,
        tape_bytes: u64,
    ) -> Result<(Objects, Started), CheckpointError> {
        let _ = (directory, tape_bytes);
        Err(not_dumped("no server of this kind can be"))
    }

    /// The end of what the server wrote to its standard error.
    fn stderr_tail(&self) -> String;
}

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    /// The first process of the server, a child of the node.
    pub pid: i32,
    /// The lifeline of its process tree; `None`: there is no tree, or the container holds it.
    pub lifeline: Option<Lifeline>,
    /// The container that it runs in.
    pub container: Option<Arc<Container>>,
}

/// The configured command, run under the interposer.
#[derive(Debug)]
pub struct WrappedServer {
    config: NodeConfig,
    /// Once there was a container.
    criu: Option<Criu>,
    /// Made for the next server.
    container: Option<Arc<Container>>,
    /// The running server's.
    running: Weak<Container>,
    /// The memory of its last dump.
    last_snapshot: LastSnapshot,
    traceable: bool,
}

impl WrappedServer {
    /// The server of this node.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            config: config.clone(),
            criu: None,
            container: None,
            running: Weak::new(),
            last_snapshot: LastSnapshot::default(),
            traceable: false,
        }
    }

    /// Lets any process of the same user trace it, or not.
    #[must_use]
    pub fn traceable(self, traceable: bool) -> Self {
        Self { traceable, ..self }
    }

    /// Puts files and directories into the state in which a server starts.
    fn prepare(&self) -> Result<(), StartError> {
        let config = &self.config;
        launch::prepare_workdir(&config.work_dir(), config.genesis.as_deref())?;
        launch::prepare_temporary(&config.temporary_dir())?;
        let path = config.server_stderr();
        // Only what this run says is of interest when it ends too early.
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StartError::Remove { path, source })
            }
            _ => Ok(()),
        }
    }

    fn places(&self) -> Result<Places, FingerprintError> {
        let config = &self.config;
        Ok(Places {
            state: config.container_dir(),
            root: self.root()?,
            work: config.work_dir(),
            temporary: config.temporary_dir(),
            stdout: config.server_stdout(),
            stderr: config.server_stderr(),
        })
    }

    /// The root file system of the container, if it is not the machine's.
    fn root(&self) -> Result<Option<RootDirectory>, FingerprintError> {
        let Some(directory) = self.config.root.clone() else {
            return Ok(None);
        };
        let criu = self.criu.as_ref().map(Criu::program);
        let criu = criu.map_or(Ok(Vec::new()), fingerprint::to_run)?;
        Ok(Some(RootDirectory { directory, criu }))
    }

    /// Makes a container, if there is to be one and it can be.
    fn contain(&mut self, tape_bytes: u64) -> Result<Option<Container>, StartError> {
        if self.config.container == Containment::None {
            return Ok(None);
        }
        let made = match self.probe() {
            Err(error) => Err(error.into()),
            Ok(_) => self.make_container(tape_bytes),
        };
        match (made, self.config.container) {
            (Ok(container), _) => Ok(Some(container)),
            (Err(why), Containment::Required) => Err(StartError::NoContainer(why)),
            (Err(why), _) => {
                tracing::warn!("the server runs without a container: {why}");
                Ok(None)
            }
        }
    }

    fn probe(&mut self) -> Result<Criu, CheckpointError> {
        if let Some(criu) = &self.criu {
            return Ok(criu.clone());
        }
        Ok(self.criu.insert(Criu::probe()?).clone())
    }

    fn make_container(&self, tape_bytes: u64) -> Result<Container, ContainmentError> {
        let places = self.places()?;
        places.prepare_output()?;
        Ok(Container::create(places.plan(tape_bytes))?)
    }

    fn plan(&self, tape_bytes: u64) -> Result<Plan, CheckpointError> {
        let places = self.places();
        let places = places.map_err(|error| CheckpointError::Failed(error.to_string()))?;
        Ok(places.plan(tape_bytes))
    }

    fn start_contained(&mut self, container: Arc<Container>) -> Result<Started, StartError> {
        let config = &self.config;
        let program = Program {
            argv: config.command.iter().map(Into::into).collect(),
            env: config.environment(),
            random_seed: at_random(config),
            cpu: config.pin_cpu,
            descriptors: config.descriptors_max,
        };
        let launched = contained::spawn(&container, program)?;
        self.running = Arc::downgrade(&container);
        self.last_snapshot = LastSnapshot::default();
        Ok(Started {
            pid: launched.pid.as_raw(),
            lifeline: None,
            container: Some(container),
        })
    }
}

impl ServerHost for WrappedServer {
    fn objects(&mut self, tape_bytes: u64) -> Result<Objects, StartError> {
        self.prepare()?;
        let Some(container) = self.contain(tape_bytes)? else {
            let made = Objects::of_memory(tape_bytes);
            return made.map_err(StartError::doing("cannot make a tape"));
        };
        let opened = contained::open_tape(&container);
        self.container = Some(Arc::new(container));
        let (tape, doorbell) = opened?;
        Ok(Objects { tape, doorbell })
    }

    fn start(
        &mut self,
        tape: BorrowedFd<'_>,
        doorbell: BorrowedFd<'_>,
    ) -> Result<Started, StartError> {
        if let Some(container) = self.container.take() {
            return self.start_contained(container);
        }
        let config = &self.config;
        let spec = LaunchSpec {
            argv: config.command.iter().map(Into::into).collect(),
            env: config.environment(),
            cwd: config.work_dir(),
            temporary: config.temporary_dir(),
            tape,
            doorbell,
            stdout: config.server_stdout(),
            stderr: config.server_stderr(),
            random_seed: at_random(config),
            cpu: config.pin_cpu,
            descriptors: config.descriptors_max,
            contained: false,
            traceable: self.traceable,
        };
        let launched = launch::spawn(&spec)?;
        Ok(Started {
            pid: launched.pid.as_raw(),
            lifeline: launched.lifeline,
            container: None,
        })
    }

    fn imager(&mut self, tape_bytes: u64) -> Result<Imager, CheckpointError> {
        let container = self.running.upgrade();
        let container = container.ok_or_else(|| not_dumped("the server is in no container"))?;
        let (criu, cpu) = (self.probe()?, self.config.pin_cpu);
        let plan = self.plan(tape_bytes)?;
        let imager = Imager::new(criu, plan, Some(container), cpu);
        Ok(imager.with_last_snapshot(self.last_snapshot.clone()))
    }

    fn restore(
        &mut self,
        directory: &Path,
        tape_bytes: u64,
    ) -> Result<(Objects, Started), CheckpointError> {
        let criu = self.probe()?;
        let plan = self.plan(tape_bytes)?;
        let mut imager = Imager::new(criu, plan, None, self.config.pin_cpu);
        let RestoredServer { pid, container } = imager.restore(directory)?;
        self.running = Arc::downgrade(&container);
        self.last_snapshot = LastSnapshot::default();
        let opened = contained::open_tape(&container);
        let started = Started {
            pid,
            lifeline: None,
            container: Some(container),
        };
        let (tape, doorbell) = opened.map_err(io::Error::other)?;
        Ok((Objects { tape, doorbell }, started))
    }

    fn stderr_tail(&self) -> String {
        tail(&self.config.server_stderr()).unwrap_or_default()
    }
}

/// The seed of all randomness the server is given; the same on every replica of a cluster.
pub(crate) fn seed(config: &NodeConfig) -> [u8; 32] {
    let cluster = config.cluster.0.to_le_bytes();
    let mut seed = [0; 32];
    for (index, word) in seed.chunks_mut(8).enumerate() {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&cluster, index as u64);
        word.copy_from_slice(&hash.to_le_bytes());
    }
    seed
}

/// The bytes behind `AT_RANDOM`: of the same source as the seed, but not a part of it.
fn at_random(config: &NodeConfig) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (index, word) in bytes.chunks_mut(8).enumerate() {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&seed(config), 100 + index as u64);
        word.copy_from_slice(&hash.to_le_bytes());
    }
    bytes
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(STDERR_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(STDERR_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A running server: told of by the poll when its first process ends, and killed with its whole
/// tree when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    lifeline: Option<Lifeline>,
    container: Option<Arc<Container>>,
    handle: OwnedFd,
    registry: Registry,
    ended: bool,
}

impl Process {
    /// Watches a server under `token`.
    ///
    /// # Errors
    /// The kernel does not let us watch it.
    pub(crate) fn watch(started: Started, registry: &Registry, token: Token) -> io::Result<Self> {
        let Started {
            pid,
            lifeline,
            container,
        } = started;
        let handle = sys::process_handle(pid)?;
        let registry = registry.try_clone()?;
        registry.register(
            &mut SourceFd(&handle.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            pid,
            lifeline,
            container,
            handle,
            registry,
            ended: false,
        })
    }

    /// The number of the first process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns true when a process of its tree is gone. `number` is the kernel's, as the tree sees
    /// it.
    pub(crate) fn has_lost(&self, number: i32) -> bool {
        // Of the first one the poll tells. What is in a container has numbers of its own.
        let processes = Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join("proc");
        number != self.pid && processes.is_dir() && is_gone(&processes, number)
    }

    /// Kills it; the poll tells when it has ended.
    pub(crate) fn kill(&self) {
        sys::kill(self.pid);
    }

    /// Returns the wait status of the first process, once it has ended.
    ///
    /// # Errors
    /// The process is not a child of the node.
    pub(crate) fn ended(&mut self) -> io::Result<Option<i32>> {
        let status = sys::reap(self.pid)?;
        self.ended |= status.is_some();
        Ok(status)
    }
}

/// Returns true when a process is not there, or has ended with all of its threads and waits to be
/// reaped.
fn is_gone(processes: &Path, number: i32) -> bool {
    let folder = processes.join(number.to_string());
    let Ok(text) = fs::read_to_string(folder.join("stat")) else {
        return true;
    };
    let state = text
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    let threads = || fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
    matches!(state, Some('Z' | 'X')) && threads() <= 1
}

impl Drop for Process {
    fn drop(&mut self) {
        // The descriptor is closed next, so that failing to take it off the poll changes nothing.
        let _ = self
            .registry
            .deregister(&mut SourceFd(&self.handle.as_raw_fd()));
        if !self.ended {
            sys::kill_and_reap(self.pid);
        }
        if let Some(lifeline) = self.lifeline.take()
            && !lifeline.cut()
        {
            tracing::warn!("a process of the server was killed and does not go away");
        }
        if let Some(container) = self.container.take() {
            container.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn alone(pid: i32) -> Started {
        Started {
            pid,
            lifeline: None,
            container: None,
        }
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "they are collected by number")]
    fn a_process_that_is_dropped_is_killed() {
        let mut poll = mio::Poll::new().unwrap();
        let child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut process = Process::watch(alone(pid), poll.registry(), Token(7)).unwrap();
        assert_eq!(process.ended().unwrap(), None);
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let child = std::process::Command::new("false").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut process = Process::watch(alone(pid), poll.registry(), Token(7)).unwrap();
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5)))
            .unwrap();
        assert_eq!(events.iter().next().unwrap().token(), Token(7));
        assert_eq!(
            sys::describe_status(process.ended().unwrap().unwrap()),
            "exit status 1"
        );
    }

    #[test]
    fn a_process_is_gone_also_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_gone(Path::new("/proc"), pid));
        child.kill().unwrap();
        let handle = sys::process_handle(pid).unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let mut ended = SourceFd(&handle.as_raw_fd());
        poll.registry()
            .register(&mut ended, Token(7), Interest::READABLE)
            .unwrap();
        poll.poll(
            &mut mio::Events::with_capacity(8),
            Some(Duration::from_secs(5)),
        )
        .unwrap();
        assert!(is_gone(Path::new("/proc"), pid));
        child.wait().unwrap();
        assert!(is_gone(Path::new("/proc"), pid));
    }

    #[test]
    fn the_tail_of_a_long_file_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("err");
        fs::write(&path, format!("{}last line\n", "x".repeat(5000))).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.ends_with("last line") && tail.len() <= 2000);
    }
}
