//! Documentation names what it is about: "The highest slot …", not "What is highest".

use crate::ratchet::{Finding, hold};
use crate::tree;

/// First words that leave the reader to guess.
const RIDDLES: [&str; 6] = ["What ", "How ", "Whether ", "Its ", "Where ", "It "];
/// Comments that begin like that, for each crate.
const ALLOWED: [(&str, usize); 18] = [
    ("checkpoint", 67),
    ("consensus", 75),
    ("dmt", 13),
    ("examples/store", 20),
    ("interposer", 134),
    ("interposer/filter", 10),
    ("interposer/loom", 2),
    ("interposer/rewrite", 12),
    ("interposer/tape", 30),
    ("interposer/vfile", 7),
    ("interposer/vipc", 26),
    ("interposer/vnet", 40),
    ("interposer/vsignal", 14),
    ("src", 72),
    ("src/config", 4),
    ("src/node", 260),
    ("src/os", 11),
    ("src/server_image", 39),
];

/// Numbers of the lines at which a comment begins with a riddle.
fn riddles(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut inside = false;
    for (line, number) in text.lines().zip(1..) {
        let words = line.trim_start().strip_prefix("///");
        if let Some(words) = words
            && !inside
            && RIDDLES.iter().any(|it| words.trim_start().starts_with(it))
        {
            found.push(number);
        }
        inside = words.is_some();
    }
    found
}

#[test]
fn documentation_names_its_item() {
    let mut found = Vec::new();
    for source in tree::rust() {
        let part = tree::crate_of(&source.name);
        found.extend(riddles(&source.text).into_iter().map(|line| Finding {
            part: part.to_owned(),
            fault: format!("{}:{line}: begins without its subject", source.name),
            weight: 1,
        }));
    }
    hold(&ALLOWED, found);
}

#[test]
fn only_first_lines_count() {
    let text =
        "/// What it is.\n/// How it goes.\nfn a() {}\n    /// Its own.\n/// The one.\n// It is.\n";
    assert_eq!(riddles(text), [1, 4]);
}
