//! What makes a clone of a frozen machine one of its own, and the proof that it has become so.

use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use protocol::control::Identity;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::conversation::Conversation;
use crate::error::EngineError;

/// Random bytes for the guest's kernel.
const ENTROPY: usize = 64;
/// How far a guest's clock may be behind: it is set to the moment at which the host began to say so.
const CLOCK: Duration = Duration::from_millis(40);
/// How often the clock is set again because the guest took longer than that to answer, as a busy host makes it.
const CLOCK_ATTEMPTS: usize = 4;

/// Tells the guest who it is, and returns once it has confirmed that.
///
/// # Errors
/// It did not: the machine must not be used.
pub(crate) async fn assign<T: AsyncRead + AsyncWrite + Unpin>(
    conversation: &mut Conversation<T>,
    identity: &mut Identity,
) -> Result<(), EngineError> {
    for _ in 0..CLOCK_ATTEMPTS {
        let asked = Instant::now();
        identity.realtime_ns = now_ns();
        conversation.identity(identity).await?;
        if asked.elapsed() <= CLOCK {
            break;
        }
    }
    Ok(())
}

/// An identity that no other machine has.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn new() -> Result<Identity, EngineError> {
    let entropy: [u8; ENTROPY] = random()?;
    let machine_id: [u8; 16] = random()?;
    let hostname: [u8; 4] = random()?;
    Ok(Identity {
        entropy: BASE64_STANDARD.encode(entropy),
        realtime_ns: now_ns(),
        machine_id: format!("{:032x}", u128::from_ne_bytes(machine_id)),
        hostname: format!("runner-{:08x}", u32::from_ne_bytes(hostname)),
    })
}

fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(filled) if filled == N => Ok(bytes),
        Ok(_) => Err(EngineError::Random(std::io::ErrorKind::UnexpectedEof.into())),
        Err(errno) => Err(EngineError::Random(errno.into())),
    }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_in_bounds_and_never_the_same() {
        let (one, other) = (new().unwrap(), new().unwrap());
        assert_eq!(one.entropy_bytes().unwrap().len(), ENTROPY);
        assert_ne!(one.entropy, other.entropy);
        assert_ne!(one.machine_id, other.machine_id);
        assert_ne!(one.hostname, other.hostname);
    }
}
