# tries: to load BPF programs and make maps
# passes: the kernel refuses
# fails: a map or a program is made
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


attributes = ctypes.create_string_buffer(128)
# An array of one: BPF_MAP_TYPE_ARRAY, keys of 4 bytes, values of 8.
ctypes.memmove(attributes, bytes([2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0]), 16)
made, why = call(321, 0, attributes, 128)
# return 0, as a socket filter (BPF_PROG_LOAD)
code = (ctypes.c_uint64 * 2)(0xB7, 0x95)
licence = ctypes.c_char_p(b"GPL")
program = ctypes.create_string_buffer(128)
ctypes.memmove(program, (ctypes.c_uint32 * 2)(1, 2), 8)
ctypes.memmove(ctypes.addressof(program) + 8, (ctypes.c_uint64 * 2)(ctypes.addressof(code), ctypes.cast(licence, ctypes.c_void_p).value), 16)
loaded, also = call(321, 5, program, 128)
if made >= 0 or loaded >= 0:
    print(f"ISOLATION fail: map {made}, program {loaded}")
else:
    print(f"ISOLATION pass: {why} for a map, {also} for a program")
