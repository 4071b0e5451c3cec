//! Control: port 5001. Versioned by [`Hello::version`]; a request that a runner does not know is answered with
//! [`ControlResponse::Error`], never with silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::job::Language;

/// The version of the control protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlRequest {
    /// Who are you, and what can this guest do?
    Hello,
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
    /// To [`ControlRequest::Shutdown`].
    Shutdown,
    /// To anything that failed.
    Error(HostError),
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
    /// Optional parts of the job protocol that this runner knows: `stream`, `files`, `limits`, `base64`.
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
