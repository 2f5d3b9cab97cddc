//! Tasks that run here and that somebody cancels: what they submitted is taken back.
//!
//! The one thing to know: a call's record bears the mark of the task that submitted it, so nothing is
//! kept for a task that nobody cancels. Who interrupts first notes the mark and then looks at the calls;
//! who submits first submits and then looks at the marks: one of the two sees the other. What went
//! through the raylet is cancelled there, by a message behind all those. This file must not end a task
//! itself: its result has its error already, and user code cannot be stopped.

use super::fail::{name_of, seal_all};
use super::spec::handle;
use super::{Shared, lock};
use crate::remote::{CancelOptions, SubmitError};
use crate::task::with_scope;
use raylet_api::record::{ObjectKey, Record};
use raylet_api::work::{CancelTask, InterruptTask};
use raylet_api::{Failure, TaskErrorKind};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex};
use store::Handle;
use store_shm::queue::Payload;

/// Tasks that are remembered as interrupted, the latest: more than one process runs at a time.
const INTERRUPTED_MAX: usize = 4096;
const WHY: &str = "the task that submitted it was cancelled";

/// The tasks that were interrupted here.
#[derive(Default)]
pub(super) struct Interrupts {
    inside: Mutex<Inside>,
    has_any: AtomicBool,
}

#[derive(Default)]
struct Inside {
    /// By their marks.
    tasks: HashMap<u32, InterruptTask>,
    /// The oldest first.
    order: VecDeque<u32>,
}

impl Interrupts {
    /// Whether that was not known.
    fn note(&self, asked: InterruptTask) -> bool {
        let mark = asked.result.mark();
        let mut inside = lock(&self.inside);
        let before = inside.tasks.get(&mark).copied();
        let recursive = asked.recursive || before.is_some_and(|before| before.recursive);
        inside.tasks.insert(mark, InterruptTask { recursive, ..asked });
        if before.is_none() {
            inside.order.push_back(mark);
        }
        if inside.order.len() > INTERRUPTED_MAX
            && let Some(oldest) = inside.order.pop_front()
        {
            inside.tasks.remove(&oldest);
        }
        self.has_any.store(true, Ordering::Relaxed);
        before.is_none_or(|before| asked.recursive && !before.recursive)
    }

    #[inline]
    fn find(&self, mark: u32) -> Option<InterruptTask> {
        if mark == 0 || !self.has_any.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.inside).tasks.get(&mark).copied()
    }
}

impl Shared {
    /// The raylet says that a task is cancelled that runs here.
    pub(super) fn interrupt(self: &Arc<Self>, asked: InterruptTask) {
        // Of a task in a line of many that are cancelled, each of those above says so.
        let is_news = self.interrupts.note(asked);
        // Pairs with the fence in `look_at_parent`.
        fence(Ordering::SeqCst);
        if is_news && asked.recursive {
            self.cancel_children(asked.result);
        }
    }

    /// Whether the task that this thread runs is cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.own_interrupt().is_some()
    }

    /// A task that is cancelled with its children has no more of them.
    #[inline]
    pub(super) fn check_parent(&self) -> Result<(), SubmitError> {
        if self.interrupts.has_any.load(Ordering::Relaxed) && self.own_interrupt().is_some_and(|own| own.recursive) {
            return Err(SubmitError::Cancelled);
        }
        Ok(())
    }

    fn own_interrupt(&self) -> Option<InterruptTask> {
        with_scope(|scope| self.interrupts.find(scope?.mark()))
    }

    /// After a call went on its way: takes it back if its parent was interrupted meanwhile.
    #[inline]
    pub(super) fn look_at_parent(self: &Arc<Self>, parent: u32) {
        if parent == 0 {
            return;
        }
        // Pairs with the fence in `interrupt`: this sees the mark, or that sees the call.
        fence(Ordering::SeqCst);
        if let Some(interrupted) = self.interrupts.find(parent).filter(|found| found.recursive) {
            self.cancel_children(interrupted.result);
        }
    }

    #[cold]
    fn cancel_children(self: &Arc<Self>, parent: ObjectKey) {
        let mark = parent.mark();
        for waiting in self.frontier.cancel_children(mark) {
            self.seal_cancelled(&waiting.call.words, &waiting.results);
        }
        let lanes = self.lanes().clone();
        for lane in lanes {
            let (taken, begun) = lane.cancel_children(mark);
            taken.iter().for_each(|call| self.seal_cancelled(&call.words, &call.results(&self.store)));
            begun.iter().for_each(|words| self.cancel_begun(words));
        }
        // A raylet that is gone runs nothing.
        let _ = self.line.send(CancelTask { result: parent, only_children: true, ..CancelTask::default() });
    }

    /// Somebody runs it: its result is settled at once, and the raylet knows who.
    fn cancel_begun(&self, words: &Payload) {
        let Some(record) = Record::unpack(words).ok().filter(|record| record.results > 0) else { return };
        self.seal_cancelled(words, &[handle(record.result)]);
        let CancelOptions { force, recursive } = CancelOptions::default();
        let _ = self.line.send(CancelTask { result: record.result, force, recursive, only_children: false });
    }

    fn seal_cancelled(&self, words: &Payload, results: &[Handle]) {
        seal_all(&self.store, results, &Failure::new(TaskErrorKind::Cancelled, name_of(words), WHY));
    }
}
