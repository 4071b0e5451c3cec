//! A frozen machine that was verified: what clones are made from, and how a machine becomes one.
//!
//! ```text
//! Sandbox ── park ─► settle ── freeze ─► files, hello ─ ─ signed, verified ─ ─► Template
//!                                                                                 │ spawn
//!                                       Sandbox ◄── identity ◄── restore ◄── Spawned
//! ```
//!
//! A clone that does not confirm its identity is no sandbox: it is destroyed, and the error says so.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::control::{Park, Parked};
use protocol::frame::FrameError;
use protocol::job::Timings;
use protocol::{Hello, JobRequest, JobResponse, Language, limits};
use vmm::{
    Machine, Prespawned, RestoreConfig, RootDrive, RuntimeDir, SnapshotFile, SnapshotFiles, VmId, VmmBinary,
    VmmError,
};

use crate::conversation::{Conversation, guarded};
use crate::error::EngineError;
use crate::identity;
use crate::sandbox::{Sandbox, milliseconds, silent};

/// How long a machine is left alone before it is frozen, so that nothing is under way in it.
const SETTLE: Duration = Duration::from_millis(500);
/// How often a clone is connected to. Older Firecrackers drop the first connection after a restore, without an answer.
const CONNECTIONS: usize = 5;
/// How long the throwaway jobs that warm a clone may take each.
const WARM: f64 = 20.0;

/// What clones are made from.
#[derive(Clone)]
pub struct Template {
    /// The VMM that the snapshot fits.
    pub vmm: VmmBinary,
    /// The guest's memory.
    pub memory: SnapshotFile,
    /// Processors and devices.
    pub state: SnapshotFile,
    /// The first disk.
    pub root: RootDrive,
    /// The scratch disk as the frozen machine left it, to be copied.
    pub scratch: SnapshotFile,
    /// Virtual processors.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// What the guest said of itself before it was frozen.
    pub hello: Hello,
    /// How many interpreters of each language wait in it.
    pub parked: BTreeMap<Language, u8>,
    /// Keeps the snapshot from being removed while clones are made.
    pub in_use: InUse,
    /// Is told what became of each restore.
    pub on_restore: Option<OnRestore>,
}

/// See [`Template::on_restore`].
pub type OnRestore = Arc<dyn Fn(Restored) + Send + Sync>;

/// What became of a restore whose VMM took the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// A clone of its own, after so long.
    Confirmed(Duration),
    /// It did not confirm that it is, and was destroyed.
    Unconfirmed,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.memory.path();
        f.debug_struct("Template")
            .field("memory", &path)
            .finish_non_exhaustive()
    }
}

/// Whatever keeps a snapshot in its place until it is dropped.
pub type InUse = Arc<dyn Any + Send + Sync>;

/// A frozen machine's files, and what its guest said last.
#[derive(Debug)]
pub struct Frozen {
    /// Memory and state.
    pub files: SnapshotFiles,
    /// What the guest is and can do.
    pub hello: Hello,
    /// What waits in it, and what does not.
    pub parked: Parked,
}

impl Sandbox {
    /// Parks interpreters and freezes the machine, which is gone afterwards.
    ///
    /// # Errors
    /// The guest did not do as asked by `deadline`, or the VMM refused; nothing is left behind then.
    pub async fn freeze(mut self, park: Park, deadline: Instant) -> Result<Frozen, EngineError> {
        let began = Instant::now();
        self.rehearse(&park, deadline).await?;
        let machine = self.into_machine();
        let asked = async {
            let channel = machine.connect(limits::CONTROL_PORT, deadline).await?;
            let mut conversation = Conversation::new(channel);
            let parked = conversation.park(park).await?;
            Ok((parked, conversation.hello().await?))
        };
        let asked = guarded(asked, machine.failed(), deadline).await;
        let (parked, hello) = asked.unwrap_or_else(|| Err(silent("park", began, &machine.console())))?;
        tokio::time::sleep(SETTLE).await;
        let files = machine.snapshot(deadline).await?;
        Ok(Frozen { files, hello, parked })
    }

    /// Runs a throwaway job in each language, next to another connection: what a job reads from the disk is in memory then, and
    /// the runner has as many threads as a job takes.
    async fn rehearse(&mut self, park: &Park, deadline: Instant) -> Result<(), EngineError> {
        let _control = self.connect(limits::CONTROL_PORT, deadline).await?;
        for &language in park.languages.keys() {
            // One that cannot run here cannot be parked either, and that is where it is reported.
            let _ = self.throwaway(language).await?;
        }
        Ok(())
    }

    /// The exit code and output of a job of no consequence; `None` where there is none for the language.
    async fn throwaway(&mut self, language: Language) -> Result<Option<JobResponse>, EngineError> {
        let Some(code) = throwaway(language) else {
            return Ok(None);
        };
        let job = JobRequest {
            timeout: WARM,
            ..JobRequest::new("warm", language, code)
        };
        self.exec(&job, |_| {}).await.map(Some)
    }
}

/// A VMM that waits to become a clone. Dropping it ends it.
#[derive(Debug)]
pub struct Spawned(Prespawned);

impl Spawned {
    /// Waits until the VMM is gone. May be dropped and called again.
    pub async fn failed(&self) -> VmmError {
        self.0.failed().await
    }
}

impl Template {
    /// Starts a VMM for a clone, and waits until it takes commands.
    ///
    /// # Errors
    /// Whatever kept it from starting; nothing is left behind then.
    pub async fn spawn(&self, runtime: &RuntimeDir) -> Result<Spawned, EngineError> {
        Ok(Spawned(
            Prespawned::spawn(&self.vmm, self.config(runtime, None)?).await?,
        ))
    }

    /// Makes a clone of its own out of a VMM that waits.
    ///
    /// # Errors
    /// The VMM did not take the snapshot, or the guest did not confirm its identity by `deadline`; nothing is left behind then.
    pub async fn restore(&self, spawned: Spawned, deadline: Instant) -> Result<Sandbox, EngineError> {
        let began = Instant::now();
        let machine = spawned.0.restore(deadline).await?;
        self.assign(machine, began, deadline).await
    }

    /// Both in one.
    ///
    /// # Errors
    /// As [`Self::spawn`] and [`Self::restore`].
    pub async fn clone_now(
        &self,
        runtime: &RuntimeDir,
        keep_console: Option<PathBuf>,
        deadline: Instant,
    ) -> Result<Sandbox, EngineError> {
        let began = Instant::now();
        let machine = Machine::restore(&self.vmm, self.config(runtime, keep_console)?, deadline).await?;
        self.assign(machine, began, deadline).await
    }

    fn config(&self, runtime: &RuntimeDir, keep_console: Option<PathBuf>) -> Result<RestoreConfig, VmmError> {
        Ok(RestoreConfig {
            dir: runtime.create(VmId::random()?)?,
            memory: self.memory.clone(),
            state: self.state.clone(),
            root: Some(self.root.clone()),
            scratch: Some(self.scratch.clone()),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            keep_console,
        })
    }

    async fn assign(
        &self,
        machine: Machine,
        began: Instant,
        deadline: Instant,
    ) -> Result<Sandbox, EngineError> {
        let restored = Instant::now();
        let asked = async {
            let mut identity = identity::new()?;
            let mut attempts = 0;
            loop {
                attempts += 1;
                let channel = machine.connect(limits::CONTROL_PORT, deadline).await?;
                match identity::assign(&mut Conversation::new(channel), &mut identity).await {
                    Err(error) if hung_up(&error) && attempts < CONNECTIONS => {}
                    assigned => return assigned,
                }
            }
        };
        let confirmed = guarded(asked, machine.failed(), deadline).await;
        let confirmed = confirmed.unwrap_or_else(|| Err(silent("identity", restored, &machine.console())));
        if let Some(tell) = &self.on_restore {
            tell(match confirmed {
                Ok(()) => Restored::Confirmed(began.elapsed()),
                Err(_) => Restored::Unconfirmed,
            });
        }
        confirmed?;
        let host = machine.restore_timings().unwrap_or_default();
        let timings = Timings {
            path: Some("restore".to_owned()),
            vmm_spawn: Some(milliseconds(host.vmm_spawn)),
            restore: Some(milliseconds(host.load)),
            identity: Some(milliseconds(restored.elapsed())),
            ..Timings::default()
        };
        Ok(Sandbox::new(
            machine,
            self.vcpus,
            self.hello.clone(),
            timings,
            began,
        ))
    }

    /// Runs a throwaway job in each language that has an interpreter to spare, so that an emulated processor has translated
    /// the code that the next job needs. The code is ours, and the interpreter it runs in is gone afterwards.
    ///
    /// # Errors
    /// A job did not run as it should: the clone must not be used.
    pub async fn warm(&self, sandbox: &mut Sandbox) -> Result<(), EngineError> {
        let spare = self.parked.iter().filter(|(_, count)| **count > 1);
        for (&language, _) in spare {
            let response = sandbox.throwaway(language).await?;
            if response.is_some_and(|response| response.exit_code != 0 || response.stdout != "1\n") {
                return Err(EngineError::Answer(format!(
                    "a job of no consequence failed in {language}"
                )));
            }
        }
        Ok(())
    }
}

fn hung_up(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Closed(_) | EngineError::Frame(FrameError::Io(_) | FrameError::Truncated)
    )
}

const fn throwaway(language: Language) -> Option<&'static str> {
    match language {
        Language::Python => Some("print(1)"),
        Language::Bash => Some("echo 1"),
        Language::Node => Some("console.log(1)"),
        Language::Ruby => Some("puts 1"),
        Language::Rust => None,
    }
}
