# Positional parameters: shifted, set, in functions, by getopts.
echo "$# [$1] [$2] [$3] [$4]"
shift
echo "$# [$1] $@"
show() { echo "$# $1 $FUNCNAME"; }
show "$@"
while getopts ab: option -a -b value rest; do echo "$option ${OPTARG-}"; done
echo "$OPTIND"
set -- x y
echo "$@"
for argument; do echo "$argument"; done
