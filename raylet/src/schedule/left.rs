//! What the dead leave behind: their calls that are queued, under way, or with the raylet.
//!
//! The one thing to know: a call runs on if somebody outside refers to one of its results, or if what
//! runs on waits for one. A list inside a dead caller's own spec is not somebody, although the store
//! cannot tell: so those are counted here and taken off. This file must not touch what is claimed.

use super::Scheduler;
use super::line::LineId;
use super::translate::{handle, key, results};
use super::words::caller_died;
use raylet_api::record::{Body, ObjectKey, Record};
use raylet_core::event::StillWanted;
use raylet_core::ids::{QueueId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use store::{ObjectRef, Store};
use store_shm::queue::{Cancel, Position};

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
    /// Deals with what these lines' clients left behind, of which `insiders` do not count as wanting it.
    /// What runs on is told, and all the results that somebody will still make.
    pub(super) fn leave(
        &mut self,
        lines: &BTreeSet<LineId>,
        insiders: &BTreeSet<u16>,
    ) -> (StillWanted, BTreeSet<ObjectKey>) {
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
            // Who died may not have woken anybody for it; a queue that is broken shows to who claims.
            let _ = row.queue.nudge();
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

fn spec_of(record: &Record) -> Option<ObjectKey> {
    match record.body {
        Body::Spec(spec) => Some(spec),
        Body::Inline { .. } => None,
    }
}
