#!/usr/bin/env bash
# Runs the exercise over each of the given servers, by default Basalt on both reactors and then a real etcd, with kubeadm's
# certificates between the apiserver and the store. A server is a path, for Basalt with `@epoll` or `@io_uring` behind it. With --plain
# there is no TLS. Builds what it needs, which takes ten minutes of processor time the first time. No part of tools/test.
# Logs and metrics stay in the directory that it prints at the end, below $TMPDIR; the data does not.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
# The last resort is for machines without Go.
export PATH="$PATH:/usr/local/go/bin"
cd "$root"

built="$root/target/kube"
mkdir -p "$built"
flags=()
if [ "${1:-}" = --plain ]; then
  flags=(-plain)
  shift
fi
if [ $# -eq 0 ]; then
  tools/setup
  cargo build --quiet --release -p basalt
  set -- target/release/basalt target/release/basalt@epoll target/reference/etcd
fi
say "building the apiserver and the exercise"
for package in . ./exercise; do
  # Two at a time: one linker of this size takes 3 GB.
  (cd tools/kube && GOTOOLCHAIN=local go build -p 2 -buildvcs=false -trimpath -o "$built/" "$package")
done

logs="$(mktemp -d "${TMPDIR:-/tmp}/basalt-kube.XXXXXX")"
failed=0
for server in "$@"; do
  dir="$logs/$(basename "$server")"
  mkdir "$dir"
  say "$server"
  reactor=()
  if [[ "$server" == *@* ]]; then
    reactor=(-reactor "${server##*@}")
  fi
  "$built/exercise" -store "${server%@*}" "${reactor[@]}" "${flags[@]}" -apiserver "$built/kube" \
    -etcdctl "$root/target/reference/etcdctl" -dir "$dir" 2>&1 | tee "$dir/report" || failed=1
  rm -rf "$dir/machine" "$dir/certificates"
done
say "logs and metrics are in $logs"
exit "$failed"
