//! Leases: which workers serve which direct caller's queue.
//!
//! The one thing to know: the core never sees a record. A caller says how many workers it wants, a
//! worker says when it found nothing; in between both do without the raylet. So `backlog` is an
//! old rumour: it decides only whether another worker is worth granting, and where it may be wrong
//! in the dangerous direction (somebody blocked or died) it is taken to be at least one.
//! This file must not choose who gets a worker or loses one: dispatch does.

use crate::effect::{Effect, KillReason, Refusal, Request, TaskEnd};
use crate::event::{LeaseRequest, StillWanted};
use crate::fair::Share;
use crate::ids::{Caller, ClassId, JobId, QueueId, WorkerId};
use crate::node::Node;
use crate::pool::Phase;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueState {
    /// Its caller lives.
    Open,
    /// Its caller is gone, but others want what is in it: served until it is empty.
    Orphan,
    /// Its workers are to let go.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) job: JobId,
    pub(crate) caller: Caller,
    pub(crate) class: ClassId,
    pub(crate) wanted: u32,
    pub(crate) backlog: u32,
    pub(crate) state: QueueState,
    pub(crate) share: Share,
    pub(crate) leases: BTreeSet<WorkerId>,
    /// Leases whose workers are neither blocked nor dying. One that was asked to let go counts until it
    /// has: otherwise its queue would at once be given what was taken from it for somebody else.
    pub(crate) serving: u32,
}

impl Queue {
    fn new(request: &LeaseRequest, class: ClassId) -> Self {
        Self {
            job: request.job,
            caller: request.caller,
            class,
            wanted: request.wanted,
            backlog: request.backlog,
            state: QueueState::Open,
            share: Share::default(),
            leases: BTreeSet::new(),
            serving: 0,
        }
    }

    /// How many more workers it could use.
    pub(crate) fn lacks(&self) -> u32 {
        let is_served = self.state == QueueState::Closed || self.backlog == 0;
        if is_served { 0 } else { self.wanted.saturating_sub(self.serving) }
    }
}

impl Node {
    /// Whether the queue is known: served, or its workers have not all let go.
    pub fn has_queue(&self, id: QueueId) -> bool {
        self.queues.contains_key(&id)
    }

    pub(crate) fn on_lease_wanted(&mut self, request: LeaseRequest, effects: &mut Vec<Effect>) {
        let outcome = match self.queues.contains_key(&request.queue) {
            true => self.lease_wanted_again(&request),
            false => self.lease_wanted_first(&request, effects),
        };
        if let Err(refusal) = outcome {
            effects.push(Effect::Refuse { request: Request::Queue(request.queue), refusal });
        }
    }

    fn lease_wanted_again(&mut self, request: &LeaseRequest) -> Result<(), Refusal> {
        let queue = self.queues.get_mut(&request.queue).expect("it was looked up");
        let spec = &self.classes.class(queue.class).spec;
        let is_same = queue.job == request.job && queue.caller == request.caller && **spec == request.class;
        if !is_same || queue.state != QueueState::Open {
            return Err(Refusal::OtherQueue);
        }
        queue.wanted = request.wanted;
        queue.backlog = request.backlog;
        Ok(())
    }

    fn lease_wanted_first(&mut self, request: &LeaseRequest, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        Self::below(self.queues.len(), self.config.queues_max)?;
        self.admit(request.job, request.caller, &request.class)?;
        let class = self.classes.intern(request.class.clone(), &self.ledger);
        self.queues.insert(request.queue, Queue::new(request, class));
        self.lane_mut(request.job, class).queues.insert(request.queue);
        self.part_added(request.job);
        self.caller_submitted(request.caller);
        self.report_infeasible(Request::Queue(request.queue), class, effects);
        Ok(())
    }

    /// Dispatch gives the queue a worker, which holds what it needs.
    pub(crate) fn grant(&mut self, id: QueueId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let gpus = self.pool.worker(worker).gpus();
        self.queues.get_mut(&id).expect("N5: a stream's queue is known").leases.insert(worker);
        self.count_serving(id);
        effects.push(Effect::Grant { worker, queue: id, gpus });
    }

    pub(crate) fn withdraw(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
        let now = self.now;
        let Phase::Leased(lease) = &mut self.pool.worker_mut(worker).phase else { return };
        if lease.withdrawn_at.is_some() {
            return;
        }
        lease.withdrawn_at = Some(now);
        let queue = lease.queue;
        if let Some(since) = lease.idle_since.take() {
            self.pool.idle_leases.remove(&(since, worker));
        }
        self.count_serving(queue);
        effects.push(Effect::Withdraw { worker, queue });
    }

    pub(crate) fn on_lease_idle(&mut self, worker: WorkerId, id: QueueId, effects: &mut Vec<Effect>) {
        if !self.serves(worker, id) {
            return;
        }
        self.set_lease_idle(worker, Some(self.now));
        let queue = self.queues.get_mut(&id).expect("N2: a leased queue is known");
        queue.backlog = 0;
        // Not all of them at once: what another has claimed may come back if it dies.
        if queue.state == QueueState::Orphan {
            self.withdraw(worker, effects);
        }
    }

    pub(crate) fn on_lease_busy(&mut self, worker: WorkerId, id: QueueId) {
        if self.serves(worker, id) {
            self.set_lease_idle(worker, None);
        }
    }

    fn set_lease_idle(&mut self, worker: WorkerId, since: Option<crate::ids::Time>) {
        let Phase::Leased(lease) = &mut self.pool.worker_mut(worker).phase else { return };
        if lease.withdrawn_at.is_some() || (lease.idle_since.is_some() && since.is_some()) {
            return;
        }
        if let Some(before) = std::mem::replace(&mut lease.idle_since, since) {
            self.pool.idle_leases.remove(&(before, worker));
        }
        if let Some(since) = since {
            self.pool.idle_leases.insert((since, worker));
        }
    }

    pub(crate) fn on_lease_returned(
        &mut self,
        worker: WorkerId,
        id: QueueId,
        calls: u32,
        backlog: u32,
        effects: &mut Vec<Effect>,
    ) {
        if !self.serves(worker, id) {
            return;
        }
        self.release_worker(worker, calls, effects);
        self.queues.get_mut(&id).expect("N2: a leased queue is known").backlog = backlog;
        self.lease_over(worker, id, effects);
    }

    /// The worker of a lease is dead. What it had claimed goes back, so there is work again.
    pub(crate) fn lease_lost(&mut self, worker: WorkerId, id: QueueId, effects: &mut Vec<Effect>) {
        effects.push(Effect::LeaseLost { worker, queue: id });
        let queue = self.queues.get_mut(&id).expect("N2: a leased queue is known");
        queue.backlog = queue.backlog.max(1);
        self.lease_over(worker, id, effects);
    }

    fn lease_over(&mut self, worker: WorkerId, id: QueueId, effects: &mut Vec<Effect>) {
        let queue = self.queues.get_mut(&id).expect("N2: a leased queue is known");
        queue.leases.remove(&worker);
        let is_done = match queue.state {
            QueueState::Open => false,
            QueueState::Orphan => queue.leases.is_empty() && queue.backlog == 0,
            QueueState::Closed => true,
        };
        self.count_serving(id);
        if is_done {
            self.close_queue(id, effects);
        }
    }

    fn serves(&self, worker: WorkerId, queue: QueueId) -> bool {
        let phase = self.pool.workers.get(&worker).map(|worker| &worker.phase);
        matches!(phase, Some(Phase::Leased(lease)) if lease.queue == queue)
    }

    pub(crate) fn count_serving(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("N2: a leased queue is known");
        let workers = queue.leases.iter().map(|worker| self.pool.worker(*worker));
        queue.serving = workers.filter(|worker| worker.is_serving()).count() as u32;
    }

    /// A worker of the queue sleeps: whoever is behind it in the queue needs another.
    pub(crate) fn lease_blocked(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("N2: a leased queue is known");
        queue.backlog = queue.backlog.max(1);
        self.count_serving(id);
    }

    /// Takes the queue's workers away, and the queue off the table once they have let go.
    pub(crate) fn close_queue(&mut self, id: QueueId, effects: &mut Vec<Effect>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.state = QueueState::Closed;
        for worker in queue.leases.iter().copied().collect::<Vec<_>>() {
            self.withdraw(worker, effects);
        }
        if self.queues[&id].leases.is_empty() {
            self.remove_queue(id, effects);
        }
    }

    fn remove_queue(&mut self, id: QueueId, effects: &mut Vec<Effect>) {
        let queue = self.queues.remove(&id).expect("it was there");
        self.lane_mut(queue.job, queue.class).queues.remove(&id);
        self.tidy_lane(queue.job, queue.class);
        self.caller_served(queue.caller);
        self.part_gone(queue.job, effects);
    }

    /// Nobody serves the queue any more; its workers are killed if there is a reason.
    pub(crate) fn end_queue(&mut self, id: QueueId, end: TaskEnd, kill: Option<KillReason>, effects: &mut Vec<Effect>) {
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.state != QueueState::Closed {
            effects.push(Effect::QueueEnded { queue: id, end });
        }
        if let Some(reason) = kill {
            for worker in queue.leases.iter().copied().collect::<Vec<_>>() {
                self.kill(worker, reason, effects);
            }
        }
        self.close_queue(id, effects);
    }

    pub(crate) fn end_queues_of(
        &mut self,
        is_over: impl Fn(&Queue) -> bool,
        wanted: &StillWanted,
        end: TaskEnd,
        kill: Option<KillReason>,
        effects: &mut Vec<Effect>,
    ) {
        let wanted = wanted.queues.iter().copied().collect::<BTreeSet<_>>();
        let over = self.queues.iter().filter(|(_, queue)| is_over(queue)).map(|(id, _)| *id);
        for id in over.collect::<Vec<_>>() {
            match wanted.contains(&id) {
                true => self.orphan_queue(id),
                false => self.end_queue(id, end, kill, effects),
            }
        }
    }

    fn orphan_queue(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("it was just listed");
        if queue.state == QueueState::Open {
            queue.state = QueueState::Orphan;
            queue.wanted = queue.wanted.max(1);
            queue.backlog = queue.backlog.max(1);
        }
    }

    /// Leases whose queue has been empty for long go back although nobody else waits.
    pub(crate) fn withdraw_idle(&mut self, effects: &mut Vec<Effect>) {
        while let Some((since, worker)) = self.pool.idle_leases.first().copied() {
            if self.now < since.after(self.config.lease_idle_us) {
                return;
            }
            self.withdraw(worker, effects);
        }
    }
}
