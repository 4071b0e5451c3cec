//! What `restore`, `memory` and `parked` have in common: clones made by the engine in this process.

use std::time::{Duration, Instant};

use anyhow::Context;
use engine::Sandbox;
use tokio::runtime::Runtime;
use vmm::RuntimeDir;

use super::installed::{Frozen, Installed};

/// How long a restore may take; on an emulated host it takes long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A snapshot and all that it takes to clone it.
pub(super) struct Clones {
    pub(super) installed: Installed,
    pub(super) frozen: Frozen,
    pub(super) runtime_dir: RuntimeDir,
    /// One thread: a VMM is killed when the thread that started it ends.
    pub(super) runtime: Runtime,
}

impl Clones {
    pub(super) fn prepare() -> anyhow::Result<Self> {
        // A clone's VMM has none; the floor's inherits that from here.
        rustix::thread::disable_transparent_huge_pages(true).context("cannot do without huge pages")?;
        let installed = Installed::find()?;
        let frozen = installed.frozen()?;
        println!("snapshot: {}", frozen.describe());
        Ok(Self {
            runtime_dir: RuntimeDir::open(installed.runtime_dir())?,
            frozen,
            installed,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    pub(super) fn deadline() -> Instant {
        Instant::now() + PATIENCE
    }

    /// A clone that has confirmed its identity.
    pub(super) async fn one(&self) -> anyhow::Result<Sandbox> {
        let clone = self
            .frozen
            .template
            .clone_now(&self.runtime_dir, None, Self::deadline());
        Ok(clone.await?)
    }
}
