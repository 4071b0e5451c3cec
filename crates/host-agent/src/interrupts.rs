//! The signals that ask host-agent to end: the first is an event, so that a machine and all that it has is released
//! before the exit; a second ends the process on the spot. (Then the kernel kills the VMM, and the next start removes
//! its directory.)

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::Signal;
use signal_hook::flag;
use tokio::signal::unix::{self, SignalKind};

/// What a user, a supervisor and a lost terminal send.
const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// From its making on, the first signal no longer ends the process.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Interrupts {
    /// Takes over the signals. Only within a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            // In this order: the signal that sets the flag does not find it set.
            flag::register_conditional_default(signal.as_raw(), Arc::clone(&interrupted))?;
            flag::register(signal.as_raw(), Arc::clone(&interrupted))?;
        }
        let listen = |signal: Signal| unix::signal(SignalKind::from_raw(signal.as_raw()));
        let [interrupt, terminate, hangup] = SIGNALS.map(listen);
        Ok(Self {
            interrupt: interrupt?,
            terminate: terminate?,
            hangup: hangup?,
        })
    }

    /// The next signal. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}
