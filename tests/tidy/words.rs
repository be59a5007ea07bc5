//! Documentation names what it is about: "The highest slot …", not "What is highest".

use crate::ratchet::{Finding, hold};
use crate::tree;

/// First words that leave the reader to guess.
const RIDDLES: [&str; 6] = ["What ", "How ", "Whether ", "Its ", "Where ", "It "];
/// Comments that begin like that, for each crate.
const ALLOWED: [(&str, usize); 11] = [
    ("checkpoint", 7),
    ("consensus", 12),
    ("dmt", 2),
    ("examples/store", 3),
    ("interposer", 1),
    ("interposer/loom", 2),
    ("interposer/rewrite", 4),
    ("interposer/vipc", 6),
    ("interposer/vnet", 2),
    ("src/node", 18),
    ("src/server_image", 1),
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
