# Child processes: fork, exec, an interpreter as a child, pipes, and the pool of each start method.
import multiprocessing
import os
import subprocess
import sys


def square(number):
    return number * number


if __name__ == "__main__":
    print("parent", flush=True)
    pid = os.fork()
    if pid == 0:
        print("child", flush=True)
        os._exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    code = "import sys, os; print(sys.argv, sys.path, sorted(os.environ), sys.flags.no_site)"
    print(subprocess.run([sys.executable, "-c", code, "x"], capture_output=True, text=True))
    print(subprocess.run("ls -l /proc/self/fd | wc -l", shell=True, capture_output=True, text=True))
    for method in ["fork", "spawn"]:
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(square, range(5)))
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(process.communicate("through cat"))
