//! `PATCH /vm`: whether the guest's processors run. Legal once the guest is started.

use serde::Serialize;

use super::Request;

/// What the machine is to be. `Resumed` is absent: up to v1.16.1 a guest that was paused and resumed may have lost its vsock,
/// so that a machine is paused only for good, and resumed only by [`super::snapshot_load`].
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum State {
    Paused,
}

impl State {
    pub(crate) fn request(self) -> Request {
        #[derive(Serialize)]
        struct Body {
            state: State,
        }
        Request::patch("/vm", &Body { state: self })
    }
}
