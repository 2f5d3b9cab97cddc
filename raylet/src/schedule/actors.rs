//! Actors: made, found, served, ended.
//!
//! The one thing to know: an actor is named by its anchor, an object that its handles refer to. Its
//! queues are its callers' and outlive its process: what waits in them waits for the next one. What its
//! constructor needs is held here as long as it may be made again. This file must not choose when one is
//! placed or made again: the core does.

use super::leases::{QueueRow, Serves, job_over};
use super::line::LineId;
use super::queues::Size;
use super::translate::{self, code, handle};
use super::words::{actor_died, refused};
use super::{Scheduler, Who};
use raylet_api::failure::Failure;
use raylet_api::record::{ObjectKey, RECORD_WORDS, Record};
use raylet_api::{
    ActorCreated, ActorFound, AskActor, CreateActor, DropQueue, EndWorker, FindActor, KillActor, OpenActorQueue,
    QueueOpened, RefusalCode, Refused, RunActor, ServeQueue,
};
use raylet_core::effect::{DeathCause, Refusal};
use raylet_core::event::{ActorName, ActorSpec, Event};
use raylet_core::ids::{ActorId, JobId, WorkerId};
use raylet_core::resources::GpuShare;
use std::collections::BTreeSet;
use store::ObjectRef;

/// Dead actors whose cause of death is still told.
const DEAD_COUNT_MAX: usize = 1_000;

/// An actor, for a while also a dead one.
pub(super) struct ActorRow {
    pub(super) anchor: ObjectKey,
    words: [u64; RECORD_WORDS],
    /// The key of its class.
    pub(super) class: u64,
    pub(super) job: JobId,
    /// Who asked for it and has no answer yet, under which number.
    asked: Option<(LineId, u64)>,
    /// What its constructor needs, until it is ready and is not made again.
    holds: Vec<ObjectRef>,
    /// Negative: any number.
    restarts_max: i32,
    restarts: u32,
    /// The anchor of one that outlives its handles.
    _anchor: Option<ObjectRef>,
    concurrency_max: u32,
    /// What all its callers ring.
    bell: u32,
    /// Its callers' queues.
    queues: BTreeSet<u64>,
    pub(super) worker: Option<WorkerId>,
    /// What its constructor said when it failed.
    why: Option<Failure>,
    /// How its last process ended.
    pub(super) how: Option<String>,
    death: Option<Failure>,
}

impl ActorRow {
    /// Its end is its last one.
    fn is_made_for_good(&self) -> bool {
        u32::try_from(self.restarts_max).is_ok_and(|most| self.restarts >= most)
    }
}

type Refusing = (RefusalCode, String);

impl Scheduler {
    pub(super) fn on_create_actor(&mut self, line: LineId, wish: CreateActor) {
        let request = wish.request;
        match self.add_actor(line, wish) {
            Ok((actor, spec)) => {
                self.step(Event::CreateActor(spec));
                self.answer_created(actor);
            }
            Err((code, text)) => self.send(line, Refused { request, code, text }),
        }
    }

    fn add_actor(&mut self, line: LineId, wish: CreateActor) -> Result<(ActorId, ActorSpec), Refusing> {
        let record = Record::unpack(&wish.words).map_err(|error| (RefusalCode::Other, error.to_string()))?;
        let (job, caller, env) = self.asker(line).ok_or_else(job_over)?;
        let class = self.class_of(&wish.class, env)?;
        let gone = || (RefusalCode::Other, "the arguments of its constructor are gone".to_owned());
        let holds = self.hold_all(&record, &wish.waits_for).ok_or_else(gone)?;
        let anchor = wish.is_detached.then(|| self.store.refer(handle(wish.anchor))).flatten();
        let bell = self.segment.take_bell().map_err(|error| (RefusalCode::TooMany, error.to_string()))?;
        let actor = ActorId(self.next_actor);
        self.next_actor += 1;
        let row = ActorRow {
            anchor: wish.anchor,
            words: wish.words,
            class: record.key,
            job,
            asked: Some((line, wish.request)),
            holds,
            restarts_max: wish.restarts_max,
            restarts: 0,
            _anchor: anchor,
            concurrency_max: wish.concurrency_max,
            bell,
            queues: BTreeSet::new(),
            worker: None,
            why: None,
            how: None,
            death: None,
        };
        self.actors.insert(actor, row);
        self.by_anchor.insert(wish.anchor, actor);
        let name = wish.name.map(|name| ActorName { namespace: wish.namespace, name });
        let spec = ActorSpec {
            actor,
            job,
            caller,
            class,
            running: translate::resources(&wish.running),
            restarts_max: wish.restarts_max,
            name,
            get_if_exists: wish.get_if_exists,
            is_detached: wish.is_detached,
            waits_for: self.await_all(&wish.waits_for),
        };
        Ok((actor, spec))
    }

    /// Nothing was said against it.
    fn answer_created(&mut self, actor: ActorId) {
        let Some(row) = self.actors.get_mut(&actor) else { return };
        let anchor = row.anchor;
        if let Some((line, request)) = row.asked.take() {
            self.send(line, ActorCreated { request, anchor });
        }
    }

    pub(super) fn actor_refused(&mut self, actor: ActorId, refusal: &Refusal) {
        let Some(row) = self.forget_actor(actor) else { return };
        if let Some((line, request)) = row.asked {
            let text = refused(refusal, self.trouble_of_job(row.job).as_deref());
            self.send(line, Refused { request, code: code(refusal), text });
        }
    }

    pub(super) fn actor_exists(&mut self, actor: ActorId, existing: ActorId) {
        let Some(row) = self.forget_actor(actor) else { return };
        let found = self.actors.get(&existing).map(|row| row.anchor);
        if let (Some((line, request)), Some(anchor)) = (row.asked, found) {
            self.send(line, ActorCreated { request, anchor });
        }
    }

    fn forget_actor(&mut self, actor: ActorId) -> Option<ActorRow> {
        let row = self.actors.remove(&actor)?;
        if self.by_anchor.get(&row.anchor) == Some(&actor) {
            self.by_anchor.remove(&row.anchor);
        }
        self.segment.give_bell(row.bell);
        Some(row)
    }

    pub(super) fn run_actor(&mut self, actor: ActorId, worker: WorkerId, restarts: u32, shares: &[GpuShare]) {
        let gpus = translate::gpus(shares, &self.gpu_names);
        let Some(row) = self.actors.get_mut(&actor) else { return };
        (row.worker, row.restarts) = (Some(worker), restarts);
        let mut queues = Vec::new();
        for &number in &row.queues {
            if let Some(queue) = self.queues.get_mut(&number) {
                queue.lookers.insert(worker);
                queue.is_dropped = false;
                queues.push((number, queue.offset));
            }
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.actor = Some(actor);
            worker.runs = Some(row.class);
            worker.serves.extend(queues.iter().map(|(number, _)| *number));
        }
        let (anchor, words, concurrency_max, bell) = (row.anchor, row.words, row.concurrency_max, row.bell);
        self.send_worker(worker, RunActor { anchor, restarts, words, concurrency_max, bell, queues, gpus });
    }

    pub(super) fn on_open_actor_queue(&mut self, line: LineId, wish: &OpenActorQueue) {
        match self.open_actor_queue(line, wish.anchor) {
            Ok((queue, offset)) => self.send(line, QueueOpened { request: wish.request, queue, offset }),
            Err((code, text)) => self.send(line, Refused { request: wish.request, code, text }),
        }
    }

    fn open_actor_queue(&mut self, line: LineId, anchor: ObjectKey) -> Result<(u64, u64), Refusing> {
        let unknown = || (RefusalCode::NoSuchActor, "the actor is not known, or dead for long".to_owned());
        let actor = *self.by_anchor.get(&anchor).ok_or_else(unknown)?;
        let row = self.actors.get(&actor).ok_or_else(unknown)?;
        if let Some(death) = &row.death {
            return Err((RefusalCode::NoSuchActor, death.message.clone()));
        }
        if let Some(open) = self.queue_to(line, row) {
            return Ok(open);
        }
        let (job, caller, _) = self.asker(line).ok_or_else(job_over)?;
        let (bell, worker) = (row.bell, row.worker);
        let place = self.make_queue(line, Size::Actor, bell)?;
        let offset = place.offset;
        let queue = self.add_queue(line, job, caller, place, bell, Serves::Actor(actor));
        if let Some(row) = self.actors.get_mut(&actor) {
            row.queues.insert(queue);
        }
        if let Some(worker) = worker {
            self.serve_queue(worker, queue, offset);
        }
        Ok((queue, offset))
    }

    /// The caller's queue to this actor, if it has one.
    fn queue_to(&self, line: LineId, row: &ActorRow) -> Option<(u64, u64)> {
        let own = |number: &&u64| self.queues.get(number).is_some_and(|queue| queue.line == line && !queue.is_closed);
        let number = row.queues.iter().find(own)?;
        Some((*number, self.queues[number].offset))
    }

    fn serve_queue(&mut self, worker: WorkerId, queue: u64, offset: u64) {
        if let Some(row) = self.workers.get_mut(&worker) {
            row.serves.insert(queue);
        }
        if let Some(row) = self.queues.get_mut(&queue) {
            row.lookers.insert(worker);
        }
        self.send_worker(worker, ServeQueue { queue, offset });
    }

    /// What is left to do for a caller's queue that it submits into no more.
    pub(super) fn settle_actor_queue(&mut self, number: u64) {
        let Some(row) = self.queues.get(&number) else { return };
        if row.lookers.is_empty() && (row.end.is_some() || !row.has_queued()) {
            return self.remove_actor_queue(number);
        }
        if row.is_dropped || row.end.is_some() || row.has_queued() || self.is_claimed(row) {
            return;
        }
        let worker = row.actor().and_then(|actor| self.actors.get(&actor)?.worker);
        if let (Some(worker), Some(row)) = (worker, self.queues.get_mut(&number)) {
            row.is_dropped = true;
            self.send_worker(worker, DropQueue { queue: number });
        }
    }

    fn is_claimed(&self, row: &QueueRow) -> bool {
        let clients = row.lookers.iter().filter_map(|worker| self.client_of(*worker));
        clients.into_iter().any(|client| row.queue.claimed_by(client.number).next().is_some())
    }

    fn remove_actor_queue(&mut self, number: u64) {
        let actor = self.queues.get(&number).and_then(QueueRow::actor);
        if let Some(row) = actor.and_then(|actor| self.actors.get_mut(&actor)) {
            row.queues.remove(&number);
        }
        self.remove_queue(number);
    }

    pub(super) fn on_queue_dropped(&mut self, line: LineId, number: u64) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        if let Some(row) = self.workers.get_mut(&worker) {
            row.serves.remove(&number);
        }
        if let Some(row) = self.queues.get_mut(&number) {
            row.lookers.remove(&worker);
        }
        self.settle(number);
    }

    /// The actor that this line's worker is.
    fn actor_of(&self, line: LineId) -> Option<(ActorId, WorkerId)> {
        let Some(Who::Worker(worker)) = self.who(line) else { return None };
        Some((self.workers.get(&worker)?.actor?, worker))
    }

    pub(super) fn on_actor_ready(&mut self, line: LineId) {
        let Some((actor, worker)) = self.actor_of(line) else { return };
        if let Some(row) = self.actors.get_mut(&actor).filter(|row| row.is_made_for_good()) {
            row.holds.clear();
        }
        self.step(Event::ActorReady { actor, worker });
    }

    pub(super) fn on_actor_failed(&mut self, line: LineId, error: &[u8]) {
        let Some((actor, worker)) = self.actor_of(line) else { return };
        if let Some(row) = self.actors.get_mut(&actor) {
            row.why = Some(Failure::from_bytes(error));
        }
        self.step(Event::ActorFailed { actor, worker });
    }

    pub(super) fn on_actor_exited(&mut self, line: LineId) {
        if let Some((actor, worker)) = self.actor_of(line) {
            self.step(Event::ActorExited { actor, worker });
        }
    }

    pub(super) fn actor_restarting(&mut self, actor: ActorId) {
        self.counters.actor_restarts += 1;
        if let Some(row) = self.actors.get_mut(&actor) {
            row.worker = None;
        }
    }

    pub(super) fn end_actor(&mut self, actor: ActorId, worker: WorkerId) {
        if self.actors.contains_key(&actor) {
            self.send_worker(worker, EndWorker {});
        }
    }

    /// It takes no calls, ever: those that wait fail, and those that come are told why.
    pub(super) fn actor_dead(&mut self, actor: ActorId, cause: &DeathCause) {
        let Some(row) = self.actors.get(&actor) else { return };
        let how = match cause {
            DeathCause::Refused(_) => self.trouble_of_job(row.job),
            _ => row.how.clone(),
        };
        let failure = actor_died(&self.name_of(row.class), cause, row.why.as_ref(), how.as_deref());
        let Some(row) = self.actors.get_mut(&actor) else { return };
        row.worker = None;
        row.death = Some(failure.clone());
        (row.holds, row._anchor) = (Vec::new(), None);
        let queues: Vec<u64> = row.queues.iter().copied().collect();
        self.touched_queues.extend(&queues);
        queues.into_iter().for_each(|queue| self.end_queue(queue, failure.clone()));
        self.dead_actors.push_back(actor);
        self.forget_the_long_dead();
    }

    /// The oldest without callers go.
    fn forget_the_long_dead(&mut self) {
        while self.dead_actors.len() > DEAD_COUNT_MAX {
            let Some(oldest) = self.dead_actors.pop_front() else { return };
            match self.actors.get(&oldest).is_some_and(|row| row.queues.is_empty()) {
                true => drop(self.forget_actor(oldest)),
                false => return self.dead_actors.push_front(oldest),
            }
        }
    }

    pub(super) fn on_kill_actor(&mut self, wish: &KillActor) {
        if let Some(&actor) = self.by_anchor.get(&wish.anchor) {
            self.step(Event::KillActor { actor, no_restart: wish.no_restart });
        }
    }

    pub(super) fn on_find_actor(&mut self, line: LineId, wish: FindActor) {
        let name = ActorName { namespace: wish.namespace, name: wish.name };
        let found = self.node.actor_named(&name).and_then(|actor| self.actors.get(&actor));
        // One that ends has its name to the end, and no handle can be had of it any more.
        let anchor = found.map(|row| row.anchor).filter(|&anchor| self.store.refer(handle(anchor)).is_some());
        self.send(line, ActorFound { request: wish.request, anchor, death: None });
    }

    pub(super) fn on_ask_actor(&mut self, line: LineId, wish: &AskActor) {
        let row = self.by_anchor.get(&wish.anchor).and_then(|actor| self.actors.get(actor));
        let death = row.and_then(|row| row.death.as_ref()).map(Failure::to_bytes);
        let anchor = row.filter(|row| row.death.is_none()).map(|row| row.anchor);
        self.send(line, ActorFound { request: wish.request, anchor, death });
    }

    /// Somebody let go of a handle.
    pub(super) fn look_at_handles(&mut self, anchor: ObjectKey) {
        let Some(&actor) = self.by_anchor.get(&anchor) else { return };
        if self.store.refer(handle(anchor)).is_none() {
            self.step(Event::ActorHandlesGone { actor });
        }
    }

    /// Whether actors or their queues need a look now and then.
    pub(super) fn has_actors(&self) -> bool {
        self.actors.len() > self.dead_actors.len() || !self.closed_queues.is_empty()
    }

    /// Looks for actors that nobody can call any more, and for queues that have run empty.
    pub(super) fn look_at_actors(&mut self) {
        let living = self.actors.values().filter(|row| row.death.is_none());
        let anchors: Vec<ObjectKey> = living.map(|row| row.anchor).collect();
        anchors.into_iter().for_each(|anchor| self.look_at_handles(anchor));
        self.touched_queues.extend(&self.closed_queues);
    }
}
