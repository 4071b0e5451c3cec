# tries: to use up the inodes
# passes: they are used up or time is, and the machine still answers
# fails: a million files fit, or the machine does not answer any more
# ends: disk_full, timeout
# timeout: 20
import os

try:
    for number in range(1_000_000):
        if number % 1000 == 0:
            os.mkdir(str(number // 1000))
        os.close(os.open(f"{number // 1000}/{number}", os.O_CREAT | os.O_WRONLY))
    print("ISOLATION fail: a million files fit")
except OSError as error:
    print(f"ISOLATION pass: {error.strerror} after {number} files")
