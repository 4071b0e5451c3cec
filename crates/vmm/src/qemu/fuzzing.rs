//! QEMU's part of [`crate::fuzzing`].

use std::io;

use tokio::sync::watch;

use super::qmp::{Seen, watch_all};

/// What was understood of a monitor.
#[derive(Debug)]
pub struct QmpSeen {
    /// Commands that were answered.
    pub answers: usize,
    /// The first refusal.
    pub fault: Option<String>,
    /// Why no more was read.
    pub end: io::Error,
}

/// What is made of a monitor that sends these bytes and hangs up.
pub async fn qmp(mut bytes: &[u8]) -> QmpSeen {
    let (sender, receiver) = watch::channel(Seen::default());
    let end = watch_all(&mut bytes, &sender).await;
    let seen = receiver.borrow();
    QmpSeen {
        answers: seen.answers,
        fault: seen.fault.as_ref().map(|(_, words)| words.clone()),
        end,
    }
}
