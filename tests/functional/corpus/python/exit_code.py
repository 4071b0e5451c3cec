# sys.exit with text: exit code 1, and the text on standard error; what is registered still runs, the last first.
import atexit
import sys
import threading

atexit.register(print, "registered first")
atexit.register(print, "registered last")


class Last:
    def __del__(self):
        print("deleted")


last = Last()
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()
try:
    sys.exit("a message ünï")
finally:
    print("finally")
