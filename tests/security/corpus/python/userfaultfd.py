# tries: to handle page faults of its own, which makes races in the kernel winnable
# passes: there is no userfaultfd
# fails: one is made
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


results = [call(323, flags) for flags in (0, 1, os.O_CLOEXEC | 1)]
try:
    results.append((os.open("/dev/userfaultfd", os.O_RDWR), "0"))
except OSError as error:
    results.append((-1, errno.errorcode[error.errno]))
if any(result >= 0 for result, _ in results):
    print("ISOLATION fail: a userfaultfd was made")
else:
    print(f"ISOLATION pass: {', '.join(sorted({why for _, why in results}))}")
