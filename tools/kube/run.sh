#!/usr/bin/env bash
# Runs the exercise over each of the given servers, by default Basalt and then a real etcd. Builds
# what it needs, which takes ten minutes of processor time the first time. No part of tools/test.
# Logs and metrics stay in the directory that it prints at the end, below $TMPDIR; the data does not.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
# The last resort is for machines without Go.
export PATH="$PATH:/usr/local/go/bin"
cd "$root"

built="$root/target/kube"
mkdir -p "$built"
if [ $# -eq 0 ]; then
  tools/setup
  cargo build --quiet --release -p basalt
  set -- target/release/basalt target/reference/etcd
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
  "$built/exercise" -store "$server" -apiserver "$built/kube" -dir "$dir" 2>&1 | tee "$dir/report" || failed=1
  rm -rf "$dir/store" "$dir/certificates"
done
say "logs and metrics are in $logs"
exit "$failed"
