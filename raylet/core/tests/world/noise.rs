//! What nobody planned: drivers come and go, everything dies, is cancelled, or never comes.
//!
//! The one thing to know: after [`World::quieten`] none of it happens any more, and then everything
//! that was submitted has to end. This file must not make up what cannot happen, but for events
//! about things that are no more.

use super::{Doing, Plan, World};
use raylet_core::Event;
use raylet_core::event::{ActorName, ActorSpec, ClassSpec, GroupSpec, Placement, StillWanted, Strategy};
use raylet_core::ids::{
    ActorId, Caller, DriverId, EnvId, FunctionGroup, GroupId, JobId, ObjectKey, QueueId, TaskId, WorkerId,
};
use raylet_core::resources::{Amount, Resources};

impl World {
    pub(super) fn noise(&mut self) {
        if self.is_quiet {
            return;
        }
        match self.chance.below(100) {
            0..60 => self.noise_of_calls(),
            60..75 => self.noise_of_deaths(),
            75..90 => self.noise_of_actors(),
            90..99 => self.noise_of_groups(),
            _ => self.noise_of_drivers(),
        }
        if self.chance.once_in(64) {
            self.forget_queues();
        }
        let delay = self.chance.below(400);
        self.plan(delay, Plan::Noise);
    }

    fn noise_of_calls(&mut self) {
        let Some(job) = self.chance.pick(self.jobs.keys().copied()) else { return self.noise_of_drivers() };
        let live = self.tasks.len() as u64 + (self.records_pushed - self.records_ended);
        match self.chance.below(20) {
            0..12 if live < 24 => self.call(job, Caller::Driver, None, 0),
            12..15 if live < 24 => {
                let class = self.some_class(job, 0);
                let arguments = 1 + self.chance.below(3);
                self.submit(job, Caller::Driver, class, None, 0, arguments);
            }
            15..18 => {
                if let Some(object) = self.chance.pick(self.unsealed.iter().copied()) {
                    self.seal(object);
                }
            }
            18 => {
                if let Some(task) = self.chance.pick(self.tasks.keys().copied()) {
                    let force = self.chance.once_in(3);
                    self.tell(Event::Cancel { task, force });
                }
            }
            _ => self.close_some_queue(),
        }
    }

    fn close_some_queue(&mut self) {
        let Some(id) = self.chance.pick(self.queues.keys().copied()) else { return };
        let is_claimed = |worker: &super::Worker| worker.doing == Doing::Queue(id) && worker.claimed.is_some();
        let is_used = self.workers.values().any(is_claimed);
        let queue = self.queues.get_mut(&id).expect("it was picked");
        if queue.is_open && queue.records.is_empty() && !is_used {
            queue.is_open = false;
            self.tell(Event::QueueClosed { queue: id });
        }
    }

    fn noise_of_deaths(&mut self) {
        let Some(id) = self.chance.pick(self.workers.keys().copied()) else { return };
        match self.chance.below(12) {
            0..3 => self.worker_gone(id),
            3..6 => {
                let until = self.now + self.chance.below(20_000);
                self.worker(id).stopped_until = until;
            }
            6 => {
                let env = self.worker(id).env;
                if self.zygotes.insert(env, false) == Some(true) {
                    self.tell(Event::ZygoteDied { env });
                }
            }
            7..10 => self.tell(Event::Tick),
            _ => self.stale(id),
        }
    }

    /// Reports about what is no more, or never was.
    fn stale(&mut self, worker: WorkerId) {
        let number = self.chance.below(self.next.max(1));
        let is_mine = self.worker(worker).doing == Doing::Task(TaskId(number));
        match self.chance.below(7) {
            0 if !is_mine => self.tell(Event::TaskFinished { task: TaskId(number), worker }),
            1 if !is_mine => self.tell(Event::TaskFailed { task: TaskId(number), worker, retry: true }),
            2 => self.tell(Event::ArgumentReady { object: ObjectKey { slot: u32::MAX, generation: number } }),
            3 => self.tell(Event::LeaseIdle { worker, queue: QueueId(u64::MAX) }),
            4 => self.tell(Event::WorkerWoken { worker: WorkerId(u64::MAX - number) }),
            5 => self.tell(Event::ActorReady { actor: ActorId(u64::MAX), worker }),
            _ => self.tell(Event::RemoveGroup { group: GroupId(u64::MAX) }),
        }
    }

    fn noise_of_actors(&mut self) {
        let actor = self.chance.pick(self.actors.keys().copied());
        match (self.chance.below(8), actor) {
            (0..3, _) if self.actors.len() < 4 => self.create_actor(),
            (3, Some(actor)) => {
                let no_restart = self.chance.once_in(2);
                self.tell(Event::KillActor { actor, no_restart });
            }
            (4, Some(actor)) => self.tell(Event::ActorHandlesGone { actor }),
            (5..8, Some(actor)) => self.actor_acts(actor),
            (0..3, _) | (3..8, None) | (8.., _) => {}
        }
    }

    fn actor_acts(&mut self, actor: ActorId) {
        let Some(worker) = self.actors[&actor] else { return };
        let job = self.some_job();
        let Some(state) = self.workers.get_mut(&worker) else { return };
        match self.chance.below(4) {
            0 => self.tell(Event::ActorExited { actor, worker }),
            1 if !state.is_blocked => {
                state.is_blocked = true;
                let delay = self.soon();
                self.plan(delay, Plan::Wake(worker));
                self.tell(Event::WorkerBlocked { worker });
            }
            1.. if self.jobs.contains_key(&job) => self.call(job, Caller::Worker(worker), None, 1),
            1.. => {}
        }
    }

    fn create_actor(&mut self) {
        let job = self.some_job();
        if !self.jobs.contains_key(&job) {
            return;
        }
        let actor = ActorId(self.number());
        let mut class = self.some_class(job, 1);
        let running = if self.chance.once_in(2) { Resources::default() } else { class.demand.clone() };
        class.demand = class.demand.union(&Resources::cpus(Amount::ONE));
        class.placement = Placement::Machine;
        let name = ActorName { namespace: String::new(), name: format!("name {}", self.chance.below(3)) };
        let spec = ActorSpec {
            actor,
            job,
            caller: Caller::Driver,
            class,
            running,
            restarts_max: self.chance.below(4) as i32 - 1,
            name: self.chance.once_in(2).then_some(name),
            get_if_exists: self.chance.once_in(2),
            is_detached: self.chance.once_in(4),
            waits_for: Vec::new(),
        };
        self.actors.insert(actor, None);
        self.tell(Event::CreateActor(spec));
    }

    fn noise_of_groups(&mut self) {
        let job = self.some_job();
        if self.groups.len() < 2 && self.jobs.contains_key(&job) {
            let group = GroupId(self.number());
            let half = Resources::cpus(Amount::ONE).with_gpus(Amount(5_000));
            let bundle = if self.chance.once_in(3) { half } else { Resources::cpus(Amount::ONE) };
            let bundles = vec![bundle; 1 + self.chance.below(3) as usize];
            let all = [Strategy::Pack, Strategy::Spread, Strategy::StrictPack, Strategy::StrictSpread];
            let strategy = all[self.chance.below(4) as usize];
            let is_detached = self.chance.once_in(8);
            self.groups.insert(group, false);
            let spec = GroupSpec { group, job, caller: Caller::Driver, bundles, strategy, is_detached };
            self.tell(Event::CreateGroup(spec));
        } else if let Some(group) = self.chance.pick(self.groups.keys().copied()) {
            self.tell(Event::RemoveGroup { group });
        }
    }

    fn noise_of_drivers(&mut self) {
        match self.jobs.len() {
            0 => self.driver_joins(),
            1..3 if self.chance.once_in(2) => self.driver_joins(),
            _ => {
                let job = self.some_job();
                self.driver_leaves(job);
            }
        }
    }

    fn driver_joins(&mut self) {
        let driver = DriverId(self.number() as u32);
        let env = EnvId(self.chance.below(2) as u32);
        self.tell(Event::DriverJoined { driver, env });
    }

    pub(crate) fn driver_leaves(&mut self, job: JobId) {
        let mut wanted = StillWanted::default();
        for (id, _) in self.tasks.iter().filter(|(_, task)| task.job == job) {
            if self.chance.once_in(3) {
                wanted.tasks.push(*id);
            }
        }
        for (id, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.job == job && !queue.is_ended) {
            queue.is_open = false;
            if self.chance.once_in(3) {
                wanted.queues.push(*id);
            }
        }
        self.jobs.remove(&job);
        self.tell(Event::DriverLeft { job, wanted });
    }

    /// A job whose driver is there, or one that is over if there is none.
    pub(crate) fn some_job(&mut self) -> JobId {
        self.chance.pick(self.jobs.keys().copied()).unwrap_or(JobId(0))
    }

    /// A class; of one that is waited for, the parent never holds for good what it needs.
    pub(crate) fn some_class(&mut self, _job: JobId, depth: u32) -> ClassSpec {
        let group = self.groups.iter().find(|(_, is_ready)| **is_ready).map(|(id, _)| *id);
        let placement = match group {
            Some(group) if self.chance.once_in(4) => {
                Placement::Group { group, bundle: self.chance.once_in(2).then_some(0) }
            }
            Some(_) | None => Placement::Machine,
        };
        let demand = match placement {
            Placement::Machine => self.some_demand(depth),
            Placement::Group { .. } => Resources::cpus(Amount(5_000)),
        };
        let calls_max = if self.chance.once_in(10) { 1 + self.chance.below(3) as u32 } else { 0 };
        ClassSpec {
            function_group: FunctionGroup(self.chance.below(2)),
            demand,
            env: EnvId(self.chance.below(2) as u32),
            placement,
            calls_max,
        }
    }

    fn some_demand(&mut self, depth: u32) -> Resources {
        let all = self.capacity.cpu;
        match self.chance.below(if depth == 0 { 16 } else { 10 }) {
            0..6 => Resources::cpus(Amount::ONE),
            6 | 7 => Resources::cpus(Amount(5_000)),
            8 => Resources::default(),
            9 => Resources::cpus(all),
            10 | 11 => Resources::cpus(Amount::ONE).with_gpus(Amount(4_000)),
            12 => Resources::default().with_gpus(Amount::ONE),
            13 => Resources::cpus(Amount(1_000)).with_memory(400),
            14 => Resources::cpus(Amount::ONE).with("disk", Amount(7_000)),
            _ => Resources::cpus(Amount::whole(99)),
        }
    }

    /// The noise stops, and what can never run is given up.
    pub(crate) fn quieten(&mut self) {
        self.is_quiet = true;
        for object in self.unsealed.clone() {
            self.seal(object);
        }
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.tell(Event::RemoveGroup { group });
        }
        self.end_actors();
        for task in self.infeasible_tasks() {
            self.tell(Event::Cancel { task, force: false });
        }
        let infeasible = self.queues.iter().filter(|(_, queue)| !self.is_feasible(&queue.class));
        for id in infeasible.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up_queue(id);
        }
    }

    pub(crate) fn end_actors(&mut self) {
        for actor in self.actors.keys().copied().collect::<Vec<_>>() {
            self.tell(Event::KillActor { actor, no_restart: true });
        }
    }

    fn give_up_queue(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("it was just listed");
        queue.is_open = false;
        let records = std::mem::take(&mut queue.records);
        for record in records {
            self.records_ended += 1;
            self.wake_waiter(record.waiter);
        }
        self.tell(Event::QueueClosed { queue: id });
    }

    fn infeasible_tasks(&self) -> Vec<TaskId> {
        let infeasible = self.tasks.iter().filter(|(_, task)| !self.is_feasible(&task.class));
        infeasible.map(|(id, _)| *id).collect()
    }

    fn is_feasible(&self, class: &ClassSpec) -> bool {
        self.capacity.covers(&class.demand)
    }

    /// Whether all that was submitted has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.records_pushed == self.records_ended
    }
}
