//! What each command does, one file each.

pub(crate) mod api_key;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod inject_guest_runner;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod signing_key;
pub(crate) mod template;
pub(crate) mod verify_isolation;

use std::process::ExitCode;

use protocol::HostError;

use crate::output::{complain, print};
use crate::report::error_line;

/// The exit status of what failed in the host, not in the user's code.
pub(crate) const HOST_FAILURE: u8 = 125;

/// Tells the user of an error: one line, or one JSON object.
pub(crate) fn fail(error: &HostError, json: bool) -> ExitCode {
    if json {
        let object = serde_json::json!({
            "trace_id": error.trace_id, "code": error.code, "cause": error.cause, "remedy": error.remedy,
        });
        print(object);
    } else {
        complain(error_line(error));
    }
    ExitCode::from(HOST_FAILURE)
}
