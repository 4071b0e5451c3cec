# tries: to trace, read, write and signal the process above it, which belongs to the runner
# passes: all of it is refused, and that process lives
# fails: its memory or its descriptors can be had, or a signal reaches it
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


worked, reasons = [], set()
parent = 1
buffer = ctypes.create_string_buffer(16)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 16)
handle, _ = call(434, parent, 0)
attempts = {
    "PTRACE_ATTACH": (101, 16, parent, 0, 0),
    "PTRACE_SEIZE": (101, 0x4206, parent, 0, 0),
    "process_vm_readv": (310, parent, vector, 1, vector, 1, 0),
    "process_vm_writev": (311, parent, vector, 1, vector, 1, 0),
    "kcmp": (312, parent, os.getpid(), 0, 0, 0),
    "kill": (62, parent, 9),
    "kill 0": (62, parent, 0),
    "tgkill": (234, parent, parent, 9),
    "pidfd_send_signal": (424, handle, 9, ctypes.c_void_p(), 0),
    "pidfd_getfd": (438, handle, 0, 0),
    "move_pages": (279, parent, 0, ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), 0),
    "prlimit": (302, parent, 7, ctypes.c_void_p(), vector),
    "sched_setaffinity": (203, parent, 8, vector),
    "setpriority": (141, 0, parent, 19),
}
for name, arguments in attempts.items():
    result, why = call(*arguments)
    if result >= 0:
        worked.append(name)
    reasons.add(why)
for name in ("mem", "environ", "maps", "fd/0", "exe", "root/etc/passwd", "cwd", "syscall", "stack"):
    try:
        os.close(os.open(f"/proc/{parent}/{name}", os.O_RDONLY))
        if name == "syscall" or os.path.isdir(f"/proc/{parent}/{name}") or open(f"/proc/{parent}/{name}", "rb").read(1):
            worked.append(f"/proc/{parent}/{name}")
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
try:
    os.listdir(f"/proc/{parent}/fd")
    worked.append("its descriptors")
except OSError as error:
    reasons.add(errno.errorcode[error.errno])
if not os.path.exists(f"/proc/{parent}"):
    worked.append("it is gone")
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
