//! What there is, as the messages that say it: rows of tasks, actors, workers, groups, and the numbers
//! of the whole.
//!
//! The one thing to know: the scheduler answers this between two events, so each answer looks at a
//! bounded part: a page, and at most [`QUEUES_LOOK_MAX`] queues. Cursors are the numbers of rows, which
//! grow and are never used again. This file must not change anything.
//!
//! ```text
//!  63 62 61                    13 12         0
//! +-----+-----------------------+------------+   the cursor of tasks
//! | 0 0 |          task through the raylet   |
//! | 0 1 |  queue of a class     |  how many  |   of that queue's records were given before
//! | 1 0 |  queue of an actor    |  how many  |
//! +-----+-----------------------+------------+
//! ```

use super::translate::handle;
use raylet_api::inside::*;
use raylet_api::message::{Message, PAGE_COUNT_MAX};
use raylet_api::record::{ObjectKey, RECORD_WORDS, Record};
use raylet_api::{Demand, ObjectId};
use raylet_core::Node;
use raylet_core::effect::DeathCause;
use raylet_core::event::Strategy;
use raylet_core::ids::{ActorId, Caller, DriverId, GroupId, JobId, QueueId, TaskId, WorkerId};
use raylet_core::listing::*;
use raylet_core::resources::Resources;
use std::collections::BTreeMap;
use store::Store;
use store_shm::queue::{Entry, Queue, State};
use tokio::sync::oneshot;

/// Queues that one answer looks into at most.
const QUEUES_LOOK_MAX: usize = 256;
/// Bytes of rows in one page, roughly: far below what a frame may have.
const PAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of a row beside its texts, roughly.
const ROW_BYTES: usize = 256;
/// Resources by name that a row shows.
const RESOURCES_COUNT_MAX: usize = 16;

const SKIP_BITS: u32 = 13;
const PHASE_SHIFT: u32 = 62;
const CLASS_QUEUES: u64 = 1;
const ACTOR_QUEUES: u64 = 2;

/// A question to the scheduler.
#[derive(Debug)]
pub(crate) struct Question {
    /// What is asked.
    pub(crate) what: Message,
    /// Where the answer goes; who asked may be gone.
    pub(crate) reply: oneshot::Sender<Message>,
}

/// A process that works or has work done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: u32,
    /// Its number as a client of the store, once it is one.
    pub(crate) client: Option<u16>,
}

/// How an actor is named outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActorKey {
    pub(crate) anchor: ObjectKey,
    /// Of its constructor.
    pub(crate) key: u64,
}

/// How a placement group is named outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey<'a> {
    pub(crate) group: ObjectKey,
    pub(crate) name: &'a str,
}

/// One caller's queue to one actor.
pub(crate) struct ActorQueue<'a> {
    /// Its number, never used again.
    pub(crate) number: u64,
    pub(crate) actor: ActorId,
    pub(crate) job: JobId,
    pub(crate) caller: Caller,
    pub(crate) queue: &'a Queue,
}

/// What the scheduler knows beside the core: the long names of what has a number there.
pub(crate) trait Known {
    fn node(&self) -> &Node;
    fn store(&self) -> &Store;
    /// The name of a function, class or method.
    fn function(&self, key: u64) -> Option<&str>;
    /// The words of a task through the raylet.
    fn record(&self, task: TaskId) -> Option<&[u64; RECORD_WORDS]>;
    fn worker(&self, worker: WorkerId) -> Option<Member>;
    fn driver(&self, driver: DriverId) -> Option<Member>;
    fn actor(&self, actor: ActorId) -> Option<ActorKey>;
    fn group(&self, group: GroupId) -> Option<GroupKey<'_>>;
    /// A class' queue.
    fn queue(&self, queue: QueueId) -> Option<&Queue>;
    /// The actors' queues from a number on, in their order.
    fn actor_queues(&self, from: u64) -> impl Iterator<Item = ActorQueue<'_>>;
    /// Workers there may be.
    fn workers_max(&self) -> u64;
    /// Whatever is counted, by name.
    fn counters(&self) -> BTreeMap<String, u64>;
}

/// The answer to a question about what there is; `None` where that is no such question.
pub(crate) fn answer(what: &Message, known: &impl Known) -> Option<Message> {
    match what {
        Message::ListTasks(page) => Some(tasks(known, page.cursor, page.count_max).into()),
        Message::ListActors(page) => Some(actors(known, page.cursor, page.count_max).into()),
        Message::ListWorkers(page) => Some(workers(known, page.cursor, page.count_max).into()),
        Message::ListGroups(page) => Some(groups(known, page.cursor, page.count_max).into()),
        Message::Summary(_) => Some(summary(known).into()),
        _ => None,
    }
}

/// A row, and how many bytes of text are in it.
trait Row {
    fn text_bytes(&self) -> usize;
}

impl Row for TaskInfo {
    fn text_bytes(&self) -> usize {
        self.name.len() + bytes_of(&self.demand)
    }
}

impl Row for ActorInfo {
    fn text_bytes(&self) -> usize {
        let names = [&self.name, &self.namespace, &self.death_cause];
        self.class.len() + bytes_of(&self.demand) + names.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

impl Row for WorkerInfo {
    fn text_bytes(&self) -> usize {
        self.runs.as_ref().map_or(0, String::len) + bytes_of(&self.demand) + 4 * self.gpus.len()
    }
}

impl Row for GroupInfo {
    fn text_bytes(&self) -> usize {
        self.name.len() + self.bundles.iter().chain(&self.used).map(bytes_of).sum::<usize>()
    }
}

fn bytes_of(demand: &Demand) -> usize {
    demand.keys().map(|name| name.len() + 16).sum()
}

/// A page that fills.
struct Page<T> {
    rows: Vec<T>,
    count_max: usize,
    bytes: usize,
    /// Where the next begins, once this one is over.
    next: Option<u64>,
}

impl<T: Row> Page<T> {
    fn new(count_max: u32) -> Page<T> {
        Page { rows: Vec::new(), count_max: count_max.clamp(1, PAGE_COUNT_MAX) as usize, bytes: 0, next: None }
    }

    /// Takes the row of this cursor in; false where the page is full and the row begins the next.
    fn take(&mut self, cursor: u64, row: impl FnOnce() -> T) -> bool {
        if self.rows.len() >= self.count_max || self.bytes >= PAGE_BYTES_MAX {
            self.next = Some(cursor);
            return false;
        }
        let row = row();
        self.bytes += ROW_BYTES + row.text_bytes();
        self.rows.push(row);
        true
    }

    fn fill(mut self, rows: impl Iterator<Item = (u64, T)>) -> Page<T> {
        for (cursor, row) in rows {
            if !self.take(cursor, || row) {
                break;
            }
        }
        self
    }
}

fn tasks(known: &impl Known, cursor: u64, count_max: u32) -> TasksReply {
    let mut page = Page::new(count_max);
    let (phase, from) = (cursor >> PHASE_SHIFT, cursor & ((1 << PHASE_SHIFT) - 1));
    let is_filled = (phase > 0 || raylet_tasks(known, from, &mut page))
        && (phase > CLASS_QUEUES || class_records(known, if phase == CLASS_QUEUES { from } else { 0 }, &mut page))
        && actor_records(known, if phase == ACTOR_QUEUES { from } else { 0 }, &mut page);
    debug_assert_eq!(is_filled, page.next.is_none());
    TasksReply { tasks: page.rows, next_cursor: page.next }
}

/// Each of these three: whether all of its rows went in.
fn raylet_tasks(known: &impl Known, from: u64, page: &mut Page<TaskInfo>) -> bool {
    let mut rows = known.node().tasks_from(TaskId(from));
    rows.all(|row| page.take(row.task.0, || raylet_task(known, row)))
}

fn raylet_task(known: &impl Known, row: TaskRow) -> TaskInfo {
    let record = known.record(row.task).and_then(|words| Record::unpack(words).ok());
    TaskInfo {
        task: record.and_then(|record| task_of(known, &record)),
        name: record.map_or_else(|| "?".to_owned(), |record| function_name(known, record.key)),
        state: match row.status {
            TaskStatus::PendingArgsAvail => TaskState::PendingArgsAvail,
            TaskStatus::PendingNodeAssignment => TaskState::PendingNodeAssignment,
            TaskStatus::Running => TaskState::Running,
        },
        transport: Transport::Raylet,
        job: row.job.0,
        actor: None,
        attempts: row.attempts,
        worker: row.worker.map(|worker| worker.0),
        pid: row.worker.and_then(|worker| pid_of(known, worker)),
        caller_pid: caller_pid(known, row.job, row.caller),
        demand: demand(&row.class.demand),
    }
}

/// What is the same for all records of a queue.
struct QueueView<'a> {
    phase: u64,
    number: u64,
    queue: &'a Queue,
    job: JobId,
    caller: Caller,
    actor: Option<ActorId>,
    demand: Demand,
    /// Who may have claimed records of it.
    claimers: Vec<WorkerId>,
}

fn class_records(known: &impl Known, from: u64, page: &mut Page<TaskInfo>) -> bool {
    let views = known.node().queues_from(QueueId(from >> SKIP_BITS)).filter_map(|row| {
        let queue = known.queue(row.queue)?;
        let (number, claimers) = (row.queue.0, row.leases);
        let demand = demand(&row.class.demand);
        Some(QueueView {
            phase: CLASS_QUEUES,
            number,
            queue,
            job: row.job,
            caller: row.caller,
            actor: None,
            demand,
            claimers,
        })
    });
    records(known, views, from, page)
}

fn actor_records(known: &impl Known, from: u64, page: &mut Page<TaskInfo>) -> bool {
    let views = known.actor_queues(from >> SKIP_BITS).map(|row| QueueView {
        phase: ACTOR_QUEUES,
        number: row.number,
        queue: row.queue,
        job: row.job,
        caller: row.caller,
        actor: Some(row.actor),
        demand: Demand::new(),
        claimers: actor_worker(known, row.actor).into_iter().collect(),
    });
    records(known, views, from, page)
}

fn actor_worker(known: &impl Known, actor: ActorId) -> Option<WorkerId> {
    known.node().actors_from(actor).next().filter(|row| row.actor == actor)?.worker
}

/// Goes through queues as long as there is room in the page, and at most [`QUEUES_LOOK_MAX`] of them.
fn records<'a>(
    known: &impl Known,
    views: impl Iterator<Item = QueueView<'a>>,
    from: u64,
    page: &mut Page<TaskInfo>,
) -> bool {
    let skip_mask = (1 << SKIP_BITS) - 1;
    for (looked, view) in views.enumerate() {
        let skip = if view.number == from >> SKIP_BITS { (from & skip_mask) as usize } else { 0 };
        let cursor = |given: usize| view.phase << PHASE_SHIFT | view.number << SKIP_BITS | given as u64;
        if looked == QUEUES_LOOK_MAX {
            page.next = Some(cursor(skip));
            return false;
        }
        for (given, (entry, worker)) in unfinished(known, &view).into_iter().enumerate().skip(skip) {
            if !page.take(cursor(given), || direct_task(known, &view, &entry, worker)) {
                return false;
            }
        }
    }
    true
}

/// The records of a queue that somebody works on, and those that wait.
fn unfinished(known: &impl Known, view: &QueueView<'_>) -> Vec<(Entry, Option<WorkerId>)> {
    let claimed = view.claimers.iter().filter_map(|&worker| Some((worker, known.worker(worker)?.client?)));
    let claimed = claimed.flat_map(|(worker, client)| view.queue.claimed_by(client).map(move |e| (e, Some(worker))));
    claimed.chain(view.queue.queued().map(|entry| (entry, None))).collect()
}

fn direct_task(known: &impl Known, view: &QueueView<'_>, entry: &Entry, worker: Option<WorkerId>) -> TaskInfo {
    let record = Record::unpack(&entry.payload).ok();
    let is_claimed = entry.word.state == State::Claimed;
    TaskInfo {
        task: record.and_then(|record| task_of(known, &record)),
        name: record.map_or_else(|| "?".to_owned(), |record| function_name(known, record.key)),
        state: if is_claimed { TaskState::Running } else { TaskState::Queued },
        transport: Transport::Direct,
        job: view.job.0,
        actor: view.actor.map(|actor| actor.0),
        attempts: u32::from(entry.word.attempt) + u32::from(is_claimed),
        worker: worker.map(|worker| worker.0),
        pid: worker.and_then(|worker| pid_of(known, worker)),
        caller_pid: caller_pid(known, view.job, view.caller),
        demand: view.demand.clone(),
    }
}

fn actors(known: &impl Known, cursor: u64, count_max: u32) -> ActorsReply {
    let rows = known.node().actors_from(ActorId(cursor)).map(|row| (row.actor.0, actor(known, row)));
    let page = Page::new(count_max).fill(rows);
    ActorsReply { actors: page.rows, next_cursor: page.next }
}

fn actor(known: &impl Known, row: ActorRow) -> ActorInfo {
    let key = known.actor(row.actor);
    let (name, namespace) = row.name.map(|name| (name.name, name.namespace)).unzip();
    ActorInfo {
        actor: row.actor.0,
        id: key.and_then(|key| id_of(known, key.anchor)),
        class: key.map_or_else(|| "?".to_owned(), |key| function_name(known, key.key)),
        name: name.map(kept),
        namespace: namespace.map(kept),
        state: actor_state(row.status),
        job: row.job.0,
        is_detached: row.is_detached,
        restart_count: row.restarts,
        worker: row.worker.map(|worker| worker.0),
        pid: row.worker.and_then(|worker| pid_of(known, worker)),
        death_cause: row.cause.as_ref().map(cause),
        demand: demand(&row.running),
    }
}

fn actor_state(status: ActorStatus) -> ActorState {
    match status {
        ActorStatus::DependenciesUnready => ActorState::DependenciesUnready,
        ActorStatus::PendingCreation => ActorState::PendingCreation,
        ActorStatus::Alive => ActorState::Alive,
        ActorStatus::Restarting => ActorState::Restarting,
        ActorStatus::Dead => ActorState::Dead,
    }
}

/// Why an actor is dead, for people.
pub(crate) fn cause(cause: &DeathCause) -> String {
    match cause {
        DeathCause::WorkerDied { restarts } => format!("its worker died, after {restarts} restarts"),
        DeathCause::CreationFailed => "its constructor failed".to_owned(),
        DeathCause::Killed => "it was killed".to_owned(),
        DeathCause::Exited => "it ended itself".to_owned(),
        DeathCause::HandlesGone => "nobody has a handle any more".to_owned(),
        DeathCause::JobOver => "its job is over".to_owned(),
        DeathCause::GroupRemoved { group } => format!("placement {} was removed", group.to_string().to_lowercase()),
        DeathCause::Refused(refusal) => format!("it cannot be created: {refusal}"),
        _ => "it is dead".to_owned(),
    }
}

fn workers(known: &impl Known, cursor: u64, count_max: u32) -> WorkersReply {
    // At most as many as there may be workers.
    let rows = known.node().workers().filter(|row| row.worker.0 >= cursor);
    let page = Page::new(count_max).fill(rows.map(|row| (row.worker.0, worker(known, row))));
    WorkersReply { workers: page.rows, next_cursor: page.next }
}

fn worker(known: &impl Known, row: WorkerRow) -> WorkerInfo {
    let peer = known.worker(row.worker);
    let (runs, actor) = match row.status {
        WorkerStatus::Task(task) => (known.record(task).map(|words| words[0]), None),
        WorkerStatus::Actor(actor) => (known.actor(actor).map(|key| key.key), Some(actor.0)),
        WorkerStatus::Starting | WorkerStatus::Idle | WorkerStatus::Leased(_) => (None, None),
    };
    WorkerInfo {
        worker: row.worker.0,
        pid: peer.map(|peer| peer.pid),
        client_index: peer.and_then(|peer| peer.client).map(u32::from),
        state: worker_state(row.status),
        runs: runs.map(|key| function_name(known, key)),
        actor,
        is_blocked: row.is_blocked,
        is_stopping: row.is_stopping,
        call_count: row.calls,
        environment: row.env.0,
        demand: demand(&row.holds),
        gpus: row.gpus.iter().map(|gpu| gpu.index).collect(),
    }
}

fn worker_state(status: WorkerStatus) -> WorkerState {
    match status {
        WorkerStatus::Starting => WorkerState::Starting,
        WorkerStatus::Idle => WorkerState::Idle,
        WorkerStatus::Task(_) => WorkerState::Task,
        WorkerStatus::Leased(_) => WorkerState::Leased,
        WorkerStatus::Actor(_) => WorkerState::Actor,
    }
}

fn groups(known: &impl Known, cursor: u64, count_max: u32) -> GroupsReply {
    let rows = known.node().groups().filter(|row| row.group.0 >= cursor);
    let page = Page::new(count_max).fill(rows.map(|row| (row.group.0, group(known, row))));
    GroupsReply { groups: page.rows, next_cursor: page.next }
}

fn group(known: &impl Known, row: GroupRow) -> GroupInfo {
    let key = known.group(row.group);
    let demands = |of: &[Resources]| of.iter().take(BUNDLES_COUNT_MAX).map(demand).collect();
    GroupInfo {
        group: row.group.0,
        id: key.and_then(|key| id_of(known, key.group)),
        name: key.map_or_else(String::new, |key| kept(key.name.to_owned())),
        state: group_state(row.status),
        strategy: strategy_name(row.strategy).to_owned(),
        job: row.job.0,
        bundle_count: row.bundles.len() as u32,
        bundles: demands(&row.bundles),
        used: demands(&row.used),
    }
}

fn group_state(status: GroupStatus) -> GroupState {
    match status {
        GroupStatus::Pending => GroupState::Pending,
        GroupStatus::Created => GroupState::Created,
        GroupStatus::Removed => GroupState::Removed,
    }
}

fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Pack => "PACK",
        Strategy::Spread => "SPREAD",
        Strategy::StrictPack => "STRICT_PACK",
        Strategy::StrictSpread => "STRICT_SPREAD",
    }
}

fn summary(known: &impl Known) -> SummaryReply {
    let (node, resources) = (known.node(), known.node().resources());
    let mut reply = SummaryReply {
        capacity: demand(&resources.capacity),
        used: demand(&resources.taken),
        submitted_task_count: resources.tasks_submitted,
        ended_task_count: resources.tasks_ended,
        worker_count_max: known.workers_max(),
        counters: known.counters(),
        ..SummaryReply::default()
    };
    for row in node.workers() {
        *reply.workers.entry(worker_state(row.status)).or_default() += 1;
        reply.blocked_worker_count += u64::from(row.is_blocked);
        reply.running_task_count += u64::from(matches!(row.status, WorkerStatus::Task(_)));
    }
    node.actors_from(ActorId(0)).for_each(|row| *reply.actors.entry(actor_state(row.status)).or_default() += 1);
    node.groups().for_each(|row| *reply.groups.entry(group_state(row.status)).or_default() += 1);
    reply.jobs = node.jobs().take(PAGE_COUNT_MAX as usize).map(|row| job(known, &row)).collect();
    count_records(known, &mut reply);
    reply
}

fn job(known: &impl Known, row: &JobRow) -> JobInfo {
    let pid = known.driver(row.driver).map(|peer| peer.pid);
    JobInfo { job: row.job.0, pid, has_left: row.has_left, part_count: row.parts }
}

/// Records of the direct transport. Of queues beyond the first [`QUEUES_LOOK_MAX`], what their callers
/// said last.
fn count_records(known: &impl Known, reply: &mut SummaryReply) {
    let client = |worker: &WorkerId| known.worker(*worker).and_then(|peer| peer.client);
    for (looked, row) in known.node().queues_from(QueueId(0)).enumerate() {
        match known.queue(row.queue).filter(|_| looked < QUEUES_LOOK_MAX) {
            Some(queue) => {
                reply.queued_record_count += queue.queued().count() as u64;
                let claimed = row.leases.iter().filter_map(client).map(|client| queue.claimed_by(client).count());
                reply.claimed_record_count += claimed.sum::<usize>() as u64;
            }
            None => reply.queued_record_count += u64::from(row.backlog),
        }
    }
    for row in known.actor_queues(0).take(QUEUES_LOOK_MAX) {
        reply.queued_record_count += row.queue.queued().count() as u64;
        let client = actor_worker(known, row.actor).and_then(|worker| client(&worker));
        reply.claimed_record_count += client.map_or(0, |client| row.queue.claimed_by(client).count() as u64);
    }
}

fn demand(resources: &Resources) -> Demand {
    let fixed = [("CPU", resources.cpu.0), ("GPU", resources.gpu.0), ("memory", resources.memory_bytes)];
    let fixed = fixed.into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| (name.to_owned(), amount));
    let custom = resources.custom().iter().take(RESOURCES_COUNT_MAX);
    fixed.chain(custom.map(|(name, amount)| (cut(name, NAME_BYTES_MAX).to_owned(), amount.0))).collect()
}

fn kept(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX { name } else { cut(&name, NAME_BYTES_MAX).to_owned() }
}

fn function_name(known: &impl Known, key: u64) -> String {
    known.function(key).map_or_else(|| format!("function {key:#018x}"), |name| cut(name, NAME_BYTES_MAX).to_owned())
}

fn pid_of(known: &impl Known, worker: WorkerId) -> Option<u32> {
    known.worker(worker).map(|peer| peer.pid)
}

fn caller_pid(known: &impl Known, job: JobId, caller: Caller) -> Option<u32> {
    match caller {
        Caller::Worker(worker) => pid_of(known, worker),
        Caller::Driver => {
            let driver = known.node().jobs().find(|row| row.job == job)?.driver;
            known.driver(driver).map(|peer| peer.pid)
        }
    }
}

/// The object's id, as long as somebody wants the object.
fn id_of(known: &impl Known, key: ObjectKey) -> Option<ObjectId> {
    let object = known.store().refer(handle(key))?;
    Some(ObjectId::from_bytes(*object.id().as_bytes()))
}

/// The call's id stands at the front of its results' ids.
fn task_of(known: &impl Known, record: &Record) -> Option<raylet_api::TaskId> {
    if record.results == 0 {
        return None;
    }
    id_of(known, record.result).map(|id| id.task())
}

#[cfg(test)]
mod tests {
    use super::super::queues::{Segment, Size};
    use super::*;
    use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind};
    use raylet_core::event::{ActorName, ActorSpec, ClassSpec, Event, GroupSpec, LeaseRequest, Placement, TaskSpec};
    use raylet_core::ids::{EnvId, FunctionGroup, Time};
    use raylet_core::resources::Amount;
    use raylet_core::{Config, Effect};
    use store::Keeping;
    use store_shm::queue::{Claimer, Submitter};

    const ENV: EnvId = EnvId(1);
    const JOB: JobId = JobId(1);
    const DRIVER: DriverId = DriverId(1);
    const CLIENT: u16 = 9;

    /// A node on made-up ground: no process, but true queues.
    struct World {
        node: Node,
        store: Store,
        queue: Queue,
        actor_queue: Queue,
        words: [u64; RECORD_WORDS],
        workers: Vec<WorkerId>,
        time: u64,
        _segment: Segment,
    }

    impl World {
        fn new() -> World {
            let capacity = Resources::cpus(Amount::whole(2)).with_memory(4096).with("tape", Amount(5_000));
            let node = Node::new(Config { prestart: 0, ..Config::default() }, capacity).unwrap();
            let store =
                Store::in_process(store::Config { keeping: Keeping::Inline, ..store::Config::default() }).unwrap();
            let mut segment = Segment::create().unwrap();
            let bell = segment.take_bell().unwrap();
            let queue = segment.make(Size::Class, bell, 2).unwrap().queue;
            let actor_queue = segment.make(Size::Actor, bell, 2).unwrap().queue;
            let (words, workers) = (record(5).pack(), Vec::new());
            let mut world = World { node, store, queue, actor_queue, words, workers, time: 0, _segment: segment };
            world.step(Event::DriverJoined { driver: DRIVER, env: ENV });
            world
        }

        /// Takes an event in, and has what it asks for happen at once.
        fn step(&mut self, event: Event) {
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                let mut effects = Vec::new();
                self.time += 1000;
                self.node.step(Time(self.time), event, &mut effects);
                for effect in effects {
                    match effect {
                        Effect::StartZygote { env } => events.push(Event::ZygoteStarted { env }),
                        Effect::StartWorker { worker, .. } => {
                            self.workers.push(worker);
                            events.push(Event::WorkerStarted { worker });
                        }
                        Effect::RunActor { actor, worker, .. } => events.push(Event::ActorReady { actor, worker }),
                        _ => {}
                    }
                }
            }
        }

        fn submit(&mut self, task: u64) {
            self.step(Event::Submit(TaskSpec {
                task: TaskId(task),
                job: JOB,
                caller: Caller::Driver,
                class: class(),
                retries_max: 0,
                waits_for: vec![],
            }));
        }

        fn tasks(&self, cursor: u64, count_max: u32) -> TasksReply {
            match answer(&ListTasks { cursor, count_max }.into(), self) {
                Some(Message::TasksReply(reply)) => reply,
                other => panic!("{other:?}"),
            }
        }
    }

    fn class() -> ClassSpec {
        ClassSpec {
            function_group: FunctionGroup(0),
            demand: Resources::cpus(Amount::ONE),
            env: ENV,
            placement: Placement::Machine,
            calls_max: 0,
        }
    }

    fn record(key: u64) -> Record {
        Record {
            key,
            kind: Kind::Task,
            retries_errors: false,
            is_stream: false,
            results: 1,
            retries: 0,
            number: 1,
            parent: 0,
            result: ObjectKey::default(),
            body: Body::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] },
        }
    }

    impl Known for World {
        fn node(&self) -> &Node {
            &self.node
        }
        fn store(&self) -> &Store {
            &self.store
        }
        fn function(&self, key: u64) -> Option<&str> {
            (key == 5).then_some("five")
        }
        fn record(&self, _: TaskId) -> Option<&[u64; RECORD_WORDS]> {
            Some(&self.words)
        }
        fn worker(&self, worker: WorkerId) -> Option<Member> {
            Some(Member { pid: 100 + worker.0 as u32, client: Some(CLIENT) })
        }
        fn driver(&self, driver: DriverId) -> Option<Member> {
            (driver == DRIVER).then_some(Member { pid: 50, client: Some(2) })
        }
        fn actor(&self, _: ActorId) -> Option<ActorKey> {
            Some(ActorKey { anchor: ObjectKey::default(), key: 5 })
        }
        fn group(&self, _: GroupId) -> Option<GroupKey<'_>> {
            Some(GroupKey { group: ObjectKey::default(), name: "pair" })
        }
        fn queue(&self, queue: QueueId) -> Option<&Queue> {
            (queue == QueueId(3)).then_some(&self.queue)
        }
        fn actor_queues(&self, from: u64) -> impl Iterator<Item = ActorQueue<'_>> {
            let rows = self.node.actors().next().map(|row| row.actor).into_iter();
            rows.map(|actor| ActorQueue {
                number: 4,
                actor,
                job: JOB,
                caller: Caller::Driver,
                queue: &self.actor_queue,
            })
            .filter(move |row| row.number >= from)
        }
        fn workers_max(&self) -> u64 {
            4
        }
        fn counters(&self) -> BTreeMap<String, u64> {
            [("worker_deaths".to_owned(), 3)].into()
        }
    }

    fn actor(number: u64, name: &str) -> ActorSpec {
        ActorSpec {
            actor: ActorId(number),
            job: JOB,
            caller: Caller::Driver,
            class: class(),
            running: Resources::default(),
            restarts_max: 0,
            name: Some(ActorName { namespace: "n".into(), name: name.into() }),
            get_if_exists: false,
            is_detached: true,
            waits_for: vec![],
        }
    }

    #[test]
    fn tasks_of_both_transports_come_in_pages_each_once() {
        let mut world = World::new();
        (1..=5).for_each(|task| world.submit(task));
        let request =
            LeaseRequest { queue: QueueId(3), job: JOB, caller: Caller::Driver, class: class(), wanted: 1, backlog: 3 };
        world.step(Event::LeaseWanted(request));
        world.step(Event::CreateActor(actor(7, "a")));
        let mut submitter = Submitter::new(&world.queue).unwrap();
        (0..3).for_each(|_| _ = submitter.try_submit(&world.words).unwrap());
        let mut calls = Submitter::new(&world.actor_queue).unwrap();
        calls.try_submit(&record(6).pack()).unwrap();
        let (mut seen, mut cursor, mut pages) = (Vec::new(), Some(0), 0);
        while let Some(from) = cursor {
            let page = world.tasks(from, 2);
            assert!(page.tasks.len() <= 2 && page.next_cursor.is_none_or(|next| next > from));
            seen.extend(page.tasks);
            (cursor, pages) = (page.next_cursor, pages + 1);
        }
        assert_eq!((seen.len(), pages), (9, 5));
        let through = seen.iter().filter(|row| row.transport == Transport::Raylet);
        assert_eq!(through.clone().count(), 5);
        assert!(through.clone().all(|row| row.name == "five" && row.caller_pid == Some(50) && row.job == 1));
        assert_eq!(through.filter(|row| row.state == TaskState::Running).count(), 2);
        let queued = seen.iter().filter(|row| row.state == TaskState::Queued && row.actor.is_none());
        assert_eq!(queued.count(), 3);
        let call = seen.last().unwrap();
        assert_eq!((call.actor, call.name.as_str()), (Some(7), "function 0x0000000000000006"));
    }

    #[test]
    fn claimed_records_name_their_worker() {
        let mut world = World::new();
        let request =
            LeaseRequest { queue: QueueId(3), job: JOB, caller: Caller::Driver, class: class(), wanted: 1, backlog: 2 };
        world.step(Event::LeaseWanted(request));
        let mut submitter = Submitter::new(&world.queue).unwrap();
        (0..2).for_each(|_| _ = submitter.try_submit(&world.words).unwrap());
        let claimed = Claimer::new(&world.queue, CLIENT).claim().unwrap();
        assert!(claimed.is_some());
        let rows = world.tasks(0, 9).tasks;
        let states: Vec<_> = rows.iter().map(|row| (row.state, row.attempts, row.worker, row.pid)).collect();
        let worker = world.workers[0].0;
        assert_eq!(
            states,
            [(TaskState::Running, 1, Some(worker), Some(100 + worker as u32)), (TaskState::Queued, 0, None, None)]
        );
        let Some(Message::SummaryReply(summary)) = answer(&Summary {}.into(), &world) else { panic!() };
        assert_eq!((summary.queued_record_count, summary.claimed_record_count), (1, 1));
        assert_eq!(summary.workers, [(WorkerState::Leased, 1)].into());
    }

    #[test]
    fn actors_workers_and_groups_have_rows() {
        let mut world = World::new();
        world.step(Event::CreateActor(actor(7, "first")));
        world.step(Event::CreateActor(actor(8, &"x".repeat(1000))));
        world.step(Event::KillActor { actor: ActorId(8), no_restart: true });
        let bundles = vec![Resources::cpus(Amount(5_000)), Resources::default().with("tape", Amount(5_000))];
        let (group, strategy) = (GroupId(2), Strategy::StrictPack);
        let spec = GroupSpec { group, job: JOB, caller: Caller::Driver, bundles, strategy, is_detached: false };
        world.step(Event::CreateGroup(spec));
        let Some(Message::ActorsReply(reply)) = answer(&ListActors { cursor: 0, count_max: 9 }.into(), &world) else {
            panic!()
        };
        let [first, dead] = &reply.actors[..] else { panic!("{reply:?}") };
        assert_eq!(
            (first.name.as_deref(), first.state, first.class.as_str()),
            (Some("first"), ActorState::Alive, "five")
        );
        assert_eq!(first.pid, first.worker.map(|worker| 100 + worker as u32));
        assert_eq!((dead.state, dead.death_cause.as_deref()), (ActorState::Dead, Some("it was killed")));
        assert_eq!(dead.name.as_ref().map(String::len), Some(NAME_BYTES_MAX));
        let Some(Message::WorkersReply(reply)) = answer(&ListWorkers { cursor: 0, count_max: 1 }.into(), &world) else {
            panic!()
        };
        assert_eq!((reply.workers.len(), reply.workers[0].runs.as_deref()), (1, Some("five")));
        assert_eq!(reply.next_cursor, world.workers.get(1).map(|worker| worker.0));
        let Some(Message::GroupsReply(reply)) = answer(&ListGroups { cursor: 0, count_max: 9 }.into(), &world) else {
            panic!()
        };
        let [group] = &reply.groups[..] else { panic!("{reply:?}") };
        assert_eq!((group.name.as_str(), group.strategy.as_str(), group.bundle_count), ("pair", "STRICT_PACK", 2));
        assert_eq!(group.bundles[1], [("tape".to_owned(), 5_000)].into());
        assert_eq!(answer(&ListGroups { cursor: 3, count_max: 9 }.into(), &world), Some(GroupsReply::default().into()));
    }

    #[test]
    fn the_summary_counts_what_there_is() {
        let mut world = World::new();
        (1..=3).for_each(|task| world.submit(task));
        let Some(Message::SummaryReply(summary)) = answer(&Summary {}.into(), &world) else { panic!() };
        assert_eq!((summary.submitted_task_count, summary.running_task_count), (3, 2));
        assert_eq!(summary.used, [("CPU".to_owned(), 20_000)].into());
        assert_eq!(summary.capacity["tape"], 5_000);
        assert_eq!(summary.jobs, [JobInfo { job: 1, pid: Some(50), has_left: false, part_count: 3 }]);
        assert_eq!((summary.worker_count_max, summary.counters["worker_deaths"]), (4, 3));
        assert_eq!(answer(&Summary {}.into(), &world).map(|answer| answer.name()), Some("SummaryReply"));
        assert_eq!(answer(&GiveEvents::default().into(), &world), None);
    }

    #[test]
    fn a_page_of_the_longest_rows_fits_a_frame() {
        let name = "x".repeat(NAME_BYTES_MAX);
        let demand: Demand = (0..RESOURCES_COUNT_MAX).map(|at| (format!("{at:0>100}"), u64::MAX)).collect();
        let group = GroupInfo {
            name: name.clone(),
            bundles: vec![demand.clone(); BUNDLES_COUNT_MAX],
            used: vec![demand.clone(); BUNDLES_COUNT_MAX],
            ..GroupInfo::default()
        };
        let groups = Page::new(u32::MAX).fill((0..2000).map(|cursor| (cursor, group.clone())));
        assert!(groups.rows.len() > 1 && groups.next == Some(groups.rows.len() as u64));
        raylet_api::encode(&GroupsReply { groups: groups.rows, next_cursor: groups.next }.into()).unwrap();
        let actor = ActorInfo {
            class: name.clone(),
            name: Some(name.clone()),
            death_cause: Some(name),
            demand,
            ..ActorInfo::default()
        };
        let actors = Page::new(u32::MAX).fill((0..2000).map(|cursor| (cursor, actor.clone())));
        raylet_api::encode(&ActorsReply { actors: actors.rows, next_cursor: actors.next }.into()).unwrap();
        let task = TaskInfo { name: "f".into(), ..TaskInfo::default() };
        let tasks = Page::new(u32::MAX).fill((0..2000).map(|cursor| (cursor, task.clone())));
        assert_eq!(tasks.rows.len(), PAGE_COUNT_MAX as usize);
        raylet_api::encode(&TasksReply { tasks: tasks.rows, next_cursor: tasks.next }.into()).unwrap();
    }
}
