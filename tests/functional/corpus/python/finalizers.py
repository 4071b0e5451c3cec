# What is finalized, and when: cycles, generators, a file that nobody closes, what is left at the end.
import gc
import os
import subprocess
import sys
import threading
import weakref


class Noisy:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("deleted", self.name)


def generator():
    try:
        yield
    finally:
        print("generator closed")


cycle = Noisy("cycle")
cycle.self = cycle
del cycle
print(gc.collect() > 0, gc.isenabled())
left = Noisy("left in the name space")
left.self = left
Noisy.kept = Noisy("kept by its class")
waiting = generator()
next(waiting)
del waiting  # The order of what one collection finalizes is not defined.
weakref.finalize(left, print, "weakref")
local = threading.local()
local.value = Noisy("thread-local")
os.chdir("/tmp")
unclosed = open("unclosed", "w")
unclosed.write("flushed at the end")
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    print(subprocess.run(["cat", "unclosed"], capture_output=True, text=True).stdout)
