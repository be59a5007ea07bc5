//! Builds the interposer and leaves it where `launch/image.rs` embeds it, so that `brolga` is
//! one self-contained file.
//!
//! The interposer exports libc's own names and is `no_std`, so it cannot be an ordinary dependency:
//! a nested cargo builds it with its own profile and target folder. `BROLGA_INTERPOSER` names a
//! ready-made library to embed instead (packagers, quick rebuilds).

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Variables by which the outer cargo (or clippy) configures its compiler, hidden from the nested cargo.
const OUTER_BUILD_ONLY: [&str; 5] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CARGO_MAKEFLAGS",
];

fn main() {
    println!("cargo::rerun-if-env-changed=BROLGA_INTERPOSER");
    println!("cargo::rerun-if-changed=build.rs");
    let library = match env::var_os("BROLGA_INTERPOSER") {
        Some(ready_made) if !ready_made.is_empty() => {
            let path = PathBuf::from(ready_made);
            println!("cargo::rerun-if-changed={}", path.display());
            path
        }
        _ => build_interposer(),
    };
    if !library.is_file() {
        fail(&format!("no interposer at {}", library.display()));
    }
    println!(
        "cargo::rustc-env=BROLGA_INTERPOSER_IMAGE={}",
        library.display()
    );
}

fn build_interposer() -> PathBuf {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..");
    for source in ["Cargo.toml", "interposer", "dmt/src", "dmt/Cargo.toml"] {
        let path = root.join(source);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let target = variable("TARGET");
    let target_dir = Path::new(&variable("OUT_DIR")).join("shim");
    let mut cargo = Command::new(variable("CARGO"));
    for name in OUTER_BUILD_ONLY {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "shim",
            "--manifest-path",
        ])
        .arg(root.join("interposer/Cargo.toml"))
        .args(["--target", &target, "--target-dir"])
        .arg(&target_dir);
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the interposer failed: {status}")),
        Err(error) => fail(&format!("cannot run cargo for the interposer: {error}")),
    }
    target_dir.join(target).join("shim/libbrolga_interposer.so")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(reason: &str) -> ! {
    println!("cargo::error={reason}");
    exit(1)
}
