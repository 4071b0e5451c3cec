# Tracing shows only the script.
set -xv
x=$(echo 1)
f() { : "$x"; }
f
trap 'echo "debug $LINENO"' DEBUG
:
