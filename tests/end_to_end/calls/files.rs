//! Files have the same identity, times and order on every replica, and else what they have natively.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use std::fs;

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

/// The kernel numbers files below /proc anew whenever it has forgotten them, which it does when memory is
/// short: at another moment on each machine.
#[test]
fn files_below_proc_keep_their_numbers() {
    let name = "files_below_proc_keep_their_numbers";
    let forget = || fs::write("/proc/sys/vm/drop_caches", "2");
    if let Err(error) = forget() {
        return say(&format!(
            "{name}: SKIPPED, the kernel cannot be made to forget files: {error}"
        ));
    }
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/servers/python/numbers.py"
    );
    let words = |port: u16| ["/usr/bin/python3", program, &port.to_string()].map(str::to_owned);
    let cluster = Cluster::start(Setup::new(|port| words(port).to_vec()));
    cluster.settle();
    let first = ask(cluster.address(1), "n");
    assert!(first.starts_with('['), "{first}");
    for node in [1, 2, 3] {
        forget().unwrap();
        assert_eq!(ask(cluster.address(node), "n"), first);
    }
    say(&format!(
        "{name}: {}: {}",
        first.trim(),
        cluster.settle().hashes()
    ));
    cluster.stop();
}
