//! The launcher against real processes. They preload an empty file, which the dynamic linker
//! complains about and ignores, so that this tests the launcher alone.

use super::*;
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

struct Bench {
    dir: tempfile::TempDir,
    tape: OwnedFd,
    doorbell: EventFd,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            tape: memfd_create(c"tape", MFdFlags::MFD_CLOEXEC).unwrap(),
            doorbell: EventFd::new().unwrap(),
        }
    }

    fn spec(&self, argv: &[&str]) -> LaunchSpec<'_> {
        LaunchSpec {
            argv: argv.iter().map(OsString::from).collect(),
            env: Vec::new(),
            cwd: self.dir.path().to_owned(),
            temporary: self.dir.path().to_owned(),
            tape: self.tape.as_fd(),
            doorbell: self.doorbell.as_fd(),
            stdout: self.dir.path().join("out"),
            stderr: self.dir.path().join("err"),
            random_seed: *b"0123456789abcdef",
            cpu: None,
            traceable: false,
            descriptors: 4096,
            contained: false,
        }
    }

    fn spawn(&self, spec: &LaunchSpec<'_>) -> Result<Launched, LaunchError> {
        let nothing = memfd_create(c"nothing", MFdFlags::MFD_CLOEXEC).unwrap();
        spawn_preloading(nothing.as_fd(), spec)
    }

    /// Runs to the end; what it wrote.
    fn output(&self, spec: &LaunchSpec<'_>) -> String {
        let _ = fs::remove_file(&spec.stdout);
        let launched = self.spawn(spec).unwrap();
        let status = waitpid(launched.pid, None).unwrap();
        assert_eq!(
            status,
            WaitStatus::Exited(launched.pid, 0),
            "{}",
            self.errors()
        );
        fs::read_to_string(&spec.stdout).unwrap()
    }

    fn shell(&self, script: &str) -> String {
        self.output(&self.spec(&["sh", "-c", script]))
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("err")).unwrap_or_default()
    }
}

#[test]
fn every_start_sees_the_same_memory_and_no_vdso() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["cat", "/proc/self/maps"]);
    spec.env.push(("LD_SHOW_AUXV".into(), "1".into()));
    // Inodes of the binaries are in there too; the files do not change between two runs.
    let (first, second) = (bench.output(&spec), bench.output(&spec));
    assert!(
        first.contains("[stack]") && first.contains("AT_RANDOM"),
        "{first}"
    );
    assert_eq!(first, second);
    assert!(!first.contains("AT_SYSINFO_EHDR"), "{first}");
}

#[test]
fn random_bytes_are_the_seed() {
    let bench = Bench::new();
    let spec = bench.spec(&["sleep", "1000"]);
    let launched = bench.spawn(&spec).unwrap(); // it dies when this is dropped
    let pid = launched.pid;
    let vector = fs::read(format!("/proc/{pid}/auxv")).unwrap();
    let words: Vec<u64> = vector
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
        .collect();
    let random = words
        .chunks_exact(2)
        .find(|pair| pair[0] == libc::AT_RANDOM)
        .unwrap();
    let mut bytes = [0; 16];
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, random[1]).unwrap();
    abandon(pid);
    assert_eq!(bytes, spec.random_seed);
}

#[test]
fn environment_and_descriptors_are_canonical() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["env"]);
    spec.env = vec![("LANG".into(), "de_DE".into()), ("ZED".into(), "1".into())];
    let expected = format!(
        "GLIBC_TUNABLES=glibc.pthread.rseq=0\nHOME=/\nLANG=de_DE\n\
         LD_PRELOAD=/proc/self/fd/1000\nOPENSSL_ia32cap=~0x4000000000000000:~0x40000\n\
         PATH={SERVER_PATH}\n\
         TMPDIR=/proc/self/fd/1005\nTZ=UTC\nZED=1\n"
    );
    assert_eq!(bench.output(&spec), expected);
    let descriptors = bench.shell("ls /proc/$$/fd; true");
    for handed in ["0", "1", "2", "1000", "1001", "1002", "1003", "1005"] {
        assert!(
            descriptors.split_whitespace().any(|fd| fd == handed),
            "{descriptors}"
        );
    }
    assert!(
        !descriptors.split_whitespace().any(|fd| fd == "3"),
        "{descriptors}"
    );
    assert_eq!(
        bench.shell("umask; ulimit -n; ulimit -s; ulimit -c"),
        "0022\n4096\n8192\n0\n"
    );
}

#[test]
fn stays_on_the_processor_it_is_given() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
    spec.cpu = Some(0);
    assert_eq!(bench.output(&spec), "Cpus_allowed_list:\t0\n");
    spec.cpu = Some(1000);
    let error = bench.spawn(&spec).unwrap_err().to_string();
    assert!(error.contains("pinning to a processor"), "{error}");
}

#[test]
fn output_is_appended() {
    let bench = Bench::new();
    let spec = bench.spec(&["sh", "-c", "echo out; echo err >&2"]);
    for _ in 0..2 {
        let launched = bench.spawn(&spec).unwrap();
        waitpid(launched.pid, None).unwrap();
    }
    assert_eq!(fs::read_to_string(&spec.stdout).unwrap(), "out\nout\n");
    assert_eq!(bench.errors().matches("err\n").count(), 2);
}

#[test]
fn refusals_name_the_cause() {
    let bench = Bench::new();
    let refused = |spec: &LaunchSpec<'_>| bench.spawn(spec).unwrap_err().to_string();
    let broken = bench.dir.path().join("broken");
    fs::write(&broken, "#!/bin/sh\n").unwrap();
    assert!(refused(&bench.spec(&[broken.to_str().unwrap()])).contains("not an executable"));
    assert!(refused(&bench.spec(&["no-such-server"])).contains("no such program"));
    let mut spec = bench.spec(&["true"]);
    spec.descriptors = u64::MAX - 1;
    assert!(refused(&spec).contains("ulimit -Hn"));
    let mut spec = bench.spec(&["true"]);
    spec.cwd = bench.dir.path().join("absent");
    assert!(refused(&spec).contains("does not exist"));
    let mut spec = bench.spec(&["true"]);
    spec.stdout = bench.dir.path().join("absent/out");
    assert!(refused(&spec).contains("cannot open"));
}

#[test]
fn exec_errors_are_reported() {
    let bench = Bench::new();
    let script = bench.dir.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // An executable that is open for writing cannot be executed (ETXTBSY).
    let busy = bench.dir.path().join("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let writer = OpenOptions::new().append(true).open(&busy).unwrap();
    let error = bench
        .spawn(&bench.spec(&[busy.to_str().unwrap()]))
        .unwrap_err()
        .to_string();
    drop(writer);
    assert!(error.contains("exec failed"), "{error}");
    assert_eq!(bench.output(&bench.spec(&[script.to_str().unwrap()])), "");
}

/// A process that the signal of its parent's death would not reach: its parent ends at once.
fn start_daemon(bench: &Bench) -> (Launched, PathBuf) {
    let script =
        "(sh -c 'echo $$ > daemon.tmp; mv daemon.tmp daemon; exec sleep 1000' &); exec sleep 1000";
    let launched = bench.spawn(&bench.spec(&["sh", "-c", script])).unwrap();
    let file = bench.dir.path().join("daemon");
    until(|| file.exists());
    let pid = fs::read_to_string(file).unwrap();
    (launched, Path::new("/proc").join(pid.trim()).join("stat"))
}

#[track_caller]
fn until(reached: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !reached() {
        assert!(started.elapsed().as_secs() < 60, "waited in vain");
        std::thread::yield_now();
    }
}

fn has_ended(stat: &Path) -> bool {
    fs::read_to_string(stat).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn the_whole_tree_dies_when_its_lifeline_is_cut() {
    let bench = Bench::new();
    let (launched, daemon) = start_daemon(&bench);
    assert!(!has_ended(&daemon));
    assert!(launched.lifeline.unwrap().cut());
    until(|| has_ended(&daemon)); // a dying process closes its files before it is shown as dead
    let status = waitpid(launched.pid, None).unwrap();
    let killed = WaitStatus::Signaled(launched.pid, Signal::SIGKILL, false);
    assert_eq!(status, killed);
}

#[test]
fn the_whole_tree_dies_with_the_node() {
    let bench = Bench::new();
    let (launched, daemon) = start_daemon(&bench);
    drop(launched.lifeline); // as the kernel does when the node is killed
    until(|| has_ended(&daemon));
    waitpid(launched.pid, None).unwrap();
}
