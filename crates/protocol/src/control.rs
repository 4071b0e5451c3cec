//! Control: port 5001. Versioned by [`Hello::version`]; a request that a runner does not know is answered with
//! [`ControlResponse::Error`], never with silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::job::Language;
use crate::limits;

/// The version of the control protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlRequest {
    /// Who are you, and what can this guest do?
    Hello,
    /// Start interpreters that wait for a job, before the machine is frozen.
    Park(Park),
    /// Become a machine of your own, after the machine was restored and before any job.
    Identity(Identity),
    /// Sync and power off. Answered before it is done.
    Shutdown,
}

/// What the runner answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlResponse {
    /// To [`ControlRequest::Hello`].
    Hello(Hello),
    /// To [`ControlRequest::Park`].
    Parked(Parked),
    /// To [`ControlRequest::Identity`].
    Identity(Confirmed),
    /// To [`ControlRequest::Shutdown`].
    Shutdown,
    /// To anything that failed.
    Error(HostError),
}

/// Which interpreters are to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Park {
    /// How many of each language, at most [`limits::MAX_PARKED`].
    pub languages: BTreeMap<Language, u8>,
}

/// Which interpreters wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Parked {
    /// How many of each language, all of them together.
    pub languages: BTreeMap<Language, u8>,
    /// Why a language that was asked for has none: it starts a fresh process for each job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<Language, String>,
}

/// What makes a clone of a frozen machine one of its own. All of it is new for each clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Identity {
    /// Random bytes for the kernel, base64; at least [`limits::MIN_ENTROPY`] and at most [`limits::MAX_ENTROPY`] of them.
    pub entropy: String,
    /// The time, in nanoseconds since 1970.
    pub realtime_ns: u64,
    /// 32 lower-case hexadecimal digits (machine-id(5)).
    pub machine_id: String,
    /// 1 to 63 lower-case letters, digits and `-`.
    pub hostname: String,
}

impl Identity {
    /// The random bytes, if all of it is in bounds.
    #[must_use]
    pub fn entropy_bytes(&self) -> Option<Vec<u8>> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&self.entropy)
            .ok()?;
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let host = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-');
        let fits = (limits::MIN_ENTROPY..=limits::MAX_ENTROPY).contains(&bytes.len())
            && self.machine_id.len() == 32
            && self.machine_id.bytes().all(hexadecimal)
            && (1..=63).contains(&self.hostname.len())
            && self.hostname.bytes().all(host);
        fits.then_some(bytes)
    }
}

/// The guest has taken on its [`Identity`]: its kernel's random numbers are its own and its clock is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// The request's, to show which identity it is.
    pub machine_id: String,
    /// The guest's clock at this answer, in nanoseconds since 1970.
    pub realtime_ns: u64,
}

/// What a guest is and can do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// Of the control protocol; see [`VERSION`].
    pub version: u32,
    /// The guest-runner's own, as in its package.
    pub runner_version: String,
    /// `uname -r`.
    pub kernel: String,
    /// Optional parts of the job protocol that this runner knows: `stream`, `files`, `limits`, `base64`,
    /// `park`.
    #[serde(default)]
    pub features: Vec<String>,
    /// The interpreter or compiler found for each language; a language that is absent cannot run here.
    #[serde(default)]
    pub languages: BTreeMap<Language, String>,
    /// Languages with a parked interpreter.
    #[serde(default)]
    pub parked: Vec<Language>,
    /// What confinement this guest can do.
    pub confinement: Confinement,
    /// How the guest came up.
    pub boot: Boot,
}

/// What confinement a guest can do. Anything false or absent is missing from the layers of a job there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Confinement {
    /// A cgroup v2 hierarchy with the memory and pids controllers.
    pub cgroup_v2: bool,
    /// Why not, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_v2_missing: Option<String>,
    /// PID, mount, IPC and UTS namespaces.
    pub namespaces: bool,
    /// seccomp filters.
    pub seccomp: bool,
    /// The Landlock ABI of the kernel; absent where the kernel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock_abi: Option<u32>,
    /// Writes of a job go to an overlay (or a scratch disk), never to the root below.
    pub overlay: bool,
}

/// When the guest reached each point, in milliseconds since its kernel started (CLOCK_BOOTTIME).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Boot {
    /// The runner's first instruction.
    pub init: f64,
    /// Kernel modules loaded; equal to `init` where none were.
    pub modules: f64,
    /// The root filesystem is mounted.
    pub root: f64,
    /// Listening on both ports.
    pub listening: f64,
    /// At the moment of this answer.
    pub now: f64,
}
