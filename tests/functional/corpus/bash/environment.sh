# The environment as a child has it, in its order.
env
export -p
echo "${JOB_VARIABLE-unset} ${EMPTY-unset} ${BASH_ENV-unset} ${GUEST_RUNNER_PARK-unset} ${OLDPWD-unset}"
printf '%(%Y-%m-%d %H:%M %Z)T\n' 0
export LATER=1
unset JOB_VARIABLE
env | grep -E 'LATER|JOB_VARIABLE|^_='
(env | sort)
bash -c 'echo "$0 $SHLVL $-"; env | sort'
