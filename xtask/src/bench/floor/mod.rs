//! The floor: the raw VMM restoring the same snapshot, and the same frames on its raw socket. None of host-agent's code is on the
//! measured path but for the framing itself (`protocol`): no directory, no journal, no event loop, no checks.
//!
//! ```text
//! prepare (not measured: scratch disk) ─► spawn ─► load ─► identity ─► job ─► response
//!                                         qemu::Restored or firecracker::Restored : Guest
//! ```

mod firecracker;
mod qemu;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use protocol::control::Identity;
use protocol::frame::{decode_message, encode_message};
use protocol::{ControlRequest, ControlResponse, JobRequest, JobResponse, limits};
use vmm::BackendKind;

use super::installed::Frozen;
use super::split::{Split, milliseconds};
use crate::build::run as run_command;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// As the engine does: the clock is set again where the guest took longer than that to answer, so many times in all.
const CLOCK: Duration = Duration::from_millis(40);
const CLOCK_ATTEMPTS: u32 = 4;

/// What one restore needs that is made before.
struct Place {
    dir: PathBuf,
    scratch: PathBuf,
}

impl Place {
    fn prepare(frozen: &Frozen, work: &Path) -> anyhow::Result<Self> {
        let dir = work.join("floor");
        std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let place = Self {
            scratch: dir.join("scratch.ext4"),
            dir,
        };
        run_command(
            Command::new("cp")
                .args(["--sparse=always"])
                .args([frozen.template.scratch.path(), &place.scratch]),
        )?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Killed and reaped on drop.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest that runs, behind a raw socket.
trait Guest {
    type Conversation;

    fn connect(&mut self, port: u32) -> anyhow::Result<Self::Conversation>;

    /// Sends a frame and waits for one.
    fn exchange(&mut self, with: &mut Self::Conversation, frame: &[u8]) -> anyhow::Result<Vec<u8>>;

    fn close(&mut self, conversation: Self::Conversation);
}

/// Restores once and runs the job.
pub(super) fn restore(
    frozen: &Frozen,
    work: &Path,
    job: &JobRequest,
    prespawned: bool,
) -> anyhow::Result<Split> {
    let place = Place::prepare(frozen, work)?;
    match frozen.template.vmm.kind {
        BackendKind::Qemu => {
            let began = Instant::now();
            let mut spawned = qemu::Spawned::start(frozen, &place)?;
            if prespawned {
                spawned.ready()?;
                measure(Instant::now(), 0.0, job, || spawned.restore())
            } else {
                measure(began, 0.0, job, || spawned.restore())
            }
        }
        BackendKind::Firecracker => {
            firecracker::link_root(frozen, &place)?;
            let began = Instant::now();
            let spawned = firecracker::Spawned::start(frozen, &place)?;
            let up = milliseconds(began.elapsed());
            if prespawned {
                measure(Instant::now(), 0.0, job, || spawned.restore())
            } else {
                measure(began, up, job, || spawned.restore())
            }
        }
    }
}

/// A guest that has been restored, and how long its VMM took to take commands, in milliseconds since it was started, where
/// that was found out on the way.
struct Loaded<G> {
    guest: G,
    up: Option<f64>,
}

fn measure<G: Guest>(
    began: Instant,
    up: f64,
    job: &JobRequest,
    load: impl FnOnce() -> anyhow::Result<Loaded<G>>,
) -> anyhow::Result<Split> {
    let Loaded { mut guest, up: found } = load()?;
    let loaded = Instant::now();
    let identities = assign(&mut guest)?;
    let assigned = Instant::now();
    let mut channel = guest.connect(limits::JOB_PORT)?;
    let response = guest.exchange(&mut channel, &encode_message(job)?)?;
    let total = milliseconds(began.elapsed());
    let response: JobResponse = decode_message(&response)?;
    let spawn = found.unwrap_or(up);
    let split = Split {
        spawn,
        load: milliseconds(loaded - began) - spawn,
        identity: milliseconds(assigned - loaded),
        identities: Some(identities),
        total,
        ..Split::default()
    };
    split.with_job(job, &response)
}

/// Makes the guest a machine of its own. Gives how often the clock was set.
fn assign<G: Guest>(guest: &mut G) -> anyhow::Result<u32> {
    let mut identity = identity()?;
    let mut channel = guest.connect(limits::CONTROL_PORT)?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let asked = Instant::now();
        identity.realtime_ns = now_ns();
        let request = encode_message(&ControlRequest::Identity(identity.clone()))?;
        let answer = guest.exchange(&mut channel, &request)?;
        match decode_message(&answer)? {
            ControlResponse::Identity(confirmed) if confirmed.machine_id == identity.machine_id => {}
            other => anyhow::bail!("the guest did not confirm its identity: {other:?}"),
        }
        if asked.elapsed() <= CLOCK || attempts == CLOCK_ATTEMPTS {
            guest.close(channel);
            return Ok(attempts);
        }
    }
}

fn identity() -> anyhow::Result<Identity> {
    let mut random = [0; 84];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let identity = Identity {
        entropy: BASE64_STANDARD.encode(&random[..64]),
        realtime_ns: now_ns(),
        machine_id: hexadecimal(&random[64..80]),
        hostname: format!("runner-{}", hexadecimal(&random[80..])),
    };
    ensure!(identity.entropy_bytes().is_some(), "an identity out of bounds");
    Ok(identity)
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
