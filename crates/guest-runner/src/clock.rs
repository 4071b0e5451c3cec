//! The two clocks: one that jobs are measured by, one that tells how the guest came up.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time passing, for deadlines. The same for all processes of the guest, so a stage's reading can be compared.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// Since the kernel started, in milliseconds.
pub(crate) fn since_boot() -> f64 {
    read(ClockId::Boottime).as_secs_f64() * 1000.0
}

/// The time of day, in nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    u64::try_from(read(ClockId::Realtime).as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
