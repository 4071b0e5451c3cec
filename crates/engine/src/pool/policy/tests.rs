//! The pool against simulated arrivals, restores and failures, on a clock that only the simulation moves.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use super::*;

mod properties;

const MIB: u64 = 1 << 20;
const VM: u64 = 20 * MIB;
const VMM: u64 = 10 * MIB;
const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits(vms: u64, max_concurrent: usize) -> Limits {
    Limits {
        budget_bytes: vms * VM,
        max_concurrent: NonZeroUsize::new(max_concurrent).unwrap(),
        backoff: BackoffPolicy {
            base: secs(1),
            cap: secs(30),
        },
    }
}

fn config(min: usize, target: usize, max: usize) -> KeyConfig {
    KeyConfig {
        min,
        target,
        max,
        prespawn: 0,
        weight: NonZeroU32::MIN,
        idle_after: secs(60),
        vm_bytes: NonZeroU64::new(VM).unwrap(),
        vmm_bytes: NonZeroU64::new(VMM).unwrap(),
        restore_time: ms(100),
    }
}

type Key = &'static str;

enum Event {
    Arrive(Key),
    Started(VmId),
    Used(VmId),
    Wake,
}

/// What the pool's tasks do, in little: the filler's restores first, then
/// those for requests in order, so many at once; leases of 50 ms; machines that end at once.
struct Simulation {
    pool: Pool<Key>,
    now: Duration,
    restore: Duration,
    /// Why a restore that ends now fails, if it does.
    fails: fn(Duration) -> Option<&'static str>,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    alarm: Duration,
    queue: VecDeque<VmId>,
    running: usize,
    arrived: BTreeMap<VmId, Duration>,
    sources: BTreeMap<Key, Vec<Source>>,
    latencies: Vec<Duration>,
    log: Vec<(Duration, Action<Key>)>,
}

impl Simulation {
    fn new(limits: Limits) -> Self {
        Self {
            pool: Pool::new(limits),
            now: Duration::ZERO,
            restore: ms(100),
            fails: |_| None,
            events: BTreeMap::new(),
            sequence: 0,
            alarm: Duration::ZERO,
            queue: VecDeque::new(),
            running: 0,
            arrived: BTreeMap::new(),
            sources: BTreeMap::new(),
            latencies: Vec::new(),
            log: Vec::new(),
        }
    }

    fn key(mut self, key: Key, config: KeyConfig) -> Self {
        self.pool.register(key, G1, config, self.now).unwrap();
        self
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    fn arrive(&mut self, key: Key, number: u64, from: Duration, gap: Duration) {
        for n in 0..number {
            self.at(from + gap * u32::try_from(n).unwrap(), Event::Arrive(key));
        }
    }

    /// A Poisson process, the same every time.
    fn poisson(&mut self, key: Key, rate: f64, from: Duration, to: Duration) {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut time = from;
        while time < to {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let uniform = (seed >> 11) as f64 / (1_u64 << 53) as f64;
            time += Duration::from_secs_f64(-(1.0 - uniform).ln() / rate);
            self.at(time, Event::Arrive(key));
        }
    }

    fn run(&mut self, until: Duration) {
        self.drive();
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            match event {
                Event::Arrive(key) => self.demand(key),
                Event::Started(id) => self.started(id),
                Event::Used(id) => self.pool.gone(id, time),
                Event::Wake => {}
            }
            self.drive();
        }
        self.now = until;
    }

    fn demand(&mut self, key: Key) {
        let lease = self.pool.demand(&key, self.now).expect("never refused");
        self.sources.entry(key).or_default().push(lease.source);
        if lease.source == Source::Ready {
            self.latencies.push(Duration::ZERO);
            self.at(self.now + ms(50), Event::Used(lease.id));
        } else {
            self.arrived.insert(lease.id, self.now);
            self.queue.push_back(lease.id);
        }
    }

    fn started(&mut self, id: VmId) {
        self.running -= 1;
        if let Some(reason) = (self.fails)(self.now) {
            self.arrived.remove(&id);
            return self.pool.failed(id, self.now, reason);
        }
        self.pool.ready(id, self.now, self.restore);
        self.used(id, id);
    }

    /// If `claim` is one, its request has `vm` now.
    fn used(&mut self, claim: VmId, vm: VmId) {
        if let Some(arrived) = self.arrived.remove(&claim) {
            self.latencies.push(self.now - arrived);
            self.at(self.now + ms(50), Event::Used(vm));
        }
    }

    fn drive(&mut self) {
        let actions = self.pool.plan(self.now);
        assert_eq!(self.pool.plan(self.now), [], "the same plan is not made twice");
        for action in actions {
            self.log.push((self.now, action.clone()));
            match action {
                Action::Restore { id, .. } | Action::Prespawn { id, .. } => self.queue.push_front(id),
                Action::Destroy { id, .. } => {
                    self.pool.gone(id, self.now);
                    self.at(self.now, Event::Wake);
                }
            }
        }
        while self.running < self.pool.limits.max_concurrent.get() {
            let Some(id) = self.queue.pop_front() else { break };
            let lease = self.pool.begin(id);
            if let Some(lease) = lease.filter(|lease| lease.source == Source::Ready) {
                self.used(id, lease.id);
                continue;
            }
            self.running += 1;
            self.at(self.now + self.restore, Event::Started(id));
        }
        let status = self.pool.status(self.now);
        assert!(status.used_bytes <= status.budget_bytes, "{status:?}");
        // One alarm, at the front of its moment.
        self.events.remove(&(self.alarm, 0));
        if let Some(at) = self.pool.next_wakeup(self.now) {
            assert!(at > self.now);
            self.alarm = at;
            self.events.insert((at, 0), Event::Wake);
        }
    }

    fn status(&self, key: Key) -> KeyStatus<Key> {
        let mut keys = self.pool.status(self.now).keys.into_iter();
        keys.find(|status| status.key == key).expect("registered")
    }

    fn hit_ratio(&self, key: Key) -> f64 {
        let sources = &self.sources[key];
        let hits = sources.iter().filter(|source| **source == Source::Ready).count();
        hits as f64 / sources.len() as f64
    }

    fn starts(&self, key: Key) -> Vec<Duration> {
        let restores = self
            .log
            .iter()
            .filter(|(_, action)| matches!(action, Action::Restore { key: of, .. } if *of == key));
        restores.map(|(at, _)| *at).collect()
    }

    fn ends(&self, why: Why) -> usize {
        let ends = self
            .log
            .iter()
            .filter(|(_, action)| matches!(action, Action::Destroy { why: is, .. } if *is == why));
        ends.count()
    }
}

#[test]
fn steady_arrivals_find_a_vm() {
    for rate in [1.0, 10.0, 25.0] {
        let mut simulation = Simulation::new(limits(64, 4)).key("python", config(0, 1, 40));
        simulation.poisson("python", rate, secs(1), secs(30));
        simulation.run(secs(30));
        simulation.sources.clear();
        simulation.poisson("python", rate, secs(30), secs(130));
        simulation.run(secs(130));
        let ratio = simulation.hit_ratio("python");
        assert!(
            ratio >= 0.95,
            "{ratio} at {rate}/s, {:?}",
            simulation.status("python")
        );
        // The forecast does not run away either.
        let status = simulation.status("python");
        assert!(status.target as f64 <= 2.0 + rate * 0.5, "{status:?}");
    }
}

#[test]
fn a_burst_larger_than_the_pool_waits_for_restores_and_is_never_refused() {
    let mut simulation = Simulation::new(limits(64, 4)).key("python", config(8, 8, 16));
    simulation.run(secs(10));
    assert_eq!(simulation.status("python").idle, 8);

    simulation.arrive("python", 100, secs(10), Duration::ZERO);
    simulation.run(secs(10));
    let sources = &simulation.sources["python"];
    assert_eq!(
        sources.iter().filter(|source| **source == Source::Ready).count(),
        8
    );
    assert_eq!(
        sources
            .iter()
            .filter(|source| **source == Source::OnDemand)
            .count(),
        92
    );

    simulation.run(secs(20));
    let slowest = simulation.latencies.iter().max().unwrap();
    // 92 restores, four at once, and the few that the filler had in between.
    assert!(*slowest <= ms(100) * (92 / 4 + 2), "{slowest:?}");
    assert_eq!(simulation.latencies.len(), 100);
    assert!(simulation.status("python").idle >= 8);
    assert_eq!(simulation.status("python").leased, 0);
}

#[test]
fn a_quiet_pool_shrinks_to_its_minimum_and_sleeps() {
    let mut simulation = Simulation::new(limits(64, 4)).key("python", config(2, 4, 20));
    simulation.poisson("python", 30.0, secs(1), secs(20));
    simulation.run(secs(21));
    assert!(simulation.status("python").idle > 4);
    simulation.run(secs(85));
    assert_eq!(simulation.status("python").idle, 2);
    assert_eq!(simulation.pool.next_wakeup(simulation.now), None);
    assert_eq!(simulation.pool.plan(secs(9999)), []);
}

#[test]
fn a_falling_forecast_shrinks_a_pool_in_use_only_when_it_has_lasted() {
    let mut simulation = Simulation::new(limits(64, 4)).key("python", config(0, 1, 20));
    simulation.poisson("python", 30.0, secs(1), secs(20));
    simulation.arrive("python", 600, secs(20), secs(1));
    simulation.run(secs(70));
    let before = simulation.status("python").idle;
    assert_eq!(simulation.ends(Why::Idle), 0);
    simulation.sources.clear();
    simulation.run(secs(600));
    let after = simulation.status("python").idle;
    assert!(after < before && after >= 1, "{before} {after}");
    assert_eq!(simulation.hit_ratio("python"), 1.0);
}

#[test]
fn failures_back_off_with_their_reason() {
    let mut simulation = Simulation::new(limits(64, 4)).key("python", config(2, 2, 4));
    simulation.fails = |now| (now < secs(40)).then_some("No space left on device");
    simulation.run(secs(20));
    let backoff = simulation.status("python").restore_backoff.unwrap();
    assert_eq!(backoff.reason, "No space left on device");
    assert!(backoff.retry_seconds > 0.0);
    // Two at first, then one at a time after 1, 2, 4 and 8 s.
    let starts = simulation.starts("python");
    assert_eq!(starts, [0, 0, 1100, 3200, 7300, 15400].map(ms));
    // Demand is served meanwhile, as far as it can be.
    simulation.arrive("python", 1, secs(21), Duration::ZERO);
    simulation.run(secs(22));
    assert_eq!(simulation.sources["python"], [Source::OnDemand]);

    simulation.run(secs(100));
    let status = simulation.status("python");
    assert_eq!((status.idle, status.restore_backoff), (2, None));
}

#[test]
fn a_success_on_demand_ends_the_backoff() {
    let mut pool = Pool::new(limits(8, 4));
    pool.register("python", G1, config(1, 1, 1), Duration::ZERO)
        .unwrap();
    let [Action::Restore { id, .. }] = pool.plan(Duration::ZERO)[..] else {
        panic!()
    };
    pool.failed(id, Duration::ZERO, "flap");
    assert_eq!(pool.plan(ms(100)), []);
    assert_eq!(pool.next_wakeup(ms(100)), Some(secs(1)));
    let lease = pool.demand(&"python", ms(100)).unwrap();
    assert_eq!(lease.source, Source::OnDemand);
    pool.ready(lease.id, ms(200), ms(100));
    assert!(matches!(pool.plan(ms(200))[..], [Action::Restore { .. }]));
}

#[test]
fn vms_that_come_up_and_die_are_not_restored_over_and_over() {
    let mut pool = Pool::new(limits(8, 1));
    pool.register("python", G1, config(1, 1, 1), Duration::ZERO)
        .unwrap();
    let mut now = Duration::ZERO;
    let mut restores = 0;
    while now < secs(60) {
        for action in pool.plan(now) {
            let Action::Restore { id, .. } = action else {
                panic!("{action:?}")
            };
            restores += 1;
            pool.ready(id, now, ms(100));
            pool.gone(id, now + ms(10));
        }
        now += ms(100);
    }
    assert_eq!(restores, 6, "after 1, 2, 4, 8 and 16 s");
    let status = &pool.status(now).keys[0];
    assert_eq!((status.counts.died, status.idle), (6, 0));
    assert!(status.restore_backoff.as_ref().unwrap().reason.contains("died"));
}

#[test]
fn an_idle_vm_that_dies_is_replaced_and_never_handed_out() {
    let mut simulation = Simulation::new(limits(8, 4)).key("python", config(2, 2, 2));
    simulation.run(secs(30));
    let dead = simulation.pool.keys["python"].best(Tier::Restored).unwrap();
    simulation.pool.gone(dead, simulation.now);
    let first = simulation.pool.demand(&"python", simulation.now).unwrap();
    let second = simulation.pool.demand(&"python", simulation.now).unwrap();
    assert!(first.id != dead && first.source == Source::Ready);
    assert!(second.id != dead && second.source == Source::OnDemand);
    simulation.queue.push_back(second.id);
    simulation.arrived.insert(second.id, simulation.now);
    simulation.run(secs(35));
    assert_eq!(simulation.status("python").idle, 2);
}

#[test]
fn warm_before_cold_then_the_latest() {
    let mut simulation = Simulation::new(limits(8, 1)).key("python", config(3, 3, 3));
    simulation.run(secs(1));
    let [first, second, third] = [1, 2, 3].map(VmId);
    simulation.pool.warmed(first, secs(1));
    let mut next = || simulation.pool.demand(&"python", secs(2)).unwrap().id;
    assert_eq!([next(), next(), next()], [first, third, second]);
}

#[test]
fn a_waiting_vmm_serves_a_miss() {
    let two_tiers = KeyConfig {
        prespawn: 2,
        ..config(1, 1, 1)
    };
    let mut simulation = Simulation::new(limits(8, 4)).key("python", two_tiers);
    simulation.run(secs(1));
    let status = simulation.status("python");
    assert_eq!((status.idle, status.prespawned), (1, 2));
    simulation.arrive("python", 4, secs(1), Duration::ZERO);
    simulation.run(secs(1));
    use Source::{OnDemand, Prespawned, Ready};
    assert_eq!(
        simulation.sources["python"],
        [Ready, Prespawned, Prespawned, OnDemand]
    );
    simulation.run(secs(2));
    let status = simulation.status("python");
    assert_eq!((status.idle, status.prespawned), (1, 2));
}

#[test]
fn a_claim_s_turn_finds_what_has_become_ready_or_rebuilt() {
    let mut pool = Pool::new(limits(8, 2));
    pool.register("python", G1, config(1, 1, 1), Duration::ZERO)
        .unwrap();
    let [Action::Restore { id, .. }] = pool.plan(Duration::ZERO)[..] else {
        panic!()
    };
    let [first, second] = [(); 2].map(|()| pool.demand(&"python", ms(1)).unwrap());
    assert_eq!(
        (first.source, second.source),
        (Source::OnDemand, Source::OnDemand)
    );
    pool.ready(id, ms(2), ms(2));
    let lease = pool.begin(first.id).unwrap();
    assert_eq!((lease.id, lease.source), (id, Source::Ready));
    assert_eq!(pool.begin(first.id), None, "it is forgotten");
    pool.renew(&"python", G2);
    assert_eq!(
        pool.begin(second.id),
        Some(Lease {
            generation: G2,
            ..second
        })
    );
    pool.ready(second.id, ms(3), ms(1));
    assert_eq!(pool.begin(second.id), None, "it is restored");
    assert_eq!(pool.status(ms(3)).keys[0].leased, 2);
}

#[test]
fn every_key_has_its_turn_at_the_only_slot() {
    let double = KeyConfig {
        weight: NonZeroU32::new(2).unwrap(),
        ..config(0, 6, 6)
    };
    let mut pool = Pool::new(limits(99, 1));
    pool.register("double", G1, double, Duration::ZERO).unwrap();
    pool.register("single", G1, config(0, 6, 6), Duration::ZERO)
        .unwrap();
    let mut turns = Vec::new();
    for n in 0..9 {
        let [Action::Restore { id, key, .. }] = pool.plan(ms(n))[..] else {
            panic!()
        };
        turns.push(key);
        pool.ready(id, ms(n), ms(1));
        if n == 5 {
            // One that comes late is next, and has saved nothing up.
            pool.register("late", G1, config(0, 6, 6), ms(n)).unwrap();
        }
    }
    assert_eq!(turns[..6].iter().filter(|key| **key == "double").count(), 4);
    assert_eq!(turns[6..].iter().filter(|key| **key == "late").count(), 1);
}

#[test]
fn a_flooded_key_leaves_the_other_its_share() {
    let mut simulation = Simulation::new(limits(12, 4))
        .key("flooded", config(0, 2, 100))
        .key("quiet", config(0, 4, 8));
    simulation.run(secs(1));
    // Fifteen times what four restores at once can do.
    simulation.arrive("flooded", 12_000, secs(1), Duration::from_micros(1667));
    simulation.arrive("quiet", 20, secs(1), secs(1));
    simulation.run(secs(20));
    assert!(
        simulation.hit_ratio("quiet") >= 0.95,
        "{}",
        simulation.hit_ratio("quiet")
    );
    assert_eq!(simulation.status("flooded").limited_by, Some(LimitedBy::Budget));
    assert_eq!(simulation.sources["flooded"].len(), 11_398);
}

#[test]
fn what_was_borrowed_is_given_back() {
    let mut simulation = Simulation::new(limits(8, 4)).key("big", config(0, 8, 8));
    simulation.run(secs(1));
    assert_eq!(simulation.status("big").idle, 8);
    let mut simulation = simulation.key("late", config(1, 8, 8));
    simulation.run(secs(2));
    assert_eq!(simulation.status("big").idle, 4);
    assert_eq!(simulation.status("late").idle, 4);
    assert_eq!(simulation.ends(Why::Reclaimed), 4);
}

#[test]
fn a_weight_is_a_larger_part() {
    let heavy = KeyConfig {
        weight: NonZeroU32::new(3).unwrap(),
        ..config(0, 8, 8)
    };
    let mut simulation = Simulation::new(limits(8, 4))
        .key("heavy", heavy)
        .key("light", config(0, 8, 8));
    simulation.run(secs(2));
    assert_eq!(
        (simulation.status("heavy").idle, simulation.status("light").idle),
        (6, 2)
    );
}

#[test]
fn a_new_build_retires_the_old_one() {
    let mut simulation = Simulation::new(limits(4, 4)).key(
        "python",
        KeyConfig {
            prespawn: 1,
            ..config(3, 3, 4)
        },
    );
    simulation.run(secs(1));
    simulation.pool.demand(&"python", secs(1)).unwrap();
    simulation.drive();
    // Two idle, one restoring, one waiting: all of the old build.
    simulation.pool.renew(&"python", G2);
    let lease = simulation.pool.demand(&"python", secs(1)).unwrap();
    assert_eq!((lease.generation, lease.source), (G2, Source::OnDemand));
    simulation.pool.gone(lease.id, secs(1));
    simulation.run(secs(2));
    let status = simulation.status("python");
    assert_eq!(
        (status.generation, status.idle, status.prespawned),
        (Some(G2), 3, 1)
    );
    assert_eq!(simulation.ends(Why::Retired), 4);
    let lease = simulation.pool.demand(&"python", secs(2)).unwrap();
    assert_eq!((lease.generation, lease.source), (G2, Source::Ready));
}

#[test]
fn a_new_build_is_not_blamed_for_the_old_one() {
    let mut pool = Pool::new(limits(4, 4));
    pool.register("python", G1, config(2, 2, 2), Duration::ZERO)
        .unwrap();
    let [
        Action::Restore { id: first, .. },
        Action::Restore { id: second, .. },
    ] = pool.plan(Duration::ZERO)[..]
    else {
        panic!()
    };
    pool.failed(first, ms(1), "broken");
    pool.renew(&"python", G2);
    assert_eq!(pool.plan(ms(1)).len(), 2);
    pool.failed(second, ms(2), "broken as well");
    assert_eq!(pool.status(ms(2)).keys[0].restore_backoff, None);
}

#[test]
fn an_unregistered_key_is_cleared_away() {
    let mut simulation = Simulation::new(limits(4, 4)).key("python", config(3, 3, 3));
    simulation.run(secs(1));
    let lease = simulation.pool.demand(&"python", secs(1)).unwrap();
    simulation.pool.unregister(&"python");
    assert_eq!(simulation.pool.demand(&"python", secs(1)), None);
    simulation.run(secs(2));
    assert_eq!(simulation.status("python").leased, 1);
    simulation.pool.gone(lease.id, secs(2));
    simulation.run(secs(3));
    assert!(simulation.pool.status(secs(3)).keys.is_empty() && simulation.pool.owners.is_empty());
}

#[test]
fn memory_counts_until_it_is_free() {
    let mut pool = Pool::new(limits(2, 4));
    pool.register("python", G1, config(2, 2, 2), Duration::ZERO)
        .unwrap();
    for action in pool.plan(Duration::ZERO) {
        let Action::Restore { id, .. } = action else {
            panic!()
        };
        pool.ready(id, Duration::ZERO, ms(1));
    }
    pool.renew(&"python", G2);
    let ends = pool.plan(ms(1));
    assert!(ends.iter().all(|action| matches!(
        action,
        Action::Destroy {
            why: Why::Retired,
            ..
        }
    )));
    assert_eq!(ends.len(), 2);
    assert_eq!(pool.plan(ms(2)), []);
    let Action::Destroy { id, .. } = ends[0] else {
        panic!()
    };
    pool.gone(id, ms(3));
    assert!(matches!(
        pool.plan(ms(3))[..],
        [Action::Restore { generation: G2, .. }]
    ));
}

#[test]
fn a_measured_cost_shrinks_the_pool_until_it_fits() {
    let mut simulation = Simulation::new(limits(8, 4)).key("python", config(2, 8, 8));
    simulation.run(secs(1));
    simulation.pool.observe_cost(&"python", 2 * VM);
    simulation.run(secs(2));
    let status = simulation.status("python");
    assert_eq!((status.idle, status.target, status.allotted), (4, 8, 4));
    assert_eq!(status.limited_by, Some(LimitedBy::Budget));
    assert_eq!(simulation.ends(Why::Budget), 4);
    simulation.pool.set_budget(0);
    simulation.drive();
    assert_eq!(simulation.status("python").idle, 0);
    let lease = simulation.pool.demand(&"python", secs(2)).unwrap();
    assert_eq!(
        lease.source,
        Source::OnDemand,
        "the pool is empty, the service is not"
    );
}

#[test]
fn one_slot_serves_both_the_filler_and_the_misses() {
    let mut simulation = Simulation::new(limits(8, 1)).key("python", config(2, 2, 2));
    simulation.arrive("python", 30, Duration::ZERO, Duration::ZERO);
    simulation.run(secs(5));
    assert_eq!(simulation.latencies.len(), 30);
    assert_eq!(simulation.status("python").idle, 2);
}

#[test]
fn a_configuration_that_cannot_be_met_is_refused_with_its_cause() {
    let mut pool = Pool::new(limits(8, 4));
    let now = Duration::ZERO;
    let refused = pool.register("python", G1, config(3, 2, 9), now).unwrap_err();
    assert_eq!(
        refused,
        ConfigError::Order {
            min: 3,
            target: 2,
            max: 9
        }
    );
    let refused = pool.register("python", G1, config(0, 9, 9), now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "A pool of 9 VMs and 0 waiting VMMs needs 180 MiB and its memory budget is 160 MiB; \
         lower the target or raise the budget"
    );
    assert!(pool.status(now).keys.is_empty());
    // A forecast over the budget is no error, a target is.
    pool.register("python", G1, config(5, 8, 1000), now).unwrap();
    let refused = pool.register("rust", G1, config(4, 4, 4), now).unwrap_err();
    assert_eq!(
        refused,
        ConfigError::MinimaOverBudget {
            needed: 9 * VM,
            budget: 8 * VM
        }
    );
    // A key does not compete with what it was before.
    pool.register("python", G1, config(8, 8, 8), now).unwrap();
}

#[test]
fn the_status_is_json_with_units_in_its_names() {
    let mut pool = Pool::new(limits(8, 4));
    pool.register("python", G1, config(1, 2, 3), Duration::ZERO)
        .unwrap();
    let _ = pool.plan(Duration::ZERO);
    let json = serde_json::to_value(pool.status(Duration::ZERO)).unwrap();
    assert_eq!(json["budget_bytes"], 8 * VM);
    assert_eq!(json["used_bytes"], 2 * VM);
    let key = &json["keys"][0];
    assert_eq!((&key["key"], &key["generation"]), (&"python".into(), &1.into()));
    assert_eq!(
        (&key["restoring"], &key["idle"], &key["target"]),
        (&2.into(), &0.into(), &2.into())
    );
    assert_eq!(
        (&key["restore_seconds"], &key["restore_backoff"]),
        (&0.1.into(), &serde_json::Value::Null)
    );
}
