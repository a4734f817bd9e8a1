# shellcheck shell=bash
# What the scripts of this folder share: words to the user, root rights, the download cache, ports and process ids. Sourced.
set -euo pipefail

SERVICES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Where downloaded servers are kept between runs.
PARTS=${CAUDAL_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/caudal/parts}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND…: runs it directly for root, through sudo for others; where neither works, says what to do by hand.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif may_be_root; then sudo "$@"
  else die "this needs root rights and there is no working sudo; run as root: $*"; fi
}
may_be_root() { [ "$(id -u)" = 0 ] || { has sudo && sudo -v; }; }

# start_time PID: the kernel's start time of a process. With the id it names one process for ever: ids are used again.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# remember DIR PID: notes the process that serves from DIR.
remember() { echo "$2 $(start_time "$2")" > "$1/pid"; }

# is_running DIR: true while the process noted in DIR/pid lives.
is_running() {
  local pid born
  [ -f "$1/pid" ] && read -r pid born < "$1/pid" || return 1
  [ -n "$born" ] && [ "$(start_time "$pid")" = "$born" ] && ! grep -q '^State:.[ZX]' "/proc/$pid/status" 2>/dev/null
}

# wait_ready DIR LOG COMMAND…: waits up to a minute for COMMAND to succeed; a server that ended before is reported with its log's tail.
wait_ready() {
  local dir=$1 log=$2 left=600
  shift 2
  until "$@" >/dev/null 2>&1; do
    is_running "$dir" || { tail -q -n 20 "$log" "$dir/stderr" >&2 2>/dev/null || true; die "the server ended while starting; its log is $log"; }
    left=$((left - 1))
    [ $left -gt 0 ] || { tail -q -n 20 "$log" "$dir/stderr" >&2 2>/dev/null || true; die "the server did not answer within a minute; its log is $log"; }
    sleep 0.1
  done
}

# free_port: a port of 127.0.0.1 that nobody listens on, below the range from which the kernel takes ports for clients.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((24000 + RANDOM % 8000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  die "found no free port between 24000 and 32000"
}

# make_dir DIR: creates it if needed, reachable for a server that runs as another user, and prints its full path.
make_dir() { mkdir -p "$1" && chmod 755 "$1" && (cd "$1" && pwd); }
