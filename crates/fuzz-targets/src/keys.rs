//! API keys: as they are kept, and as clients show them.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::admission::{Allowance, ApiKey, KEY_BYTES, Keys, Scope, Tenant};
use image::Sha256Sum;

use crate::memory::within;

const NOW: Duration = Duration::from_secs(1_000);

/// The first line is a key as it is kept, the rest one that a client shows. It opens only what was made of it.
pub(crate) fn check(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (kept, shown) = data.split_at(end);
    let shown = String::from_utf8_lossy(shown);
    let shown = shown.trim_start_matches('\n');
    let (ours, secret) = ApiKey::new(
        &[0xa5; KEY_BYTES],
        "acme".parse::<Tenant>().expect("it is a good name"),
        BTreeSet::from([Scope::Execute]),
        Allowance::UNBOUNDED,
        NOW,
        None,
    );
    let theirs = within(64 * kept.len() + (16 << 10), || {
        serde_json::from_slice::<ApiKey>(kept).ok()
    });
    if let Some(key) = &theirs {
        let text = serde_json::to_vec(key).expect("a key has a JSON form");
        let again: ApiKey = serde_json::from_slice(&text).expect("what was written is read");
        assert_eq!(again.id, key.id);
        let tenant = key.tenant.to_string();
        assert!((1..=64).contains(&tenant.len()) && !tenant.contains(['/', '\n', ' ']));
    }
    let keys: Keys = theirs.into_iter().chain([ours.clone()]).collect();
    match keys.check(shown, Scope::Execute, NOW) {
        Ok(key) => assert_eq!(Sha256Sum::of(shown.as_bytes()).to_string(), key.sha256),
        Err(_) => assert_ne!(shown, secret),
    }
    assert_eq!(keys.check(&secret, Scope::Execute, NOW), Ok(&ours));
    assert!(keys.check(&secret, Scope::Observe, NOW).is_err());
}
