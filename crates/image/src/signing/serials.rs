//! The highest serial number accepted of each snapshot, kept with the keys: whoever can only write snapshots cannot turn it back.

use std::collections::BTreeMap;

use super::{SigningError, SigningKeys};
use crate::fresh::publish_file;
use crate::guarded::{Access, Unsafe};

const FILE: &str = "serials.json";
const LIMIT: u64 = 16 * 1024 * 1024;

impl SigningKeys {
    /// The highest serial number accepted of the snapshot with this name; 0 before the first.
    pub(crate) fn newest_serial(&self, snapshot: &str) -> Result<u64, SigningError> {
        Ok(self.serials()?.get(snapshot).copied().unwrap_or_default())
    }

    /// Accepts that serial number, and from now on none below it. Says whether it did: it may have been overtaken.
    pub(crate) fn accept_serial(&self, snapshot: &str, serial: u64) -> Result<bool, SigningError> {
        let newest = self.newest_serial(snapshot)?;
        if serial <= newest {
            return Ok(serial == newest);
        }
        let _lock = self.lock()?;
        let mut serials = self.serials()?;
        let newest = serials.entry(snapshot.to_owned()).or_default();
        if serial > *newest {
            *newest = serial;
            let text = serde_json::to_vec_pretty(&serials).expect("a plain structure");
            publish_file(&self.path(FILE), &text, 0o600)?;
            return Ok(true);
        }
        Ok(serial == *newest)
    }

    fn serials(&self) -> Result<BTreeMap<String, u64>, SigningError> {
        let text = match self.read(&[], FILE, Access::Private, LIMIT) {
            Err(SigningError::Unsafe {
                reason: Unsafe::Missing,
                ..
            }) => return Ok(BTreeMap::new()),
            text => text?,
        };
        serde_json::from_slice(&text).map_err(|_| SigningError::Damaged {
            path: self.path(FILE),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn serials_only_rise() {
        let state = tempfile::tempdir().expect("a directory");
        let keys = SigningKeys::open(state.path());
        assert_eq!(keys.newest_serial("a").expect("readable"), 0);
        assert!(keys.accept_serial("a", 2).expect("written"));
        assert!(keys.accept_serial("a", 2).expect("written"));
        assert!(!keys.accept_serial("a", 1).expect("written"));
        assert!(keys.accept_serial("b", 1).expect("written"));
        assert_eq!(keys.newest_serial("a").expect("readable"), 2);
        fs::write(keys.path(FILE), "{").expect("written");
        assert!(matches!(
            keys.newest_serial("a"),
            Err(SigningError::Damaged { .. })
        ));
    }
}
