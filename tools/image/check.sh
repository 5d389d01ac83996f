#!/usr/bin/env bash
# Runs an image's programs where nothing else is: in a chroot of its files, read-only, as a user that it does not
# know, without privileges, /dev and /sys, the server as process 1. `check.sh IMAGE.tar`; needs root or user namespaces.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
fail() { printf 'check.sh: %s\n' "$*" >&2; exit 1; }

if [ "${1:-}" != --inside ]; then
  image="$(realpath "$1")"
  scratch="$(mktemp -d)"
  trap 'rm -rf "$scratch"' EXIT
  mkdir "$scratch/root"
  command="$(python3 "$here/unpack.py" "$image" "$scratch/root")"
  [ "$command" = /usr/local/bin/etcd ] || fail "the command is $command"
  # As runtimes do before they make it read-only.
  mkdir -p "$scratch"/root/{data,proc}
  printf '127.0.0.1 localhost basalt-0\n' >"$scratch/root/etc/hosts"
  own=(--map-root-user)
  [ "$(id -u)" -ne 0 ] || own=()
  unshare "${own[@]}" --mount --net "${BASH_SOURCE[0]}" --inside "$scratch/root"
  exit
fi

root="$2" log="$2/../log" user=()
ip link set lo up
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777 none "$root/data"
mount -o remount,ro,bind "$root"
# Whoever became root in a user namespace has no other user there.
! grep -q ' 4294967295$' /proc/self/uid_map || user=(--userspec=12345:54321 --groups=54321)
bare() { chroot "${user[@]}" "$root" "$@"; }

says() { [[ "$(bare "${@:2}" 2>&1)" == *"$1"* ]] || fail "${*:2}"; }
says 'etcd Version: 3.' /usr/local/bin/etcd --version
says 'Basalt Version: ' /usr/local/bin/basalt --version
says 'etcdctl version: 3.' /usr/local/bin/etcdctl version
says 'etcdutl version: 3.' /usr/local/bin/etcdutl version

flags=(--name=basalt-0 --data-dir=/data/etcd --initial-cluster=basalt-0=http://basalt-0:2380)
flags+=(--listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://basalt-0:2380)
flags+=(--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://basalt-0:2379)
unshare --pid --fork --kill-child --mount-proc="$root/proc" \
  setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
  chroot "${user[@]}" "$root" /usr/local/bin/etcd "${flags[@]}" 2>"$log" &
parent=$!
trap 'kill -KILL "$parent" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  ! grep -q 'ready to serve client requests' "$log" || break
  kill -0 "$parent" 2>/dev/null || break
  sleep 0.1
done
grep -q 'ready to serve client requests' "$log" || { cat "$log" >&2; fail 'the server is not ready'; }
server="$(cat "/proc/$parent/task/$parent/children")"
server="${server%% *}"
[ "$(awk '/^NSpid:/ {print $NF}' "/proc/$server/status")" = 1 ] || fail 'the server is not process 1'
[ ${#user[@]} -eq 0 ] || [ "$(awk '/^Uid:/ {print $2}' "/proc/$server/status")" = 12345 ] || fail 'the user is another'
grep -q '^CapEff:.*0000000000000000$' "/proc/$server/status" || [ ${#user[@]} -eq 0 ] || fail 'it has privileges'

[ "$(bare /usr/local/bin/etcdctl --endpoints http://basalt-0:2379 put greeting hello)" = OK ] || fail put
[ "$(bare /usr/local/bin/etcdctl get greeting --print-value-only)" = hello ] || fail get
says 'is healthy' /usr/local/bin/etcdctl endpoint health
bare /usr/local/bin/etcdctl snapshot save /data/saved >/dev/null 2>&1 || fail 'snapshot save'
says ', ' /usr/local/bin/etcdutl snapshot status /data/saved

kill -TERM "$server"
wait "$parent" && code=0 || code=$?
[ "$code" -eq 0 ] || { cat "$log" >&2; fail "SIGTERM ends process 1 with $code"; }
grep -q 'closed the member' "$log" || fail 'it did not end in order'
trap - EXIT
sed -n 's/.*"reactor":"\([a-z_]*\)".*/the image serves, over \1/p' "$log" | head -1
