//! House rules that no compiler checks. Verifying never edits the tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// rustfmt keeps code within 100. This is for what it leaves alone: comments and macros. A string that
/// cannot be broken is nobody's fault.
const LINE_WIDTH_MAX: usize = 107;
const FILE_LINES_MAX: usize = 800;
/// Files that were longer when the rule was made. They may only shrink.
const OVERLONG: [(&str, usize); 0] = [];
/// Assembled so that this file does not break its own rule.
const STRAY: [&str; 3] = [
    concat!("db", "g!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
];
/// Folders whose Rust files are checked, from the root.
const ROOMS: [&str; 7] = [
    "src",
    "tests",
    "consensus",
    "dmt",
    "interposer",
    "checkpoint",
    "examples",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for room in ROOMS {
        files(&root().join(room), "rs", &mut found);
    }
    assert!(found.len() > 20, "the sources are not where they were");
    read(found)
}

fn documents() -> Vec<(String, String)> {
    let mut found = vec![root().join("README.md"), root().join("Cargo.toml")];
    files(&root().join("docs"), "md", &mut found);
    read(found)
}

fn read(paths: Vec<PathBuf>) -> Vec<(String, String)> {
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    paths
        .into_iter()
        .map(|path| (name(&path), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Each file with each rule that it breaks.
#[track_caller]
fn check(sources: &[(String, String)], rule: impl Fn(&str, &str) -> Vec<String>) {
    let of = |(name, text): &(String, String)| {
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
    check(&sources(), |name, text| {
        // A module of unit tests is described by what it tests.
        let told = text.starts_with("//!") || name.ends_with("/tests.rs");
        if told {
            Vec::new()
        } else {
            vec!["does not open with a module description".into()]
        }
    });
}

#[test]
fn lines_are_short() {
    check(&sources(), |_, text| {
        let wide = |line: &str| line.chars().count() > LINE_WIDTH_MAX && !line.contains('"');
        lines_where(text, wide, "too wide")
    });
}

#[test]
fn files_are_short() {
    check(&sources(), |name, text| {
        let overlong = OVERLONG.iter().find(|(file, _)| *file == name);
        let limit = overlong.map_or(FILE_LINES_MAX, |(_, lines)| *lines);
        let lines = text.lines().count();
        if lines > limit {
            vec![format!("{lines} lines, more than {limit}")]
        } else {
            Vec::new()
        }
    });
}

#[test]
fn nothing_is_left_lying_about() {
    for stray in STRAY {
        check(&sources(), |_, text| {
            lines_where(text, |line| line.contains(stray), stray)
        });
    }
    check(&sources(), |_, text| {
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
    let mut all = sources();
    all.extend(documents());
    for path in mine {
        // `DATA/node-1/work/` is not meant.
        let absolute = |line: &str| {
            line.match_indices(path)
                .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric()))
        };
        check(&all, |_, text| lines_where(text, absolute, path));
    }
}
