//! Templates as snapshots: found, opened and built. The only place that knows both how a machine is frozen and how what is left of it is
//! kept.
//!
//! ```text
//! Machine ─► SnapshotKey ─► find, verify ─► Template
//!                │
//!                └─► boot ─► park ─► freeze ─► sign, publish
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use engine::{Frozen, Sandbox, Template};
use image::signing::SigningKeys;
use image::snapshot::{
    Begun, Refusal, Snapshot, SnapshotBuild, SnapshotDetails, SnapshotError, SnapshotKey, SnapshotManifest,
    Snapshots, VerifiedSnapshot,
};
use image::{Artefacts, Progress, Unit};
use protocol::control::Park;
use protocol::{ErrorCode, Hello, HostError, Language};
use vmm::{Accel, RuntimeDir, SnapshotFile, VmmBinary, arch};

use crate::app::{App, Parts};
use crate::machine::{Machine, Root};

/// How long parking and freezing may take. Node's interpreter alone takes several seconds to start under emulation.
const FREEZE: Duration = Duration::from_secs(180);
/// How long a clone may take to be made.
const RESTORE: Duration = Duration::from_secs(60);

/// A template that there is a snapshot of, or could be.
#[derive(Debug)]
pub(crate) struct Candidate {
    vmm: VmmBinary,
    artefacts: Artefacts,
    pub(crate) key: SnapshotKey,
}

/// What `template build` did.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) snapshot: Snapshot,
    /// There was one already.
    pub(crate) existed: bool,
    /// Languages without an interpreter that waits, and why.
    pub(crate) refused: BTreeMap<Language, String>,
}

impl App {
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots::open(&self.store)
    }

    pub(crate) fn signing_keys(&self) -> SigningKeys {
        SigningKeys::open(self.store.root())
    }

    /// What a snapshot of that machine would have to fit.
    pub(crate) async fn candidate(
        &self,
        machine: &Machine,
        runtime: &RuntimeDir,
    ) -> Result<Candidate, HostError> {
        let Root::Template(name) = machine.root else {
            let cause = "only a template can be frozen, not an image of one's own";
            return Err(HostError::new(ErrorCode::InvalidRequest, cause));
        };
        let artefacts = self.store.lookup(name, &machine.kernel, &self.runner)?;
        let vmm = self.vmm(machine, &artefacts.boot.kernel, runtime).await?;
        let sums = self.snapshots().sums(&artefacts)?;
        let key = SnapshotKey {
            template: name.to_owned(),
            kernel: sums.kernel,
            rootfs: sums.rootfs,
            initramfs: sums.initramfs,
            vcpus: machine.vcpus.into(),
            memory_mib: machine.memory_mib,
            network: "none".to_owned(),
            backend: vmm.kind.name().to_owned(),
            vmm: vmm.identity(),
            cpu: arch::cpu_identity(vmm.accel),
            runner: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Candidate { vmm, artefacts, key })
    }

    /// The newest snapshot of it, verified; `None` when there is none.
    pub(crate) fn open(&self, candidate: &Candidate) -> Result<Option<VerifiedSnapshot>, HostError> {
        let Some(snapshot) = self.snapshots().find(&candidate.key)? else {
            return Ok(None);
        };
        Ok(Some(snapshot.open(&self.signing_keys(), &candidate.key)?))
    }

    /// Why the newest snapshot of the template fits no more, if that is because something of this host has changed. Another
    /// size, kernel or backend than that was frozen with is what the user asked for.
    pub(crate) fn outdated(&self, candidate: &Candidate) -> Option<HostError> {
        const CHANGES: [&str; 5] = [
            "root filesystem",
            "initramfs",
            "VMM version",
            "CPU",
            "guest-runner version",
        ];
        let why = self.snapshots().why_missing(&candidate.key, &self.signing_keys());
        let changed = match &why {
            SnapshotError::Refused { reason, .. } => match reason.as_ref() {
                Refusal::Mismatch(mismatches) => mismatches.iter().all(|it| CHANGES.contains(&it.fact)),
                _ => false,
            },
            _ => false,
        };
        changed.then(|| why.into())
    }

    /// A machine with that root filesystem and these parts: a clone where there is a snapshot to make it from and `cold` does not forbid
    /// it, else one that boots. What kept it from being a clone, where that is worth knowing, is told to `note`.
    pub(crate) async fn sandbox(
        &self,
        machine: &Machine,
        parts: Parts,
        cold: bool,
        runtime: &RuntimeDir,
        note: impl Fn(&HostError),
    ) -> Result<Sandbox, HostError> {
        if !cold && machine.can_be_cloned() {
            let candidate = self.candidate(machine, runtime).await?;
            match self.open(&candidate) {
                Ok(Some(snapshot)) => {
                    let template = self.template(candidate, snapshot)?;
                    let deadline = Instant::now() + RESTORE;
                    let clone = template.clone_now(runtime, machine.keep_console.clone(), deadline);
                    return Ok(clone.await?);
                }
                // A machine that boots is as good; what happened to the snapshot is for its owner to know.
                Ok(None) => {
                    if let Some(error) = self.outdated(&candidate) {
                        note(&error);
                    }
                }
                Err(error) => note(&error),
            }
        }
        let vmm = self.vmm(machine, &parts.boot.kernel, runtime).await?;
        self.boot(&vmm, machine, parts, None, runtime).await
    }

    /// What clones are made from.
    pub(crate) fn template(
        &self,
        candidate: Candidate,
        snapshot: VerifiedSnapshot,
    ) -> Result<Template, HostError> {
        let manifest = snapshot.manifest();
        let unreadable = |error: std::io::Error| {
            HostError::new(
                ErrorCode::StateUnusable,
                format!("cannot open a snapshot: {error}"),
            )
        };
        let memory = snapshot.memory().try_clone().map_err(unreadable)?;
        let state = snapshot.state().try_clone().map_err(unreadable)?;
        let scratch = snapshot.scratch().try_clone().map_err(unreadable)?;
        let hello: Hello = serde_json::from_value(manifest.hello.clone()).map_err(|error| {
            HostError::new(
                ErrorCode::SnapshotInvalid,
                format!("a snapshot's hello is none: {error}"),
            )
        })?;
        let mut parked = BTreeMap::new();
        for language in manifest.parked.iter().filter_map(|name| name.parse().ok()) {
            *parked.entry(language).or_default() += 1;
        }
        Ok(Template {
            vmm: candidate.vmm,
            memory: SnapshotFile::new(memory, snapshot.memory_path())?,
            state: SnapshotFile::new(state, snapshot.state_path())?,
            root: App::root_drive(candidate.artefacts.rootfs),
            scratch: SnapshotFile::new(scratch, snapshot.scratch_path())?,
            vcpus: u8::try_from(manifest.key.vcpus).unwrap_or(u8::MAX),
            memory_mib: manifest.key.memory_mib,
            hello,
            parked,
            in_use: Arc::new(snapshot),
            on_restore: None,
        })
    }

    /// Boots the machine, parks its interpreters and freezes it, unless there is a snapshot that is not to be replaced.
    pub(crate) async fn build(
        &self,
        machine: &Machine,
        candidate: &Candidate,
        replacing: Option<u64>,
        runtime: &RuntimeDir,
        report: impl Fn(Progress<'_>),
    ) -> Result<Built, HostError> {
        let building = match self.snapshots().begin(&candidate.key, replacing, &report)? {
            Begun::Build(building) => building,
            Begun::Exists(snapshot) => {
                return Ok(Built {
                    snapshot,
                    existed: true,
                    refused: BTreeMap::new(),
                });
            }
        };
        let step = format!("snapshot of {}", candidate.key.template);
        report(Progress::Started {
            step: &step,
            unit: Unit::Nothing,
            total: None,
        });
        report(Progress::Stage("booting, parking interpreters, freezing"));
        let frozen = self.freeze(machine, candidate, &building, runtime).await?;
        let refused = frozen.parked.refused.clone();
        report(Progress::Stage("hashing and signing"));
        let snapshot = publish(*building, frozen, self.signing_keys()).await?;
        report(Progress::Finished);
        Ok(Built {
            snapshot,
            existed: false,
            refused,
        })
    }

    async fn freeze(
        &self,
        machine: &Machine,
        candidate: &Candidate,
        building: &SnapshotBuild,
        runtime: &RuntimeDir,
    ) -> Result<Frozen, HostError> {
        let parts = self.look(machine)?;
        let directory = building.memory().parent().map(std::path::Path::to_owned);
        let sandbox = self
            .boot(&candidate.vmm, machine, parts, directory, runtime)
            .await?;
        // An emulated clone is warmed by a job that uses one up.
        let each = if candidate.vmm.accel == Accel::Tcg { 2 } else { 1 };
        let park = Park {
            languages: sandbox
                .hello()
                .languages
                .keys()
                .filter(|language| **language != Language::Rust)
                .map(|language| (*language, each))
                .collect(),
        };
        Ok(sandbox.freeze(park, Instant::now() + FREEZE).await?)
    }
}

/// Hashing takes a while, and other machines are to go on meanwhile.
async fn publish(building: SnapshotBuild, frozen: Frozen, keys: SigningKeys) -> Result<Snapshot, HostError> {
    let hello = serde_json::to_value(&frozen.hello)
        .map_err(|error| HostError::new(ErrorCode::Internal, error.to_string()))?;
    let parked = frozen.parked.languages.iter();
    let details = SnapshotDetails {
        parked: parked
            .flat_map(|(language, count)| {
                std::iter::repeat_n(language.name().to_owned(), usize::from(*count))
            })
            .collect(),
        hello,
    };
    let published = tokio::task::spawn_blocking(move || building.publish(details, &keys)).await;
    let published = published.map_err(|error| HostError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(published?)
}

/// Whether a snapshot is so old that what its clones have in common should not last any longer.
pub(crate) fn is_stale(manifest: &SnapshotManifest, max_age: Duration) -> bool {
    manifest.is_stale(SystemTime::now(), max_age)
}
