//! A first look at a message, which allocates nothing: a frame is bounded, but a frame full of tiny parts would take up
//! many times its size once they are values.

use std::fmt;

use protocol::limits;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The longest event, in bytes of JSON; a runner sends output in far smaller pieces.
const MAX_EVENT: usize = 1 << 20;
/// The longest termination.
const MAX_TERMINATION: usize = 4 << 10;
/// The most confinement layers.
pub(crate) const MAX_LAYERS: usize = 32;

/// Which of the two messages it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Has an `event` field.
    Event,
    /// Has none.
    Response,
}

#[derive(Deserialize)]
struct Outline<'a> {
    event: Option<IgnoredAny>,
    #[serde(borrow)]
    termination: Option<&'a RawValue>,
    #[expect(dead_code, reason = "read only to be counted")]
    files: Option<AtMost<{ limits::MAX_FILES }>>,
    #[expect(dead_code, reason = "read only to be counted")]
    layers: Option<AtMost<MAX_LAYERS>>,
}

/// Looks at a frame's payload.
///
/// # Errors
/// It is no JSON object, or has more parts than such a message can have.
pub(crate) fn shape(payload: &[u8]) -> Result<Shape, serde_json::Error> {
    let outline: Outline<'_> = serde_json::from_slice(payload)?;
    if outline.event.is_some() {
        let fits = payload.len() <= MAX_EVENT;
        return if fits {
            Ok(Shape::Event)
        } else {
            Err(Error::custom("an event that is too long"))
        };
    }
    match outline.termination {
        Some(termination) if termination.get().len() > MAX_TERMINATION => {
            Err(Error::custom("a termination that is too long"))
        }
        _ => Ok(Shape::Response),
    }
}

/// A list of anything, not longer than that.
struct AtMost<const MOST: usize>;

impl<'de, const MOST: usize> Deserialize<'de> for AtMost<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self)
    }
}

impl<'de, const MOST: usize> Visitor<'de> for AtMost<MOST> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        let mut length = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
            if length > MOST {
                return Err(Error::invalid_length(length, &self));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        assert_eq!(shape(br#"{"event":"started"}"#).unwrap(), Shape::Event);
        assert_eq!(
            shape(br#"{"trace_id":"t","files":[],"termination":{"kind":"exit"}}"#).unwrap(),
            Shape::Response
        );
        assert!(shape(b"[]").is_err());
        assert!(shape(b"hello").is_err());
    }

    #[test]
    fn many_tiny_parts_are_refused() {
        let files = format!("{{\"files\":[{}1]}}", "1,".repeat(limits::MAX_FILES));
        assert!(
            shape(files.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("at most 256")
        );
        let layers = format!("{{\"layers\":[{}1]}}", "1,".repeat(MAX_LAYERS));
        assert!(shape(layers.as_bytes()).is_err());
        let termination = format!(
            "{{\"termination\":{{\"x\":[{}1]}}}}",
            "1,".repeat(MAX_TERMINATION)
        );
        assert!(shape(termination.as_bytes()).is_err());
        let event = format!("{{\"event\":\"started\",\"x\":[{}1]}}", "1,".repeat(MAX_EVENT));
        assert!(shape(event.as_bytes()).is_err());
    }
}
