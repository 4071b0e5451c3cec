//! Packs the guest-runner and the kernel's modules into an uncompressed archive: the kernel unpacks it faster than it would a
//! compressed one, and the same parts give the same bytes.

use sha2::{Digest, Sha256};

use crate::cpio::Cpio;
use crate::modules::ModuleSet;

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
    let mut archive = Cpio::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    // PID 1's standard streams, which the kernel opens before anything is mounted.
    archive.character_device("dev/console", (5, 1));
    archive.executable("init", runner);
    archive.file("modules/order", modules.order().as_bytes());
    for (name, contents) in modules.files() {
        archive.file(&format!("modules/{name}"), contents);
    }
    archive.finish()
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
