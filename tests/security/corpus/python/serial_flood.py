# tries: to flood the machine's console, its kernel log and its serial ports
# passes: none of them can be opened
# fails: one takes bytes
import errno
import os

worked, reasons = [], set()
names = ["console", "kmsg", "hvc0", "tty0", "tty1", "ttyprintk"] + [f"ttyS{n}" for n in range(4)] + [f"vport{a}p{b}" for a in range(4) for b in range(3)]
for name in names:
    try:
        port = os.open(f"/dev/{name}", os.O_WRONLY | os.O_NONBLOCK)
        os.write(port, b"x" * 65536)
        worked.append(name)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
try:
    os.write(os.open("/dev/tty", os.O_WRONLY), b"x")
    worked.append("tty")
except OSError as error:
    reasons.add(errno.errorcode[error.errno])
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
