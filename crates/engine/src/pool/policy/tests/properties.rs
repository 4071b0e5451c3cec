//! What holds after any sequence of events.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const KEYS: [Key; 3] = ["a", "b", "c"];
const CONCURRENT: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Demand(Index),
    Retry(Index),
    Begin(Index),
    Ready(Index),
    Failed(Index),
    Gone(Index),
    Warmed(Index),
    Wait(u64),
    Renew(Index),
    Register(Index, usize, usize, usize, usize),
    Unregister(Index),
    Cost(Index, u64),
    Budget(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<Index>;
    prop_oneof![
        8 => any().prop_map(Step::Demand),
        1 => any().prop_map(Step::Retry),
        4 => any().prop_map(Step::Begin),
        10 => any().prop_map(Step::Ready),
        3 => any().prop_map(Step::Failed),
        4 => any().prop_map(Step::Gone),
        1 => any().prop_map(Step::Warmed),
        6 => (0..20_000_u64).prop_map(Step::Wait),
        1 => any().prop_map(Step::Renew),
        1 => (any(), 0..3_usize, 0..3_usize, 0..6_usize, 0..3_usize)
            .prop_map(|(key, min, more, most, prespawn)| Step::Register(key, min, more, most, prespawn)),
        1 => any().prop_map(Step::Unregister),
        1 => (any(), 1..3 * VM).prop_map(|(key, bytes)| Step::Cost(key, bytes)),
        1 => (0..24 * VM).prop_map(Step::Budget),
    ]
}

/// What a careful observer outside knows, and checks.
struct Observer {
    pool: Pool<Key>,
    now: Duration,
    generation: u64,
    /// Everything that exists or is being made.
    live: Vec<VmId>,
    /// Everything that must never be handed out (again).
    spent: BTreeSet<VmId>,
    generations: BTreeMap<VmId, (Key, Generation)>,
    /// Leased, and not restored yet.
    claims: BTreeSet<VmId>,
    current: BTreeMap<Key, Generation>,
    /// No restore of that key for the pool before then.
    blocked: BTreeMap<Key, Duration>,
    /// A figure changed, so what is there may not fit until it is gone.
    over: bool,
}

impl Observer {
    fn new() -> Self {
        let mut observer = Self {
            pool: Pool::new(limits(12, CONCURRENT)),
            now: secs(1000),
            generation: 0,
            live: Vec::new(),
            spent: BTreeSet::new(),
            generations: BTreeMap::new(),
            claims: BTreeSet::new(),
            current: BTreeMap::new(),
            blocked: BTreeMap::new(),
            over: false,
        };
        for key in KEYS {
            observer.register(
                key,
                KeyConfig {
                    prespawn: 1,
                    ..config(1, 2, 6)
                },
            );
        }
        observer
    }

    fn register(&mut self, key: Key, config: KeyConfig) {
        self.generation += 1;
        let generation = Generation(self.generation);
        if self.pool.register(key, generation, config, self.now).is_ok() {
            self.current.insert(key, generation);
            self.blocked.remove(key);
        }
    }

    fn apply(&mut self, step: Step) {
        let key = |index: Index| *index.get(&KEYS);
        match step {
            Step::Demand(index) => {
                let lease = self.pool.demand(&key(index), self.now);
                self.leased(key(index), lease);
            }
            Step::Retry(index) => {
                let lease = self.pool.retry(&key(index));
                self.leased(key(index), lease);
            }
            Step::Begin(index) => self.with_live(index, |observer, id| {
                let Some(lease) = observer.pool.begin(id) else {
                    return;
                };
                let (key, _) = observer.generations[&id];
                if lease.id == id {
                    observer.generations.insert(id, (key, lease.generation));
                } else {
                    observer.forget(id);
                    observer.leased(key, Some(lease));
                }
            }),
            Step::Ready(index) => self.with_live(index, Self::ready),
            Step::Failed(index) => self.with_live(index, Self::failed),
            Step::Gone(index) => self.with_live(index, Self::gone),
            Step::Warmed(index) => {
                self.with_live(index, |observer, id| observer.pool.warmed(id, observer.now))
            }
            Step::Wait(milliseconds) => self.now += ms(milliseconds),
            Step::Renew(index) => {
                self.generation += 1;
                if let Some(current) = self.current.get_mut(key(index)) {
                    *current = Generation(self.generation);
                    self.blocked.remove(key(index));
                }
                self.pool.renew(&key(index), Generation(self.generation));
            }
            Step::Register(index, min, more, most, prespawn) => {
                let target = min + more;
                self.register(
                    key(index),
                    KeyConfig {
                        prespawn,
                        ..config(min, target, target + most)
                    },
                );
            }
            Step::Unregister(index) => {
                self.current.remove(key(index));
                self.pool.unregister(&key(index));
            }
            Step::Cost(index, bytes) => {
                self.pool.observe_cost(&key(index), bytes);
                self.over = true;
            }
            Step::Budget(bytes) => {
                self.pool.set_budget(bytes);
                self.over = true;
            }
        }
    }

    fn with_live(&mut self, index: Index, act: impl FnOnce(&mut Self, VmId)) {
        if !self.live.is_empty() {
            let id = *index.get(&self.live);
            act(self, id);
        }
    }

    /// None if it is leased.
    fn vm(&self, id: VmId) -> Option<State> {
        let (key, _) = self.generations[&id];
        Some(self.pool.keys.get(key)?.vms.get(&id)?.state)
    }

    fn ready(&mut self, id: VmId) {
        let (key, generation) = self.generations[&id];
        let restored = matches!(self.vm(id), Some(State::Restoring)) || self.claims.remove(&id);
        if restored && self.current.get(key) == Some(&generation) {
            self.blocked.remove(key);
        }
        self.pool.ready(id, self.now, ms(100));
    }

    fn failed(&mut self, id: VmId) {
        if self.vm(id).is_none_or(|state| state.tier() == Tier::Restored) {
            self.block(id);
        }
        self.forget(id);
        self.pool.failed(id, self.now, "for a reason");
    }

    fn gone(&mut self, id: VmId) {
        if matches!(self.vm(id), Some(State::Restoring | State::Idle(_))) {
            self.block(id);
        }
        self.forget(id);
        self.pool.gone(id, self.now);
    }

    /// At least for the shortest wait, unless it is waiting already.
    fn block(&mut self, id: VmId) {
        let (key, generation) = self.generations[&id];
        if self.current.get(key) == Some(&generation) {
            let waits = self.pool.keys[key].backoff(Tier::Restored).ends(self.now);
            let until = waits.unwrap_or(self.now + secs(1));
            self.blocked.insert(key, until);
        }
    }

    fn forget(&mut self, id: VmId) {
        self.live.retain(|live| *live != id);
        self.claims.remove(&id);
        self.spent.insert(id);
    }

    fn leased(&mut self, key: Key, lease: Option<Lease>) {
        let Some(lease) = lease else {
            assert!(
                !self.current.contains_key(key),
                "a registered key is never refused"
            );
            return;
        };
        assert!(
            self.spent.insert(lease.id),
            "{} was handed out, ended or dead before",
            lease.id
        );
        assert_eq!(Some(&lease.generation), self.current.get(key));
        if lease.source != Source::Ready {
            self.claims.insert(lease.id);
        }
        if lease.source == Source::OnDemand {
            self.live.push(lease.id);
        }
        let (of, generation) = *self
            .generations
            .entry(lease.id)
            .or_insert((key, lease.generation));
        assert_eq!((of, generation), (key, lease.generation));
    }

    fn plan(&mut self) {
        let before = self.pool.status(self.now).used_bytes;
        let actions = self.pool.plan(self.now);
        assert_eq!(self.pool.plan(self.now), [], "the same plan is not made twice");
        for action in &actions {
            match *action {
                Action::Restore { id, key, generation } | Action::Prespawn { id, key, generation } => {
                    assert_eq!(Some(&generation), self.current.get(key));
                    self.live.push(id);
                    self.generations.insert(id, (key, generation));
                    if matches!(action, Action::Restore { .. }) {
                        let until = self.blocked.get(key).copied().unwrap_or_default();
                        assert!(until <= self.now, "a restore before the backoff's end");
                    }
                }
                Action::Destroy { id, .. } => assert!(self.spent.insert(id), "{id} was in use or ended"),
            }
        }
        self.bounded(before, &actions);
    }

    fn bounded(&mut self, before: u64, actions: &[Action<Key>]) {
        let status = self.pool.status(self.now);
        let starting: usize = status.keys.iter().map(|key| key.restoring + key.spawning).sum();
        assert!(starting <= CONCURRENT);
        let starts = actions
            .iter()
            .any(|action| !matches!(action, Action::Destroy { .. }));
        if status.used_bytes > status.budget_bytes {
            assert!(self.over && !starts, "{before} {status:?}");
            let over = KEYS.iter().filter_map(|key| self.pool.keys.get(key));
            let waits: usize = over
                .map(|state| state.count(|s| s.rest(Tier::Restored).is_some()))
                .sum();
            let starting_or_ending = status
                .keys
                .iter()
                .any(|key| key.restoring + key.spawning + key.ending > 0);
            assert!(
                waits == 0 || starting_or_ending,
                "what does not fit is being ended: {status:?}"
            );
        } else {
            self.over = false;
        }
        for key in &status.keys {
            assert!(key.target <= key.max && key.allotted <= key.target, "{key:?}");
            assert!(key.generation.is_none() || key.target >= key.min);
        }
        let allotted = self.pool.shares(self.now);
        let promised = allotted
            .iter()
            .map(|((key, tier), share)| *share as u64 * self.pool.keys[key].cost(*tier));
        assert!(promised.sum::<u64>() <= status.budget_bytes);
        if let Some(at) = self.pool.next_wakeup(self.now) {
            assert!(at > self.now);
        }
    }

    /// Everything works from now on: whatever is started comes up, whatever is to end is gone.
    fn settle(&mut self) {
        for _ in 0..400 {
            for id in self.live.clone() {
                match self.vm(id) {
                    Some(State::Restoring | State::Spawning) => self.ready(id),
                    Some(State::Ending(_)) | None => {
                        self.forget(id);
                        self.pool.gone(id, self.now);
                    }
                    _ => {}
                }
            }
            self.plan();
            let quiet = self
                .live
                .iter()
                .all(|id| matches!(self.vm(*id), Some(State::Idle(_) | State::Waiting(_))));
            match self.pool.next_wakeup(self.now) {
                None if quiet => return,
                Some(at) if quiet => self.now = at,
                _ => {}
            }
        }
        panic!("it does not settle: {:?}", self.pool.status(self.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn the_promises_hold_whatever_happens(steps in prop::collection::vec(step(), 0..120)) {
        let mut observer = Observer::new();
        observer.plan();
        for step in steps {
            observer.apply(step);
            observer.plan();
        }
        // Nobody asks any more, nothing fails any more: everybody has the minimum, and nothing else.
        observer.settle();
        let status = observer.pool.status(observer.now);
        prop_assert!(status.used_bytes <= status.budget_bytes);
        let fits = status.keys.iter().map(|key| key.min as u64 * key.vm_bytes).sum::<u64>() <= status.budget_bytes;
        for key in status.keys {
            prop_assert_eq!(key.leased, 0);
            prop_assert!(key.idle <= key.min);
            prop_assert!(!fits || key.idle == key.min, "{:?}", key);
        }
    }
}
