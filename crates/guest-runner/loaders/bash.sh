# Parks a Bash before its main script, and releases it with a job.
#
# BASH_ENV names this file. When it returns, Bash goes on to open and run the main script by itself. Everything that this
# file leaves behind would be seen by the job; what cannot be undone is in docs/parking.md. Only builtins, and no
# subshell: a parked Bash has no other process to wait for.

__guest_runner_fail() {
  printf 'guest-runner: cannot release a parked Bash: %s\n' "$1" >&2
  exit 70
}

# What most jobs do not bring: another directory, arguments, variables.
__guest_runner_differ() {
  local -i at=3 count
  local name
  # Before the variables, where CDPATH could lead elsewhere.
  if [[ ${message[2]} ]]; then
    cd -- "${message[2]}" >/dev/null || __guest_runner_fail 'no such directory'
    unset OLDPWD
    declare -gx OLDPWD
  fi
  count=${message[at++]}
  __guest_runner_arguments=("${message[@]:at:count}")
  at+=count
  count=${message[at++]}
  while ((count-- > 0)); do
    # `cd` has set PWD, and a fresh Bash would not believe another value either.
    [[ ${message[at]} == PWD ]] || unset -v "${message[at]}" || __guest_runner_fail 'a variable cannot be unset'
    at+=1
  done
  count=${message[at++]}
  while ((count-- > 0)); do
    name=${message[at]%%=*}
    case $name in
      '' | [0-9]* | *[!A-Za-z0-9_]*) __guest_runner_fail "this variable can only be inherited: $name" ;;
    esac
    [[ $name == PWD ]] || declare -gx "$name=${message[at]#*=}" || __guest_runner_fail "$name cannot be set"
    at+=1
  done
  ((at == ${#message[@]} - 1)) || __guest_runner_fail 'the message is malformed'
}

__guest_runner_park() {
  local runner=$GUEST_RUNNER_PARK
  local -a message
  unset -v BASH_ENV GUEST_RUNNER_PARK
  printf P >&"$runner"

  mapfile -d '' -t -u "$runner" message
  ((${#message[@]})) || exit 0
  [[ ${message[-1]} == . ]] || __guest_runner_fail 'the message was cut off'
  [[ ${#message[0]} == 64 && ${message[0]} != *[!0-9a-f]* ]] || __guest_runner_fail 'the message is malformed'
  # SRANDOM asks the kernel every time, and needs nothing.
  RANDOM=$((16#${message[0]:0:8} ^ ${SRANDOM:-0}))
  # Noted at start-up, and clones have names of their own.
  HOSTNAME=${message[1]}
  [[ "${message[*]:2}" == ' 0 0 0 .' ]] || __guest_runner_differ

  printf R >&"$runner"
  exec {runner}>&-
}

if [[ -v GUEST_RUNNER_PARK ]]; then
  __guest_runner_arguments=()
  __guest_runner_park
  set -- "${__guest_runner_arguments[@]}"
fi
unset -v __guest_runner_arguments
unset -f __guest_runner_fail __guest_runner_differ __guest_runner_park
SECONDS=0
# The last argument of the last command is what the script finds in `$_`.
: "$BASH"
