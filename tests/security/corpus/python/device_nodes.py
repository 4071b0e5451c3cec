# tries: to make device nodes, and to open the machine's disks, ports and consoles
# passes: none can be made, and none but the harmless ones is there
# fails: one can be made or opened
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """The result, and the name of the error."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    return result, errno.errorcode.get(ctypes.get_errno(), "0")

import stat

worked, reasons = [], set()
NODES = {
    "vda": (stat.S_IFBLK, 254, 0), "vdb": (stat.S_IFBLK, 254, 16), "loop0": (stat.S_IFBLK, 7, 0),
    "mem": (stat.S_IFCHR, 1, 1), "kmsg": (stat.S_IFCHR, 1, 11), "ttyS0": (stat.S_IFCHR, 4, 64),
    "console": (stat.S_IFCHR, 5, 1), "vport0p1": (stat.S_IFCHR, 240, 1), "vsock": (stat.S_IFCHR, 10, 121),
    "fuse": (stat.S_IFCHR, 10, 229), "kvm": (stat.S_IFCHR, 10, 232), "tun": (stat.S_IFCHR, 10, 200),
}
for name, (kind, major, minor) in NODES.items():
    for directory in ("/job", "/tmp", "/dev/shm", "/dev"):
        path = f"{directory}/{name}"
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
            worked.append(f"made {path}")
        except OSError as error:
            reasons.add(errno.errorcode[error.errno])
    for path in (f"/dev/{name}", f"/dev/net/{name}"):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
            worked.append(f"opened {path}")
        except OSError as error:
            reasons.add(errno.errorcode[error.errno])
harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr"}
strange = sorted(set(os.listdir("/dev")) - harmless)
if worked or strange:
    print(f"ISOLATION fail: {', '.join(worked)}; in /dev: {', '.join(strange)}")
else:
    print(f"ISOLATION pass: {', '.join(sorted(reasons))}")
