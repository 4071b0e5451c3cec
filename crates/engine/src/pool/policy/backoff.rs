//! When to try again after a failure.

use std::time::Duration;

use super::config::BackoffPolicy;

impl BackoffPolicy {
    /// The wait after that many failures in a row.
    fn delay(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap.max(self.base))
    }
}

/// Failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Duration,
    reason: String,
}

impl Backoff {
    /// Whether one more may be started. After a failure it is one at a time until one succeeds, so that what is broken does not
    /// take every slot each time that the wait is over.
    pub(super) fn permits(&self, now: Duration, under_way: usize) -> bool {
        self.failures == 0 || (now >= self.until && under_way == 0)
    }

    /// Failures of what was under way together are one failure: only the first of them lengthens the wait.
    pub(super) fn fail(&mut self, now: Duration, reason: String, policy: BackoffPolicy) {
        if self.failures == 0 || now >= self.until {
            self.failures = self.failures.saturating_add(1);
            self.until = now.saturating_add(policy.delay(self.failures));
        }
        self.reason = reason;
    }

    /// Takes a success back that did not last: the streak goes on from where it was before.
    pub(super) fn resume(&mut self, failures: u32) {
        self.failures = self.failures.max(failures);
    }

    /// Ends the streak; returns how long it was.
    pub(super) fn succeed(&mut self) -> u32 {
        std::mem::take(self).failures
    }

    /// In a row, 0 if the last one succeeded.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// When the wait ends, if it has not.
    pub(super) fn ends(&self, now: Duration) -> Option<Duration> {
        (self.failures > 0 && self.until > now).then_some(self.until)
    }

    /// Of the last failure; empty if there was none.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(10),
    };

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let mut now = Duration::ZERO;
        for wait in [1, 2, 4, 8, 10, 10] {
            backoff.fail(now, "no".to_owned(), POLICY);
            let until = now + Duration::from_secs(wait);
            assert_eq!(backoff.ends(now), Some(until));
            assert!(!backoff.permits(until - Duration::from_nanos(1), 0));
            assert!(backoff.permits(until, 0) && !backoff.permits(until, 1));
            now = until;
        }
        assert_eq!(backoff.succeed(), 6);
        assert!(backoff.permits(Duration::ZERO, 9));
        assert_eq!(POLICY.delay(u32::MAX), POLICY.cap);
    }

    #[test]
    fn failures_of_one_moment_count_once() {
        let mut backoff = Backoff::default();
        for reason in ["one", "two"] {
            backoff.fail(Duration::ZERO, reason.to_owned(), POLICY);
        }
        assert_eq!((backoff.failures(), backoff.reason()), (1, "two"));
    }
}
