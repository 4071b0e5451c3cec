//! User ids for VMMs: each machine has one that no other machine of this host has at the time.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::state::RuntimeDir;

/// User ids, and group ids of the same number, that are this program's to give to VMMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    last: u32,
}

impl UidRange {
    /// The range, if it has an id that is neither root's nor nobody's (-1 stands for "unchanged" in chown(2)).
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (first > 0 && first <= last && last < u32::MAX).then_some(Self { first, last })
    }
}

/// Above the ids that systemd gives to services and containers, and far above subordinate ids (systemd's `UIDS-GIDS.md`,
/// subuid(5)).
impl Default for UidRange {
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            last: 0x7000_ffff,
        }
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// `FIRST-LAST`.
impl FromStr for UidRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = || {
            let (first, last) = text.split_once('-')?;
            Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
        };
        range().ok_or_else(|| format!("{text:?} is no range of user ids such as {}", Self::default()))
    }
}

/// An id that is this process's until it is dropped, or dies.
#[derive(Debug)]
pub(crate) struct UidLease {
    uid: u32,
    _lock: File,
}

impl UidLease {
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }
}

/// Takes the lowest id that is free. Whatever directories its machines are in, a process finds the locks at the same place.
pub(super) fn lease(range: UidRange) -> Result<UidLease, (&'static str, io::Error)> {
    lease_in(range, &RuntimeDir::default_path().join("uids"))
        .map_err(|error| ("Cannot take a user id", error))
}

fn lease_in(range: UidRange, locks: &PathBuf) -> io::Result<UidLease> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
    for uid in range.first..=range.last {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(locks.join(uid.to_string()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(UidLease { uid, _lock: lock }),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::other(format!("all of {range} are taken")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_have_the_same_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("uids");
        let range: UidRange = "1000-1001".parse().unwrap();
        let first = lease_in(range, &locks).unwrap();
        let second = lease_in(range, &locks).unwrap();
        assert_eq!((first.uid, second.uid), (1000, 1001));
        let none = lease_in(range, &locks).unwrap_err();
        assert_eq!(none.to_string(), "all of 1000-1001 are taken");
        drop(first);
        assert_eq!(lease_in(range, &locks).unwrap().uid, 1000);
    }

    #[test]
    fn root_is_in_no_range() {
        for text in ["0-5", "7-6", "5", "-", "1-4294967295", "a-b", ""] {
            assert!(text.parse::<UidRange>().is_err(), "{text}");
        }
        let default = UidRange::default();
        assert_eq!(default.to_string().parse(), Ok(default));
    }
}
