//! The node: one machine's state, and the step that every event is.
//!
//! The one thing to know: [`Node::step`] is a function of the state, the time and the event; two
//! nodes that saw the same events are equal in all they say. This file must not know how any of it
//! is done: it sends each event to the file of its noun, and then has what is free given out.

use crate::actors::Actors;
use crate::arguments::Arguments;
use crate::classes::Classes;
use crate::config::Config;
use crate::effect::{Effect, Refusal, Request};
use crate::event::{ClassSpec, Event, Placement};
use crate::groups::{Group, GroupState};
use crate::ids::{Caller, ClassId, GroupId, JobId, QueueId, TaskId, Time};
use crate::jobs::{Job, Stream};
use crate::leases::Queue;
use crate::pool::{Phase, Pool};
use crate::resources::{Amount, BadResources, Ledger, Resources};
use crate::tasks::Task;
use std::collections::{BTreeMap, BTreeSet};

/// Whose ledger something is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Account {
    Machine,
    Bundle(GroupId, u32),
}

impl Account {
    /// Whether what is free here can serve this placement.
    pub(crate) fn may_serve(self, placement: Placement) -> bool {
        match (self, placement) {
            (Self::Machine, Placement::Machine) => true,
            (Self::Bundle(here, at), Placement::Group { group, bundle }) => {
                here == group && bundle.is_none_or(|bundle| bundle == at)
            }
            (Self::Machine, Placement::Group { .. }) | (Self::Bundle(..), Placement::Machine) => false,
        }
    }
}

/// Everything the raylet knows and decides.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) ledger: Ledger,
    pub(crate) classes: Classes,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) arguments: Arguments,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) actors: Actors,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) pool: Pool,
    /// Where the last grant to a job was.
    pub(crate) floor: u64,
    pub(crate) next_job: u32,
    pub(crate) next_turn: u64,
    /// Tasks accepted, and tasks that ended.
    pub(crate) submitted: u64,
    pub(crate) ended: u64,
    /// A removed group may have nobody in it any more.
    pub(crate) are_groups_emptied: bool,
    /// Since when every worker is blocked at the cap while somebody needs one.
    pub(crate) stuck_since: Option<Time>,
    /// The last round held something back.
    pub(crate) is_holding_back: bool,
    /// When time alone may change who is next.
    pub(crate) retry_at: Option<Time>,
    /// Kept between rounds for its memory only.
    pub(crate) wanting_buffer: Vec<Stream>,
}

impl Node {
    /// A machine with so much of everything, and nobody on it.
    ///
    /// # Errors
    ///
    /// A capacity that cannot mean anything, such as half a GPU more than a whole number.
    pub fn new(config: Config, capacity: Resources) -> Result<Self, BadResources> {
        capacity.validate()?;
        if !capacity.gpu.0.is_multiple_of(Amount::ONE.0) {
            return Err(BadResources::BrokenGpus { units: capacity.gpu.0 });
        }
        Ok(Self {
            config,
            now: Time::default(),
            ledger: Ledger::machine(capacity),
            classes: Classes::new(),
            jobs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            arguments: Arguments::default(),
            queues: BTreeMap::new(),
            actors: Actors::default(),
            groups: BTreeMap::new(),
            pool: Pool::default(),
            floor: 0,
            next_job: 1,
            next_turn: 0,
            submitted: 0,
            ended: 0,
            are_groups_emptied: false,
            stuck_since: None,
            is_holding_back: false,
            retry_at: None,
            wanting_buffer: Vec::new(),
        })
    }

    /// Takes in what happened and says what is to be done, in this order. Time never goes back: an
    /// earlier `now` than the last one is the last one.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.take_in(event, effects);
        if self.are_groups_emptied {
            self.groups_emptied(effects);
        }
        self.withdraw_idle(effects);
        self.end_late_starts(effects);
        self.restart_zygotes(effects);
        self.dispatch(effects);
        self.retire_idle(effects);
        if self.classes.are_many() {
            self.forget_classes();
        }
    }

    fn take_in(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::DriverJoined { driver, env } => self.on_driver_joined(driver, env, effects),
            Event::DriverLeft { job, wanted } => self.on_driver_left(job, &wanted, effects),
            Event::Submit(spec) => self.on_submit(spec, effects),
            Event::ArgumentReady { object } => self.on_argument_ready(object, effects),
            Event::TaskFinished { task, worker } => self.on_task_finished(task, worker, effects),
            Event::TaskFailed { task, worker, retry } => self.on_task_failed(task, worker, retry, effects),
            Event::Cancel { task, force } => self.on_cancel(task, force, effects),
            Event::LeaseWanted(request) => self.on_lease_wanted(request, effects),
            Event::LeaseIdle { worker, queue } => self.on_lease_idle(worker, queue, effects),
            Event::LeaseBusy { worker, queue } => self.on_lease_busy(worker, queue),
            Event::LeaseReturned { worker, queue, calls, backlog } => {
                self.on_lease_returned(worker, queue, calls, backlog, effects);
            }
            Event::QueueClosed { queue } => self.close_queue(queue, effects),
            Event::WorkerStarted { worker } => self.on_worker_started(worker),
            Event::WorkerDied { worker, wanted } => self.on_worker_died(worker, &wanted, effects),
            Event::WorkerBlocked { worker } => self.on_worker_blocked(worker),
            Event::WorkerWoken { worker } => self.on_worker_woken(worker),
            Event::ZygoteStarted { env } => self.on_zygote_started(env),
            Event::ZygoteDied { env } => self.on_zygote_died(env, effects),
            Event::ZygoteFailed { env } => self.on_zygote_failed(env, effects),
            Event::CreateActor(spec) => self.on_create_actor(spec, effects),
            Event::ActorReady { actor, worker } => self.on_actor_ready(actor, worker, effects),
            Event::ActorFailed { actor, worker } => self.on_actor_failed(actor, worker, effects),
            Event::ActorExited { actor, worker } => self.on_actor_exited(actor, worker, effects),
            Event::ActorHandlesGone { actor } => self.on_actor_handles_gone(actor, effects),
            Event::KillActor { actor, no_restart } => self.on_kill_actor(actor, no_restart, effects),
            Event::CreateGroup(spec) => self.on_create_group(spec, effects),
            Event::RemoveGroup { group } => self.on_remove_group(group, effects),
            Event::Tick => {}
        }
    }

    pub(crate) fn ledger(&self, account: Account) -> &Ledger {
        match account {
            Account::Machine => &self.ledger,
            Account::Bundle(group, at) => &self.groups[&group].reserved()[at as usize].ledger,
        }
    }

    pub(crate) fn ledger_mut(&mut self, account: Account) -> &mut Ledger {
        match account {
            Account::Machine => &mut self.ledger,
            Account::Bundle(group, at) => &mut self.bundle_mut(group, at).ledger,
        }
    }

    pub(crate) fn accounts_of(&self, placement: Placement) -> Vec<Account> {
        let Placement::Group { group, bundle } = placement else { return vec![Account::Machine] };
        let count = self.groups.get(&group).map_or(0, |group| group.reserved().len() as u32);
        let indices = bundle.map_or(0..count, |only| only..(only + 1).min(count));
        indices.map(|at| Account::Bundle(group, at)).collect()
    }

    pub(crate) fn below(live: usize, limit: usize) -> Result<(), Refusal> {
        if live < limit { Ok(()) } else { Err(Refusal::TooMany { live, limit }) }
    }

    /// Whether such a request may stand in line at all.
    pub(crate) fn admit(&self, job: JobId, caller: Caller, class: &ClassSpec) -> Result<(), Refusal> {
        self.admit_caller(job, caller)?;
        class.demand.validate().map_err(Refusal::BadResources)?;
        let Placement::Group { group, bundle } = class.placement else { return Ok(()) };
        let known = self.groups.get(&group).filter(|group| !matches!(group.state, GroupState::Removing(_)));
        match known {
            Some(known) if bundle.is_none_or(|at| (at as usize) < known.bundles.len()) => Ok(()),
            Some(_) | None => Err(Refusal::NoSuchBundle { group }),
        }
    }

    /// A job that is over takes nothing more from its driver, but from its workers while they live.
    pub(crate) fn admit_caller(&self, id: JobId, caller: Caller) -> Result<(), Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::JobOver { job: id })?;
        match caller {
            Caller::Driver if job.has_left => Err(Refusal::JobOver { job: id }),
            Caller::Driver => Ok(()),
            Caller::Worker(worker) => {
                let known = self.pool.workers.get(&worker).filter(|worker| !worker.is_stopping);
                let is_there = known.is_some_and(|worker| worker.phase != Phase::Starting);
                if is_there { Ok(()) } else { Err(Refusal::CallerGone { worker }) }
            }
        }
    }

    /// Says so if the machine, or the group, is too small for this class.
    pub(crate) fn report_infeasible(&self, request: Request, class: ClassId, effects: &mut Vec<Effect>) {
        let class = self.classes.class(class);
        let wanted = &class.spec.demand;
        let largest = match class.spec.placement {
            Placement::Machine if class.fits_machine => return,
            Placement::Machine => self.ledger.capacity(),
            Placement::Group { group, bundle } => {
                let bundles = &self.groups[&group].bundles;
                let only = bundle.map_or(0..bundles.len(), |at| at as usize..at as usize + 1);
                if bundles[only.clone()].iter().any(|bundle| bundle.covers(wanted)) {
                    return;
                }
                &bundles[only.start]
            }
        };
        effects.push(Effect::Infeasible { request, wanted: wanted.clone(), capacity: largest.clone() });
    }

    fn forget_classes(&mut self) {
        let lanes = self.jobs.values().flat_map(|job| job.lanes.keys().copied());
        let tasks = self.tasks.values().map(|task| task.class);
        let actors = self.actors.all.values().map(|actor| actor.class);
        let groups = self.groups.values().map(|group| group.class);
        let queues = self.queues.values().map(|queue| queue.class);
        let used = lanes.chain(tasks).chain(actors).chain(groups).chain(queues).collect::<BTreeSet<_>>();
        self.classes.retain(&used);
    }
}
