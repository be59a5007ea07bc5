//! What we depend on: licences, where it comes from, and that docs/dependencies.md knows it.
//!
//! Needs no network and no further tool; `tests/deny.sh` looks deeper where cargo-deny is installed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// As in `.cargo/deny.toml`.
const LICENCES: [&str; 8] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// All packages that are built for this machine, ours too.
fn packages() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(["--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 20, "these are not all packages");
    packages
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// True if an SPDX expression without nested brackets leaves us a licence that we accept.
fn is_accepted(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], "");
    let mut all = plain.split(" AND ");
    all.all(|one| one.split(" OR ").any(|it| LICENCES.contains(&it.trim())))
}

#[test]
fn licences_are_permissive() {
    assert!(is_accepted("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(is_accepted("GPL-3.0 OR MIT") && is_accepted("MIT/Apache-2.0"));
    assert!(!is_accepted("MIT AND GPL-3.0") && !is_accepted(""));
    for package in packages() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        assert!(is_accepted(licence), "{name} has the licence `{licence}`");
    }
}

#[test]
fn everything_comes_from_crates_io() {
    for package in packages() {
        let source = package["source"].as_str();
        let name = text(&package, "name");
        let known = source.is_none_or(|source| source == REGISTRY);
        assert!(known, "{name} comes from {source:?}");
    }
}

#[test]
fn what_we_name_is_explained() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dependencies.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let explained: Vec<&str> = rows
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|names| names.split(", "))
        .collect();
    let ours = packages().into_iter().filter(|it| it["source"].is_null());
    for package in ours {
        for dependency in package["dependencies"].as_array().unwrap() {
            let (name, of) = (text(dependency, "name"), text(&package, "name"));
            let known = dependency["source"].is_null() || explained.contains(&name);
            assert!(known, "{name}, of {of}, has no row in docs/dependencies.md");
        }
    }
}
