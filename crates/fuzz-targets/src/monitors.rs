//! What a VMM says: its handshakes, its API, its monitor, its metrics, its console.

use std::io::ErrorKind;

use crate::memory::within;
use crate::wait;

/// The longest answer to CONNECT.
const MAX_LINE: usize = 14;
/// What an HTTP client may take: its buffers for a head and a body, twice while they grow.
const HTTP: usize = 2 << 20;
/// A line of a monitor of 64 KiB, and its values; of metrics, with four times as much.
const MONITOR: usize = 8 << 20;

/// Nothing but `OK <number>` and a newline is taken for an answer, and nothing behind it is taken.
pub(crate) fn handshake(data: &[u8]) {
    let (outcome, taken) = within(64 << 10, || wait(vmm::fuzzing::handshake(data)));
    assert!(taken <= MAX_LINE);
    let line = data
        .split_inclusive(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let number = line
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"));
    let number = number.filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u32>().ok());
    match outcome {
        Ok(()) => {
            assert!(number.is_some(), "\"{}\" is no answer", line.escape_ascii());
            assert_eq!(taken, line.len());
        }
        Err(error) => {
            assert!(number.is_none() || line.len() > MAX_LINE, "{error}");
            let invalid = error.kind() == ErrorKind::InvalidData;
            assert!(
                invalid || (error.kind() == ErrorKind::UnexpectedEof && taken == data.len()),
                "{error}"
            );
            assert!(!error.to_string().contains(char::is_control));
        }
    }
}

/// An answer of Firecracker's API.
pub(crate) fn http_answer(data: &[u8]) {
    let answer = within(HTTP + 16 * data.len(), || wait(vmm::fuzzing::http_answer(data)));
    if let Ok(answer) = answer {
        assert!(answer.body.len() <= vmm::fuzzing::MAX_HTTP_ANSWER);
        assert!(answer.body.len() <= data.len());
        assert!(answer.fault.len() <= 16 * answer.body.len());
        if let Some((major, minor, patch)) = vmm::fuzzing::version(&answer.body) {
            let text = format!("{major}.{minor}.{patch}");
            let body = format!("{{\"firecracker_version\":\"{text}\"}}");
            assert_eq!(
                vmm::fuzzing::version(body.as_bytes()),
                Some((major, minor, patch))
            );
        }
    }
}

/// QEMU's monitor.
pub(crate) fn qmp(data: &[u8]) {
    let seen = within(MONITOR + 2 * data.len(), || wait(vmm::fuzzing::qmp(data)));
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    assert!(seen.answers < lines.max(1), "the first line is a greeting");
    assert!(seen.fault.is_none() || seen.answers > 0);
    assert!(seen.fault.is_none_or(|words| words.len() <= data.len()));
}

/// Firecracker's metrics: the last line that is some.
pub(crate) fn metrics(data: &[u8]) {
    let last = within(4 * MONITOR + 2 * data.len(), || wait(vmm::fuzzing::metrics(data)));
    let mut lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    lines.pop();
    let good = lines
        .into_iter()
        .rev()
        .filter(|line| line.len() < 256 << 10)
        .find_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    assert_eq!(last, good);
}

/// Lines of a guest's console cannot drive a terminal.
pub(crate) fn console(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        let shown = vmm::fuzzing::printable(line);
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.chars().count() <= vmm::fuzzing::MAX_CONSOLE_LINE);
        assert!(shown.len() <= line.len());
    }
}
