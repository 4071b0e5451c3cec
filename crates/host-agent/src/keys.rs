//! Where API keys are kept: one file each, so that making and reading them need no lock. Who changes one holds the directory's.
//!
//! ```text
//! api-keys/            for this user only
//! api-keys/<id>.json   an ApiKey; replaced as a whole
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use engine::admission::{ApiKey, Keys};
use protocol::{ErrorCode, HostError};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Below the state directory.
const DIRECTORY: &str = "api-keys";
/// The most that a key's file may have, in bytes.
const MAX_FILE: u64 = 16 << 10;
/// A directory that changed so lately may change again without its time telling (inode times are as coarse as the kernel's tick).
const SETTLED: Duration = Duration::from_secs(1);

/// The directory of keys.
pub(crate) struct Keyring {
    path: PathBuf,
    cached: Mutex<Option<(Stamp, Arc<Keys>)>>,
}

/// When, and which, the directory was that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Keyring {
    /// The keys below that state directory. Opens nothing yet.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            path: state.join(DIRECTORY),
            cached: Mutex::default(),
        }
    }

    /// All keys. What a file says that cannot be read or trusted is told, and its key does not exist: it opens nothing.
    ///
    /// # Errors
    /// The directory cannot be read or trusted.
    pub(crate) fn load(&self) -> Result<(Keys, Vec<String>), HostError> {
        let mut problems = Vec::new();
        if self.stamp()?.is_none() {
            return Ok((Keys::default(), problems));
        }
        let entries = fs::read_dir(&self.path).map_err(|error| self.unusable(&error))?;
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| self.unusable(&error))?.path();
            // What a killed process was still writing has another ending.
            if path.extension().is_some_and(|ending| ending == "json") {
                match read(&path) {
                    Ok(key) => keys.push(key),
                    // Removed meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    // That says nothing of the file.
                    Err(error) if is_of_the_host(&error) => return Err(self.unusable(&error)),
                    Err(error) => problems.push(format!("{}: {error}", path.display())),
                }
            }
        }
        Ok((keys.into_iter().collect(), problems))
    }

    /// All keys as they are now, without reading what has not changed.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub(crate) fn current(&self) -> Result<Arc<Keys>, HostError> {
        let Some(stamp) = self.stamp()? else {
            return Ok(Arc::default());
        };
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, keys)) = &*cached
            && *known == stamp
        {
            return Ok(Arc::clone(keys));
        }
        let (keys, problems) = self.load()?;
        for problem in problems {
            tracing::warn!("A key is not used: {problem}");
        }
        let keys = Arc::new(keys);
        *cached = stamp.is_settled().then(|| (stamp, Arc::clone(&keys)));
        Ok(keys)
    }

    /// Keeps others from changing keys, until it is dropped.
    ///
    /// # Errors
    /// There is no directory, or it cannot be locked.
    pub(crate) fn lock(&self) -> Result<File, HostError> {
        let lock = File::open(&self.path).and_then(|file| {
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        });
        lock.map_err(|error| self.unusable(&error))
    }

    /// Keeps a key, in place of one with its id.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn put(&self, key: &ApiKey) -> Result<(), HostError> {
        let write = || {
            let mut make = DirBuilder::new();
            make.recursive(true).mode(0o700).create(&self.path)?;
            let mut file = tempfile::Builder::new().prefix(&key.id).tempfile_in(&self.path)?;
            serde_json::to_writer(&mut file, key)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(self.path.join(format!("{}.json", key.id)))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| self.unusable(&error))?;
        self.stamp().map(drop)
    }

    /// None where there is no directory.
    fn stamp(&self) -> Result<Option<Stamp>, HostError> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&error)),
        };
        if !metadata.is_dir() {
            return Err(self.unusable(&"it is no directory"));
        }
        check(&metadata).map_err(|error| self.unusable(&error))?;
        Ok(Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }))
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> HostError {
        HostError::new(
            ErrorCode::StateUnusable,
            format!("cannot use the API keys in {}: {why}", self.path.display()),
        )
        .remedy("the directory and its files must belong to the user who runs host-agent, and nobody else may change them")
    }
}

impl Stamp {
    fn is_settled(self) -> bool {
        let changed = Duration::new(
            self.changed.0.try_into().unwrap_or_default(),
            self.changed.1.try_into().unwrap_or_default(),
        );
        since_epoch()
            .checked_sub(changed)
            .is_some_and(|age| age > SETTLED)
    }
}

/// Now.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Whether it is for want of something else that a file could not be read: descriptors, memory, a disk that works.
fn is_of_the_host(error: &io::Error) -> bool {
    let of_the_file = [Errno::LOOP, Errno::NXIO, Errno::ACCESS];
    Errno::from_io_error(error).is_some_and(|error| !of_the_file.contains(&error))
}

fn read(path: &Path) -> io::Result<ApiKey> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other("it is no file of a key"));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    let key: ApiKey = serde_json::from_slice(&text)?;
    if path.file_stem().is_some_and(|name| name == key.id.as_str()) {
        Ok(key)
    } else {
        Err(io::Error::other("it has the name of another key"))
    }
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to user {owner}")));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "others can write to it (mode {:04o})",
            metadata.mode() & 0o7777
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use engine::admission::{Allowance, Denied, KEY_BYTES, Scope, Tenant};

    use super::*;

    fn key(seed: u8) -> (ApiKey, String) {
        let scopes = BTreeSet::from([Scope::Execute]);
        ApiKey::new(
            &[seed; KEY_BYTES],
            Tenant::local(),
            scopes,
            Allowance::UNBOUNDED,
            since_epoch(),
            None,
        )
    }

    #[test]
    fn keys_are_kept_and_revoked_at_once() {
        let state = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(state.path());
        let (mut kept, shown) = key(1);
        let denied = |why| Err::<(), _>(why);
        let look = || {
            keyring
                .current()
                .unwrap()
                .check(&shown, Scope::Execute, since_epoch())
                .map(drop)
        };
        assert_eq!(look(), denied(Denied::Unknown));
        keyring.put(&kept).unwrap();
        assert_eq!(look(), Ok(()));
        kept.revoked = Some(1);
        keyring.put(&kept).unwrap();
        assert_eq!(look(), denied(Denied::Revoked));
        assert_eq!(fs::read_dir(state.path().join(DIRECTORY)).unwrap().count(), 1);
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let state = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(state.path());
        for seed in 1..4 {
            keyring.put(&key(seed).0).unwrap();
        }
        let file = |seed: u8| keyring.path.join(format!("{}.json", key(seed).0.id));
        fs::set_permissions(file(1), Permissions::from_mode(0o666)).unwrap();
        fs::write(file(2), "{").unwrap();
        fs::copy(file(3), file(4)).unwrap();
        let (keys, problems) = keyring.load().unwrap();
        assert_eq!((keys.iter().count(), problems.len()), (1, 3), "{problems:?}");
        fs::set_permissions(&keyring.path, Permissions::from_mode(0o777)).unwrap();
        let error = keyring.current().unwrap_err();
        assert_eq!(error.code, ErrorCode::StateUnusable);
        assert!(error.cause.contains("mode 0777"), "{error}");
    }
}
