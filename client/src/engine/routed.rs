//! Tasks through the raylet, each a message.
//!
//! The one thing to know: the raylet refers to what a task needs when it reads the message, and says
//! nothing. Until it has, this process holds it. The raylet takes the messages of one line in order,
//! so the answer to a later question says that it has: one question at a time, however many tasks.
//! This file must not wait.

use super::spec::{Packed, object_key};
use super::{Shared, lock};
use crate::remote::SubmitError;
use crate::task::{Arguments, ResultRefs};
use raylet_api::record::parent_of;
use raylet_api::work::{ClassWish, FindActor, SubmitTask};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use store::ObjectRef as RawRef;

/// What the raylet may not have read yet.
#[derive(Default)]
pub(super) struct Routed(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// By the number of the task here, counted up.
    held: VecDeque<(u64, Vec<RawRef>)>,
    sent: u64,
    is_asked: bool,
}

impl Shared {
    #[cold]
    pub(super) fn submit_routed(
        self: &Arc<Self>,
        class: &ClassWish,
        packed: Packed,
        results: &ResultRefs,
        arguments: &Arguments,
    ) -> Result<(), SubmitError> {
        let mut waits_for: Vec<_> = arguments.awaited.iter().map(|object| object_key(object.handle())).collect();
        waits_for.sort_unstable();
        waits_for.dedup();
        let parent = parent_of(&packed.words);
        let task = SubmitTask { class: class.clone(), waits_for, words: packed.words };
        let mut held: Vec<RawRef> = packed.spec.into_iter().collect();
        held.extend(with_results(results));
        let mut inside = lock(&self.routed.0);
        // Sent with the lock: numbers are in the order of the line.
        self.line.send(task)?;
        inside.sent += 1;
        let number = inside.sent;
        inside.held.push_back((number, held));
        let is_first = !std::mem::replace(&mut inside.is_asked, true);
        drop(inside);
        if is_first {
            self.ask_what_was_read(number);
        }
        self.look_at_parent(parent);
        Ok(())
    }

    /// Lets go of what was sent up to here once the raylet has read it.
    fn ask_what_was_read(self: &Arc<Self>, sent: u64) {
        let shared = Arc::downgrade(self);
        let asked = self.line.ask_then(
            // Nobody has an empty name.
            |request| FindActor { request, ..FindActor::default() },
            move |_| {
                let Some(shared) = shared.upgrade() else { return };
                if let Some(next) = shared.routed.was_read(sent) {
                    shared.ask_what_was_read(next);
                }
            },
        );
        if asked.is_err() {
            // The raylet is gone: nobody reads it.
            self.routed.was_read(u64::MAX);
        }
    }
}

fn with_results(results: &ResultRefs) -> Vec<RawRef> {
    match results {
        ResultRefs::One(one) => vec![one.clone()],
        ResultRefs::Many(many) => many.clone(),
    }
}

impl Routed {
    /// Drops what the raylet has read; the last number sent since, if any.
    fn was_read(&self, sent: u64) -> Option<u64> {
        let mut inside = lock(&self.0);
        let mut read = Vec::new();
        while inside.held.front().is_some_and(|(number, _)| *number <= sent) {
            read.extend(inside.held.pop_front());
        }
        inside.is_asked = !inside.held.is_empty();
        let next = inside.is_asked.then_some(inside.sent);
        drop(inside);
        drop(read);
        next
    }
}
