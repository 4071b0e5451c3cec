# The EXIT trap and the exit code.
trap 'echo "trap $?"' EXIT
echo before
exit 3
