//! A cluster under `brolga run`, made to fail.
//!
//! Waiting is always for a condition with a deadline. Whatever happens, dropping the cluster stops
//! all of it; after a panic it says what the nodes said and leaves the data where they are.

use crate::harness::{
    PATIENCE, brolga, containment, eventually, finish, free_port, replica, runs, signal,
};
use crate::view::View;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Clusters compete for processors and for ports on the same addresses.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Where a frontend alone listens: no replica's address.
const SIDECAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 100);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 25;

/// For tests that start nodes in another way: nobody else's cluster runs meanwhile.
pub fn alone() -> MutexGuard<'static, ()> {
    let only = ONE_AT_A_TIME.lock();
    only.unwrap_or_else(PoisonError::into_inner)
}

/// Shows a line past the test harness, which keeps what is printed to itself.
pub fn say(line: &str) {
    // That nobody reads it does not matter.
    let _ = writeln!(stdout(), "    {line}");
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub port: u16,
    options: Vec<String>,
    command: Vec<String>,
}

impl Setup {
    /// `command` makes the command line from the port.
    pub fn new(command: impl FnOnce(u16) -> Vec<String>) -> Self {
        let port = free_port();
        Self {
            port,
            options: Vec::new(),
            command: command(port),
        }
    }

    pub fn store() -> Self {
        Self::new(crate::harness::store)
    }

    /// A command line that is complete, and the options before it.
    pub fn given(port: u16, options: Vec<String>, command: Vec<String>) -> Self {
        Self {
            port,
            options,
            command,
        }
    }

    /// Redis with `extra` arguments; `None`, and said so, when it is not installed.
    pub fn redis(test: &str, extra: &[&str]) -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            say(&format!(
                "{test}: SKIPPED, redis-server is not installed (tests/setup.sh)"
            ));
            return None;
        }
        let words = |port: u16| {
            let port = port.to_string();
            let fixed = ["redis-server", "--port", &port, "--save", ""];
            let all = fixed.iter().chain(extra);
            all.map(|word| (*word).to_owned()).collect()
        };
        Some(Self::new(words))
    }

    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.to_owned());
        self
    }

    /// Random delays in the servers, other ones on each replica.
    #[must_use]
    pub fn perturbed(self, most_us: u32) -> Self {
        self.option("--perturb-us", &most_us.to_string())
    }

    /// Answers wait for a majority.
    #[must_use]
    pub fn voting(mut self) -> Self {
        self.options.push("--vote".into());
        self
    }

    #[must_use]
    pub fn never_restarting(mut self) -> Self {
        self.options.push("--no-restart".into());
        self
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    dir: Option<TempDir>,
    running: Run,
    /// Nodes that a test has started by itself.
    strays: Vec<Child>,
    _only: MutexGuard<'static, ()>,
}

/// One `brolga run`.
#[derive(Debug)]
struct Run {
    child: Child,
    lines_rx: Receiver<String>,
    transcript: Vec<String>,
}

impl Cluster {
    /// Starts a new one and waits until it says that it is up.
    pub fn start(setup: Setup) -> Self {
        let only = alone();
        let dir = tempfile::tempdir().unwrap();
        let running = Run::spawn(&setup, &dir.path().join("data"));
        let mut cluster = Self {
            setup,
            dir: Some(dir),
            running,
            strays: Vec::new(),
            _only: only,
        };
        cluster.running.wait_for_line("Ctrl-C");
        cluster
    }

    pub fn data(&self) -> PathBuf {
        let dir = self.dir.as_ref().expect("it is only taken by drop");
        dir.path().join("data")
    }

    pub fn node_dir(&self, node: u64) -> PathBuf {
        self.data().join(format!("node-{node}"))
    }

    /// Where clients reach the server through `node`.
    pub fn address(&self, node: u64) -> SocketAddr {
        replica(node.try_into().unwrap(), self.setup.port)
    }

    /// The process of `brolga run` itself.
    pub fn pid(&self) -> u64 {
        self.running.child.id().into()
    }

    /// How it is right now. Panics if the replicas differ.
    #[track_caller]
    pub fn view(&self) -> View {
        let view = self.any_view();
        if let Some(alarm) = view.alarm() {
            panic!("{alarm}\n{view:#?}");
        }
        view
    }

    /// The same, whatever has happened.
    #[track_caller]
    pub fn any_view(&self) -> View {
        let data = self.data();
        let finished = finish(&["status", "--json", "--data", data.to_str().unwrap()]);
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {finished:?}"))
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, reached: impl Fn(&View) -> bool) -> View {
        let started = Instant::now();
        loop {
            let view = self.view();
            if reached(&view) {
                return view;
            }
            let waited = started.elapsed();
            assert!(waited < PATIENCE, "waited for {what} in vain: {view:#?}");
        }
    }

    /// Waits until all replicas have applied what any of them knows now, with equal hashes.
    #[track_caller]
    pub fn settle(&self) -> View {
        let last = self.wait_for("all replicas", View::whole).last_entry();
        let compared = |view: &View| view.compared_slot >= Some(last);
        self.wait_for("equal replicas", |view| {
            view.whole() && view.applied(last) && view.equal == Some(true) && compared(view)
        })
    }

    /// `kill -9` of a node's daemon, and waits until it and its server are gone.
    #[track_caller]
    pub fn kill(&self, view: &View, node: u64) {
        let pids = processes_of(view, node);
        signal(pids[0], "KILL");
        let gone = eventually(|| !pids.iter().any(|pid| runs(*pid)));
        assert!(
            gone,
            "node {node} or its server outlives a kill -9: {pids:?}"
        );
    }

    /// All processes of the cluster.
    pub fn processes(&self) -> Vec<u64> {
        let view = self.view();
        let nodes = view.replicas.iter();
        let mut pids: Vec<u64> = nodes.flat_map(|it| processes_of(&view, it.id)).collect();
        pids.push(self.pid());
        pids
    }

    /// `kill -9` of everything at the same moment: nodes die with `brolga run`, servers with nodes.
    pub fn kill_everything(&mut self) {
        let pids = self.processes();
        signal(self.pid(), "KILL");
        self.running.child.wait().unwrap();
        let gone = eventually(|| !pids.iter().any(|pid| runs(*pid)));
        assert!(gone, "something is left of {pids:?}");
    }

    /// `brolga run` again, with what is on the disks.
    pub fn start_again(&mut self) {
        self.running = Run::spawn(&self.setup, &self.data());
        self.running.wait_for_line("Ctrl-C");
    }

    /// `brolga node`, as an administrator would start one. Its process.
    pub fn start_node(&mut self, node: u64) -> u64 {
        let config = self.node_dir(node).join("config.toml");
        let log = File::create(self.node_dir(node).join("node.err")).unwrap();
        let mut command = brolga();
        command.args(["node", "--config"]).arg(config).stderr(log);
        let child = command.spawn().unwrap();
        let pid = child.id().into();
        self.strays.push(child);
        pid
    }

    /// Ends a process of the test's with the cluster.
    pub fn keep(&mut self, child: Child) {
        self.strays.push(child);
    }

    /// `brolga frontend`, and where clients reach the server through it.
    pub fn start_frontend(&mut self) -> SocketAddr {
        let address = SocketAddr::from((SIDECAR, self.setup.port));
        let mut command = brolga();
        command.arg("frontend").arg("--data").arg(self.data());
        command.args(["--listen", &SIDECAR.to_string()]);
        let log = File::create(self.data().join("frontend.err")).unwrap();
        self.strays.push(command.stderr(log).spawn().unwrap());
        let up = eventually(|| TcpStream::connect(address).is_ok());
        assert!(up, "nobody listens on {address}");
        address
    }

    /// Stops the leader's daemon until another node leads, as a machine out of memory does.
    #[track_caller]
    pub fn pause_until_deposed(&self, view: &View, leader: u64) {
        signal(view.pid(leader), "STOP");
        let others = view.followers();
        let deposed = eventually(|| {
            let leads = |node: &u64| self.believed_leader(*node).is_some_and(|now| now != leader);
            others.iter().any(leads)
        });
        signal(view.pid(leader), "CONT");
        assert!(deposed, "nobody else leads");
    }

    /// Who leads as far as `node` knows. Unlike a view this waits for no other node.
    fn believed_leader(&self, node: u64) -> Option<u64> {
        let mut stream = UnixStream::connect(self.node_dir(node).join("admin.sock")).ok()?;
        stream.write_all(b"{\"ask\":\"status\"}\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        let answer: serde_json::Value = serde_json::from_str(&line).ok()?;
        answer["status"]["leader"].as_u64()
    }

    /// As Ctrl-C does; it must end well.
    pub fn stop(self) {
        drop(self.stop_and_keep());
    }

    /// The same; the cluster's directory, below `data` in what is returned, stays.
    pub fn stop_and_keep(mut self) -> TempDir {
        signal(self.pid(), "INT");
        let code = self.running.wait(STOP_PATIENCE);
        assert_eq!(code, Some(Some(0)), "brolga run did not stop well");
        self.dir.take().expect("it is only taken here and by drop")
    }

    fn tell_all(&self) {
        let data = self.data();
        say(&format!("the data stay in {}", data.display()));
        for line in &self.running.transcript {
            say(&format!("brolga run: {line}"));
        }
        for node in 1..=9 {
            for name in ["node.err", "node.log", "server.err"] {
                show_tail(&self.node_dir(node).join(name));
            }
        }
        show_tail(&data.join("frontend.err"));
        let status = finish(&["status", "--data", data.to_str().unwrap()]);
        say(&status.stdout);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_all();
            if let Some(dir) = self.dir.take() {
                let _ = dir.keep();
            }
        }
        self.running.end();
        for stray in &mut self.strays {
            // It may have ended already.
            let _ = stray.kill();
            let _ = stray.wait();
        }
    }
}

impl Run {
    fn spawn(setup: &Setup, data: &Path) -> Self {
        let mut command = brolga();
        command.arg("run").arg("--data").arg(data);
        if !setup.options.iter().any(|word| word == "--container") {
            command.args(containment());
        }
        command.args(&setup.options).arg("--").args(&setup.command);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines_rx = lines_of(child.stdout.take().unwrap());
        Self {
            child,
            lines_rx,
            transcript: Vec::new(),
        }
    }

    #[track_caller]
    fn wait_for_line(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines_rx.recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(words);
                    self.transcript.push(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("it never said `{words}`"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without `{words}`"),
            }
        }
    }

    /// The exit code (`None` for a signal); outer `None` when it does not end.
    fn wait(&mut self, patience: Duration) -> Option<Option<i32>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.code());
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Asks it to stop, then makes it. Never panics.
    fn end(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        if self.wait(STOP_PATIENCE).is_none() {
            let _ = self.child.kill(); // the nodes die with it
            let _ = self.child.wait();
        }
    }
}

/// Reads all the time, so that the writer never blocks.
fn lines_of(stream: ChildStdout) -> Receiver<String> {
    let (line_tx, line_rx) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line_tx.send(line).is_err() {
                return;
            }
        }
    });
    line_rx
}

/// The daemon first, then its server if it has one.
fn processes_of(view: &View, node: u64) -> Vec<u64> {
    let Some(status) = view.node(node) else {
        return Vec::new();
    };
    let server = status.server_pid.and_then(|pid| u64::try_from(pid).ok());
    [Some(status.pid.into()), server]
        .into_iter()
        .flatten()
        .collect()
}

fn show_tail(path: &Path) {
    let Ok(bytes) = fs::read(path) else {
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let (node, file) = (path.parent().and_then(Path::file_name), path.file_name());
    for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
        say(&format!("{node:?} {file:?}: {line}"));
    }
}
