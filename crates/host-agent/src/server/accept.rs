//! Which of the types that an answer can have a client wants (RFC 9110, section 12.5.1).

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use protocol::{ErrorCode, HostError};

use super::problem;

pub(super) const JSON: &str = "application/json";

/// Refuses who does not take JSON, before anything is done.
pub(super) async fn json_only(request: Request, next: Next) -> Response {
    match choose(request.headers(), &[JSON]) {
        Ok(_) => next.run(request).await,
        Err(error) => problem::of(error),
    }
}

/// What is accepted with the highest weight of what is offered; of several, what the client names first, and what is offered
/// first to who takes anything.
pub(super) fn choose<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, HostError> {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<Range> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    if ranges.is_empty() {
        return Ok(offered[0]);
    }
    // The most precise range decides of each type.
    let weigh = |of: &&'a str| {
        let matching = ranges
            .iter()
            .enumerate()
            .filter(|(_, range)| range.precision(of) > 0);
        let (place, range) =
            matching.max_by_key(|(place, range)| (range.precision(of), usize::MAX - place))?;
        (range.weight > 0).then_some((range.weight, usize::MAX - place, *of))
    };
    let best = offered
        .iter()
        .rev()
        .filter_map(weigh)
        .max_by_key(|(weight, place, _)| (*weight, *place));
    best.map(|(.., of)| of).ok_or_else(|| {
        let cause = format!(
            "the answer is {}, which the request does not accept",
            offered.join(" or ")
        );
        HostError::new(ErrorCode::NotAcceptable, cause)
    })
}

/// One of the types that a client accepts.
struct Range<'a> {
    of: &'a str,
    /// In thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let of = parts.next().filter(|of| !of.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(Some(1.0), |quality| quality.trim().parse::<f64>().ok());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1000"
        )]
        let weight = (quality.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u16;
        Some(Self { of, weight })
    }

    /// How precisely it names that type: 0 not at all.
    fn precision(&self, of: &str) -> u8 {
        let kind = of.split('/').next().unwrap_or_default();
        if self.of.eq_ignore_ascii_case(of) {
            3
        } else if self
            .of
            .strip_suffix("/*")
            .is_some_and(|any| any.eq_ignore_ascii_case(kind))
        {
            2
        } else {
            u8::from(self.of == "*/*")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "text/event-stream";

    fn of(accept: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        choose(&headers, &[JSON, EVENTS]).ok()
    }

    #[test]
    fn the_client_chooses() {
        assert_eq!(choose(&HeaderMap::new(), &[JSON, EVENTS]), Ok(JSON));
        for json in [
            "*/*",
            "application/*",
            "application/json, text/event-stream",
            "text/event-stream;q=0.5, application/json",
            "text/*;q=0, */*",
            "",
        ] {
            assert_eq!(of(json), Some(JSON), "{json}");
        }
        for events in [
            EVENTS,
            "text/event-stream, application/json",
            "application/json;q=0.1, text/event-stream;q=0.2",
            "text/*",
            "application/json;q=0, */*",
        ] {
            assert_eq!(of(events), Some(EVENTS), "{events}");
        }
        for neither in ["text/html", "application/json;q=0", "nonsense"] {
            assert_eq!(of(neither), None, "{neither}");
        }
    }
}
