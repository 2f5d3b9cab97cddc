//! Who waits for which objects.
//!
//! The one thing to know: an object that was never waited for may become ready; that is no news to
//! anyone here. This file must not know what an object is.

use crate::ids::{ActorId, ObjectKey, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// What waits for arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    Task(TaskId),
    Actor(ActorId),
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    waiters: BTreeMap<ObjectKey, BTreeSet<Waiter>>,
    missing: BTreeMap<Waiter, BTreeSet<ObjectKey>>,
}

impl Arguments {
    /// From now on `waiter` waits for all of these.
    pub(crate) fn wait(&mut self, waiter: Waiter, objects: &[ObjectKey]) {
        for object in objects {
            self.waiters.entry(*object).or_default().insert(waiter);
            self.missing.entry(waiter).or_default().insert(*object);
        }
    }

    /// Those that waited for this object and now for none.
    pub(crate) fn ready(&mut self, object: ObjectKey) -> Vec<Waiter> {
        let waiters = self.waiters.remove(&object).unwrap_or_default();
        waiters.into_iter().filter(|waiter| self.has_all(*waiter, object)).collect()
    }

    fn has_all(&mut self, waiter: Waiter, object: ObjectKey) -> bool {
        let missing = self.missing.get_mut(&waiter).expect("N4: both tables say who waits");
        missing.remove(&object);
        let has_all = missing.is_empty();
        if has_all {
            self.missing.remove(&waiter);
        }
        has_all
    }

    /// `waiter` waits no more.
    pub(crate) fn forget(&mut self, waiter: Waiter) {
        for object in self.missing.remove(&waiter).unwrap_or_default() {
            let waiters = self.waiters.get_mut(&object).expect("N4: both tables say who waits");
            waiters.remove(&waiter);
            if waiters.is_empty() {
                self.waiters.remove(&object);
            }
        }
    }

    /// How many objects `waiter` still waits for.
    pub(crate) fn missing(&self, waiter: Waiter) -> usize {
        self.missing.get(&waiter).map_or(0, BTreeSet::len)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.missing.len()
    }
}
