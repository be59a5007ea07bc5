//! Servers that have a directory instead of the machine's files.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native;
use crate::fixture::outside::all_of;
use crate::harness::{finish, free_port, refused};
use brolga_server_image::fingerprint;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

const SERVER: &str = "/srv/rooted";

/// A root with a server in it, its libraries, and a file of its own. It lacks `/dev`, `/proc`, `/sys`
/// and a shell.
fn make_root(top: &Path) -> PathBuf {
    let root = top.join("root");
    let server = native::build("rooted");
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for directory in ["srv", "etc", "var"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(&server, inside(Path::new(SERVER))).unwrap();
    for mark in &fingerprint::of_server(&server, &[], Path::new("/")).unwrap()[1..] {
        let to = inside(&mark.path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&mark.path, to).unwrap();
    }
    fs::write(root.join("etc/words"), "hello").unwrap();
    root
}

/// `None`, and said so, where there are no containers.
fn setup(name: &str, top: &Path) -> Option<(Setup, PathBuf)> {
    if let Err(why) = brolga_checkpoint::probe(top) {
        say(&format!("{name}: SKIPPED, {why}"));
        return None;
    }
    let root = make_root(top);
    let port = free_port();
    let command = vec![SERVER.to_owned(), port.to_string()];
    let options = vec!["--root".to_owned(), root.to_str().unwrap().to_owned()];
    Some((Setup::given(port, options, command), root))
}

#[track_caller]
fn assert_says(address: SocketAddr, words: &str) {
    assert_eq!(all_of(TcpStream::connect(address).unwrap()), words);
}

#[test]
fn a_server_in_a_root_of_its_own_comes_back_from_a_checkpoint() {
    let name = "a_server_in_a_root_of_its_own_comes_back_from_a_checkpoint";
    let top = tempfile::tempdir().unwrap();
    let Some((setup, root)) = setup(name, top.path()) else {
        return;
    };
    assert!(!Path::new(SERVER).exists());
    let cluster = Cluster::start(setup);
    for number in 1..=3 {
        assert_says(
            cluster.address(number),
            &format!("hello {number} {number}\n"),
        );
    }
    let slot = cluster.settle().last_entry();
    let data = cluster.data();
    let taken = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    // The root itself is as it was.
    assert!(!root.join("var/count").exists() && !root.join("dev").exists());

    let view = cluster.settle();
    cluster.kill(&view, 3);
    let view = cluster.settle();
    let restored = view.node(3).unwrap().restored_from;
    assert!(restored >= Some(slot), "{restored:?}, not from {slot} on");
    assert_says(cluster.address(3), "hello 4 4\n");
    assert_says(cluster.address(1), "hello 5 5\n");
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

#[test]
fn a_file_of_the_root_that_changes_is_named() {
    let name = "a_file_of_the_root_that_changes_is_named";
    let top = tempfile::tempdir().unwrap();
    let Some((setup, root)) = setup(name, top.path()) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let dir = cluster.stop_and_keep();
    fs::write(root.join("etc/words"), "good morning").unwrap();
    let config = dir.path().join("data/node-2/config.toml");
    let config = config.to_str().unwrap();
    let expected = [
        "etc/words in the root directory that the server is given",
        "a file of 12 bytes",
        ", now; a file of 5 bytes",
        "when the log began",
    ];
    refused(&["node", "--config", config], &expected);
}

#[test]
fn a_root_needs_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    let members = "[[members]]\nid = 1\naddress = \"127.0.0.1\"\npeer = \"127.0.0.1:1\"\n\
                   sidecar = \"127.0.0.1:2\"\n";
    let keys = "node = 1\ndata_dir = \"data\"\ncommand = [\"/server\"]\nroot = \".\"\n";
    let cluster = format!("cluster = \"{}\"\n", "12".repeat(16));
    fs::write(&config, format!("{cluster}{keys}{members}")).unwrap();
    let words = [
        "root is for servers in containers",
        "container = \"required\"",
    ];
    refused(&["node", "--config", config.to_str().unwrap()], &words);
}
