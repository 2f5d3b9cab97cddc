//! Who is next.
//!
//! The one thing to know: each round offers what is free to the streams that want something, the one
//! with the least use first (see `fair`), until nobody can be given anything; then it looks at who
//! went away with nothing, and has workers forked, leases withdrawn or, at the cap, requests refused.
//! This file must not keep anything from one round to the next but what `fair` counts.
//!
//! A request that does not fit is overtaken by those that do. After `overtake_us` of that, what it
//! lacks is held back for it, if the ends of running tasks can make it fit at all: what a blocked
//! worker or an actor holds may only come back when somebody behind has run. For the same reason
//! holding back stops after `hold_back_us`, and the two alternate.

use crate::effect::{DeathCause, Effect, KillReason, Refusal, Request, TaskEnd};
use crate::event::{ClassSpec, Placement};
use crate::groups::{Bundle, GroupState, reserve};
use crate::ids::{ClassId, EnvId, GroupId, JobId, QueueId, Time, WorkerId};
use crate::jobs::{Item, Source, Stream};
use crate::node::{Account, Node};
use crate::pool::{Lease, Phase, Worker};
use crate::resources::{Holding, Ledger};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Use of the job, the class in it, the stream in that; the least goes first, ties by number.
type Rank = (u64, JobId, u64, ClassId, u64, Source);

/// What became of one offer.
#[derive(Debug)]
enum Outcome {
    Granted,
    LacksRoom,
    LacksWorker,
    /// Somebody else has waited too long for what this one wants.
    HeldBack,
}

/// Those that went away with nothing.
#[derive(Debug, Default)]
struct Round {
    lack_room: Vec<Stream>,
    lack_worker: Vec<Stream>,
    held_for: Vec<Arc<ClassSpec>>,
}

impl Node {
    /// Gives out what can be given.
    pub(crate) fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        let wanting = self.wanting();
        let mut ranked = wanting.iter().map(|stream| (self.used(*stream), *stream)).collect::<Vec<_>>();
        self.wanting_buffer = wanting;
        let mut round = Round::default();
        while let Some(at) = (0..ranked.len()).min_by_key(|at| ranked[*at].0) {
            let stream = ranked[at].1;
            match self.offer(stream, &mut round, effects) {
                Outcome::Granted => {
                    if self.wants(stream) == 0 {
                        ranked.swap_remove(at);
                    }
                    self.rank_again(stream.job, &mut ranked);
                    continue;
                }
                Outcome::LacksRoom => round.lack_room.push(stream),
                Outcome::LacksWorker => round.lack_worker.push(stream),
                Outcome::HeldBack => {}
            }
            ranked.swap_remove(at);
        }
        self.is_holding_back = !round.held_for.is_empty();
        self.fork_for(&round, effects);
        self.withdraw_for(&round, effects);
        self.refuse_at_cap(&round, effects);
        self.report_stuck(&round.lack_room, effects);
        let is_somebody_left = !round.lack_room.is_empty() || !round.lack_worker.is_empty();
        self.retry_at = is_somebody_left.then(|| self.now.after(self.config.lease_slice_us));
    }

    /// The streams that want something that this machine has; and tells all shares who waits.
    fn wanting(&mut self) -> Vec<Stream> {
        let (now, lag) = (self.now, self.lag());
        let mut wanting = std::mem::take(&mut self.wanting_buffer);
        wanting.clear();
        let Self { jobs, queues, classes, groups, floor, .. } = self;
        for (job_id, job) in jobs.iter_mut() {
            let before_job = wanting.len();
            for (class_id, lane) in &mut job.lanes {
                let before_lane = wanting.len();
                let class = classes.class(*class_id);
                let is_feasible = match class.spec.placement {
                    Placement::Machine => {
                        class.fits_machine || matches!(lane.items.first_key_value(), Some((_, Item::Group(_))))
                    }
                    Placement::Group { group, .. } => {
                        groups.get(&group).is_some_and(|group| matches!(group.state, GroupState::Ready(_)))
                    }
                };
                let stream = |source| Stream { job: *job_id, class: *class_id, source };
                let has_items = is_feasible && !lane.items.is_empty();
                lane.items_share.waits(now, has_items, lane.floor, lag);
                if has_items {
                    wanting.push(stream(Source::Items));
                }
                for id in &lane.queues {
                    let queue = queues.get_mut(id).expect("N5: a lane's queue is known");
                    let lacks = is_feasible && queue.lacks() > 0;
                    queue.share.waits(now, lacks, lane.floor, lag);
                    if lacks {
                        wanting.push(stream(Source::Queue(*id)));
                    }
                }
                lane.share.waits(now, wanting.len() > before_lane, job.floor, lag);
            }
            job.share.waits(now, wanting.len() > before_job, *floor, lag);
        }
        wanting
    }

    fn lag(&self) -> u64 {
        self.config.lag_us_max * crate::resources::Amount::ONE.0
    }

    /// After a grant, only its job's streams have had more.
    fn rank_again(&self, job: JobId, ranked: &mut [(Rank, Stream)]) {
        for (rank, stream) in ranked.iter_mut().filter(|(_, stream)| stream.job == job) {
            *rank = self.used(*stream);
        }
    }

    /// How much the job, its class and the stream have had; ties go by number.
    fn used(&self, stream: Stream) -> Rank {
        let job = &self.jobs[&stream.job];
        let lane = &job.lanes[&stream.class];
        let source = match stream.source {
            Source::Items => &lane.items_share,
            Source::Queue(queue) => &self.queues[&queue].share,
        };
        let now = self.now;
        (job.share.used(now), stream.job, lane.share.used(now), stream.class, source.used(now), stream.source)
    }

    fn wants(&self, stream: Stream) -> u32 {
        let Some(lane) = self.jobs[&stream.job].lanes.get(&stream.class) else { return 0 };
        match stream.source {
            Source::Items => lane.items.len().try_into().unwrap_or(u32::MAX),
            Source::Queue(queue) => self.queues[&queue].lacks(),
        }
    }

    fn first_item(&self, stream: Stream) -> Option<Item> {
        match stream.source {
            Source::Items => self.jobs[&stream.job].lanes[&stream.class].items.values().next().copied(),
            Source::Queue(_) => None,
        }
    }

    fn offer(&mut self, stream: Stream, round: &mut Round, effects: &mut Vec<Effect>) -> Outcome {
        let spec = self.classes.class(stream.class).spec.clone();
        if self.is_held_back(&spec, round) {
            return Outcome::HeldBack;
        }
        let item = self.first_item(stream);
        if let Some(Item::Group(group)) = item {
            return self.offer_group(stream, group, &spec, round, effects);
        }
        let Some(account) = self.account_for(&spec) else {
            self.hold_back_for(stream, &spec, round);
            return Outcome::LacksRoom;
        };
        let Some(worker) = self.pool.idle_for(&spec) else { return Outcome::LacksWorker };
        self.assign(stream, item, worker, account, &spec, effects);
        Outcome::Granted
    }

    fn offer_group(
        &mut self,
        stream: Stream,
        id: GroupId,
        spec: &Arc<ClassSpec>,
        round: &mut Round,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some((ledger, bundles)) = self.reservation(id) else {
            self.hold_back_for(stream, spec, round);
            return Outcome::LacksRoom;
        };
        self.charge_grant(stream);
        let turn = *self.jobs[&stream.job].lanes[&stream.class].items.keys().next().expect("it has an item");
        self.group_reserved(id, ledger, bundles, effects);
        self.leave_line(stream.job, stream.class, turn);
        Outcome::Granted
    }

    fn reservation(&self, id: GroupId) -> Option<(Ledger, Vec<Bundle>)> {
        reserve(&self.ledger, &self.groups.get(&id)?.bundles)
    }

    /// Where a worker of this class has room now.
    pub(crate) fn account_for(&self, spec: &ClassSpec) -> Option<Account> {
        let Placement::Group { group, bundle } = spec.placement else {
            return self.ledger.fits(&spec.demand).then_some(Account::Machine);
        };
        let GroupState::Ready(bundles) = &self.groups.get(&group)?.state else { return None };
        let indices = bundle.map_or(0..bundles.len() as u32, |only| only..only + 1);
        let mut with_room = indices.filter(|at| bundles[*at as usize].ledger.fits(&spec.demand));
        with_room.next().map(|at| Account::Bundle(group, at))
    }

    fn assign(
        &mut self,
        stream: Stream,
        item: Option<Item>,
        worker: WorkerId,
        account: Account,
        spec: &ClassSpec,
        effects: &mut Vec<Effect>,
    ) {
        let actor = match item {
            Some(Item::Actor(actor)) => Some(actor),
            Some(Item::Task(_) | Item::Group(_)) | None => None,
        };
        let amounts = match actor {
            Some(actor) => self.actors.all[&actor].running.clone(),
            None => spec.demand.clone(),
        };
        let gpus = self.ledger_mut(account).take(&amounts);
        self.bundle_entered(account);
        let phase = self.phase_of(stream, item);
        self.occupy(worker, phase, account, Holding::new(amounts, gpus));
        self.charge_grant(stream);
        if actor.is_none() {
            self.begin_charging(stream, worker, spec);
        }
        self.carry_out(stream, phase, worker, effects);
    }

    fn phase_of(&self, stream: Stream, item: Option<Item>) -> Phase {
        match (item, stream.source) {
            (Some(Item::Task(task)), _) => Phase::Task(task),
            (Some(Item::Actor(actor)), _) => Phase::Actor(actor),
            (None, Source::Queue(queue)) => {
                Phase::Leased(Lease { queue, since: self.now, withdrawn_at: None, idle_since: None })
            }
            (Some(Item::Group(_)), _) | (None, Source::Items) => unreachable!("neither needs a worker"),
        }
    }

    fn carry_out(&mut self, stream: Stream, phase: Phase, worker: WorkerId, effects: &mut Vec<Effect>) {
        if stream.source == Source::Items {
            let items = &self.jobs[&stream.job].lanes[&stream.class].items;
            let turn = *items.keys().next().expect("it has an item");
            self.leave_line(stream.job, stream.class, turn);
        }
        match phase {
            Phase::Task(task) => self.run_task(task, worker, effects),
            Phase::Actor(actor) => self.run_actor(actor, worker, effects),
            Phase::Leased(lease) => self.grant(lease.queue, worker, effects),
            Phase::Starting | Phase::Idle { .. } => unreachable!("phase_of makes none of these"),
        }
    }

    /// A grant ends the wait, and the floors follow.
    fn charge_grant(&mut self, stream: Stream) {
        let now = self.now;
        let cost = self.classes.class(stream.class).share * self.config.grant_cost_us;
        let (job_used, _, lane_used, _, used, _) = self.used(stream);
        self.floor = self.floor.max(job_used);
        let job = self.jobs.get_mut(&stream.job).expect("it was just used");
        job.floor = job.floor.max(lane_used);
        let lane = job.lanes.get_mut(&stream.class).expect("it was just used");
        lane.floor = lane.floor.max(used);
        self.each_share(stream, |share| share.granted(now, cost));
    }

    fn begin_charging(&mut self, stream: Stream, id: WorkerId, spec: &ClassSpec) {
        let (now, rate) = (self.now, self.classes.class(stream.class).share);
        self.each_share(stream, |share| share.begin(now, rate));
        self.lane_mut(stream.job, stream.class).charged += 1;
        let worker = self.pool.worker_mut(id);
        worker.charge = Some((stream, rate));
        worker.calls_max = spec.calls_max;
        worker.is_dedicated = spec.has_own_workers();
    }

    fn is_held_back(&self, spec: &ClassSpec, round: &Round) -> bool {
        let is_on_machine = spec.placement == Placement::Machine;
        is_on_machine && round.held_for.iter().any(|held| self.ledger.contends(&held.demand, &spec.demand))
    }

    fn waited(&self, stream: Stream) -> u64 {
        match stream.source {
            Source::Items => self.jobs[&stream.job].lanes[&stream.class].items_share.waited(self.now),
            Source::Queue(queue) => self.queues[&queue].share.waited(self.now),
        }
    }

    /// Says once of each that waits for long what it waits for, where no task that runs will give it back.
    fn report_stuck(&mut self, streams: &[Stream], effects: &mut Vec<Effect>) {
        for &stream in streams {
            let spec = self.classes.class(stream.class).spec.clone();
            let is_long = spec.placement == Placement::Machine && self.waited(stream) >= self.config.stuck_us;
            if !is_long || self.would_fit(stream, &spec) || !self.say_long(stream) {
                continue;
            }
            let request = match (self.first_item(stream), stream.source) {
                (Some(Item::Task(task)), _) => Request::Task(task),
                (Some(Item::Actor(actor)), _) => Request::Actor(actor),
                (Some(Item::Group(group)), _) => Request::Group(group),
                (None, Source::Queue(queue)) => Request::Queue(queue),
                (None, Source::Items) => continue,
            };
            let (mut free, capacity) = (self.ledger.capacity().clone(), self.ledger.capacity().clone());
            free.subtract(self.ledger.taken());
            effects.push(Effect::Stuck { request, wanted: spec.demand.clone(), free, capacity });
        }
    }

    fn say_long(&mut self, stream: Stream) -> bool {
        match stream.source {
            Source::Items => self.lane_mut(stream.job, stream.class).items_share.say(),
            Source::Queue(queue) => self.queues.get_mut(&queue).is_some_and(|queue| queue.share.say()),
        }
    }

    /// Holds back what this stream lacks, if it has waited for long and waiting helps.
    fn hold_back_for(&self, stream: Stream, spec: &Arc<ClassSpec>, round: &mut Round) {
        let waited = self.waited(stream);
        let (overtake, hold) = (self.config.overtake_us, self.config.hold_back_us);
        let is_phase = waited % (overtake + hold).max(1) >= overtake;
        if is_phase && spec.placement == Placement::Machine && self.would_fit(stream, spec) {
            round.held_for.push(spec.clone());
        }
    }

    /// Whether the ends of what runs now would make room.
    fn would_fit(&self, stream: Stream, spec: &ClassSpec) -> bool {
        let mut ledger = self.ledger.clone();
        for worker in self.pool.workers.values().filter(|worker| worker.is_passing()) {
            if let Some((Account::Machine, holding)) = &worker.held {
                holding.clone().give_back(&mut ledger);
            }
        }
        match self.first_item(stream) {
            Some(Item::Group(group)) => reserve(&ledger, &self.groups[&group].bundles).is_some(),
            Some(Item::Task(_) | Item::Actor(_)) | None => ledger.fits(&spec.demand),
        }
    }

    /// Has workers forked: as many as there is room to run, at least one where there is none. Those
    /// ahead of demand come last, or near the cap they would take the places that somebody waits for.
    fn fork_for(&mut self, round: &Round, effects: &mut Vec<Effect>) {
        for (env, count) in self.needed(round) {
            self.start_workers(env, count, effects);
        }
        if round.lack_worker.is_empty() || self.room_for_workers() > self.config.starting_max {
            self.fork_ahead(effects);
        }
        if let Some(stream) = round.lack_worker.first()
            && self.room_for_workers() == 0
        {
            let env = self.classes.class(stream.class).spec.env;
            self.evict_idle(env, effects);
        }
    }

    fn fork_ahead(&mut self, effects: &mut Vec<Effect>) {
        let used = self.pool.envs.iter().filter(|(_, env)| env.drivers > 0);
        let missing = used.map(|(id, env)| (*id, self.config.prestart.saturating_sub(env.idle.len() as u32)));
        for (env, count) in missing.filter(|(_, count)| *count > 0).collect::<Vec<_>>() {
            self.start_workers(env, count, effects);
        }
    }

    /// How many workers each environment could use, in the order in which streams lack them.
    fn needed(&self, round: &Round) -> Vec<(EnvId, u32)> {
        let mut needed: Vec<(EnvId, u32)> = Vec::new();
        let mut shadows = BTreeMap::new();
        for stream in &round.lack_worker {
            let env = self.classes.class(stream.class).spec.env;
            let at = needed.iter().position(|(known, _)| *known == env).unwrap_or_else(|| {
                needed.push((env, 0));
                needed.len() - 1
            });
            let count = needed[at].1 + self.runnable(*stream, &mut shadows);
            needed[at].1 = count.max(1);
        }
        needed
    }

    /// How many of a stream's requests there is room for; takes it from the shadows.
    fn runnable(&self, stream: Stream, shadows: &mut BTreeMap<Account, Ledger>) -> u32 {
        let spec = &self.classes.class(stream.class).spec;
        let Some(account) = self.account_for(spec) else { return 0 };
        let shadow = shadows.entry(account).or_insert_with(|| self.ledger(account).clone());
        let wanted = self.wants(stream).min(self.config.starting_max);
        let mut count = 0;
        while count < wanted && shadow.fits(&spec.demand) {
            shadow.take(&spec.demand);
            count += 1;
        }
        count
    }

    /// Takes leases from those that had more than their share, for those that went away with nothing.
    fn withdraw_for(&mut self, round: &Round, effects: &mut Vec<Effect>) {
        let starved = round.lack_room.iter().chain(&round.lack_worker).copied().collect::<Vec<_>>();
        if starved.is_empty() || !self.pool.workers.values().any(|worker| self.is_due(worker)) {
            return;
        }
        let mut coming = self.coming();
        for stream in starved {
            self.withdraw_until_it_fits(stream, &mut coming, effects);
        }
    }

    /// Whether the worker's lease can be withdrawn, and its queue is empty or has had it for a slice:
    /// so each lease gets something done.
    fn is_due(&self, worker: &Worker) -> bool {
        let Phase::Leased(lease) = &worker.phase else { return false };
        let is_slice_over = self.now.since(lease.since) >= self.config.lease_slice_us;
        worker.is_withdrawable() && (is_slice_over || lease.idle_since.is_some())
    }

    /// What will be free when all that was asked to go is gone.
    fn coming(&self) -> Coming {
        let mut coming =
            Coming { machine: self.ledger.clone(), bundles: BTreeMap::new(), workers: self.room_for_workers() };
        for worker in self.pool.workers.values() {
            let is_leaving = worker.is_stopping || self.is_letting_go(worker);
            if is_leaving && !worker.is_blocked {
                self.comes_back(worker, &mut coming);
            }
            coming.workers += u32::from(worker.phase == Phase::Starting);
        }
        coming
    }

    /// Asked to let go, and not long ago: one that is in a long call, or stopped, is not waited for
    /// while another lease may come sooner.
    fn is_letting_go(&self, worker: &Worker) -> bool {
        let Phase::Leased(lease) = &worker.phase else { return false };
        lease.withdrawn_at.is_some_and(|at| self.now.since(at) < self.config.withdraw_patience_us)
    }

    fn comes_back(&self, worker: &Worker, coming: &mut Coming) {
        coming.workers += 1;
        if let Some((account, holding)) = &worker.held {
            holding.clone().give_back(coming.ledger(*account, self));
        }
    }

    /// Only if it then fits: a lease taken for somebody who lacks something else is taken for nothing.
    fn withdraw_until_it_fits(&mut self, stream: Stream, coming: &mut Coming, effects: &mut Vec<Effect>) {
        let spec = self.classes.class(stream.class).spec.clone();
        if let Some(account) = coming.room_for(&spec, self) {
            coming.take(account, &spec, self);
            return;
        }
        if self.victim(stream, &spec, &[]).is_none() {
            return;
        }
        let mut then = coming.clone();
        let mut victims = Vec::new();
        let account = loop {
            if let Some(account) = then.room_for(&spec, self) {
                break account;
            }
            let Some(victim) = self.victim(stream, &spec, &victims) else { return };
            self.comes_back(self.pool.worker(victim), &mut then);
            victims.push(victim);
        };
        then.take(account, &spec, self);
        *coming = then;
        for victim in victims {
            self.withdraw(victim, effects);
        }
    }

    /// The lease to take for `stream`: an idle one, else one of the job with the most use.
    fn victim(&self, stream: Stream, spec: &ClassSpec, chosen: &[WorkerId]) -> Option<WorkerId> {
        let is_short = |ledger: &Ledger, worker: &Worker| {
            let held = &worker.held.as_ref().expect("a leased worker holds something").1;
            ledger.fits(&spec.demand) || ledger.contends(&spec.demand, &held.amounts)
        };
        let mut best = None;
        for (id, worker) in self.pool.workers.iter().filter(|(_, worker)| self.is_due(worker)) {
            let (Phase::Leased(lease), Some((lessee, rate))) = (&worker.phase, worker.charge) else { continue };
            let account = worker.held.as_ref().expect("a leased worker holds something").0;
            let is_idle = lease.idle_since.is_some();
            let is_fair = lessee != stream && (is_idle || self.had_more(lessee, rate, stream));
            let is_other = is_fair && !chosen.contains(id);
            if is_other && account.may_serve(spec.placement) && is_short(self.ledger(account), worker) {
                best = best.max(Some((is_idle, self.used(lessee).0, *id)));
            }
        }
        best.map(|(_, _, id)| id)
    }

    /// Whether the lessee has had a slice more than who waits, where their ways part.
    fn had_more(&self, lessee: Stream, rate: u64, waiting: Stream) -> bool {
        let slice = rate * self.config.lease_slice_us;
        let (job, job_id, lane, class, source, _) = self.used(lessee);
        let (other_job, other_job_id, other_lane, other_class, other_source, _) = self.used(waiting);
        let (had, other) = match (job_id == other_job_id, class == other_class) {
            (false, _) => (job, other_job),
            (true, false) => (lane, other_lane),
            (true, true) => (source, other_source),
        };
        had >= other.saturating_add(slice)
    }

    /// At the cap, with nobody running who could end: who needs another worker never gets it.
    fn refuse_at_cap(&mut self, round: &Round, effects: &mut Vec<Effect>) {
        if round.lack_worker.is_empty() || !self.is_stuck_at_cap() {
            self.stuck_since = None;
            return;
        }
        let since = *self.stuck_since.get_or_insert(self.now);
        if self.now.since(since) >= self.config.cap_patience_us {
            self.stuck_since = None;
            let refusal = self.cap_refusal();
            for stream in &round.lack_worker {
                self.refuse_first(*stream, refusal, effects);
            }
        }
    }

    fn is_stuck_at_cap(&self) -> bool {
        let is_stuck = |worker: &Worker| match worker.phase {
            Phase::Starting => false,
            Phase::Idle { .. } => false,
            Phase::Task(_) | Phase::Leased(_) => worker.is_blocked && !worker.is_stopping,
            Phase::Actor(_) => !worker.is_stopping,
        };
        self.room_for_workers() == 0 && self.pool.workers.values().all(is_stuck)
    }

    fn cap_refusal(&self) -> Refusal {
        let count =
            |is: &dyn Fn(&Worker) -> bool| self.pool.workers.values().filter(|worker| is(worker)).count() as u32;
        Refusal::WorkerCapReached {
            workers: self.pool.workers.len() as u32,
            blocked: count(&|worker| worker.is_blocked),
            actors: count(&|worker| matches!(worker.phase, Phase::Actor(_))),
            limit: self.config.workers_max,
        }
    }

    /// Refuses a stream's first request; a queue only if nobody serves it.
    fn refuse_first(&mut self, stream: Stream, refusal: Refusal, effects: &mut Vec<Effect>) {
        match (stream.source, self.first_item(stream)) {
            (Source::Items, Some(item)) => self.refuse_item(item, refusal, effects),
            (Source::Items, None) => {}
            (Source::Queue(queue), _) => self.refuse_queue(queue, refusal, effects),
        }
    }

    fn refuse_item(&mut self, item: Item, refusal: Refusal, effects: &mut Vec<Effect>) {
        match item {
            Item::Task(task) => self.doom_task(task, TaskEnd::Refused(refusal), None, effects),
            Item::Actor(actor) => self.end_actor(actor, DeathCause::Refused(refusal), KillReason::Actor, effects),
            Item::Group(_) => {}
        }
    }

    fn refuse_queue(&mut self, queue: QueueId, refusal: Refusal, effects: &mut Vec<Effect>) {
        if self.queues[&queue].serving == 0 {
            self.end_queue(queue, TaskEnd::Refused(refusal), None, effects);
        }
    }

    /// Refuses all that waits for workers of an environment.
    pub(crate) fn refuse_env(&mut self, env: EnvId, refusal: Refusal, effects: &mut Vec<Effect>) {
        for stream in self.wanting() {
            if self.classes.class(stream.class).spec.env != env {
                continue;
            }
            match stream.source {
                Source::Items => {
                    let items = &self.jobs[&stream.job].lanes[&stream.class].items;
                    for item in items.values().copied().collect::<Vec<_>>() {
                        self.refuse_item(item, refusal, effects);
                    }
                }
                Source::Queue(queue) => self.refuse_queue(queue, refusal, effects),
            }
        }
    }

    /// When the core wants to be asked again although nothing happened.
    pub fn next_deadline(&self) -> Option<Time> {
        self.pool_deadline().into_iter().chain(self.retry_at).min()
    }

    /// Whether somebody could be given something: after a step, nobody (N9).
    pub(crate) fn is_somebody_overlooked(&mut self) -> bool {
        let wanting = self.wanting();
        let could_run = |node: &Self, stream: &Stream| {
            let spec = &node.classes.class(stream.class).spec;
            match node.first_item(*stream) {
                Some(Item::Group(group)) => node.reservation(group).is_some(),
                Some(Item::Task(_) | Item::Actor(_)) | None => {
                    node.account_for(spec).is_some() && node.pool.idle_for(spec).is_some()
                }
            }
        };
        let is_overlooked = !self.is_holding_back && wanting.iter().any(|stream| could_run(self, stream));
        self.wanting_buffer = wanting;
        is_overlooked
    }
}

/// What will be free, as far as it is on its way.
#[derive(Clone)]
struct Coming {
    machine: Ledger,
    bundles: BTreeMap<Account, Ledger>,
    workers: u32,
}

impl Coming {
    fn ledger(&mut self, account: Account, node: &Node) -> &mut Ledger {
        match account {
            Account::Machine => &mut self.machine,
            Account::Bundle(..) => self.bundles.entry(account).or_insert_with(|| node.ledger(account).clone()),
        }
    }

    fn take(&mut self, account: Account, spec: &ClassSpec, node: &Node) {
        self.ledger(account, node).take(&spec.demand);
        self.workers -= 1;
    }

    fn room_for(&mut self, spec: &ClassSpec, node: &Node) -> Option<Account> {
        if self.workers == 0 {
            return None;
        }
        let accounts = node.accounts_of(spec.placement);
        accounts.into_iter().find(|account| self.ledger(*account, node).fits(&spec.demand))
    }
}
