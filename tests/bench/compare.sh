#!/usr/bin/env bash
# Compares the speed of two builds: Redis with 50 connections under one replica and under three, and locks
# (uncontended pairs, and two threads that pass a turn). The builds take turns within each round; printed is
# the ratio of the rates, new to old, of each round: lowest, middle, highest.
# Usage: tests/bench/compare.sh OLD_BINARY NEW_BINARY [ROUNDS]. Uses ports 7380 to 7387 of 127.0.0.1 to .3.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
old=$(realpath "$1")
new=$(realpath "$2")
rounds=${3:-5}
here=$(cd "$(dirname "$0")" && pwd)
requests=${BROLGA_COMPARE_REQUESTS:-200000}
pairs=${BROLGA_COMPARE_PAIRS:-20000000}
passes=${BROLGA_COMPARE_PASSES:-200000}
seconds_max=120
scratch=$(mktemp -d)
running=()

stop_all() {
    local pid
    for pid in "${running[@]}"; do
        kill -INT "$pid" 2>/dev/null || continue
        wait "$pid" || true
    done
    running=()
}
trap 'stop_all; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# start BINARY NAME REPLICAS COMMAND...: a cluster, up when this returns.
start() {
    local binary=$1 name=$2 replicas=$3
    shift 3
    "$binary" run --replicas "$replicas" --data "$scratch/$name" -- "$@" >"$scratch/$name.out" 2>&1 &
    running+=($!)
    timeout 60 grep -q "Ctrl-C stops" <(tail -n +1 -f --pid=$! "$scratch/$name.out") && return
    cat "$scratch/$name.out" >&2
    exit 1
}

# redis PORT: requests per second.
redis() {
    timeout "$seconds_max" redis-benchmark -p "$1" -t set -n "$requests" -r 100000 -c 50 -d 64 --csv |
        tail -1 | awk -F, '{ gsub(/"/, ""); print $2 }'
}

# locks PORT LETTER COUNT: operations per second.
locks() {
    timeout "$seconds_max" python3 - "$1" "$2" "$3" <<'END'
import socket, sys, time
port, letter, count = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
with socket.create_connection(("127.0.0.1", port)) as server:
    start = time.monotonic()
    server.sendall(letter)
    assert server.recv(1) == b"d"
    print(count / (time.monotonic() - start))
END
}

# take_turns NAME MEASURE OLD_PORT NEW_PORT ARGUMENTS...: a round after the other, and the ratios.
take_turns() {
    local name=$1 measure=$2 ports=("$3" "$4") round rates=()
    shift 4
    : >"$scratch/ratios"
    for ((round = 0; round <= rounds; round++)); do
        # Who is first alternates, and the first round is for warming up.
        local first=$((round % 2))
        local second=$((1 - first))
        rates[first]=$("$measure" "${ports[first]}" "$@")
        rates[second]=$("$measure" "${ports[second]}" "$@")
        [ "$round" -gt 0 ] || continue
        echo "$name, round $round/$rounds: old ${rates[0]} new ${rates[1]} per second" >&2
        awk "BEGIN { print ${rates[1]} / ${rates[0]} }" >>"$scratch/ratios"
    done
    sort -g "$scratch/ratios" | awk -v name="$name" '
        { ratio[NR] = $1 }
        END { printf "%-24s new/old %.3f (%.3f to %.3f)\n", name, ratio[int((NR + 1) / 2)], ratio[1], ratio[NR] }'
}

cc -O2 -pthread -o "$scratch/locks" "$here/locks.c"
for replicas in 1 3; do
    port=$((7379 + replicas))
    for build in old new; do
        start "${!build}" "redis-$replicas-$build" "$replicas" \
            redis-server --port $port --save "" --protected-mode no
        port=$((port + 1))
    done
    take_turns "redis, $replicas replica(s)" redis $((7379 + replicas)) $((7380 + replicas))
    stop_all
done
start "$old" locks-old 1 "$scratch/locks" "$pairs" "$passes" 7386
start "$new" locks-new 1 "$scratch/locks" "$pairs" "$passes" 7387
take_turns "lock pairs" locks 7386 7387 p "$pairs"
take_turns "lock turns" locks 7386 7387 t "$passes"
