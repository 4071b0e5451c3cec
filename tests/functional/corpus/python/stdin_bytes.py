# Standard input: bytes, seeking, the bare descriptor, a child's.
import os
import subprocess
import sys

print(sys.stdin.buffer.read(6), sys.stdin.seekable(), sys.stdin.buffer.tell())
print(sys.stdin.buffer.seek(0), sys.stdin.read())
os.lseek(0, 6, os.SEEK_SET)
print(os.read(0, 100), os.fstat(0).st_size)
os.lseek(0, 0, os.SEEK_SET)
print(subprocess.run(["cat"], capture_output=True).stdout)
