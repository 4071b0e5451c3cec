//! Whose job runs next, and which jobs there is no room for. Pure: the caller brings the clock and does what is said.
//!
//! ```text
//! enter ─► refused: full, or it would wait too long
//!    └──► waiting, in its tenant's order ─► next: of the tenant that has used least ─► running ─► leave
//! ```
//!
//! Fair queueing by virtual time (Demers, Keshav and Shenker, *Analysis and Simulation of a Fair Queueing Algorithm*, 1989), of
//! machine time rather than of packets: each tenant has a clock that runs by the time its jobs take, divided by its weight, and
//! the tenant whose clock is furthest behind is next. How long a job takes is known only afterwards, so one that runs counts as
//! what its tenant's jobs took lately, or as what it has taken already if that is more. A tenant that comes back starts where the
//! others are, by what they have really used; so does one that was at its own limit: time that it did not use is not saved up.
//!
//! Room is fair too: where the queue is full, a job takes the place of the last one of the tenant with the longest queue for
//! its weight (McKenney, *Stochastic Fairness Queueing*, 1990), so that who floods loses to himself.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// The newest measurement's part in an average.
const NEWEST: f64 = 0.125;

/// What holds for all tenants together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Jobs that run at a time.
    pub concurrent: NonZeroUsize,
    /// Jobs that may wait.
    pub capacity: usize,
    /// How long a job takes, until one was seen.
    pub service_time: Duration,
}

/// What one tenant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its part of the machine time relative to the other tenants that want some.
    pub weight: NonZeroU32,
    /// Jobs of it that run at a time.
    pub concurrent: usize,
    /// Jobs of it that may wait.
    pub capacity: usize,
}

/// One job, from [`Queue::enter`] to [`Queue::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A job that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// The job.
    pub ticket: Ticket,
    /// The job that had to go for it; it has left.
    pub displaced: Option<Ticket>,
}

/// Why a job was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many jobs wait as may, and none of a tenant that has more than its part.
    #[error("the queue is full: {waiting} jobs wait")]
    Full {
        /// How many.
        waiting: usize,
        /// How long this one would have waited.
        wait: Duration,
    },
    /// As many jobs of this tenant wait as may.
    #[error("{waiting} jobs of this tenant wait already")]
    TenantFull {
        /// How many.
        waiting: usize,
        /// How long this one would have waited.
        wait: Duration,
    },
    /// It would wait longer than it can.
    #[error("it would wait for about {:.1} s, which is over its {:.1} s", wait.as_secs_f64(), patience.as_secs_f64())]
    TooLate {
        /// How long it would have waited.
        wait: Duration,
        /// How long it can.
        patience: Duration,
    },
    /// It has waited as long as it can.
    #[error("its turn did not come within {:.1} s", waited.as_secs_f64())]
    TimedOut {
        /// How long.
        waited: Duration,
        /// How long one that came now would wait.
        wait: Duration,
    },
    /// It had a place, which one of a tenant with fewer jobs took.
    #[error("it had to give up its place to a tenant with fewer jobs, after {:.1} s", waited.as_secs_f64())]
    Displaced {
        /// After how long.
        waited: Duration,
        /// How long one that came now would wait.
        wait: Duration,
    },
    /// Nobody gets a turn any more.
    #[error("the service is being stopped")]
    Closed,
}

impl Refused {
    /// How long the job would wait: about when it makes sense to ask again.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        match *self {
            Self::Full { wait, .. }
            | Self::TenantFull { wait, .. }
            | Self::TooLate { wait, .. }
            | Self::TimedOut { wait, .. }
            | Self::Displaced { wait, .. } => wait,
            Self::Closed => Duration::ZERO,
        }
    }
}

/// The queue. `T` names a tenant.
#[derive(Debug)]
pub struct Queue<T> {
    config: Config,
    tenants: BTreeMap<T, Tenant>,
    /// Whose each is.
    running: BTreeMap<Ticket, T>,
    waiting: usize,
    issued: u64,
    /// What a tenant whose turn it was had used by then, the highest so far, in weighted seconds.
    clock: f64,
    /// How long a job takes, in seconds.
    service_time: f64,
}

#[derive(Debug)]
struct Tenant {
    share: Share,
    waiting: VecDeque<Ticket>,
    running: BTreeMap<Ticket, Running>,
    /// What its jobs that have ended took, in weighted seconds.
    used: f64,
    /// How long a job of it takes, in seconds.
    service_time: f64,
}

#[derive(Debug)]
struct Running {
    since: Duration,
    /// How long it was thought to take, in seconds.
    expected: f64,
}

impl Running {
    fn took(&self, now: Duration) -> f64 {
        now.saturating_sub(self.since).as_secs_f64()
    }
}

impl Tenant {
    fn weight(&self) -> f64 {
        f64::from(self.share.weight.get())
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn is_at_its_limit(&self) -> bool {
        self.running.len() >= self.share.concurrent
    }

    /// What it has used, in weighted seconds.
    fn consumed(&self, now: Duration) -> f64 {
        let running = self.running.values().map(|running| running.took(now));
        self.used + running.sum::<f64>() / self.weight()
    }

    /// The same, with what its running jobs will still take.
    fn claimed(&self, now: Duration) -> f64 {
        let running = self.running.values();
        let running = running.map(|running| running.took(now).max(running.expected));
        self.used + running.sum::<f64>() / self.weight()
    }

    /// How long its queue is for its weight.
    fn backlog(&self) -> f64 {
        backlog(self.waiting.len(), self.share)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a queue is short")]
fn backlog(waiting: usize, share: Share) -> f64 {
    waiting as f64 / f64::from(share.weight.get())
}

impl<T: Ord + Clone> Queue<T> {
    /// A queue in which nobody waits.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tenants: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: 0,
            issued: 0,
            clock: 0.0,
            service_time: config.service_time.as_secs_f64(),
        }
    }

    /// How many jobs wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Takes in a job of `tenant` that can wait for `patience`. It waits until [`next`](Self::next) names it.
    ///
    /// # Errors
    /// There is no room for it, or it would wait longer than it can.
    pub fn enter(
        &mut self,
        now: Duration,
        tenant: &T,
        share: Share,
        patience: Duration,
    ) -> Result<Entered, Refused> {
        let wait = self.predicted_wait(tenant, share);
        let own = self.tenants.get(tenant).map_or(0, |tenant| tenant.waiting.len());
        if self.starts_at_once(tenant, share) {
            return Ok(self.admit(now, tenant, share, None));
        }
        if own >= share.capacity {
            return Err(Refused::TenantFull { waiting: own, wait });
        }
        if wait > patience {
            return Err(Refused::TooLate { wait, patience });
        }
        let mut displaced = None;
        if self.waiting >= self.config.capacity {
            displaced = self.displace(tenant, share);
            if displaced.is_none() {
                let waiting = self.waiting;
                return Err(Refused::Full { waiting, wait });
            }
        }
        Ok(self.admit(now, tenant, share, displaced))
    }

    /// The job whose turn it is now, if there is one; it runs from now on.
    pub fn next(&mut self, now: Duration) -> Option<Ticket> {
        if self.running.len() >= self.config.concurrent.get() {
            return None;
        }
        let may = |tenant: &Tenant| !tenant.waiting.is_empty() && !tenant.is_at_its_limit();
        let eligible = self.tenants.iter_mut().filter(|(_, tenant)| may(tenant));
        let claims = eligible.map(|(name, tenant)| (tenant.claimed(now), name, tenant));
        let (_, name, tenant) = claims.min_by(|(one, ..), (other, ..)| one.total_cmp(other))?;
        let ticket = tenant.waiting.pop_front()?;
        self.waiting -= 1;
        self.clock = self.clock.max(tenant.consumed(now));
        let running = Running {
            since: now,
            expected: tenant.service_time,
        };
        tenant.running.insert(ticket, running);
        self.running.insert(ticket, name.clone());
        Some(ticket)
    }

    /// A job has ended, or does not want to wait any longer. One that has left already does not count.
    pub fn leave(&mut self, ticket: Ticket, now: Duration) {
        let Some(name) = self.running.remove(&ticket) else {
            self.remove_waiting(ticket);
            return;
        };
        let Some(tenant) = self.tenants.get_mut(&name) else {
            return;
        };
        if tenant.is_at_its_limit() {
            tenant.used = tenant.used.max(self.clock);
        }
        let took = tenant
            .running
            .remove(&ticket)
            .map_or(0.0, |running| running.took(now));
        tenant.used += took / tenant.weight();
        // One that took no time at all did not run.
        if took > 0.0 {
            tenant.service_time += NEWEST * (took - tenant.service_time);
            self.service_time += NEWEST * (took - self.service_time);
        }
        self.forget(&name);
    }

    /// How long a job of `tenant` that came now would wait: until all that would be served before it have had their turns, each
    /// as long as a job takes on average. Others are before it in proportion to their weights.
    #[expect(clippy::cast_precision_loss, reason = "a queue is short")]
    #[must_use]
    pub fn predicted_wait(&self, tenant: &T, share: Share) -> Duration {
        if self.starts_at_once(tenant, share) {
            return Duration::ZERO;
        }
        let known = self.tenants.get(tenant);
        let own = known.map_or(0, |tenant| tenant.waiting.len());
        let own_time = known.map_or(self.service_time, |tenant| tenant.service_time);
        let rounds = backlog(own + 1, share);
        let others = self.tenants.iter().filter(|(name, _)| *name != tenant);
        let before = others.map(|(_, other)| (other.waiting.len() as f64).min(rounds * other.weight()));
        let all = self.config.concurrent.get();
        let at_a_time = all.min(share.concurrent.max(1)) as f64;
        let own_time = (own + 1) as f64 * own_time;
        let shared = (before.sum::<f64>() * self.service_time + own_time) / all as f64;
        Duration::try_from_secs_f64(shared.max(own_time / at_a_time)).unwrap_or(Duration::MAX)
    }

    /// Nothing is before it, and there is room to run.
    fn starts_at_once(&self, tenant: &T, share: Share) -> bool {
        let own = self.tenants.get(tenant);
        let own_waiting = own.is_some_and(|tenant| !tenant.waiting.is_empty());
        let own_running = own.map_or(0, |tenant| tenant.running.len());
        // Those that will be named as soon as somebody asks.
        let startable = |tenant: &Tenant| {
            let more = tenant.share.concurrent.saturating_sub(tenant.running.len());
            more.min(tenant.waiting.len())
        };
        let named = self.tenants.values().map(startable).sum::<usize>();
        let taken = self.running.len().saturating_add(named);
        taken < self.config.concurrent.get() && !own_waiting && own_running < share.concurrent
    }

    fn admit(&mut self, now: Duration, tenant: &T, share: Share, displaced: Option<Ticket>) -> Entered {
        let ticket = Ticket(self.issued);
        self.issued += 1;
        self.waiting += 1;
        // Where the others are, at the least.
        let busy = self.tenants.values().filter(|tenant| !tenant.is_idle());
        let least = busy.map(|tenant| tenant.consumed(now)).min_by(f64::total_cmp);
        let clock = self.clock.max(least.unwrap_or_default());
        let service_time = self.service_time;
        let tenant = self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant {
            share,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            used: clock,
            service_time,
        });
        if tenant.is_idle() {
            tenant.used = tenant.used.max(clock);
        }
        tenant.share = share;
        tenant.waiting.push_back(ticket);
        Entered { ticket, displaced }
    }

    /// Sends the last job away of the tenant with the longest queue for its weight, if that is longer than that of `tenant` would
    /// be.
    fn displace(&mut self, tenant: &T, share: Share) -> Option<Ticket> {
        let own = self.tenants.get(tenant).map_or(0, |tenant| tenant.waiting.len());
        let others = self.tenants.iter_mut().filter(|(name, _)| *name != tenant);
        let (name, longest) =
            others.max_by(|(_, one), (_, other)| one.backlog().total_cmp(&other.backlog()))?;
        if longest.backlog() <= backlog(own + 1, share) {
            return None;
        }
        let ticket = longest.waiting.pop_back()?;
        let name = name.clone();
        self.waiting -= 1;
        self.forget(&name);
        Some(ticket)
    }

    fn remove_waiting(&mut self, ticket: Ticket) {
        let found = self.tenants.iter_mut().find_map(|(name, tenant)| {
            let position = tenant.waiting.binary_search(&ticket).ok()?;
            tenant.waiting.remove(position);
            Some(name.clone())
        });
        if let Some(name) = found {
            self.waiting -= 1;
            self.forget(&name);
        }
    }

    /// Keeps no account of a tenant that has nothing here and owes nothing.
    fn forget(&mut self, name: &T) {
        let clock = self.clock;
        if self
            .tenants
            .get(name)
            .is_some_and(|tenant| tenant.is_idle() && tenant.used <= clock)
        {
            self.tenants.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
