# The environment, its order, and every copy of it.
import ctypes
import os
import posix
import subprocess
import time

print(list(os.environ.items()))
print(posix.environ == dict(os.environb), list(posix.environ))
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
for name in ["PATH", "JOB_VARIABLE", "PYTHONPATH", "GUEST_RUNNER_PARK"]:
    print(name, getenv(name.encode()))
print(subprocess.run(["env"], capture_output=True, text=True).stdout)
print(time.tzname, time.timezone)
os.environ["LATER"] = "1"
del os.environ["JOB_VARIABLE"]
print(subprocess.run("env | grep -c . ; echo $LATER $JOB_VARIABLE", shell=True, capture_output=True, text=True).stdout)
