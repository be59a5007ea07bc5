//! On the node's side only few files, the doors, call the operating system through `libc`; all
//! others use what these offer, or the standard library and `nix`. The interposer is libc's other
//! half and may name it anywhere.

use crate::ratchet::{Finding, hold};
use crate::source::{Language, code};
use crate::tree;

/// Folders where the rule holds.
const NODE_SIDE: [&str; 5] = ["src/", "checkpoint/", "consensus/", "dmt/", "examples/"];
/// Files that are doors, for each crate.
const DOORS: [(&str, usize); 5] = [
    ("checkpoint", 8),
    ("src", 2),
    ("src/node", 4),
    ("src/os", 4),
    ("src/server_image", 8),
];

#[test]
fn libc_is_named_in_doors_only() {
    let mut found = Vec::new();
    for source in tree::rust() {
        let name = source.name;
        let bound = NODE_SIDE.iter().any(|it| name.starts_with(it));
        if bound && code(&source.text, Language::Rust).contains("libc::") {
            found.push(Finding {
                part: tree::crate_of(&name).to_owned(),
                fault: format!("{name}: names `libc::`"),
                weight: 1,
            });
        }
    }
    hold(&DOORS, found);
}
