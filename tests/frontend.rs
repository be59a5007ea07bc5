//! `brolga frontend`: connections that outlive every node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use harness::{Client, Cluster, brolga, eventually, free_port, refused, signal, store};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Child;

/// Not an address of a replica.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 100);

struct Frontend(Child);

impl Frontend {
    fn start(cluster: &Cluster, address: SocketAddr) -> Self {
        let child = brolga()
            .arg("frontend")
            .arg("--data")
            .arg(&cluster.data)
            .args(["--listen", &HERE.to_string()])
            .spawn()
            .unwrap();
        assert!(eventually(|| TcpStream::connect(address).is_ok()));
        Self(child)
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_connection_outlives_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let address = SocketAddr::from((HERE, port));
    let mut cluster = Cluster::start(&dir.path().join("data"), &[], &store(port));
    let mut frontend = Frontend::start(&cluster, address);
    let mut client = Client::connect(address);
    let mut count = 0;
    for killed in 0..3 {
        let processes = cluster.wait_until_equal();
        let replica = &processes["replicas"][killed];
        let (id, pid) = (&replica["id"], replica["status"]["pid"].as_u64().unwrap());
        for step in 0..100 {
            client.send(&["INCR", "counter"]);
            if step == 50 {
                signal(pid, "KILL");
            }
            count += 1;
            assert_eq!(client.reply(), format!(":{count}"));
        }
        cluster.line_with(&format!("replica {id} killed by SIGKILL"));
    }
    cluster.wait_until_equal();
    signal(frontend.0.id().into(), "TERM");
    assert!(frontend.0.wait().unwrap().success());
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn there_has_to_be_a_cluster() {
    refused(
        &["frontend", "--data", "/proc", "--listen", "127.0.0.100"],
        &["holds no cluster"],
    );
}
