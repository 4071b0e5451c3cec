//! A clone of a frozen machine becomes one of its own: random numbers, clock, names. Until it has, no job is to run in it;
//! the host sees to that, and asks for it on the control port.
//!
//! The interpreters that wait take random numbers of their own when they are released, from the kernel that was made
//! different here. The kernel makes its boot id when it is first read, and nothing reads it before.

use protocol::control::{Confirmed, Identity};
use protocol::{ErrorCode, HostError};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::clock;
use crate::failure::Doing as _;
use crate::guest::Guest;
use crate::sys;

/// Takes on an identity. The same one again sets only the clock.
///
/// # Errors
/// Whatever of it could not be done: the machine must not be used then.
pub(crate) fn become_own(guest: &Guest, identity: &Identity) -> Result<Confirmed, HostError> {
    let invalid = |cause| HostError::new(ErrorCode::InvalidRequest, cause);
    let entropy = identity
        .entropy_bytes()
        .ok_or_else(|| invalid("an identity that is out of its bounds"))?;
    if !guest.root.adopt_machine_id(&identity.machine_id)? {
        return Err(invalid("this machine has another identity already"));
    }
    sys::reseed_kernel(&entropy).doing(|| "give the kernel random numbers of its own".to_owned())?;
    rustix::system::sethostname(identity.hostname.as_bytes()).doing(|| "set the host name".to_owned())?;
    set_clock(identity.realtime_ns).doing(|| "set the clock".to_owned())?;
    Ok(Confirmed {
        machine_id: identity.machine_id.clone(),
        realtime_ns: clock::realtime_ns(),
    })
}

fn set_clock(realtime_ns: u64) -> rustix::io::Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let time = Timespec {
        tv_sec: i64::try_from(realtime_ns / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(realtime_ns % SECOND).unwrap_or(0),
    };
    clock_settime(ClockId::Realtime, time)
}
