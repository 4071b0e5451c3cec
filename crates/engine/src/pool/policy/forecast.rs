//! How much will be asked for while one VM is restored, and the running figures that this and the budget rest on.

use std::time::Duration;

/// Over which arrivals are counted: a burst shows within seconds.
const WINDOW: f64 = 5.0;
/// Over which the highest rate seen is forgotten: the next burst is not a surprise, and the pool does not follow every ripple.
const MEMORY: f64 = 60.0;
/// Standard deviations of a Poisson process kept ready above its mean: with three, a few requests in a thousand find none.
const HEADROOM: f64 = 3.0;

/// A key's arrivals.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Each counts 1 when it comes and fades with `WINDOW`; at a steady rate the sum tends to rate × `WINDOW`.
    recent: f64,
    /// The highest rate so far, faded with `MEMORY`.
    peak: f64,
    last: Duration,
}

impl Arrivals {
    /// None yet. A key's first `idle_after` begins now, as if it had been asked for.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            recent: 0.0,
            peak: 0.0,
            last: now,
        }
    }

    pub(super) fn count(&mut self, now: Duration) {
        self.recent = self.faded(self.recent, WINDOW, now) + 1.0;
        self.peak = self.rate(now).max(self.recent / WINDOW);
        self.last = self.last.max(now);
    }

    /// When the last one was.
    pub(super) fn last(&self) -> Duration {
        self.last
    }

    /// Per second: quick to grow, slow to fall.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        self.faded(self.peak, MEMORY, now)
    }

    fn faded(&self, value: f64, over: f64, now: Duration) -> f64 {
        value * (-now.saturating_sub(self.last).as_secs_f64() / over).exp()
    }
}

/// VMs to keep ready for `rate` arrivals per second, each replaced within `refill`.
pub(super) fn stock(rate: f64, refill: Duration) -> usize {
    let expected = rate * refill.as_secs_f64();
    // Saturates; the pool's maximum is far below.
    (expected + HEADROOM * expected.sqrt()).ceil() as usize
}

/// A duration as it has been lately: what was configured until the first measurement, then a moving average.
#[derive(Debug)]
pub(super) struct Took {
    value: Duration,
    measured: bool,
}

impl Took {
    pub(super) fn expected(value: Duration) -> Self {
        Self {
            value,
            measured: false,
        }
    }

    pub(super) fn observe(&mut self, took: Duration) {
        self.value = if self.measured {
            self.value * 3 / 4 + took / 4
        } else {
            took
        };
        self.measured = true;
    }

    /// Replaces the expectation, if there is no better figure.
    pub(super) fn configure(&mut self, value: Duration) {
        if !self.measured {
            self.value = value;
        }
    }

    pub(super) fn value(&self) -> Duration {
        self.value
    }
}

/// Memory of one VM: what was configured until the first measurement. After it, a rise counts at once, because the budget is a
/// promise, and a fall slowly, or a figure that wavers would make the pool destroy and restore in turns.
#[derive(Debug)]
pub(super) struct Bytes {
    value: u64,
    measured: bool,
}

impl Bytes {
    pub(super) fn expected(value: u64) -> Self {
        Self {
            value,
            measured: false,
        }
    }

    pub(super) fn observe(&mut self, bytes: u64) {
        let bytes = bytes.max(1);
        self.value = if self.measured && bytes < self.value {
            self.value - (self.value - bytes).div_ceil(8)
        } else {
            bytes
        };
        self.measured = true;
    }

    /// Replaces the expectation, if there is no better figure.
    pub(super) fn configure(&mut self, value: u64) {
        if !self.measured {
            self.value = value;
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_then_forgotten() {
        let mut arrivals = Arrivals::new(Duration::ZERO);
        for n in 0..3000 {
            arrivals.count(Duration::from_millis(100 * n));
        }
        let end = Duration::from_secs(300);
        let rate = arrivals.rate(end);
        assert!((9.0..=11.5).contains(&rate), "{rate}");
        assert!(arrivals.rate(end + Duration::from_secs(10)) > 8.0);
        assert!(arrivals.rate(end + Duration::from_secs(600)) < 0.01);
    }

    #[test]
    fn stock_follows_rate_and_refill_time() {
        let refill = Duration::from_millis(100);
        assert_eq!(stock(0.0, refill), 0);
        assert_eq!(stock(0.2, refill), 1);
        assert_eq!(stock(10.0, refill), 4);
        assert_eq!(stock(10.0, refill * 4), 10);
        assert_eq!(stock(f64::INFINITY, refill), usize::MAX);
    }

    #[test]
    fn memory_rises_at_once_and_falls_slowly() {
        let mut bytes = Bytes::expected(64);
        bytes.observe(16);
        assert_eq!(bytes.value(), 16);
        bytes.observe(32);
        assert_eq!(bytes.value(), 32);
        bytes.observe(16);
        assert_eq!(bytes.value(), 30);
        for _ in 0..100 {
            bytes.observe(0);
        }
        assert_eq!(bytes.value(), 1);
    }
}
