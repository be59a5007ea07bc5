//! What the tests of the program share: running it, waiting for its cluster, talking to its server.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Anything that takes longer has failed. Generous: the machine may be building something else.
pub const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The program under test.
pub fn brolga() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brolga"));
    command.stdin(Stdio::null());
    command
}

/// A finished run of the program.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program to its end, which must come by itself.
pub fn finish(arguments: &[&str]) -> Finished {
    finish_with(arguments, &[])
}

/// The same, with more in its environment.
pub fn finish_with(arguments: &[&str], env: &[(&str, &str)]) -> Finished {
    let mut child = brolga()
        .args(arguments)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let code = wait(&mut child).unwrap_or_else(|| {
        child.kill().unwrap();
        panic!("brolga {arguments:?} did not end");
    });
    Finished {
        code,
        stdout: stdout.recv().unwrap(),
        stderr: stderr.recv().unwrap(),
    }
}

/// Runs the program, which must fail with exactly one line that contains all of `words`.
#[track_caller]
pub fn refused(arguments: &[&str], words: &[&str]) {
    let finished = finish(arguments);
    assert!(!matches!(finished.code, Some(0) | None), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "not one line: {}", finished.stderr);
    assert!(lines[0].starts_with("brolga: "), "{}", lines[0]);
    for word in words {
        assert!(lines[0].contains(word), "`{word}` is not in: {}", lines[0]);
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (text_tx, text_rx) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let _ = text_tx.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text_rx
}

/// The exit code (`None` for a signal); outer `None` when it did not end.
fn wait(child: &mut Child) -> Option<Option<i32>> {
    let mut code = None;
    let ended = eventually(|| match child.try_wait().unwrap() {
        Some(status) => {
            code = status.code();
            true
        }
        None => false,
    });
    ended.then_some(code)
}

/// Asks again and again until it is true; false when it never is.
pub fn eventually(mut reached: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if reached() {
            return true;
        }
        thread::sleep(ASK_EVERY);
    }
    false
}

/// A port that is free on the addresses of the first three replicas, and stays so.
pub fn free_port() -> u16 {
    let addresses = [1, 2, 3].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    brolga_os::ports::reserve(&addresses).expect("a free port")
}

/// The bundled store as a command line.
pub fn store(port: u16) -> Vec<String> {
    let listen = format!("0.0.0.0:{port}");
    let words = [
        env!("CARGO_BIN_EXE_brolga"),
        "store",
        "--listen",
        &listen,
        "--data",
        "store",
    ];
    words.map(str::to_owned).to_vec()
}

/// `BROLGA_TEST_CONTAINER=required` runs all servers of the tests in containers.
pub fn containment() -> Vec<String> {
    let wanted = std::env::var("BROLGA_TEST_CONTAINER");
    wanted.map_or(Vec::new(), |wanted| vec!["--container".into(), wanted])
}

/// A cluster under `brolga run`.
#[derive(Debug)]
pub struct Cluster {
    pub data: PathBuf,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Cluster {
    /// Starts one and waits until it says that it is up.
    pub fn start(data: &Path, options: &[&str], command: &[String]) -> Self {
        let mut child = brolga()
            .arg("run")
            .arg("--data")
            .arg(data)
            .args(containment())
            .args(options)
            .arg("--")
            .args(command)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut cluster = Self {
            data: data.to_owned(),
            child,
            lines,
        };
        cluster.line_with("Ctrl-C");
        cluster
    }

    /// Reads what `brolga run` says up to a line that contains `words`.
    #[track_caller]
    pub fn line_with(&mut self, words: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let bytes = self.lines.read_line(&mut line).unwrap();
            assert!(bytes > 0, "ended without saying `{words}`:\n{all}");
            if line.contains(words) {
                return line;
            }
            all += &line;
        }
    }

    /// `brolga status --json`.
    pub fn status(&self) -> Value {
        let data = self.data.to_str().unwrap();
        let finished = finish(&["status", "--json", "--data", data]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Waits for a state.
    #[track_caller]
    pub fn wait_for(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        let done = eventually(|| {
            status = self.status();
            reached(&status)
        });
        assert!(done, "waited for {what} in vain: {status:#}");
        status
    }

    /// All replicas up, nobody behind, all hashes equal.
    #[track_caller]
    pub fn wait_until_equal(&self) -> Value {
        self.wait_for("equal replicas", |status| {
            let replicas = status["replicas"].as_array().unwrap();
            let slots = |name: &str| -> Vec<u64> {
                let fields = replicas
                    .iter()
                    .filter_map(|replica| replica["status"].get(name));
                let numbers = fields.map(|field| field.get("slot").unwrap_or(field));
                numbers.filter_map(Value::as_u64).collect()
            };
            let last = slots("last_entry").into_iter().max();
            status["alive"] == replicas.len()
                && status["equal"] == true
                && slots("applied")
                    .iter()
                    .all(|applied| Some(*applied) >= last)
        })
    }

    /// Processes of the nodes and servers that are up, in pairs.
    pub fn processes(&self) -> Vec<(u64, u64)> {
        let status = self.status();
        let replicas = status["replicas"].as_array().unwrap();
        let alive = replicas
            .iter()
            .filter(|replica| !replica["status"].is_null());
        alive
            .map(|replica| {
                let pid = |name: &str| replica["status"][name].as_u64().unwrap();
                (pid("pid"), pid("server_pid"))
            })
            .collect()
    }

    /// As Ctrl-C does. What it wrote after that, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        signal(self.child.id().into(), "INT");
        let code = wait(&mut self.child);
        code.expect("brolga run did not stop")
    }

    pub fn pid(&self) -> u64 {
        self.child.id().into()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // The nodes die with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal.
pub fn signal(pid: u64, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// True if a process is there, and not only its remains.
pub fn runs(pid: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit(')').next().unwrap().trim_start();
    let dead = state.starts_with('Z') || state.starts_with('X');
    // Its first thread may be dead while others still have its files open.
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !dead || threads() > 1
}

/// A client of the store.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, words: &[&str]) {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The first line of a reply.
    pub fn reply(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.reply()
    }
}

/// The address of a replica of a cluster that was started without `--addresses`.
pub fn replica(number: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, number), port).into()
}
