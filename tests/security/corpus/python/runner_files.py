# tries: to find and change the runner's program, its sockets and its descriptors
# passes: neither is in sight, and no descriptor of it was inherited
# fails: a file of the runner is in sight, or a descriptor that leads to it
import os
import re

found = []
for path in ("/init", "/usr/local/bin/guest-runner", "/usr/bin/guest-runner", "/modules", "/behaviour"):
    if os.path.lexists(path) and os.access(path, os.W_OK):
        found.append(f"{path} can be written")
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        continue
    # Three pipes for input and output; a script may have itself open.
    if int(name) > 2 and not re.match(r"(/job/|/proc/\d+/fd|/tmp/|/dev/null|pipe:|/memfd:|anon_inode:)", target):
        found.append(f"descriptor {name}: {target}")
    if target.startswith(("socket:", "/dev/vport", "anon_inode:seccomp")):
        found.append(f"descriptor {name}: {target}")
for name in range(3, 64):
    try:
        os.write(name, b"\0\0\0\x02{}")
        found.append(f"descriptor {name} takes a frame: {os.readlink(f'/proc/self/fd/{name}')}")
    except OSError:
        pass
for line in open("/proc/net/unix").read().splitlines()[1:]:
    if len(line.split()) > 7:
        found.append(f"socket {line.split()[7]}")
print(f"ISOLATION fail: {'; '.join(sorted(set(found)))}" if found else "ISOLATION pass: nothing of it is in sight")
