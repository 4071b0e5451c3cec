# tries: to have files brought back that are not the job's: by links, devices, pipes, directories, files of endless size
# passes: none of them comes back with content
# fails: one does
# withheld: link, dangling, pipe, directory, endless, hole, /dev/zero, /proc/kcore, chain
import os

os.symlink("/etc/passwd", "link")
os.symlink("/nowhere", "dangling")
os.mkfifo("pipe")
os.mkdir("directory")
os.symlink("/proc/kmsg", "endless")
with open("hole", "wb") as hole:
    hole.truncate(1 << 40)
os.symlink("link", "chain")
print("ISOLATION pass: they are laid out")
