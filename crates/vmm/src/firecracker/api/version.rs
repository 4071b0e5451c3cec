//! `GET /version`: which Firecracker this is. Legal in every state.

use serde::Deserialize;

use super::Request;

/// Major, minor, patch.
pub(crate) type Version = (u32, u32, u32);

/// The first version whose API this crate speaks (`smt`, `--id` and `log_path` as they are sent here).
pub(crate) const OLDEST: Version = (1, 7, 0);
/// The first version that it was not tried with.
pub(crate) const UNTRIED: Version = (1, 17, 0);

/// Asks for the version.
pub(crate) fn request() -> Request {
    Request::get("/version")
}

/// Reads the answer to [`request`].
pub(crate) fn answer(body: &[u8]) -> Option<Version> {
    #[derive(Deserialize)]
    struct Answer {
        firecracker_version: String,
    }
    parse(&serde_json::from_slice::<Answer>(body).ok()?.firecracker_version)
}

/// Reads `1.16.1`, also `v1.16.1` and `1.16.1-dev`.
fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let release = text.split(['-', '+']).next()?;
    let mut parts = release.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(answer(br#"{"firecracker_version":"1.16.1"}"#), Some((1, 16, 1)));
        assert_eq!(parse("v1.7.0"), Some((1, 7, 0)));
        assert_eq!(parse("1.17.0-dev"), Some((1, 17, 0)));
        assert_eq!(parse("1.7"), None);
        assert_eq!(parse("1.7.0.1"), None);
        assert_eq!(parse(""), None);
        assert_eq!(answer(b"{}"), None);
    }
}
