# tries: to leave its control group or to raise its limits, and to be spared when memory is short
# passes: the groups are out of reach, and its own rank for the out-of-memory killer cannot fall
# fails: a control file can be written, or the rank falls
import errno
import os

worked, reasons = [], set()
groups = ["/sys/fs/cgroup"] + [os.path.join(root) for root, _, _ in os.walk("/sys/fs/cgroup")]
for group in groups:
    for name, value in (("cgroup.procs", str(os.getpid())), ("memory.max", "max"), ("pids.max", "max"), ("cgroup.kill", "1")):
        try:
            with open(f"{group}/{name}", "w") as file:
                file.write(value)
            worked.append(f"{group}/{name}")
        except OSError as error:
            reasons.add(errno.errorcode[error.errno])
    try:
        os.mkdir(f"{group}/mine")
        worked.append(f"{group}/mine")
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    worked.append("oom_score_adj")
except OSError as error:
    reasons.add(errno.errorcode[error.errno])
if int(open("/proc/self/oom_score_adj").read()) <= 0:
    worked.append("it is not the first to go")
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
