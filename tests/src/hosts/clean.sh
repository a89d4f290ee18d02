# The clean-up of one run of test hosts: bash clean.sh RUN_DIR. It reads stdin to its end first, so that
# whoever holds the other end has only to die. It may be run again, and beside half-made hosts.
#
# Ending a host means SIGKILL to its own PID 1: killing only systemd-nspawn would leave the machine running.
set -u
run=$1
[ -n "$run" ] && [ -e "$run/bridge" ] || exit 0
cat >/dev/null
bridge=$(cat "$run/bridge")
case $bridge in mx[0-9]*) ;; *) exit 1 ;; esac

namespaces() { ip netns list 2>/dev/null | awk '{print $1}' | grep "^$bridge-" || true; }
children() { cat "/proc/$1/task/$1/children" 2>/dev/null || true; }
# The nspawn processes of this run that still are ours: a number may have been given away since.
keepers_of_hosts() {
  local file pid
  for file in "$run"/hosts/*/pid; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$run/"; then echo "$pid"; fi
  done
}

tries=0
while :; do
  alive=
  for pid in $(keepers_of_hosts); do
    alive=1
    inner=$(children "$pid")
    # shellcheck disable=SC2086
    if [ -n "$inner" ]; then kill -9 $inner 2>/dev/null; else kill -9 "$pid" 2>/dev/null; fi
  done
  for namespace in $(namespaces); do
    inner=$(ip netns pids "$namespace" 2>/dev/null)
    if [ -n "$inner" ]; then
      alive=1
      # shellcheck disable=SC2086
      kill -9 $inner 2>/dev/null
    fi
  done
  [ -n "$alive" ] || break
  tries=$((tries + 1))
  if [ "$tries" -gt 600 ]; then echo "some hosts of $run would not die" >&2; exit 1; fi
  sleep 0.02
done

awk '{print $2}' /proc/self/mounts | grep "^$run/" | sort -r | while read -r mounted; do
  umount "$mounted" 2>/dev/null || umount -l "$mounted"
done
for namespace in $(namespaces); do ip netns del "$namespace"; done
for link in $(ip -o link show master "$bridge" 2>/dev/null | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do
  ip link del "$link" 2>/dev/null
done
ip link del "$bridge" 2>/dev/null
cat "$run"/hosts/*/cgroups 2>/dev/null | while read -r group; do
  case $group in */maxim-"$bridge"-*) find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null ;; esac
done
if awk '{print $2}' /proc/self/mounts | grep -q "^$run/"; then
  echo "something is still mounted under $run" >&2
  exit 1
fi
rm -rf --one-file-system "$run"
