#!/usr/bin/env bash
# Launcher of a checkout: builds the programs when they are missing or stale, then becomes maxim-ctl.
#
# Steps: find out whether a source is newer than the last build (one `find`, some milliseconds); if so,
# install what building needs (tests/setup build), build, and copy the programs to a place of this
# checkout's own, so that a later build never swaps a program under a running service; make the web chat
# (npm is installed too, on Debian as root); then exec, so that a signal reaches the program and not a shell.
#
# It tells the program where it was started from: MAXIM_CHECKOUT (this folder), MAXIM_BIN_DIR (maxim-ctl,
# maxim-im, maxim-console) and, when the web chat was made, MAXIM_WEB_ROOT.
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
root=${self%/*}
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/maxim
id=$(printf '%s' "$root" | sha256sum)
place=$cache/checkouts/${id:0:16}
stamp=$place/stamp
programs=(maxim-ctl maxim-im maxim-console)
sources=(Cargo.toml Cargo.lock installer console im-core iso playbooks templates)

say() { printf '%s\n' "$*" >&2; }

# A file that changed, or a folder in which one appeared or went, since the last build began.
stale() {
  local program
  [ -e "$stamp" ] || return 0
  for program in "${programs[@]}"; do [ -x "$place/bin/$program" ] || return 0; done
  [ -n "$(cd "$root" && find "${sources[@]}" -name node_modules -prune -o \( -type f -o -type d \) \
    -newer "$stamp" -print -quit 2>/dev/null)" ]
}

# cargo in the background, one line of progress in front; a signal ends both.
run_cargo() {
  local log=$1 started=$SECONDS worker done_crates
  shift
  "$@" >"$log" 2>&1 </dev/null &
  worker=$!
  # shellcheck disable=SC2064
  trap "kill $worker 2>/dev/null || true; exit 130" INT TERM HUP
  if [ -t 2 ]; then
    while kill -0 "$worker" 2>/dev/null; do
      done_crates=$(grep -c '^ *Compiling' "$log" || true)
      printf '\rBuilding Maxim: %s crates, %s s ' "$done_crates" "$((SECONDS - started))" >&2
      sleep 1
    done
    printf '\r\033[K' >&2
  fi
  local code=0
  wait "$worker" || code=$?
  trap - INT TERM HUP
  return "$code"
}

# Programs that run on any Linux of this processor, where Zig is to be had; else programs for this machine only.
compile() {
  local log=$1 target=${CARGO_TARGET_DIR:-$cache/target} program
  if "$root/tests/setup" portable >"$place/portable.log" 2>&1; then
    run_cargo "$log" "$root/iso/build-programs" "$place/bin"
    return
  fi
  say "Zig is not to be had here (log: $place/portable.log): the programs are built for this machine only."
  mkdir -p "$target"
  # Checkouts share one target folder for their dependencies; the lock covers build and copy, because the
  # programs of all of them have the same place in it.
  exec 7>"$target/.lock-of-checkouts"
  [ "${MAXIM_TARGET_HELD:-}" = "$target" ] || flock 7
  "$root/tests/claim-target" "$target"
  (cd "$root" && CARGO_TARGET_DIR=$target run_cargo "$log" cargo build --release --locked \
    -p maxim-ctl -p im-server -p maxim-console --bins) || return 1
  for program in "${programs[@]}"; do
    cp "$target/release/$program" "$place/bin/.$program.new" || return 1
    mv -f "$place/bin/.$program.new" "$place/bin/$program" || return 1
  done
  exec 7>&-
}

build() {
  local log=$place/build.log started=$SECONDS
  "$root/tests/setup" build >&2 || exit 1
  mkdir -p "$place/bin"
  exec 8>"$place/lock"
  flock 8 # a second call of this launcher waits for the first build, and then has nothing to do
  if stale; then
    local begun=$place/begun
    : >"$begun"
    say "Building Maxim from $root (the first time takes minutes; log: $log)"
    if ! compile "$log"; then
      grep -E -A 12 '^error' "$log" | head -n 40 >&2 || tail -n 20 "$log" >&2
      say "Building failed. The whole output is in $log; the programs of the last good build were left alone."
      exit 1
    fi
    printf '%s\n' "$root" >"$place/checkout"
    mv -f "$begun" "$stamp" # dated when the build began: what changed meanwhile counts as newer
    say "Built in $((SECONDS - started)) s."
    rm -f "$place/web-tried"
  fi
  exec 8>&-
}

# The web chat. Its own script keeps what npm fetched, and does nothing when all is up to date.
web() {
  local log=$place/web.log
  [ -x "$root/im-core/web/build" ] || return 0
  if ! command -v npm >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "Installing npm, which the web chat is made with"
    "$root/tests/setup" web >"$log" 2>&1 </dev/null || tail -n 5 "$log" >&2
  fi
  if "$root/im-core/web/build" "$place/web" >"$log" 2>&1 </dev/null; then
    : >"$place/web-tried"
    return 0
  fi
  rm -rf "$place/web"
  if command -v npm >/dev/null 2>&1; then
    # Not tried again at each call, only after the next build.
    : >"$place/web-tried"
    tail -n 5 "$log" >&2
    say "The web chat could not be made (log: $log), so it is absent; everything else is installed."
  else
    say "There is no npm here, so the web chat is absent; everything else is installed."
  fi
}

if stale; then build; fi
# Asked for again only after a build, or when it could not be made for want of npm.
[ -e "$place/web-tried" ] || web

export MAXIM_CHECKOUT=$root MAXIM_BIN_DIR=$place/bin
unset MAXIM_WEB_ROOT
if [ -e "$place/web/index.html" ]; then export MAXIM_WEB_ROOT=$place/web; fi
exec -a maxim.ctl "$place/bin/maxim-ctl" "$@"
