//! What `serve` does with a job, whoever brought it.
//!
//! ```text
//! ExecuteRequest ─► admitted: checked, its turn ─► pool ─────────────► exec ─► answer ─► destroyed
//!                                             └─ no snapshot of it: boot ──►┘
//! builder: missing or stale snapshot ─► build ─► Pool::install; the pool is without that template meanwhile, or has the old one
//! ```

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::admission::Tenant;
use engine::pool::policy::{BackoffPolicy, KeyConfig, Limits, Status};
use engine::pool::{Leased, Pool, sensible_concurrency};
use engine::queue::policy::{Config, Refused};
use engine::queue::{Turn, Turns};
use engine::{EngineError, Restored, Sandbox};
use protocol::limits::MAX_TIMEOUT;
use protocol::{ErrorCode, Event, HostError, JobRequest, JobResponse, Language, Termination};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmm::RuntimeDir;

use crate::app::App;
use crate::cli::{MachineArgs, ServeArgs};
use crate::commands::run::{milliseconds, random_trace_id};
use crate::gauges;
use crate::instant;
use crate::machine::{self, Machine, Root};
use crate::metrics::Metrics;
use crate::server::caller::Caller;
use crate::snapshots;

/// What an idle clone takes until one has been weighed: that of an emulated one that was warmed, rounded up.
const CLONE_BYTES: NonZeroU64 = NonZeroU64::new(128 << 20).unwrap();
/// What a VMM takes that waits for its snapshot.
const VMM_BYTES: NonZeroU64 = NonZeroU64::new(16 << 20).unwrap();
/// Until a restore was seen.
const RESTORE_TIME: Duration = Duration::from_millis(500);
/// The pool of a template that nobody asked for lately shrinks to its least after that.
const IDLE: Duration = Duration::from_secs(300);
/// Machines that are kept ready of the first template, where nobody says how many.
const LEAST: usize = 2;
const MOST: usize = 16;
/// Jobs that run at a time, for each processor: what waits longer would not be done sooner by running.
const JOBS_PER_PROCESSOR: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// How long a job waits for its turn where it does not say: its client can hang up at any time.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long a job has a machine, until one was seen.
const SERVICE_TIME: Duration = Duration::from_secs(1);
/// Connections beyond those whose jobs run or wait.
const SPARE_CONNECTIONS: usize = 128;
/// How often snapshots are looked at.
const REVIEW: Duration = Duration::from_secs(60);
/// After a build that failed.
const RETRY: Duration = Duration::from_secs(300);

/// A job over HTTP: the fields of a job, and which machine it wants.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ExecuteRequest {
    #[serde(flatten)]
    pub(crate) job: JobRequest,
    /// The template; the one that has the language when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<String>,
    /// Virtual processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 32)]
    pub(crate) vcpus: Option<u8>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 128)]
    pub(crate) memory_mib: Option<u32>,
    /// Seconds that it may wait for its turn, at most and by default 3600. One that would wait longer is refused at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 3600)]
    pub(crate) queue_timeout: Option<f64>,
    /// The kernel and VMM that the job insists on; the service's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Only>,
}

/// What an [`ExecuteRequest`] has beyond its job.
#[derive(Deserialize)]
struct Wishes {
    template: Option<String>,
    vcpus: Option<u8>,
    memory_mib: Option<u32>,
    queue_timeout: Option<f64>,
    only: Option<Only>,
}

/// See [`ExecuteRequest::only`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Only {
    /// As `run --kernel` names it.
    pub(crate) kernel: String,
    /// As `run` chose it.
    pub(crate) backend: String,
}

impl Only {
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            kernel: machine.kernel.to_string(),
            backend: format!("{:?}", machine.backend),
        }
    }
}

impl ExecuteRequest {
    fn patience(&self) -> Result<Duration, HostError> {
        let Some(seconds) = self.queue_timeout else {
            return Ok(PATIENCE);
        };
        let in_range = (0.0..=MAX_TIMEOUT).contains(&seconds);
        in_range.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| {
            let cause = format!("queue_timeout is {seconds}, not from 0 to {MAX_TIMEOUT} seconds");
            HostError::new(ErrorCode::InvalidRequest, cause)
        })
    }

    /// Reads one. In two passes: what serde flattens it first keeps whole, each value many times as large as it was written.
    ///
    /// # Errors
    /// Why `body` is no request, as precisely as can be said.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, HostError> {
        let parsed = serde_json::from_slice(body).and_then(|job| Ok((job, serde_json::from_slice(body)?)));
        let (job, wishes): (JobRequest, Wishes) = parsed.map_err(|error| Self::refusal(body, &error))?;
        Ok(Self {
            job,
            template: wishes.template,
            vcpus: wishes.vcpus,
            memory_mib: wishes.memory_mib,
            queue_timeout: wishes.queue_timeout,
            only: wishes.only,
        })
    }

    fn refusal(body: &[u8], error: &serde_json::Error) -> HostError {
        #[derive(Deserialize)]
        struct Named {
            lang: String,
        }
        let named = serde_json::from_slice(body).map(|Named { lang }| lang.parse::<Language>());
        match named {
            Ok(Err(unknown)) => unknown,
            _ => HostError::new(
                ErrorCode::InvalidRequest,
                format!("the request is not a job: {error}"),
            ),
        }
    }
}

/// The service.
pub(crate) struct Service {
    app: App,
    runtime: RuntimeDir,
    pool: Pool,
    args: ServeArgs,
    /// The names of the templates whose root filesystems are there; jobs in others are refused.
    templates: Vec<&'static str>,
    concurrent: NonZeroUsize,
    turns: Turns<Tenant>,
    /// Templates that boot for each job at the moment, and why.
    slow: Mutex<BTreeMap<&'static str, String>>,
    metrics: Arc<Metrics>,
}

/// A job whose turn it is.
pub(crate) struct Admitted {
    request: ExecuteRequest,
    machine: Machine,
    accepted: Instant,
    turn: Turn<Tenant>,
}

/// `GET /readyz`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Jobs are taken.
    ready: bool,
    /// Templates that boot for each job at the moment, and why.
    pub(crate) slow: BTreeMap<&'static str, String>,
    jobs: Jobs,
}

/// How many jobs there are.
#[derive(Debug, Serialize, ToSchema)]
struct Jobs {
    /// Have a machine, or get one.
    running: usize,
    /// Wait for their turn.
    waiting: usize,
}

/// Why a job did not run.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) error: HostError,
    /// About when there will be room, where that was missing.
    pub(crate) retry_after: Option<Duration>,
}

impl<E: Into<HostError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            retry_after: None,
        }
    }
}

impl Refusal {
    fn busy(refused: &Refused) -> Self {
        // A second is as exactly as it is known, and as HTTP says it.
        let wait = Duration::from_secs(refused.wait().as_secs().saturating_add(1));
        let seconds = wait.as_secs();
        let remedy = match refused {
            Refused::Closed => "try again when it runs again".to_owned(),
            Refused::TenantFull { .. } => {
                format!("try again in {seconds} s; --jobs and --queue of the key say how many it takes")
            }
            _ => format!("try again in {seconds} s; --jobs and --queue of the service say how many it takes"),
        };
        Self {
            error: HostError::new(ErrorCode::QueueFull, refused.to_string()).remedy(remedy),
            retry_after: Some(wait),
        }
    }
}

impl Service {
    /// Prepares what is missing and starts the pool. Machines die with the thread that calls this.
    pub(crate) async fn start(
        app: App,
        runtime: RuntimeDir,
        args: ServeArgs,
    ) -> Result<Arc<Self>, HostError> {
        let names = image::BUILT_IN.iter().map(|template| template.name);
        let (first, others) = (image::BUILT_IN[0].name, names.skip(1));
        let machine = Machine::of(Root::Template(first), &args.machine)?;
        let instant = args.instant.takes().is_some();
        if !instant {
            app.parts(&machine, true, &runtime).await?;
        }
        let is_there = |name: &&'static str| {
            let machine = Machine::of(Root::Template(name), &args.machine);
            instant || machine.is_ok_and(|machine| app.look(&machine).is_ok())
        };
        let templates: Vec<_> = std::iter::once(first).chain(others.filter(is_there)).collect();
        let limits = Limits {
            budget_bytes: budget(args.memory_budget.as_deref())?,
            max_concurrent: sensible_concurrency(),
            backoff: BackoffPolicy::default(),
        };
        let pool = Pool::start(limits, runtime.clone());
        let concurrent = args
            .jobs
            .unwrap_or_else(|| sensible_concurrency().saturating_mul(JOBS_PER_PROCESSOR));
        let service = Arc::new(Self {
            app,
            runtime,
            pool,
            templates,
            concurrent,
            turns: Turns::new(Config {
                concurrent,
                capacity: args.queue,
                service_time: SERVICE_TIME,
            }),
            args,
            slow: Mutex::default(),
            metrics: Arc::default(),
        });
        if instant {
            return Ok(service);
        }
        // A target that cannot be met is known before there is anything to restore.
        service.config(first).map(drop)?;
        for name in service.templates.clone() {
            let why = "booting for each job until its snapshot has been verified";
            service.slow().insert(name, why.to_owned());
            tokio::spawn(Arc::clone(&service).keep_fresh(name));
        }
        Ok(service)
    }

    /// Waits until it is a job's turn.
    ///
    /// # Errors
    /// It may not run, or there is no room for it.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        mut request: ExecuteRequest,
    ) -> Result<Admitted, Refusal> {
        let accepted = Instant::now();
        if request.job.trace_id.is_empty() {
            request.job.trace_id = random_trace_id();
        }
        let trace_id = request.job.trace_id.clone();
        let admitted = async {
            request.job.validate()?;
            let machine = self.machine(&request)?;
            self.check_allowance(caller, &request.job, &machine)?;
            let share = caller.allowance.share();
            let turn = self.turns.take(&caller.tenant, share, request.patience()?).await;
            let turn = turn.map_err(|refused| Refusal::busy(&refused))?;
            self.metrics.queue_wait.observe([], turn.waited());
            Ok(Admitted {
                turn,
                request,
                machine,
                accepted,
            })
        };
        admitted.await.map_err(|refusal: Refusal| Refusal {
            error: refusal.error.trace_id(trace_id),
            ..refusal
        })
    }

    /// Runs a job.
    ///
    /// # Errors
    /// Why it did not run.
    pub(crate) async fn execute(
        &self,
        admitted: Admitted,
        on_event: impl FnMut(Event) + Send,
    ) -> Result<JobResponse, HostError> {
        let answered = self.run(&admitted, on_event).await;
        match &answered {
            Ok(response) => self.count(&admitted, response),
            Err(error) if of_machine(error.code) => self.metrics.vmm_failures.add([error.code.name()]),
            Err(_) => {}
        }
        answered.map_err(|error| error.trace_id(&admitted.request.job.trace_id))
    }

    fn count(&self, admitted: &Admitted, response: &JobResponse) {
        let language = admitted.request.job.lang.name();
        let end = response.termination.as_ref().map_or("unknown", Termination::name);
        self.metrics.jobs.add([language, end]);
        let Some(timings) = &response.timings else {
            return;
        };
        if let (Some(boot), Root::Template(name)) = (timings.boot, &admitted.machine.root) {
            self.metrics.boot_time.observe_ms([*name], boot);
        }
        if let Some(exec) = timings.exec {
            self.metrics.exec_time.observe_ms([language], exec);
        }
        if let Some(total) = timings.total {
            self.metrics.total_time.observe_ms([language], total);
        }
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// All metrics as OpenMetrics text, with what holds now.
    pub(crate) async fn metrics_text(&self) -> String {
        let metrics = &self.metrics;
        metrics.jobs_running.set([], self.turns.running() as u64);
        metrics.jobs_waiting.set([], self.turns.waiting() as u64);
        if let Some(pool) = self.pool.status().await {
            metrics.show_pool(&pool);
        }
        gauges::measure(metrics, self.runtime.path());
        metrics.text()
    }

    /// Whether the key of whoever brings it lets a job have what it wants.
    fn check_allowance(&self, caller: &Caller, job: &JobRequest, machine: &Machine) -> Result<(), HostError> {
        if caller.is_local {
            return Ok(());
        }
        let allowance = &caller.allowance;
        if let Some(most) = allowance.max_timeout.filter(|most| job.timeout > *most) {
            let cause = format!("the timeout is {} s, and the key allows {most}", job.timeout);
            return Err(HostError::new(ErrorCode::InvalidTimeout, cause).remedy("ask for less"));
        }
        let own = Machine::of(machine.root.clone(), &self.args.machine)?;
        let memory = allowance.max_memory_mib.unwrap_or(own.memory_mib);
        let vcpus = allowance.max_vcpus.unwrap_or(own.vcpus);
        if machine.memory_mib > memory || machine.vcpus > vcpus {
            let cause = format!(
                "the machine has {} MiB of memory and {} processors, and the key allows {memory} and {vcpus}",
                machine.memory_mib, machine.vcpus
            );
            return Err(
                HostError::new(ErrorCode::Forbidden, cause).remedy("ask for less with memory_mib and vcpus")
            );
        }
        Ok(())
    }

    async fn run(
        &self,
        admitted: &Admitted,
        on_event: impl FnMut(Event) + Send,
    ) -> Result<JobResponse, HostError> {
        let Admitted {
            request,
            machine,
            accepted,
            turn,
        } = admitted;
        let mut sandbox = self.sandbox(request, machine).await?;
        let leased = Instant::now();
        let mut response = sandbox.exec(&request.job, on_event).await?;
        let answered = Instant::now();
        // The answer does not wait for it.
        tokio::spawn(sandbox.destroy());
        if let Some(error) = response.error.take() {
            return Err(error);
        }
        if let Some(timings) = &mut response.timings {
            let execute = Duration::from_secs_f64(timings.execute.unwrap_or_default().max(0.0) / 1e3);
            let host =
                answered.saturating_duration_since(leased).saturating_sub(execute) + answered.elapsed();
            let waited = (leased - *accepted).saturating_sub(turn.waited());
            timings.queue = Some(milliseconds(turn.waited()));
            timings.host = Some(milliseconds(if timings.path.as_deref() == Some("pool") {
                host + waited
            } else {
                host
            }));
            timings.total = Some(milliseconds(accepted.elapsed()));
        }
        Ok(response)
    }

    fn machine(&self, request: &ExecuteRequest) -> Result<Machine, HostError> {
        let name = match &request.template {
            Some(name) => machine::template(name)?,
            None => machine::template_with(request.job.lang)?,
        };
        if !self.templates.contains(&name) {
            let cause = format!("the template {name} has not been made");
            return Err(HostError::new(ErrorCode::TemplateMissing, cause).remedy(format!(
                "run `host-agent setup --template {name}`, and start the service again"
            )));
        }
        let own = &self.args.machine;
        let args = MachineArgs {
            memory: request
                .memory_mib
                .map_or_else(|| own.memory.clone(), |size| size.to_string()),
            vcpus: request.vcpus.unwrap_or(own.vcpus),
            ..own.clone()
        };
        let machine = Machine::of(Root::Template(name), &args)?;
        if request
            .only
            .as_ref()
            .is_some_and(|only| *only != Only::of(&machine))
        {
            let cause = "the service has another kernel or VMM than the job insists on";
            return Err(HostError::new(ErrorCode::ServiceMismatch, cause));
        }
        Ok(machine)
    }

    async fn sandbox(&self, request: &ExecuteRequest, machine: &Machine) -> Result<Lease, HostError> {
        let Root::Template(name) = machine.root else {
            return Err(HostError::new(
                ErrorCode::Internal,
                "a service runs templates only",
            ));
        };
        let own = Machine::of(Root::Template(name), &self.args.machine)?;
        if let Some(takes) = self.args.instant.takes() {
            return Ok(Lease::Instant(takes));
        }
        let as_frozen = (own.vcpus, own.memory_mib) == (machine.vcpus, machine.memory_mib);
        if as_frozen && let Some(leased) = self.pool.acquire(name).await? {
            return Ok(Lease::Pool(Box::new(leased)));
        }
        tracing::debug!(
            trace_id = request.job.trace_id,
            name,
            "Booting, for want of a snapshot"
        );
        let parts = self.app.look(machine)?;
        let vmm = self.app.vmm(machine, &parts.boot.kernel, &self.runtime).await?;
        let sandbox = self.app.boot(&vmm, machine, parts, None, &self.runtime).await?;
        Ok(Lease::Cold(Box::new(sandbox)))
    }

    /// How many clients may be connected.
    pub(crate) fn most_connections(&self) -> usize {
        let wanted = self.concurrent.get().saturating_add(self.args.queue);
        // The rest of the descriptors is for machines.
        wanted
            .saturating_add(SPARE_CONNECTIONS)
            .min(raise_descriptors() / 4)
    }

    /// The names of the templates that jobs can run in.
    pub(crate) fn templates(&self) -> &[&'static str] {
        &self.templates
    }

    /// The pool, as it was a moment ago; none when it has been drained.
    pub(crate) async fn pool(&self) -> Option<Status<String>> {
        self.pool.status().await
    }

    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            ready: true,
            slow: self.slow().clone(),
            jobs: Jobs {
                running: self.turns.running(),
                waiting: self.turns.waiting(),
            },
        }
    }

    /// Refuses jobs that do not run yet.
    pub(crate) fn stop(&self) {
        self.turns.close();
    }

    /// Destroys all machines.
    pub(crate) async fn drain(&self) {
        self.pool.drain().await;
    }

    fn config(&self, name: &str) -> Result<KeyConfig, HostError> {
        let first = name == image::BUILT_IN[0].name;
        let min = match self.args.pool {
            Some(pool) if first => pool,
            None if first => LEAST,
            _ => 0,
        };
        let config = KeyConfig {
            min,
            target: min,
            max: self.args.pool.unwrap_or(MOST).max(min),
            prespawn: if first { self.args.prespawned } else { 0 },
            weight: NonZeroU32::MIN,
            idle_after: IDLE,
            vm_bytes: CLONE_BYTES,
            vmm_bytes: VMM_BYTES,
            restore_time: RESTORE_TIME,
        };
        let budget = budget(self.args.memory_budget.as_deref())?;
        config.check(budget).map_err(|error| over_budget(&error))?;
        Ok(config)
    }

    /// Sees to it that there is a snapshot that fits and is not too old, for as long as the service runs.
    async fn keep_fresh(self: Arc<Self>, name: &'static str) {
        let mut installed = None;
        loop {
            let pause = match self.refresh(name, &mut installed).await {
                Ok(()) => {
                    self.slow().remove(name);
                    REVIEW
                }
                Err(error) => {
                    tracing::warn!(name, %error, "There is no snapshot to restore from");
                    self.slow().insert(name, format!("booting for each job: {error}"));
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn refresh(&self, name: &'static str, installed: &mut Option<u64>) -> Result<(), HostError> {
        let machine = Machine::of(Root::Template(name), &self.args.machine)?;
        let candidate = self.app.candidate(&machine, &self.runtime).await?;
        let max_age = Duration::try_from_secs_f64(self.args.rebuild_after * 3600.0).unwrap_or(Duration::MAX);
        let replacing = match self.app.open(&candidate) {
            Ok(Some(snapshot)) if !snapshots::is_stale(snapshot.manifest(), max_age) => {
                let serial = snapshot.manifest().serial;
                if *installed != Some(serial) {
                    self.install(name, self.app.template(candidate, snapshot)?)
                        .await?;
                    *installed = Some(serial);
                }
                return Ok(());
            }
            Ok(Some(snapshot)) => Some(snapshot.manifest().serial),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(name, %error, "A snapshot is not used");
                self.app
                    .snapshots()
                    .find(&candidate.key)?
                    .map(|snapshot| snapshot.serial())
            }
        };
        if installed.is_none() {
            let why = "booting for each job while its snapshot is being built";
            self.slow().insert(name, why.to_owned());
        }
        let built = self
            .app
            .build(&machine, &candidate, replacing, &self.runtime, |_| {})
            .await?;
        let snapshot = self.app.open(&candidate)?;
        let snapshot =
            snapshot.ok_or_else(|| HostError::new(ErrorCode::SnapshotMissing, "it was removed"))?;
        *installed = Some(built.snapshot.serial());
        self.install(name, self.app.template(candidate, snapshot)?).await
    }

    async fn install(&self, name: &'static str, mut template: engine::Template) -> Result<(), HostError> {
        let config = self.config(name)?;
        let metrics = self.metrics();
        template.on_restore = Some(Arc::new(move |restored| match restored {
            Restored::Confirmed(took) => metrics.restore_time.observe([name], took),
            Restored::Unconfirmed => metrics.unconfirmed.add([name]),
        }));
        let installed = self.pool.install(name, template, config).await;
        installed.map_err(|error| over_budget(&error))
    }

    fn slow(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine for one job.
enum Lease {
    Pool(Box<Leased>),
    Cold(Box<Sandbox>),
    /// None, and it takes that long.
    Instant(Duration),
}

impl Lease {
    async fn exec(
        &mut self,
        job: &JobRequest,
        on_event: impl FnMut(Event) + Send,
    ) -> Result<JobResponse, EngineError> {
        match self {
            Self::Pool(leased) => leased.exec(job, on_event).await,
            Self::Cold(sandbox) => sandbox.exec(job, on_event).await,
            Self::Instant(takes) => Ok(instant::exec(*takes, job, on_event).await),
        }
    }

    async fn destroy(self) {
        match self {
            Self::Pool(leased) => {
                leased.destroy().await;
            }
            Self::Cold(sandbox) => {
                sandbox.destroy().await;
            }
            Self::Instant(_) => {}
        }
    }
}

/// Whether a job failed because of its machine.
const fn of_machine(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::VmmFailed | ErrorCode::VmmDied | ErrorCode::GuestSilent | ErrorCode::GuestProtocol
    )
}

/// Has this process take as many descriptors as it may have at most; how many that is.
fn raise_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, it stays what it was.
    let _ = setrlimit(Resource::Nofile, limit);
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(now).unwrap_or(usize::MAX)
}

fn over_budget(error: &dyn std::fmt::Display) -> HostError {
    HostError::new(ErrorCode::InvalidRequest, error.to_string())
        .remedy("give a larger --memory-budget, or a smaller --pool or --prespawned")
}

/// Bytes for what waits.
fn budget(asked: Option<&str>) -> Result<u64, HostError> {
    if let Some(size) = asked {
        return Ok(u64::from(machine::size_mib("--memory-budget", size)?) << 20);
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = available.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Ok(kibibytes.map_or(512 << 20, |kibibytes| (kibibytes << 10) / 4))
}
