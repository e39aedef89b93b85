# shellcheck shell=bash
# What the test host scripts share: messages, the cache, root file systems.
# Sourced, never run.

shopt -s inherit_errexit

readonly CACHE=${SFU_TESTHOST_CACHE:-/var/cache/sfu-agent-testhost}
readonly MIRROR=${SFU_TESTHOST_MIRROR:-http://deb.debian.org/debian}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
REPO=$(cd "$HERE/../.." && pwd -P)
# shellcheck disable=SC2034 # REPO is for those who source this
readonly HERE REPO

# What a Debian root has beyond mmdebstrap's minbase variant.
readonly ROOT_PACKAGES=systemd,systemd-sysv,dbus,dbus-broker,iproute2,procps,util-linux,busybox-static,ca-certificates,libseccomp2,kmod

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

need_root() { ((EUID == 0)) || die "must run as root"; }

# need_commands SET COMMAND... ends the script when a COMMAND is missing.
need_commands() {
	local set=$1 command
	shift
	for command; do
		command -v "$command" >/dev/null || die "no $command: run $HERE/install $set"
	done
}

# passed_environment prints what tests may read of this environment, NUL ended.
passed_environment() {
	env -0 | grep -z -E '^(SFU_[A-Z0-9_]*|GODEBUG|GOTRACEBACK|GOMAXPROCS|GORACE)=' || true
}

# locked NAME COMMAND... runs COMMAND while nobody else holds the lock NAME of the cache.
locked() {
	local name=$1 fd
	shift
	mkdir -p "$CACHE"
	exec {fd}>"$CACHE/$name.lock"
	flock "$fd"
	"$@"
	exec {fd}>&-
}

# hash_of prints 12 hex digits that change with its arguments.
hash_of() { printf '%s\n' "$@" | sha256sum | cut -c1-12; }

# debian_root SUITE prints the directory of a Debian root, which it builds when
# the cache has none for this suite and package list.
debian_root() {
	local suite=$1 root
	root=$CACHE/root-$suite-$(hash_of "$suite" "$ROOT_PACKAGES" "$(declare -f bootstrap)")
	[[ -d $root ]] || locked "root-$suite" bootstrap_once "$suite" "$root"
	printf '%s\n' "$root"
}

# bootstrap_once builds beside the wanted directory and renames, so that a root
# in the cache is always a whole one.
bootstrap_once() {
	local suite=$1 root=$2
	[[ ! -d $root ]] || return 0
	need_commands native mmdebstrap
	rm -rf --one-file-system "$CACHE/root-$suite".tmp.*
	local tmp=$CACHE/root-$suite.tmp.$$
	say "building the $suite root, once (about half a minute)"
	bootstrap "$suite" "$tmp" "$ROOT_PACKAGES" >"$CACHE/root-$suite.log" 2>&1 ||
		{ tail -n 20 "$CACHE/root-$suite.log" >&2; die "build $suite root: see $CACHE/root-$suite.log"; }
	mv -T "$tmp" "$root"
}

# bootstrap SUITE DIR PACKAGES [VARIANT] leaves out what no test reads. dbus-daemon is the
# bus until a host asks for the other. The mounts of a killed run go with its
# mount namespace.
# shellcheck disable=SC2016 # the hook expands $1
bootstrap() {
	unshare --mount --propagation private \
		mmdebstrap --mode=root --variant="${4:-minbase}" --include="$3" \
		--aptopt='Acquire::Retries "3"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--aptopt='APT::Install-Recommends "false"' \
		--customize-hook='rm -f "$1/etc/systemd/system/dbus.service" "$1/etc/hostname" "$1/etc/resolv.conf"' \
		"$1" "$2" "$MIRROR"
}
