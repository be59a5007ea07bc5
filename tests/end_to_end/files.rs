//! Files have the same identity, times and order on every replica, and else what they have natively.

use crate::cluster::{Cluster, Setup, say};
use crate::native::{Native, ask, build};

#[test]
fn files_look_the_same_on_every_replica() {
    let program = build("files");
    let directory = tempfile::tempdir().unwrap();
    let native = Native::start_in(&program, &[], directory.path());
    let expected = ask(native.address, "n");
    assert!(expected.ends_with("no directory 1\n"), "{expected}");
    let cluster = Cluster::start(
        Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
            .perturbed(300),
    );
    cluster.settle();
    let mut bytes = 0;
    for node in [1, 2, 3, 1, 2, 3] {
        assert_eq!(ask(cluster.address(node), "n"), expected);
        // That all replicas said the same is in the hashes.
        let said = ask(cluster.address(node), "r");
        assert!(said.starts_with(&expected), "{said}");
        bytes += said.len();
    }
    let hashes = cluster.settle().hashes();
    say(&format!("files: {bytes} bytes about files, {hashes}"));
    cluster.stop();
}
