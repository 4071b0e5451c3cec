//! Answers that are kept for who asks again with the same key. Pure: the caller brings the clock and what an answer is.
//!
//! ```text
//! begin ─► First ── runs ─► finish: kept for a while ─► forgotten: too old, or too many, the oldest first
//!   │                  └──► forget: it did not run
//!   ├────► Known: the same request runs, or has run
//!   └────► Other, Full
//! ```
//!
//! What is kept is bounded for each tenant, so that nobody's answers push out another's until all tenants together are at the
//! bound; then the one that has most gives way.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// How often tenants are looked at that do not come any more.
const SWEEP: Duration = Duration::from_secs(60);

/// What a request says, as SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a request, as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn of(request: &impl Serialize) -> Result<Self, serde_json::Error> {
        struct Hashing(Sha256);
        impl Write for Hashing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut hashing = Hashing(Sha256::new());
        serde_json::to_writer(&mut hashing, request)?;
        Ok(Self(hashing.0.finalize().into()))
    }
}

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys of all tenants.
    pub keys: usize,
    /// Keys of one tenant.
    pub tenant_keys: usize,
    /// Answers of all tenants, in bytes.
    pub bytes: usize,
    /// Answers of one tenant, in bytes.
    pub tenant_bytes: usize,
    /// From the end of the job.
    pub keep: Duration,
}

/// What to do with a request that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun<A> {
    /// Run it, then [`Answers::finish`] or [`Answers::forget`] it.
    First(A),
    /// It runs or has run; this is its answer.
    Known(A),
    /// The key is that of another request.
    Other,
    /// As many requests with a key run as there may be.
    Full,
}

/// The answers. `T` names a tenant, `A` is an answer that is there or will be.
#[derive(Debug)]
pub struct Answers<T, A> {
    limits: Limits,
    tenants: BTreeMap<T, Tenant<A>>,
    keys: usize,
    bytes: usize,
    finished: u64,
    swept: Duration,
}

#[derive(Debug)]
struct Tenant<A> {
    entries: HashMap<String, Entry<A>>,
    /// In the order in which they ended.
    finished: BTreeMap<u64, String>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<A> {
    fingerprint: Fingerprint,
    answer: A,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    order: u64,
    at: Duration,
    bytes: usize,
}

impl<T: Ord + Clone, A: Clone> Answers<T, A> {
    /// None yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            tenants: BTreeMap::new(),
            keys: 0,
            bytes: 0,
            finished: 0,
            swept: Duration::ZERO,
        }
    }

    /// How many keys are kept.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// A request of `tenant` with that key. `answer` is where its answer will be, if it is the first.
    pub fn begin(
        &mut self,
        now: Duration,
        tenant: &T,
        key: &str,
        fingerprint: Fingerprint,
        answer: impl FnOnce() -> A,
    ) -> Begun<A> {
        self.expire(now, tenant);
        let own = self.tenants.get(tenant);
        if let Some(entry) = own.and_then(|own| own.entries.get(key)) {
            return if entry.fingerprint == fingerprint {
                Begun::Known(entry.answer.clone())
            } else {
                Begun::Other
            };
        }
        let own_keys = own.map_or(0, |own| own.entries.len());
        if own_keys >= self.limits.tenant_keys && !self.forget_oldest(tenant) {
            return Begun::Full;
        }
        if self.keys >= self.limits.keys && !self.forget_of_largest(|own| own.finished.len()) {
            return Begun::Full;
        }
        let answer = answer();
        let own = self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant {
            entries: HashMap::new(),
            finished: BTreeMap::new(),
            bytes: 0,
        });
        let entry = Entry {
            fingerprint,
            answer: answer.clone(),
            end: None,
        };
        own.entries.insert(key.to_owned(), entry);
        self.keys += 1;
        Begun::First(answer)
    }

    /// A request that [began](Begun::First) has an answer of so many bytes now.
    pub fn finish(&mut self, now: Duration, tenant: &T, key: &str, bytes: usize) {
        let order = self.finished;
        let Some(own) = self.tenants.get_mut(tenant) else {
            return;
        };
        let Some(entry) = own.entries.get_mut(key).filter(|entry| entry.end.is_none()) else {
            return;
        };
        entry.end = Some(End {
            order,
            at: now,
            bytes,
        });
        own.finished.insert(order, key.to_owned());
        own.bytes += bytes;
        self.bytes += bytes;
        self.finished += 1;
        while self
            .tenants
            .get(tenant)
            .is_some_and(|own| own.bytes > self.limits.tenant_bytes)
            && self.forget_oldest(tenant)
        {}
        while self.bytes > self.limits.bytes && self.forget_of_largest(|own| own.bytes) {}
    }

    /// A request did not run after all: the next with its key is the first again.
    pub fn forget(&mut self, tenant: &T, key: &str) {
        let Some(own) = self.tenants.get_mut(tenant) else {
            return;
        };
        let Some(entry) = own.entries.remove(key) else {
            return;
        };
        self.keys -= 1;
        if let Some(end) = entry.end {
            own.finished.remove(&end.order);
            own.bytes -= end.bytes;
            self.bytes -= end.bytes;
        }
        if own.entries.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Forgets what is too old: of this tenant at once, of others when it is time.
    fn expire(&mut self, now: Duration, tenant: &T) {
        let mut looked_at = vec![tenant.clone()];
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            looked_at = self.tenants.keys().cloned().collect();
        }
        for tenant in looked_at {
            while self
                .oldest(&tenant)
                .is_some_and(|at| now.saturating_sub(at) > self.limits.keep)
            {
                self.forget_oldest(&tenant);
            }
        }
    }

    /// When the oldest answer of a tenant came.
    fn oldest(&self, tenant: &T) -> Option<Duration> {
        let own = self.tenants.get(tenant)?;
        let (_, key) = own.finished.first_key_value()?;
        own.entries.get(key)?.end.map(|end| end.at)
    }

    fn forget_oldest(&mut self, tenant: &T) -> bool {
        let own = self.tenants.get(tenant);
        let oldest = own.and_then(|own| own.finished.first_key_value());
        let Some(key) = oldest.map(|(_, key)| key.clone()) else {
            return false;
        };
        self.forget(tenant, &key);
        true
    }

    fn forget_of_largest(&mut self, size: impl Fn(&Tenant<A>) -> usize) -> bool {
        let largest = self.tenants.iter().max_by_key(|(_, own)| size(own));
        let name = largest.map(|(name, _)| name.clone());
        name.is_some_and(|name| self.forget_oldest(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        keys: 6,
        tenant_keys: 3,
        bytes: 100,
        tenant_bytes: 60,
        keep: Duration::from_secs(100),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn print(request: &str) -> Fingerprint {
        Fingerprint::of(&request).unwrap()
    }

    struct Driven(Answers<&'static str, u32>);

    impl Driven {
        fn new() -> Self {
            Self(Answers::new(LIMITS))
        }

        fn begin(&mut self, now: u64, tenant: &'static str, key: &str, request: &str) -> Begun<u32> {
            self.0.begin(seconds(now), &tenant, key, print(request), || 7)
        }

        fn run(&mut self, now: u64, tenant: &'static str, key: &str, bytes: usize) {
            assert_eq!(self.begin(now, tenant, key, "request"), Begun::First(7), "{key}");
            self.0.finish(seconds(now), &tenant, key, bytes);
        }
    }

    #[test]
    fn the_same_request_runs_once() {
        let mut driven = Driven::new();
        assert_eq!(driven.begin(0, "a", "1", "x"), Begun::First(7));
        assert_eq!(driven.begin(0, "a", "1", "x"), Begun::Known(7));
        assert_eq!(driven.begin(0, "a", "1", "y"), Begun::Other);
        // Another tenant's key is another key.
        assert_eq!(driven.begin(0, "b", "1", "y"), Begun::First(7));
        driven.0.finish(seconds(5), &"a", "1", 10);
        assert_eq!(driven.begin(105, "a", "1", "x"), Begun::Known(7));
        assert_eq!(driven.begin(106, "a", "1", "x"), Begun::First(7));
    }

    #[test]
    fn what_did_not_run_may_be_tried_again() {
        let mut driven = Driven::new();
        assert_eq!(driven.begin(0, "a", "1", "x"), Begun::First(7));
        driven.0.forget(&"a", "1");
        assert_eq!(driven.begin(0, "a", "1", "y"), Begun::First(7));
        driven.0.forget(&"a", "1");
        assert_eq!((driven.0.keys, driven.0.bytes, driven.0.tenants.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_of_a_tenant_gives_way() {
        let mut driven = Driven::new();
        driven.run(0, "a", "old", 1);
        driven.run(1, "a", "new", 1);
        assert_eq!(driven.begin(2, "a", "runs", "x"), Begun::First(7));
        driven.run(3, "a", "newest", 1);
        assert_eq!(driven.begin(4, "a", "runs", "x"), Begun::Known(7));
        assert_eq!(driven.begin(4, "a", "newest", "request"), Begun::Known(7));
        assert_eq!(driven.begin(4, "a", "old", "other request"), Begun::First(7));
        assert_eq!(driven.begin(4, "a", "more", "x"), Begun::First(7));
        // Three run now.
        assert_eq!(driven.begin(4, "a", "too many", "x"), Begun::Full);
        assert_eq!(driven.begin(4, "b", "too many", "x"), Begun::First(7));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut driven = Driven::new();
        driven.run(0, "a", "1", 40);
        driven.run(0, "a", "2", 40);
        assert_eq!((driven.0.keys, driven.0.bytes), (1, 40));
        driven.run(0, "a", "huge", 61);
        assert_eq!((driven.0.keys, driven.0.bytes), (0, 0));
        driven.run(0, "a", "1", 60);
        driven.run(0, "b", "1", 50);
        // Together they are over the bound: who has most gives way.
        assert_eq!((driven.0.keys, driven.0.bytes), (1, 50));
        assert_eq!(driven.begin(0, "b", "1", "request"), Begun::Known(7));
    }

    #[test]
    fn who_does_not_come_again_is_forgotten_too() {
        let mut driven = Driven::new();
        driven.run(0, "gone", "1", 40);
        driven.run(200, "a", "1", 1);
        assert_eq!((driven.0.keys, driven.0.bytes, driven.0.tenants.len()), (1, 1, 1));
    }
}
