//! Packs the guest-runner and the kernel's modules into an uncompressed newc cpio archive: the kernel unpacks it faster than it
//! would a compressed one, and the same parts give the same bytes. The format is that of the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use sha2::{Digest, Sha256};

use crate::modules::ModuleSet;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;

/// Where the runner mounts things.
const DIRECTORIES: [&str; 7] = ["dev", "lower", "modules", "newroot", "proc", "scratch", "sys"];

/// A name for the archive that these parts give: the same for the same parts, in hexadecimal.
pub(crate) fn name(runner: &[u8], modules_sha256: &str) -> String {
    const FORMAT: &[u8] = b"initramfs 1";
    let digest = Sha256::new()
        .chain_update(FORMAT)
        .chain_update(Sha256::digest(runner))
        .chain_update(modules_sha256)
        .finalize();
    hex(&digest[..16])
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The archive.
pub(crate) fn pack(runner: &[u8], modules: &ModuleSet) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.entry(directory, DIRECTORY, (0, 0), &[]);
    }
    // PID 1's standard streams, which the kernel opens before anything is mounted.
    archive.entry("dev/console", CONSOLE, (5, 1), &[]);
    archive.entry("init", EXECUTABLE, (0, 0), runner);
    archive.entry("modules/order", FILE, (0, 0), modules.order().as_bytes());
    for (name, contents) in modules.files() {
        archive.entry(&format!("modules/{name}"), FILE, (0, 0), contents);
    }
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        let inode = self.inode;
        self.record(name, inode, mode, device, contents);
    }

    fn record(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), contents: &[u8]) {
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let size = u32::try_from(contents.len()).expect("a guest-runner or module is far below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [
            inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Read {
        name: String,
        mode: u32,
        contents: Vec<u8>,
    }

    fn unpack(archive: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701", "at {at}");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let text = str::from_utf8(&archive[start..start + 8]).expect("text");
                u32::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).expect("text");
            let start = (at + 110 + name_size).next_multiple_of(4);
            let contents = archive[start..start + size].to_vec();
            at = (start + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push(Read { name, mode, contents });
        }
    }

    fn modules() -> ModuleSet {
        ModuleSet::new(
            "core a.ko\n".to_owned(),
            vec![("a.ko".to_owned(), b"module".to_vec())],
        )
    }

    #[test]
    fn holds_the_runner_the_modules_and_the_mount_points() {
        let entries = unpack(&pack(b"runner", &modules()));
        let find = |name: &str| entries.iter().find(|entry| entry.name == name).expect(name);
        assert_eq!(find("init").contents, b"runner");
        assert_eq!(find("init").mode, 0o100_755);
        assert_eq!(find("modules/a.ko").contents, b"module");
        assert_eq!(find("modules/order").contents, b"core a.ko\n");
        assert_eq!(find("dev/console").mode, 0o020_600);
        for directory in DIRECTORIES {
            assert_eq!(find(directory).mode, 0o040_755, "{directory}");
        }
    }

    #[test]
    fn parents_come_before_what_is_in_them() {
        let entries = unpack(&pack(b"runner", &modules()));
        for (index, entry) in entries.iter().enumerate() {
            if let Some((parent, _)) = entry.name.rsplit_once('/') {
                assert!(
                    entries[..index].iter().any(|before| before.name == parent),
                    "{}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn the_same_parts_give_the_same_bytes_and_name() {
        assert_eq!(pack(b"runner", &modules()), pack(b"runner", &modules()));
        assert_eq!(name(b"runner", "aa"), name(b"runner", "aa"));
        assert_ne!(name(b"runner", "aa"), name(b"runner", "ab"));
        assert_ne!(name(b"runner", "aa"), name(b"sunner", "aa"));
    }
}
