//! What the bodies of requests may take of memory, until each is answered, and how much of it one tenant may.
//!
//! A tenant may hold as much as is still free besides (Choudhury and Hahne, *Dynamic queue length thresholds*, 1998): alone at
//! most half of the room, one of two at most a third. So there is always something left for who comes next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::admission::Tenant;

/// Room for bodies. Clones are the same.
#[derive(Clone)]
pub(super) struct Room(Arc<Mutex<State>>);

struct State {
    free: usize,
    held: HashMap<Tenant, usize>,
}

/// The right to hold so many bytes, until it is dropped.
pub(super) struct Held {
    room: Room,
    tenant: Tenant,
    bytes: usize,
}

impl Room {
    /// For so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: bytes,
            held: HashMap::new(),
        })))
    }

    /// Room of `tenant`'s, none yet.
    pub(super) fn of(&self, tenant: &Tenant) -> Held {
        Held {
            room: self.clone(),
            tenant: tenant.clone(),
            bytes: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Holds `bytes` in all from now on; false, and no more than before, where there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let mut state = self.room.state();
        let own = state.held.get(&self.tenant).copied().unwrap_or_default() + more;
        if state.free < more || own > state.free - more {
            return false;
        }
        state.free -= more;
        state.held.insert(self.tenant.clone(), own);
        drop(state);
        self.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.room.state();
        state.free += self.bytes;
        let own = state.held.get(&self.tenant).copied().unwrap_or_default();
        match own.saturating_sub(self.bytes) {
            0 => state.held.remove(&self.tenant),
            left => state.held.insert(self.tenant.clone(), left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        name.parse().unwrap()
    }

    #[test]
    fn nobody_takes_all_of_it() {
        let room = Room::new(120);
        let mut flood = room.of(&tenant("flood"));
        assert!(flood.grow(60) && !flood.grow(61));
        // Not by asking again, either.
        assert!(!room.of(&tenant("flood")).grow(1));
        let mut other = room.of(&tenant("other"));
        assert!(other.grow(30) && !other.grow(31));
        let mut third = room.of(&tenant("third"));
        assert!(third.grow(15));
        drop((flood, other));
        assert!(third.grow(60));
        drop(third);
        let state = room.state();
        assert_eq!((state.free, state.held.len()), (120, 0));
    }
}
