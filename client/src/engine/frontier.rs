//! Tasks whose arguments are not there yet, and which objects are looked at for them.
//!
//! The one thing to know: they stay with their caller, and only the *edge* is looked at: objects that
//! nothing here has to run for first. So a chain of ten thousand tasks costs one look a hop. Whoever
//! submits, waits or pumps looks, a bounded part of the edge at a time. This file must not know queues.

use super::lane::{Call, Lane};
use super::slots::SlotMap;
use raylet_api::record::parent_of;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Handle, ObjectRef as RawRef};

/// A task with everything but its arguments' values.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) call: Call,
    pub(crate) lane: Arc<Lane>,
    pub(crate) results: Vec<Handle>,
    /// Objects that it waits for, each once.
    missing: Vec<Handle>,
}

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Frontier {
    inside: Mutex<Inside>,
    count: AtomicUsize,
}

#[derive(Default)]
struct Inside {
    tasks: Vec<Option<Waiting>>,
    free: Vec<usize>,
    /// Who waits for an object.
    awaited: SlotMap<Awaited>,
    /// Which task here makes an object.
    made: SlotMap<usize>,
    edge: Vec<RawRef>,
    /// Where the next look begins.
    next: usize,
}

struct Awaited {
    tasks: Vec<usize>,
    /// `None` while it is in the edge, which then has it.
    object: Option<RawRef>,
}

impl Frontier {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing in here panics on what it finds.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any task waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Keeps a task until all of `awaited` are there; gives it back where they are.
    pub(crate) fn wait(
        &self,
        call: Call,
        lane: &Arc<Lane>,
        results: Vec<Handle>,
        awaited: Vec<RawRef>,
    ) -> Option<Call> {
        let mut inside = self.lock();
        let mut awaited: Vec<RawRef> = awaited.into_iter().filter(|object| !object.is_ready()).collect();
        awaited.sort_unstable_by_key(|object| object.handle().slot);
        awaited.dedup_by_key(|object| object.handle());
        if awaited.is_empty() {
            return Some(call);
        }
        let missing = awaited.iter().map(RawRef::handle).collect();
        let task = inside.insert(Waiting { call, lane: lane.clone(), results, missing });
        awaited.into_iter().for_each(|object| inside.await_object(object, task));
        self.note(&inside);
        None
    }

    /// Looks at up to `budget` objects; the tasks that nothing holds up any more, in the order that
    /// their last argument was found in.
    pub(crate) fn look(&self, budget: usize) -> Vec<Waiting> {
        let mut inside = self.lock();
        let mut released = Vec::new();
        let mut left = budget.min(inside.edge.len());
        while left > 0 && !inside.edge.is_empty() {
            left -= 1;
            let at = inside.next % inside.edge.len();
            if inside.edge[at].is_ready() {
                let object = inside.edge.swap_remove(at);
                inside.release(object.handle(), &mut released);
            } else {
                inside.next = at + 1;
            }
        }
        self.note(&inside);
        released
    }

    /// Up to `count` objects to sleep on.
    pub(crate) fn edge(&self, count: usize) -> Vec<RawRef> {
        let inside = self.lock();
        inside.edge.iter().take(count).cloned().collect()
    }

    /// Takes the task back that makes this result.
    pub(crate) fn cancel(&self, result: Handle) -> Option<Waiting> {
        let mut inside = self.lock();
        let task = *inside.made.get(&result)?;
        let waiting = inside.take_back(task)?;
        self.note(&inside);
        Some(waiting)
    }

    /// Takes back what the task of this mark submitted.
    pub(crate) fn cancel_children(&self, parent: u32) -> Vec<Waiting> {
        let mut inside = self.lock();
        let is_child = |task: &Option<Waiting>| {
            let words = task.as_ref().map(|waiting| &waiting.call.words);
            words.is_some_and(|words| parent_of(words) == parent)
        };
        let children: Vec<usize> = (0..inside.tasks.len()).filter(|task| is_child(&inside.tasks[*task])).collect();
        let taken = children.into_iter().filter_map(|task| inside.take_back(task)).collect();
        self.note(&inside);
        taken
    }

    fn note(&self, inside: &Inside) {
        self.count.store(inside.tasks.len() - inside.free.len(), Ordering::Relaxed);
    }
}

impl Inside {
    fn insert(&mut self, waiting: Waiting) -> usize {
        let task = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        self.made.extend(waiting.results.iter().map(|result| (*result, task)));
        self.tasks[task] = Some(waiting);
        task
    }

    /// Takes a task out; what it makes comes to the edge if others wait for it.
    fn remove(&mut self, task: usize) -> Option<Waiting> {
        let waiting = self.tasks.get_mut(task)?.take()?;
        self.free.push(task);
        for result in &waiting.results {
            self.made.remove(result);
            self.edge.extend(self.awaited.get_mut(result).and_then(|awaited| awaited.object.take()));
        }
        Some(waiting)
    }

    /// Takes a task out whose arguments are not there.
    fn take_back(&mut self, task: usize) -> Option<Waiting> {
        let waiting = self.remove(task)?;
        for missing in &waiting.missing {
            self.forget(*missing, task);
        }
        Some(waiting)
    }

    fn await_object(&mut self, object: RawRef, task: usize) {
        let handle = object.handle();
        match self.awaited.entry(handle) {
            Entry::Occupied(mut awaited) => awaited.get_mut().tasks.push(task),
            Entry::Vacant(vacant) if self.made.contains_key(&handle) => {
                vacant.insert(Awaited { tasks: vec![task], object: Some(object) });
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Awaited { tasks: vec![task], object: None });
                self.edge.push(object);
            }
        }
    }

    /// An object is there.
    fn release(&mut self, object: Handle, released: &mut Vec<Waiting>) {
        let Some(awaited) = self.awaited.remove(&object) else { return };
        for task in awaited.tasks {
            let Some(Some(waiting)) = self.tasks.get_mut(task) else { continue };
            waiting.missing.retain(|missing| *missing != object);
            if waiting.missing.is_empty() {
                released.extend(self.remove(task));
            }
        }
    }

    /// A task does not wait for an object any more.
    fn forget(&mut self, object: Handle, task: usize) {
        let Some(awaited) = self.awaited.get_mut(&object) else { return };
        awaited.tasks.retain(|waiting| *waiting != task);
        if awaited.tasks.is_empty() {
            self.awaited.remove(&object);
            self.edge.retain(|edge| edge.handle() != object);
        }
    }
}
