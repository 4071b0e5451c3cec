//! Firecracker's API, one file per endpoint: each turns one typed value into one request, and knows nothing of sockets.
//!
//! Follows `src/firecracker/swagger/firecracker.yaml` of Firecracker v1.7.0 to v1.16.1. What is sent here has the same shape in
//! all of them, but for one field of [`snapshot_load`]; the versions are told apart by [`version`].

pub(super) mod actions;
pub(super) mod boot_source;
pub(super) mod drives;
pub(super) mod logger;
pub(super) mod machine_config;
pub(super) mod metrics;
pub(super) mod snapshot_create;
pub(super) mod snapshot_load;
pub(super) mod version;
pub(super) mod vm;
pub(super) mod vsock;

use std::fmt;

use hyper::Method;
use serde::Serialize;

/// One request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    /// JSON; empty where the endpoint takes no body.
    pub(super) body: Vec<u8>,
}

impl Request {
    fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            body: Vec::new(),
        }
    }

    fn put(path: impl Into<String>, body: &impl Serialize) -> Self {
        Self::with_body(Method::PUT, path.into(), body)
    }

    fn patch(path: &str, body: &impl Serialize) -> Self {
        Self::with_body(Method::PATCH, path.to_owned(), body)
    }

    fn with_body(method: Method, path: String, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("strings and numbers always serialize");
        Self { method, path, body }
    }
}

/// As errors name it: `PUT /machine-config`.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}
