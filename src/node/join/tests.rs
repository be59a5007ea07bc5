//! A joiner and a join handler, without a cluster around them.

use super::joiner::{LEARNERS_UNTIL, check_addresses};
use super::wire::ClusterInfo;
use super::*;
use brolga_config::NodeConfig;
use brolga_consensus::LEARNERS_FROM;
use brolga_consensus::transport;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;

fn config(dir: &Path, genesis: Option<&Path>) -> NodeConfig {
    let genesis = genesis.map(|path| format!("genesis = {:?}\n", path.display().to_string()));
    let text = format!(
        "cluster = \"000102030405060708090a0b0c0d0e0f\"\nnode = 1\ndata_dir = \"data\"\n\
         pin_cpu = 0\ntrace = true\n{}command = [\"a-server\"]\nenv = [\"A=b\"]\n\
         [[members]]\nid = 1\naddress = \"127.0.0.1\"\npeer = \"127.0.0.1:7001\"\n\
         sidecar = \"127.0.0.1:7002\"\n",
        genesis.unwrap_or_default()
    );
    let path = dir.join("member.toml");
    fs::write(&path, text).unwrap();
    NodeConfig::load(&path).unwrap()
}

/// A member that answers one joiner, with this configuration.
fn member(config: &NodeConfig) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = JoinHandler::new(config);
    let open = move || {
        let (mut socket, _) = listener.accept().unwrap();
        transport::receive_joiner(&mut socket).unwrap();
        handler.accept(socket);
    };
    (address, std::thread::spawn(open))
}

fn options(address: SocketAddr, data: &Path) -> JoinOptions {
    JoinOptions {
        member: address.to_string(),
        data: data.to_owned(),
        listen: Some("127.0.0.9".parse().unwrap()),
        container: None,
    }
}

#[test]
fn a_joiner_gets_a_configuration_and_the_genesis() {
    let top = tempfile::tempdir().unwrap();
    let files = top.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("db"), "content").unwrap();
    let theirs = config(top.path(), Some(&files));
    let (address, member) = member(&theirs);
    let data = top.path().join("learner");
    let path = join(&options(address, &data)).unwrap();
    member.join().unwrap();
    let ours = NodeConfig::load(&path).unwrap();
    assert!(ours.node >= LEARNERS_FROM && ours.node < LEARNERS_UNTIL);
    assert_eq!(ours.data_dir, data.join("."));
    assert_eq!(ours.publish_address().to_string(), "127.0.0.9");
    assert_eq!(ours.fingerprint(), theirs.fingerprint());
    assert_eq!(ours.members, theirs.members);
    assert!(!ours.trace, "that is the member's own");
    let genesis = ours.genesis.as_ref().unwrap();
    assert_eq!(fs::read_to_string(genesis.join("db")).unwrap(), "content");
    // Nobody is asked again.
    assert_eq!(join(&options(address, &data)).unwrap(), path);
    assert_eq!(NodeConfig::load(&path).unwrap(), ours);
}

#[test]
fn a_directory_that_is_somebody_elses_is_left_alone() {
    let top = tempfile::tempdir().unwrap();
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let complaint = |data: &Path| join(&options(nobody, data)).unwrap_err().to_string();
    let member = top.path().join("member");
    fs::create_dir(&member).unwrap();
    let text = toml::to_string(&config(top.path(), None)).unwrap();
    fs::write(member.join(CONFIG_NAME), text).unwrap();
    assert!(complaint(&member).contains("is that of member 1"));
    let cluster = top.path().join("cluster");
    fs::create_dir(&cluster).unwrap();
    fs::write(cluster.join("cluster.toml"), "").unwrap();
    assert!(complaint(&cluster).contains("holds a whole cluster"));
    let empty = top.path().join("empty");
    assert!(complaint(&empty).contains("nobody answers at 127.0.0.1:1"));
    assert!(!empty.join(CONFIG_NAME).exists(), "it can be tried again");
}

#[test]
fn what_cannot_be_understood_is_said_with_both_versions() {
    let top = tempfile::tempdir().unwrap();
    let mut info = ClusterInfo::of(&config(top.path(), None)).unwrap();
    info.version = "99.1".into();
    info.config["a_key_of_the_future"] = 1.into();
    let error = format!("{:#}", info.config().unwrap_err());
    for words in [
        "brolga 99.1 there",
        env!("CARGO_PKG_VERSION"),
        "a_key_of_the_future",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn addresses_of_another_machines_loopback_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let config = config(top.path(), None);
    check_addresses(&config, "127.0.0.3".parse().unwrap()).unwrap();
    let error = check_addresses(&config, "192.0.2.7".parse().unwrap());
    assert!(error.unwrap_err().to_string().contains("127.0.0.1:7001"));
}
