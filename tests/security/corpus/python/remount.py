# tries: to mount, remount, unmount and move file systems, and to write to the root below
# passes: all of it is refused, and the system's files cannot be written
# fails: a mount changed, or a file of the system could be written
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")


before = open("/proc/self/mounts").read()
worked = []
C = ctypes.c_char_p
attempts = {
    "remount /": (165, C(b"none"), C(b"/"), C(b"none"), 32, C(b"")),
    "remount /proc": (165, C(b"none"), C(b"/proc"), C(b"proc"), 32, C(b"")),
    "tmpfs on /mnt": (165, C(b"none"), C(b"/mnt"), C(b"tmpfs"), 0, C(b"")),
    "bind of /etc": (165, C(b"/tmp"), C(b"/etc"), C(b""), 4096, C(b"")),
    "umount /proc": (166, C(b"/proc"), 2),
    "umount /tmp": (166, C(b"/tmp"), 2),
    "pivot_root": (155, C(b"/tmp"), C(b"/tmp")),
    "chroot": (161, C(b"/tmp")),
    "fsopen": (430, C(b"tmpfs"), 0),
    "open_tree": (428, -100, C(b"/"), 1),
    "mount_setattr": (442, -100, C(b"/"), 0, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32),
    "swapon": (167, C(b"/job/main.py"), 0),
}
reasons = set()
for name, arguments in attempts.items():
    result, why = call(*arguments)
    if result >= 0:
        worked.append(name)
    reasons.add(why)
for path in ("/usr/bin/env", "/etc/passwd", "/etc/shadow", "/lib/x86_64-linux-gnu/libc.so.6", "/init"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        worked.append(path)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
if open("/proc/self/mounts").read() != before:
    worked.append("the mounts changed")
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
