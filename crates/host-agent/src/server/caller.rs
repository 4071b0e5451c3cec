//! Who asks, found out before anything else of a request is looked at.
//!
//! ```text
//! Unix socket ─► SO_PEERCRED: root, this user, this group ─► tenant `local`
//! TCP ─────────► Authorization: Bearer rc_… ─► key ─► rate ─► its tenant
//! ```

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use engine::admission::{Allowance, ApiKey, Denied, Scope, Tenant};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use protocol::{ErrorCode, HostError};
use rustix::process::{getegid, geteuid};
use tokio::net::unix::UCred;

use super::{DOCUMENT, problem};
use crate::keys::{Keyring, since_epoch};
use crate::service::Refusal;

// <https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-07>
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const MINUTE: u64 = 60;

/// Who brings a job.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: Tenant,
    pub(crate) allowance: Allowance,
    /// On this machine, as the user who runs the service or one they trust.
    pub(crate) is_local: bool,
}

/// Who is at the other end of a Unix socket (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) Option<UCred>);

impl Peer {
    /// Root, this user, or a member of this group by their first group.
    fn is_allowed(&self) -> bool {
        self.0.is_some_and(|peer| {
            peer.uid() == 0 || peer.uid() == geteuid().as_raw() || peer.gid() == getegid().as_raw()
        })
    }
}

/// Lets in who may use this user's socket.
pub(super) async fn check_peer(
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if peer.is_allowed() {
        request.extensions_mut().insert(Caller {
            tenant: Tenant::local(),
            allowance: Allowance::UNBOUNDED,
            is_local: true,
        });
        next.run(request).await
    } else {
        let cause = "this socket is for the user who runs the service";
        problem::of(HostError::new(ErrorCode::Forbidden, cause))
    }
}

/// What a request needs a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing: it is for everybody.
    Open,
    /// Whatever it is good for.
    Either,
    Scope(Scope),
}

impl Access {
    fn to(path: &str) -> Self {
        match path {
            "/healthz" | "/docs" | DOCUMENT => Self::Open,
            "/v1/languages" | "/v1/templates" => Self::Either,
            "/v1/execute" => Self::Scope(Scope::Execute),
            _ => Self::Scope(Scope::Observe),
        }
    }
}

/// The keys, and how often each was used lately.
pub(super) struct Door {
    keyring: Keyring,
    rates: Mutex<HashMap<String, (NonZeroU32, Arc<Rate>)>>,
}

type Rate = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// How many jobs a key still has.
struct Left {
    limit: NonZeroU32,
    remaining: u32,
    /// Seconds until there is one more, at least 1; none while some are left.
    wait: Option<u64>,
}

impl Door {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self {
            keyring,
            rates: Mutex::default(),
        }
    }

    fn count(&self, key: &ApiKey) -> Option<Left> {
        let limit = key.allowance.rate?;
        let rate = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            let known = rates.get(&key.id).filter(|(known, _)| *known == limit);
            let rate = known.map(|(_, rate)| Arc::clone(rate)).unwrap_or_else(|| {
                let rate = RateLimiter::direct(Quota::per_minute(limit));
                Arc::new(rate.with_middleware())
            });
            rates.insert(key.id.clone(), (limit, Arc::clone(&rate)));
            rate
        };
        Some(match rate.check() {
            Ok(state) => Left {
                limit,
                remaining: state.remaining_burst_capacity(),
                wait: None,
            },
            Err(refused) => {
                let wait = refused.wait_time_from(DefaultClock::default().now());
                Left {
                    limit,
                    remaining: 0,
                    wait: Some(wait.as_secs().saturating_add(1)),
                }
            }
        })
    }
}

/// Lets in who has a key for it.
pub(super) async fn check_key(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let access = Access::to(request.uri().path());
    if access == Access::Open {
        return closing(next.run(request).await);
    }
    let keys = match door.keyring.current() {
        Ok(keys) => keys,
        Err(error) => {
            tracing::error!(%error, "Nobody is let in");
            let cause = "the keys cannot be read";
            let error = HostError::new(ErrorCode::StateUnusable, cause);
            return closing(problem::of(
                error.remedy("see the service's log, or `host-agent api-key list`"),
            ));
        }
    };
    let shown = bearer(request.headers()).ok_or(Denied::Missing);
    let check = |shown| match access {
        Access::Scope(scope) => keys.check(shown, scope, since_epoch()),
        _ => keys
            .check(shown, Scope::Execute, since_epoch())
            .or_else(|_| keys.check(shown, Scope::Observe, since_epoch())),
    };
    let key = match shown.and_then(check) {
        Ok(key) => key,
        Err(denied) => return refuse(&denied),
    };
    let brings_a_job = access == Access::Scope(Scope::Execute) && request.method() == Method::POST;
    let left = if brings_a_job { door.count(key) } else { None };
    let mut response = match &left {
        Some(Left {
            limit,
            wait: Some(wait),
            ..
        }) => {
            let cause = format!("the key {} has had its {limit} jobs a minute", key.id);
            let error =
                HostError::new(ErrorCode::RateLimited, cause).remedy(format!("try again in {wait} s"));
            problem::of_refusal(Refusal {
                error,
                retry_after: Some(Duration::from_secs(*wait)),
            })
        }
        _ => {
            request.extensions_mut().insert(Caller {
                tenant: key.tenant.clone(),
                allowance: key.allowance,
                is_local: false,
            });
            next.run(request).await
        }
    };
    if let Some(left) = left {
        tell(left, response.headers_mut());
    }
    response
}

fn tell(left: Left, headers: &mut HeaderMap) {
    headers.insert(LIMIT, left.limit.get().into());
    headers.insert(REMAINING, left.remaining.into());
    // Until all of them are there again.
    let used = u64::from(left.limit.get() - left.remaining.min(left.limit.get()));
    let reset = (used * MINUTE).div_ceil(u64::from(left.limit.get()));
    headers.insert(RESET, reset.into());
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn refuse(denied: &Denied) -> Response {
    if matches!(denied, Denied::Scope(_)) {
        return problem::of(HostError::new(ErrorCode::Forbidden, denied.to_string()));
    }
    let error = HostError::new(ErrorCode::Unauthorized, denied.to_string());
    let mut response = problem::of(error);
    let challenge = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    closing(response)
}

/// Who has shown no key keeps no connection.
fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_header() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer rc_1"), Some("rc_1".to_owned()));
        assert_eq!(of("bearer  rc_1 "), Some("rc_1".to_owned()));
        assert_eq!(of("Basic rc_1"), None);
        assert_eq!(of("rc_1"), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
