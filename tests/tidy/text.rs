//! Lines of text: their width, their ends, words that must not stay, and the description of each
//! module.

use crate::tree::{self, Source};

/// rustfmt keeps code within 100. This is for what it leaves alone: comments and macros. A string
/// that cannot be broken is nobody's fault.
const LINE_WIDTH_MAX: usize = 107;
/// Assembled so that this file does not break its own rule.
const STRAY: [&str; 3] = [
    concat!("db", "g!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
];

/// Each file with each rule that it breaks.
#[track_caller]
fn check(sources: &[Source], rule: impl Fn(&str, &str) -> Vec<String>) {
    let of = |Source { name, text }: &Source| {
        let complaints = rule(name, text).into_iter();
        complaints
            .map(|what| format!("{name}: {what}"))
            .collect::<Vec<_>>()
    };
    let complaints: Vec<String> = sources.iter().flat_map(of).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn lines_where(text: &str, bad: impl Fn(&str) -> bool, what: &str) -> Vec<String> {
    let numbered = text.lines().zip(1..).filter(|(line, _)| bad(line));
    numbered
        .map(|(_, number)| format!("line {number}: {what}"))
        .collect()
}

#[test]
fn every_module_says_what_it_is_for() {
    check(&tree::rust(), |name, text| {
        // A module of unit tests is described by what it tests.
        let told = text.starts_with("//!")
            || name.ends_with("/tests.rs")
            || name.ends_with("/tests/mod.rs");
        if told {
            Vec::new()
        } else {
            vec!["does not open with a module description".into()]
        }
    });
}

#[test]
fn lines_are_short() {
    check(&tree::rust(), |_, text| {
        let wide = |line: &str| line.chars().count() > LINE_WIDTH_MAX && !line.contains('"');
        lines_where(text, wide, "too wide")
    });
}

#[test]
fn nothing_is_left_lying_about() {
    for stray in STRAY {
        check(&tree::rust(), |_, text| {
            lines_where(text, |line| line.contains(stray), stray)
        });
    }
    check(&tree::rust(), |_, text| {
        lines_where(
            text,
            |line| line.ends_with([' ', '\t']),
            "white space at the end",
        )
    });
}

#[test]
fn nothing_points_at_one_machine() {
    // System paths are the same everywhere; home and work directories are not.
    let mine = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let mut all = tree::rust();
    all.extend(tree::documents());
    all.push(tree::manifest());
    for path in mine {
        // `DATA/node-1/work/` is not meant.
        let absolute = |line: &str| {
            line.match_indices(path)
                .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric()))
        };
        check(&all, |_, text| lines_where(text, absolute, path));
    }
}
