# tries: archives whose entries climb out of the directory, or go through links of their own
# passes: nothing outside of what this user may write is changed
# fails: a file of the system changed
import io
import os
import tarfile
import zipfile

paths = ["/etc/passwd", "/usr/bin/env", "/bin/sh", "/etc/machine-id"]


def state():
    return {path: (os.stat(path).st_mtime_ns, os.stat(path).st_size) for path in paths if os.path.exists(path)}


before = state()
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as archive:
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    archive.addfile(link)
    for name in ["out/passwd", "../../../../etc/passwd", "/etc/passwd", "../../usr/bin/env"]:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    device = tarfile.TarInfo("disk")
    device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 254, 0
    archive.addfile(device)
buffer.seek(0)
with tarfile.open(fileobj=buffer) as archive:
    for member in archive:
        try:
            archive.extract(member, filter="fully_trusted")
        except (OSError, tarfile.TarError):
            pass
bomb = io.BytesIO()
with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("../../../../etc/machine-id", "evil")
with zipfile.ZipFile(bomb) as archive:
    for name in archive.namelist():
        try:
            with open(name, "wb") as file:
                file.write(archive.read(name))
        except OSError:
            pass
changed = [path for path, stat in state().items() if before.get(path) != stat]
if os.path.exists("disk") or changed:
    print(f"ISOLATION fail: changed {changed}, a device: {os.path.exists('disk')}")
else:
    print("ISOLATION pass: the system's files are as they were")
