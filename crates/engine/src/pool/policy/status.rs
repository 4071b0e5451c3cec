//! The pool as its operator sees it.

use serde::Serialize;

use super::Generation;

/// All of it at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status<K> {
    /// Memory for the pool, in bytes.
    pub budget_bytes: u64,
    /// Of it in use by what waits, is being started for the pool, or has not ended yet; by the running figures.
    pub used_bytes: u64,
    /// Restores and pre-spawns at once.
    pub max_concurrent: usize,
    /// In key order.
    pub keys: Vec<KeyStatus<K>>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyStatus<K> {
    /// Which.
    pub key: K,
    /// What is restored now; none while an unregistered key's last VMs end.
    pub generation: Option<Generation>,
    /// Restored VMs ready to be handed out, the warm ones included.
    pub idle: usize,
    /// Of them warmed up.
    pub warm: usize,
    /// VMMs that wait for a snapshot.
    pub prespawned: usize,
    /// Restores for the pool under way.
    pub restoring: usize,
    /// Pre-spawns under way.
    pub spawning: usize,
    /// Handed out, those included that are still being restored for a request.
    pub leased: usize,
    /// To be destroyed, and not gone yet.
    pub ending: usize,
    /// As configured.
    pub min: usize,
    /// As configured.
    pub max: usize,
    /// Restored VMs wanted now, `min` to `max`.
    pub target: usize,
    /// Of them what the budget allows.
    pub allotted: usize,
    /// What keeps the pool smaller than the forecast.
    pub limited_by: Option<LimitedBy>,
    /// Restored VMs that the arrivals call for, before any limit.
    pub forecast: usize,
    /// Arrivals per second.
    pub arrival_rate: f64,
    /// Seconds a restore takes.
    pub restore_seconds: f64,
    /// Bytes an idle VM takes.
    pub vm_bytes: u64,
    /// Bytes a waiting VMM takes.
    pub vmm_bytes: u64,
    /// Present while restores fail.
    pub restore_backoff: Option<BackoffStatus>,
    /// Present while pre-spawns fail.
    pub prespawn_backoff: Option<BackoffStatus>,
    /// Since the key was registered.
    pub counts: Counts,
}

/// What keeps the pool smaller than the forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// The key's `max`.
    Max,
    /// The memory budget, or the other keys' part in it.
    Budget,
}

/// Failures since the last success.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackoffStatus {
    /// In a row; failures of one moment count once.
    pub failures: u32,
    /// Seconds until the next try; 0 if it is due, or under way.
    pub retry_seconds: f64,
    /// Of the last failure.
    pub reason: String,
}

/// Totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counts {
    /// Leases of a restored VM, also those that had to be given up.
    pub ready: u64,
    /// Leases of a waiting VMM.
    pub prespawned: u64,
    /// Leases that began with a whole restore: the misses.
    pub on_demand: u64,
    /// Restores, pre-spawns and hand-overs that failed.
    pub failed: u64,
    /// VMs and VMMs that ended by themselves before anybody used them.
    pub died: u64,
}
