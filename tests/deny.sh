#!/usr/bin/env bash
# Checks licences, sources and advisories of the dependencies as .cargo/deny.toml says, with cargo-deny if it
# is installed (cargo install cargo-deny --locked). Licences, bans and sources need no network. Advisories
# need their database: with a network it is fetched, without one the copy of an earlier run is used, and
# without that they are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "tests/deny.sh: skipped: cargo-deny is not installed (cargo install cargo-deny --locked)" >&2
    exit 0
fi
deny=(cargo deny --locked --config .cargo/deny.toml --log-level error)
"${deny[@]}" check --hide-inclusion-graph licenses bans sources

# Exit code 1 of cargo-deny says nothing about why, so first see whether there is a database.
database=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
if "${deny[@]}" fetch db >/dev/null 2>&1; then
    "${deny[@]}" check --disable-fetch advisories
elif compgen -G "$database/*/.git" >/dev/null; then
    echo "tests/deny.sh: the advisory database cannot be fetched: an older copy is used" >&2
    "${deny[@]}" check --disable-fetch advisories
else
    echo "tests/deny.sh: advisories skipped: no advisory database, and none can be fetched" >&2
fi
