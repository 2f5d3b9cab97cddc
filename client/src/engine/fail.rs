//! Errors in the place of results: of calls that are cancelled, late, or that nobody will run.
//!
//! The one thing to know: the first seal wins, so an error may be sealed whatever the call is doing;
//! where its result came first, nothing happens. This file must not decide when a call fails.

use super::Shared;
use super::lane::{self, Found, Lane};
use super::line::LineError;
use super::spec::object_key;
use crate::actor::CLASSES;
use crate::remote::CancelOptions;
use crate::task::ResultRefs;
use raylet_api::message::Message;
use raylet_api::record::Record;
use raylet_api::work::{CancelTask, QueueEnded};
use raylet_api::{Failure, TaskErrorKind};
use std::sync::Arc;
use std::time::Duration;
use store::{CreateOptions, Encoding, Handle, ObjectRef as RawRef, Store};
use store_shm::queue::Payload;

/// Seals an error as a result, unless that stands already, or nobody wants it.
pub(super) fn seal(store: &Store, result: Handle, failure: &[u8]) {
    let options = CreateOptions { encoding: Encoding::Error, ..CreateOptions::default() };
    let _ = store.put_for(result, failure, &options);
}

pub(super) fn seal_all(store: &Store, results: &[Handle], failure: &Failure) {
    let bytes = failure.to_bytes();
    results.iter().for_each(|result| seal(store, *result, &bytes));
}

/// What people call a function or a method.
pub(super) fn name_of(words: &Payload) -> &'static str {
    let Ok(record) = Record::unpack(words) else { return "a task" };
    let method = || CLASSES.iter().flat_map(|class| class.methods).find(|method| method.key == record.key);
    let function = crate::task::function(record.key).map(|function| function.name);
    let rust = function.or_else(|| method().map(|method| method.name));
    rust.or_else(|| crate::binding::name_of(record.key)).unwrap_or("a task")
}

impl Shared {
    /// Fails calls whose queue nobody serves any more.
    #[cold]
    pub(super) fn fail_ended(self: &Arc<Self>, lane: &Arc<Lane>, calls: Vec<lane::Call>) {
        if calls.is_empty() {
            return;
        }
        if let Some(error) = lane.end() {
            let results = calls.iter().flat_map(|call| call.results(&self.store));
            return results.for_each(|result| seal(&self.store, result, error));
        }
        if let Some(actor) = self.actors.of_lane(lane) {
            return self.fail_dead(&actor, calls);
        }
        for call in calls {
            let why = "the raylet takes no more calls of its kind: its job is over, or its placement group is removed";
            let failure = Failure::new(TaskErrorKind::Refused, name_of(&call.words), why);
            seal_all(&self.store, &call.results(&self.store), &failure);
        }
    }

    /// The raylet says why a queue has ended.
    pub(super) fn queue_ended(self: &Arc<Self>, ended: QueueEnded) {
        let lane = self.lanes().iter().find(|lane| lane.number() == ended.queue).cloned();
        if let Some(lane) = lane {
            lane.set_end(ended.error);
        }
    }

    pub(super) fn cancel(self: &Arc<Self>, object: &RawRef, options: CancelOptions) {
        if object.is_ready() || self.check().is_err() {
            return;
        }
        let why = "it was cancelled by `Raylet::cancel`";
        self.stop(object.handle(), TaskErrorKind::Cancelled, why, options);
    }

    /// The call of this result was not done in time.
    pub(super) fn expire(self: &Arc<Self>, result: Handle, timeout: Duration) {
        let why = format!("it had {} ms, by its option `timeout`", timeout.as_millis());
        self.stop(result, TaskErrorKind::TimedOut, &why, CancelOptions::default());
    }

    /// Ends a call early: takes it back if nobody has begun it, else lets the raylet know.
    fn stop(self: &Arc<Self>, result: Handle, kind: TaskErrorKind, why: &str, options: CancelOptions) {
        let fail = |name: &str, results: &[Handle]| seal_all(&self.store, results, &Failure::new(kind, name, why));
        if let Some(waiting) = self.frontier.cancel(result) {
            return fail(name_of(&waiting.call.words), &waiting.results);
        }
        let taken_back = self.lanes().iter().find_map(|lane| match lane.cancel(result) {
            Found::TakenBack(call) => Some(call),
            Found::NotQueued => None,
        });
        if let Some(call) = taken_back {
            return fail(name_of(&call.words), &call.results(&self.store));
        }
        // A call under way is known by its first result, and ends for all of them.
        let under_way = self.lanes().iter().map(|lane| lane.under_way(result)).find(|results| !results.is_empty());
        let results = under_way.unwrap_or_else(|| vec![result]);
        fail("the task", &results);
        let CancelOptions { force, recursive } = options;
        let cancel = CancelTask { result: object_key(results[0]), force, recursive, only_children: false };
        // A raylet that is gone runs nothing.
        let _ = self.line.send(cancel);
    }

    /// Has the results end with an error unless they are there in time.
    #[cold]
    pub(super) fn end_after(self: &Arc<Self>, timeout: Duration, results: &ResultRefs) {
        let first = match results {
            ResultRefs::One(one) => Some(one.handle()),
            ResultRefs::Many(many) => many.first().map(RawRef::handle),
        };
        if let Some(first) = first {
            self.add_deadline(timeout, first);
        }
    }
}

/// Why an actor is dead, by the raylet's answer.
pub(super) fn death(answer: Result<Message, LineError>, class: &str) -> Vec<u8> {
    let failure = |why: String| Failure::new(TaskErrorKind::ActorDied, class, why).to_bytes();
    match answer {
        Ok(Message::ActorFound(found)) => {
            found.death.unwrap_or_else(|| failure("it has ended, and the raylet has forgotten why".to_owned()))
        }
        Ok(Message::Refused(refused)) => failure(refused.text),
        Ok(other) => failure(format!("it has ended; the raylet answered {}", other.name())),
        Err(error) => failure(error.to_string()),
    }
}
