//! What a server sees of the machine is the same everywhere, and nothing of the real one.

use crate::fixture::cluster::{Cluster, Setup};
use crate::fixture::native::{ask, build};

const EXPECTED: &str = "\
interface lo 127.0.0.1 flags 49
interface eth0 192.0.2.1 flags 1043
index 1 lo 1
index 2 eth0 2
name eth0, unknown 0
listed lo 127.0.0.1 flags 0 49
listed eth0 192.0.2.1 flags 0 1043
host brolga brolga processors 1 uptime 0 load 0
priority same 1 set 0, scheduler 0 parameter 0, capabilities 0, stranger -1
memory made 1, again 0, holds 7, removed 0 -1
message queue refused 1
";

#[test]
fn a_server_sees_the_same_machine_everywhere() {
    let program = build("environment");
    let cluster = Cluster::start(Setup::new(|port| {
        vec![program.to_str().unwrap().to_owned(), port.to_string()]
    }));
    cluster.settle();
    for node in 1..=3 {
        assert_eq!(ask(cluster.address(node), ""), EXPECTED);
    }
    cluster.settle();
    cluster.stop();
}
