//! SHA-256 of large files, remembered for as long as the file is certainly the same: device, inode, size, time of modification and
//! time of change, which nobody can set.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::fresh::{self, publish_file};
use crate::guarded::{Access, Directory, private_directory};
use crate::{ImageError, Sha256Sum};

/// What tells one state of a file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// Whether any later write must give another stamp: the clock has moved on, by more than the steps in which a filesystem counts
    /// time, since the file was changed.
    fn is_settled(&self, now: SystemTime, settle: Duration) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else {
            return false;
        };
        let changed = i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1);
        let settle = i128::try_from(settle.as_nanos()).unwrap_or(i128::MAX / 2);
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX / 2);
        changed + settle <= now
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file's digest and the state of the file that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digested {
    pub(crate) sum: Sha256Sum,
    pub(crate) stamp: Stamp,
    /// It was known; nothing was read.
    pub(crate) remembered: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Where the file was, to tell when the entry is of no more use.
    path: PathBuf,
    stamp: Stamp,
    sha256: Sha256Sum,
}

/// Digests of files, each in a file of its own that only this user can write.
#[derive(Debug, Clone)]
pub(crate) struct DigestCache {
    state: PathBuf,
    settle: Duration,
}

impl DigestCache {
    pub(crate) const DIRECTORY: &str = "verified";
    /// Some filesystems count seconds, and some of those two at a time.
    const SETTLE: Duration = Duration::from_secs(2);
    const LIMIT: u64 = 64 * 1024;

    pub(crate) fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            settle: Self::SETTLE,
        }
    }

    /// For tests, which cannot wait: files count as settled after `settle`.
    #[cfg(test)]
    pub(crate) fn settling(state: &Path, settle: Duration) -> Self {
        Self {
            settle,
            ..Self::new(state)
        }
    }

    /// The digest of `file`, which was opened at `path`: remembered if `reuse` and the file has not changed since it was last read.
    ///
    /// # Errors
    /// When the file cannot be read, or changes meanwhile.
    pub(crate) fn digest(&self, file: &File, path: &Path, reuse: bool) -> Result<Digested, ImageError> {
        if reuse {
            let stamp = Stamp::of(file).map_err(ImageError::io("read", path))?;
            if let Some(sum) = self.recall(&stamp) {
                return Ok(Digested {
                    sum,
                    stamp,
                    remembered: true,
                });
            }
        }
        let now = SystemTime::now();
        let digested = measure(file, path)?;
        if digested.stamp.is_settled(now, self.settle) {
            self.remember(path, digested.stamp, digested.sum);
        }
        Ok(digested)
    }

    fn recall(&self, stamp: &Stamp) -> Option<Sha256Sum> {
        let directory = Directory::open(&self.directory(), Access::Private).ok()?;
        let entry = directory
            .read(&file_name(stamp), Access::Private, Self::LIMIT)
            .ok()?;
        let entry: Entry = serde_json::from_slice(&entry).ok()?;
        (entry.stamp == *stamp).then_some(entry.sha256)
    }

    /// Best effort: without it the file is read again next time.
    fn remember(&self, path: &Path, stamp: Stamp, sha256: Sha256Sum) {
        let entry = Entry {
            path: path.to_owned(),
            stamp,
            sha256,
        };
        let text = serde_json::to_vec(&entry).expect("a plain structure");
        let written = private_directory(&self.state, &[Self::DIRECTORY])
            .and_then(|()| publish_file(&self.directory().join(file_name(&stamp)), &text, 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "not remembering that this file is intact");
        }
    }

    /// Drops what is known of files that have changed or are gone.
    pub(crate) fn sweep(&self) -> Result<(), ImageError> {
        for path in fresh::entries(&self.directory())? {
            let entry = std::fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
            let is_current = entry.is_some_and(|entry| {
                std::fs::metadata(&entry.path).is_ok_and(|metadata| Stamp::from(&metadata) == entry.stamp)
            });
            // Another process may be about to rename a temporary file; one that it left is swept when it has changed no more.
            if !is_current && !fresh::is_being_written(&path) {
                fresh::remove(&path)?;
            }
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.state.join(Self::DIRECTORY)
    }
}

fn file_name(stamp: &Stamp) -> String {
    format!("{:x}-{:x}.json", stamp.device, stamp.inode)
}

/// The digest of `file`, which was opened at `path`, neither remembered before nor after.
///
/// # Errors
/// When the file cannot be read, or changes meanwhile.
pub(crate) fn measure(file: &File, path: &Path) -> Result<Digested, ImageError> {
    // What was written through a mapping that is still there is marked as a change only once the page has gone to the disk.
    let _ = rustix::fs::fdatasync(file);
    let before = Stamp::of(file).map_err(ImageError::io("read", path))?;
    let sum = hash(file).map_err(ImageError::io("read", path))?;
    let stamp = Stamp::of(file).map_err(ImageError::io("read", path))?;
    if before != stamp {
        return Err(ImageError::invalid(path, "it changed while it was being read"));
    }
    Ok(Digested {
        sum,
        stamp,
        remembered: false,
    })
}

/// All of a file. Holes are hashed as the zeros that they are, but not read. Leaves the file's offset at its beginning.
fn hash(file: &File) -> io::Result<Sha256Sum> {
    let length = file.metadata()?.len();
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let data = next_data(file, at, length)?;
        hash_zeros(&mut digest, data.start - at);
        hash_data(&mut digest, file, data.clone(), &mut block)?;
        at = data.end;
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(Sha256Sum::from(digest))
}

/// The first stretch of data at or after `at`; empty, at the end, when only a hole follows.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Range<u64>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.clamp(at, length),
        Err(Errno::NXIO) => return Ok(length..length),
        // Not every filesystem knows its holes.
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok(at..length),
        Err(error) => return Err(error.into()),
    };
    match seek(file, SeekFrom::Hole(start)) {
        Ok(end) if end > start => Ok(start..end.min(length)),
        // It has changed since, which the caller will see.
        Ok(_) | Err(Errno::NXIO) => Ok(start..length),
        Err(error) => Err(error.into()),
    }
}

fn hash_zeros(digest: &mut Sha256, mut bytes: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while bytes > 0 {
        let length = bytes.min(ZEROS.len() as u64);
        digest.update(&ZEROS[..usize::try_from(length).expect("a small number")]);
        bytes -= length;
    }
}

fn hash_data(digest: &mut Sha256, file: &File, data: Range<u64>, block: &mut [u8]) -> io::Result<()> {
    let mut at = data.start;
    while at < data.end {
        let length = usize::try_from(data.end - at)
            .unwrap_or(usize::MAX)
            .min(block.len());
        file.read_exact_at(&mut block[..length], at)?;
        digest.update(&block[..length]);
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn cache() -> (tempfile::TempDir, DigestCache) {
        let state = tempfile::tempdir().expect("a directory");
        let cache = DigestCache::settling(state.path(), Duration::ZERO);
        (state, cache)
    }

    fn digest(cache: &DigestCache, path: &Path) -> Digested {
        let file = File::open(path).expect("there");
        cache.digest(&file, path, true).expect("readable")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_sparse_file_has_the_digest_of_its_contents(
            pieces in proptest::collection::vec((0_u64..600_000, proptest::collection::vec(any::<u8>(), 0..5000)), 0..5),
            tail in 0_u64..300_000,
        ) {
            let mut file = tempfile::tempfile().expect("a file");
            let mut contents = Vec::new();
            for (gap, bytes) in &pieces {
                contents.resize(contents.len() + usize::try_from(*gap).expect("small"), 0);
                file.write_all_at(bytes, contents.len() as u64).expect("written");
                contents.extend_from_slice(bytes);
            }
            contents.resize(contents.len() + usize::try_from(tail).expect("small"), 0);
            file.set_len(contents.len() as u64).expect("grown");
            prop_assert_eq!(hash(&file).expect("readable"), Sha256Sum::of(&contents));
            prop_assert_eq!(io::Seek::stream_position(&mut file).expect("seekable"), 0);
        }
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let (state, cache) = cache();
        let path = state.path().join("file");
        fs::write(&path, "contents").expect("written");
        let first = digest(&cache, &path);
        assert_eq!(first.sum, Sha256Sum::of(b"contents"));
        assert!(!first.remembered);
        assert_eq!(
            digest(&cache, &path),
            Digested {
                remembered: true,
                ..first
            }
        );
        let file = File::open(&path).expect("there");
        assert!(!cache.digest(&file, &path, false).expect("readable").remembered);
    }

    #[test]
    fn a_change_is_seen_through_an_equal_size_and_a_restored_time() {
        let (state, cache) = cache();
        let path = state.path().join("file");
        fs::write(&path, "contents").expect("written");
        digest(&cache, &path);
        let modified = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .expect("known");
        // Longer than the step in which an older kernel counts time.
        std::thread::sleep(Duration::from_millis(20));
        let mut file = File::options().write(true).open(&path).expect("there");
        file.write_all(b"Contents").expect("written");
        file.set_modified(modified).expect("set");
        let second = digest(&cache, &path);
        assert!(!second.remembered);
        assert_eq!(second.sum, Sha256Sum::of(b"Contents"));
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let (state, _) = cache();
        let cache = DigestCache::new(state.path());
        let path = state.path().join("file");
        fs::write(&path, "contents").expect("written");
        assert!(!digest(&cache, &path).remembered);
        assert!(!digest(&cache, &path).remembered);

        let stamp = Stamp::of(&File::open(&path).expect("there")).expect("known");
        let changed = UNIX_EPOCH + Duration::new(stamp.changed.0 as u64, stamp.changed.1 as u32);
        for (after, settled) in [(1_999, false), (2_000, true)] {
            let now = changed + Duration::from_millis(after);
            assert_eq!(stamp.is_settled(now, DigestCache::SETTLE), settled, "{after} ms");
        }
        assert!(!stamp.is_settled(changed - Duration::from_secs(60), DigestCache::SETTLE));
    }

    #[test]
    fn a_cache_that_others_could_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let (state, cache) = cache();
        let path = state.path().join("file");
        fs::write(&path, "contents").expect("written");
        digest(&cache, &path);
        let directory = state.path().join(DigestCache::DIRECTORY);
        let entries = fresh::entries(&directory).expect("readable");
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!(
            fs::metadata(entry).expect("there").permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("changed");
        assert!(!digest(&cache, &path).remembered);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("changed");
        assert!(digest(&cache, &path).remembered);
        fs::set_permissions(entry, fs::Permissions::from_mode(0o622)).expect("changed");
        assert!(!digest(&cache, &path).remembered);
    }

    #[test]
    fn what_is_known_of_files_that_are_gone_is_dropped() {
        let (state, cache) = cache();
        let (kept, gone) = (state.path().join("kept"), state.path().join("gone"));
        for path in [&kept, &gone] {
            fs::write(path, "contents").expect("written");
            digest(&cache, path);
        }
        fs::remove_file(&gone).expect("removed");
        cache.sweep().expect("swept");
        let entries = fresh::entries(&state.path().join(DigestCache::DIRECTORY)).expect("readable");
        assert_eq!(entries.len(), 1);
        assert!(digest(&cache, &kept).remembered);
    }

    /// `cargo test -p image -- --ignored --nocapture throughput`
    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        const MIB: u64 = 1 << 20;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let block: Vec<u8> = (0..MIB).map(|at| ((at * 2_654_435_761) >> 7) as u8).collect();
        for _ in 0..256 {
            file.write_all(&block).expect("written");
        }
        file.as_file().set_len(1024 * MIB).expect("grown");
        file.as_file().sync_all().expect("written");
        let hole = tempfile::tempfile().expect("a file");
        hole.set_len(1024 * MIB).expect("grown");
        let dense = tempfile::tempfile().expect("a file");
        for at in 0..256 {
            dense.write_all_at(&block, at * MIB).expect("written");
        }
        for (name, file) in [
            ("dense 256", &dense),
            ("quarter of 1024", file.as_file()),
            ("hole 1024", &hole),
        ] {
            for _ in 0..3 {
                let start = std::time::Instant::now();
                hash(file).expect("readable");
                let seconds = start.elapsed().as_secs_f64();
                let mib = file.metadata().expect("there").len() / MIB;
                println!(
                    "{name} MiB: {:.0} ms, {:.0} MiB/s",
                    seconds * 1e3,
                    mib as f64 / seconds
                );
            }
        }
    }
}
