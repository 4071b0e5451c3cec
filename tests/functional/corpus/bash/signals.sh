# Traps of the script's own, and the end by a signal without one.
trap 'echo "handled"' USR1
trap -p
kill -USR1 $$
trap '' HUP
kill -HUP $$
sleep 5 &
kill $!
wait $!
echo "$?"
kill -l 15
kill -TERM $$
echo never
