//! Whose calls these are: the driver, or the task that a thread runs.
//!
//! The one thing to know: ids of calls follow from their parent and a counter, so a scope is made
//! once for each attempt of a task. A worker makes one for everything it runs and few submit, so which
//! task it is is looked up when the first call asks. This file must not know what is submitted.

use super::spec::object_key;
use raylet_api::TaskId;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Handle, ObjectRef as RawRef, Store};

/// A parent of calls.
#[derive(Debug)]
pub(crate) struct Scope {
    id: OnceLock<TaskId>,
    /// The first result of the task; none of a driver's.
    result: Option<Handle>,
    counter: AtomicU64,
}

impl Scope {
    /// Of a task that is known.
    pub(crate) fn of(task: TaskId) -> Scope {
        Scope { id: OnceLock::from(task), result: None, counter: AtomicU64::new(0) }
    }

    /// Of the task that makes this result; nobody need refer to it any more.
    pub(crate) fn of_task(result: Option<Handle>) -> Scope {
        Scope { id: OnceLock::new(), result, counter: AtomicU64::new(0) }
    }

    /// Which task; `None` where its result is gone before anybody asked.
    pub(crate) fn id(&self, store: &Store) -> Option<TaskId> {
        if let Some(id) = self.id.get() {
            return Some(*id);
        }
        let found = store.refer(self.result?)?;
        Some(*self.id.get_or_init(|| task_of(&found)))
    }

    /// By which its calls name it, where it can be cancelled; 0 where not.
    #[inline]
    pub(crate) fn mark(&self) -> u32 {
        self.result.map_or(0, |result| object_key(result).mark())
    }

    /// The number of the next call, from 1.
    pub(crate) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The task that makes an object.
pub(crate) fn task_of(object: &RawRef) -> TaskId {
    TaskId::from_bytes(object.id().task())
}
