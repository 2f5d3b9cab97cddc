//! A world for the node to live in: drivers, workers, zygotes, queues and a store, all made up.
//!
//! The one thing to know: the world does what the effects say, late and at times not at all
//! (workers die, zygotes die, somebody is stopped), and calls [`Node::check`] after every step. It
//! keeps books of its own about what was submitted, and asserts that everything ends once and in
//! order. This file must not look into the node.

mod carry_out;
pub(crate) mod chance;
mod noise;

use chance::Chance;
use raylet_core::event::{ClassSpec, LeaseRequest, StillWanted, TaskSpec};
use raylet_core::ids::{ActorId, Caller, EnvId, GroupId, JobId, ObjectKey, QueueId, TaskId, Time, WorkerId};
use raylet_core::resources::{Amount, Resources};
use raylet_core::{Config, Effect, Event, Node};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// Something that the world will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plan {
    ZygoteUp(EnvId),
    WorkerUp(WorkerId),
    WorkerGone(WorkerId),
    /// The worker goes on with what it does.
    GoOn(WorkerId),
    /// What the worker waited for is there.
    Wake(WorkerId),
    ActorUp(ActorId, WorkerId),
    ActorExit(ActorId, WorkerId),
    Noise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Task(TaskId),
    Queue(QueueId),
    Actor(ActorId),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) env: EnvId,
    pub(crate) job: JobId,
    pub(crate) is_up: bool,
    pub(crate) doing: Doing,
    pub(crate) depth: u32,
    pub(crate) is_blocked: bool,
    /// It waits for one child, which has not ended.
    pub(crate) waits: bool,
    pub(crate) is_withdrawn: bool,
    /// It found its queue empty and sleeps.
    pub(crate) is_asleep: bool,
    pub(crate) calls: u32,
    pub(crate) claimed: Option<Record>,
    pub(crate) has_nested: bool,
    pub(crate) stopped_until: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) waiter: Option<WorkerId>,
    pub(crate) depth: u32,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) job: JobId,
    pub(crate) caller: Caller,
    pub(crate) class: ClassSpec,
    pub(crate) records: VecDeque<Record>,
    pub(crate) is_open: bool,
    pub(crate) is_ended: bool,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: JobId,
    pub(crate) class: ClassSpec,
    pub(crate) waiter: Option<WorkerId>,
    pub(crate) caller: Caller,
    pub(crate) depth: u32,
    pub(crate) missing: BTreeSet<ObjectKey>,
    pub(crate) order: u64,
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) chance: Chance,
    pub(crate) capacity: Resources,
    pub(crate) now: u64,
    pub(crate) events: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Plan)>>,
    planned: u64,
    effects: Vec<Effect>,
    pub(crate) zygotes: BTreeMap<EnvId, bool>,
    pub(crate) jobs: BTreeMap<JobId, EnvId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// Ready tasks by job and class, in the order in which they became ready.
    pub(crate) ready: BTreeMap<(JobId, ClassSpec), BTreeSet<(u64, TaskId)>>,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) actors: BTreeMap<ActorId, Option<WorkerId>>,
    pub(crate) groups: BTreeMap<GroupId, bool>,
    pub(crate) unsealed: BTreeSet<ObjectKey>,
    pub(crate) records_pushed: u64,
    pub(crate) records_ended: u64,
    pub(crate) next: u64,
    pub(crate) is_quiet: bool,
    /// A digest of all effects so far, where somebody wants to compare them.
    pub(crate) trace: Option<u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let cpus = Amount::whole(1 + chance.below(4) as u32);
        let gpus = Amount::whole(chance.below(3) as u32);
        let capacity = Resources::cpus(cpus).with_gpus(gpus).with_memory(1_000).with("disk", Amount(20_000));
        let config = Config {
            workers_max: 4 + chance.below(20) as u32,
            cap_patience_us: 20_000,
            idle_timeout_us: 20_000,
            start_timeout_us: 2_000,
            lease_idle_us: 10_000,
            lease_slice_us: 2_000,
            overtake_us: 10_000,
            hold_back_us: 20_000,
            prestart: chance.below(3) as u32,
            starting_max: 1 + chance.below(8) as u32,
            start_failures_max: 12,
            dead_actors_max: 4,
            ..Config::default()
        };
        let node = Node::new(config, capacity.clone()).unwrap();
        Self {
            node,
            chance,
            capacity,
            now: 0,
            events: 0,
            agenda: BinaryHeap::new(),
            planned: 0,
            effects: Vec::new(),
            zygotes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ready: BTreeMap::new(),
            queues: BTreeMap::new(),
            actors: BTreeMap::new(),
            groups: BTreeMap::new(),
            unsealed: BTreeSet::new(),
            records_pushed: 0,
            records_ended: 0,
            next: 1,
            is_quiet: false,
            trace: None,
        }
    }

    /// Queues that nobody submits to, serves or waits for.
    pub(crate) fn forget_queues(&mut self) {
        let served = self.workers.values().map(|worker| worker.doing).collect::<Vec<_>>();
        let known = self.node.queues().map(|row| row.queue).collect::<BTreeSet<_>>();
        self.queues.retain(|id, queue| {
            queue.is_open || !queue.records.is_empty() || served.contains(&Doing::Queue(*id)) || known.contains(id)
        });
    }

    /// What there is, for who has to find out why a seed fails.
    pub(crate) fn describe(&self) -> String {
        let mut text =
            format!("at {} us, deadline {:?}\n{:?}\n", self.now, self.node.next_deadline(), self.node.resources());
        self.node.jobs().for_each(|row| text += &format!("{row:?}\n"));
        self.node.tasks().for_each(|row| text += &format!("{row:?}\n"));
        self.node.queues().for_each(|row| text += &format!("{row:?}\n"));
        self.node.actors().for_each(|row| text += &format!("{row:?}\n"));
        self.node.groups().for_each(|row| text += &format!("{row:?}\n"));
        self.node.workers().for_each(|row| text += &format!("{row:?}\n"));
        self.workers.iter().for_each(|worker| text += &format!("{worker:?}\n"));
        self.queues.iter().for_each(|queue| text += &format!("{queue:?}\n"));
        text + &format!("{:?}\n", self.zygotes)
    }

    pub(crate) fn plan(&mut self, delay: u64, plan: Plan) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now + delay, self.planned, plan)));
    }

    /// Mostly short, at times long.
    pub(crate) fn soon(&mut self) -> u64 {
        if self.chance.once_in(50) { self.chance.below(20_000) } else { 1 + self.chance.below(500) }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One step of the node, its invariants, and what it wants done.
    pub(crate) fn tell(&mut self, event: Event) {
        self.events += 1;
        let mut effects = std::mem::take(&mut self.effects);
        self.node.step(Time(self.now), event, &mut effects);
        self.node.check();
        if let Some(trace) = &mut self.trace {
            for byte in format!("{effects:?}").bytes() {
                *trace = (*trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    /// Goes on to the next thing that happens; false if nothing ever will.
    pub(crate) fn advance(&mut self) -> bool {
        let planned = self.agenda.peek().map(|Reverse((at, _, _))| *at);
        let deadline = self.node.next_deadline().map(|at| at.0);
        match (planned, deadline) {
            (None, None) => return false,
            (Some(at), Some(deadline)) if deadline < at => self.tick(deadline),
            (None, Some(deadline)) => self.tick(deadline),
            (Some(_), _) => {
                let Reverse((at, _, plan)) = self.agenda.pop().expect("it was peeked at");
                self.now = self.now.max(at);
                self.happen(plan);
            }
        }
        true
    }

    fn tick(&mut self, at: u64) {
        self.now = self.now.max(at);
        self.tell(Event::Tick);
        let next = self.node.next_deadline();
        assert!(next.is_none_or(|next| next.0 > self.now), "a deadline that does not pass: {next:?} at {}", self.now);
    }

    fn happen(&mut self, plan: Plan) {
        match plan {
            Plan::ZygoteUp(env) if !self.is_quiet && self.chance.once_in(40) => {
                self.tell(Event::ZygoteFailed { env });
            }
            Plan::ZygoteUp(env) => {
                self.zygotes.insert(env, true);
                self.tell(Event::ZygoteStarted { env });
            }
            Plan::WorkerUp(id) => self.worker_up(id),
            Plan::WorkerGone(id) => self.worker_gone(id),
            Plan::GoOn(id) => self.go_on(id),
            Plan::Wake(id) => self.wake(id),
            Plan::ActorUp(actor, id) => self.actor_up(actor, id),
            Plan::ActorExit(actor, worker) => {
                if self.workers.contains_key(&worker) {
                    self.tell(Event::ActorExited { actor, worker });
                }
            }
            Plan::Noise => self.noise(),
        }
    }

    fn worker_up(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !self.zygotes.get(&worker.env).copied().unwrap_or(false) {
            self.worker_gone(id);
            return;
        }
        worker.is_up = true;
        self.tell(Event::WorkerStarted { worker: id });
    }

    /// The worker is dead: of what it submitted, somebody wants some.
    pub(crate) fn worker_gone(&mut self, id: WorkerId) {
        if !self.workers.contains_key(&id) {
            return;
        }
        let wanted = self.wanted_of(Caller::Worker(id));
        if let Doing::Task(task) = self.worker(id).doing {
            self.back_in_line(task);
        }
        self.tell(Event::WorkerDied { worker: id, wanted });
        self.workers.remove(&id);
    }

    pub(crate) fn wanted_of(&mut self, caller: Caller) -> StillWanted {
        let mut wanted = StillWanted::default();
        for (id, task) in &self.tasks {
            if task.caller == caller && self.chance.once_in(2) {
                wanted.tasks.push(*id);
            }
        }
        for (id, queue) in &mut self.queues {
            if queue.caller == caller && !queue.is_ended {
                queue.is_open = false;
                if self.chance.once_in(2) {
                    wanted.queues.push(*id);
                }
            }
        }
        wanted
    }

    /// A worker ends what it does, or begins the next.
    fn go_on(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.stopped_until > self.now {
            let delay = worker.stopped_until - self.now;
            self.plan(delay, Plan::GoOn(id));
            return;
        }
        if worker.is_blocked {
            return;
        }
        match worker.doing {
            Doing::Nothing | Doing::Actor(_) => {}
            Doing::Task(task) => self.end_task(id, task),
            Doing::Queue(queue) if worker.claimed.is_some() => self.end_record(id, queue),
            Doing::Queue(queue) => self.serve(id, queue),
        }
    }

    fn end_task(&mut self, id: WorkerId, task: TaskId) {
        if self.nests(id) {
            return;
        }
        self.worker(id).doing = Doing::Nothing;
        let is_failure = self.chance.once_in(10);
        let retry = self.chance.once_in(2);
        if is_failure {
            self.back_in_line(task);
        }
        match is_failure {
            true => self.tell(Event::TaskFailed { task, worker: id, retry }),
            false => self.tell(Event::TaskFinished { task, worker: id }),
        }
    }

    fn end_record(&mut self, id: WorkerId, queue: QueueId) {
        if self.nests(id) {
            return;
        }
        let record = self.worker(id).claimed.take().expect("it was looked at");
        self.worker(id).calls += 1;
        self.records_ended += 1;
        self.wake_waiter(record.waiter);
        self.serve(id, queue);
    }

    /// A leased worker looks into its queue.
    fn serve(&mut self, id: WorkerId, queue_id: QueueId) {
        let queue = self.queues.get_mut(&queue_id).expect("a queue in use is known");
        let backlog = queue.records.len() as u32;
        let worker = self.workers.get_mut(&id).expect("it was looked up");
        if worker.is_withdrawn {
            let calls = std::mem::take(&mut worker.calls);
            worker.doing = Doing::Nothing;
            worker.is_asleep = false;
            self.tell(Event::LeaseReturned { worker: id, queue: queue_id, calls, backlog });
        } else if let Some(record) = queue.records.pop_front() {
            worker.claimed = Some(record);
            worker.depth = record.depth;
            worker.has_nested = false;
            if std::mem::take(&mut worker.is_asleep) {
                self.tell(Event::LeaseBusy { worker: id, queue: queue_id });
            }
            let delay = self.soon();
            self.plan(delay, Plan::GoOn(id));
        } else if !std::mem::replace(&mut worker.is_asleep, true) {
            self.tell(Event::LeaseIdle { worker: id, queue: queue_id });
        }
    }

    pub(crate) fn worker(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("its caller looked it up")
    }

    /// At times what a worker runs calls something and waits for it.
    fn nests(&mut self, id: WorkerId) -> bool {
        let worker = self.worker(id);
        let (depth, job) = (worker.depth, worker.job);
        if worker.has_nested || depth >= 8 {
            return false;
        }
        worker.has_nested = true;
        if self.chance.once_in(2) || !self.jobs.contains_key(&job) {
            return false;
        }
        self.worker(id).is_blocked = true;
        self.worker(id).waits = true;
        self.call(job, Caller::Worker(id), Some(id), depth + 1);
        if self.workers.contains_key(&id) {
            self.tell(Event::WorkerBlocked { worker: id });
        }
        true
    }

    /// One call, either way.
    pub(crate) fn call(&mut self, job: JobId, caller: Caller, waiter: Option<WorkerId>, depth: u32) {
        let class = self.some_class(job, depth);
        match self.chance.once_in(2) {
            true => self.submit(job, caller, class, waiter, depth, 0),
            false => self.push(job, caller, class, waiter, depth),
        }
    }

    pub(crate) fn submit(
        &mut self,
        job: JobId,
        caller: Caller,
        class: ClassSpec,
        waiter: Option<WorkerId>,
        depth: u32,
        arguments: u64,
    ) {
        let id = TaskId(self.number());
        let waits_for = (0..arguments).map(|_| ObjectKey { slot: self.number() as u32, generation: 1 });
        let waits_for = waits_for.collect::<Vec<_>>();
        self.unsealed.extend(&waits_for);
        let missing = waits_for.iter().copied().collect();
        let task = Task { job, class: class.clone(), waiter, caller, depth, missing, order: 0 };
        self.tasks.insert(id, task);
        if arguments == 0 {
            self.is_ready(id);
        }
        let retries_max = self.chance.below(5) as i32 - 1;
        self.tell(Event::Submit(TaskSpec { task: id, job, caller, class, retries_max, waits_for }));
    }

    fn is_ready(&mut self, id: TaskId) {
        let order = self.number();
        let task = self.tasks.get_mut(&id).expect("its caller looked it up");
        task.order = order;
        self.ready.entry((task.job, task.class.clone())).or_default().insert((order, id));
    }

    pub(crate) fn seal(&mut self, object: ObjectKey) {
        self.unsealed.remove(&object);
        let mut ready = Vec::new();
        for (id, task) in &mut self.tasks {
            if task.missing.remove(&object) && task.missing.is_empty() {
                ready.push(*id);
            }
        }
        for id in ready {
            self.is_ready(id);
        }
        self.tell(Event::ArgumentReady { object });
    }

    fn push(&mut self, job: JobId, caller: Caller, class: ClassSpec, waiter: Option<WorkerId>, depth: u32) {
        let is_it = |queue: &Queue| queue.is_open && queue.job == job && queue.caller == caller && queue.class == class;
        let known = self.queues.iter().find(|(_, queue)| is_it(queue)).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| QueueId(self.number()));
        let new = || Queue { job, caller, class, records: VecDeque::new(), is_open: true, is_ended: false };
        let queue = self.queues.entry(id).or_insert_with(new);
        self.records_pushed += 1;
        queue.records.push_back(Record { waiter, depth });
        let backlog = queue.records.len() as u32;
        let request = LeaseRequest { queue: id, job, caller, class: queue.class.clone(), wanted: backlog + 1, backlog };
        self.wake_sleepers(id);
        self.tell(Event::LeaseWanted(request));
    }

    pub(crate) fn wake_sleepers(&mut self, queue: QueueId) {
        let is_asleep = |worker: &Worker| worker.doing == Doing::Queue(queue) && worker.is_asleep;
        let sleepers = self.workers.iter().filter(|(_, worker)| is_asleep(worker));
        for sleeper in sleepers.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.plan(1, Plan::GoOn(sleeper));
        }
    }

    pub(crate) fn wake_waiter(&mut self, waiter: Option<WorkerId>) {
        if let Some(id) = waiter
            && let Some(worker) = self.workers.get_mut(&id)
            && std::mem::take(&mut worker.waits)
        {
            let delay = self.soon();
            self.plan(delay, Plan::Wake(id));
        }
    }

    fn wake(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.is_blocked && !worker.waits {
            worker.is_blocked = false;
            self.tell(Event::WorkerWoken { worker: id });
            let delay = self.soon();
            self.plan(delay, Plan::GoOn(id));
        }
    }

    fn actor_up(&mut self, actor: ActorId, worker: WorkerId) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        match self.chance.once_in(10) {
            true => self.tell(Event::ActorFailed { actor, worker }),
            false => self.tell(Event::ActorReady { actor, worker }),
        }
    }
}
