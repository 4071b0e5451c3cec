//! Where API keys are kept: one file each, so that making and reading them need no lock. Who changes one holds the directory's.
//!
//! ```text
//! api-keys/            for this user only
//! api-keys/<id>.json   an ApiKey; replaced as a whole
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use engine::admission::{ApiKey, Keys};
use image::guarded::{Access, Directory, lock_exclusive, private_directory};
use image::{Unsafe, publish_file};
use protocol::{ErrorCode, HostError};
use rustix::fs::{fstat, fsync};

/// Below the state directory.
const DIRECTORY: &str = "api-keys";
/// What the name of a key's file ends in. What a killed process was still writing has another ending.
const ENDING: &str = ".json";
/// The most that a key's file may have, in bytes.
const MAX_FILE: u64 = 16 << 10;
/// A directory that changed so lately may change again without its time telling (inode times are as coarse as the kernel's tick).
const SETTLED: Duration = Duration::from_secs(1);

/// The directory of keys.
pub(crate) struct Keyring {
    state: PathBuf,
    cached: Mutex<Option<(Stamp, Arc<Keys>)>>,
}

/// When, and which, the directory was that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: Duration,
}

impl Keyring {
    /// The keys below that state directory. Opens nothing yet.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            cached: Mutex::default(),
        }
    }

    /// All keys. What a file says that cannot be trusted is told, and its key does not exist: it opens nothing.
    ///
    /// # Errors
    /// The directory or a file cannot be read, or the directory not be trusted.
    pub(crate) fn load(&self) -> Result<(Keys, Vec<String>), HostError> {
        match self.open()? {
            Some(directory) => self.load_from(&directory),
            None => Ok((Keys::default(), Vec::new())),
        }
    }

    fn load_from(&self, directory: &Directory) -> Result<(Keys, Vec<String>), HostError> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(self.path()).map_err(|error| self.unusable(&error))? {
            let name = entry.map_err(|error| self.unusable(&error))?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(ENDING)) else {
                continue;
            };
            match read(directory, name) {
                Ok(key) => keys.push(key),
                // Removed meanwhile.
                Err(Wrong::File(Unsafe::Missing)) => {}
                // That says nothing of the file: descriptors, memory or a disk that works may be missing.
                Err(Wrong::File(Unsafe::Io(error))) => return Err(self.unusable(&error)),
                Err(wrong) => problems.push(format!("{name}: {wrong}")),
            }
        }
        Ok((keys.into_iter().collect(), problems))
    }

    /// All keys as they are now, without reading what has not changed.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub(crate) fn current(&self) -> Result<Arc<Keys>, HostError> {
        let Some(directory) = self.open()? else {
            return Ok(Arc::default());
        };
        let stamp = Stamp::of(&directory).map_err(|error| self.unusable(&error))?;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, keys)) = &*cached
            && *known == stamp
        {
            return Ok(Arc::clone(keys));
        }
        let (keys, problems) = self.load_from(&directory)?;
        for problem in problems {
            tracing::warn!("A key is not used: {problem}");
        }
        let keys = Arc::new(keys);
        *cached = stamp.is_settled().then(|| (stamp, Arc::clone(&keys)));
        Ok(keys)
    }

    /// Keeps others from changing keys, until it is dropped. None where there are no keys.
    ///
    /// # Errors
    /// The directory cannot be trusted or locked.
    pub(crate) fn lock(&self) -> Result<Option<Directory>, HostError> {
        let directory = self.open()?;
        if let Some(directory) = &directory {
            lock_exclusive(directory).map_err(|error| self.unusable(&error))?;
        }
        Ok(directory)
    }

    /// Keeps a key, in place of one with its id.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn put(&self, key: &ApiKey) -> Result<(), HostError> {
        private_directory(&self.state, &[DIRECTORY])?;
        let directory = self.open()?;
        let text = serde_json::to_vec(key).map_err(|error| self.unusable(&error))?;
        publish_file(&self.path().join(format!("{}{ENDING}", key.id)), &text, 0o600)?;
        // A key that was taken back stays so, also if the power fails now.
        directory
            .map_or(Ok(()), fsync)
            .map_err(|error| self.unusable(&error))
    }

    fn path(&self) -> PathBuf {
        self.state.join(DIRECTORY)
    }

    /// None where there is no directory.
    fn open(&self) -> Result<Option<Directory>, HostError> {
        match Directory::open(&self.path(), Access::Private) {
            Ok(directory) => Ok(Some(directory)),
            Err(Unsafe::Missing) => Ok(None),
            Err(error) => Err(self.unusable(&error)),
        }
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> HostError {
        HostError::new(
            ErrorCode::StateUnusable,
            format!("cannot use the API keys in {}: {why}", self.path().display()),
        )
        .remedy(
            "the directory and its files must belong to the user who runs host-agent, and be for nobody else",
        )
    }
}

impl Stamp {
    fn of(directory: &Directory) -> rustix::io::Result<Self> {
        let stat = fstat(directory)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: Duration::new(
                stat.st_mtime.try_into().unwrap_or_default(),
                stat.st_mtime_nsec.try_into().unwrap_or_default(),
            ),
        })
    }

    fn is_settled(self) -> bool {
        let age = since_epoch().checked_sub(self.changed);
        age.is_some_and(|age| age > SETTLED)
    }
}

/// Now.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Why a file is no key.
#[derive(Debug)]
enum Wrong {
    File(Unsafe),
    Text(serde_json::Error),
    Name,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Text(error) => error.fmt(f),
            Self::Name => f.write_str("it has the name of another key"),
        }
    }
}

fn read(directory: &Directory, name: &str) -> Result<ApiKey, Wrong> {
    let text = directory
        .read(name, Access::Private, MAX_FILE)
        .map_err(Wrong::File)?;
    let key: ApiKey = serde_json::from_slice(&text).map_err(Wrong::Text)?;
    if name.strip_suffix(ENDING) == Some(&key.id) {
        Ok(key)
    } else {
        Err(Wrong::Name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, Permissions};
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
        let file = |seed: u8| keyring.path().join(format!("{}.json", key(seed).0.id));
        fs::set_permissions(file(1), Permissions::from_mode(0o666)).unwrap();
        fs::write(file(2), "{").unwrap();
        fs::copy(file(3), file(4)).unwrap();
        let (keys, problems) = keyring.load().unwrap();
        assert_eq!((keys.iter().count(), problems.len()), (1, 3), "{problems:?}");
        fs::set_permissions(keyring.path(), Permissions::from_mode(0o777)).unwrap();
        let error = keyring.current().unwrap_err();
        assert_eq!(error.code, ErrorCode::StateUnusable);
        assert!(error.cause.contains("mode 0777"), "{error}");
    }
}
