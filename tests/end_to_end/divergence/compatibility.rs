//! A replica whose server is made of something else is refused, and the first file that differs is named.

use crate::fixture::cluster::alone;
use crate::fixture::outside::all_of;
use crate::harness::{Cluster, brolga, eventually, finish, free_port, replica};
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::MutexGuard;

/// A server with a library of its own, in a directory of its own.
struct Linked {
    dir: tempfile::TempDir,
    port: u16,
    _only: MutexGuard<'static, ()>,
}

impl Linked {
    fn build() -> Self {
        let linked = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            _only: alone(),
        };
        linked.put_library("hello\\n");
        let mut compile = Command::new("cc");
        compile.arg(source("server.c")).arg("-o");
        compile
            .arg(linked.path("server"))
            .arg("-L")
            .arg(linked.dir.path());
        compile.args(["-lgreeting", "-Wl,-rpath,$ORIGIN"]);
        assert!(compile.status().unwrap().success(), "cannot build a server");
        linked
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Another library in the place of the one that is there, as a package manager would put it.
    fn put_library(&self, greeting: &str) {
        let aside = self.path("new.so");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", &format!("-DGREETING=\"{greeting}\"")]);
        compile.arg(source("greeting.c")).arg("-o").arg(&aside);
        assert!(
            compile.status().unwrap().success(),
            "cannot build a library"
        );
        fs::rename(aside, self.path("libgreeting.so")).unwrap();
    }

    fn command(&self) -> Vec<String> {
        let server = self.path("server").to_str().unwrap().to_owned();
        vec![server, self.port.to_string()]
    }

    /// Makes a cluster, and stops it again.
    fn create(&self, options: &[&str]) {
        let cluster = Cluster::start(&self.data(), options, &self.command());
        assert_eq!(cluster.stop(), Some(0));
    }

    fn config(&self, node: u8) -> PathBuf {
        self.data().join(format!("node-{node}/config.toml"))
    }

    /// Leaves a node nothing but its configuration.
    fn lose_disk(&self, node: u8) {
        let config = fs::read(self.config(node)).unwrap();
        let dir = self.data().join(format!("node-{node}"));
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(self.config(node), config).unwrap();
    }

    fn start(&self, node: u8) -> Node {
        let log = self.path(&format!("node-{node}.err"));
        let mut command = brolga();
        command.args(["node", "--config"]).arg(self.config(node));
        command.stderr(File::create(&log).unwrap());
        Node {
            child: command.spawn().unwrap(),
            log,
        }
    }

    #[track_caller]
    fn assert_greets(&self, node: u8, greeting: &str) {
        let address = replica(node, self.port);
        let mut said = String::new();
        let greeted = eventually(|| match TcpStream::connect(address) {
            Ok(stream) => {
                said = all_of(stream);
                true
            }
            Err(_) => false,
        });
        assert!(greeted, "node {node} does not serve");
        assert_eq!(said, greeting);
    }
}

fn source(name: &str) -> PathBuf {
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    servers.join("linked").join(name)
}

/// A daemon, killed when the value is dropped.
struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Waits until it ends with a reason that contains all of `words`.
    #[track_caller]
    fn ends_refused(mut self, words: &[&str]) {
        let mut code = None;
        let ended = eventually(|| match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        let said = fs::read_to_string(&self.log).unwrap();
        assert!(ended, "it does not end: {said}");
        assert_eq!(code, Some(78), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_replica_with_another_library_is_refused_by_name() {
    let linked = Linked::build();
    linked.create(&[]);
    let others = [linked.start(1), linked.start(2)];
    linked.assert_greets(1, "hello\n");

    linked.put_library("other words\\n");
    linked.lose_disk(3);
    let library = linked.path("libgreeting.so");
    let expected = [
        "refused",
        library.to_str().unwrap(),
        " bytes, hash ",
        "here; ",
        "at replica ",
        "install the same version",
    ];
    linked.start(3).ends_refused(&expected);
    // Those that run do not mind.
    linked.assert_greets(1, "hello\n");
    linked.assert_greets(2, "hello\n");

    linked.put_library("hello\\n");
    linked.lose_disk(3);
    let third = linked.start(3);
    linked.assert_greets(3, "hello\n");
    drop((others, third));
}

#[test]
fn a_library_that_changes_under_a_log_is_named() {
    let linked = Linked::build();
    linked.create(&["--replicas", "1"]);
    linked.put_library("other words\\n");
    let library = linked.path("libgreeting.so");
    let expected = [
        library.to_str().unwrap(),
        ", now; ",
        ", when the log began) changed",
        "put the old one back",
    ];
    linked.start(1).ends_refused(&expected);
    linked.put_library("hello\\n");
    let node = linked.start(1);
    linked.assert_greets(1, "hello\n");
    drop(node);
}

#[test]
fn a_replica_without_a_genesis_is_sent_one() {
    let linked = Linked::build();
    let genesis = linked.path("initial");
    fs::create_dir_all(genesis.join("db")).unwrap();
    fs::write(genesis.join("db/table"), "rows").unwrap();
    symlink("db/table", genesis.join("link")).unwrap();
    linked.create(&["--genesis", genesis.to_str().unwrap()]);
    linked.lose_disk(3);
    let config = fs::read_to_string(linked.config(3)).unwrap();
    let own = config.lines().find(|line| line.starts_with("genesis"));
    let fetching = config.replace(own.unwrap(), "fetch_genesis = true");
    fs::write(linked.config(3), fetching).unwrap();

    // Nobody has one yet, so that it waits.
    let third = linked.start(3);
    let log = linked.data().join("node-3/node.log");
    let waits = || fs::read_to_string(&log).is_ok_and(|text| text.contains("no genesis yet"));
    assert!(eventually(waits), "it does not wait");
    let others = [linked.start(1), linked.start(2)];
    linked.assert_greets(3, "hello\n");
    let fetched = linked.data().join("node-3/genesis");
    assert_eq!(fs::read_to_string(fetched.join("link")).unwrap(), "rows");
    let identity = |node: u8| {
        let path = linked.data().join(format!("node-{node}/identity.toml"));
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("genesis = "));
        line.unwrap().to_owned()
    };
    assert_eq!(identity(3), identity(1));

    // From now on it is its own, and nobody may touch it.
    drop(third);
    let third = linked.start(3);
    linked.assert_greets(3, "hello\n");
    drop(third);
    fs::write(fetched.join("db/table"), "other rows").unwrap();
    let expected = ["db/table in the genesis", "10 bytes", "when the log began"];
    linked.start(3).ends_refused(&expected);
    drop(others);
}

#[test]
fn a_replica_that_starts_with_other_files_is_refused_by_name() {
    let linked = Linked::build();
    let genesis = linked.path("initial");
    fs::create_dir_all(genesis.join("db")).unwrap();
    fs::write(genesis.join("db/table"), "rows").unwrap();
    linked.create(&["--genesis", genesis.to_str().unwrap()]);
    let others = [linked.start(1), linked.start(2)];
    linked.assert_greets(1, "hello\n");

    let other = linked.path("changed");
    fs::create_dir_all(other.join("db")).unwrap();
    fs::write(other.join("db/table"), "other rows").unwrap();
    linked.lose_disk(3);
    let config = fs::read_to_string(linked.config(3)).unwrap();
    let changed = config.replace("../genesis", other.to_str().unwrap());
    assert_ne!(config, changed);
    fs::write(linked.config(3), changed).unwrap();
    let expected = [
        "refused",
        "db/table in the genesis",
        "10 bytes",
        "4 bytes",
        "at replica ",
    ];
    linked.start(3).ends_refused(&expected);

    fs::write(linked.config(3), config).unwrap();
    linked.lose_disk(3);
    let third = linked.start(3);
    linked.assert_greets(3, "hello\n");
    drop((others, third));
    let data = linked.data();
    let status = finish(&["status", "--data", data.to_str().unwrap()]);
    assert!(status.stdout.contains("3 of 3 replicas down"), "{status:?}");
}
