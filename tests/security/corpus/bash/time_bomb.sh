# tries: to run for ever, with every signal ignored and a session of its own
# passes: its time ends it
# fails: it is still there after its time, or the machine does not answer any more
# ends: timeout
# timeout: 3
for signal in {1..31}; do trap '' "$signal" 2>/dev/null; done
setsid bash -c 'trap "" TERM INT HUP; while :; do :; done' &
while :; do sleep 1; done
