//! `brolga demo` keeps what it promises.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use harness::finish;

#[test]
fn the_demonstration_succeeds() {
    let finished = finish(&["demo"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stdout.contains("none lost, none repeated"),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stdout.contains("their hashes are equal"),
        "{}",
        finished.stdout
    );
}
