#!/usr/bin/env bash
# What the seccomp filter costs: redis-benchmark against one replica of Redis, with and without it in turn.
# Usage: tests/bench/syscall_filter.sh [ROUNDS]. Builds a release first; uses port 7399 of 127.0.0.1.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --quiet
brolga=${CARGO_TARGET_DIR:-target}/release/brolga
port=7399

measure() {
    local data run clients
    data=$(mktemp -d)
    "$brolga" run --replicas 1 --data "$data/data" "$@" -- \
        redis-server --port "$port" --save "" --protected-mode no >"$data/out" 2>&1 &
    run=$!
    # The line that says that it is up.
    timeout 60 grep -q "Ctrl-C stops" <(tail -n +1 -f --pid="$run" "$data/out")
    for clients in 50 1; do
        redis-benchmark -p "$port" -t set -n $((clients == 1 ? 20000 : 300000)) -c "$clients" --csv |
            tail -1 | sed "s/^/${1:-with it} clients=$clients /"
    done
    kill -INT "$run"
    wait "$run" || true
    rm -r "$data"
}

for _ in $(seq "${1:-4}"); do
    measure
    measure --no-syscall-filter
done
