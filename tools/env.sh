# shellcheck shell=bash
# Sourced by the scripts beside it: the directories in which the set-up installs missing programs.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Cargo's directory comes after the machine's own; Go from PyPI is the last resort.
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:$root/target/go/bin"

# Prints one line of progress.
say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

# Runs a command silently, and prints its output only if it failed.
quietly() {
  local log
  log="$(mktemp)"
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
  else
    local code=$?
    say "failed ($code): $*" >&2
    cat "$log" >&2
    rm -f "$log"
    return "$code"
  fi
}
