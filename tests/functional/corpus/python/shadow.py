# A file next to the script with the name of a standard module wins over it.
import random
import signal
import sys

print(random.randint(1, 6), random.__file__, sys.argv, sys.orig_argv)
print(signal.getsignal(signal.SIGPIPE), sys.stdin.readline())
