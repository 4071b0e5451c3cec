# Processes: background, traps, pipes, substitution, signals.
set -uo pipefail
fail() { echo "failed: $*"; exit 1; }
sleep 60 & child=$!
kill -0 "$child" || fail alive
kill "$child"; wait "$child"; [[ $? == 143 ]] || fail "$?"
for n in 1 2 3; do (exit "$n") & done
wait -n; wait
[[ $(cat <(echo one) <(echo two)) == $'one\ntwo' ]] || fail substitution
coproc cat; echo through >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; [[ $line == through ]] || fail coproc
exec {COPROC[1]}>&-; wait "$COPROC_PID"
trap 'caught=1' USR1; kill -USR1 $$; [[ ${caught-} == 1 ]] || fail trap
timeout 0.2 sleep 60; [[ $? == 124 ]] || fail timeout
(trap '' HUP; exec nohup true) 2>/dev/null || fail nohup
nice -n 1 true && setsid true && env -i true || fail wrappers
fifo=$(mktemp -u); mkfifo "$fifo"; echo x >"$fifo" & read -r line <"$fifo"; wait; rm "$fifo"; [[ $line == x ]] || fail fifo
read -r -t 0.1 _ < <(sleep 1); [[ $? -gt 128 ]] || fail 'read in time'
mapfile -t lines < <(seq 100); [[ ${#lines[@]} == 100 ]] || fail mapfile
[[ $(ulimit -n) -gt 10 && $(umask) == 0022 && $(jobs -p) == '' ]] || fail limits
exec 9<>/dev/null; echo x >&9; exec 9>&-
[[ $(bash -c 'echo $0 "$@"' name a b) == 'name a b' && $(sh -c 'echo $((1 + 1))') == 2 ]] || fail shells
set -m; sleep 0.1 & fg >/dev/null || fail fg; set +m
time -p true 2>/dev/null; times >/dev/null; printf -v text '%(%Y)T' 0; [[ $text == 1970 ]] || fail printf
ps() { cat /proc/[0-9]*/comm; }; ps | grep -q bash || fail proc
mkdir -p /tmp/tour-lock; exec 8>/tmp/tour-lock/l; flock 8 true || fail flock
script=$'echo from stdin'; [[ $(bash <<<"$script") == 'from stdin' ]] || fail stdin
bash -c 'kill -SEGV $$'; [[ $? == 139 ]] || fail segv
echo done
