//! Interpreters that wait: started before the machine is frozen, through every layer of confinement, each in a cgroup and
//! namespaces of its own. A job that one of them can take is released into it; any other job starts a new process.
//!
//! ```text
//! park ─► stage ─► interpreter, blocked in its loader ─ ─ frozen, cloned ─ ─ take ─► release ─► the code
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::control;
use protocol::frame::{decode_message, read_frame};
use protocol::job::JobLimits;
use protocol::limits::MAX_PARKED;
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, Language};

use crate::confine::cgroup::Cgroup;
use crate::confine::namespaces::View;
use crate::confine::rlimits::Rlimits;
use crate::confine::{self, Limits};
use crate::failure::{Doing as _, Failure};
use crate::guest::{Extent, Guest};
use crate::language;
use crate::launch::Stage;
use crate::loaders;
use crate::root::JobDirectories;
use crate::stage::{self, Report, Setup};
use crate::sys;

/// How long an interpreter may take to start and to import what it imports.
const START: Duration = Duration::from_secs(60);
/// Memory that a job must be allowed beyond what its interpreter has already, in bytes. With less it is started anew, and
/// fails as it would without any parking.
const HEADROOM: u64 = 8 << 20;

/// All interpreters that wait.
#[derive(Default)]
pub(crate) struct Parking(Mutex<BTreeMap<Language, Vec<Parked>>>);

/// One interpreter that waits.
pub(crate) struct Parked {
    // In this order: the stage ends, then what it used is removed.
    pub(crate) stage: Stage,
    pub(crate) directories: JobDirectories,
    pub(crate) cgroup: Cgroup,
    /// What it was started with.
    pub(crate) limits: Limits,
}

/// Starts what is asked for beyond what is there, in a thread that never ends: what a thread has started the kernel ends
/// with it.
pub(crate) fn park(guest: &Arc<Guest>, wanted: control::Park) -> Result<control::Parked, HostError> {
    let (tell, parked) = channel();
    let guest = Arc::clone(guest);
    let start = move || {
        let _ = tell.send(guest.parking.park(&guest, &wanted));
        loop {
            std::thread::park();
        }
    };
    std::thread::Builder::new()
        .name("parking".to_owned())
        .stack_size(crate::THREAD_STACK)
        .spawn(start)
        .doing(|| "start a thread".to_owned())?;
    parked
        .recv()
        .map_err(|_| HostError::new(ErrorCode::Internal, "nothing was parked"))
}

impl Parking {
    fn park(&self, guest: &Guest, wanted: &control::Park) -> control::Parked {
        guest.root.await_identity();
        // The first of several is for warming an emulated machine up, which keeps translated code by its address.
        let alike = wanted.languages.values().any(|count| *count > 1);
        let _alike = alike.then(Alike::begin);
        let mut refused = BTreeMap::new();
        for (&language, &count) in &wanted.languages {
            let missing = usize::from(count.min(MAX_PARKED)).saturating_sub(self.count(language));
            for _ in 0..missing {
                match start(guest, language) {
                    Ok(parked) => self.lock().entry(language).or_default().push(parked),
                    Err(error) => {
                        refused.insert(language, error.cause);
                        break;
                    }
                }
            }
        }
        control::Parked {
            languages: self.counts(),
            refused,
        }
    }

    /// Takes an interpreter that can run `job` with these limits, if one waits.
    pub(crate) fn take(&self, job: &JobRequest, limits: &Limits) -> Option<Parked> {
        if job.fresh || needs_start(job) {
            return None;
        }
        let mut waiting = self.lock();
        let waiting = waiting.get_mut(&job.lang)?;
        // Nothing is heard of one that lives.
        waiting.retain(|parked| !parked.stage.stirs_within(Duration::ZERO));
        let fits = waiting.iter().position(|parked| parked.fits(limits))?;
        Some(waiting.swap_remove(fits))
    }

    /// Ends all that wait where the guest is short of memory: a job that has begun has no use for them, and has the memory to
    /// itself then, as in a guest where nothing ever waited.
    pub(crate) fn make_room(&self, guest_memory: u64) {
        let mut waiting = self.lock();
        if !waiting.is_empty() && confine::is_short_of_memory(guest_memory) {
            let ended: Vec<Parked> = std::mem::take(&mut *waiting).into_values().flatten().collect();
            drop(waiting);
            ended.iter().for_each(|parked| parked.cgroup.kill());
            // Nobody has to wait until they are gone, unless there is no memory for a thread either: then they are dropped here.
            let thread = std::thread::Builder::new().stack_size(crate::THREAD_STACK);
            let _ = thread.spawn(move || drop(ended));
        }
    }

    /// How many wait, by language.
    pub(crate) fn counts(&self) -> BTreeMap<Language, u8> {
        let waiting = self.lock();
        let counts = waiting.iter().filter(|(_, parked)| !parked.is_empty());
        counts
            .map(|(language, parked)| (*language, u8::try_from(parked.len()).unwrap_or(u8::MAX)))
            .collect()
    }

    fn count(&self, language: Language) -> usize {
        self.lock().get(&language).map_or(0, Vec::len)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Language, Vec<Parked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    /// Whether the limits leave it what it has, and something to work with.
    fn fits(&self, limits: &Limits) -> bool {
        *limits == self.limits
            || (self.cgroup.memory().saturating_add(HEADROOM) <= limits.memory_bytes
                && self.cgroup.processes() < limits.pids)
    }
}

/// Whether it sets what an interpreter only reads while it starts, or brings what one that waited would end without: the
/// destructors of libraries, see `python/sitecustomize.py`.
fn needs_start(job: &JobRequest) -> bool {
    const ELF_IN_BASE64: &str = "f0VMR";
    let is_program = |file: &FileSpec| {
        file.content_base64
            .as_ref()
            .is_some_and(|content| content.starts_with(ELF_IN_BASE64))
    };
    if job.lang == Language::Python && job.files.iter().any(is_program) {
        return true;
    }
    let differs = |(name, value): (&String, &String)| {
        loaders::is_read_at_start(job.lang, name) && stage::default_value(name) != Some(value.as_str())
    };
    job.env.iter().any(differs)
}

/// While it exists, all processes that are started have the same addresses.
struct Alike;

impl Alike {
    fn begin() -> Self {
        set_random_addresses("0");
        Self
    }
}

impl Drop for Alike {
    fn drop(&mut self) {
        set_random_addresses("2");
    }
}

fn set_random_addresses(degree: &str) {
    let path = Path::new("/proc/sys").join(sys::RANDOM_ADDRESSES);
    if let Err(error) = fs::write(&path, degree) {
        eprintln!("guest-runner: cannot set {}: {error}", path.display());
    }
}

fn start(guest: &Guest, language: Language) -> Result<Parked, HostError> {
    let cannot = |why: &str| HostError::from(Failure::new(format!("park {language}"), why));
    if guest.extent != Extent::Machine || !guest.root.is_own() {
        return Err(cannot("the runner is not PID 1 of this guest"));
    }
    let Ok(cgroups) = &guest.cgroups else {
        return Err(cannot("this guest has no cgroup v2"));
    };
    let waiting = loaders::waiting(language).ok_or_else(|| cannot("it is compiled"))?;
    let program = language::program(guest.root.programs(), language)?;
    let limits = Limits::decide(&JobLimits::default(), true, guest.memory)?;
    let root = guest.root.prepare()?;
    let directories = root.directories(guest.next_job())?;
    let cgroup = cgroups.create(&limits)?;
    let setup = Setup {
        view: View {
            root: root.mount.clone(),
            own: directories.own(),
            shm_bytes: limits.memory_bytes,
        },
        user: root.user.clone(),
        program,
        cgroup: Some(cgroup.path().to_owned()),
        rlimits: Rlimits::new(&limits, true),
        filter: guest.seccomp.then_some(language),
        waiting: Some(waiting),
    };
    let stage = Stage::spawn(guest, &setup, None)?;
    let mut parked = Parked {
        stage,
        directories,
        cgroup,
        limits,
    };
    parked.await_loader(language)?;
    // What waits uses no processor time.
    parked.cgroup.begin();
    Ok(parked)
}

impl Parked {
    fn await_loader(&self, language: Language) -> Result<(), HostError> {
        let silent = || HostError::from(Failure::new(format!("park {language}"), "it said nothing"));
        if !self.stage.stirs_within(START) {
            return Err(silent());
        }
        // What has begun to come comes whole: a stage writes a report in one piece.
        let mut control = self.stage.control.try_clone().map_err(|_| silent())?;
        let report = read_frame(&mut control).ok().flatten().ok_or_else(silent)?;
        match decode_message(&report) {
            Ok(Report::Parked) => Ok(()),
            Ok(Report::Refused(error)) => Err(error),
            _ => Err(HostError::new(
                ErrorCode::Internal,
                "a stage that waits said something strange",
            )),
        }
    }
}
