# tries: to burn more processor time than it may, in many processes
# passes: the limit on processor time ends the job
# fails: it can go on until its time is over
# ends: timeout
# limits: cpu_ms=2000
# timeout: 60
import os
import time

for _ in range(7):
    if os.fork() == 0:
        break
started = time.monotonic()
while time.monotonic() - started < 40:
    pass
print("ISOLATION fail: 40 s of eight processes")
