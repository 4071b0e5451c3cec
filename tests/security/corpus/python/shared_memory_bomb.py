# tries: to take all memory by files in memory
# passes: /dev/shm and anonymous files are bounded, and the limit on memory or on time ends the job
# fails: 16 GiB fit, or the machine does not answer any more
# ends: oom, timeout
# timeout: 60
import os

block = b"x" * (4 << 20)
written = 0
with open("/dev/shm/bomb", "wb", buffering=0) as shm:
    try:
        while written < 16 << 30:
            written += shm.write(block)
    except OSError:
        pass
memory = os.memfd_create("bomb")
while written < 16 << 30:
    written += os.write(memory, block)
print("ISOLATION fail: 16 GiB were there")
