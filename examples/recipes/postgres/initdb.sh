#!/bin/sh
# initdb.sh GENESIS: makes GENESIS/data, a fresh data directory that reads GENESIS/brolga.conf.
set -eu

programs=/usr/lib/postgresql/15/bin
genesis=$1
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT

as_server=
if [ "$(id -u)" -eq 0 ]; then
    # Made aside, where that user can reach it wherever GENESIS is.
    chown postgres:postgres "$aside"
    as_server="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
cd "$aside"
$as_server "$programs/initdb" --pgdata="$aside/data" --username=postgres --auth=trust \
    --no-locale --encoding=UTF8 --no-instructions --no-sync
echo "include = '../brolga.conf'" >>"$aside/data/postgresql.conf"
cd - >/dev/null
rm -rf "$genesis/data"
cp -a "$aside/data" "$genesis/data"
