//! What the world does about each effect.
//!
//! The one thing to know: it believes nothing: a task that runs must be ready and the first of its
//! class, a worker must be idle, an end must be the first. This file must not answer at once:
//! everything takes some time.

use super::{Doing, Plan, Worker, World};
use raylet_core::Effect;
use raylet_core::effect::Request;
use raylet_core::ids::{EnvId, JobId, QueueId, TaskId, WorkerId};

impl World {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::JobStarted { job, .. } => {
                self.jobs.insert(job, EnvId(job.0 % 2));
            }
            Effect::JobEnded { job } => {
                assert!(!self.jobs.contains_key(&job), "{job} ended with its driver there");
            }
            Effect::Refuse { request, .. } => self.refused(request),
            Effect::Infeasible { .. } | Effect::Stuck { .. } => {}
            Effect::RunTask { task, worker, .. } => self.run_task(task, worker),
            Effect::InterruptTask { worker, .. } => self.plan(1, Plan::GoOn(worker)),
            Effect::TaskEnded { task, .. } => self.task_ended(task),
            Effect::Grant { worker, queue, .. } => self.granted(worker, queue),
            Effect::Withdraw { worker, .. } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.is_withdrawn = true;
                }
                self.plan(1, Plan::GoOn(worker));
            }
            Effect::LeaseLost { worker, queue } => self.lease_lost(worker, queue),
            Effect::QueueEnded { queue, .. } => self.queue_ended(queue),
            Effect::StartZygote { env } => {
                assert!(!self.zygotes.get(&env).copied().unwrap_or(false), "a second zygote of {env}");
                let delay = self.soon();
                self.plan(delay, Plan::ZygoteUp(env));
            }
            Effect::StartWorker { worker, env } => self.start_worker(worker, env),
            Effect::KillWorker { worker, .. } => {
                let delay = self.soon();
                self.plan(delay, Plan::WorkerGone(worker));
            }
            Effect::RunActor { actor, worker, .. } => {
                let job = self.some_job();
                self.begin(worker, Doing::Actor(actor), job);
                self.actors.insert(actor, Some(worker));
                let delay = self.soon();
                self.plan(delay, Plan::ActorUp(actor, worker));
            }
            Effect::ActorAlive { actor, worker } => {
                assert_eq!(self.actors.get(&actor), Some(&Some(worker)));
            }
            Effect::ActorRestarting { actor, .. } => {
                self.actors.insert(actor, None);
            }
            Effect::EndActor { actor, worker } => {
                let delay = self.soon();
                self.plan(delay, Plan::ActorExit(actor, worker));
            }
            Effect::ActorDead { actor, .. } => {
                assert!(self.actors.remove(&actor).is_some(), "{actor} died twice");
            }
            Effect::ActorExists { actor, existing } => {
                assert!(self.actors.contains_key(&existing), "{existing} is dead");
                self.actors.remove(&actor);
            }
            Effect::GroupReady { group } => {
                assert_eq!(self.groups.insert(group, true), Some(false), "{group} is ready twice");
            }
            Effect::GroupRemoved { group } => {
                assert!(self.groups.remove(&group).is_some(), "{group} is removed twice");
            }
        }
    }

    fn refused(&mut self, request: Request) {
        match request {
            Request::Task(task) => self.task_ended(task),
            Request::Queue(queue) => self.queue_ended(queue),
            Request::Actor(actor) => {
                self.actors.remove(&actor);
            }
            Request::Group(group) => {
                self.groups.remove(&group);
            }
        }
    }

    fn start_worker(&mut self, id: WorkerId, env: EnvId) {
        let worker = Worker {
            env,
            job: JobId(0),
            is_up: false,
            doing: Doing::Nothing,
            depth: 0,
            is_blocked: false,
            waits: false,
            is_withdrawn: false,
            is_asleep: false,
            calls: 0,
            claimed: None,
            has_nested: false,
            stopped_until: 0,
        };
        self.workers.insert(id, worker);
        let is_lost = !self.is_quiet && self.chance.once_in(30);
        let delay = self.soon();
        self.plan(delay, if is_lost { Plan::WorkerGone(id) } else { Plan::WorkerUp(id) });
    }

    fn begin(&mut self, id: WorkerId, doing: Doing, job: JobId) {
        let worker = self.workers.get_mut(&id).expect("N2: a dead worker was chosen");
        assert!(worker.is_up, "N2: {id} is not ready");
        assert_eq!(worker.doing, Doing::Nothing, "N2: {id} is busy");
        worker.doing = doing;
        worker.job = job;
        worker.is_blocked = false;
        worker.waits = false;
        worker.is_withdrawn = false;
        worker.is_asleep = false;
        worker.has_nested = false;
        worker.calls = 0;
    }

    fn run_task(&mut self, id: TaskId, worker: WorkerId) {
        let task = self.tasks.get(&id).expect("N4: an ended task runs");
        let (job, depth, order) = (task.job, task.depth, task.order);
        assert!(task.missing.is_empty(), "N4: {id} runs without its arguments");
        let line = self.ready.get_mut(&(job, task.class.clone())).expect("it is ready");
        assert_eq!(line.first(), Some(&(order, id)), "N3: {id} overtakes");
        line.pop_first();
        self.begin(worker, Doing::Task(id), job);
        self.worker(worker).depth = depth;
        let delay = self.soon();
        self.plan(delay, Plan::GoOn(worker));
    }

    /// A retry is ready again under its old order: its worker died or it failed.
    pub(super) fn back_in_line(&mut self, id: TaskId) {
        if let Some(task) = self.tasks.get(&id) {
            self.ready.entry((task.job, task.class.clone())).or_default().insert((task.order, id));
        }
    }

    fn task_ended(&mut self, id: TaskId) {
        let task = self.tasks.remove(&id).expect("N4: a task ends twice");
        if let Some(line) = self.ready.get_mut(&(task.job, task.class)) {
            line.remove(&(task.order, id));
        }
        self.wake_waiter(task.waiter);
    }

    fn granted(&mut self, worker: WorkerId, queue: QueueId) {
        let known = &self.queues[&queue];
        assert!(!known.is_ended, "an ended {queue} is served");
        let job = known.job;
        self.begin(worker, Doing::Queue(queue), job);
        let delay = self.soon();
        self.plan(delay, Plan::GoOn(worker));
    }

    fn lease_lost(&mut self, worker: WorkerId, queue: QueueId) {
        let Some(record) = self.worker(worker).claimed.take() else { return };
        let known = self.queues.get_mut(&queue).expect("it is still served");
        if known.is_ended {
            self.records_ended += 1;
            self.wake_waiter(record.waiter);
        } else {
            known.records.push_front(record);
            self.wake_sleepers(queue);
        }
    }

    fn queue_ended(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("a queue in use is known");
        queue.is_ended = true;
        queue.is_open = false;
        for record in std::mem::take(&mut queue.records) {
            self.records_ended += 1;
            self.wake_waiter(record.waiter);
        }
    }
}
