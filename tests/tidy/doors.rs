//! On the node's side only few files, the doors, call the operating system through `libc`; all
//! others use what these offer, or the standard library and `nix`. The interposer is libc's other
//! half and may name it anywhere.

use crate::ratchet::{Finding, hold};
use crate::source::{Language, code};
use crate::tree;

/// Folders where the rule holds.
const NODE_SIDE: [&str; 5] = ["src/", "checkpoint/", "consensus/", "dmt/", "examples/"];
/// Files that are doors, each with what it needs there. The list may only shrink.
const DOORS: [(&str, &str); 16] = [
    (
        "checkpoint/src/container/init.rs",
        "mounts, and the first process of a container",
    ),
    (
        "checkpoint/src/container/network.rs",
        "the loopback interface of a container",
    ),
    ("checkpoint/src/image/files/take.rs", "kinds of files"),
    ("checkpoint/src/image/processes.rs", "numbers of errors"),
    ("src/cluster/supervisor.rs", "numbers of errors"),
    ("src/node/server/syscall_filter.rs", "numbers of errors"),
    ("src/node/testing/image.rs", "a test with real servers"),
    ("src/os/sys/datagram.rs", "local addresses of datagrams"),
    ("src/os/sys/stream.rs", "options of TCP"),
    ("src/server_image/elf.rs", "capabilities of files"),
    ("src/server_image/launch/child.rs", "between fork and exec"),
    (
        "src/server_image/launch/contained.rs",
        "between fork and exec, in a container",
    ),
    (
        "src/server_image/launch/lifeline.rs",
        "the signal that ties a server to its node",
    ),
    ("src/server_image/launch/stack.rs", "the auxiliary vector"),
    ("src/server_image/launch/tests.rs", "tests of all of that"),
    (
        "src/server_image/tests/interposer.rs",
        "loads the interposer as a library",
    ),
];

#[test]
fn libc_is_named_in_doors_only() {
    let mut found = Vec::new();
    for source in tree::rust() {
        let name = source.name;
        let bound = NODE_SIDE.iter().any(|it| name.starts_with(it));
        let door = DOORS.iter().any(|(file, _)| *file == name);
        if bound && !door && code(&source.text, Language::Rust).contains("libc::") {
            found.push(Finding {
                part: tree::crate_of(&name).to_owned(),
                fault: format!("{name}: names `libc::` and is no door of tests/tidy/doors.rs"),
                weight: 1,
            });
        }
    }
    hold(&[], found);
}
