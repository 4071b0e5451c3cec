//! What the pool has of one key, and wants of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::Backoff;
use super::config::{BackoffPolicy, KeyConfig};
use super::forecast::{self, Arrivals, Bytes, Took};
use super::share::Claim;
use super::status::{BackoffStatus, Counts, KeyStatus, LimitedBy};
use super::{Generation, Lease, Source, VmId, Why};

/// A VM that died sooner than that after its restore was not restored well.
const SETTLED: Duration = Duration::from_secs(10);

/// The two kinds of thing that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Restored,
    Prespawned,
}

pub(super) const TIERS: [Tier; 2] = [Tier::Restored, Tier::Prespawned];

/// What waits, or is being started or ended for the pool. Its memory is the pool's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vm {
    generation: Generation,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Restoring,
    Spawning,
    Idle(Rest),
    Waiting(Rest),
    Ending(Tier),
}

/// A VM that is a request's.
#[derive(Debug, Clone, Copy)]
struct Leased {
    generation: Generation,
    source: Source,
    /// It has yet to be restored.
    claimed: bool,
}

/// What is known of something that waits. Ordered by what is handed out last: warm before cold, then the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rest {
    warmed: Option<Duration>,
    since: Duration,
    /// Failures that its success ended; they are back if it does not last.
    forgiven: u32,
}

impl State {
    pub(super) fn tier(&self) -> Tier {
        match self {
            Self::Restoring | Self::Idle(_) => Tier::Restored,
            Self::Spawning | Self::Waiting(_) => Tier::Prespawned,
            Self::Ending(tier) => *tier,
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Restoring | Self::Spawning)
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Ending(_))
    }

    pub(super) fn rest(&self, of: Tier) -> Option<Rest> {
        match (self, of) {
            (Self::Idle(rest), Tier::Restored) | (Self::Waiting(rest), Tier::Prespawned) => Some(*rest),
            _ => None,
        }
    }
}

/// One key's part of the pool.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) config: KeyConfig,
    /// None once unregistered, while its VMs end.
    pub(super) current: Option<Generation>,
    pub(super) arrivals: Arrivals,
    restore_time: Took,
    vm_bytes: Bytes,
    vmm_bytes: Bytes,
    restores: Backoff,
    spawns: Backoff,
    pub(super) vms: BTreeMap<VmId, Vm>,
    leases: BTreeMap<VmId, Leased>,
    /// How many of the leases have yet to be restored.
    pub(super) claimed: usize,
    /// When there were last no more restored VMs than wanted.
    pub(super) needed_at: Duration,
    /// Starts it has had by its weight; see [`Pool::charge_start`](super::Pool::charge_start).
    pub(super) turn: f64,
    pub(super) counts: Counts,
}

impl KeyState {
    pub(super) fn new(config: KeyConfig, generation: Generation, now: Duration) -> Self {
        Self {
            config,
            current: Some(generation),
            arrivals: Arrivals::new(now),
            restore_time: Took::expected(config.restore_time),
            vm_bytes: Bytes::expected(config.vm_bytes.get()),
            vmm_bytes: Bytes::expected(config.vmm_bytes.get()),
            restores: Backoff::default(),
            spawns: Backoff::default(),
            vms: BTreeMap::new(),
            leases: BTreeMap::new(),
            claimed: 0,
            needed_at: now,
            turn: 0.0,
            counts: Counts::default(),
        }
    }

    pub(super) fn configure(&mut self, config: KeyConfig, generation: Generation, now: Duration) {
        if self.current.is_none() {
            self.arrivals = Arrivals::new(now);
        }
        self.renew(Some(generation));
        self.restore_time.configure(config.restore_time);
        self.vm_bytes.configure(config.vm_bytes.get());
        self.vmm_bytes.configure(config.vmm_bytes.get());
        self.config = config;
    }

    /// What failed or succeeded with another build says nothing about this one.
    pub(super) fn renew(&mut self, generation: Option<Generation>) {
        if self.current != generation {
            self.current = generation;
            self.restores = Backoff::default();
            self.spawns = Backoff::default();
        }
    }

    fn is_current(&self, generation: Generation) -> bool {
        self.current == Some(generation)
    }

    /// Unregistered, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.current.is_none() && self.vms.is_empty() && self.leases.is_empty()
    }

    pub(super) fn count(&self, of: impl Fn(&State) -> bool) -> usize {
        self.vms.values().filter(|vm| of(&vm.state)).count()
    }

    fn count_current(&self, of: impl Fn(&State) -> bool) -> usize {
        let current = self.vms.values().filter(|vm| self.is_current(vm.generation));
        current.filter(|vm| of(&vm.state)).count()
    }

    /// Of the current build: there, or under way.
    pub(super) fn stock(&self, tier: Tier) -> usize {
        self.count_current(|state| !state.is_ending() && state.tier() == tier)
    }

    /// Of the current build: under way.
    pub(super) fn starting(&self, tier: Tier) -> usize {
        self.count_current(|state| state.is_starting() && state.tier() == tier)
    }

    pub(super) fn cost(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Restored => self.vm_bytes.value(),
            Tier::Prespawned => self.vmm_bytes.value(),
        }
    }

    pub(super) fn observe_cost(&mut self, tier: Tier, bytes: u64) {
        match tier {
            Tier::Restored => self.vm_bytes.observe(bytes),
            Tier::Prespawned => self.vmm_bytes.observe(bytes),
        }
    }

    /// Memory of what `of` says, in bytes.
    pub(super) fn bytes(&self, of: impl Fn(&State) -> bool) -> u64 {
        let costs = TIERS.map(|tier| {
            let number = self.count(|state| state.tier() == tier && of(state));
            (number as u64).saturating_mul(self.cost(tier))
        });
        costs[0].saturating_add(costs[1])
    }

    pub(super) fn weight(&self) -> f64 {
        f64::from(self.config.weight.get())
    }

    pub(super) fn backoff(&self, tier: Tier) -> &Backoff {
        match tier {
            Tier::Restored => &self.restores,
            Tier::Prespawned => &self.spawns,
        }
    }

    fn backoff_mut(&mut self, tier: Tier) -> &mut Backoff {
        match tier {
            Tier::Restored => &mut self.restores,
            Tier::Prespawned => &mut self.spawns,
        }
    }

    pub(super) fn forecast(&self, now: Duration) -> usize {
        forecast::stock(self.arrivals.rate(now), self.restore_time.value())
    }

    pub(super) fn quiet_from(&self) -> Duration {
        self.arrivals.last().saturating_add(self.config.idle_after)
    }

    pub(super) fn wanted(&self, tier: Tier, now: Duration) -> usize {
        let KeyConfig {
            min,
            target,
            max,
            prespawn,
            ..
        } = self.config;
        match tier {
            _ if self.current.is_none() => 0,
            Tier::Prespawned => prespawn,
            Tier::Restored if now >= self.quiet_from() => min,
            Tier::Restored => self.forecast(now).clamp(target, max),
        }
    }

    /// What it asks the budget for. While its starts fail that is what it has and one to try, so that others may use the rest.
    pub(super) fn claim(&self, tier: Tier, now: Duration) -> Claim {
        let wanted = self.wanted(tier, now);
        let stock = self.stock(tier);
        let want = if self.backoff(tier).failures() > 0 {
            let there = stock - self.starting(tier);
            wanted.min(stock.max(there + 1))
        } else {
            wanted
        };
        Claim {
            weight: self.weight(),
            cost: self.cost(tier),
            min: match tier {
                Tier::Restored => self.config.min,
                Tier::Prespawned => 0,
            },
            want,
        }
    }

    /// What waits of the current build and is to be handed out first.
    pub(super) fn best(&self, tier: Tier) -> Option<VmId> {
        self.waiting(tier).max().map(|(_, id)| id)
    }

    /// What waits of the current build and would be handed out last.
    pub(super) fn worst(&self, tier: Tier) -> Option<VmId> {
        self.waiting(tier).min().map(|(_, id)| id)
    }

    fn waiting(&self, tier: Tier) -> impl Iterator<Item = (Rest, VmId)> {
        self.vms
            .iter()
            .filter(|(_, vm)| self.is_current(vm.generation))
            .filter_map(move |(id, vm)| Some((vm.state.rest(tier)?, *id)))
    }

    /// A restored VM for a request.
    pub(super) fn lease_idle(&mut self) -> Option<Lease> {
        let id = self.best(Tier::Restored)?;
        self.hand_out(id, Source::Ready)
    }

    /// Whether there is an idle VM for another request.
    pub(super) fn has_idle(&self) -> bool {
        self.best(Tier::Restored).is_some()
    }

    /// A waiting VMM for a request.
    pub(super) fn claim_waiting(&mut self) -> Option<Lease> {
        let id = self.best(Tier::Prespawned)?;
        self.counts.prespawned += 1;
        self.hand_out(id, Source::Prespawned)
    }

    /// Nothing yet for a request.
    pub(super) fn claim_new(&mut self, id: VmId) -> Option<Lease> {
        self.counts.on_demand += 1;
        self.hand_out(id, Source::OnDemand)
    }

    fn hand_out(&mut self, id: VmId, source: Source) -> Option<Lease> {
        let generation = self.current?;
        let claimed = source != Source::Ready;
        self.vms.remove(&id);
        self.leases.insert(
            id,
            Leased {
                generation,
                source,
                claimed,
            },
        );
        self.claimed += usize::from(claimed);
        Some(Lease {
            id,
            generation,
            source,
        })
    }

    fn take_back(&mut self, id: VmId) -> Option<Leased> {
        let lease = self.leases.remove(&id)?;
        self.claimed -= usize::from(lease.claimed);
        Some(lease)
    }

    pub(super) fn begin(&mut self, id: VmId) -> Option<Lease> {
        let claim = *self.leases.get(&id).filter(|lease| lease.claimed)?;
        if let Some(lease) = self.lease_idle() {
            self.take_back(id);
            return Some(lease);
        }
        let Leased { source, .. } = claim;
        let generation = match source {
            Source::OnDemand => self.current.unwrap_or(claim.generation),
            Source::Prespawned | Source::Ready => claim.generation,
        };
        self.leases.insert(id, Leased { generation, ..claim });
        Some(Lease {
            id,
            generation,
            source,
        })
    }

    pub(super) fn start(&mut self, id: VmId, tier: Tier) -> Option<()> {
        let generation = self.current?;
        let state = match tier {
            Tier::Restored => State::Restoring,
            Tier::Prespawned => State::Spawning,
        };
        self.vms.insert(id, Vm { generation, state });
        Some(())
    }

    pub(super) fn ready(&mut self, id: VmId, now: Duration, took: Duration) {
        if let Some(claim) = self.leases.get(&id).copied().filter(|lease| lease.claimed) {
            self.claimed -= 1;
            self.leases.insert(
                id,
                Leased {
                    claimed: false,
                    ..claim
                },
            );
            self.succeeded(Tier::Restored, claim.generation);
        } else if let Some(vm) = self.vms.get(&id).copied().filter(|vm| vm.state.is_starting()) {
            let tier = vm.state.tier();
            let forgiven = self.succeeded(tier, vm.generation);
            let rest = Rest {
                warmed: None,
                since: now,
                forgiven,
            };
            let state = match tier {
                Tier::Restored => State::Idle(rest),
                Tier::Prespawned => State::Waiting(rest),
            };
            self.vms.insert(id, Vm { state, ..vm });
            if tier == Tier::Restored {
                self.restore_time.observe(took);
            }
        }
    }

    /// Returns how many failures that ended.
    fn succeeded(&mut self, tier: Tier, generation: Generation) -> u32 {
        if self.is_current(generation) {
            self.backoff_mut(tier).succeed()
        } else {
            0
        }
    }

    pub(super) fn warmed(&mut self, id: VmId, now: Duration) {
        if let Some(Vm {
            state: State::Idle(rest),
            ..
        }) = self.vms.get_mut(&id)
        {
            rest.warmed = Some(now);
        }
    }

    pub(super) fn failed(&mut self, id: VmId, now: Duration, reason: String, policy: BackoffPolicy) {
        let leased = self.take_back(id).map(|lease| (Tier::Restored, lease.generation));
        let vm = self.vms.remove(&id).map(|vm| (vm.state.tier(), vm.generation));
        let Some((tier, generation)) = leased.or(vm) else {
            return;
        };
        self.counts.failed += 1;
        if self.is_current(generation) {
            self.backoff_mut(tier).fail(now, reason, policy);
        }
    }

    pub(super) fn gone(&mut self, id: VmId, now: Duration, policy: BackoffPolicy) {
        self.take_back(id);
        let vm = self.vms.remove(&id).filter(|vm| !vm.state.is_ending());
        let Some(Vm { state, generation }) = vm else {
            return;
        };
        self.counts.died += 1;
        if !self.is_current(generation) {
            return;
        }
        let rest = state.rest(state.tier());
        let backoff = self.backoff_mut(state.tier());
        // A key whose VMs come up and die would otherwise have them restored over and over at the shortest wait.
        if let Some(rest) = rest.filter(|rest| now.saturating_sub(rest.since) < SETTLED) {
            backoff.resume(rest.forgiven);
        }
        let when = if rest.is_some() {
            "while it waited"
        } else {
            "before it was ready"
        };
        backoff.fail(now, format!("{id} died {when}"), policy);
    }

    pub(super) fn retire(&mut self) -> Vec<VmId> {
        let current = self.current;
        let waits = |vm: &Vm| matches!(vm.state, State::Idle(_) | State::Waiting(_));
        let old = self
            .vms
            .iter_mut()
            .filter(|(_, vm)| waits(vm) && current != Some(vm.generation));
        old.map(|(id, vm)| {
            vm.state = State::Ending(vm.state.tier());
            *id
        })
        .collect()
    }

    /// When what is over the wanted number will have been so for long enough; `now` if it has.
    pub(super) fn surplus_ends(&self, now: Duration) -> Duration {
        let lasted = self.needed_at.saturating_add(self.config.idle_after);
        if now >= self.quiet_from() {
            now
        } else {
            lasted.max(now)
        }
    }

    pub(super) fn end(&mut self, id: VmId, why: Why) -> Option<(VmId, Why)> {
        let vm = self.vms.get_mut(&id)?;
        vm.state = State::Ending(vm.state.tier());
        Some((id, why))
    }
}

impl KeyState {
    pub(super) fn status<K>(&self, key: K, allotted: usize, now: Duration) -> KeyStatus<K> {
        let target = self.wanted(Tier::Restored, now);
        let forecast = self.forecast(now);
        let limited_by = if allotted < target && self.restores.failures() == 0 {
            Some(LimitedBy::Budget)
        } else {
            (forecast > self.config.max && target == self.config.max).then_some(LimitedBy::Max)
        };
        KeyStatus {
            key,
            generation: self.current,
            idle: self.waiting(Tier::Restored).count(),
            warm: self
                .waiting(Tier::Restored)
                .filter(|(rest, _)| rest.warmed.is_some())
                .count(),
            prespawned: self.waiting(Tier::Prespawned).count(),
            restoring: self.count(|state| matches!(state, State::Restoring)),
            spawning: self.count(|state| matches!(state, State::Spawning)),
            leased: self.leases.len(),
            ending: self.count(State::is_ending),
            min: self.config.min,
            max: self.config.max,
            target,
            allotted,
            limited_by,
            forecast,
            arrival_rate: self.arrivals.rate(now),
            restore_seconds: self.restore_time.value().as_secs_f64(),
            vm_bytes: self.cost(Tier::Restored),
            vmm_bytes: self.cost(Tier::Prespawned),
            restore_backoff: self.restores.status(now),
            prespawn_backoff: self.spawns.status(now),
            counts: self.counts,
        }
    }
}

impl Backoff {
    pub(super) fn status(&self, now: Duration) -> Option<BackoffStatus> {
        (self.failures() > 0).then(|| BackoffStatus {
            failures: self.failures(),
            retry_seconds: self.ends(now).map_or(0.0, |at| (at - now).as_secs_f64()),
            reason: self.reason().to_owned(),
        })
    }
}
