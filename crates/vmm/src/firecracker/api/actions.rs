//! `PUT /actions`: what a configured or running machine is told to do.

use serde::Serialize;

use super::Request;

/// An action; answered when it has been taken, not when its effect shows.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Action {
    /// Starts the guest. Legal once, after `/boot-source`.
    InstanceStart,
    /// Presses Ctrl-Alt-Del on the guest's keyboard (x86-64 only). Legal while the guest runs.
    SendCtrlAltDel,
    /// Writes a line of metrics. Legal after `/metrics`, in every state.
    FlushMetrics,
}

impl Action {
    pub(crate) fn request(self) -> Request {
        #[derive(Serialize)]
        struct Body {
            action_type: Action,
        }
        Request::put("/actions", &Body { action_type: self })
    }
}
