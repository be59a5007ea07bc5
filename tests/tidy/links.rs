//! What documents name exists: files, headings, tests.

use crate::ratchet::{Finding, hold};
use crate::tree::{self, Source, root};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Names in documents that lead nowhere, for each document.
const BROKEN: [(&str, usize); 0] = [];
/// The folders in which paths in backquotes begin, if they are meant to be files of the tree.
const FOLDERS: [&str; 9] = [
    "src/",
    "tests/",
    "docs/",
    "interposer/",
    "consensus/",
    "checkpoint/",
    "dmt/",
    "examples/",
    ".github/",
];
/// File names in backquotes that are files of the tree wherever they are.
const EXTENSIONS: [&str; 4] = [".rs", ".c", ".py", ".sh"];

/// A text without its code blocks; lines stay where they are.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().map(|line| {
        let fence = line.trim_start().starts_with("```");
        let hidden = fenced || fence;
        fenced ^= fence;
        if hidden { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The words in backquotes.
fn quoted(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// Targets of links, `[text](target)`.
fn links(prose: &str) -> Vec<&str> {
    let after = prose.split("](").skip(1);
    after.filter_map(|it| it.split(')').next()).collect()
}

/// The anchors that GitHub makes of the headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|it| match it {
            ' ' => Some('-'),
            '-' | '_' => Some(it),
            it if it.is_alphanumeric() => Some(it),
            _ => None,
        });
        let anchor: String = kept.collect();
        let mut unique = anchor.clone();
        let mut number = 0;
        while !found.insert(unique.clone()) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
    }
    found
}

/// `a/{b,c}/d` as `a/b/d` and `a/c/d`.
fn expanded(path: &str) -> Vec<String> {
    let Some((head, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let Some((choices, tail)) = rest.split_once('}') else {
        return vec![path.to_owned()];
    };
    let tails = expanded(tail);
    let one = |choice: &str| -> Vec<String> {
        let whole = tails
            .iter()
            .map(|tail| format!("{head}{}{tail}", choice.trim()));
        whole.collect()
    };
    choices.split(',').flat_map(one).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// True if a file or folder matches: a star stands for any part of a name.
fn exists(path: &str) -> bool {
    match path.split_once('*') {
        None => root().join(path).exists(),
        Some((before, after)) => {
            let matches = |name: &str| {
                let rest = name.strip_prefix(before);
                rest.is_some_and(|rest| rest.ends_with(after.trim_start_matches('*')))
            };
            tree::paths()
                .iter()
                .any(|path| matches(&tree::name_of(path)))
        }
    }
}

/// True if the text can be a path of the tree. `NAME` stands for any name.
fn is_path(text: &str) -> bool {
    let fits = |it: char| it.is_alphanumeric() || "/._-{},*".contains(it);
    text.chars().all(fits) && !text.contains("NAME")
}

/// A test as documents name it, `end_to_end::room::file::name`, with fewer parts at the end.
fn is_test(path: &str) -> bool {
    let mut at = root().join("tests");
    let mut parts = path.split("::").peekable();
    while let Some(part) = parts.next() {
        let file = at.join(format!("{part}.rs"));
        if file.is_file() {
            let text = std::fs::read_to_string(file).unwrap();
            return parts.all(|part| text.contains(&format!("fn {part}(")));
        }
        at = at.join(part);
        if !at.is_dir() {
            return false;
        }
    }
    true
}

/// The names in backquotes that lead nowhere.
fn broken_names(prose: &str, files: &BTreeSet<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for name in quoted(prose) {
        let bare = name.split(':').next().unwrap_or(name);
        let is_file = EXTENSIONS.iter().any(|it| bare.ends_with(it));
        let good: Box<dyn Fn(&str) -> bool> = if name.starts_with("end_to_end::") {
            Box::new(is_test)
        } else if !is_path(bare) {
            continue;
        } else if FOLDERS.iter().any(|it| bare.starts_with(it)) {
            Box::new(exists)
        } else if is_file && !bare.contains(['/', '*']) {
            Box::new(|it| files.contains(it))
        } else {
            continue;
        };
        let whole = if name.starts_with("end_to_end::") {
            name
        } else {
            bare
        };
        let missing = expanded(whole).into_iter().filter(|it| !good(it));
        broken.extend(missing.map(|it| format!("`{it}` does not exist")));
    }
    broken
}

/// The links that lead nowhere.
fn broken_links(document: &Source, prose: &str) -> Vec<String> {
    let folder = Path::new(&document.name).parent().unwrap();
    let mut broken = Vec::new();
    for link in links(prose) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() {
            root().join(&document.name)
        } else {
            root().join(plain(&folder.join(path)))
        };
        if !target.exists() {
            broken.push(format!("the link to {link} leads nowhere"));
        } else if !anchor.is_empty() && target.extension() == Some("md".as_ref()) {
            let text = std::fs::read_to_string(&target).unwrap();
            if !anchors(&text).contains(anchor) {
                broken.push(format!("no heading for the link to {link}"));
            }
        }
    }
    broken
}

#[test]
fn documents_name_what_exists() {
    let paths = tree::paths();
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let files: BTreeSet<String> = names.map(str::to_owned).collect();
    let mut found = Vec::new();
    for document in tree::documents() {
        let prose = prose(&document.text);
        let mut faults = broken_names(&prose, &files);
        faults.extend(broken_links(&document, &prose));
        found.extend(faults.into_iter().map(|fault| Finding {
            part: document.name.clone(),
            fault: format!("{}: {fault}", document.name),
            weight: 1,
        }));
    }
    hold(&BROKEN, found);
}

/// Comments name documents, and those exist.
#[test]
fn comments_name_documents_that_exist() {
    let mut found = Vec::new();
    for source in tree::rust() {
        for word in source.text.split_whitespace() {
            let bare = word.trim_matches(|it: char| !it.is_alphanumeric());
            let document = bare.ends_with(".md") && is_path(bare);
            if document && !root().join(bare).exists() && !root().join("docs").join(bare).exists() {
                found.push((source.name.clone(), bare.to_owned()));
            }
        }
        // Split so that this file does not name it.
        let design = concat!("DESIGN", " section");
        for _ in source.text.matches(design) {
            found.push((source.name.clone(), design.to_owned()));
        }
    }
    let finding = |(name, document): (String, String)| Finding {
        part: tree::crate_of(&name).to_owned(),
        fault: format!("{name}: there is no document {document}"),
        weight: 1,
    };
    hold(&UNKNOWN_DOCUMENTS, found.into_iter().map(finding).collect());
}

/// Comments that name a document that does not exist, for each crate.
const UNKNOWN_DOCUMENTS: [(&str, usize); 0] = [];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_are_found_outside_of_code() {
        let text = prose("see `a.rs` and [b](c.md#d)\n```\n`no`\n```\n`e`");
        assert_eq!(quoted(&text), ["a.rs", "e"]);
        assert_eq!(links(&text), ["c.md#d"]);
    }

    #[test]
    fn anchors_are_made_as_on_github() {
        let all = anchors("# The `brolga` command: a, b\n## Files\n## Files\n");
        let expected = ["files", "files-1", "the-brolga-command-a-b"];
        assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn braces_are_expanded() {
        assert_eq!(expanded("a/{b,c}/d.{e,f}").len(), 4);
        assert_eq!(expanded("a/{b,c}")[1], "a/c");
    }

    #[test]
    fn names_that_lead_nowhere_are_told() {
        let files = BTreeSet::from(["tidy.rs".to_owned()]);
        let text = "`tidy.rs` `none.rs` `tests/tidy` `tests/none` `tests/tidy/*.rs` `src/a b` `end_to_end::none`";
        assert_eq!(broken_names(text, &files).len(), 3);
    }
}
