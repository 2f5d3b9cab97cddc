//! The rim of the scheduler: the core's decisions, carried out.
//!
//! The one thing to know: one task on the socket thread owns all of it, so there is no lock. It hears
//! what drivers and workers say, what the worker pool, the store's gate and the clock say, has the core
//! take that in, and does what the core answers, in order. It waits for nobody: what it says to a peer
//! waits at that peer's line. This module must not decide who runs what, when.
//!
//! ```text
//!  drivers, workers --lines--> Input --+                           +--> lines: Grant, RunTask, ..
//!  pool: forked, ended ----------------+--> Node::step --> Effects-+--> pool: fork, kill
//!  gate: a client is dead -------------+                           +--> queues: service
//!  awaited: an object has a value -----+                           +--> store: errors sealed
//! ```
//!
//! Invariants:
//!
//! * **H1** A worker is told to the core as started when it says that it is ready, and as dead when its
//!   whole group is gone, the store knows it to be dead, and its line is read to the end.
//! * **H2** A client that submits or claims is swept only after its queues are in order (`deaths`).
//! * **H3** `service` of a queue is lowered before its worker is told to let go.
//! * **H4** A queue's place is given out again only when nobody submits into it and no worker looks.

mod actors;
mod awaited;
mod calls;
mod deaths;
mod envs;
mod gate;
mod groups;
mod known;
mod leases;
mod left;
mod line;
mod lineage;
mod listing;
mod output;
mod peers;
mod queues;
mod seal;
mod translate;
mod words;

pub(crate) use envs::executable_of;
pub(crate) use gate::{Gate, WorkerJobs};
pub(crate) use line::{Inbound, LineId, Outbound, pair, serve};
pub(crate) use listing::Question;
pub(crate) use peers::Joined;
pub use queues::QueuesError;
pub(crate) use queues::SEGMENT_BYTES;

use self::actors::ActorRow;
use self::awaited::Awaited;
use self::calls::Call;
use self::envs::Env;
use self::groups::GroupRow;
use self::leases::QueueRow;
use self::lineage::Lineage;
use self::peers::{Driver, Peer, Who, WorkerRow};
use self::queues::Segment;
use self::seal::Unsealed;
use crate::guarded::AbortOnPanic;
use crate::logs::{self, Logs};
use crate::pool::{self, Line, Pool};
use crate::raylet::{Config, StartError};
use crate::timeline::Collector;
use raylet_api::TaskSegment;
use raylet_api::message::Message;
use raylet_api::record::ObjectKey;
use raylet_core::Node;
use raylet_core::effect::{Effect, KillReason, Refusal, Request};
use raylet_core::event::Event;
use raylet_core::ids::{ActorId, EnvId, GroupId, JobId, TaskId, Time, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{ClientId, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Inputs that wait before those who send them do.
const INPUT_COUNT_MAX: usize = 1024;
/// Lines of workers that wait before their writers do.
const LINE_COUNT_MAX: usize = 256;
/// How often it is looked whether anybody has a handle of an actor still: nobody says so who died.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What comes from the connections.
pub(crate) enum Input {
    /// A driver or worker has said hello.
    Joined(Box<Joined>),
    /// It said something.
    Said {
        /// Its line.
        line: LineId,
        /// What.
        message: Box<Message>,
    },
    /// Its line has ended.
    Closed {
        /// Its line.
        line: LineId,
        /// It was admitted, and never joined.
        has_never_joined: bool,
    },
    /// Somebody looks inside.
    Question(Box<Question>),
}

/// Where connections turn to.
pub(crate) struct Desk {
    inputs: mpsc::Sender<Input>,
    /// Who waits for a sweep.
    pub(crate) gate: Arc<Gate>,
    /// The segment of queues.
    pub(crate) segment: OwnedFd,
    /// Of which job each worker is.
    pub(crate) worker_jobs: Arc<WorkerJobs>,
    line_count: AtomicU64,
}

impl Desk {
    /// Tells the scheduler; waits while it has much to do.
    pub(crate) async fn tell(&self, input: Input) {
        // It is gone only when the raylet ends.
        let _ = self.inputs.send(input).await;
    }

    /// The answer to a question about what there is; none where the raylet is ending.
    pub(crate) async fn ask(&self, what: Message) -> Option<Message> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::Question(Box::new(Question { what, reply }))).await;
        answer.await.ok()
    }

    /// A number for a new line.
    pub(crate) fn new_line(&self) -> LineId {
        self.line_count.fetch_add(1, Ordering::Relaxed)
    }

    /// What a client is told of the segment.
    pub(crate) fn tasks(&self) -> TaskSegment {
        Segment::announcement()
    }
}

/// What the scheduler listens to.
struct Ears {
    inputs: mpsc::Receiver<Input>,
    dead: mpsc::UnboundedReceiver<ClientId>,
    pool: mpsc::UnboundedReceiver<pool::Event>,
    lines: mpsc::Receiver<Line>,
    ready: mpsc::UnboundedReceiver<ObjectKey>,
}

/// What is counted for those who look inside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) worker_starts: u64,
    pub(crate) worker_deaths: u64,
    pub(crate) zygote_deaths: u64,
    pub(crate) task_retries: u64,
    pub(crate) actor_restarts: u64,
}

/// The scheduler.
pub(crate) struct Scheduler {
    // First, so that every worker has ended before anything else goes.
    pool: Pool,
    ears: Option<Ears>,
    node: Node,
    /// Kept between steps for their memory only.
    effects: Vec<Effect>,
    started: Instant,
    store: Store,
    gate: Arc<Gate>,
    /// Of the session.
    directory: String,
    segment: Segment,
    gpu_names: Vec<String>,
    peers: BTreeMap<LineId, Peer>,
    /// Clients that died before we heard that they had come.
    early_dead: BTreeSet<(u16, u16)>,
    worker_jobs: Arc<WorkerJobs>,
    drivers: BTreeMap<EnvId, Driver>,
    envs: BTreeMap<EnvId, Env>,
    jobs: BTreeMap<JobId, EnvId>,
    workers: BTreeMap<WorkerId, WorkerRow>,
    gone_workers: VecDeque<(WorkerId, EnvId)>,
    queues: BTreeMap<u64, QueueRow>,
    /// Queues that may be over.
    touched_queues: BTreeSet<u64>,
    /// Queues that nobody submits into any more, and that are not over.
    closed_queues: BTreeSet<u64>,
    calls: BTreeMap<TaskId, Call>,
    by_result: BTreeMap<ObjectKey, TaskId>,
    awaited: Awaited,
    lineage: Lineage,
    actors: BTreeMap<ActorId, ActorRow>,
    by_anchor: BTreeMap<ObjectKey, ActorId>,
    dead_actors: VecDeque<ActorId>,
    groups: BTreeMap<GroupId, GroupRow>,
    group_keys: BTreeMap<ObjectKey, GroupId>,
    unsaid_groups: BTreeSet<GroupId>,
    unsealed: Vec<Unsealed>,
    /// When these are tried again.
    say_again_at: Option<Instant>,
    /// Functions, classes and methods by their keys.
    names: BTreeMap<u64, String>,
    next_env: u32,
    next_queue: u64,
    next_call: u64,
    next_actor: u64,
    next_group: u64,
    counters: Counters,
    logs: Logs,
    timeline: Collector,
    workers_max: u32,
}

/// What a scheduler is made of.
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: Store,
    pub(crate) gate: Arc<Gate>,
    pub(crate) dead: mpsc::UnboundedReceiver<ClientId>,
    /// Of the session.
    pub(crate) directory: String,
    /// That the first driver may take over.
    pub(crate) first_zygote: Option<pool::Kindled>,
}

impl Scheduler {
    /// A scheduler that nobody knows yet, and where they turn to.
    pub(crate) fn new(setup: Setup<'_>) -> Result<(Scheduler, Desk), StartError> {
        let Setup { config, store, gate, dead, directory, first_zygote } = setup;
        let (inputs, input_ear) = mpsc::channel(INPUT_COUNT_MAX);
        let (events, pool_ear) = mpsc::unbounded_channel();
        let (lines, line_ear) = mpsc::channel(LINE_COUNT_MAX);
        let (ready, ready_ear) = mpsc::unbounded_channel();
        let segment = Segment::create()?;
        let worker_jobs = Arc::new(WorkerJobs::default());
        let desk = Desk {
            inputs,
            gate: gate.clone(),
            segment: segment.descriptor()?,
            worker_jobs: worker_jobs.clone(),
            line_count: AtomicU64::new(1),
        };
        // Each worker is a client of the store, and others want to be, too.
        let workers_max = config.scheduler.workers_max.min(config.max_clients - config.max_clients / 8);
        let core_config = raylet_core::Config { workers_max, ..config.scheduler.clone() };
        let node = Node::new(core_config, config.resources.clone())?;
        let logs = Path::new(&directory).join(logs::DIRECTORY);
        let logs = Logs::start(&logs).map_err(|source| StartError::Logs { path: logs, source })?;
        let pool = Pool::start(events, lines, first_zygote).map_err(|source| StartError::Thread { source })?;
        let ears = Ears { inputs: input_ear, dead, pool: pool_ear, lines: line_ear, ready: ready_ear };
        let scheduler = Scheduler {
            pool,
            ears: Some(ears),
            node,
            effects: Vec::new(),
            started: Instant::now(),
            awaited: Awaited::new(&store, ready),
            lineage: Lineage::default(),
            store,
            gate,
            directory,
            segment,
            gpu_names: crate::machine::gpu_names(),
            peers: BTreeMap::new(),
            early_dead: BTreeSet::new(),
            worker_jobs,
            drivers: BTreeMap::new(),
            envs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            gone_workers: VecDeque::new(),
            queues: BTreeMap::new(),
            touched_queues: BTreeSet::new(),
            closed_queues: BTreeSet::new(),
            calls: BTreeMap::new(),
            by_result: BTreeMap::new(),
            actors: BTreeMap::new(),
            by_anchor: BTreeMap::new(),
            dead_actors: VecDeque::new(),
            groups: BTreeMap::new(),
            group_keys: BTreeMap::new(),
            unsaid_groups: BTreeSet::new(),
            unsealed: Vec::new(),
            say_again_at: None,
            names: BTreeMap::new(),
            next_env: 1,
            next_queue: 1,
            next_call: 1,
            next_actor: 1,
            next_group: 1,
            counters: Counters::default(),
            logs,
            timeline: Collector::new(config.timeline),
            workers_max: config.scheduler.workers_max,
        };
        Ok((scheduler, desk))
    }

    /// Serves until it is dropped, which ends every worker.
    pub(crate) async fn run(mut self) {
        let _guard = AbortOnPanic;
        let Some(mut ears) = self.ears.take() else { return };
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lines = Vec::new();
        loop {
            let wake = self.next_wake();
            let time = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into());
            tokio::select! {
                Some(input) = ears.inputs.recv() => self.on_input(input),
                Some(client) = ears.dead.recv() => self.on_dead(client),
                Some(event) = ears.pool.recv() => self.on_pool(event),
                Some(object) = ears.ready.recv() => {
                    self.step(Event::ArgumentReady { object: translate::core_key(object) });
                }
                Some(line) = ears.lines.recv() => {
                    lines.push(line);
                    while lines.len() < LINE_COUNT_MAX && let Ok(line) = ears.lines.try_recv() {
                        lines.push(line);
                    }
                    self.on_lines(&mut lines);
                }
                _ = look.tick(), if self.has_actors() => self.look_at_actors(),
                () = time, if wake.is_some() => self.on_time(),
            }
            while let Some(queue) = self.touched_queues.pop_first() {
                self.settle(queue);
            }
        }
    }

    /// When something is to be done although nobody says anything.
    fn next_wake(&mut self) -> Option<Instant> {
        let core = self.node.next_deadline().map(|time| self.started + Duration::from_micros(time.0));
        let is_unsaid = !self.unsealed.is_empty() || !self.unsaid_groups.is_empty();
        // Not put off by what comes meanwhile.
        let again = || self.say_again_at.unwrap_or_else(|| Instant::now() + seal::RETRY_DELAY);
        self.say_again_at = is_unsaid.then(again);
        [core, self.say_again_at].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        if self.say_again_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.seal_again();
            self.say_groups_again();
        }
        if self.node.next_deadline().is_some_and(|time| time <= self.now()) {
            self.step(Event::Tick);
        }
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// Has the core take something in, and does what it answers.
    fn step(&mut self, event: Event) {
        let now = self.now();
        let mut effects = std::mem::take(&mut self.effects);
        self.node.step(now, event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    /// Does one thing. Nothing in here steps the core: effects are carried out in order.
    fn carry_out(&mut self, effect: Effect) {
        tracing::trace!(?effect, "to do");
        match effect {
            Effect::JobStarted { driver, job } => self.job_started(EnvId(driver.0), job),
            Effect::JobEnded { job } => self.job_ended(job),
            Effect::Refuse { request, refusal } => self.refuse(request, &refusal),
            Effect::Infeasible { request, wanted, capacity } => self.infeasible(request, &wanted, &capacity),
            Effect::Stuck { request, wanted, free, capacity } => self.stuck(request, &wanted, &free, &capacity),
            Effect::RunTask { task, worker, attempt, gpus } => self.run_task(task, worker, attempt, &gpus),
            Effect::InterruptTask { task, worker } => self.interrupt_task(task, worker),
            Effect::TaskEnded { task, end } => self.task_ended(task, &end),
            Effect::Grant { worker, queue, gpus } => self.grant(worker, queue, &gpus),
            Effect::Withdraw { worker, queue } => self.withdraw(worker, queue),
            Effect::LeaseLost { worker, queue } => self.lease_lost(worker, queue),
            Effect::QueueEnded { queue, end } => self.queue_ended(queue, &end),
            Effect::StartZygote { env } => self.start_zygote(env),
            Effect::StartWorker { worker, env } => self.start_worker(worker, env),
            Effect::KillWorker { worker, reason } => {
                tracing::debug!(worker = worker.0, ?reason, "a worker is ended");
                if reason == KillReason::NotReady {
                    self.worker_is_late(worker);
                }
                self.end_worker(worker, reason);
            }
            Effect::RunActor { actor, worker, restarts, gpus } => self.run_actor(actor, worker, restarts, &gpus),
            Effect::ActorAlive { .. } => {}
            Effect::ActorRestarting { actor, .. } => self.actor_restarting(actor),
            Effect::EndActor { actor, worker } => self.end_actor(actor, worker),
            Effect::ActorDead { actor, cause } => self.actor_dead(actor, &cause),
            Effect::ActorExists { actor, existing } => self.actor_exists(actor, existing),
            Effect::GroupReady { group } => self.group_ready(group),
            Effect::GroupRemoved { group } => self.group_removed(group),
        }
    }

    fn refuse(&mut self, request: Request, refusal: &Refusal) {
        match request {
            Request::Task(task) => self.task_refused(task, refusal),
            Request::Queue(queue) => self.queue_refused(queue, refusal),
            Request::Actor(actor) => self.actor_refused(actor, refusal),
            Request::Group(group) => self.group_refused(group, refusal),
        }
    }

    /// What a key stands for, as its users call it.
    fn name_of(&self, key: u64) -> String {
        self.names.get(&key).cloned().unwrap_or_else(|| "a task".to_owned())
    }
}
