//! Files, functions and folders are small enough to be read at once.

use crate::ratchet::{Finding, hold};
use crate::source::{Language, code, functions};
use crate::tree::{self, Source};
use std::collections::BTreeMap;
use std::path::Path;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const FOLDER_FILES_MAX: usize = 16;
/// Marks a file or a function that only lists things, which is long and still easy to read.
const MARKS: [&str; 2] = ["A table: ", "A table."];

/// Lines over the limit in the files of each crate, together.
const FILE_LINES_OVER: [(&str, usize); 0] = [];
/// Lines over the limit in the functions of each crate, together.
const FUNCTION_LINES_OVER: [(&str, usize); 0] = [];

fn all() -> Vec<(Source, Language)> {
    let rust = tree::rust().into_iter().map(|it| (it, Language::Rust));
    let c = tree::c().into_iter().map(|it| (it, Language::C));
    rust.chain(c).collect()
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for (Source { name, text }, _) in all() {
        let lines = text.lines().count();
        let table = text.lines().take(20).any(is_mark);
        if lines > FILE_LINES_MAX && !table {
            found.push(Finding {
                part: tree::crate_of(&name).to_owned(),
                fault: format!("{name}: {lines} lines, more than {FILE_LINES_MAX}"),
                weight: lines - FILE_LINES_MAX,
            });
        }
    }
    hold(&FILE_LINES_OVER, found);
}

fn is_mark(line: &str) -> bool {
    MARKS.iter().any(|mark| line.contains(mark))
}

/// True if the comment above a function or its first lines mark a table.
fn is_table(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let above = lines[..line - 1].iter().rev();
    let comment = above.take_while(|it| it.trim_start().starts_with(['/', '#', '*']));
    let first = lines.iter().skip(line - 1).take(8);
    let mut marks = comment.chain(first).filter(|it| is_mark(it));
    marks.next().is_some()
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for (Source { name, text }, language) in all() {
        for function in functions(&code(&text, language), language) {
            let (line, lines) = (function.line, function.lines);
            if lines > FUNCTION_LINES_MAX && !is_table(&text, line) {
                let function = function.name;
                found.push(Finding {
                    part: tree::crate_of(&name).to_owned(),
                    fault: format!("{name}:{line}: {function} has {lines} lines, more than {FUNCTION_LINES_MAX}"),
                    weight: lines - FUNCTION_LINES_MAX,
                });
            }
        }
    }
    hold(&FUNCTION_LINES_OVER, found);
}

#[test]
fn folders_have_room() {
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    let mut divided = Vec::new();
    for path in tree::paths() {
        let folder = tree::name_of(path.parent().unwrap());
        if path.is_dir() {
            divided.push(folder);
        } else if is_source(path) {
            *files.entry(folder).or_default() += 1;
        }
    }
    let full = files
        .into_iter()
        .filter(|(folder, count)| *count > FOLDER_FILES_MAX && !divided.contains(folder));
    let found = full.map(|(folder, count)| Finding {
        fault: format!("{folder}: {count} files and no folder, more than {FOLDER_FILES_MAX}"),
        part: folder,
        weight: 1,
    });
    hold(&[], found.collect());
}

fn is_source(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    extension.is_some_and(|it| ["rs", "c", "h", "py", "sh"].contains(&it))
}
