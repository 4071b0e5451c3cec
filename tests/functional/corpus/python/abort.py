# The end by a signal.
import os

print("before")
os.abort()
