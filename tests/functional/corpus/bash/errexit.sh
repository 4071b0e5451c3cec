# set -eu and an ERR trap.
set -Eeuo pipefail
trap 'echo "error $? in line $LINENO: $BASH_COMMAND"' ERR
trap 'echo "exit $?"' EXIT
fail() { false | true; }
fail
echo never
