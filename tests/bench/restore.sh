#!/usr/bin/env bash
# How long a replica takes to come back: from a checkpoint of Redis with MB of data, side by side with reading the
# checkpoint's files, and then from a log.
# Usage (as root, with CRIU): tests/bench/restore.sh [MB] [ROUNDS] [COMPRESSION]. Builds a release first; uses port 7398 of 127.0.0.1.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --quiet
brolga=${CARGO_TARGET_DIR:-target}/release/brolga
megabytes=${1:-1024}
rounds=${2:-3}
compression=${3:-none}
port=7398
scratch=$(mktemp -d)
data=$scratch/data
trap 'kill -INT $run 2>/dev/null && wait $run; rm -rf "$scratch"' EXIT

start() {
    : >"$scratch/out"
    "$brolga" run --replicas 1 --data "$data" --container required --checkpoint-log-mib 0 \
        --checkpoint-compression "$compression" -- \
        redis-server --port "$port" --save "" --protected-mode no --enable-debug-command yes \
        >"$scratch/out" 2>&1 &
    run=$!
    timeout 120 grep -q "Ctrl-C stops" <(tail -n +1 -f --pid="$run" "$scratch/out")
}

stop() {
    kill -INT "$run"
    wait "$run" || true
}

# Seconds that a command takes.
seconds() {
    local from
    from=$(date +%s%N)
    "$@" >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2; exit 1; }
    echo "$(date +%s%N) $from" | awk '{ printf "%.2f", ($1 - $2) / 1e9 }'
}

read_files() {
    find "$data/node-1/checkpoints" -type f -exec cat {} + | wc -c
}

# Starts it again, and tells when it answers, and what its node says of that.
answers() {
    local from to
    from=$(date +%s%N)
    start
    until redis-cli -p "$port" ping 2>/dev/null | grep -q PONG; do sleep 0.01; done
    to=$(date +%s%N)
    echo "$to $from" | awk '{ printf "'"$1"': restored and answering in %.2f s\n", ($1 - $2) / 1e9 }'
}

forget() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

start
redis-cli -p "$port" debug populate $((megabytes * 1000)) key 1000 >/dev/null
echo "checkpoint of $megabytes MB, $compression: $(seconds "$brolga" checkpoint now --data "$data") s"
stop
echo "bytes of the checkpoint: $(read_files)"
for _ in $(seq "$rounds"); do
    for cache in cold warm; do
        [ "$cache" = warm ] || forget
        echo "$cache: files read in $(seconds read_files) s"
        [ "$cache" = warm ] || forget
        echo "$cache: checked in $(seconds "$brolga" checkpoint verify --data "$data") s"
        [ "$cache" = warm ] || forget
        answers "$cache"
        stop
    done
done
grep -h "brought back" "$data/node-1/node.log" | tail -1

# The log: as many bytes of requests as fit into a minute.
start
redis-benchmark -p "$port" -t set -n 300000 -c 50 -P 16 -r 100000 -d 100 -q >/dev/null
stop
for _ in $(seq "$rounds"); do
    "$brolga" replay --data "$data" --node 1 --from-checkpoint | grep -E "was there|slots per second"
done
du -sb "$data/node-1/log" | awk '{ print "log: " $1 " bytes" }'
