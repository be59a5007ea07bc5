//! What a test has to know of a server, and the recipes for users that it is started with.
//!
//! The command line is the one in `examples/recipes/NAME/README.md`, which starts with
//! `$ brolga run`; its ports, there and in the files that the server starts with, are replaced by
//! free ones. So what users read is what is tested.

use crate::fixture::cluster::Setup;
use crate::harness::{eventually, free_port, replica};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Between the steps of a client. Every replica has to repeat all of it when it is started again.
const THINK: Duration = Duration::from_millis(5);

/// A server: how it is prepared, loaded and examined.
pub trait Recipe: Sync {
    /// The folder in `examples/recipes`.
    fn name(&self) -> &'static str;

    /// Programs that must be there, each with the package that has it.
    fn needs(&self) -> &'static [(&'static str, &'static str)];

    /// Prints the server's version.
    fn version(&self) -> Command;

    /// The ports that the recipe's files name, the one for clients first.
    fn ports(&self) -> &'static [u16];

    /// Free ports are taken from here on.
    fn lowest_port(&self) -> u16 {
        0
    }

    /// Adds to the directory that the server starts in.
    fn prepare(&self, _genesis: &Path) {}

    /// True when the server answers at last. Asked until then.
    fn ready(&self, at: &Target) -> bool {
        TcpStream::connect(at.address(0)).is_ok()
    }

    /// The clients, each of them a thread. They go on until the load is over, and panic at a reset
    /// or at an answer that is not the right one.
    fn load(&self) -> Vec<Load<'_>>;

    /// The least number of steps that the clients make before the leader dies. So many again
    /// follow.
    fn steps(&self) -> usize {
        60
    }

    /// The server's own data on one replica, asked of that replica or read in its working
    /// directory. Also the place to check that nothing is missing.
    fn dump(&self, at: &Target) -> String;
}

/// One client.
pub type Load<'a> = Box<dyn FnOnce(&Target, &LoadControl) + Send + 'a>;

/// One replica, as its clients see it.
#[derive(Clone, Debug)]
pub struct Target {
    pub node: u64,
    /// The server's working directory.
    pub work: PathBuf,
    ports: Vec<u16>,
}

impl Target {
    pub fn new(node: u64, node_dir: &Path, ports: &[u16]) -> Self {
        Self {
            node,
            work: node_dir.join("work"),
            ports: ports.to_vec(),
        }
    }

    /// The address of one of the recipe's ports.
    pub fn address(&self, which: usize) -> SocketAddr {
        replica(self.node.try_into().unwrap(), self.ports[which])
    }

    pub fn host(&self) -> String {
        self.address(0).ip().to_string()
    }

    pub fn port(&self) -> String {
        self.ports[0].to_string()
    }

    /// A file of the server.
    pub fn read(&self, path: &str) -> String {
        let path = self.work.join(path);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Shared by the clients, which make steps, and the scenario, which ends the load.
#[derive(Debug, Default)]
pub struct LoadControl {
    over: AtomicBool,
    steps: AtomicUsize,
}

/// Ends the load, also when the test panics: threads in a scope are waited for.
#[derive(Debug)]
pub struct EndOnDrop<'a>(&'a LoadControl);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl LoadControl {
    pub fn end_on_drop(&self) -> EndOnDrop<'_> {
        EndOnDrop(self)
    }

    /// Counts a step; false when there should be no more. So a client makes one step at least.
    pub fn step(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        thread::sleep(THINK);
        !self.over.load(Ordering::Relaxed)
    }

    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }
}

/// Runs a stock client, which must end well. What it said, on both of its outputs.
#[track_caller]
pub fn stock(command: &mut Command) -> String {
    let output = ended(command);
    let said = said(&output);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    said
}

/// Runs a program to its end, which may be a bad one but must come.
#[track_caller]
pub fn ended(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let outputs = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (stdout, stderr) = (
        thread::spawn(|| all_of(outputs.0)),
        thread::spawn(|| all_of(outputs.1)),
    );
    let mut status = None;
    let ended = eventually(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !ended {
        child.kill().unwrap();
        status = Some(child.wait().unwrap());
    }
    let output = Output {
        status: status.expect("it has ended"),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    assert!(ended, "{command:?} does not end: {}", said(&output));
    output
}

fn all_of(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A recipe that is ready to be started: the directory that the server starts in, and the setup.
#[derive(Debug)]
pub struct PreparedRecipe {
    pub setup: Setup,
    pub ports: Vec<u16>,
    /// Until it has been copied.
    _genesis: TempDir,
}

impl PreparedRecipe {
    #[track_caller]
    pub fn new(recipe: &dyn Recipe) -> Self {
        for (program, package) in recipe.needs() {
            let found = Command::new("sh")
                .args(["-c", "command -v \"$0\"", program])
                .env("PATH", search_path())
                .output();
            let found = found.is_ok_and(|output| output.status.success());
            assert!(
                found,
                "{program} is not installed: tests/setup.sh installs the package {package}"
            );
        }
        let folder = folder(recipe.name());
        let ports: Vec<(u16, u16)> = recipe
            .ports()
            .iter()
            .map(|port| (*port, free_port_from(recipe.lowest_port())))
            .collect();
        let mut words = command_line(&folder);
        for word in &mut words {
            *word = with_ports(word, &ports);
        }
        let end = words.iter().position(|word| word == "--");
        let mut command = words.split_off(end.expect("a command after `--`") + 1);
        if command[0] == "brolga" {
            command[0] = env!("CARGO_BIN_EXE_brolga").into();
        }
        words.pop();
        let genesis = tempfile::tempdir().unwrap();
        // The first two words are `brolga run`.
        let options = options(&words[2..], genesis.path(), &ports);
        recipe.prepare(genesis.path());
        let (_, first) = ports[0];
        Self {
            setup: Setup::given(first, options, command),
            ports: ports.iter().map(|(_, free)| *free).collect(),
            _genesis: genesis,
        }
    }
}

fn free_port_from(lowest: u16) -> u16 {
    let addresses = [1, 2, 3].map(|node| replica(node, 0).ip());
    match lowest {
        0 => free_port(),
        _ => brolga_os::ports::reserve_from(lowest, &addresses).expect("a free port"),
    }
}

/// The search path of servers on Debian: not all of it is on everybody's path.
pub fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(name: &str) -> PathBuf {
    root().join("examples/recipes").join(name)
}

/// The words of the command line in the recipe, as a shell takes them.
fn command_line(folder: &Path) -> Vec<String> {
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let start = readme.find("$ brolga run").expect("a command line") + 2;
    let mut line = String::new();
    for part in readme[start..].split_inclusive('\n') {
        line += part;
        if !part.ends_with("\\\n") {
            break;
        }
    }
    let words = stock(Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]));
    words.lines().map(str::to_owned).collect()
}

/// The options for `brolga run`: with `genesis` for the directory that the recipe names, and a copy
/// of that in it.
fn options(words: &[String], genesis: &Path, ports: &[(u16, u16)]) -> Vec<String> {
    let mut options = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--genesis" {
            let named = words.next().expect("a directory");
            copy(&root().join(named), genesis, ports);
        } else {
            options.push(word.clone());
        }
    }
    options.extend(["--genesis".into(), genesis.display().to_string()]);
    options
}

fn copy(from: &Path, to: &Path, ports: &[(u16, u16)]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, ports);
            continue;
        }
        fs::copy(&from, &to).unwrap();
        if let Ok(text) = fs::read_to_string(&from) {
            fs::write(&to, with_ports(&text, ports)).unwrap();
        }
    }
}

/// Replaces numbers that are ports of the recipe.
fn with_ports(text: &str, ports: &[(u16, u16)]) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|it: char| it.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        let end = number.find(|it: char| !it.is_ascii_digit());
        let (number, after) = number.split_at(end.unwrap_or(number.len()));
        let free = ports.iter().find(|(named, _)| number == named.to_string());
        replaced += before;
        match free {
            Some((_, free)) => replaced += &free.to_string(),
            None => replaced += number,
        }
        rest = after;
    }
    replaced + rest
}

/// Waits until the server answers on one replica.
#[track_caller]
pub fn wait_until_ready(recipe: &dyn Recipe, at: &Target) {
    let ready = eventually(|| recipe.ready(at));
    assert!(ready, "{} does not answer on {at:?}", recipe.name());
}

#[test]
fn only_whole_numbers_are_taken_for_ports() {
    let ports = [(80, 1234), (443, 5)];
    let text = "listen 80; 8080 180 0.0.0.0:443\n";
    assert_eq!(
        with_ports(text, &ports),
        "listen 1234; 8080 180 0.0.0.0:5\n"
    );
}
