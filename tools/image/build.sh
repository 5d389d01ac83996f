#!/usr/bin/env bash
# Makes an OCI image of the server and its tools, without a daemon and without network access to registries of images:
# an OCI layout as a directory, and the same as a tar for `docker load`, `podman load` and `ctr images import`.
#
#   tools/image/build.sh                       static programs for this machine's architecture, built here
#   tools/image/build.sh --libc gnu            linked against glibc, with io_uring; its libraries are in the image
#   tools/image/build.sh --arch aarch64        run under emulation only; needs a C compiler, also as the linker: Debian's
#                                              gcc-aarch64-linux-gnu, as CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc and
#                                              CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
#   tools/image/build.sh --programs DIR        programs that are there already: basalt, basaltctl, basaltutl
#   tools/image/build.sh --out DIR             default: target/image
#   tools/image/build.sh --name NAME           default: basalt:VERSION
#
# Static programs are made with musl, for which glommio does not compile: they serve over epoll. Their C parts need
# musl-gcc (Debian: musl-tools). Equal programs make equal bytes; SOURCE_DATE_EPOCH sets the time in it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
cd "$root"

libc=musl arch="$(uname -m)" programs='' out="$root/target/image" name='' more=()
while [ $# -gt 0 ]; do
  case "$1" in
    --libc) libc="$2" ;;
    --arch) arch="$2" ;;
    --programs) programs="$(realpath "$2")" ;;
    --out) out="$2" ;;
    --name) name="$2" ;;
    --compress) more+=(--compress "$2") ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift 2
done

build_programs() {
  local target="$arch-unknown-linux-$libc"
  if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$target"; then
    say "installing the target $target"
    quietly rustup target add "$target"
  fi
  if [ "$target" = x86_64-unknown-linux-musl ] && ! command -v musl-gcc >/dev/null; then
    say "musl-gcc is missing: install musl-tools"
    exit 1
  fi
  say "building the programs for $target"
  # Paths of this machine are no part of the programs.
  RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$root=/basalt --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    cargo build --release --locked --target "$target" -p basalt -p basaltctl -p basaltutl \
      --bin basalt --bin basaltctl --bin basaltutl
  programs="$root/target/$target/release"
}

[ -n "$programs" ] || build_programs
version="$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
python3 tools/image/layout.py --programs "$programs" --out "$out" --version "$version" \
  --name "${name:-basalt:$version}" "${more[@]}"
