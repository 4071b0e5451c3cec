# tries: to find what belongs to the host: its environment, its paths, its name, keys, what is below the root
# passes: nothing of it is in the machine
# fails: something is
import os
import re

found = []
for name in os.environ:
    if re.match(r"(RUNNER_CODES|AWS|SSH|SUDO|GITHUB|CARGO|XDG_RUNTIME)", name):
        found.append(f"variable {name}")
for path in ("/lower", "/scratch", "/layer", "/run/runner-codes", "/var/lib/runner-codes", "/root/.ssh", "/root/.aws", "/host", "/.dockerenv"):
    try:
        if os.listdir(path):
            found.append(path)
    except OSError:
        pass
command_line = open("/proc/cmdline").read()
if re.search(r"(rc_[0-9a-f]{16}_|key=|secret|password)", command_line):
    found.append("a secret in the kernel's command line")
mounts = open("/proc/self/mounts").read()
if re.search(r"\s(9p|virtiofs|nfs4?|cifs|fuse\S*)\s", mounts):
    found.append("a file system of the host's")
for disk in ("/sys/block/vda", "/sys/class/dmi/id/product_serial", "/sys/class/virtio-ports", "/sys/firmware/qemu_fw_cfg"):
    if os.path.exists(disk):
        found.append(disk)
print(f"ISOLATION fail: {', '.join(found)}" if found else "ISOLATION pass: nothing of the host is in sight")
