//! What the operator asks of the pool, and why it may be refused.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// What all keys share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes, for everything that waits in the pool or is being started for it. What is leased is not part of it:
    /// that is for whoever admits jobs to bound.
    pub budget_bytes: u64,
    /// Restores and pre-spawns under way at once, those for a waiting request included.
    pub max_concurrent: NonZeroUsize,
    /// How long to leave a key alone whose restores fail.
    pub backoff: BackoffPolicy,
}

/// The wait after a failure: `base`, doubled with every further one, at most `cap`. No jitter: one pool has nobody to collide with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// After the first failure.
    pub base: Duration,
    /// At most; no less than `base` is ever waited.
    pub cap: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(60),
        }
    }
}

/// What is kept ready of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyConfig {
    /// Restored VMs kept also when nobody asks for them.
    pub min: usize,
    /// Restored VMs kept while the key is in use, `min` to `max`. The forecast may raise it.
    pub target: usize,
    /// The most restored VMs, whatever the forecast.
    pub max: usize,
    /// VMM processes kept waiting for a snapshot to load, for requests that find no restored VM. The filler does not use them up.
    pub prespawn: usize,
    /// The part of a scarce budget, and of the restores, relative to the other keys'.
    pub weight: NonZeroU32,
    /// After that long without demand only `min` is kept; a surplus that lasted that long is destroyed.
    pub idle_after: Duration,
    /// Memory of an idle VM in bytes, until it has been [measured](super::Pool::observe_cost).
    pub vm_bytes: NonZeroU64,
    /// Memory of a waiting VMM in bytes, until it has been measured.
    pub vmm_bytes: NonZeroU64,
    /// How long a restore takes, until one has been seen.
    pub restore_time: Duration,
}

impl KeyConfig {
    /// What `min` takes, in bytes.
    pub(super) fn minimum_bytes(&self) -> u64 {
        (self.min as u64).saturating_mul(self.vm_bytes.get())
    }

    /// Whether the numbers fit each other, and the target the budget.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self, budget: u64) -> Result<(), ConfigError> {
        let Self { min, target, max, .. } = *self;
        if !(min <= target && target <= max) {
            return Err(ConfigError::Order { min, target, max });
        }
        let vms = (target as u64).saturating_mul(self.vm_bytes.get());
        let vmms = (self.prespawn as u64).saturating_mul(self.vmm_bytes.get());
        let needed = vms.saturating_add(vmms);
        if needed > budget {
            let prespawn = self.prespawn;
            return Err(ConfigError::TargetOverBudget {
                target,
                prespawn,
                needed,
                budget,
            });
        }
        Ok(())
    }
}

/// Why a configuration was refused. What was in force before still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The three sizes contradict each other.
    #[error("The pool's sizes must rise: min {min}, target {target}, max {max}")]
    Order {
        /// As configured.
        min: usize,
        /// As configured.
        target: usize,
        /// As configured.
        max: usize,
    },
    /// This key's target alone is more than there is for all.
    #[error(
        "A pool of {target} VMs and {prespawn} waiting VMMs needs {} MiB and its memory budget is {} MiB; \
         lower the target or raise the budget",
        mebibytes(*needed), budget >> 20
    )]
    TargetOverBudget {
        /// As configured.
        target: usize,
        /// As configured.
        prespawn: usize,
        /// Bytes for the target and the waiting VMMs.
        needed: u64,
        /// Bytes there are.
        budget: u64,
    },
    /// What has been promised to all keys together is more than there is.
    #[error(
        "The minimum sizes of all pools together need {} MiB and the memory budget is {} MiB; \
         lower a minimum or raise the budget",
        mebibytes(*needed), budget >> 20
    )]
    MinimaOverBudget {
        /// Bytes for every key's `min`.
        needed: u64,
        /// Bytes there are.
        budget: u64,
    },
}

/// Rounded up, as a budget is rounded down: the message never says that 64 MiB are more than 64 MiB.
fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
