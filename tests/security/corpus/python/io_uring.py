# tries: io_uring, by which system calls are made that no filter sees
# passes: there is no ring
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


parameters = ctypes.create_string_buffer(120)
made, why = call(425, 8, parameters)
print("ISOLATION fail: a ring was made" if made >= 0 else f"ISOLATION pass: {why}")
