# tries: the machine's memory and ports: /dev/mem, /proc/kcore, ioperm, iopl
# passes: none of them
# fails: one can be read or used
# timeout: 60
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
for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/proc/kmsg", "/proc/vmcore", "/dev/kmsg", "/sys/firmware/acpi/tables/DSDT"):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.read(handle, 16)
        worked.append(path)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
for name, arguments in {"iopl": (172, 3), "ioperm": (173, 0x80, 1, 1)}.items():
    result, why = call(*arguments)
    if result >= 0:
        worked.append(name)
    reasons.add(why)
with open("/proc/kallsyms") if os.path.exists("/proc/kallsyms") else open(os.devnull) as symbols:
    if any(int(symbols.readline().split()[0] or '0', 16) for _ in range(50) if symbols.name != os.devnull):
        worked.append("addresses in /proc/kallsyms")
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
