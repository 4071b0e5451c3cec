//! The keys that snapshots are signed with. One secret key signs; every public key in `trusted/` is believed, the own one among them,
//! so that checking a signature never touches the secret.
//!
//! ```text
//! keys/                 for this user only
//! keys/signing.key      the secret, `ed25519-seed:` and 64 hexadecimal digits
//! keys/trusted/<id>.pub `ed25519:` and 64 hexadecimal digits
//! keys/serials.json     the highest serial number accepted, by snapshot: an older snapshot is a replay
//! keys/lock             held while any of this changes
//! ```

mod serials;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use protocol::{ErrorCode, HostError};
use rustix::fs::{Mode, OFlags, openat};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ImageError;
use crate::error::full_cause;
use crate::fresh::{self, publish_file};
use crate::guarded::{Access, Directory, Unsafe, lock_exclusive, private_directory};
use crate::initramfs::hex;
use crate::sum::{NotHexadecimal, Sha256Sum, unhex};

const DIRECTORY: &str = "keys";
const SECRET: &str = "signing.key";
const TRUSTED: &str = "trusted";
const LOCK: &str = "lock";
const SECRET_PREFIX: &str = "ed25519-seed:";
const PUBLIC_PREFIX: &str = "ed25519:";
const SIGNATURE_PREFIX: &str = "ed25519-signature:";
const MAX_KEY_FILE: u64 = 1024;

/// A public Ed25519 key. Written as `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// What it is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Sha256Sum::of(self.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_bytes()[..8]);
        KeyId(id)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", hex(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = SigningError;

    /// White space around it does not matter.
    fn from_str(text: &str) -> Result<Self, SigningError> {
        let key = text
            .trim()
            .strip_prefix(PUBLIC_PREFIX)
            .and_then(unhex)
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        match key {
            // Anybody can sign for such a key.
            Some(key) if key.is_weak() => Err(SigningError::NotAKey),
            Some(key) => Ok(Self(key)),
            None => Err(SigningError::NotAKey),
        }
    }
}

/// A public key's name: the first 16 hexadecimal digits of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = NotHexadecimal;

    fn from_str(text: &str) -> Result<Self, NotHexadecimal> {
        unhex(text).map(Self).ok_or(NotHexadecimal { digits: 16 })
    }
}

impl TryFrom<String> for KeyId {
    type Error = NotHexadecimal;

    fn try_from(text: String) -> Result<Self, NotHexadecimal> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// An Ed25519 signature and whose it claims to be. Written as `ed25519-signature:`, the key's id, `:` and 128 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The signer's.
    pub key: KeyId,
    bytes: [u8; 64],
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SIGNATURE_PREFIX}{}:{}", self.key, hex(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = NotHexadecimal;

    fn from_str(text: &str) -> Result<Self, NotHexadecimal> {
        let (key, bytes) = text
            .strip_prefix(SIGNATURE_PREFIX)
            .and_then(|rest| rest.split_once(':'))
            .ok_or(NotHexadecimal { digits: 128 })?;
        let key = key.parse()?;
        let bytes = unhex(bytes).ok_or(NotHexadecimal { digits: 128 })?;
        Ok(Self { key, bytes })
    }
}

/// Why a key cannot be made, read or believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// There is no signing key yet.
    #[error("There is no signing key at {path}")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is one already.
    #[error("There is a signing key at {path} already")]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Others could have read or changed a file that only this user may.
    #[error("{path} cannot be used: {reason}")]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: Unsafe,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A text is no public key.
    #[error("That is no public Ed25519 key")]
    NotAKey,
    /// No trusted key has that id.
    #[error("The key {id} is not trusted here")]
    NotTrusted {
        /// The key's.
        id: KeyId,
    },
    /// Whoever signs cannot be distrusted.
    #[error("The key {id} signs here")]
    OwnKey {
        /// The key's.
        id: KeyId,
    },
    /// A signature is not that key's, or not of these bytes.
    #[error("The signature is not that of the key {id}")]
    BadSignature {
        /// The key's.
        id: KeyId,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] ImageError),
}

impl SigningError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("run `host-agent signing-key create`".to_owned()),
            Self::Exists { .. } | Self::OwnKey { .. } => {
                Some("run `host-agent signing-key rotate`".to_owned())
            }
            Self::Unsafe {
                path,
                reason: Unsafe::Readable { .. } | Unsafe::Writable { .. },
            } => Some(format!(
                "run `chmod go= {}`; if others could have read a secret, also `host-agent signing-key rotate`",
                path.display()
            )),
            Self::Damaged { path } => Some(format!("restore {} from a backup, or remove it", path.display())),
            Self::NotAKey => Some("give the line that `host-agent signing-key show` prints".to_owned()),
            Self::NotTrusted { .. } => {
                Some("run `host-agent signing-key trust KEY` if it is from a host that you trust".to_owned())
            }
            _ => None,
        }
    }
}

impl From<SigningError> for HostError {
    fn from(error: SigningError) -> Self {
        let (remedy, cause) = (error.remedy(), full_cause(&error));
        let host = match error {
            SigningError::File(error) => return error.into(),
            SigningError::NotAKey => Self::new(ErrorCode::InvalidRequest, cause),
            _ => Self::new(ErrorCode::SigningKeyUnusable, cause),
        };
        match remedy {
            Some(remedy) => host.remedy(remedy),
            None => host,
        }
    }
}

/// What [`SigningKeys::rotate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The key that no longer signs.
    pub old: PublicKey,
    /// The key that does from now on.
    pub new: PublicKey,
}

/// The keys of a store. Opening them touches nothing.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    state: PathBuf,
}

impl SigningKeys {
    /// Those in that state directory, which is a [`crate::Store`]'s.
    #[must_use]
    pub fn open(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into() }
    }

    /// Makes the signing key.
    ///
    /// # Errors
    /// When there is one, whatever it is like, or it cannot be written.
    pub fn create(&self) -> Result<PublicKey, SigningError> {
        let _lock = self.lock()?;
        self.create_locked()
    }

    /// The signing key's public half, after making the key if there is none.
    ///
    /// # Errors
    /// When it is there but unusable, or cannot be written.
    pub fn ensure(&self) -> Result<PublicKey, SigningError> {
        match self.public() {
            Err(SigningError::Missing { .. }) => {}
            result => return result,
        }
        let _lock = self.lock()?;
        match self.public() {
            Err(SigningError::Missing { .. }) => self.create_locked(),
            result => result,
        }
    }

    /// The signing key's public half: what another host is to trust.
    ///
    /// # Errors
    /// When there is none or it is unusable.
    pub fn public(&self) -> Result<PublicKey, SigningError> {
        Ok(PublicKey(self.secret()?.verifying_key()))
    }

    /// Makes a new signing key. The old one's signatures stay good unless `drop_old`.
    ///
    /// # Errors
    /// When there is no signing key, or the new one cannot be written.
    pub fn rotate(&self, drop_old: bool) -> Result<Rotated, SigningError> {
        let _lock = self.lock()?;
        let old = self.public()?;
        let new = self.write_new()?;
        if drop_old {
            fresh::remove(&self.trusted_path(old.id()))?;
        }
        Ok(Rotated { old, new })
    }

    /// Believes a public key, as `host-agent signing-key show` prints it on the host that signs with it.
    ///
    /// # Errors
    /// When that is none, or it cannot be written.
    pub fn trust(&self, public: &str) -> Result<KeyId, SigningError> {
        let key: PublicKey = public.parse()?;
        let _lock = self.lock()?;
        self.write_trusted(&key)?;
        Ok(key.id())
    }

    /// Believes a key no longer.
    ///
    /// # Errors
    /// When it is not trusted anyway, or it is the key that signs.
    pub fn untrust(&self, id: KeyId) -> Result<(), SigningError> {
        let _lock = self.lock()?;
        if self.public().is_ok_and(|own| own.id() == id) {
            return Err(SigningError::OwnKey { id });
        }
        let path = self.trusted_path(id);
        if !path.try_exists().map_err(ImageError::io("read", &path))? {
            return Err(SigningError::NotTrusted { id });
        }
        Ok(fresh::remove(&path)?)
    }

    /// All keys that are believed, by id.
    ///
    /// # Errors
    /// When one of them is unusable.
    pub fn trusted(&self) -> Result<Vec<PublicKey>, SigningError> {
        let mut keys = Vec::new();
        for path in fresh::entries(&self.path(TRUSTED))? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Some(Ok(id)) = name.strip_suffix(".pub").map(KeyId::from_str) {
                keys.push(self.trusted_key(id)?);
            }
        }
        Ok(keys)
    }

    /// Signs `message` as being of the kind `domain`, so that it cannot be passed off as another kind.
    ///
    /// # Errors
    /// When there is no signing key or it is unusable.
    pub fn sign(&self, domain: &str, message: &[u8]) -> Result<Signature, SigningError> {
        let key = self.secret()?;
        Ok(Signature {
            key: PublicKey(key.verifying_key()).id(),
            bytes: key.sign(&with_domain(domain, message)).to_bytes(),
        })
    }

    /// That the signature is of `message`, as the kind `domain`, by the trusted key that it names.
    ///
    /// # Errors
    /// When it is not, or that key is not trusted or unusable.
    pub fn verify(&self, domain: &str, message: &[u8], signature: &Signature) -> Result<(), SigningError> {
        let key = self.trusted_key(signature.key)?;
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        key.0
            .verify_strict(&with_domain(domain, message), &bytes)
            .map_err(|_| SigningError::BadSignature { id: signature.key })
    }

    fn create_locked(&self) -> Result<PublicKey, SigningError> {
        let path = self.path(SECRET);
        if path.symlink_metadata().is_ok() {
            return Err(SigningError::Exists { path });
        }
        self.write_new()
    }

    /// The public half first: a signature that nobody can check would be of no use.
    fn write_new(&self) -> Result<PublicKey, SigningError> {
        let seed = random_seed()?;
        let public = PublicKey(SigningKey::from_bytes(&seed).verifying_key());
        self.write_trusted(&public)?;
        let text = Zeroizing::new(format!("{SECRET_PREFIX}{}\n", *Zeroizing::new(hex(&*seed))));
        publish_file(&self.path(SECRET), text.as_bytes(), 0o600)?;
        Ok(public)
    }

    fn secret(&self) -> Result<SigningKey, SigningError> {
        let path = self.path(SECRET);
        let text = match self.read(&[], SECRET, Access::Private, MAX_KEY_FILE) {
            Err(SigningError::Unsafe {
                reason: Unsafe::Missing,
                ..
            }) => return Err(SigningError::Missing { path }),
            text => Zeroizing::new(text?),
        };
        let seed = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().strip_prefix(SECRET_PREFIX))
            .and_then(unhex);
        let seed = Zeroizing::new(seed.ok_or(SigningError::Damaged { path })?);
        Ok(SigningKey::from_bytes(&seed))
    }

    fn write_trusted(&self, key: &PublicKey) -> Result<(), SigningError> {
        private_directory(&self.state, &[DIRECTORY, TRUSTED])?;
        Ok(publish_file(
            &self.trusted_path(key.id()),
            format!("{key}\n").as_bytes(),
            0o600,
        )?)
    }

    fn trusted_key(&self, id: KeyId) -> Result<PublicKey, SigningError> {
        let text = match self.read(&[TRUSTED], &format!("{id}.pub"), Access::Shared, MAX_KEY_FILE) {
            Err(SigningError::Unsafe {
                reason: Unsafe::Missing,
                ..
            }) => return Err(SigningError::NotTrusted { id }),
            text => text?,
        };
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse::<PublicKey>().ok())
            .filter(|key| key.id() == id)
            .ok_or(SigningError::Damaged {
                path: self.trusted_path(id),
            })
    }

    /// Reads `name` in the directory `below` the keys', each of them checked.
    fn read(&self, below: &[&str], name: &str, access: Access, limit: u64) -> Result<Vec<u8>, SigningError> {
        let mut path = self.state.join(DIRECTORY);
        let mut directory = Directory::open(&path, Access::Private);
        for name in below {
            directory = directory
                .map_err(|reason| unsafe_file(&path, reason))?
                .directory(name, access);
            path.push(name);
        }
        let directory = directory.map_err(|reason| unsafe_file(&path, reason))?;
        directory
            .read(name, access, limit)
            .map_err(|reason| unsafe_file(&path.join(name), reason))
    }

    /// Held while keys or serial numbers change. Released when dropped.
    fn lock(&self) -> Result<File, SigningError> {
        private_directory(&self.state, &[DIRECTORY])?;
        let directory = self.state.join(DIRECTORY);
        let path = directory.join(LOCK);
        let directory =
            Directory::open(&directory, Access::Private).map_err(|reason| unsafe_file(&directory, reason))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&directory, LOCK, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| ImageError::from_io("open", &path, error.into()))?;
        lock_exclusive(&file).map_err(ImageError::io("lock", &path))?;
        Ok(file.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join(DIRECTORY).join(name)
    }

    fn trusted_path(&self, id: KeyId) -> PathBuf {
        self.path(TRUSTED).join(format!("{id}.pub"))
    }
}

fn unsafe_file(path: &Path, reason: Unsafe) -> SigningError {
    SigningError::Unsafe {
        path: path.to_owned(),
        reason,
    }
}

/// No domain ends in another one's beginning: each is a line.
fn with_domain(domain: &str, message: &[u8]) -> Vec<u8> {
    debug_assert!(!domain.contains('\n'), "a domain is one line");
    [domain.as_bytes(), b"\n", message].concat()
}

fn random_seed() -> Result<Zeroizing<[u8; 32]>, SigningError> {
    let mut seed = Zeroizing::new([0; 32]);
    let mut filled = 0;
    while filled < seed.len() {
        filled += getrandom(&mut seed[filled..], GetRandomFlags::empty())
            .map_err(|error| ImageError::from_io("read", Path::new("/dev/random"), error.into()))?;
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "test v1";

    fn keys() -> (tempfile::TempDir, SigningKeys) {
        let state = tempfile::tempdir().expect("a directory");
        let keys = SigningKeys::open(state.path().join("state"));
        (state, keys)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }

    #[test]
    fn a_key_is_made_once_and_for_this_user_only() {
        let (_state, keys) = keys();
        assert!(matches!(keys.public(), Err(SigningError::Missing { .. })));
        let made = keys.create().expect("made");
        assert!(matches!(keys.create(), Err(SigningError::Exists { .. })));
        assert_eq!(keys.ensure().expect("there"), made);
        assert_eq!(keys.trusted().expect("readable"), [made]);
        assert_eq!(mode(&keys.path("")), 0o700);
        assert_eq!(mode(&keys.path(SECRET)), 0o600);
        let secret = fs::read_to_string(keys.path(SECRET)).expect("readable");
        assert_eq!(secret.len(), SECRET_PREFIX.len() + 64 + 1);
        assert!(!format!("{keys:?}{made:?}").contains(&secret[SECRET_PREFIX.len()..secret.len() - 1]));
    }

    #[test]
    fn two_at_once_make_one_key() {
        let (_state, keys) = keys();
        let made: Vec<PublicKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| keys.ensure().expect("made")))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(made.iter().all(|key| *key == made[0]));
        assert_eq!(keys.trusted().expect("readable").len(), 1);
    }

    #[test]
    fn a_signature_is_of_one_key_one_domain_and_one_message() {
        let (_state, own) = keys();
        own.create().expect("made");
        let signature = own.sign(DOMAIN, b"message").expect("signed");
        own.verify(DOMAIN, b"message", &signature).expect("good");
        for (domain, message) in [
            (DOMAIN, &b"Message"[..]),
            ("test v2", b"message"),
            ("test", b"v1message"),
        ] {
            let error = own.verify(domain, message, &signature).expect_err("another");
            assert!(matches!(error, SigningError::BadSignature { .. }), "{error}");
        }

        let (_state, other) = keys();
        other.create().expect("made");
        let error = other
            .verify(DOMAIN, b"message", &signature)
            .expect_err("a stranger's");
        assert!(matches!(error, SigningError::NotTrusted { .. }), "{error}");
        let forged = Signature {
            key: other.public().expect("there").id(),
            ..signature
        };
        let error = other.verify(DOMAIN, b"message", &forged).expect_err("a forgery");
        assert!(matches!(error, SigningError::BadSignature { .. }), "{error}");
    }

    #[test]
    fn a_rotated_key_stays_good_unless_it_is_dropped() {
        let (_state, keys) = keys();
        keys.create().expect("made");
        let first = keys.sign(DOMAIN, b"message").expect("signed");
        let rotated = keys.rotate(false).expect("rotated");
        assert_eq!(rotated.old.id(), first.key);
        keys.verify(DOMAIN, b"message", &first).expect("still good");
        let second = keys.sign(DOMAIN, b"message").expect("signed");
        assert_eq!(second.key, rotated.new.id());

        keys.rotate(true).expect("rotated");
        keys.verify(DOMAIN, b"message", &first)
            .expect("only the last one is dropped");
        let error = keys.verify(DOMAIN, b"message", &second).expect_err("dropped");
        assert!(matches!(error, SigningError::NotTrusted { .. }), "{error}");
    }

    #[test]
    fn another_hosts_key_is_trusted_until_it_is_not() {
        let (_state, own) = keys();
        let (_other_state, other) = keys();
        own.create().expect("made");
        other.create().expect("made");
        let signature = other.sign(DOMAIN, b"message").expect("signed");
        let id = own
            .trust(&format!("{}\n", other.public().expect("there")))
            .expect("a key");
        own.verify(DOMAIN, b"message", &signature).expect("trusted");
        own.untrust(id).expect("it was");
        assert!(own.verify(DOMAIN, b"message", &signature).is_err());
        assert!(matches!(own.untrust(id), Err(SigningError::NotTrusted { .. })));
        let own_id = own.public().expect("there").id();
        assert!(matches!(own.untrust(own_id), Err(SigningError::OwnKey { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (_state, keys) = keys();
        let weak = format!("ed25519:01{}", "0".repeat(62));
        let no_point = format!("ed25519:02{}", "0".repeat(62));
        for text in ["", "ed25519:", "ed25519:00", &weak, &no_point, "../../etc/passwd"] {
            let error = keys.trust(text).expect_err(text);
            assert!(matches!(error, SigningError::NotAKey), "{text}: {error}");
        }
    }

    #[test]
    fn key_files_that_others_could_read_or_change_are_refused() {
        let (_state, keys) = keys();
        let id = keys.create().expect("made").id();
        let signature = keys.sign(DOMAIN, b"message").expect("signed");
        let secret = keys.path(SECRET);
        set_mode(&secret, 0o640);
        let error: HostError = keys.sign(DOMAIN, b"message").expect_err("readable").into();
        assert_eq!(error.code, ErrorCode::SigningKeyUnusable);
        assert!(error.cause.contains("others can read it (mode 0640)"), "{error}");
        assert!(matches!(keys.create(), Err(SigningError::Exists { .. })));
        assert!(matches!(keys.ensure(), Err(SigningError::Unsafe { .. })));

        let real = keys.path("real");
        set_mode(&secret, 0o600);
        fs::rename(&secret, &real).expect("moved");
        symlink(&real, &secret).expect("linked");
        let error = keys.public().expect_err("a link");
        assert!(error.to_string().contains("symbolic link"), "{error}");

        let trusted = keys.trusted_path(id);
        set_mode(&trusted, 0o602);
        let error = keys.verify(DOMAIN, b"message", &signature).expect_err("writable");
        assert!(error.to_string().contains("others can write to it"), "{error}");
        set_mode(&trusted, 0o644);
        keys.verify(DOMAIN, b"message", &signature).expect("good");
        set_mode(&keys.path(""), 0o755);
        let error = keys
            .verify(DOMAIN, b"message", &signature)
            .expect_err("open to all");
        assert!(error.to_string().contains("keys"), "{error}");
    }

    #[test]
    fn a_key_under_another_keys_name_is_damage() {
        let (_state, own) = keys();
        let (_other_state, other) = keys();
        let id = own.create().expect("made").id();
        let signature = own.sign(DOMAIN, b"message").expect("signed");
        fs::write(own.trusted_path(id), other.create().expect("made").to_string()).expect("written");
        let error = own
            .verify(DOMAIN, b"message", &signature)
            .expect_err("another key");
        assert!(matches!(error, SigningError::Damaged { .. }), "{error}");
        for damage in ["", "ed25519-seed:00", "\u{0}"] {
            fs::write(own.path(SECRET), damage).expect("written");
            assert!(
                matches!(own.public(), Err(SigningError::Damaged { .. })),
                "{damage:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn signatures_survive_being_written(key: [u8; 8], low: [u8; 32], high: [u8; 32]) {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&low);
            bytes[32..].copy_from_slice(&high);
            let signature = Signature { key: KeyId(key), bytes };
            prop_assert_eq!(signature.to_string().parse::<Signature>(), Ok(signature));
        }

        #[test]
        fn no_text_makes_parsing_a_key_fall_over(text in "(ed25519:)?[0-9a-f]{0,70}") {
            let _ = text.parse::<PublicKey>();
            let _ = text.parse::<Signature>();
        }
    }
}
