//! The end of a driver or worker: what it had claimed, what it had submitted, what it had promised.
//!
//! The one thing to know: nobody of this is touched before the kernel has said that the client is dead
//! (for a worker: its whole group) and its line is read to the end; and the store sweeps it only after
//! all of this, because a claim bears its number, and its holds are what keeps the objects of its calls.
//! This file must not decide how often anything is tried again: the record says so.
//!
//! ```text
//!  gate: dead --+                      1  claims: queued again, or failed
//!  line: ended -+-> bury ------------> 2  what it submitted: taken over where others want it, else cancelled
//!  pool: group gone (a worker) --+     3  the core hears of it
//!                                      4  promises that nobody will keep get their error
//!                                      5  the gate lets go; the store sweeps
//! ```

use super::leases::Serves;
use super::line::LineId;
use super::translate::{handle, key, results};
use super::words::{actor_unavailable, caller_died, worker_crashed};
use super::{Scheduler, Who};
use crate::guarded::AbortOnPanic;
use raylet_api::record::{Body, ObjectKey, Record};
use raylet_core::event::{Event, StillWanted};
use raylet_core::ids::{EnvId, QueueId, TaskId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{ClientId, CreateOptions, Encoding, ObjectRef, Store};
use store_shm::queue::{ATTEMPT_MAX, Cancel, Position};

/// How long an error may wait for room in the store.
const ROOM_TIME: Duration = Duration::from_secs(1);
/// Workers that are gone whose last lines may still come.
const GONE_COUNT_MAX: usize = 256;

/// A record that a dead worker had claimed, and that is not tried again.
struct Failed {
    queue: u64,
    position: Position,
    record: Option<Record>,
    attempts: u32,
}

/// Where a call that somebody left behind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Queued(u64, Position),
    Claimed(u64),
    Call(TaskId),
}

/// A call that somebody left behind.
struct Left {
    stands: Stands,
    record: Record,
    results: Vec<ObjectKey>,
    /// What its spec lists.
    lists: Vec<ObjectKey>,
    is_wanted: bool,
}

impl Scheduler {
    /// The store has found a client dead, or it left.
    pub(super) fn on_dead(&mut self, client: ClientId) {
        let found = self.peers.iter_mut().find(|(_, peer)| peer.client == client);
        // Whoever was admitted says hello to us, too, if only after its death.
        let Some((&line, peer)) = found else {
            self.early_dead.insert(id(client));
            return;
        };
        peer.is_dead = true;
        peer.out.drain();
        self.bury_if_dead(line);
    }

    /// A line has ended. Where nobody had joined by it, nobody dies later either.
    pub(super) fn on_closed(&mut self, line: LineId, has_never_joined: bool) {
        self.timeline.gone(line);
        let Some(peer) = self.peers.get_mut(&line) else { return };
        peer.is_closed = true;
        peer.is_dead |= has_never_joined;
        if let (Who::Worker(worker), false) = (peer.who, peer.is_dead) {
            // It can be told nothing any more.
            self.pool.kill_worker(worker.0);
        }
        self.bury_if_dead(line);
    }

    fn bury_if_dead(&mut self, line: LineId) {
        let Some(peer) = self.peers.get(&line).filter(|peer| peer.is_dead && peer.is_closed) else { return };
        match peer.who {
            Who::Driver(env) => self.bury_driver(line, env),
            Who::Worker(worker) => self.bury_worker_if_dead(worker),
        }
    }

    pub(super) fn bury_worker_if_dead(&mut self, worker: WorkerId) {
        let Some(row) = self.workers.get(&worker).filter(|row| row.is_gone) else { return };
        match row.line {
            None => self.bury_unborn(worker),
            Some(line) if self.peers.get(&line).is_none_or(|peer| peer.is_dead && peer.is_closed) => {
                self.bury_worker(worker, line);
            }
            Some(_) => {}
        }
    }

    /// It never said hello, so it has nothing.
    fn bury_unborn(&mut self, worker: WorkerId) {
        self.step(Event::WorkerDied { worker, wanted: StillWanted::default() });
        self.forget_worker(worker);
    }

    fn bury_worker(&mut self, worker: WorkerId, line: LineId) {
        let Some(client) = self.peers.get(&line).map(|peer| peer.client) else { return };
        self.counters.worker_deaths += 1;
        self.tell_how(worker);
        let serves: Vec<u64> = self.workers[&worker].serves.iter().copied().collect();
        let failed: Vec<Failed> = serves.iter().flat_map(|&queue| self.take_claims(queue, client.number)).collect();
        let (wanted, kept) = self.leave(&[line].into(), &[client.number].into());
        self.step(Event::WorkerDied { worker, wanted });
        failed.into_iter().for_each(|failed| self.fail(failed, worker, client.number));
        for queue in serves {
            self.stop_looking(worker, queue);
        }
        self.let_go(line, client, kept);
        self.forget_worker(worker);
    }

    /// How the worker ended, for whoever reads of it.
    fn tell_how(&mut self, worker: WorkerId) {
        let Some(row) = self.workers.get(&worker) else { return };
        let how = row.exit.map(|exit| exit.to_string());
        if let Some(actor) = row.actor.and_then(|actor| self.actors.get_mut(&actor)) {
            actor.how.clone_from(&how);
        }
        for call in self.calls.values_mut().filter(|call| call.worker == Some(worker)) {
            call.how.clone_from(&how);
        }
    }

    fn stop_looking(&mut self, worker: WorkerId, queue: u64) {
        if let Some(row) = self.queues.get_mut(&queue) {
            row.lookers.remove(&worker);
            // The dead may have been woken for a record, or died over the cursor.
            if let Err(error) = row.queue.mend() {
                tracing::warn!(%error, queue, "a queue is broken");
            }
        }
        self.touched_queues.insert(queue);
    }

    fn forget_worker(&mut self, worker: WorkerId) {
        let Some(row) = self.workers.remove(&worker) else { return };
        self.worker_jobs.forget(worker.0);
        self.gone_workers.push_back((worker, row.env));
        if self.gone_workers.len() > GONE_COUNT_MAX {
            self.gone_workers.pop_front();
        }
        self.forget_env(row.env);
    }

    fn bury_driver(&mut self, line: LineId, env: EnvId) {
        let Some(client) = self.peers.get(&line).map(|peer| peer.client) else { return };
        let workers = self.workers.values().filter(|row| row.env == env).filter_map(|row| row.line);
        let lines: BTreeSet<LineId> = workers.chain([line]).collect();
        let clients = lines.iter().filter_map(|line| self.peers.get(line)).map(|peer| peer.client.number);
        let insiders = clients.collect();
        let (wanted, kept) = self.leave(&lines, &insiders);
        if let Some(job) = self.drivers.remove(&env).and_then(|driver| driver.job) {
            self.step(Event::DriverLeft { job, wanted });
        }
        self.let_go(line, client, kept);
    }

    /// Its queues are in order. What is left takes a look at the whole store, on a thread beside (R2).
    fn let_go(&mut self, line: LineId, client: ClientId, kept: BTreeSet<ObjectKey>) {
        let queues = self.peers.remove(&line).map(|peer| peer.queues).unwrap_or_default();
        let (store, gate) = (self.store.clone(), self.gate.clone());
        tokio::task::spawn_blocking(move || {
            let _guard = AbortOnPanic;
            break_promises(&store, client, &kept);
            gate.let_go(client);
            store.sweep_again();
        });
        for queue in queues {
            self.mark_closed(queue);
            self.touched_queues.insert(queue);
        }
    }

    // 1: claims

    /// Queues again what a dead worker had claimed and may be tried again; the rest is for later.
    fn take_claims(&mut self, number: u64, dead: u16) -> Vec<Failed> {
        let Some(row) = self.queues.get(&number) else { return Vec::new() };
        let mut failed = Vec::new();
        for entry in row.queue.claimed_by(dead).collect::<Vec<_>>() {
            let (position, record) = (entry.word.position, Record::unpack(&entry.payload).ok());
            if record.is_none_or(|record| self.stands(&record)) {
                row.queue.finish_for_dead(position, dead);
                continue;
            }
            let attempts = u32::from(entry.word.attempt) + 1;
            let may_retry = row.end.is_none() && record.is_some_and(|record| may_retry(&record, entry.word.attempt));
            if may_retry && row.queue.requeue(position, dead) {
                self.counters.task_retries += 1;
            } else {
                failed.push(Failed { queue: number, position, record, attempts });
            }
        }
        failed
    }

    /// Whether there is nothing left of it to do: all its results that somebody refers to have values. One
    /// of whose results nobody is left runs for what it does.
    fn stands(&self, record: &Record) -> bool {
        let results = results(&self.store, record);
        let found: Vec<ObjectRef> = results.iter().filter_map(|&result| self.store.refer(handle(result))).collect();
        !record.is_stream && !found.is_empty() && found.iter().all(ObjectRef::is_ready)
    }

    /// Ends a record that is not tried again, with the error that fits.
    fn fail(&mut self, failed: Failed, worker: WorkerId, dead: u16) {
        let Failed { queue, position, record, attempts } = failed;
        let Some(row) = self.queues.get(&queue) else { return };
        let how = self.workers.get(&worker).and_then(|row| row.exit).map(|exit| exit.to_string());
        if let Some(record) = record {
            let name = self.name_of(record.key);
            let failure = match (&row.end, &row.serves) {
                (Some(end), _) => raylet_api::Failure { function: name, ..end.clone() },
                (None, Serves::Class(_)) => worker_crashed(&name, attempts, how.as_deref()),
                (None, Serves::Actor(_)) => actor_unavailable(&name, how.as_deref()),
            };
            self.seal_record(&record, &failure);
        }
        self.queues[&queue].queue.finish_for_dead(position, dead);
    }

    // 2: submissions

    /// Deals with what these lines' clients left behind, of which `insiders` do not count as wanting it.
    /// What runs on is told, and all the results that somebody will still make.
    fn leave(&mut self, lines: &BTreeSet<LineId>, insiders: &BTreeSet<u16>) -> (StillWanted, BTreeSet<ObjectKey>) {
        let mut left = self.left_by(lines);
        self.find_wanted(&mut left, insiders);
        let (mut tasks, mut queues, mut kept) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for call in &left {
            if call.is_wanted || matches!(call.stands, Stands::Claimed(_)) {
                kept.extend(&call.results);
            }
            match call.stands {
                _ if !call.is_wanted => {}
                Stands::Call(task) => tasks.extend([task]),
                Stands::Queued(queue, _) | Stands::Claimed(queue) => queues.extend([queue]),
            }
        }
        let dead: BTreeSet<LineId> = lines.iter().copied().filter(|line| self.is_dead(*line)).collect();
        left.iter().for_each(|call| self.leave_call(call, &dead));
        // A queue whose owner never asked for workers is served all the same.
        for &queue in queues.iter().filter(|&&queue| !self.node.has_queue(QueueId(queue))).collect::<Vec<_>>() {
            self.want_workers(queue, 1, 1);
        }
        (StillWanted { tasks: tasks.into_iter().collect(), queues: queues.into_iter().map(QueueId).collect() }, kept)
    }

    fn is_dead(&self, line: LineId) -> bool {
        self.peers.get(&line).is_none_or(|peer| peer.is_dead)
    }

    /// Takes over what somebody wants, and cancels what nobody does.
    fn leave_call(&mut self, call: &Left, dead: &BTreeSet<LineId>) {
        let (Stands::Queued(number, _) | Stands::Claimed(number)) = call.stands else { return };
        let Some(row) = self.queues.get_mut(&number).filter(|row| dead.contains(&row.line)) else { return };
        if call.is_wanted {
            let spec = spec_of(&call.record).and_then(|spec| self.store.refer(handle(spec)));
            row.adopted.extend(spec);
        } else if let Stands::Queued(_, position) = call.stands
            && row.queue.cancel(position) == Cancel::Cancelled
        {
            let failure = caller_died(&self.name_of(call.record.key));
            self.seal(&call.results, &failure);
        }
    }

    /// Holds what the calls in a queue need, whose owner will not.
    pub(super) fn adopt(&mut self, number: u64) {
        let Some(row) = self.queues.get_mut(&number) else { return };
        let records = row.queue.queued().filter_map(|entry| Record::unpack(&entry.payload).ok());
        let specs: Vec<ObjectRef> = records.filter_map(|record| self.store.refer(handle(spec_of(&record)?))).collect();
        row.adopted.extend(specs);
    }

    fn left_by(&self, lines: &BTreeSet<LineId>) -> Vec<Left> {
        let mut left = Vec::new();
        for (&number, row) in self.queues.iter().filter(|(_, row)| lines.contains(&row.line)) {
            let queued = row.queue.queued().map(|entry| (Stands::Queued(number, entry.word.position), entry.payload));
            left.extend(queued.filter_map(|(stands, words)| self.left(stands, Record::unpack(&words).ok()?)));
            for client in row.lookers.iter().filter_map(|&worker| self.client_of(worker)) {
                let claimed = row.queue.claimed_by(client.number).map(|entry| entry.payload);
                left.extend(
                    claimed.filter_map(|words| self.left(Stands::Claimed(number), Record::unpack(&words).ok()?)),
                );
            }
        }
        let calls = self.calls.iter().filter(|(_, call)| lines.contains(&call.line));
        left.extend(calls.filter_map(|(&task, call)| self.left(Stands::Call(task), call.record)));
        left
    }

    fn left(&self, stands: Stands, record: Record) -> Option<Left> {
        let results = results(&self.store, &record);
        let spec = spec_of(&record).and_then(|spec| self.store.refer(handle(spec)));
        let spec = spec.and_then(|spec| self.store.get(&spec).ok());
        let lists = spec.map(|spec| spec.references().iter().map(|object| key(object.handle())).collect());
        Some(Left { stands, record, results, lists: lists.unwrap_or_default(), is_wanted: false })
    }

    /// What somebody else refers to is wanted, and what that waits for.
    fn find_wanted(&self, left: &mut [Left], insiders: &BTreeSet<u16>) {
        let mut listed: BTreeMap<ObjectKey, u64> = BTreeMap::new();
        let mut makers: BTreeMap<ObjectKey, usize> = BTreeMap::new();
        for (index, call) in left.iter().enumerate() {
            call.lists.iter().for_each(|&object| *listed.entry(object).or_default() += 1);
            makers.extend(call.results.iter().map(|&result| (result, index)));
        }
        let is_wanted = |call: &Left| {
            call.results.iter().any(|result| is_wanted(&self.store, *result, listed.get(result).copied(), insiders))
        };
        let mut found: Vec<usize> = (0..left.len()).filter(|&index| is_wanted(&left[index])).collect();
        while let Some(index) = found.pop() {
            if !std::mem::replace(&mut left[index].is_wanted, true) {
                found.extend(left[index].lists.iter().filter_map(|object| makers.get(object)));
            }
        }
    }
}

/// Whether somebody besides `insiders` and us refers to an object, or a list that is not one of `own`.
fn is_wanted(store: &Store, object: ObjectKey, own: Option<u64>, insiders: &BTreeSet<u16>) -> bool {
    let found = store.list_from(object.slot, 1);
    let Some(info) = found.first().filter(|info| key(info.handle) == object) else { return false };
    let us = store.client().number;
    let is_outside = |client: u16| client != us && !insiders.contains(&client);
    info.listed > own.unwrap_or(0) || info.holders.iter().any(|holder| is_outside(holder.client))
}

/// Ends what the dead had promised and handed out, and nobody will make.
fn break_promises(store: &Store, client: ClientId, kept: &BTreeSet<ObjectKey>) {
    let bytes = caller_died("a task").to_bytes();
    for promise in store.promises_of(client) {
        if kept.contains(&key(promise)) || !store.holders_besides(promise, client) {
            continue;
        }
        let options = CreateOptions { encoding: Encoding::Error, timeout: Some(ROOM_TIME), ..CreateOptions::default() };
        if let Err(error) = store.put_for(promise, &bytes, &options) {
            tracing::debug!(%error, slot = promise.slot, "a promise of a dead client stays open");
        }
    }
}

/// A client as something that can be sorted.
pub(super) fn id(client: ClientId) -> (u16, u16) {
    (client.number, client.generation)
}

fn spec_of(record: &Record) -> Option<ObjectKey> {
    match record.body {
        Body::Spec(spec) => Some(spec),
        Body::Inline { .. } => None,
    }
}

/// A record counts its attempts to [`ATTEMPT_MAX`] and no further: who allows more allows so many.
fn may_retry(record: &Record, attempt: u8) -> bool {
    record.may_retry(u32::from(attempt)) && (record.retries < 0 || attempt < ATTEMPT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::record::{INLINE_BYTES_MAX, Kind};

    #[test]
    fn a_record_whose_count_is_full_is_tried_again_only_without_end() {
        let body = Body::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] };
        let record = |retries| Record {
            key: 1,
            kind: Kind::Task,
            retries_errors: false,
            is_stream: false,
            results: 1,
            retries,
            number: 1,
            result: ObjectKey::default(),
            body,
        };
        assert!(may_retry(&record(-1), ATTEMPT_MAX));
        assert!(may_retry(&record(100), ATTEMPT_MAX - 1) && !may_retry(&record(100), ATTEMPT_MAX));
        assert!(may_retry(&record(1), 0) && !may_retry(&record(1), 1));
    }
}
