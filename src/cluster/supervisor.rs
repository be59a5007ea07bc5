//! Supervises the nodes of a local cluster: starts, restarts and stops them.
//!
//! Each node is a process of its own, `brolga node --config FILE`, exactly as in a real deployment;
//! only their parent is shared. A node that dies is started again after a pause that grows while it
//! keeps dying. A node that ends with [`EXPLAINED`] has said why on its standard error: before
//! the cluster was ever up that is a mistake of the user's, and everything stops.
//!
//! Nodes die with their supervisor (`PR_SET_PDEATHSIG`), and servers with their node, so nothing is
//! left over even after `kill -9`.

use crate::cluster::{Cluster, node_dir};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Exit code of a node whose last line on standard error says what is wrong, in words for the user
/// (`EX_CONFIG` of sysexits).
pub const EXPLAINED: u8 = 78;
const PAUSE_LEAST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A node that ran this long is considered healthy.
const WELL_AFTER: Duration = Duration::from_secs(10);
/// The time that a node may take to stop by itself.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// An event of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node was started.
    Started {
        /// The node id.
        node: u64,
        /// The process id.
        pid: u32,
    },
    /// The node has exited.
    Died {
        /// The node id.
        node: u64,
        /// The cause, with the last lines of its standard error.
        how: String,
        /// The delay until it is restarted; `None`: never.
        again_in: Option<Duration>,
    },
    /// The node cannot work, says why, and is not restarted.
    Failed {
        /// The node id.
        node: u64,
        /// The reason, one line.
        why: String,
    },
}

/// The environment of a node's process, where it differs from that of this process.
#[derive(Clone, Debug, Default)]
pub struct ProcessEnvironment {
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The umask.
    pub umask: Option<u32>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// The delay of the first start.
    pub delay: Duration,
}

/// The nodes of a local cluster. Dropping it kills them; [`Supervisor::stop`] asks them first.
#[derive(Debug)]
pub struct Supervisor {
    keepers: JoinSet<()>,
    events_rx: mpsc::UnboundedReceiver<Event>,
    stop_tx: watch::Sender<bool>,
    was_up: Arc<AtomicBool>,
}

impl Supervisor {
    /// Starts a node for each member. To be called on the thread that lives longest: when it ends,
    /// the kernel kills the nodes.
    ///
    /// # Errors
    /// When the program's own file cannot be found.
    pub fn start(cluster: &Cluster, restart: bool) -> io::Result<Self> {
        Self::start_in_environments(cluster, restart, BTreeMap::new())
    }

    /// Starts a node for each member, each in its own environment.
    ///
    /// # Errors
    /// When the program's own file cannot be found.
    pub fn start_in_environments(
        cluster: &Cluster,
        restart: bool,
        mut environment: BTreeMap<u64, ProcessEnvironment>,
    ) -> io::Result<Self> {
        let program = own_program()?;
        let (events_tx, events_rx) = mpsc::unbounded_channel();
        let (stop_tx, stop_rx) = watch::channel(false);
        let was_up = Arc::new(AtomicBool::new(false));
        let mut keepers = JoinSet::new();
        for member in &cluster.file().members {
            let keeper = Keeper {
                node: member.id,
                program: program.clone(),
                config: cluster.config_path(member.id),
                config_text: fs::read_to_string(cluster.config_path(member.id))?,
                stderr: node_dir(cluster.data(), member.id).join("node.err"),
                restart,
                environment: environment.remove(&member.id).unwrap_or_default(),
                was_up: Arc::clone(&was_up),
                events_tx: events_tx.clone(),
            };
            keepers.spawn(keeper.keep(stop_rx.clone()));
        }
        Ok(Self {
            keepers,
            events_rx,
            stop_tx,
            was_up,
        })
    }

    /// Waits for the next event; `None` when no node is left. May be dropped and called again.
    pub async fn event(&mut self) -> Option<Event> {
        self.events_rx.recv().await
    }

    /// Notes that the whole cluster was up: from now on no failure of a node stops the others.
    pub fn note_up(&self) {
        self.was_up.store(true, Ordering::Relaxed);
    }

    /// Asks all nodes to stop, waits for them, and kills those that do not within a few seconds.
    pub async fn stop(mut self) {
        // Nobody listens when all keepers have ended already.
        let _ = self.stop_tx.send(true);
        while self.keepers.join_next().await.is_some() {}
    }
}

/// The file to start nodes from. A rebuild may have replaced it; the running one is still there
/// under `/proc`, only with a less telling process name.
pub fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(if path.exists() {
        path
    } else {
        PathBuf::from("/proc/self/exe")
    })
}

/// Keeps one node running.
struct Keeper {
    node: u64,
    program: PathBuf,
    config: PathBuf,
    /// The content of that file: a node that has lost all its files gets it again.
    config_text: String,
    stderr: PathBuf,
    restart: bool,
    environment: ProcessEnvironment,
    was_up: Arc<AtomicBool>,
    events_tx: mpsc::UnboundedSender<Event>,
}

impl Keeper {
    async fn keep(self, mut stop_rx: watch::Receiver<bool>) {
        let mut pause = PAUSE_LEAST;
        tokio::select! {
            () = sleep(self.environment.delay) => {}
            _ = stop_rx.changed() => return,
        }
        loop {
            let started = Instant::now();
            let mut child = match self.spawn() {
                Ok(child) => child,
                Err(error) => return self.failed(format!("cannot start a node: {error}")),
            };
            self.tell(Event::Started {
                node: self.node,
                pid: child.id().unwrap_or_default(),
            });
            let status = tokio::select! {
                status = child.wait() => status,
                _ = stop_rx.changed() => return stop(&mut child).await,
            };
            if started.elapsed() >= WELL_AFTER {
                pause = PAUSE_LEAST;
            }
            let Some(pause_now) = self.judge(status, pause) else {
                return;
            };
            tokio::select! {
                () = sleep(pause_now) => {}
                _ = stop_rx.changed() => return,
            }
            pause = (2 * pause).min(PAUSE_MOST);
        }
    }

    /// Reports the exit; returns the delay of the next start, if there is one.
    fn judge(&self, status: io::Result<ExitStatus>, pause: Duration) -> Option<Duration> {
        let words = last_words(&self.stderr);
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.failed(format!("cannot wait for the node: {error}"));
                return None;
            }
        };
        let explained = status.code() == Some(EXPLAINED.into());
        if explained && !self.was_up.load(Ordering::Relaxed) {
            self.failed(words.unwrap_or_else(|| "it did not say why".into()));
            return None;
        }
        let again_in = self.restart.then_some(pause);
        let how = describe(status, words);
        self.tell(Event::Died {
            node: self.node,
            how,
            again_in,
        });
        again_in
    }

    fn failed(&self, why: String) {
        self.tell(Event::Failed {
            node: self.node,
            why,
        });
    }

    fn tell(&self, event: Event) {
        // Nobody listens while everything is being stopped.
        let _ = self.events_tx.send(event);
    }

    fn give_config(&self) -> io::Result<()> {
        if self.config.exists() {
            return Ok(());
        }
        if let Some(dir) = self.config.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&self.config, &self.config_text)
    }

    fn spawn(&self) -> io::Result<Child> {
        self.give_config()?;
        let mut command = Command::new(&self.program);
        command
            .args(["node", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&self.stderr)?)
            .process_group(0) // Ctrl-C is for us alone: we stop them in order
            .kill_on_drop(true);
        let environment = &self.environment;
        let variables = environment.env.iter();
        command.envs(variables.map(|(name, value)| (name, value)));
        if let Some(cwd) = &environment.cwd {
            command.current_dir(cwd);
        }
        let mask = environment.umask.map(Mode::from_bits_truncate);
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec this makes three system calls and does not allocate.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                if nix::unistd::getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                if let Some(mask) = mask {
                    umask(mask);
                }
                Ok(())
            });
        }
        command.spawn()
    }
}

async fn stop(child: &mut Child) {
    if let Some(pid) = child.id() {
        // It may have died by itself just now, which is as well.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    }
    if timeout(STOP_GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn describe(status: ExitStatus, words: Option<String>) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(0)) => "stopped".into(),
        (None, code) => format!("failed with status {}", code.unwrap_or_default()),
    };
    match words {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

/// The end of a node's standard error: its error line with what follows it (the server's own output), or
/// the message of a panic, or the last line.
fn last_words(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    let meant = text
        .rfind("brolga: ")
        .filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    if let Some(at) = meant {
        return Some(text[at + "brolga: ".len()..].to_owned());
    }
    // The backtrace of a panic comes after its message.
    let panic = text.lines().find(|line| line.contains("panicked at"));
    panic
        .or_else(|| text.lines().last())
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_those_meant_for_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.err");
        assert_eq!(last_words(&path), None);
        fs::write(&path, "warning\nbrolga: it ended:\n its words\n\n").unwrap();
        assert_eq!(last_words(&path).as_deref(), Some("it ended:\n its words"));
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(last_words(&path).as_deref(), Some("two"));
    }

    #[test]
    fn deaths_are_described() {
        let killed = describe(ExitStatus::from_raw(9), None);
        assert_eq!(killed, "killed by SIGKILL");
        let failed = describe(ExitStatus::from_raw(1 << 8), Some("why".into()));
        assert_eq!(failed, "failed with status 1: why");
    }
}
