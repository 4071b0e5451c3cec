//! Who may bring jobs, and how many. Pure: keys are values, the caller brings the clock.
//!
//! A key is shown once, as `rc_<id>_<secret>`. What is kept is its SHA-256: the secret has 256 random bits, so nothing slower is
//! needed to keep it from being guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::queue::policy::Share;

const PREFIX: &str = "rc_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Bytes of randomness in a key.
pub const KEY_BYTES: usize = ID_BYTES + SECRET_BYTES;
/// The longest name of a tenant.
const MAX_TENANT: usize = 64;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To run code.
    Execute,
    /// To see what the service does.
    Observe,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 2] = [Self::Execute, Self::Observe];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("no scope is called {text}; there are execute and observe"))
    }
}

/// Whose jobs they are: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(String);

impl Tenant {
    /// Who is on this machine, and needs no key.
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

impl TryFrom<String> for Tenant {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
        if (1..=MAX_TENANT).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(format!(
                "a tenant's name has 1 to {MAX_TENANT} of a-z, 0-9, `-`, `_` and `.`"
            ))
        }
    }
}

impl FromStr for Tenant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.to_owned().try_into()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the jobs of a key may take. The key that was used last decides for its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Allowance {
    /// Its part of the machine time relative to other tenants'.
    pub weight: NonZeroU32,
    /// Jobs a minute, by this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// Jobs of its tenant that run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZeroUsize>,
    /// Jobs of its tenant that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<usize>,
    /// The longest timeout of a job, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_timeout: Option<f64>,
    /// The most memory of a job's machine, in MiB; otherwise what the service gives by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_mib: Option<u32>,
    /// The most virtual processors of a job's machine; otherwise what the service gives by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u8>,
}

impl Allowance {
    /// An equal part of the machine time, and no bounds of its own.
    pub const UNBOUNDED: Self = Self {
        weight: NonZeroU32::MIN,
        rate: None,
        jobs: None,
        queue: None,
        max_timeout: None,
        max_memory_mib: None,
        max_vcpus: None,
    };

    /// As the queue takes it.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            weight: self.weight,
            concurrent: self.jobs.map_or(usize::MAX, NonZeroUsize::get),
            capacity: self.queue.unwrap_or(usize::MAX),
        }
    }
}

/// A key as it is kept. Times are since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What it is called: 16 hexadecimal digits.
    pub id: String,
    /// SHA-256 of all of it, in hexadecimal digits.
    pub sha256: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// What for.
    pub scopes: BTreeSet<Scope>,
    /// What its jobs may take.
    pub allowance: Allowance,
    /// Since when there is one, in seconds.
    pub created: u64,
    /// From when on it is good no more, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Since when it is revoked, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}

impl ApiKey {
    /// A key made of random bytes, as it is kept, and as it is shown once.
    #[must_use]
    pub fn new(
        random: &[u8; KEY_BYTES],
        tenant: Tenant,
        scopes: BTreeSet<Scope>,
        allowance: Allowance,
        created: Duration,
        expires: Option<Duration>,
    ) -> (Self, String) {
        let (id, secret) = random.split_at(ID_BYTES);
        let id = hex(id);
        let shown = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let key = Self {
            sha256: hex(&Sha256::digest(&shown)),
            id,
            tenant,
            scopes,
            allowance,
            created: created.as_secs(),
            expires: expires.map(|at| at.as_secs()),
            revoked: None,
        };
        (key, shown)
    }

    /// Why it is good no more.
    fn lapsed(&self, now: Duration) -> Option<Denied> {
        let before = |limit: Option<u64>| limit.is_some_and(|at| at <= now.as_secs());
        // Whatever the clock says now.
        if self.revoked.is_some() {
            Some(Denied::Revoked)
        } else if before(self.expires) {
            Some(Denied::Expired)
        } else {
            None
        }
    }
}

/// Why a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("the request has no key")]
    Missing,
    /// It is none of ours.
    #[error("the key is unknown")]
    Unknown,
    /// It is good no more.
    #[error("the key has expired")]
    Expired,
    /// It was taken back.
    #[error("the key is revoked")]
    Revoked,
    /// It is for something else.
    #[error("the key may not {0}")]
    Scope(Scope),
}

/// All keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keys(BTreeMap<String, ApiKey>);

impl Keys {
    /// The key that `shown` is, if it may be used for `scope` at the time `now`.
    ///
    /// # Errors
    /// It may not. Only who has the secret learns more than that the key is unknown.
    pub fn check(&self, shown: &str, scope: Scope, now: Duration) -> Result<&ApiKey, Denied> {
        let id = shown.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
        let key = id.and_then(|id| self.0.get(id)).ok_or(Denied::Unknown)?;
        let sum = hex(&Sha256::digest(shown));
        if !bool::from(sum.as_bytes().ct_eq(key.sha256.as_bytes())) {
            return Err(Denied::Unknown);
        }
        if let Some(denied) = key.lapsed(now) {
            return Err(denied);
        }
        if key.scopes.contains(&scope) {
            Ok(key)
        } else {
            Err(Denied::Scope(scope))
        }
    }

    /// Whether any can be used at the time `now`.
    #[must_use]
    pub fn any_good(&self, now: Duration) -> bool {
        self.0.values().any(|key| key.lapsed(now).is_none())
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&ApiKey> {
        self.0.get(id)
    }
}

impl FromIterator<ApiKey> for Keys {
    fn from_iter<I: IntoIterator<Item = ApiKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn key(seed: u8, expires: Option<u64>) -> (ApiKey, String) {
        ApiKey::new(
            &[seed; KEY_BYTES],
            "acme".parse().unwrap(),
            BTreeSet::from([Scope::Execute]),
            Allowance::UNBOUNDED,
            NOW,
            expires.map(Duration::from_secs),
        )
    }

    #[test]
    fn only_the_whole_key_opens() {
        let (first, shown) = key(0xff, None);
        let (second, _) = key(7, None);
        let keys: Keys = [first.clone(), second].into_iter().collect();
        assert_eq!(keys.check(&shown, Scope::Execute, NOW), Ok(&first));
        assert_eq!(shown.len(), 3 + 16 + 1 + 43);
        assert!(!serde_json::to_string(&first).unwrap().contains(&shown[20..]));
        let other_secret = shown.replace("_____", "____A");
        for wrong in [
            "",
            "rc_",
            "rc__",
            &shown[..shown.len() - 1],
            &shown[3..],
            &other_secret,
            "rc_ffffffffffffffff_",
        ] {
            assert_eq!(
                keys.check(wrong, Scope::Execute, NOW),
                Err(Denied::Unknown),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_key_ends() {
        let (expiring, shown) = key(1, Some(1001));
        let keys: Keys = [expiring.clone()].into_iter().collect();
        assert!(keys.check(&shown, Scope::Execute, NOW).is_ok());
        assert_eq!(
            keys.check(&shown, Scope::Observe, NOW),
            Err(Denied::Scope(Scope::Observe))
        );
        let later = NOW + Duration::from_secs(1);
        assert_eq!(keys.check(&shown, Scope::Execute, later), Err(Denied::Expired));
        assert!(keys.any_good(NOW) && !keys.any_good(later));
        let revoked = ApiKey {
            revoked: Some(999),
            ..expiring
        };
        let keys: Keys = [revoked].into_iter().collect();
        assert_eq!(keys.check(&shown, Scope::Execute, NOW), Err(Denied::Revoked));
    }

    #[test]
    fn names_of_tenants_are_plain() {
        for good in ["a", "team-1", "x.y_z", &"a".repeat(64)] {
            assert!(good.parse::<Tenant>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "a/b", "é", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<Tenant>().is_err(), "{bad}");
        }
    }
}
