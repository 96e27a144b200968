# Paths, addresses and helpers shared by the scripts of this folder. Sourced,
# never run. Everything they write lies under $STROP_CACHE.
# shellcheck shell=bash disable=SC2034
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
STROP_CACHE=$(realpath -m "${STROP_CACHE:-$HOME/.cache/strop}")
export STROP_CACHE
BIN=$STROP_CACHE/bin/current
IMAGES=$STROP_CACHE/images
CLUSTER=$STROP_CACHE/cluster
PATH=$BIN:$PATH:/usr/sbin:/sbin

# The worker nodes. A node's place in the list decides its addresses.
NODES=(cpu-0 fake-gpu-0)
NETWORK=10.250.0
CONTROL_PLANE_IP=$NETWORK.2
SERVICE_RANGE=10.96.0.0/16
DNS_IP=10.96.0.10
POD_RANGE=10.244.0.0/16

node_ip() { echo "$NETWORK.$((10 + $1))"; }
pod_range() { echo "10.244.$1.0/24"; }

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# step TEXT: says what is being done and how many seconds have passed.
step() { printf '%4ds  %s\n' "$SECONDS" "$*"; }

# need_root ARGUMENT...: runs the calling script again as root where it is not.
need_root() {
	[ "$EUID" -ne 0 ] || return 0
	command -v sudo >/dev/null || die "needs root (nodes are namespaces on this machine), and there is no sudo"
	exec sudo --preserve-env=STROP_CACHE,TORCH_INDEX,VARIANT "$HERE/${0##*/}" "$@"
}

# need_binaries: fails in plain words where build-binaries has not run.
need_binaries() {
	local path
	path=$("$HERE/build-binaries" --path)
	[ -e "$path/.complete" ] || die "the binaries of this version are not built: run $HERE/build-binaries"
	BIN=$path
	PATH=$BIN:$PATH
}

# wait_for SECONDS COMMAND...: repeats a command until it succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	# In a subshell, so that a command that gives up does not take the script along.
	until ("${@:2}") >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || {
			echo "gave up after $1 s waiting for: ${*:2}" >&2
			return 1
		}
		sleep 0.2
	done
}

# sandbox_pid NAME: the process, as seen from here, that is the first of the
# namespaces of a node or of the control plane. Fails where it is down.
sandbox_pid() {
	local parent
	parent=$(cat "$CLUSTER/$1/pid" 2>/dev/null) || return 1
	# The number may belong to another process after a reboot.
	[[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$parent/cmdline")" == *"tests/cluster/sandbox $1 "* ]] || return 1
	tr -d ' ' <"/proc/$parent/task/$parent/children" | grep .
}

# enter NAME COMMAND...: runs a command in the namespaces of a node or of the
# control plane.
enter() {
	local pid
	pid=$(sandbox_pid "$1") || die "$1 is down: run $HERE/up"
	nsenter -t "$pid" -m -n -p -i -u "${@:2}"
}

# stop_sandbox NAME: ends a node or the control plane with all that runs in it.
stop_sandbox() {
	local pid
	if pid=$(sandbox_pid "$1"); then
		# The first process of a PID namespace takes the rest of it along.
		kill -KILL "$pid"
		wait_for 30 test ! -e "/proc/$pid"
	fi
	rm -f "$CLUSTER/$1/pid"
	find /sys/fs/cgroup -depth -type d -path "*/strop-$1*" -exec rmdir {} + 2>/dev/null || true
}

cgroup_v2() { [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; }

# hand_down_controllers GROUP: lets the children of a cgroup v2 group limit all
# that the group itself can limit.
hand_down_controllers() {
	local controller
	for controller in $(cat "$1/cgroup.controllers"); do
		echo "+$controller" 2>/dev/null >"$1/cgroup.subtree_control" || return 1
	done
}
