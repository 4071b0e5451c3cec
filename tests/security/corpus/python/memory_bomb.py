# tries: to take all memory
# passes: the limit on memory ends the job
# fails: it gets 64 GiB, or the machine does not answer any more
# ends: oom
# timeout: 120
hog = []
for _ in range(8 << 10):
    hog.append(bytearray(b"x") * (8 << 20))
print("ISOLATION fail: 64 GiB were there")
