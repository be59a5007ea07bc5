#!/usr/bin/env bash
# Installs what the tests need and runs all of them. The interposer exports libc's own names, so it
# is built by build.rs and tested through the servers that it wraps, never linked into a test.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo fmt --all --check
# By itself, or it would get the features (a heap) that others want of the crates it shares.
cargo clippy -p brolga-interposer --quiet -- -D warnings
cargo clippy --workspace --exclude brolga-interposer --all-targets --quiet -- -D warnings
RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --document-private-items --quiet
exec cargo test --workspace --exclude brolga-interposer --no-fail-fast "$@"
