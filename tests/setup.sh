#!/usr/bin/env bash
# Installs what the tests need and is not there yet: a C toolchain for the linker, the real servers
# that are wrapped, and a CRIU for checkpoints. Uses apt, with sudo unless it is root.
set -euo pipefail

declare -A package_of=(
    [cc]=build-essential
    [redis-server]=redis-server
    [redis-cli]=redis-tools
    [redis-benchmark]=redis-tools
    [python3]=python3
    [memcached]=memcached
    [memccapable]=libmemcached-tools
    [lighttpd]=lighttpd
    [civetweb]=civetweb
    [slapd]=slapd
    [ldapsearch]=ldap-utils
    [clamd]=clamav-daemon
    [clamdscan]=clamdscan
    [nginx]=nginx-light
    [apache2]=apache2
    [ab]=apache2-utils
    [mariadbd]=mariadb-server
    [mariadb]=mariadb-client
    [sysbench]=sysbench
    [/usr/lib/postgresql/*/bin/postgres]=postgresql
    [/usr/lib/postgresql/*/bin/pgbench]=postgresql-contrib
    [gerbera]=gerbera
    [nsd]=nsd
    [unbound]=unbound
    [dig]=bind9-dnsutils
    [dnsperf]=dnsperf
    [openssl]=openssl
    [gdb]=gdb
    [haproxy]=haproxy
    [node]=nodejs
    [php]=php-cli
    [curl]=curl
    [wrk]=wrk
)

# Servers are not on everybody's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=()
for program in "${!package_of[@]}"; do
    case $program in
        /*) compgen -G "$program" >/dev/null ;;
        *) command -v "$program" >/dev/null ;;
    esac || missing+=("${package_of[$program]}")
done
here=$(dirname "$0")
if [ ${#missing[@]} -eq 0 ]; then
    echo "tests/setup.sh: all packages are there"
    exec "$here/criu.sh"
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
exec "$here/criu.sh"
