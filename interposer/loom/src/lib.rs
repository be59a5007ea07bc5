//! Model checks of the shared memory between processes: the tape's rings and the hand-off of the
//! turn.
//!
//! loom runs a test with every interleaving of its threads and with every value that the memory
//! model lets a load see. It needs its own types in place of atomics and memory, so the sources
//! under test are compiled here a second time, from where they are, against [`sync`] and `mapping`
//! of this crate. There is no flag to set: `cargo test -p brolga-loom` runs the models, and so does
//! the whole suite.
//!
//! * [`ring`]: the rings, as in `brolga-tape`.
//! * [`baton`]: the word that hands on the turn, as in `brolga-dmt`.
//! * [`kernel`]: futexes and eventfds for the threads of a model.

mod mapping;

pub mod kernel;
pub mod sync;

#[path = "../../tape/src/layout.rs"]
mod layout;

#[path = "../../tape/src/ring/mod.rs"]
pub mod ring;

#[path = "../../../dmt/src/baton.rs"]
pub mod baton;

// The included sources name these by `crate::`.
#[cfg(test)]
use brolga_tape::ConnId;
use brolga_tape::{entry, record, unix};

pub use mapping::Memory;

/// Runs a model with every interleaving of at most three preemptions, for both ways of
/// [`sync::Fences`].
pub fn check(model: impl Fn() + Sync + Send + Copy + 'static) {
    for fences in [sync::Fences::AfterStores, sync::Fences::BeforeLoads] {
        sync::set_fences(fences);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }
}

/// Puts a bug in on purpose and asserts that a test of the calling binary finds it: makes an
/// operation of the sources `Relaxed`, the first one after `place` in the text of `file`, and runs
/// the test.
///
/// # Panics
/// When the place is not there, or the test passes all the same.
pub fn assert_finds(test: &str, file: &str, text: &str, place: &str) {
    let Some(at) = text.find(place) else {
        panic!("{file} has no {place:?}");
    };
    // The operation itself: its name stands before the last parenthesis of the place.
    let end = at + place.rfind('(').unwrap_or(place.len());
    let start = text[..end].rfind('.').map_or(end, |dot| dot + 1);
    let line = text[..start].matches('\n').count() + 1;
    let column = start - text[..start].rfind('\n').map_or(0, |newline| newline + 1) + 1;
    let this = std::env::current_exe().expect("a test knows its own path");
    let output = std::process::Command::new(this)
        .args(["--exact", test])
        .env("BROLGA_WEAKEN", format!("{file}:{line}:{column}"))
        .output()
        .expect("the test's own program starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("running 1 test"), "no test {test}: {told}");
    assert!(
        !output.status.success(),
        "{test} does not notice a relaxed {place:?} in {file}:{line}"
    );
}
