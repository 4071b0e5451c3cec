# tries: ports of the host over vsock, and the runner's own ports from inside
# passes: there is no vsock, or no port lets this job in
# fails: a port of the host connects, or the runner answers a job
import errno
import json
import socket
import struct

reasons, worked = set(), []
try:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
except OSError as error:
    print(f"ISOLATION pass: no vsock: {errno.errorcode[error.errno]}")
    raise SystemExit
for context in (2, 0):
    for port in (1, 22, 80, 1023, 1024, 1025, 2222, 5000, 5001, 5002, 8080, 9999, 52, 53):
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as stream:
            stream.settimeout(2)
            try:
                stream.connect((context, port))
                worked.append(f"port {port} of {context}")
            except OSError as error:
                reasons.add(errno.errorcode.get(error.errno, "timeout"))
hello = json.dumps({"type": "hello"}).encode()
for context in (1, 3):
    for port in (5000, 5001):
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as stream:
            stream.settimeout(2)
            try:
                stream.connect((context, port))
                stream.sendall(struct.pack(">I", len(hello)) + hello)
                if stream.recv(4):
                    worked.append(f"the runner's port {port}")
                reasons.add("silence")
            except OSError as error:
                reasons.add(errno.errorcode.get(error.errno, "timeout"))
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
