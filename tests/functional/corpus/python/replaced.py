# The process becomes another program.
import os
import sys

print("before")
os.execv(sys.executable, [sys.executable, "-c", "import sys, signal; print(sys.argv, sys.path, signal.getsignal(signal.SIGPIPE))"])
