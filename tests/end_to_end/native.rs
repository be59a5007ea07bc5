//! Small servers in C (`tests/servers/*.c`), built when a test wants them, and native runs of them
//! to compare with.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::eventually;
use brolga_server_image::launch::SERVER_PATH;

const PATIENCE: Duration = Duration::from_secs(60);

/// Builds `tests/servers/NAME.c`, or all of `tests/servers/NAME/`, if it is newer than what was built
/// before.
pub fn build(name: &str) -> PathBuf {
    let sources = sources(name);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    if changed(&program) > sources.iter().map(changed).max().flatten() {
        return program;
    }
    let sources = sources
        .iter()
        .filter(|path| path.extension() == Some("c".as_ref()));
    // Built aside: another test may be building it too, or starting the one that is there.
    static BUILDS: AtomicU32 = AtomicU32::new(0);
    let number = BUILDS.fetch_add(1, Ordering::Relaxed);
    let aside = program.with_extension(format!("{}-{number}.new", std::process::id()));
    let built = Command::new("cc")
        .args(["-O1", "-pthread", "-Wall", "-Werror", "-o"])
        .arg(&aside)
        .args(sources)
        .status();
    assert!(
        built
            .expect("no C compiler: tests/setup.sh installs one")
            .success(),
        "cannot build {name}",
    );
    fs::rename(aside, &program).unwrap();
    program
}

fn sources(name: &str) -> Vec<PathBuf> {
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let Ok(folder) = fs::read_dir(servers.join(name)) else {
        return vec![servers.join(format!("{name}.c"))];
    };
    let mut sources: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    sources.sort();
    sources
}

/// A native server that is killed when the value is dropped.
pub struct Native {
    child: Child,
    pub address: SocketAddr,
}

impl Native {
    /// Starts a program that takes its port as the last argument.
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        Self::start_in(program, arguments, Path::new("."))
    }

    /// The same in a directory.
    pub fn start_in(program: &Path, arguments: &[&str], directory: &Path) -> Self {
        let host = IpAddr::from([127, 0, 0, 77]);
        let address = SocketAddr::new(
            host,
            brolga_os::ports::reserve(&[host]).expect("a free port"),
        );
        let child = Command::new(program)
            .args(arguments)
            .arg(address.port().to_string())
            .current_dir(directory)
            .env("PATH", SERVER_PATH)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        assert!(
            eventually(|| TcpStream::connect(address).is_ok()),
            "{} does not listen",
            program.display()
        );
        Self { child, address }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a request and returns all that comes back until the server closes.
pub fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
