#!/usr/bin/env bash
# kubeadm's own code makes certificates and static pods, adds, promotes and removes members, and renews certificates, on
# three machines that are network namespaces; each pod's command runs under RuntimeDefault's seccomp filter with the capabilities that
# container runtimes give. Servers can be named as arguments, by default Basalt. Needs Go 1.26, root (for namespaces) and `ip`; nothing outside of
# these namespaces changes. No part of tools/test. Logs stay in the directory that it prints at the end, below $TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
# The last resort is for machines without Go.
export PATH="$PATH:/usr/local/go/bin"
cd "$root"

built="$root/target/kube"
mkdir -p "$built"
if [ $# -eq 0 ]; then
  cargo build --quiet --release -p basalt -p sandbox
  set -- target/release/basalt
  sandbox="$root/target/release/sandbox"
else
  cargo build --quiet -p sandbox
  sandbox="$root/target/debug/sandbox"
fi
say "building kubeadm"
(cd tools/kube && GOTOOLCHAIN=local go build -p 2 -buildvcs=false -trimpath -o "$built/" ./kubeadm)

logs="$(mktemp -d "${TMPDIR:-/tmp}/basalt-kubeadm.XXXXXX")"
failed=0
for server in "$@"; do
  dir="$logs/$(basename "$server")"
  mkdir "$dir"
  say "$server"
  # Names of network namespaces are mounts of this one.
  unshare --net --mount sh -euc 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec "$@"' sh \
    "$built/kubeadm" -server "$(realpath "$server")" -sandbox "$sandbox" -dir "$dir" 2>&1 | tee "$dir/report" || failed=1
  rm -rf "$dir"/control-*/etcd "$dir"/control-*/pki
done
say "logs are in $logs"
exit "$failed"
