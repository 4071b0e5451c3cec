set -u
echo before
echo "$absent"
echo never
