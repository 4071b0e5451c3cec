# Open descriptors and threads: as many as ever, and the first to be opened has the same number.
import os
import resource
import socket
import tempfile

with open("/proc/self/status") as file:
    print(file.fileno(), [line for line in file if line.startswith(("Threads", "Sig", "Shd", "NoNew"))])
print(sorted(os.listdir("/proc/self/fd"), key=int))
with socket.socket() as connection, tempfile.TemporaryFile() as file:
    print(connection.fileno(), file.fileno())
print([os.get_inheritable(descriptor) for descriptor in range(3)], resource.getrlimit(resource.RLIMIT_NOFILE))
