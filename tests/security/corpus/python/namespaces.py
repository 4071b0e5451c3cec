# tries: namespaces of its own, in which it would be root
# passes: no namespace is made or entered
# fails: one is, with or without a user namespace around it
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


FLAGS = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
made, reasons = [], set()


def attempt(name, work):
    """In a child, so that one success does not help the next."""
    pid = os.fork()
    if pid == 0:
        result, why = work()
        os._exit(0 if result >= 0 else 1 + (errno.EPERM if why == "0" else getattr(errno, why)))
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        reasons.add(f"signal {os.WTERMSIG(status)}")
    elif os.WEXITSTATUS(status) == 0:
        made.append(name)
    else:
        reasons.add(errno.errorcode.get(os.WEXITSTATUS(status) - 1, "?"))


for name, flag in FLAGS.items():
    attempt(name, lambda: call(272, flag))
    attempt(f"{name} in user", lambda: call(272, flag | FLAGS["user"]))


def clone3():
    arguments = (ctypes.c_uint64 * 11)(FLAGS["user"], 0, 0, 0, 17)
    result, why = call(435, arguments, 88)
    if result == 0:
        os._exit(0)
    return result, why


attempt("clone3", clone3)
for name in ("mnt", "pid", "net", "user"):
    try:
        handle = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
        continue
    attempt(f"setns {name}", lambda: call(308, handle, 0))
print(f"ISOLATION fail: {', '.join(made)}" if made else f"ISOLATION pass: {', '.join(sorted(reasons))}")
