//! A newc cpio archive, as the kernel takes it for an initramfs (its Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive being packed. The same entries in the same order give the same bytes.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    /// Adds a directory, mode 0755. It has to come before what is in it; `name` is relative to the root.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    /// Adds a file, mode 0644.
    ///
    /// # Panics
    /// It has 4 GiB or more.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, 0o100_644, (0, 0), contents);
    }

    /// Adds a file, mode 0755.
    ///
    /// # Panics
    /// As [`Cpio::file`].
    pub fn executable(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), contents);
    }

    /// Adds a character device of that major and minor number, mode 0600.
    pub fn character_device(&mut self, name: &str, device: (u32, u32)) {
        self.entry(name, 0o020_600, device, &[]);
    }

    /// The archive with its end, a multiple of four bytes: another one may follow, whose files replace those of this one.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        self.record(name, self.inode, mode, device, contents);
    }

    fn record(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), contents: &[u8]) {
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let size = u32::try_from(contents.len()).expect("what goes into an initramfs is far below 4 GiB");
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
}
