# tries: a fork bomb
# passes: the limit on processes ends the job
# fails: it can go on until its sleep is over, or the machine does not answer any more
# ends: pids_limit
# timeout: 60
bomb() { bomb | bomb & }
bomb
sleep 40
echo "ISOLATION fail: nothing stopped it in 40 s"
