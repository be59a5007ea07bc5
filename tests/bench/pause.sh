#!/usr/bin/env bash
# What clients see of a checkpoint: how long a replica that is alone stands still, by MB of data in Redis; and the latency of
# clients of the leader while a backup takes one after the other, side by side with none being taken.
# Usage (as root, with CRIU): tests/bench/pause.sh [ROUNDS]. Builds a release first; uses port 7397 of 127.0.0.1 to .3.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --quiet
brolga=${CARGO_TARGET_DIR:-target}/release/brolga
rounds=${1:-3}
port=7397
scratch=$(mktemp -d)
data=$scratch/data
trap 'kill -INT $run 2>/dev/null && wait $run; rm -rf "$scratch"' EXIT

# start REPLICAS
start() {
    rm -rf "$data"
    : >"$scratch/out"
    "$brolga" run --replicas "$1" --data "$data" --container required --checkpoint-log-mib 0 -- \
        redis-server --port "$port" --save "" --protected-mode no --enable-debug-command yes \
        >"$scratch/out" 2>&1 &
    run=$!
    timeout 120 grep -q "Ctrl-C stops" <(tail -n +1 -f --pid="$run" "$scratch/out")
}

stop() {
    kill -INT "$run"
    wait "$run" || true
}

for megabytes in 64 256 1024; do
    start 1
    redis-cli -p "$port" debug populate $((megabytes * 1000)) key 1000 >/dev/null
    for _ in $(seq "$rounds"); do
        # Every checkpoint is of another slot.
        redis-cli -p "$port" incr turn >/dev/null
        redis-cli -p "$port" --latency --raw -i 5 >"$scratch/latency" &
        watcher=$!
        sleep 0.5
        "$brolga" checkpoint now --data "$data" >/dev/null
        wait "$watcher"
        echo "alone, $megabytes MB: longest answer $(awk '{ print $2 }' "$scratch/latency") ms"
    done
    stop
done

# Clients of the leader, with and without a backup at work.
latency() {
    redis-benchmark -p "$port" -h "$leader" -t set -n 60000 -c 8 -d 100 --csv | tail -1 |
        awk -F, '{ gsub(/"/, ""); print "'"$1"': p50 " $5 " p95 " $6 " p99 " $7 " longest " $8 " ms, " $2 " requests/s" }'
}

start 3
redis-cli -p "$port" debug populate 256000 key 1000 >/dev/null
lead=$("$brolga" status --json --data "$data" | sed -n 's/^ *"leader": \([0-9]*\),.*/\1/p' | head -1)
leader=127.0.0.$lead
backup=$((lead % 3 + 1))
latency "warming up"
for _ in $(seq "$rounds"); do
    latency "no checkpoint"
    "$brolga" checkpoint now --data "$data" --node "$backup" >"$scratch/taken" &
    taker=$!
    latency "a backup takes one"
    # What counts is the load during a checkpoint.
    kill -0 "$taker" 2>/dev/null && echo "(it was not over when the load was)"
    wait "$taker"
done
