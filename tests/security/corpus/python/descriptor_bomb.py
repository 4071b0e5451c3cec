# tries: to open files until there are no more, in this process and in children
# passes: each process has no more than its limit of 1024
# fails: a process has more, or can raise its limit
import os
import resource

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
raised = None
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard * 4, hard * 4))
    raised = hard * 4
except (ValueError, OSError):
    pass


def exhaust():
    opened = []
    try:
        while len(opened) < 1 << 17:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    return len(opened)


children = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        count = exhaust()
        os._exit(0 if count <= 1024 else 1)
    children.append(pid)
most = exhaust()
over = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
if raised or most > 1024 or over:
    os.closerange(10, 1 << 17)
    print(f"ISOLATION fail: {most} files open, limit raised to {raised}, {len(over)} children over it")
else:
    os.closerange(10, 1 << 17)
    print(f"ISOLATION pass: no more than {most} files in each of 21 processes")
