"""How a script can end: each in a child of its own, which ends as Python does."""
import os
import subprocess
import sys

import __main__


class Told:
    def __init__(self, what):
        self.what = what

    def __del__(self, write=os.write):
        write(1, f"deleted {self.what}\n".encode())


def child(end):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        print(end.__name__, os.waitstatus_to_exitcode(status))
        return
    # The rest of the script is not for the child: it ends here, as if the script did.
    raise end


class Three(SystemExit):
    code = 3


for code in (0, 3, None, "text", 300):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        sys.exit(code)
    _, status = os.waitpid(pid, 0)
    print("exit", code, os.waitstatus_to_exitcode(status))
child(Three)
child(ValueError)
child(KeyboardInterrupt)

# What lives longest: in a cycle that only sys knows, and in builtins.
import builtins

sys.kept = [Told("in a cycle of sys")]
sys.kept.append(sys.kept)
builtins.kept = Told("in builtins")
__main__.left = Told("in the name space")
kept_open = open("out.txt", "w")
kept_open.write("not flushed by hand\n")
builtins.kept_open = kept_open
print("end", end="")
