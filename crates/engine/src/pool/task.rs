//! What carries the [policy](super::policy) out: one task that decides, one task for each thing that waits, and the requests
//! themselves, which restore what is not ready.
//!
//! ```text
//! acquire ── Command::Lease ──► Decider ── policy ── Action ──► Keeper: restore, warm, wait
//!    ▲                             ▲                              │ │
//!    │                             └──── Ready, Failed, Gone ─────┘ │
//!    └──────────────── Sandbox, or Spawned to be restored ──────────┘
//! ```
//!
//! Every machine has one owner: its keeper until it is handed over, the request from then on. Whoever owns it when it ends
//! says so, by dropping a [`Tenure`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Event, JobRequest, JobResponse};
use tokio::sync::{mpsc, oneshot};
use vmm::{Accel, RuntimeDir, Shutdown, VmmError};

use super::policy::{self, Action, ConfigError, Generation, KeyConfig, Lease, Limits, Source, Status, VmId};
use crate::error::EngineError;
use crate::sandbox::Sandbox;
use crate::template::{Spawned, Template};

/// How long a restore may take, warming apart.
const RESTORE: Duration = Duration::from_secs(30);
/// How often a request is given another machine in place of one that was dead when it was handed over.
const ATTEMPTS: usize = 3;
/// How long a job that has just begun has the processors before the pool replaces its machine, as long as it has another for
/// the next job. Most jobs are over by then.
const HOLD: Duration = Duration::from_millis(60);

/// A pool of clones, by the name of what they are clones of. Cheap to clone; all are the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    commands: mpsc::UnboundedSender<Command>,
    runtime: RuntimeDir,
}

/// A sandbox of the pool's, for one job. When it is dropped the machine is destroyed.
#[derive(Debug)]
pub struct Leased {
    // In this order: the pool hears of it when it is gone.
    sandbox: Sandbox,
    tenure: Tenure,
}

/// Says when a machine is gone.
#[derive(Debug)]
struct Tenure {
    id: VmId,
    /// Absent when somebody else is to say it.
    commands: Option<mpsc::UnboundedSender<Command>>,
}

impl Tenure {
    fn tell(&self, command: impl FnOnce(VmId) -> Command) {
        if let Some(commands) = &self.commands {
            // A pool that is gone needs no telling.
            let _ = commands.send(command(self.id));
        }
    }

    fn relinquish(mut self) {
        self.commands = None;
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.tell(Command::Gone);
    }
}

#[derive(Debug)]
enum Command {
    Install {
        key: String,
        template: Box<Template>,
        config: KeyConfig,
        answer: oneshot::Sender<Result<(), ConfigError>>,
    },
    Lease {
        key: String,
        again: bool,
        answer: oneshot::Sender<Option<Granted>>,
    },
    Status(oneshot::Sender<Status<String>>),
    Drain(oneshot::Sender<()>),
    Ready(VmId, Duration),
    Warmed(VmId),
    Weighs(VmId, u64),
    Failed(VmId, String),
    Gone(VmId),
}

/// What a request is given.
#[derive(Debug)]
struct Granted {
    tenure: Tenure,
    /// What its keeper hands over; absent where nothing is there yet.
    kept: Option<oneshot::Receiver<Kept>>,
    /// When to restore it; absent where it is restored already.
    turn: Option<oneshot::Receiver<Turn>>,
}

/// It is a request's turn to restore.
#[derive(Debug)]
enum Turn {
    /// Restore a clone of this, which may be newer than what was waiting for it.
    Restore(Arc<Template>),
    /// One has become ready meanwhile.
    Instead(Granted),
}

/// What a keeper keeps.
#[derive(Debug)]
enum Kept {
    Sandbox(Box<Sandbox>),
    /// For a clone of that template.
    Spawned(Box<Spawned>, Arc<Template>),
}

impl Kept {
    async fn failed(&self) {
        match self {
            Self::Sandbox(sandbox) => drop(sandbox.failed().await),
            Self::Spawned(spawned, _) => drop(spawned.failed().await),
        }
    }
}

impl Pool {
    /// Starts a pool without anything in it. Machines die with the thread that calls this.
    #[must_use]
    pub fn start(limits: Limits, runtime: RuntimeDir) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let pool = Self { commands, runtime };
        let decider = Decider {
            policy: policy::Pool::new(limits),
            pool: pool.clone(),
            templates: BTreeMap::new(),
            keepers: HashMap::new(),
            weights: HashMap::new(),
            slots: limits.max_concurrent.get(),
            working: HashSet::new(),
            waiting: VecDeque::new(),
            generation: 0,
            epoch: Instant::now(),
            hold: None,
            draining: None,
        };
        tokio::spawn(decider.run(received));
        pool
    }

    /// Has clones of `template` kept ready under that name, in place of those of an older one.
    ///
    /// # Errors
    /// The configuration cannot be met; what was in force before still is.
    pub async fn install(&self, key: &str, template: Template, config: KeyConfig) -> Result<(), ConfigError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Install {
            key: key.to_owned(),
            template: Box::new(template),
            config,
            answer,
        });
        answered.await.unwrap_or(Ok(()))
    }

    /// A sandbox for one job, ready or restored now; `None` when there is no template of that name.
    ///
    /// # Errors
    /// The restore failed.
    pub async fn acquire(&self, key: &str) -> Result<Option<Leased>, EngineError> {
        let since = Instant::now();
        let mut again = false;
        for _ in 0..ATTEMPTS {
            let (answer, answered) = oneshot::channel();
            let key = key.to_owned();
            self.tell(Command::Lease { key, again, answer });
            let Ok(Some(granted)) = answered.await else {
                return Ok(None);
            };
            if let Some(leased) = self.take(granted, since).await? {
                return Ok(Some(leased));
            }
            again = true;
        }
        Ok(None)
    }

    /// `None` when what was granted was dead.
    async fn take(&self, granted: Granted, since: Instant) -> Result<Option<Leased>, EngineError> {
        let Granted { tenure, kept, turn } = granted;
        let kept = match kept {
            Some(kept) => match kept.await {
                Ok(kept) => Some(kept),
                Err(_) => return Ok(None),
            },
            None => None,
        };
        let mut sandbox = match (turn, kept) {
            (None, Some(Kept::Sandbox(mut sandbox))) => {
                if sandbox.has_died() {
                    return Ok(None);
                }
                sandbox.pooled();
                *sandbox
            }
            (Some(turn), kept) => match turn.await {
                Ok(Turn::Restore(template)) => self.restore(&tenure, &template, kept).await?,
                Ok(Turn::Instead(granted)) => {
                    // The pool has forgotten it.
                    tenure.relinquish();
                    return Box::pin(self.take(granted, since)).await;
                }
                Err(_) => return Ok(None),
            },
            (None, _) => return Ok(None),
        };
        sandbox.leased(since);
        Ok(Some(Leased { sandbox, tenure }))
    }

    async fn restore(
        &self,
        tenure: &Tenure,
        template: &Arc<Template>,
        kept: Option<Kept>,
    ) -> Result<Sandbox, EngineError> {
        let began = Instant::now();
        let deadline = began + RESTORE;
        let restored = match kept {
            Some(Kept::Spawned(spawned, of)) if Arc::ptr_eq(&of, template) => {
                match template.restore(*spawned, deadline).await {
                    // It may have been dead for a while.
                    Err(EngineError::Vmm(VmmError::Died { .. })) => {
                        template.clone_now(&self.runtime, None, deadline).await
                    }
                    restored => restored,
                }
            }
            _ => template.clone_now(&self.runtime, None, deadline).await,
        };
        match &restored {
            Ok(_) => tenure.tell(|id| Command::Ready(id, began.elapsed())),
            Err(error) => tenure.tell(|id| Command::Failed(id, error.to_string())),
        }
        restored
    }

    /// The pool at this moment; `None` once it has been drained.
    pub async fn status(&self) -> Option<Status<String>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Status(answer));
        answered.await.ok()
    }

    /// Destroys what waits, and returns when all of it is gone, leased sandboxes included.
    pub async fn drain(&self) {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Drain(answer));
        let _ = answered.await;
    }

    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Leased {
    /// See [`Sandbox::exec`].
    ///
    /// # Errors
    /// As there.
    pub async fn exec(
        &mut self,
        request: &JobRequest,
        on_event: impl FnMut(Event),
    ) -> Result<JobResponse, EngineError> {
        self.sandbox.exec(request, on_event).await
    }

    /// Ends the machine; everything it had is released on return.
    pub async fn destroy(self) -> Shutdown {
        let shutdown = self.sandbox.destroy().await;
        drop(self.tenure);
        shutdown
    }
}

/// Owns the policy.
struct Decider {
    policy: policy::Pool<String>,
    pool: Pool,
    templates: BTreeMap<(String, Generation), Arc<Template>>,
    keepers: HashMap<VmId, oneshot::Sender<Order>>,
    /// Measured memory of what waits, with whose it is.
    weights: HashMap<VmId, (String, u64)>,
    /// How many restores and starts may be under way.
    slots: usize,
    working: HashSet<VmId>,
    /// Requests that wait for their turn to restore, in the order in which they came.
    waiting: VecDeque<(VmId, String, oneshot::Sender<Turn>)>,
    generation: u64,
    epoch: Instant,
    /// Nothing is started for the pool before then: a job has just begun, and there is another machine for the next.
    hold: Option<Instant>,
    draining: Option<oneshot::Sender<()>>,
}

/// What a keeper is told, once.
#[derive(Debug)]
enum Order {
    HandOver(oneshot::Sender<Kept>),
    Destroy,
}

impl Decider {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let planned = self.policy.next_wakeup(self.now()).map(|at| self.epoch + at);
            let wakeup = self.hold.or(planned);
            let wakeup = async {
                match wakeup {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(command) = commands.recv() => self.obey(command),
                () = wakeup => {}
            }
            self.hold.take_if(|until| *until <= Instant::now());
            // What the pool starts for itself goes first: there is never more of it than leaves requests their turns.
            if self.hold.is_none() {
                for action in self.policy.plan(self.now()) {
                    self.act(action);
                }
            }
            self.give_turns();
            if self.draining.is_some() && self.policy.status(self.now()).keys.is_empty() {
                return; // and the answer to the drain is that nobody is left to give one
            }
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Install {
                key,
                template,
                config,
                answer,
            } => drop(answer.send(self.install(key, *template, config))),
            Command::Lease { key, again, answer } => {
                // A request that has gone drops what it is sent, and the pool hears of that.
                let _ = answer.send(self.lease(&key, again));
            }
            Command::Status(answer) => drop(answer.send(self.policy.status(now))),
            Command::Drain(answer) => {
                let keys: Vec<String> = self.templates.keys().map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| self.policy.unregister(key));
                self.draining = Some(answer);
            }
            Command::Ready(id, took) => {
                self.working.remove(&id);
                self.policy.ready(id, now, took);
            }
            Command::Warmed(id) => self.policy.warmed(id, now),
            Command::Weighs(id, bytes) => self.weigh(id, bytes),
            Command::Failed(id, reason) => {
                tracing::warn!(%id, reason, "A restore failed");
                self.forget(id);
                self.policy.failed(id, now, reason);
            }
            Command::Gone(id) => {
                self.forget(id);
                self.policy.gone(id, now);
            }
        }
    }

    fn install(&mut self, key: String, template: Template, config: KeyConfig) -> Result<(), ConfigError> {
        let generation = Generation(self.generation + 1);
        self.policy
            .register(key.clone(), generation, config, self.now())?;
        self.generation += 1;
        self.templates.retain(|(other, _), _| *other != key);
        self.templates.insert((key, generation), Arc::new(template));
        Ok(())
    }

    fn lease(&mut self, key: &str, again: bool) -> Option<Granted> {
        let now = self.now();
        let key = key.to_owned();
        let lease = if again {
            self.policy.retry(&key)
        } else {
            self.policy.demand(&key, now)
        }?;
        let mut granted = self.granted(lease);
        if lease.source == Source::Ready && self.policy.has_idle(&key) {
            self.hold.get_or_insert_with(|| Instant::now() + HOLD);
        }
        if lease.source != Source::Ready {
            let (tell, turn) = oneshot::channel();
            self.waiting.push_back((lease.id, key, tell));
            granted.turn = Some(turn);
        }
        Some(granted)
    }

    /// What is there of a lease, without a turn.
    fn granted(&mut self, lease: Lease) -> Granted {
        let kept = (lease.source != Source::OnDemand).then(|| {
            let (give, kept) = oneshot::channel();
            // A keeper that is gone drops what it is told, and the request hears of that.
            if let Some(keeper) = self.keepers.remove(&lease.id) {
                let _ = keeper.send(Order::HandOver(give));
            }
            self.weights.remove(&lease.id);
            kept
        });
        Granted {
            tenure: self.tenure(lease.id),
            kept,
            turn: None,
        }
    }

    fn give_turns(&mut self) {
        while self.working.len() < self.slots
            && let Some((id, key, turn)) = self.waiting.pop_front()
        {
            // A request that has gone is no claim any more.
            let Some(lease) = self.policy.begin(id) else {
                continue;
            };
            if lease.source == Source::Ready {
                let _ = turn.send(Turn::Instead(self.granted(lease)));
                continue;
            }
            match self.templates.get(&(key, lease.generation)) {
                Some(template) => {
                    self.working.insert(id);
                    let _ = turn.send(Turn::Restore(Arc::clone(template)));
                }
                None => drop(turn),
            }
        }
    }

    fn act(&mut self, action: Action<String>) {
        let (id, key, generation, whole) = match action {
            Action::Destroy { id, .. } => {
                if let Some(keeper) = self.keepers.remove(&id) {
                    let _ = keeper.send(Order::Destroy);
                }
                return;
            }
            Action::Restore { id, key, generation } => (id, key, generation, true),
            Action::Prespawn { id, key, generation } => (id, key, generation, false),
        };
        let Some(template) = self.templates.get(&(key.clone(), generation)).cloned() else {
            self.policy.gone(id, self.now());
            return;
        };
        let (order, orders) = oneshot::channel();
        self.working.insert(id);
        self.keepers.insert(id, order);
        self.weights.insert(id, (key, 0));
        let keeper = Keeper {
            tenure: self.tenure(id),
            template,
            runtime: self.pool.runtime.clone(),
            whole,
        };
        tokio::spawn(keeper.run(orders));
    }

    fn tenure(&self, id: VmId) -> Tenure {
        Tenure {
            id,
            commands: Some(self.pool.commands.clone()),
        }
    }

    /// The policy counts with the mean of what waits.
    fn weigh(&mut self, id: VmId, bytes: u64) {
        let Some((key, weight)) = self.weights.get_mut(&id) else {
            return;
        };
        *weight = bytes;
        let key = key.clone();
        let weights = self
            .weights
            .values()
            .filter(|(other, bytes)| *other == key && *bytes > 0);
        let (sum, count) = weights.fold((0_u64, 0_u64), |(sum, count), (_, bytes)| {
            (sum + bytes, count + 1)
        });
        self.policy.observe_cost(&key, sum / count.max(1));
    }

    fn forget(&mut self, id: VmId) {
        self.working.remove(&id);
        self.keepers.remove(&id);
        self.weights.remove(&id);
    }
}

/// Makes one machine and keeps it until it is wanted.
struct Keeper {
    tenure: Tenure,
    template: Arc<Template>,
    runtime: RuntimeDir,
    /// Restore it; else only start its VMM.
    whole: bool,
}

impl Keeper {
    async fn run(self, orders: oneshot::Receiver<Order>) {
        let began = Instant::now();
        let kept = match self.make().await {
            Ok(kept) => kept,
            Err(error) => return self.tenure.tell(|id| Command::Failed(id, error.to_string())),
        };
        self.tenure.tell(|id| Command::Ready(id, began.elapsed()));
        if let Kept::Sandbox(sandbox) = &kept {
            if self.warms() {
                self.tenure.tell(Command::Warmed);
            }
            if let Some(bytes) = sandbox.private_memory() {
                self.tenure.tell(|id| Command::Weighs(id, bytes));
            }
        }
        let order = tokio::select! {
            biased;
            order = orders => order.unwrap_or(Order::Destroy),
            // It is gone, and so is this keeper: the tenure tells.
            () = kept.failed() => return,
        };
        match (order, kept) {
            (Order::HandOver(give), kept) => {
                if give.send(kept).is_ok() {
                    // The request has it now, and a tenure of its own.
                    self.tenure.relinquish();
                }
            }
            (Order::Destroy, Kept::Sandbox(sandbox)) => {
                sandbox.destroy().await;
            }
            (Order::Destroy, Kept::Spawned(spawned, _)) => drop(spawned),
        }
    }

    async fn make(&self) -> Result<Kept, EngineError> {
        if !self.whole {
            let spawned = Box::new(self.template.spawn(&self.runtime).await?);
            return Ok(Kept::Spawned(spawned, Arc::clone(&self.template)));
        }
        let deadline = Instant::now() + RESTORE;
        let mut sandbox = self.template.clone_now(&self.runtime, None, deadline).await?;
        if self.warms() {
            self.template.warm(&mut sandbox).await?;
        }
        Ok(Kept::Sandbox(Box::new(sandbox)))
    }

    /// Only an emulated processor has something to translate first.
    fn warms(&self) -> bool {
        self.template.vmm.accel == Accel::Tcg
    }
}

/// How many restores at once are sensible here: as many as there are processors.
#[must_use]
pub fn sensible_concurrency() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
