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

use super::leases::{Deaths, Serves};
use super::line::LineId;
use super::translate::{handle, key, results};
use super::words::{actor_unavailable, caller_died, worker_crashed};
use super::{Scheduler, Who};
use crate::guarded::AbortOnPanic;
use raylet_api::failure::Failure;
use raylet_api::record::{ObjectKey, Record};
use raylet_core::event::{Event, StillWanted};
use raylet_core::ids::{EnvId, TaskId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{ClientId, CreateOptions, Encoding, ObjectRef, Store};
use store_shm::queue::{ATTEMPT_MAX, Position};

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

/// What the cells of one stream have in common: the task part of their ids.
type StreamName = [u8; 24];

/// What becomes of the promises of a dead client.
#[derive(Default)]
struct Promises {
    /// Somebody will still make these.
    kept: BTreeSet<ObjectKey>,
    /// And these, as the task is tried again.
    kept_streams: BTreeSet<StreamName>,
    /// How these end.
    broken_streams: BTreeMap<StreamName, Vec<u8>>,
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
        let cancelled = self.workers.get_mut(&worker).map(|row| std::mem::take(&mut row.cancelled));
        cancelled.into_iter().flatten().for_each(|parent| self.cancel_children(line, parent, true));
        let mut promises = Promises::default();
        let serves: Vec<u64> = self.workers[&worker].serves.iter().copied().collect();
        let killed_for = self.workers[&worker].killed_for;
        let failed = serves.iter().flat_map(|&queue| self.take_claims(queue, client.number, killed_for, &mut promises));
        let failed: Vec<Failed> = failed.collect();
        let streams = self.streams_of(worker);
        let (wanted, kept) = self.leave(&[line].into(), &[client.number].into());
        promises.kept = kept;
        self.step(Event::WorkerDied { worker, wanted });
        failed.into_iter().for_each(|failed| self.fail(failed, worker, client.number, &mut promises));
        streams.into_iter().for_each(|stream| self.end_stream(stream, &mut promises));
        for queue in serves {
            self.stop_looking(worker, queue);
        }
        self.let_go(line, client, promises);
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
        self.let_go(line, client, Promises { kept, ..Promises::default() });
    }

    /// Its queues are in order. What is left takes a look at the whole store, on a thread beside (R2).
    fn let_go(&mut self, line: LineId, client: ClientId, promises: Promises) {
        let queues = self.peers.remove(&line).map(|peer| peer.queues).unwrap_or_default();
        let (store, gate) = (self.store.clone(), self.gate.clone());
        tokio::task::spawn_blocking(move || {
            let _guard = AbortOnPanic;
            break_promises(&store, client, &promises);
            gate.let_go(client);
            store.sweep_again();
        });
        for queue in queues {
            self.mark_closed(queue);
            self.touched_queues.insert(queue);
        }
    }

    /// Queues again what a dead worker had claimed and may be tried again; the rest is for later.
    fn take_claims(
        &mut self,
        number: u64,
        dead: u16,
        killed_for: Option<ObjectKey>,
        promises: &mut Promises,
    ) -> Vec<Failed> {
        let Some(row) = self.queues.get(&number) else { return Vec::new() };
        let (mut failed, mut deaths) = (Vec::new(), Vec::new());
        for entry in row.queue.claimed_by(dead).collect::<Vec<_>>() {
            let (position, record) = (entry.word.position, Record::unpack(&entry.payload).ok());
            if record.is_none_or(|record| self.stands(&record)) {
                row.queue.finish_for_dead(position, dead);
                continue;
            }
            // A record that moves on does so by whole laps.
            let place = position.number() % row.queue.records();
            let before = record.map(|record| deaths_before(&record, entry.word.attempt, row.deaths.get(&place)));
            let attempts = before.unwrap_or_default() + 1;
            let is_wanted = |record: &Record| killed_for != Some(record.result) && record.may_retry(attempts - 1);
            let may_retry = row.end.is_none() && record.as_ref().is_some_and(is_wanted);
            if may_retry && row.queue.requeue(position, dead) {
                self.counters.task_retries += 1;
                let is_many = attempts > u32::from(ATTEMPT_MAX);
                deaths.extend(record.filter(|_| is_many).map(|record| (place, Deaths { record, count: attempts })));
                promises.kept_streams.extend(record.and_then(|record| self.stream_of(&record)));
            } else {
                failed.push(Failed { queue: number, position, record, attempts });
            }
        }
        if let Some(row) = self.queues.get_mut(&number) {
            row.deaths.extend(deaths);
        }
        failed
    }

    /// What the cells of a stream have in common; `None` where it is none, or its first cell is gone.
    fn stream_of(&self, record: &Record) -> Option<StreamName> {
        let first = self.store.refer(handle(record.result)).filter(|_| record.is_stream)?;
        Some(first.id().task())
    }

    /// Streams that a worker was making for tasks through the raylet.
    fn streams_of(&self, worker: WorkerId) -> Vec<(TaskId, StreamName, Failure)> {
        let calls = self.calls.iter().filter(|(_, call)| call.worker == Some(worker));
        let streams = calls.filter_map(|(&task, call)| {
            let name = self.name_of(call.record.key);
            Some((task, self.stream_of(&call.record)?, worker_crashed(&name, call.attempts, call.how.as_deref())))
        });
        streams.collect()
    }

    /// A stream whose task is tried again goes on; any other ends with an error in its next cell.
    fn end_stream(&self, (task, stream, failure): (TaskId, StreamName, Failure), promises: &mut Promises) {
        match self.calls.contains_key(&task) {
            true => promises.kept_streams.extend([stream]),
            false => promises.broken_streams.extend([(stream, failure.to_bytes())]),
        }
    }

    /// Whether there is nothing left of it to do: all its results that somebody refers to have values. One
    /// of whose results nobody is left runs for what it does.
    fn stands(&self, record: &Record) -> bool {
        let results = results(&self.store, record);
        let found: Vec<ObjectRef> = results.iter().filter_map(|&result| self.store.refer(handle(result))).collect();
        !record.is_stream && !found.is_empty() && found.iter().all(ObjectRef::is_ready)
    }

    /// Ends a record that is not tried again, with the error that fits.
    fn fail(&mut self, failed: Failed, worker: WorkerId, dead: u16, promises: &mut Promises) {
        let Failed { queue, position, record, attempts } = failed;
        let Some(row) = self.queues.get(&queue) else { return };
        let how = self.workers.get(&worker).and_then(|row| row.exit).map(|exit| exit.to_string());
        if let Some(record) = record {
            let name = self.name_of(record.key);
            let failure = match (&row.end, &row.serves) {
                (Some(end), _) => Failure { function: name, ..end.clone() },
                (None, Serves::Class(_)) => worker_crashed(&name, attempts, how.as_deref()),
                (None, Serves::Actor(_)) => actor_unavailable(&name, how.as_deref()),
            };
            let stream = self.stream_of(&record);
            promises.broken_streams.extend(stream.map(|stream| (stream, failure.to_bytes())));
            self.seal_record(&record, &failure);
        }
        self.queues[&queue].queue.finish_for_dead(position, dead);
    }
}

/// Ends what the dead had promised and handed out, and nobody will make.
fn break_promises(store: &Store, client: ClientId, promises: &Promises) {
    let gone = caller_died("a task").to_bytes();
    for promise in store.promises_of(client) {
        if promises.kept.contains(&key(promise)) || !store.holders_besides(promise, client) {
            continue;
        }
        let Some(stream) = store.refer(promise).map(|promise| promise.id().task()) else { continue };
        if promises.kept_streams.contains(&stream) {
            continue;
        }
        let bytes = promises.broken_streams.get(&stream).unwrap_or(&gone);
        let options = CreateOptions { encoding: Encoding::Error, timeout: Some(ROOM_TIME), ..CreateOptions::default() };
        if let Err(error) = store.put_for(promise, bytes, &options) {
            tracing::debug!(%error, slot = promise.slot, "a promise of a dead client stays open");
        }
    }
}

/// A client as something that can be sorted.
pub(super) fn id(client: ClientId) -> (u16, u16) {
    (client.number, client.generation)
}

/// How many workers died of a record before: its word counts to [`ATTEMPT_MAX`], we count on from there.
fn deaths_before(record: &Record, attempt: u8, known: Option<&Deaths>) -> u32 {
    let known = known.filter(|known| attempt == ATTEMPT_MAX && known.record == *record);
    known.map_or(u32::from(attempt), |known| known.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind};

    #[test]
    fn deaths_are_counted_on_where_a_record_cannot() {
        let body = Body::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] };
        let record = |number| Record {
            key: 1,
            kind: Kind::Task,
            retries_errors: false,
            is_stream: false,
            results: 1,
            retries: 100,
            number,
            parent: 0,
            result: ObjectKey::default(),
            body,
        };
        let known = Deaths { record: record(1), count: 20 };
        assert_eq!(deaths_before(&record(1), 3, None), 3);
        assert_eq!(deaths_before(&record(1), ATTEMPT_MAX, None), 15);
        assert_eq!(deaths_before(&record(1), ATTEMPT_MAX, Some(&known)), 20);
        assert_eq!(deaths_before(&record(1), 3, Some(&known)), 3, "it was submitted anew");
        assert_eq!(deaths_before(&record(2), ATTEMPT_MAX, Some(&known)), 15, "another took its place");
    }
}
