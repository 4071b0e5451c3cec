# tries: performance counters, which have let users into the kernel before
# passes: there are none for this user
# fails: one opens that sees the kernel or other processes, or this one
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


opened = []
for kind, config in ((1, 1), (0, 0)):
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, (ctypes.c_uint32 * 2)(kind, 128), 8)
    ctypes.memmove(ctypes.addressof(attributes) + 8, (ctypes.c_uint64 * 1)(config), 8)
    for pid, cpu in ((0, -1), (-1, 0), (1, -1)):
        result, why = call(298, attributes, pid, cpu, -1, 0)
        if result >= 0:
            opened.append((kind, pid))
print(f"ISOLATION fail: opened {opened}" if opened else f"ISOLATION pass: {why}")
