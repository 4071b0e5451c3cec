# tries: to see other jobs, the runner, or interpreters that wait
# passes: only this job's own processes, files and sockets are in sight
# fails: a process that is not this job's, a file of another job, a socket with a name
own() { [ "$1" = 1 ] || [ "$1" = $$ ] || [ "$1" = "$BASHPID" ] || [ "$(sed 's/.*) . //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" = $$ ]; }
for directory in /proc/[0-9]*; do
  pid=${directory#/proc/}
  [ -e "$directory" ] && ! own "$pid" && strangers="$strangers $pid:$(tr '\0' ' ' <"$directory/cmdline" 2>/dev/null)"
done
sockets=$(awk 'NR > 1 && NF > 7 { print $8 }' /proc/net/unix 2>/dev/null)
[ -d /scratch ] && [ -n "$(ls -A /scratch 2>/dev/null)" ] && files="$files /scratch"
for place in /lower /layer /root-overlay /modules /machine-id /jobs /var/lib/guest-runner/jobs; do
  ls "$place"/* >/dev/null 2>&1 && files="$files $place"
done
if [ -n "$strangers$sockets$files" ]; then
  echo "ISOLATION fail: in sight:$strangers $sockets$files"
else
  echo "ISOLATION pass: nothing but this job is in sight"
fi
