#!/usr/bin/env bash
# Installs what the tests need and is not there yet: a C toolchain for the linker, and the real
# servers that are wrapped. Uses apt, with sudo unless it is root.
set -euo pipefail

declare -A package_of=(
    [cc]=build-essential
    [redis-server]=redis-server
    [redis-cli]=redis-tools
    [redis-benchmark]=redis-tools
    [python3]=python3
)

missing=()
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "tests/setup.sh: everything is there"
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "tests/setup.sh: install by hand: ${missing[*]}" >&2
    exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
# The servers are to be started by the tests only, not by the package.
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install --yes --no-install-recommends "${missing[@]}"
