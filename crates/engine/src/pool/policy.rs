//! What the warm pool does next. Events and the time go in, leases and [`Action`]s come out; there is no clock, no I/O and no
//! synchronization of its own in here.
//!
//! ```text
//!                      plan                ready              demand
//!  a VM for the pool    ────► Restoring ──────────► Idle ────────────────────────► Leased
//!  a VMM for the pool   ────► Spawning ───────────► Waiting ────────► Claimed ───────┘
//!  neither: on demand   ───────────────────────────────────────────────┘   begin, ready
//!
//!  Idle, Waiting ── plan: Destroy ──► Ending ── gone
//!  begin, when another VM has become Idle: the claim is forgotten and that VM Leased
//!  failed, gone: from any state to nothing; a VM never comes back
//! ```
//!
//! The pool names every VM when it asks for it, and that name stays until the VM is gone. Whatever `plan` returns is from then
//! on part of the state, so asking twice starts nothing twice. Memory counts from the start of a restore until the VM is leased
//! or gone, not until its end was ordered.
//!
//! A key keeps `min` VMs always, and while it is in use what its arrivals call for, from `target` to `max`. When the budget is
//! too small for all keys, it is shared by weight (`share`), and what one key had borrowed is taken back when another wants its
//! part.

mod backoff;
mod config;
mod forecast;
mod key;
mod share;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

pub use config::{BackoffPolicy, ConfigError, KeyConfig, Limits};
pub use status::{BackoffStatus, Counts, KeyStatus, LimitedBy, Status};

use key::{KeyState, State, TIERS, Tier};
use share::share;

/// How often a forecast above the target is looked at while nothing happens: it falls with time alone.
const REVIEW: Duration = Duration::from_secs(10);

/// One VM or VMM process, from the decision to start it until it is gone. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VmId(u64);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm-{}", self.0)
    }
}

/// Which build of a key's template a VM was restored from; the caller numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generation(pub u64);

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The VM that is now the request's.
    pub id: VmId,
    /// What it was, or is to be, restored from.
    pub generation: Generation,
    /// How far it is.
    pub source: Source,
}

/// How far a leased VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Restored.
    Ready,
    /// A VMM waits for the snapshot.
    Prespawned,
    /// Nothing is there yet.
    OnDemand,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<K> {
    /// Restore a VM; answered by [`Pool::ready`] or [`Pool::failed`].
    Restore {
        /// Its name.
        id: VmId,
        /// Its key.
        key: K,
        /// The build to restore.
        generation: Generation,
    },
    /// Start a VMM that waits for the snapshot; answered by [`Pool::ready`] or [`Pool::failed`].
    Prespawn {
        /// Its name.
        id: VmId,
        /// Its key.
        key: K,
        /// The build that it will load.
        generation: Generation,
    },
    /// End it; answered by [`Pool::gone`].
    Destroy {
        /// Which.
        id: VmId,
        /// Why.
        why: Why,
    },
}

/// Why a VM that nobody used is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its template was rebuilt, or its key is no longer registered.
    Retired,
    /// There have been more than were wanted for `idle_after`.
    Idle,
    /// The pool takes more memory than its budget.
    Budget,
    /// Another key wants its part of the budget.
    Reclaimed,
}

/// How many of each tier every key may have.
type Shares<K> = BTreeMap<(K, Tier), usize>;

/// The pool's state. `K` says what VMs are interchangeable.
///
/// `now` is the time since any fixed moment, the same for all calls, and does not go back. After every change, and when
/// [`Pool::next_wakeup`] says so, the caller [plans](Pool::plan).
///
/// The caller bounds the restores and pre-spawns that really run to [`Limits::max_concurrent`]: those of a plan first, claims in
/// the order that they came in what is left.
#[derive(Debug)]
pub struct Pool<K> {
    limits: Limits,
    keys: BTreeMap<K, KeyState>,
    owners: BTreeMap<VmId, K>,
    named: u64,
    /// The turn of whoever was last served.
    turn: f64,
}

impl<K: Clone + Ord> Pool<K> {
    /// Without keys.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            keys: BTreeMap::new(),
            owners: BTreeMap::new(),
            named: 0,
            turn: 0.0,
        }
    }

    /// Adds a key, or changes the configuration of one: its VMs stay, if their build is still the current one.
    ///
    /// # Errors
    /// The numbers contradict each other, the target does not fit into the budget, or the minima of all keys together do not.
    /// Targets that fit one by one and not together are no error: the budget is shared.
    pub fn register(
        &mut self,
        key: K,
        generation: Generation,
        config: KeyConfig,
        now: Duration,
    ) -> Result<(), ConfigError> {
        let budget = self.limits.budget_bytes;
        config.check(budget)?;
        let others = self
            .keys
            .iter()
            .filter(|(other, state)| **other != key && state.current.is_some());
        let needed = others.fold(config.minimum_bytes(), |sum, (_, state)| {
            sum.saturating_add(state.config.minimum_bytes())
        });
        if needed > budget {
            return Err(ConfigError::MinimaOverBudget { needed, budget });
        }
        let state = self
            .keys
            .entry(key)
            .or_insert_with(|| KeyState::new(config, generation, now));
        state.configure(config, generation, now);
        Ok(())
    }

    /// Removes a key: what waits for it is destroyed, what is leased stays leased. For shutting down, remove all.
    pub fn unregister(&mut self, key: &K) {
        if let Some(state) = self.keys.get_mut(key) {
            state.renew(None);
        }
    }

    /// A key's template was rebuilt: nothing of another build is handed out from now on.
    pub fn renew(&mut self, key: &K, generation: Generation) {
        if let Some(state) = self.registered(key) {
            state.renew(Some(generation));
        }
    }

    /// Replaces the memory budget, in bytes. Never refused, so that the pool can give way to a host that is short of memory;
    /// what is over it is destroyed.
    pub fn set_budget(&mut self, bytes: u64) {
        self.limits.budget_bytes = bytes;
    }

    /// The mean memory of a key's idle VMs, in bytes, as measured lately.
    pub fn observe_cost(&mut self, key: &K, bytes: u64) {
        if let Some(state) = self.keys.get_mut(key) {
            state.observe_cost(Tier::Restored, bytes);
        }
    }

    /// The mean memory of a key's waiting VMMs, in bytes, as measured lately.
    pub fn observe_prespawned_cost(&mut self, key: &K, bytes: u64) {
        if let Some(state) = self.keys.get_mut(key) {
            state.observe_cost(Tier::Prespawned, bytes);
        }
    }

    /// A request needs a VM. It always gets one, at worst one that has yet to be restored; None only for a key that is not
    /// registered, which the caller has to boot cold.
    ///
    /// What is not [`Source::Ready`] is a claim: the caller waits for its turn among all restores, then [begins](Pool::begin)
    /// and restores it, and reports [`Pool::ready`] or [`Pool::failed`]. Every lease ends with [`Pool::failed`] or
    /// [`Pool::gone`].
    pub fn demand(&mut self, key: &K, now: Duration) -> Option<Lease> {
        self.registered(key)?.arrivals.count(now);
        self.retry(key)
    }

    /// Another VM for a request that was counted already, whose VM was dead before it could be used. That one is to be reported
    /// with [`Pool::failed`] or [`Pool::gone`] as well.
    pub fn retry(&mut self, key: &K) -> Option<Lease> {
        if let Some(lease) = self.registered(key)?.lease_idle() {
            self.registered(key)?.counts.ready += 1;
            return Some(lease);
        }
        let lease = match self.registered(key)?.claim_waiting() {
            Some(lease) => lease,
            None => {
                let id = self.name(key);
                self.registered(key)?.claim_new(id)?
            }
        };
        self.charge_claim(key);
        Some(lease)
    }

    /// Whether another request for that key would find a VM ready.
    #[must_use]
    pub fn has_idle(&self, key: &K) -> bool {
        self.keys.get(key).is_some_and(KeyState::has_idle)
    }

    /// It is a claim's turn to be restored: what to do about it by now. If a VM has become ready, the lease is of that one and
    /// `id` is forgotten (the caller ends its VMM if it has one); else it is `id`, of the current build if nothing is there
    /// yet. None if it is no claim.
    pub fn begin(&mut self, id: VmId) -> Option<Lease> {
        let state = self.owner(id)?;
        let lease = state.begin(id)?;
        if lease.id != id {
            self.owners.remove(&id);
        }
        Some(lease)
    }

    /// What was being started is there, after `took` of work (waiting for its turn not counted): a VM that has answered, or a
    /// VMM that waits for its snapshot.
    pub fn ready(&mut self, id: VmId, now: Duration, took: Duration) {
        if let Some(state) = self.owner(id) {
            state.ready(id, now, took);
        }
    }

    /// An idle VM has run something, so that it is quicker now; it is handed out before those that have not.
    pub fn warmed(&mut self, id: VmId, now: Duration) {
        if let Some(state) = self.owner(id) {
            state.warmed(id, now);
        }
    }

    /// A restore or pre-spawn failed, or a VM did not confirm its identity when it was handed out. It is gone, and the filler
    /// leaves its key alone for a while. `reason` is for people.
    pub fn failed(&mut self, id: VmId, now: Duration, reason: impl Into<String>) {
        let policy = self.limits.backoff;
        if let Some(state) = self.disown(id) {
            state.failed(id, now, reason.into(), policy);
        }
    }

    /// A VM or VMM no longer exists: destroyed as planned, its lease over, given up by a request that waited for it, or dead
    /// while it waited. Only then is its memory free. An unknown one is ignored.
    pub fn gone(&mut self, id: VmId, now: Duration) {
        let policy = self.limits.backoff;
        if let Some(state) = self.disown(id) {
            state.gone(id, now, policy);
        }
    }

    /// What to do now. All of it counts as begun.
    pub fn plan(&mut self, now: Duration) -> Vec<Action<K>> {
        let mut ended = self.retire();
        ended.extend(self.shrink(now));
        let shares = self.shares(now);
        ended.extend(self.give_back(0, &shares, Why::Budget));
        let (started, reclaimed) = self.fill(now, &shares);
        ended.extend(reclaimed);
        self.keys.retain(|_, state| !state.is_over());
        let ended = ended.into_iter().map(|(id, why)| Action::Destroy { id, why });
        ended.chain(started).collect()
    }

    /// When to [plan](Pool::plan) next if nothing happens until then: later than `now`, on the same clock; None if never.
    #[must_use]
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        let registered = self.keys.values().filter(|state| state.current.is_some());
        registered
            .flat_map(|state| {
                let KeyConfig { min, target, .. } = state.config;
                let wanted = state.wanted(Tier::Restored, now);
                let retry = |tier| {
                    let short = state.stock(tier) < state.wanted(tier, now);
                    state.backoff(tier).ends(now).filter(|_| short)
                };
                let surplus = state.stock(Tier::Restored) > wanted;
                [
                    retry(Tier::Restored),
                    retry(Tier::Prespawned),
                    (wanted > min).then(|| state.quiet_from()),
                    (wanted > target).then(|| now.saturating_add(REVIEW)),
                    surplus.then(|| state.surplus_ends(now)),
                ]
            })
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// The pool at this moment.
    #[must_use]
    pub fn status(&self, now: Duration) -> Status<K> {
        let shares = self.shares(now);
        let key = |(key, state): (&K, &KeyState)| {
            let allotted = shares.get(&(key.clone(), Tier::Restored)).copied().unwrap_or(0);
            state.status(key.clone(), allotted, now)
        };
        Status {
            budget_bytes: self.limits.budget_bytes,
            used_bytes: self.bytes(|_| true),
            max_concurrent: self.limits.max_concurrent.get(),
            keys: self.keys.iter().map(key).collect(),
        }
    }

    fn registered(&mut self, key: &K) -> Option<&mut KeyState> {
        self.keys.get_mut(key).filter(|state| state.current.is_some())
    }

    fn name(&mut self, key: &K) -> VmId {
        self.named += 1;
        let id = VmId(self.named);
        self.owners.insert(id, key.clone());
        id
    }

    fn owner(&mut self, id: VmId) -> Option<&mut KeyState> {
        self.keys.get_mut(self.owners.get(&id)?)
    }

    fn disown(&mut self, id: VmId) -> Option<&mut KeyState> {
        self.keys.get_mut(&self.owners.remove(&id)?)
    }

    fn bytes(&self, of: impl Fn(&State) -> bool) -> u64 {
        self.keys
            .values()
            .fold(0, |sum, state| sum.saturating_add(state.bytes(&of)))
    }

    /// Ends what waits and is of no current build.
    fn retire(&mut self) -> Vec<(VmId, Why)> {
        let retired = self.keys.values_mut().flat_map(KeyState::retire);
        retired.map(|id| (id, Why::Retired)).collect()
    }

    /// Ends what has long been more than wanted. Pre-spawned VMMs are only ever more when their number was configured down.
    fn shrink(&mut self, now: Duration) -> Vec<(VmId, Why)> {
        let mut ended = Vec::new();
        for state in self.keys.values_mut() {
            if state.stock(Tier::Restored) <= state.wanted(Tier::Restored, now) {
                state.needed_at = now;
            }
            for tier in TIERS {
                let due = tier == Tier::Prespawned || state.surplus_ends(now) <= now;
                while due && state.stock(tier) > state.wanted(tier, now) {
                    let Some(id) = state.worst(tier) else { break };
                    ended.extend(state.end(id, Why::Idle));
                }
            }
        }
        ended
    }

    /// The budget between the keys: restored VMs first, pre-spawned VMMs from what is left.
    fn shares(&self, now: Duration) -> Shares<K> {
        let mut left = self.limits.budget_bytes;
        let mut shares = Shares::new();
        for tier in TIERS {
            let claims: Vec<_> = self.keys.values().map(|state| state.claim(tier, now)).collect();
            let keys = self.keys.keys().map(|key| (key.clone(), tier));
            shares.extend(keys.zip(share(&mut left, &claims)));
        }
        shares
    }

    /// Ends what is over its key's share until `more` bytes fit into the budget beside what is there, or nothing is over.
    fn give_back(&mut self, more: u64, shares: &Shares<K>, why: Why) -> Vec<(VmId, Why)> {
        let mut ended = Vec::new();
        while self.bytes(|state| !state.is_ending()).saturating_add(more) > self.limits.budget_bytes {
            let Some((key, id)) = self.most_over(shares) else {
                break;
            };
            ended.extend(self.keys.get_mut(&key).and_then(|state| state.end(id, why)));
        }
        ended
    }

    /// The waiting VM or VMM of the key that has the most bytes over its share for its weight.
    fn most_over(&self, shares: &Shares<K>) -> Option<(K, VmId)> {
        let over = shares.iter().filter_map(|((key, tier), share)| {
            let state = self.keys.get(key)?;
            let surplus = state
                .stock(*tier)
                .checked_sub(*share)
                .filter(|surplus| *surplus > 0)?;
            let wealth = surplus as f64 * state.cost(*tier) as f64 / state.weight();
            Some((wealth, key, state.worst(*tier)?))
        });
        let (_, key, id) = over.max_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
        Some((key.clone(), id))
    }

    /// Starts what is missing, as far as slots and memory go. What does not fit because others have more than their share makes
    /// them give back, and starts when that is gone.
    fn fill(&mut self, now: Duration, shares: &Shares<K>) -> (Vec<Action<K>>, Vec<(VmId, Why)>) {
        let mut started = Vec::new();
        let mut ended = Vec::new();
        let mut waiting = BTreeSet::new();
        let mut owed = 0_u64;
        for _ in 0..self.free_slots() {
            let Some((key, tier, cost)) = self.next_start(now, shares, &waiting) else {
                break;
            };
            let with = owed.saturating_add(cost);
            if self.bytes(|_| true).saturating_add(with) <= self.limits.budget_bytes {
                started.extend(self.start(key, tier));
            } else {
                owed = with;
                waiting.insert((key, tier));
                ended.extend(self.give_back(owed, shares, Why::Reclaimed));
            }
        }
        (started, ended)
    }

    /// How many may be started. One slot of several is always the filler's, or a flood of misses on one key would keep the
    /// pools of all others empty.
    fn free_slots(&self) -> usize {
        let count = |of: fn(&KeyState) -> usize| self.keys.values().map(of).sum::<usize>();
        let starting = count(|state| state.count(State::is_starting));
        let claimed = count(|state| state.claimed);
        let slots = self.limits.max_concurrent.get();
        let kept = slots > 1 && starting == 0;
        slots.saturating_sub(starting + claimed).max(usize::from(kept))
    }

    /// Among what is short and may be tried, that of the key whose turn it is.
    fn next_start(
        &self,
        now: Duration,
        shares: &Shares<K>,
        except: &BTreeSet<(K, Tier)>,
    ) -> Option<(K, Tier, u64)> {
        let short = shares.iter().filter_map(|(entry @ (key, tier), share)| {
            let state = self.keys.get(key)?;
            let may = state.stock(*tier) < *share
                && state.backoff(*tier).permits(now, state.starting(*tier))
                && !except.contains(entry);
            may.then_some((state.turn, key, *tier, state.cost(*tier)))
        });
        let (_, key, tier, cost) = short.min_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
        Some((key.clone(), tier, cost))
    }

    fn start(&mut self, key: K, tier: Tier) -> Option<Action<K>> {
        let generation = self.registered(&key)?.current?;
        let id = self.name(&key);
        self.registered(&key)?.start(id, tier)?;
        self.charge_start(&key);
        Some(match tier {
            Tier::Restored => Action::Restore { id, key, generation },
            Tier::Prespawned => Action::Prespawn { id, key, generation },
        })
    }

    /// Starts are shared by weight: each moves its key's turn on, and whoever's turn is lowest is next. A key that wanted
    /// nothing for a while begins where the others are, it has saved nothing up.
    fn charge_start(&mut self, key: &K) {
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        self.turn = self.turn.max(state.turn);
        state.turn = self.turn + 1.0 / state.weight();
    }

    /// A miss takes a slot as well, so it moves the turn on too; but a burst of them is forgotten after as many starts of others as
    /// there are slots.
    fn charge_claim(&mut self, key: &K) {
        let most = self.limits.max_concurrent.get() as f64;
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        let charged = state.turn.max(self.turn) + 1.0 / state.weight();
        state.turn = charged.min(self.turn + most / state.weight());
    }
}
