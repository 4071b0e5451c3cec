# os._exit skips everything.
import atexit
import os

atexit.register(print, "never")
print("before")
os._exit(3)
