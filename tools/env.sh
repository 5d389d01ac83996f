# shellcheck shell=bash
# Sourced by the scripts beside it: where the set-up puts what the machine itself does not have.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Cargo's place is behind what the machine offers; Go from PyPI is the last resort.
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:$root/target/go/bin"

# One line of what is going on.
say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

# Runs a command in silence, and shows what it said only if it failed.
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
