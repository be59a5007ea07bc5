//! Starting, stopping, and doing nothing.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::harness::{Store, command, failure};

#[test]
fn a_port_in_use_is_one_clear_line() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Store::start(directories[0].path());
    let second = command(
        directories[1].path(),
        &["--listen", &store.address.to_string()],
    );
    let said = failure(second);
    let expected = format!("brolga-store: error: cannot listen on {}: ", store.address);
    assert!(
        said.starts_with(&expected) && said.contains("in use"),
        "{said}"
    );
}

#[test]
fn a_data_directory_in_use_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::start(directory.path());
    let said = failure(command(directory.path(), &[]));
    assert!(said.contains("is in use by another process"), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    // Under a file, and where not even root may write.
    for path in [file.join("data"), "/proc/no-such-place".into()] {
        let said = failure(command(&path, &[]));
        let expected = format!(
            "brolga-store: error: cannot use data directory {}: ",
            path.display()
        );
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn a_file_that_is_no_database_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store.redb"), "not a database").unwrap();
    let said = failure(command(directory.path(), &[]));
    assert!(
        said.starts_with("brolga-store: error: cannot open database "),
        "{said}"
    );
}

#[test]
fn shutdown_ends_the_process_and_keeps_the_data() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::start(directory.path());
    let mut client = store.connect();
    client.send(b"SET a 1\r\nSHUTDOWN\r\nSET a 2\r\n");
    assert_eq!(client.reply(), "+OK");
    assert_eq!(client.try_reply(), None);
    assert!(store.process.wait().unwrap().success());
    assert_eq!(Store::start(directory.path()).connect().ask("GET a"), "1");
}

/// A limit on the size of files stands in for a full disk.
#[test]
fn a_full_disk_stops_the_store_and_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::spawn(limited(directory.path(), 24 << 10));
    let mut client = store.connect();
    let value = "v".repeat(1 << 20);
    let acknowledged = (0..100)
        .take_while(|i| client.ask(&format!("SET k{i} {value}")) == "+OK")
        .count();
    assert!(
        (1..100).contains(&acknowledged),
        "{acknowledged} acknowledged"
    );
    assert_eq!(client.try_reply(), None);
    assert_eq!(store.process.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    store
        .process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let expected = "brolga-store: error: stopped, because writes cannot be committed: ";
    assert!(
        said.starts_with(expected) && said.lines().count() == 1,
        "{said}"
    );

    let store = Store::start(directory.path());
    let mut client = store.connect();
    for i in 0..acknowledged {
        assert!(client.ask(&format!("GET k{i}")) == value, "k{i}");
    }
}

/// A store that may not make files larger than `kilobytes`, and is told so by an error.
fn limited(directory: &Path, kilobytes: u32) -> Command {
    let store = command(directory, &[]);
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script, "bash"])
        .arg(store.get_program())
        .args(store.get_args());
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

#[test]
fn an_idle_store_makes_no_wakeups() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::start(directory.path());
    let mut clients: Vec<_> = (0..4).map(|_| store.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("INCR n").as_bytes()[0], b':');
    }
    thread::sleep(Duration::from_millis(100));
    let before = switches(store.process.id());
    thread::sleep(Duration::from_secs(1));
    assert_eq!(switches(store.process.id()), before);
    assert!(before.lines().count() >= 6, "{before}");
}

/// How often each thread of the process has gone to sleep so far.
fn switches(process: u32) -> String {
    let mut lines = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let path = thread.unwrap().path();
        let status = fs::read_to_string(path.join("status")).unwrap();
        let count = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt"))
            .unwrap();
        lines.push(format!("{} {count}", path.display()));
    }
    lines.sort();
    lines.join("\n")
}
