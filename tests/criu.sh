#!/usr/bin/env bash
# Makes sure that there is a CRIU that works with the running kernel: the system's, if it can dump and
# restore a process here, else one that is built from Debian's newest source package and put into
# /usr/local/sbin. Only root can use CRIU (and only root can be tested with it).
set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
target=/usr/local/sbin/criu

skip() {
    echo "tests/criu.sh: no CRIU, checkpoints will not be tested: $*" >&2
    exit 0
}

[ "$(id -u)" -eq 0 ] || skip "that takes root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Processes of root and of another user, each of its own session, are dumped, which ends them, and restored.
works() {
    works_for "$1" 0 && works_for "$1" 65534
}

works_for() {
    local criu=$1 user=$2 pid images=$work/images
    "$criu" check >"$work/check.log" 2>&1 || return 1
    rm -rf "$images" && mkdir "$images"
    setsid setpriv --reuid "$user" --regid "$user" --clear-groups sleep 1000 </dev/null >/dev/null 2>&1 &
    pid=$!
    disown
    # When the program is executed, session and user are its own.
    until [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sleep ]; do
        [ -d "/proc/$pid" ] || return 1
    done
    if "$criu" dump --tree "$pid" --images-dir "$images" --log-file dump.log >/dev/null 2>&1 &&
        "$criu" restore --restore-detached --images-dir "$images" --log-file restore.log >/dev/null 2>&1; then
        kill -KILL "$pid"
        return 0
    fi
    kill -KILL "$pid" 2>/dev/null || true
    return 1
}

if found=${BROLGA_CRIU:-$(command -v criu)} && works "$found"; then
    echo "tests/criu.sh: $found ($("$found" --version | sed -n 's/^Version: //p')) works on this kernel"
    exit 0
fi
command -v apt-get >/dev/null || skip "there is no apt to get its source with"

DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    build-essential pkg-config python3 xz-utils libnet1-dev libnl-3-dev libnl-route-3-dev \
    libprotobuf-c-dev libprotobuf-dev protobuf-c-compiler protobuf-compiler libcap-dev libbsd-dev \
    libnftables-dev uuid-dev libgnutls28-dev

# The archive that this machine uses anyway; the suite is the newest, and nothing but the source's own
# archive is taken from it. The keys are those of the Debian package that every such machine has.
site=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(ORIGIN)' |
    awk '$3 == "Debian" && $2 !~ /security/ && $1 !~ /security/ { print $1; exit }')
[ -n "$site" ] || skip "no Debian archive among the sources of apt"
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$key" ] && trust="[signed-by=$key] " || trust=
mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial
echo "deb-src $trust${site%/} sid main" >"$work/apt/sources.list"
own=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
cd "$work"
if ! apt-get "${own[@]}" update || ! apt-get "${own[@]}" source --download-only --tar-only criu; then
    skip "its source cannot be fetched"
fi
mkdir source
tar -xf criu_*.orig.tar.* -C source --strip-components=1
# Without CAP_SYS_RESOURCE, which containers and virtual machines may lack, the kernel does not tell the limits
# of another user's process to prlimit(); to whoever reads /proc it does.
python3 - source/criu/cr-dump.c <<'PATCH'
import sys
path = sys.argv[1]
text = open(path).read()
call = "if (syscall(__NR_prlimit64, pid, res, NULL, &lim)) {"
function = "static int dump_task_rlimits("
assert call in text and function in text, "CRIU's source has changed: see tests/criu.sh"
text = text.replace(call, "if (syscall(__NR_prlimit64, pid, res, NULL, &lim) && listed_rlimit(pid, res, &lim)) {")
listed = """
static rlim_t listed_number(const char *word)
{
	return strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : RLIM_INFINITY;
}

/* A line for each limit, in the order of their numbers, after a heading. */
static int listed_rlimit(int pid, int res, struct rlimit64 *lim)
{
	char line[128] = "", soft[24], hard[24];
	int number = -1;
	FILE *file;

	snprintf(line, sizeof(line), "/proc/%d/limits", pid);
	file = fopen(line, "r");
	if (!file)
		return -1;
	while (number <= res && fgets(line, sizeof(line), file))
		number++;
	fclose(file);
	if (number <= res || strlen(line) < 50 || sscanf(line + 26, "%23s %23s", soft, hard) != 2)
		return -1;
	lim->rlim_cur = listed_number(soft);
	lim->rlim_max = listed_number(hard);
	return 0;
}

"""
text = text.replace(function, listed + function, 1)
open(path, "w").write(text)
PATCH
make -C source -j"$(nproc)" criu >"$work/make.log" 2>&1 || {
    tail -20 "$work/make.log" >&2
    skip "it cannot be built"
}
works source/criu/criu || skip "the one built from source does not work on $(uname -r) either"
install -D -m 755 source/criu/criu "$target"
echo "tests/criu.sh: $target ($("$target" --version | sed -n 's/^Version: //p')) was built"
