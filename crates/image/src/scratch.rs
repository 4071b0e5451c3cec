//! The disk that takes a job's changes: an empty ext4 without a journal, whose sparse copy costs nothing and mounts at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::{ImageError, command};

/// What a job may write.
pub(crate) const BYTES: u64 = 1 << 30;
/// Named one by one, so that no newer default stops an older kernel from mounting it.
const FEATURES: &str =
    "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super";

/// Makes it at `path`, which does not exist.
pub(crate) fn make(path: &Path) -> Result<(), ImageError> {
    let file = File::create_new(path).map_err(ImageError::io("create", path))?;
    file.set_len(BYTES).map_err(ImageError::io("size", path))?;
    let mut mkfs = command::command("mkfs.ext4")?;
    mkfs.args([
        "-q", "-F", "-b", "4096", "-m", "0", "-L", "scratch", "-O", FEATURES,
    ]);
    // Nothing is left to initialise in the guest.
    mkfs.args(["-E", "nodiscard,lazy_itable_init=0,root_owner=0:0"]);
    mkfs.arg(path).stdout(std::process::Stdio::null());
    command::run(&mut mkfs, path, |_| {})?;
    dig_holes(&file).map_err(ImageError::io("write", path))?;
    file.sync_all().map_err(ImageError::io("write", path))
}

/// Gives blocks of zeros back to the disk.
fn dig_holes(file: &File) -> std::io::Result<()> {
    const BLOCK: usize = 64 * 1024;
    let zeros = [0; BLOCK];
    let mut block = [0; BLOCK];
    let mut at = 0;
    while at < BYTES {
        // The next data, so that what is a hole already is not read.
        at = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data - data % BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        file.read_exact_at(&mut block, at)?;
        if block == zeros {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(file, flags, at, BLOCK as u64) {
                // A filesystem without holes keeps its zeros.
                Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
                result => result?,
            }
        }
        at += BLOCK as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::{RootFilesystem, identify};

    #[test]
    fn is_a_sparse_ext4_without_a_journal() {
        if crate::tools::find("mkfs.ext4").is_none() {
            eprintln!("skipped: mkfs.ext4 is not installed");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("scratch.ext4");
        make(&path).expect("made");
        assert_eq!(identify(&path).expect("whole"), RootFilesystem::Ext4);
        let metadata = path.metadata().expect("there");
        assert_eq!(metadata.len(), BYTES);
        assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks", metadata.blocks());
    }
}
