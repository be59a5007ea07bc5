//! The wrapped server as the node sees it: something that can be started on a tape, watched, and
//! started again.

use super::sys;
use crate::config::NodeConfig;
use crate::launch::{self, LaunchSpec, Lifeline};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Bytes of the server's standard error that are shown when it ends too early.
const LAST_WORDS_BYTES: u64 = 2000;

/// Starts servers.
pub trait ServerHost {
    /// Starts a server in its genesis state on a fresh tape. Called on the reactor's thread.
    ///
    /// # Errors
    /// One line for the user.
    fn start(&mut self, tape: BorrowedFd<'_>, doorbell: BorrowedFd<'_>) -> Result<Started, String>;

    /// The end of what the server wrote to its standard error.
    fn last_words(&self) -> String;
}

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    /// Its first process, a child of ours.
    pub pid: i32,
    /// What its whole process tree hangs on; `None`: there is no tree.
    pub lifeline: Option<Lifeline>,
}

/// The real thing: the configured command under the interposer.
#[derive(Debug)]
pub struct WrappedServer {
    config: NodeConfig,
}

impl WrappedServer {
    /// The server of this node.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }
}

impl ServerHost for WrappedServer {
    fn start(&mut self, tape: BorrowedFd<'_>, doorbell: BorrowedFd<'_>) -> Result<Started, String> {
        let config = &self.config;
        let cwd = config.work_dir();
        launch::prepare_workdir(&cwd, config.genesis.as_deref())
            .map_err(|error| error.to_string())?;
        let temporary = config.temporary_dir();
        launch::prepare_temporary(&temporary).map_err(|error| error.to_string())?;
        let stderr = config.server_stderr();
        // Only what this run says is of interest when it ends too early.
        match fs::remove_file(&stderr) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", stderr.display()));
            }
            _ => {}
        }
        let spec = LaunchSpec {
            argv: config.command.iter().map(Into::into).collect(),
            env: config.environment(),
            cwd,
            temporary,
            tape,
            doorbell,
            stdout: config.server_stdout(),
            stderr,
            random_seed: at_random(config),
            cpu: config.pin_cpu,
            descriptors: config.descriptors,
        };
        let launched = launch::spawn(&spec).map_err(|error| error.to_string())?;
        Ok(Started {
            pid: launched.pid.as_raw(),
            lifeline: Some(launched.lifeline),
        })
    }

    fn last_words(&self) -> String {
        tail(&self.config.server_stderr()).unwrap_or_default()
    }
}

/// The seed of all randomness the server is given; the same on every replica of a cluster.
pub fn seed(config: &NodeConfig) -> [u8; 32] {
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
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A running server: told of by the poll when its first process ends, and killed with its whole tree when
/// it is dropped.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    lifeline: Option<Lifeline>,
    handle: OwnedFd,
    registry: Registry,
    ended: bool,
}

impl Process {
    /// Watches a server under `token`.
    ///
    /// # Errors
    /// The kernel does not let us watch it.
    pub fn watch(started: Started, registry: &Registry, token: Token) -> io::Result<Self> {
        let Started { pid, lifeline } = started;
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
            handle,
            registry,
            ended: false,
        })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its wait status, once it has ended.
    ///
    /// # Errors
    /// It is not our child.
    pub fn ended(&mut self) -> io::Result<Option<i32>> {
        let status = sys::reap(self.pid)?;
        self.ended |= status.is_some();
        Ok(status)
    }
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
    fn the_tail_of_a_long_file_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("err");
        fs::write(&path, format!("{}last line\n", "x".repeat(5000))).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.ends_with("last line") && tail.len() <= 2000);
    }
}
