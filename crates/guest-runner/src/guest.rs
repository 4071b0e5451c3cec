//! What the runner knows of the guest that it runs in; shared by all connections.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::Hello;
use protocol::control::{Boot, VERSION};

use crate::clock;
use crate::confine::{self, cgroup::Hierarchy, seccomp};
use crate::language;
use crate::park::Parking;
use crate::reap::Reaper;
use crate::root::Root;

/// The parts of the job protocol beyond its first four fields.
const FEATURES: [&str; 5] = ["stream", "files", "limits", "base64", "park"];

/// What the runner stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The machine.
    Machine,
    /// Its own process, somewhere that is no guest.
    Process,
}

/// The guest.
pub(crate) struct Guest {
    pub(crate) root: Root,
    /// Where jobs get their cgroups, or why they get none.
    pub(crate) cgroups: Result<Hierarchy, String>,
    /// Whether jobs get filters of system calls: the kernel has them.
    pub(crate) seccomp: bool,
    /// All of the guest's memory, in bytes.
    pub(crate) memory: u64,
    pub(crate) reaper: Reaper,
    /// The interpreters that wait.
    pub(crate) parking: Parking,
    /// What a shutdown ends.
    pub(crate) extent: Extent,
    /// How the guest came up, until it listened.
    pub(crate) boot: Boot,
    jobs: AtomicU64,
}

impl Guest {
    pub(crate) fn new(
        root: Root,
        cgroups: Result<Hierarchy, String>,
        reaper: Reaper,
        extent: Extent,
        boot: Boot,
    ) -> Self {
        let memory = rustix::system::sysinfo();
        Self {
            root,
            cgroups,
            seccomp: seccomp::available(),
            memory: u64::from(memory.mem_unit) * memory.totalram,
            reaper,
            parking: Parking::default(),
            extent,
            boot,
            jobs: AtomicU64::new(0),
        }
    }

    /// A number that no job had before.
    pub(crate) fn next_job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    /// What the host is told of it.
    pub(crate) fn hello(&self) -> Hello {
        let cgroups = self.cgroups.as_ref().map(|_| ()).map_err(String::as_str);
        Hello {
            version: VERSION,
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            features: FEATURES.map(str::to_owned).to_vec(),
            languages: language::find_all(self.root.programs()),
            parked: self.parking.counts().into_keys().collect(),
            confinement: confine::able(cgroups, self.seccomp, self.root.is_overlay()),
            boot: Boot {
                now: clock::since_boot(),
                ..self.boot.clone()
            },
        }
    }
}
