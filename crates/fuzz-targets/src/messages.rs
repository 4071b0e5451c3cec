//! The messages' JSON: what is understood is written and understood again as the same, and what `validate` lets through is in bounds.

use std::fmt::Debug;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{ControlRequest, ControlResponse, Event, HostError, JobRequest, JobResponse, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::memory::within;

/// The first byte says which message the rest is.
pub(crate) fn all(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => {
            if let Some(request) = round_trip::<JobRequest>(json) {
                job_request(&request);
            }
        }
        1 => drop(round_trip::<JobResponse>(json)),
        2 => drop(round_trip::<Event>(json)),
        3 => {
            if let Some(ControlRequest::Identity(identity)) = round_trip(json)
                && let Some(entropy) = identity.entropy_bytes()
            {
                assert!((limits::MIN_ENTROPY..=limits::MAX_ENTROPY).contains(&entropy.len()));
                assert!(!identity.hostname.contains(['/', '\0', '\n']));
            }
        }
        4 => drop(round_trip::<ControlResponse>(json)),
        _ => {
            if let Some(error) = round_trip::<HostError>(json) {
                assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
}

/// The most memory that a message of so many bytes takes: `{},` becomes a whole file.
pub(crate) fn room(bytes: usize) -> usize {
    128 * bytes + (64 << 10)
}

fn round_trip<T: Serialize + DeserializeOwned + Debug>(json: &[u8]) -> Option<T> {
    let message: T = within(room(json.len()), || serde_json::from_slice(json).ok())?;
    let text = serde_json::to_vec(&message).expect("a message has a JSON form");
    let again: T = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    let [first, second] = [&message, &again].map(|message| serde_json::to_value(message).expect("as before"));
    assert!(alike(&first, &second), "{first}\n{second}");
    Some(message)
}

/// Fractions are read to the last but one bit.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let [a, b] = [a, b].map(|number| number.as_f64().unwrap_or_default());
            (a - b).abs() <= a.abs() * 1e-14
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        (a, b) => a == b,
    }
}

/// As the guest may rely on it.
pub(crate) fn job_request(request: &JobRequest) {
    if request.validate().is_err() {
        return;
    }
    assert!(request.trace_id.len() <= limits::MAX_TRACE_ID);
    assert!((1..=limits::MAX_CODE).contains(&request.code.len()) && !request.code.contains('\0'));
    assert!(request.timeout > 0.0 && request.timeout <= limits::MAX_TIMEOUT);
    assert!(request.args.len() <= limits::MAX_ARGS && request.env.len() <= limits::MAX_ENV);
    assert!(request.files.len() <= limits::MAX_FILES);
    let decoded = |text: &Option<String>| {
        text.as_ref()
            .map_or(0, |text| STANDARD.decode(text).expect("it was checked").len())
    };
    assert!(request.stdin.len() + decoded(&request.stdin_base64) <= limits::MAX_STDIN);
    let mut bytes = 0;
    for file in &request.files {
        assert!(!file.path.is_empty() && !file.path.contains('\0'));
        assert!(!file.path.split('/').any(|part| part == ".."));
        bytes += file.content.as_ref().map_or(0, String::len) + decoded(&file.content_base64);
    }
    assert!(bytes <= limits::MAX_FILE_BYTES);
}
