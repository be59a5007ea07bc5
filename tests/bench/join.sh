#!/usr/bin/env bash
# How long a node takes to join with MB of data in Redis while clients set keys at the leader, and what they notice: first a member
# whose disk was lost, then a learner. Rates are those of the leader's own counter, before and meanwhile in the same run.
# Usage (as root, with CRIU): tests/bench/join.sh [MB] [ROUNDS]. Builds a release first; uses port 7396 of 127.0.0.1 to .4.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --quiet
brolga=${CARGO_TARGET_DIR:-target}/release/brolga
megabytes=${1:-1024}
rounds=${2:-3}
port=7396
scratch=$(mktemp -d "${TMPDIR:-/tmp}/brolga-join.XXXXXX")
data=$scratch/data
touch "$scratch/started"
trap 'kill $(cat "$scratch/started") 2>/dev/null; wait; rm -rf "$scratch"' EXIT

# Notes what was started last, also out of a subshell.
noted() { echo "$1" >>"$scratch/started"; }

# What `brolga status` says: a Python expression of `it`.
status() {
    "$brolga" status --data "$data" --json | python3 -c "import json, sys; it = json.load(sys.stdin); print($1)"
}

now() { date +%s%N; }

commands() {
    redis-cli -h "$leader_at" -p "$port" info stats | tr -d '\r' | awk -F: '/^total_commands_processed/ { print $2 }'
}

# Prints commands per second of the leader while a command runs, and the seconds it took: RATE SECONDS.
rate_while() {
    local from to before after
    before=$(commands); from=$(now)
    "$@"
    after=$(commands); to=$(now)
    echo "$before $after $from $to" | awk '{ t = ($4 - $3) / 1e9; printf "%d %.2f\n", ($2 - $1) / t, t }'
}

# A node has what the leader had when it was asked.
await_node() {
    local mark=$RANDOM$RANDOM
    redis-cli -h "$leader_at" -p "$port" set mark "$mark" >/dev/null
    until [ "$(timeout 1 redis-cli -h "$1" -p "$port" get mark 2>/dev/null)" = "$mark" ]; do sleep 0.05; done
}

# gone PID SIGNAL
gone() {
    kill "$2" "$1"
    while kill -0 "$1" 2>/dev/null; do sleep 0.02; done
}

lose_disk() {
    local pid
    pid=$(status "it['replicas'][$victim - 1]['status']['pid']")
    gone "$pid" -KILL
    cp "$data/node-$victim/config.toml" "$scratch/config.toml"
    rm -rf "$data/node-$victim"
    mkdir "$data/node-$victim"
    cp "$scratch/config.toml" "$data/node-$victim/"
}

come_back() {
    "$brolga" node --config "$data/node-$victim/config.toml" >>"$scratch/victim" 2>&1 &
    noted $!
    await_node "127.0.0.$victim"
}

learn() {
    "$brolga" node --join "$peer" --data "$scratch/learner" --listen 127.0.0.4 >>"$scratch/learner.out" 2>&1 &
    echo $! >"$scratch/learner.pid"
    noted $!
    await_node 127.0.0.4
}

: >"$scratch/out"
"$brolga" run --replicas 3 --data "$data" --container required --checkpoint-log-mib 0 --no-restart -- \
    redis-server --port "$port" --save "" --protected-mode no --enable-debug-command yes >"$scratch/out" 2>&1 &
noted $!
timeout 120 grep -q "Ctrl-C stops" <(tail -n +1 -f "$scratch/out")
leader=$(status 'it["leader"]')
leader_at=127.0.0.$leader
victim=$((leader % 3 + 1))
peer=$(grep -A4 "^id = $leader\$" "$data/cluster.toml" | awk -F'"' '/^peer/ { print $2 }')
redis-cli -h "$leader_at" -p "$port" debug populate $((megabytes * 1000)) key 1000 >/dev/null
redis-benchmark -h "$leader_at" -p "$port" -t set -c 20 -n 1000000000 -r 100000 -d 100 >/dev/null 2>&1 &
noted $!
# The log is dropped behind the older of two checkpoints, in files of 32 MB: then nobody joins without one.
until [ "$(status 'it["replicas"][0]["status"]["log_begins"]')" -gt 1 ]; do
    sleep 5
    "$brolga" checkpoint now --data "$data" >/dev/null
done
for _ in $(seq "$rounds"); do
    before=$(rate_while sleep 8)
    lose_disk
    meanwhile=$(rate_while come_back)
    echo "member with a lost disk, $megabytes MB: $(echo "$before $meanwhile" |
        awk '{ printf "%.2f s; %d set/s before, %d meanwhile, ratio %.2f", $4, $1, $3, $3 / $1 }')"
    before=$(rate_while sleep 8)
    rm -rf "$scratch/learner"
    meanwhile=$(rate_while learn)
    echo "learner, $megabytes MB: $(echo "$before $meanwhile" |
        awk '{ printf "%.2f s; %d set/s before, %d meanwhile, ratio %.2f", $4, $1, $3, $3 / $1 }')"
    gone "$(cat "$scratch/learner.pid")" -TERM
done
"$brolga" status --data "$data" | tail -12
