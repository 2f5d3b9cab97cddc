//! Workers and the zygotes that fork them.
//!
//! The one thing to know: a worker is in exactly one [`Phase`] from the effect that asks for its
//! fork to the event that confirms its death; killing it changes nothing but `is_stopping`, and what
//! it holds is held until it is really gone. This file must not choose what a worker runs.

use crate::effect::{Effect, KillReason, Refusal};
use crate::event::{ClassSpec, StillWanted};
use crate::ids::{ActorId, Caller, EnvId, QueueId, TaskId, Time, WorkerId};
use crate::jobs::Stream;
use crate::node::{Account, Node};
use crate::resources::{GpuShare, Holding};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) queue: QueueId,
    pub(crate) since: Time,
    /// Since when it is asked to let go.
    pub(crate) withdrawn_at: Option<Time>,
    pub(crate) idle_since: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its fork is asked for.
    Starting,
    /// It waits for something to do.
    Idle { since: Time },
    /// It runs a task of the raylet's.
    Task(TaskId),
    /// It serves a direct caller's queue.
    Leased(Lease),
    /// It is an actor, or its actor is dead and it soon will be.
    Actor(ActorId),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) env: EnvId,
    pub(crate) phase: Phase,
    /// It was asked for its life.
    pub(crate) is_stopping: bool,
    /// It sleeps in `get`.
    pub(crate) is_blocked: bool,
    pub(crate) held: Option<(Account, Holding)>,
    /// Whose use of the machine it is, and how much a microsecond.
    pub(crate) charge: Option<(Stream, u64)>,
    /// After how many calls what it runs now wants it gone; 0 is never.
    pub(crate) calls_max: u32,
    /// It runs functions that have workers of their own, and is good for nothing else afterwards.
    pub(crate) is_dedicated: bool,
    /// It has begun something before.
    pub(crate) is_used: bool,
    pub(crate) calls: u32,
    /// Tasks and queues of its own that are not over.
    pub(crate) submissions: u32,
}

impl Worker {
    pub(crate) fn gpus(&self) -> Vec<GpuShare> {
        self.held.as_ref().map(|(_, holding)| holding.gpus.clone()).unwrap_or_default()
    }

    /// Whether it works off a queue, if only to the end of one record.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Leased(_)) && !self.is_blocked && !self.is_stopping
    }

    /// Whether its lease can be withdrawn, to anybody's good.
    pub(crate) fn is_withdrawable(&self) -> bool {
        self.is_serving() && !matches!(&self.phase, Phase::Leased(lease) if lease.withdrawn_at.is_some())
    }

    /// Whether it will give back what it holds without anybody's help.
    pub(crate) fn is_passing(&self) -> bool {
        !self.is_blocked && matches!(self.phase, Phase::Task(_) | Phase::Leased(_))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Zygote {
    #[default]
    Absent,
    Starting,
    Alive,
    /// It died several times; it is started again then.
    Delayed {
        until: Time,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Env {
    pub(crate) zygote: Zygote,
    /// By since when, so that the warmest is last.
    pub(crate) idle: BTreeSet<(Time, WorkerId)>,
    pub(crate) starting: u32,
    /// Workers in a row that died before they were ready.
    pub(crate) failures: u32,
    /// Deaths of the zygote in a row.
    pub(crate) deaths: u32,
    /// Drivers whose workers come from here.
    pub(crate) drivers: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) envs: BTreeMap<EnvId, Env>,
    /// Workers that are not ready, by when they were asked for, but for those that were killed for it.
    pub(crate) starting: BTreeSet<(Time, WorkerId)>,
    /// Leases whose queue was found empty.
    pub(crate) idle_leases: BTreeSet<(Time, WorkerId)>,
    next: u64,
}

impl Pool {
    pub(crate) fn worker(&self, id: WorkerId) -> &Worker {
        self.workers.get(&id).expect("N2: a worker that something names is known")
    }

    pub(crate) fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("N2: a worker that something names is known")
    }

    pub(crate) fn env_mut(&mut self, id: EnvId) -> &mut Env {
        self.envs.entry(id).or_default()
    }

    /// The worker for a class: one that was never busy for functions that have workers of their own, else the one
    /// that was busy last, as its caches are warm.
    pub(crate) fn idle_for(&self, spec: &ClassSpec) -> Option<WorkerId> {
        let mut warmest_first = self.envs.get(&spec.env)?.idle.iter().rev().map(|(_, worker)| *worker);
        match spec.has_own_workers() {
            true => warmest_first.find(|worker| !self.worker(*worker).is_used),
            false => warmest_first.next(),
        }
    }

    fn fork(&mut self, env: EnvId, now: Time) -> WorkerId {
        let id = WorkerId(self.next);
        self.next += 1;
        let worker = Worker {
            env,
            phase: Phase::Starting,
            is_stopping: false,
            is_blocked: false,
            held: None,
            charge: None,
            calls_max: 0,
            is_dedicated: false,
            is_used: false,
            calls: 0,
            submissions: 0,
        };
        self.workers.insert(id, worker);
        self.starting.insert((now, id));
        self.env_mut(env).starting += 1;
        id
    }

    /// It is ready, or dead.
    fn started(&mut self, id: WorkerId) {
        // Few at a time.
        self.starting.retain(|(_, other)| *other != id);
    }
}

impl Node {
    /// Forgets an environment that no worker is of and no job will use again; any other stays.
    pub fn forget_env(&mut self, id: EnvId) {
        let is_used = self.jobs.values().any(|job| job.env == id) || self.pool.workers.values().any(|w| w.env == id);
        if !is_used {
            self.pool.envs.remove(&id);
        }
    }

    pub(crate) fn on_worker_started(&mut self, id: WorkerId) {
        let Some(worker) = self.pool.workers.get(&id).filter(|worker| worker.phase == Phase::Starting) else {
            return;
        };
        let env = worker.env;
        self.pool.started(id);
        let env = self.pool.env_mut(env);
        env.starting -= 1;
        env.failures = 0;
        env.deaths = 0;
        self.make_idle(id);
    }

    fn make_idle(&mut self, id: WorkerId) {
        let since = self.now;
        let worker = self.pool.worker_mut(id);
        worker.phase = Phase::Idle { since };
        worker.is_blocked = false;
        worker.calls_max = 0;
        if !worker.is_stopping {
            let env = worker.env;
            self.pool.env_mut(env).idle.insert((since, id));
        }
    }

    /// The worker begins something: it is no longer idle, and holds what it needs.
    pub(crate) fn occupy(&mut self, id: WorkerId, phase: Phase, account: Account, holding: Holding) {
        let worker = self.pool.worker_mut(id);
        let Phase::Idle { since } = std::mem::replace(&mut worker.phase, phase) else {
            unreachable!("N2: only an idle worker begins something");
        };
        worker.held = Some((account, holding));
        worker.is_used = true;
        let env = worker.env;
        self.pool.env_mut(env).idle.remove(&(since, id));
    }

    /// The worker has done what it did, so many calls: idle again, or at its end.
    pub(crate) fn release_worker(&mut self, id: WorkerId, calls: u32, effects: &mut Vec<Effect>) {
        self.give_up(id);
        let worker = self.pool.worker_mut(id);
        worker.calls = worker.calls.saturating_add(calls);
        let is_used_up = worker.calls_max > 0 && worker.calls >= worker.calls_max;
        let is_over = is_used_up || worker.is_dedicated;
        self.make_idle(id);
        if is_over {
            self.kill(id, KillReason::CallsDone, effects);
        }
    }

    /// Gives back what the worker holds, and ends what is charged for it.
    fn give_up(&mut self, id: WorkerId) {
        self.stop_charging(id);
        let worker = self.pool.worker_mut(id);
        if let Phase::Leased(lease) = worker.phase
            && let Some(since) = lease.idle_since
        {
            self.pool.idle_leases.remove(&(since, id));
        }
        if let Some((account, holding)) = self.pool.worker_mut(id).held.take() {
            holding.give_back(self.ledger_mut(account));
            self.bundle_left(account);
        }
    }

    fn stop_charging(&mut self, id: WorkerId) {
        let is_blocked = self.pool.worker(id).is_blocked;
        let Some((stream, rate)) = self.pool.worker_mut(id).charge.take() else { return };
        let now = self.now;
        if !is_blocked {
            self.each_share(stream, |share| share.end(now, rate));
        }
        self.lane_mut(stream.job, stream.class).charged -= 1;
        self.tidy_lane(stream.job, stream.class);
    }

    pub(crate) fn kill(&mut self, id: WorkerId, reason: KillReason, effects: &mut Vec<Effect>) {
        let worker = self.pool.worker_mut(id);
        if std::mem::replace(&mut worker.is_stopping, true) {
            return;
        }
        let (env, phase) = (worker.env, worker.phase);
        effects.push(Effect::KillWorker { worker: id, reason });
        match phase {
            Phase::Idle { since } => {
                self.pool.env_mut(env).idle.remove(&(since, id));
            }
            Phase::Leased(lease) => self.count_serving(lease.queue),
            Phase::Starting | Phase::Task(_) | Phase::Actor(_) => {}
        }
    }

    pub(crate) fn on_worker_died(&mut self, id: WorkerId, wanted: &StillWanted, effects: &mut Vec<Effect>) {
        if !self.pool.workers.contains_key(&id) {
            return;
        }
        self.give_up(id);
        let worker = self.pool.workers.remove(&id).expect("it was looked up");
        match worker.phase {
            Phase::Starting => {
                self.pool.started(id);
                self.start_failed(worker.env, effects);
            }
            Phase::Idle { since } => {
                self.pool.env_mut(worker.env).idle.remove(&(since, id));
            }
            Phase::Task(task) => self.task_lost_worker(task, effects),
            Phase::Leased(lease) => self.lease_lost(id, lease.queue, effects),
            Phase::Actor(actor) => self.actor_lost_worker(actor, id, effects),
        }
        if worker.submissions > 0 {
            self.end_submissions(Caller::Worker(id), wanted, effects);
        }
    }

    fn start_failed(&mut self, id: EnvId, effects: &mut Vec<Effect>) {
        let failures_max = self.config.start_failures_max;
        let env = self.pool.env_mut(id);
        env.starting -= 1;
        env.failures += 1;
        if env.failures >= failures_max {
            let failures = std::mem::take(&mut env.failures);
            self.refuse_env(id, Refusal::WorkersDoNotStart { env: id, failures }, effects);
        }
    }

    /// Ends workers that should have been ready for long.
    pub(crate) fn end_late_starts(&mut self, effects: &mut Vec<Effect>) {
        while let Some(&(since, id)) = self.pool.starting.first()
            && since.after(self.config.start_timeout_us) <= self.now
        {
            self.pool.starting.pop_first();
            let env = self.pool.worker(id).env;
            self.pool.env_mut(env).failures += self.config.start_failures_max / 2;
            self.kill(id, KillReason::NotReady, effects);
        }
    }

    pub(crate) fn on_worker_blocked(&mut self, id: WorkerId) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        let is_busy = matches!(worker.phase, Phase::Task(_) | Phase::Leased(_) | Phase::Actor(_));
        if !is_busy || std::mem::replace(&mut worker.is_blocked, true) {
            return;
        }
        let phase = worker.phase;
        self.lend(id);
        if let Phase::Leased(lease) = phase {
            self.lease_blocked(lease.queue);
        }
    }

    fn lend(&mut self, id: WorkerId) {
        let worker = self.pool.worker_mut(id);
        let charge = worker.charge;
        if let Some((account, holding)) = &mut worker.held {
            holding.is_lent = true;
            let (account, cpu) = (*account, holding.amounts.cpu);
            self.ledger_mut(account).lend(cpu);
        }
        let now = self.now;
        if let Some((stream, rate)) = charge {
            self.each_share(stream, |share| share.end(now, rate));
        }
    }

    pub(crate) fn on_worker_woken(&mut self, id: WorkerId) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        if !std::mem::replace(&mut worker.is_blocked, false) {
            return;
        }
        let phase = worker.phase;
        self.take_back(id);
        if let Phase::Leased(lease) = phase {
            self.count_serving(lease.queue);
        }
    }

    fn take_back(&mut self, id: WorkerId) {
        let worker = self.pool.worker_mut(id);
        let charge = worker.charge;
        if let Some((account, holding)) = &mut worker.held {
            holding.is_lent = false;
            holding.was_woken = true;
            let (account, cpu) = (*account, holding.amounts.cpu);
            self.ledger_mut(account).take_back(cpu);
        }
        let now = self.now;
        if let Some((stream, rate)) = charge {
            self.each_share(stream, |share| share.begin(now, rate));
        }
    }

    pub(crate) fn caller_submitted(&mut self, caller: Caller) {
        if let Caller::Worker(worker) = caller {
            self.pool.worker_mut(worker).submissions += 1;
        }
    }

    /// Something that a caller submitted is over; the caller may be, too.
    pub(crate) fn caller_served(&mut self, caller: Caller) {
        if let Caller::Worker(worker) = caller
            && let Some(worker) = self.pool.workers.get_mut(&worker)
        {
            worker.submissions -= 1;
        }
    }

    pub(crate) fn on_zygote_started(&mut self, id: EnvId) {
        let env = self.pool.env_mut(id);
        if env.zygote == Zygote::Starting {
            env.zygote = Zygote::Alive;
        }
    }

    pub(crate) fn on_zygote_died(&mut self, id: EnvId, effects: &mut Vec<Effect>) {
        let env = self.pool.env_mut(id);
        if !matches!(env.zygote, Zygote::Starting | Zygote::Alive) {
            return;
        }
        env.deaths += 1;
        let deaths = env.deaths;
        if deaths > self.config.zygote_deaths_max {
            self.zygote_hopeless(id, deaths, effects);
            return;
        }
        let doublings = deaths.saturating_sub(2).min(32);
        let delay = (self.config.zygote_delay_us_min << doublings).min(self.config.zygote_delay_us_max);
        let until = if deaths == 1 { self.now } else { self.now.after(delay) };
        self.pool.env_mut(id).zygote = Zygote::Delayed { until };
    }

    pub(crate) fn on_zygote_failed(&mut self, id: EnvId, effects: &mut Vec<Effect>) {
        if self.pool.env_mut(id).zygote == Zygote::Starting {
            self.zygote_hopeless(id, 0, effects);
        }
    }

    /// What waits is refused; what comes later may try again.
    fn zygote_hopeless(&mut self, id: EnvId, deaths: u32, effects: &mut Vec<Effect>) {
        let env = self.pool.env_mut(id);
        env.zygote = Zygote::Absent;
        env.deaths = 0;
        self.refuse_env(id, Refusal::ZygoteDoesNotStart { env: id, deaths }, effects);
    }

    /// Starts zygotes whose pause is over.
    pub(crate) fn restart_zygotes(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        for (id, env) in &mut self.pool.envs {
            if matches!(env.zygote, Zygote::Delayed { until } if until <= now) {
                env.zygote = Zygote::Starting;
                effects.push(Effect::StartZygote { env: *id });
            }
        }
    }

    /// Has `wanted` workers of an environment on their way, as far as the cap allows.
    pub(crate) fn start_workers(&mut self, id: EnvId, wanted: u32, effects: &mut Vec<Effect>) {
        let starting_max = self.config.starting_max;
        let env = self.pool.env_mut(id);
        let missing = wanted.min(starting_max).saturating_sub(env.starting);
        if missing == 0 {
            return;
        }
        match env.zygote {
            Zygote::Alive => self.fork_workers(id, missing, effects),
            Zygote::Absent => {
                env.zygote = Zygote::Starting;
                effects.push(Effect::StartZygote { env: id });
            }
            Zygote::Starting | Zygote::Delayed { .. } => {}
        }
    }

    fn fork_workers(&mut self, env: EnvId, missing: u32, effects: &mut Vec<Effect>) {
        for _ in 0..missing.min(self.room_for_workers()) {
            let worker = self.pool.fork(env, self.now);
            effects.push(Effect::StartWorker { worker, env });
        }
    }

    /// How many more workers there may be.
    pub(crate) fn room_for_workers(&self) -> u32 {
        self.config.workers_max.saturating_sub(self.pool.workers.len() as u32)
    }

    /// Makes room below the cap: the coldest idle worker of another environment goes, one at a time.
    pub(crate) fn evict_idle(&mut self, needed_in: EnvId, effects: &mut Vec<Effect>) {
        let is_leaving = |worker: &Worker| worker.is_stopping;
        if self.pool.workers.values().any(is_leaving) {
            return;
        }
        let others = self.pool.envs.iter().filter(|(id, _)| **id != needed_in);
        let idle = others.flat_map(|(_, env)| &env.idle).min().copied();
        if let Some((_, worker)) = idle {
            self.kill(worker, KillReason::RoomNeeded, effects);
        }
    }

    /// Idle workers go when they were idle for long, but for the few that are kept.
    pub(crate) fn retire_idle(&mut self, effects: &mut Vec<Effect>) {
        let envs = self.pool.envs.keys().copied().collect::<Vec<_>>();
        for env in envs {
            for worker in self.retirees(env) {
                self.kill(worker, KillReason::Idle, effects);
            }
        }
    }

    fn retirees(&self, id: EnvId) -> Vec<WorkerId> {
        let env = &self.pool.envs[&id];
        let excess = env.idle.len().saturating_sub(self.idle_kept(env) as usize);
        let is_due = |since: &Time| since.after(self.config.idle_timeout_us) <= self.now;
        let due = env.idle.iter().take_while(|(since, _)| is_due(since)).map(|(_, worker)| *worker);
        due.filter(|worker| self.pool.worker(*worker).submissions == 0).take(excess).collect()
    }

    /// Idle workers that an environment keeps for ever: none once its drivers have left.
    pub(crate) fn idle_kept(&self, env: &Env) -> u32 {
        if env.drivers > 0 { self.config.idle_keep.max(self.config.prestart) } else { 0 }
    }

    /// When something happens in the pool by time alone.
    pub(crate) fn pool_deadline(&self) -> Option<Time> {
        let lease = self.pool.idle_leases.first().map(|(since, _)| since.after(self.config.lease_idle_us));
        let envs = self.pool.envs.values().filter_map(|env| self.env_deadline(env));
        let start = self.pool.starting.first().map(|(since, _)| since.after(self.config.start_timeout_us));
        envs.chain(lease).chain(start).min()
    }

    fn env_deadline(&self, env: &Env) -> Option<Time> {
        let zygote = match env.zygote {
            Zygote::Delayed { until } => Some(until),
            Zygote::Absent | Zygote::Starting | Zygote::Alive => None,
        };
        let is_excess = env.idle.len() > self.idle_kept(env) as usize;
        let retirees = env.idle.iter().filter(|(_, worker)| self.pool.worker(*worker).submissions == 0);
        let retire = retirees.map(|(since, _)| since.after(self.config.idle_timeout_us)).next();
        zygote.into_iter().chain(retire.filter(|_| is_excess)).min()
    }
}
