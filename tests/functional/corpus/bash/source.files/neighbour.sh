echo "sourced ${BASH_SOURCE[0]} $0 $# $LINENO ${FUNCNAME[*]}"
return 4
