//! `brolga demo` keeps what it promises, with a checkpoint where the machine allows one and without.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use brolga_checkpoint::CheckpointError;
use harness::{Finished, finish, finish_with};

/// The promises of a demo that hold everywhere.
#[track_caller]
fn kept(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for words in [
        "none lost, none repeated",
        "kill -9 of ",
        "their hashes are equal",
    ] {
        assert!(finished.stdout.contains(words), "{}", finished.stdout);
    }
}

#[test]
fn the_demonstration_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let possible = brolga_checkpoint::probe(directory.path());
    let finished = finish(&["demo"]);
    kept(&finished);
    match possible {
        Ok(_) => came_back_from_a_checkpoint(&finished.stdout),
        Err(CheckpointError::Unsupported(why)) => {
            eprintln!("the demonstration's checkpoint: SKIPPED, {why}");
            replayed_everything(&finished.stdout, &why);
        }
        Err(other) => panic!("the probe failed: {other}"),
    }
}

#[test]
fn the_demonstration_succeeds_without_a_checkpoint() {
    let finished = finish_with(&["demo"], &[("BROLGA_CRIU", "/nonexistent/criu")]);
    kept(&finished);
    let why = match nix::unistd::geteuid().is_root() {
        true => "/nonexistent/criu",
        false => "CRIU needs root",
    };
    replayed_everything(&finished.stdout, why);
}

#[track_caller]
fn came_back_from_a_checkpoint(story: &str) {
    assert!(!story.contains("no checkpoint"), "{story}");
    let slot = number_after(story, "restored from its checkpoint of slot ");
    let replayed = number_after(story, "replayed ");
    // There were this many requests between checkpoint and death, and one slot may hold several.
    assert!(slot > 0 && replayed > 0, "{story}");
    let upto = number_after(story, &format!("replayed {replayed} slots instead of "));
    assert_eq!(slot + replayed, upto, "{story}");
}

/// One line says why there is no checkpoint, and nothing is said to have come back from one.
#[track_caller]
fn replayed_everything(story: &str, why: &str) {
    let mut reasons = story.lines().filter(|line| line.contains("no checkpoint"));
    let reason = reasons.next().expect("a reason");
    assert!(reason.contains(why), "{reason}");
    assert_eq!(reasons.next(), None, "{story}");
    assert!(!story.contains("restored from"), "{story}");
    assert!(number_after(story, "replayed all ") > 0, "{story}");
}

/// The number that comes right after `words`.
#[track_caller]
fn number_after(story: &str, words: &str) -> u64 {
    let (_, rest) = story.split_once(words).expect(words);
    let digits = rest.split(|it: char| !it.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).expect(words)
}
