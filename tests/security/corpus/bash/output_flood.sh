# tries: to flood the host with output
# passes: the limit on output ends the job
# fails: it can go on until its time is over
# ends: output_limit
# timeout: 60
yes "$(printf 'x%.0s' {1..1000})"
