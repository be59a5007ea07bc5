//! The files that the rules are about, and the crates that they belong to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders with sources, from the root.
const ROOMS: [&str; 7] = [
    "src",
    "tests",
    "consensus",
    "dmt",
    "interposer",
    "checkpoint",
    "examples",
];

/// One file: its name from the root, and its text.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every path below `folder`, folders included; build output and version control left out.
fn paths_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.ends_with("target") || path.ends_with(".git") {
            continue;
        }
        found.push(path.clone());
        if path.is_dir() {
            paths_below(&path, found);
        }
    }
}

/// Paths below the rooms, from the root, in order.
pub fn paths() -> &'static [PathBuf] {
    static PATHS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let mut found = Vec::new();
        for room in ROOMS {
            paths_below(&root().join(room), &mut found);
        }
        found.sort();
        found
    })
}

/// The name of a path from the root, with slashes.
pub fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn read(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Source> {
    let source = |path: PathBuf| Source {
        name: name_of(&path),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(source).collect()
}

fn with_extension(paths: &[PathBuf], extensions: &[&str]) -> Vec<PathBuf> {
    let wanted = |path: &&PathBuf| {
        let extension = path.extension().and_then(|it| it.to_str());
        extension.is_some_and(|it| extensions.contains(&it))
    };
    paths.iter().filter(wanted).cloned().collect()
}

/// All sources in Rust.
pub fn rust() -> Vec<Source> {
    let found = read(with_extension(paths(), &["rs"]));
    assert!(found.len() > 20, "the sources are not where they were");
    found
}

/// All sources in C, headers included.
pub fn c() -> Vec<Source> {
    read(with_extension(paths(), &["c", "h"]))
}

/// The documents: README, docs, .github, and pages beside the sources.
pub fn documents() -> Vec<Source> {
    let mut all = vec![root().join("README.md")];
    for folder in ["docs", ".github"] {
        paths_below(&root().join(folder), &mut all);
    }
    all.extend_from_slice(paths());
    let mut found = with_extension(&all, &["md"]);
    found.sort();
    read(found)
}

/// The root manifest, which is prose in part.
pub fn manifest() -> Source {
    read([root().join("Cargo.toml")]).remove(0)
}

/// Folders of the crates below the rooms, from the root. The root's own crate is `src`; its tests
/// count as one as well.
pub fn crates() -> &'static [String] {
    static CRATES: OnceLock<Vec<String>> = OnceLock::new();
    CRATES.get_or_init(|| {
        let manifests = paths().iter().filter(|path| path.ends_with("Cargo.toml"));
        let folders = manifests.map(|path| name_of(path.parent().unwrap()));
        let own = ["src".to_owned(), "tests".to_owned()];
        folders.chain(own).collect()
    })
}

/// The crate that a file belongs to: the innermost folder with a manifest.
pub fn crate_of(name: &str) -> &'static str {
    let around = crates().iter().filter(|folder| {
        let rest = name.strip_prefix(folder.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    });
    around
        .max_by_key(|it| it.len())
        .map_or("elsewhere", String::as_str)
}
