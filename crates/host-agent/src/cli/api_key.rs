//! `host-agent api-key`

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::{Args, Subcommand};
use engine::admission::{Scope, Tenant};

pub(crate) const API_KEY_EXAMPLES: &str = "\
Examples:
  host-agent api-key create acme --expires-in 90d --rate 60
  host-agent api-key list
  host-agent api-key rotate 1f6b2c3d4e5f6071 --grace 24h
  host-agent api-key revoke 1f6b2c3d4e5f6071

A running service sees each change with its next request.";

/// `host-agent api-key`
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Make a key and print it, for the only time
    Create(CreateKeyArgs),
    /// List all keys, without their secrets
    List,
    /// Take a key back
    Revoke {
        /// Which one, by its id
        id: String,
    },
    /// Make a new key with the rights of another, and print it; the other one ends
    Rotate {
        /// Which one, by its id
        id: String,
        /// For how long the other one is still good, as in 24h
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        grace: Duration,
    },
}

/// `host-agent api-key create`
#[derive(Debug, Args)]
pub(crate) struct CreateKeyArgs {
    /// Whose jobs it brings: a name that all keys of the same customer have
    pub(crate) tenant: Tenant,
    /// What it is for: `execute` or `observe`; may be repeated [default: both]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<Scope>,
    /// For how long it is good, as in 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) expires_in: Option<Duration>,
    /// Its tenant's part of the machine time relative to the other tenants'
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(crate) weight: NonZeroU32,
    /// Jobs a minute
    #[arg(long, value_name = "NUMBER")]
    pub(crate) rate: Option<NonZeroU32>,
    /// Jobs of its tenant that may run at a time
    #[arg(long, value_name = "NUMBER")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Jobs of its tenant that may wait
    #[arg(long, value_name = "NUMBER")]
    pub(crate) queue: Option<usize>,
    /// The longest timeout of a job, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_timeout: Option<f64>,
    /// The most memory of a job's machine, as in 2G [default: as much as the service gives without being asked]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_memory: Option<String>,
    /// The most virtual processors of a job's machine [default: as many as the service gives without being asked]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_vcpus: Option<u8>,
}
