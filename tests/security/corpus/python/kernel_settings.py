# tries: to change the kernel's settings, the clock and the host name, and to reboot
# passes: all of it is refused
# fails: one of them changes
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
for path, value in {
    "/proc/sysrq-trigger": "b",
    "/proc/sys/kernel/core_pattern": "|/job/mine",
    "/proc/sys/kernel/hostname": "mine",
    "/proc/sys/kernel/randomize_va_space": "0",
    "/proc/sys/kernel/yama/ptrace_scope": "0",
    "/proc/sys/kernel/unprivileged_bpf_disabled": "0",
    "/proc/sys/kernel/perf_event_paranoid": "-1",
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/drop_caches": "3",
    "/proc/sys/fs/binfmt_misc/register": ":x:M::\\x7fX::/job/mine:",
    "/proc/sys/fs/protected_symlinks": "0",
    "/sys/power/state": "mem",
    "/sys/kernel/uevent_helper": "/job/mine",
}.items():
    try:
        with open(path, "w") as setting:
            setting.write(value)
        worked.append(path)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
text = ctypes.c_char_p(b"mine")
for name, arguments in {
    "sethostname": (170, text, 4),
    "setdomainname": (171, text, 4),
    "clock_settime": (227, 0, (ctypes.c_uint64 * 2)(1, 0)),
    "settimeofday": (164, (ctypes.c_uint64 * 2)(1, 0), ctypes.c_void_p()),
    "adjtimex": (159, (ctypes.c_uint64 * 26)(1)),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x01234567, ctypes.c_void_p()),
    "syslog": (103, 5, ctypes.c_void_p(), 0),
    "acct": (163, text),
    "quotactl": (179, 0x80000200, ctypes.c_void_p(), 0, ctypes.c_void_p()),
    "vhangup": (153,),
}.items():
    result, why = call(*arguments)
    if result >= 0:
        worked.append(name)
    reasons.add(why)
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
