# Files in every way that the standard library knows.
import array, bz2, dbm, errno, fcntl, gzip, io, lzma, mmap, os, pathlib, shelve, shutil, sqlite3, stat, tarfile, tempfile, zipfile

work = pathlib.Path(tempfile.mkdtemp())
os.chdir(work)

pathlib.Path("text").write_text("line\n" * 1000)
assert pathlib.Path("text").stat().st_size == 5000
os.link("text", "hard"), os.symlink("text", "soft"), os.rename("hard", "renamed")
assert os.readlink("soft") == "text" and os.path.samefile("renamed", "text")
os.chmod("text", 0o640), os.utime("text", (1, 2)), os.truncate("renamed", 4000)
assert stat.S_IMODE(os.stat("text").st_mode) == 0o640
os.mkfifo("pipe"), os.mkdir("directory"), os.makedirs("a/b/c")
assert stat.S_ISFIFO(os.stat("pipe").st_mode)
os.replace("renamed", "a/b/c/file"), os.access("text", os.W_OK), os.statvfs("."), os.pathconf(".", "PC_NAME_MAX")
assert sorted(entry.name for entry in os.scandir("a/b")) == ["c"]
assert [files for *_, files in os.walk("a")][-1] == ["file"]
for call in (os.sync, lambda: os.listxattr("text"), lambda: os.umask(os.umask(0o22))):
    call()
try:
    os.setxattr("text", "user.tour", b"1")
    assert os.getxattr("text", "user.tour") == b"1"
    os.removexattr("text", "user.tour")
except OSError as error:
    assert error.errno in (errno.ENOTSUP, errno.EPERM), error

with open("data", "w+b") as data:
    descriptor = data.fileno()
    os.posix_fallocate(descriptor, 0, 65536), os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    os.pwrite(descriptor, b"abc", 10), os.pwritev(descriptor, [b"de", b"f"], 13), os.fsync(descriptor), os.fdatasync(descriptor)
    assert os.pread(descriptor, 6, 10) == b"abcdef"
    buffers = [bytearray(3), bytearray(3)]
    assert os.preadv(descriptor, buffers, 10) == 6 and bytes(buffers[1]) == b"def"
    fcntl.flock(data, fcntl.LOCK_EX), fcntl.flock(data, fcntl.LOCK_UN)
    fcntl.lockf(data, fcntl.LOCK_EX | fcntl.LOCK_NB), fcntl.lockf(data, fcntl.LOCK_UN)
    with mmap.mmap(descriptor, 65536) as memory:
        assert memory.find(b"abcdef") == 10
        memory[0:3] = b"xyz"
        memory.flush(), memory.madvise(mmap.MADV_WILLNEED)
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) > 0
    with open("copy", "w+b") as copy:
        assert os.copy_file_range(descriptor, copy.fileno(), 100, 0) == 100
        assert os.sendfile(copy.fileno(), descriptor, 0, 100) == 100
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        assert os.splice(copy.fileno(), theirs, 50, offset_src=0) == 50
        assert os.read(ours, 3) == b"xyz"
anonymous = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
anonymous.resize(2 << 20)
anonymous[-1] = 7
assert fcntl.ioctl(ours, 0x541B, array.array("i", [0])) == 0  # FIONREAD

descriptor = os.memfd_create("tour", os.MFD_ALLOW_SEALING)
os.write(descriptor, b"sealed")
fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
event = os.eventfd(3)
assert os.eventfd_read(event) == 3
assert os.isatty(0) is False

for module, suffix in ((gzip, "gz"), (bz2, "bz2"), (lzma, "xz")):
    with module.open(f"packed.{suffix}", "wb") as packed:
        packed.write(b"packed" * 1000)
    with module.open(f"packed.{suffix}") as packed:
        assert packed.read() == b"packed" * 1000
with tarfile.open("all.tar.gz", "w:gz") as archive:
    archive.add("a"), archive.add("text"), archive.add("soft")
with tarfile.open("all.tar.gz") as archive:
    archive.extractall("unpacked", filter="data")
assert pathlib.Path("unpacked/a/b/c/file").stat().st_size == 4000
with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.write("text")
assert zipfile.ZipFile("all.zip").testzip() is None
shutil.copytree("a", "tree"), shutil.rmtree("tree"), shutil.disk_usage("."), shutil.which("sh")

for name in (":memory:", "base.db"):
    connection = sqlite3.connect(name)
    connection.execute("pragma journal_mode=wal")
    with connection:
        connection.execute("create table tour (key integer primary key, value text)")
        connection.executemany("insert into tour (value) values (?)", [(str(n),) for n in range(1000)])
    assert connection.execute("select sum(value) from tour").fetchone() == (499500,)
    connection.close()
with shelve.open("shelf") as shelf:
    shelf["key"] = [1, 2, 3]
with dbm.open("shelf") as base:
    assert base.keys()
with tempfile.TemporaryFile() as unnamed, tempfile.SpooledTemporaryFile(max_size=10) as spooled:
    unnamed.write(b"x" * 100), spooled.write(b"x" * 100)
assert io.open("text", newline="").readline() == "line\n"
shutil.rmtree(work)
print("done")
