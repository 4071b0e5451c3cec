# Parks a Bash before its main script, and releases it with a job.
#
# BASH_ENV names this file. When it returns, Bash goes on to open and run the main script by itself. Everything that this
# file leaves behind would be seen by the job; what cannot be undone is in docs/parking.md. Only builtins, and no
# subshell: a parked Bash has no other process to wait for.

__guest_runner_fail() {
  printf 'guest-runner: cannot release a parked Bash: %s\n' "$1" >&2
  exit 70
}

# Reads the next string of the message into `field`, and counts its bytes.
__guest_runner_next() {
  read -r -d '' -u "$runner" field || __guest_runner_fail 'the message was cut off'
  left=$((left - ${#field} - 1))
}

__guest_runner_park() {
  # Lengths are to be bytes, and nothing is to be split or trimmed.
  local LC_ALL=C IFS=
  local runner=$GUEST_RUNNER_PARK left field seed directory count name
  local -a old
  # Every variable that was inherited, which Bash alone cannot list without a subshell.
  mapfile -d '' -t old </proc/self/environ || __guest_runner_fail 'there is no /proc'
  printf P >&"$runner"

  read -r -u "$runner" left || exit 0
  case $left in '' | *[!0-9]*) __guest_runner_fail 'the message is malformed' ;; esac
  __guest_runner_next
  seed=$field
  case $seed in *[!0-9a-f]*) __guest_runner_fail 'the message is malformed' ;; esac
  ((${#seed} == 64)) || __guest_runner_fail 'the message is malformed'
  # SRANDOM asks the kernel every time, and needs nothing.
  RANDOM=$((16#${seed:0:8} ^ ${SRANDOM:-0}))

  # Before the environment, where CDPATH could lead elsewhere.
  __guest_runner_next
  cd -- "$field" >/dev/null || __guest_runner_fail 'no such directory'
  unset OLDPWD
  declare -gx OLDPWD

  __guest_runner_next
  count=$field
  while ((count-- > 0)); do
    __guest_runner_next
    __guest_runner_arguments+=("$field")
  done

  local -A new=()
  __guest_runner_next
  count=$field
  while ((count-- > 0)); do
    __guest_runner_next
    name=${field%%=*}
    case $name in
      '' | [0-9]* | *[!A-Za-z0-9_]*) __guest_runner_fail "this variable can only be inherited: $name" ;;
    esac
    new[$name]=${field#*=}
  done
  ((left == 0)) || __guest_runner_fail 'the message is malformed'

  # What stays the same is not touched, so that Bash lists it to its children where it always does.
  for field in "${old[@]}"; do
    name=${field%%=*}
    [[ $name == PWD || -v new[$name] ]] || unset -v "$name"
  done
  for name in "${!new[@]}"; do
    # `cd` has set it, and a fresh Bash would not believe another value either.
    [[ $name == PWD ]] || declare -gx "$name=${new[$name]}" || __guest_runner_fail "$name cannot be set"
  done
  # Noted at start-up, and clones have names of their own.
  [[ -v new[HOSTNAME] ]] || read -r HOSTNAME </proc/sys/kernel/hostname

  printf R >&"$runner"
  exec {runner}>&-
}

if [[ -v GUEST_RUNNER_PARK ]]; then
  __guest_runner_arguments=()
  __guest_runner_park
  set -- "${__guest_runner_arguments[@]}"
fi
unset -v __guest_runner_arguments
unset -f __guest_runner_fail __guest_runner_next __guest_runner_park
SECONDS=0
# The last argument of the last command is what the script finds in `$_`.
: "$BASH"
