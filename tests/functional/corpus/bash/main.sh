# What a script finds about itself, and every variable that it begins with.
last=$_ status=$?
echo "$last $status $0 $# $* ${BASH_SOURCE[*]} ${#BASH_SOURCE[@]} ${FUNCNAME[*]} $LINENO $SECONDS $SHLVL $BASH_SUBSHELL"
printf '<%s>' "$@"
echo "$- $SHELLOPTS $BASHOPTS $PWD $OLDPWD $HOSTNAME ${BASH_LINENO[*]} [$!] [$BASH_COMMAND]"
unset last status
declare -p | grep -vE '^declare -[a-zA-Z-]+ (BASHPID|BASH_ARG[CV]|PPID|RANDOM|SRANDOM|EPOCH[A-Z]*|PIPESTATUS|_)\b'
declare -F
alias
trap
shopt
set -o
hash
jobs
pwd
umask
dirs
