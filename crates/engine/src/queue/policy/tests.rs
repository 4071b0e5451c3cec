//! The queue against simulated tenants, on a clock that only the simulation moves.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(100_000);
const SERVICE: Duration = Duration::from_millis(100);

fn queue(concurrent: usize, capacity: usize) -> Queue<u8> {
    Queue::new(Config {
        concurrent: NonZeroUsize::new(concurrent).unwrap(),
        capacity,
        service_time: SERVICE,
    })
}

fn share(weight: u32) -> Share {
    Share {
        weight: NonZeroU32::new(weight).unwrap(),
        concurrent: 1000,
        capacity: 10_000,
    }
}

fn enter(queue: &mut Queue<u8>, tenant: u8) -> Ticket {
    let entered = queue.enter(NOW, &tenant, share(1), LONG).unwrap();
    assert_eq!(entered.displaced, None);
    entered.ticket
}

#[test]
fn a_tenant_s_jobs_keep_their_order() {
    let mut queue = queue(1, 9);
    let tickets: Vec<_> = (0..3).map(|_| enter(&mut queue, 1)).collect();
    for ticket in tickets {
        assert_eq!(queue.next(SECOND), Some(ticket));
        assert_eq!(queue.next(SECOND), None, "one runs");
        queue.leave(ticket, SECOND);
    }
    assert_eq!((queue.waiting(), queue.running()), (0, 0));
    assert!(queue.tenants.len() <= 1);
}

/// Serves `count` jobs, each for as long as its tenant's take, and counts them by tenant.
fn served(queue: &mut Queue<u8>, count: usize, takes: impl Fn(u8) -> Duration) -> BTreeMap<u8, usize> {
    let (mut now, mut served) = (Duration::ZERO, BTreeMap::new());
    for _ in 0..count {
        let ticket = queue.next(now).unwrap();
        let tenant = queue.running[&ticket];
        *served.entry(tenant).or_default() += 1;
        now += takes(tenant);
        queue.leave(ticket, now);
    }
    served
}

#[test]
fn slots_that_are_spoken_for_are_taken() {
    let mut queue = queue(2, 0);
    enter(&mut queue, 1);
    enter(&mut queue, 2);
    // Nobody has asked yet whose turn it is.
    assert!(queue.enter(NOW, &3, share(1), LONG).is_err());
}

#[test]
fn weights_divide_the_time() {
    let mut queue = queue(1, 1000);
    for _ in 0..100 {
        queue.enter(NOW, &1, share(1), LONG).unwrap();
        queue.enter(NOW, &2, share(3), LONG).unwrap();
    }
    assert_eq!(
        served(&mut queue, 80, |_| SERVICE),
        BTreeMap::from([(1, 20), (2, 60)])
    );
}

#[test]
fn who_runs_long_runs_less_often() {
    let mut queue = queue(1, 1000);
    for _ in 0..200 {
        enter(&mut queue, 1);
        enter(&mut queue, 2);
    }
    let served = served(&mut queue, 110, |tenant| {
        SERVICE * if tenant == 1 { 10 } else { 1 }
    });
    assert!((8..=14).contains(&served[&1]), "{served:?}");
}

#[test]
fn unused_time_is_not_saved_up() {
    let mut queue = queue(1, 1000);
    for _ in 0..100 {
        enter(&mut queue, 1);
    }
    served(&mut queue, 50, |_| SERVICE);
    for _ in 0..100 {
        enter(&mut queue, 2);
    }
    let served = served(&mut queue, 20, |_| SERVICE);
    assert!((9..=11).contains(&served[&1]), "{served:?}");
}

#[test]
fn one_tenant_s_long_jobs_do_not_take_all_slots() {
    let mut queue = queue(8, 1000);
    // What it ran before tells nothing.
    enter(&mut queue, 1);
    let first = queue.next(NOW).unwrap();
    queue.leave(first, SERVICE);
    for _ in 0..20 {
        enter(&mut queue, 1);
    }
    for _ in 0..900 {
        enter(&mut queue, 2);
    }
    // Those of tenant 2 take 100 ms each, those of tenant 1 do not end.
    let (mut ends, mut long) = (BTreeSet::new(), 0);
    for step in 1..=100_u32 {
        let now = SERVICE * step;
        while let Some(&(_, ticket)) = ends.first().filter(|(end, _)| *end <= now) {
            ends.pop_first();
            queue.leave(ticket, now);
        }
        while let Some(ticket) = queue.next(now) {
            if queue.running[&ticket] == 1 {
                long += 1;
            } else {
                ends.insert((now + SERVICE, ticket));
            }
        }
    }
    // Half of them, and what it got before that was known of it.
    assert!((3..=6).contains(&long), "{long} of 8");
}

#[test]
fn estimates_that_were_wrong_move_nobody() {
    let mut queue = queue(8, 1000);
    enter(&mut queue, 2);
    let long = queue.next(NOW).unwrap();
    queue.leave(long, 3600 * SECOND);
    let now = 3600 * SECOND;
    for _ in 0..100 {
        queue.enter(now, &2, share(1), LONG).unwrap();
    }
    // Each was thought to take minutes, and ends at once.
    let mut last = now;
    for _ in 0..5 {
        let tickets: Vec<_> = std::iter::from_fn(|| queue.next(last)).collect();
        last += SERVICE;
        tickets.into_iter().for_each(|ticket| queue.leave(ticket, last));
    }
    for _ in 0..40 {
        queue.enter(last, &1, share(1), LONG).unwrap();
    }
    let served = served(&mut queue, 40, |_| SERVICE);
    assert!(served[&1] >= 19, "{served:?}");
}

#[test]
fn who_ran_alone_owes_nothing_for_it() {
    let mut queue = queue(2, 1000);
    for _ in 0..50 {
        enter(&mut queue, 1);
    }
    let alone: Vec<_> = std::iter::from_fn(|| queue.next(NOW)).collect();
    let now = 1000 * SECOND;
    for _ in 0..50 {
        queue.enter(now, &2, share(1), LONG).unwrap();
    }
    alone.into_iter().for_each(|ticket| queue.leave(ticket, now));
    let served = served(&mut queue, 20, |_| SERVICE);
    assert!(
        (8..=12).contains(&served.get(&1).copied().unwrap_or_default()),
        "{served:?}"
    );
}

#[test]
fn limits_of_a_tenant_hold() {
    let mut queue = queue(4, 100);
    let few = Share {
        weight: NonZeroU32::MIN,
        concurrent: 1,
        capacity: 2,
    };
    let first = queue.enter(NOW, &1, few, LONG).unwrap().ticket;
    assert_eq!(queue.next(SECOND), Some(first));
    for _ in 0..2 {
        queue.enter(NOW, &1, few, LONG).unwrap();
    }
    assert!(matches!(
        queue.enter(NOW, &1, few, LONG),
        Err(Refused::TenantFull { waiting: 2, .. })
    ));
    assert_eq!(queue.next(SECOND), None, "it may run one at a time");
    let other = enter(&mut queue, 2);
    assert_eq!(queue.next(SECOND), Some(other), "which holds up nobody else");
}

#[test]
fn what_cannot_be_in_time_is_refused_at_once() {
    let mut queue = queue(1, 100);
    for _ in 0..11 {
        enter(&mut queue, 1);
    }
    queue.next(SECOND).unwrap();
    // 10 wait, and it: 1.1 s.
    let refused = queue.enter(NOW, &1, share(1), SECOND).unwrap_err();
    assert!(matches!(refused, Refused::TooLate { .. }), "{refused}");
    assert!((1.0..1.3).contains(&refused.wait().as_secs_f64()), "{refused}");
    // Of another tenant only one would be before it.
    queue.enter(NOW, &2, share(1), SECOND).unwrap();
}

#[test]
fn who_floods_loses_to_himself() {
    let mut queue = queue(1, 10);
    let first = enter(&mut queue, 1);
    assert_eq!(queue.next(SECOND), Some(first));
    let last = (0..10).map(|_| enter(&mut queue, 1)).last();
    assert!(matches!(
        queue.enter(NOW, &1, share(1), LONG),
        Err(Refused::Full { waiting: 10, .. })
    ));
    let entered = queue.enter(NOW, &2, share(1), LONG).unwrap();
    assert_eq!(entered.displaced, last);
    assert_eq!(queue.waiting(), 10);
    for _ in 0..4 {
        assert!(queue.enter(NOW, &2, share(1), LONG).unwrap().displaced.is_some());
    }
    assert!(queue.enter(NOW, &2, share(1), LONG).is_err(), "half is its part");
}

/// Exponential times between arrivals.
struct Arrivals(u64);

impl Arrivals {
    #[expect(clippy::cast_precision_loss, reason = "a random number")]
    fn after(&mut self, mean: Duration) -> Duration {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let uniform = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(-(1.0 - uniform).ln())
    }
}

const TENANTS: u8 = 8;
const SERVERS: usize = 4;

/// The 95th percentile of what the jobs of all tenants but the first waited, where each brings its part of all that can be served,
/// and the first `flood` times that. Also how many of theirs were refused.
fn others_wait(flood: u32) -> (Duration, usize) {
    let mut queue = queue(SERVERS, 400);
    let mut random = Arrivals(0x9e37_79b9_7f4a_7c15);
    let each = SERVICE * u32::from(TENANTS) / u32::try_from(SERVERS).unwrap();
    let mean = |tenant: u8| if tenant == 0 { each / flood } else { each };
    let mut arrivals: BTreeSet<(Duration, u8)> = (0..TENANTS).map(|t| (random.after(mean(t)), t)).collect();
    let (mut ends, mut asked) = (BTreeSet::new(), BTreeMap::new());
    let (mut waits, mut refused) = (Vec::new(), 0);
    while let Some(&(arrival, tenant)) = arrivals.first().filter(|(at, _)| *at < 600 * SECOND) {
        let now = match ends.first() {
            Some(&(end, ticket)) if end <= arrival => {
                ends.pop_first();
                queue.leave(ticket, end);
                end
            }
            _ => {
                arrivals.pop_first();
                arrivals.insert((arrival + random.after(mean(tenant)), tenant));
                match queue.enter(arrival, &tenant, share(1), LONG) {
                    Ok(entered) => drop(asked.insert(entered.ticket, (arrival, tenant))),
                    Err(_) if tenant > 0 => refused += 1,
                    Err(_) => {}
                }
                arrival
            }
        };
        while let Some(ticket) = queue.next(now) {
            let (since, tenant) = asked[&ticket];
            if tenant > 0 {
                waits.push(now - since);
            }
            ends.insert((now + SERVICE, ticket));
        }
    }
    waits.sort_unstable();
    (waits[waits.len() * 95 / 100], refused)
}

#[test]
fn a_flood_of_one_tenant_is_hardly_felt_by_the_others() {
    let (alone, _) = others_wait(1);
    let (flooded, refused) = others_wait(20);
    assert!(
        flooded <= 2 * alone + SERVICE,
        "{flooded:?}, without the flood {alone:?}"
    );
    assert_eq!(refused, 0);
}

proptest! {
    #[test]
    fn counts_stay_right(steps in proptest::collection::vec((0_u8..4, 0_u8..4, 1_u32..5), 1..200)) {
        let mut queue = queue(2, 5);
        let mut now = Duration::ZERO;
        let (mut waiting, mut running) = (BTreeSet::new(), BTreeSet::new());
        for (step, tenant, number) in steps {
            now += SERVICE / number;
            match step {
                0 | 1 => if let Ok(entered) = queue.enter(now, &tenant, share(number), LONG) {
                    waiting.insert(entered.ticket);
                    if let Some(displaced) = entered.displaced {
                        prop_assert!(waiting.remove(&displaced));
                    }
                },
                2 => if let Some(ticket) = queue.next(now) {
                    prop_assert!(waiting.remove(&ticket));
                    running.insert(ticket);
                },
                _ => {
                    let all: Vec<_> = waiting.iter().chain(&running).copied().collect();
                    if let Some(&ticket) = all.get(usize::from(tenant)) {
                        waiting.remove(&ticket);
                        running.remove(&ticket);
                        queue.leave(ticket, now);
                        queue.leave(ticket, now);
                    }
                }
            }
            prop_assert_eq!((queue.waiting(), queue.running()), (waiting.len(), running.len()));
            prop_assert!(running.len() <= 2 && waiting.len() <= 5 + 2);
        }
        // Whoever waits has his turn in the end.
        while let Some(ticket) = running.pop_first().or_else(|| queue.next(now)) {
            waiting.remove(&ticket);
            queue.leave(ticket, now);
        }
        prop_assert_eq!(waiting.len(), 0);
    }
}
