# tries: to leave something for the next job, or to find what another one left
# passes: nothing that a first run left anywhere is there in the second
# fails: a marker of an earlier run is found
# runs: 2
mark=.runner-codes-leftover
found=
places="/ /tmp /var/tmp /dev/shm /run /job $HOME /root /home /var /opt /srv /mnt /media /etc /usr /usr/local /lib"
for place in $places; do
  [ -e "$place/$mark" ] && found="$found $place"
done
for place in $places; do
  (echo left >"$place/$mark") 2>/dev/null
done
[ -n "$(ls -A /tmp | grep -v "^$mark$")" ] && found="$found others-in-/tmp"
(sleep 1000 & disown) 2>/dev/null
if [ -n "$found" ]; then
  echo "ISOLATION fail: found in$found"
elif [ ! -e "/tmp/$mark" ]; then
  echo "ISOLATION fail: not even /tmp could be written, so this shows nothing"
else
  echo "ISOLATION pass: nothing was left"
fi
