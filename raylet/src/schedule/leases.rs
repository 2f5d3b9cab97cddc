//! The queues of direct callers: opened, served, ended, and given back.
//!
//! The one thing to know: `service` in a queue is written here alone, *before* a worker is told to let
//! go and before anybody looks for records a last time; so of a record and a service that ends, the
//! caller or we see one. A queue's place is given out again when nobody submits into it any more and
//! no worker can look at it. This file must not choose who gets a worker: the core does.

use super::line::LineId;
use super::queues::{Place, Size};
use super::translate::{self, results};
use super::words::task_failure;
use super::{Scheduler, Who};
use raylet_api::failure::Failure;
use raylet_api::record::{RECORD_WORDS, Record};
use raylet_api::{
    ClassWish, CloseQueue, Grant, LeaseReturned, OpenQueue, QueueEnded, QueueOpened, RefusalCode, Refused, WantWorkers,
    Withdraw,
};
use raylet_core::effect::{Refusal, TaskEnd};
use raylet_core::event::{ClassSpec, Event, LeaseRequest, Placement};
use raylet_core::ids::{ActorId, Caller, EnvId, FunctionGroup, JobId, QueueId, WorkerId};
use raylet_core::resources::GpuShare;
use std::collections::{BTreeMap, BTreeSet};
use store::ObjectRef;
use store_shm::queue::{Cancel, Position, Queue, Service};

/// What claims from a queue.
#[derive(Clone, Debug)]
pub(super) enum Serves {
    /// Leased workers.
    Class(ClassSpec),
    /// An actor.
    Actor(ActorId),
}

/// A queue and who has to do with it.
pub(super) struct QueueRow {
    pub(super) queue: Queue,
    pub(super) offset: u64,
    size: Size,
    bell: u32,
    /// Who submits.
    pub(super) line: LineId,
    pub(super) job: JobId,
    pub(super) caller: Caller,
    pub(super) serves: Serves,
    /// Workers that were told to claim from it and not to let go.
    claimers: BTreeSet<WorkerId>,
    /// Workers that may still look at it.
    pub(super) lookers: BTreeSet<WorkerId>,
    /// Nobody submits into it any more.
    pub(super) is_closed: bool,
    /// A worker was asked to forget it.
    pub(super) is_dropped: bool,
    /// How its records end, if nobody serves it any more.
    pub(super) end: Option<Failure>,
    /// What the calls of a dead caller need, until they are through.
    pub(super) adopted: Vec<ObjectRef>,
    /// By the place of a record in the ring, deaths that its own word cannot count any more.
    pub(super) deaths: BTreeMap<u64, Deaths>,
}

/// How many workers have died of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deaths {
    /// Which record that was: others take its place.
    pub(super) record: Record,
    pub(super) count: u32,
}

impl QueueRow {
    /// Says how many claim from it, unless nobody ever does again.
    fn say_service(&self) {
        let service = match self.end {
            Some(_) => Service::Ended,
            None => Service::Claimers(self.claimers.len() as u32),
        };
        self.queue.set_service(service);
    }

    /// Whether something waits in it; a queue that cannot be read may have anything.
    pub(super) fn has_queued(&self) -> bool {
        self.queue.has_queued().unwrap_or(true)
    }

    pub(super) fn actor(&self) -> Option<ActorId> {
        match self.serves {
            Serves::Actor(actor) => Some(actor),
            Serves::Class(_) => None,
        }
    }

    fn is_of_class(&self) -> bool {
        matches!(self.serves, Serves::Class(_))
    }
}

impl Scheduler {
    pub(super) fn on_open_queue(&mut self, line: LineId, wish: &OpenQueue) {
        match self.open_class(line, &wish.class) {
            Ok((queue, offset)) => self.send(line, QueueOpened { request: wish.request, queue, offset }),
            Err((code, text)) => self.send(line, Refused { request: wish.request, code, text }),
        }
    }

    fn open_class(&mut self, line: LineId, wish: &ClassWish) -> Result<(u64, u64), (RefusalCode, String)> {
        let (job, caller, env) = self.asker(line).ok_or_else(job_over)?;
        let class = self.class_of(wish, env)?;
        let full = |error: super::queues::QueuesError| (RefusalCode::TooMany, error.to_string());
        let bell = self.segment.take_bell().map_err(full)?;
        let place = self.make_queue(line, Size::Class, bell).inspect_err(|_| self.segment.give_bell(bell))?;
        let offset = place.offset;
        let queue = self.add_queue(line, job, caller, place, bell, Serves::Class(class));
        Ok((queue, offset))
    }

    pub(super) fn make_queue(&mut self, line: LineId, size: Size, bell: u32) -> Result<Place, (RefusalCode, String)> {
        let owner = self.peers.get(&line).map(|peer| peer.client.number).ok_or_else(job_over)?;
        self.segment.make(size, bell, owner).map_err(|error| (RefusalCode::TooMany, error.to_string()))
    }

    pub(super) fn add_queue(
        &mut self,
        line: LineId,
        job: JobId,
        caller: Caller,
        place: Place,
        bell: u32,
        serves: Serves,
    ) -> u64 {
        let number = self.next_queue;
        self.next_queue += 1;
        let Place { queue, offset, size } = place;
        let (claimers, lookers) = (BTreeSet::new(), BTreeSet::new());
        let (is_closed, is_dropped, end, adopted) = (false, false, None, Vec::new());
        let row = QueueRow {
            queue,
            offset,
            size,
            bell,
            line,
            job,
            caller,
            serves,
            claimers,
            lookers,
            is_closed,
            is_dropped,
            end,
            adopted,
            deaths: BTreeMap::new(),
        };
        self.queues.insert(number, row);
        if let Some(peer) = self.peers.get_mut(&line) {
            peer.queues.insert(number);
        }
        number
    }

    /// A class as the core knows it.
    pub(super) fn class_of(&self, wish: &ClassWish, env: EnvId) -> Result<ClassSpec, (RefusalCode, String)> {
        let demand = translate::resources(&wish.demand);
        demand.validate().map_err(|error| (RefusalCode::BadDemand, error.to_string()))?;
        let placement = match wish.placement {
            None => Placement::Machine,
            Some(wish) => {
                let group = self.group_keys.get(&wish.group).copied().ok_or_else(no_such_group)?;
                Placement::Group { group, bundle: wish.bundle }
            }
        };
        Ok(ClassSpec { function_group: FunctionGroup(wish.group), demand, env, placement, calls_max: wish.calls_max })
    }

    pub(super) fn on_want_workers(&mut self, line: LineId, wish: &WantWorkers) {
        let Some(row) = self.own_queue(line, wish.queue) else { return };
        if row.end.is_none() && !row.is_closed {
            self.want_workers(wish.queue, wish.wanted, wish.backlog);
        }
    }

    pub(super) fn want_workers(&mut self, number: u64, wanted: u32, backlog: u32) {
        let Some(row) = self.queues.get(&number) else { return };
        // Actors are not asked for.
        let Serves::Class(class) = &row.serves else { return };
        let (queue, job, caller, class) = (QueueId(number), row.job, row.caller, class.clone());
        self.step(Event::LeaseWanted(LeaseRequest { queue, job, caller, class, wanted, backlog }));
    }

    fn own_queue(&self, line: LineId, number: u64) -> Option<&QueueRow> {
        self.queues.get(&number).filter(|row| row.line == line)
    }

    pub(super) fn on_close_queue(&mut self, line: LineId, wish: &CloseQueue) {
        if self.own_queue(line, wish.queue).is_none() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&line) {
            peer.queues.remove(&wish.queue);
        }
        self.close(wish.queue);
    }

    /// Nobody submits any more. What is in the queue still runs, by what we hold for it.
    pub(super) fn close(&mut self, number: u64) {
        let Some(row) = self.queues.get(&number) else { return };
        if row.has_queued() {
            self.adopt(number);
        }
        self.mark_closed(number);
        self.settle(number);
    }

    /// Nobody submits into the queue from now on.
    pub(super) fn mark_closed(&mut self, number: u64) {
        if let Some(row) = self.queues.get_mut(&number) {
            row.is_closed = true;
            self.closed_queues.insert(number);
        }
    }

    /// Does what is left to do for a queue that nobody submits into.
    pub(super) fn settle(&mut self, number: u64) {
        let Some(row) = self.queues.get(&number).filter(|row| row.is_closed) else { return };
        if row.actor().is_some() {
            return self.settle_actor_queue(number);
        }
        let id = QueueId(number);
        if !row.has_queued() && self.node.has_queue(id) {
            self.step(Event::QueueClosed { queue: id });
        }
        let is_free = self.queues.get(&number).is_some_and(|row| row.lookers.is_empty());
        if is_free && !self.node.has_queue(id) {
            self.remove_queue(number);
        }
    }

    /// Gives the place back: nobody looks at it any more.
    pub(super) fn remove_queue(&mut self, number: u64) {
        let Some(row) = self.queues.remove(&number) else { return };
        self.closed_queues.remove(&number);
        if row.is_of_class() {
            self.segment.give_bell(row.bell);
        }
        let (offset, size) = (row.offset, row.size);
        // Before the place is: the row maps it.
        drop(row);
        self.segment.give_back(offset, size);
    }

    pub(super) fn grant(&mut self, worker: WorkerId, queue: QueueId, shares: &[GpuShare]) {
        let Some(row) = self.queues.get_mut(&queue.0) else { return };
        row.claimers.insert(worker);
        row.lookers.insert(worker);
        let calls_max = match &row.serves {
            Serves::Class(class) => class.calls_max,
            Serves::Actor(_) => 0,
        };
        let offset = row.offset;
        let gpus = translate::gpus(shares, &self.gpu_names);
        if let Some(row) = self.workers.get_mut(&worker) {
            row.serves.insert(queue.0);
        }
        self.send_worker(worker, Grant { queue: queue.0, offset, gpus, calls_max });
        // Only now: who sees a claimer may rely on it.
        self.queues[&queue.0].say_service();
    }

    pub(super) fn withdraw(&mut self, worker: WorkerId, queue: QueueId) {
        if let Some(row) = self.queues.get_mut(&queue.0) {
            row.claimers.remove(&worker);
            row.say_service();
        }
        self.send_worker(worker, Withdraw { queue: queue.0 });
    }

    /// The worker is dead, or has let go.
    fn forget_claimer(&mut self, worker: WorkerId, number: u64) {
        if let Some(row) = self.workers.get_mut(&worker) {
            row.serves.remove(&number);
        }
        if let Some(row) = self.queues.get_mut(&number) {
            row.claimers.remove(&worker);
            row.lookers.remove(&worker);
            row.say_service();
        }
    }

    pub(super) fn lease_lost(&mut self, worker: WorkerId, queue: QueueId) {
        self.forget_claimer(worker, queue.0);
        self.touched_queues.insert(queue.0);
    }

    pub(super) fn on_lease_returned(&mut self, line: LineId, said: &LeaseReturned) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        let serves = self.workers.get(&worker).is_some_and(|row| row.serves.contains(&said.queue));
        if !serves {
            return;
        }
        self.forget_claimer(worker, said.queue);
        // The worker may have let go by itself, so the service was still as before when it looked.
        let backlog = self.queues.get(&said.queue).is_some_and(|row| said.has_queued || row.has_queued());
        let (queue, calls, backlog) = (QueueId(said.queue), said.calls, u32::from(backlog));
        self.step(Event::LeaseReturned { worker, queue, calls, backlog });
        self.settle(said.queue);
    }

    pub(super) fn on_lease_idle(&mut self, line: LineId, number: u64) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        self.step(Event::LeaseIdle { worker, queue: QueueId(number) });
        self.settle(number);
    }

    pub(super) fn on_lease_busy(&mut self, line: LineId, number: u64) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        self.step(Event::LeaseBusy { worker, queue: QueueId(number) });
    }

    /// Nobody serves the queue any more, ever. One that was refused may ask again.
    pub(super) fn queue_ended(&mut self, queue: QueueId, end: &TaskEnd) {
        let failure = task_failure("a task", end, self.trouble_of(queue.0).as_deref());
        match end {
            TaskEnd::Refused(_) => self.fail_queued(queue.0, &failure),
            _ => self.end_queue(queue.0, failure),
        }
        self.touched_queues.insert(queue.0);
    }

    /// A wish for workers was refused: what waits for them fails, what comes later may ask again.
    pub(super) fn queue_refused(&mut self, queue: QueueId, refusal: &Refusal) {
        let failure = task_failure("a task", &TaskEnd::Refused(*refusal), self.trouble_of(queue.0).as_deref());
        self.fail_queued(queue.0, &failure);
    }

    pub(super) fn end_queue(&mut self, number: u64, failure: Failure) {
        let Some(row) = self.queues.get_mut(&number) else { return };
        if row.end.is_some() {
            return;
        }
        row.end = Some(failure.clone());
        row.say_service();
        let line = row.line;
        self.fail_queued(number, &failure);
        self.send(line, QueueEnded { queue: number, error: failure.to_bytes() });
    }

    /// Cancels what is queued, and seals the failure into its results.
    pub(super) fn fail_queued(&mut self, number: u64, failure: &Failure) {
        let Some(row) = self.queues.get(&number) else { return };
        let queued: Vec<(Position, [u64; RECORD_WORDS])> =
            row.queue.queued().map(|entry| (entry.word.position, entry.payload)).collect();
        for (position, words) in queued {
            let cancelled = self.queues[&number].queue.cancel(position) == Cancel::Cancelled;
            let record = Record::unpack(&words).ok().filter(|_| cancelled);
            if let Some(record) = record {
                let failure = Failure { function: self.name_of(record.key), ..failure.clone() };
                self.seal(&results(&self.store, &record), &failure);
            }
        }
    }
}

/// Who asks is not known any more.
pub(super) fn job_over() -> (RefusalCode, String) {
    (RefusalCode::JobOver, "the asker's job is over".to_owned())
}

fn no_such_group() -> (RefusalCode, String) {
    (RefusalCode::NoSuchGroup, "there is no such placement group, or it was removed".to_owned())
}
