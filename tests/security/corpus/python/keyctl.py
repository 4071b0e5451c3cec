# tries: the kernel's keyrings
# passes: no key is made and no keyring is joined
# fails: one is
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


made, why = call(248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"escape"), ctypes.c_char_p(b"x"), 1, -3)
joined, also = call(250, 1, 0)
if made >= 0 or joined >= 0:
    print(f"ISOLATION fail: key {made}, keyring {joined}")
else:
    print(f"ISOLATION pass: {why} for a key, {also} for a keyring")
