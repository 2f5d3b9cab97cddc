//! What the raylet has told the worker and nobody has dealt with yet.
//!
//! The one thing to know: the thread that reads the line puts messages in, and whoever does the
//! worker's work takes them out when it is between two records. While it has nothing to do it sleeps
//! here, or on a bell that it has named here first, and a message rings that. This file must not know
//! what messages mean.

use raylet_api::message::Message;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Wakes whoever sleeps elsewhere than here.
type Ring = Box<dyn Fn() + Send>;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Inbox {
    inside: Mutex<Inside>,
    came: Condvar,
    /// Something came since the last look.
    has_news: AtomicBool,
}

#[derive(Default)]
struct Inside {
    messages: VecDeque<Message>,
    ring: Option<Ring>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing in here panics while it holds the lock, and a message list is never half changed.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message came.
    pub(crate) fn put(&self, message: Message) {
        let mut inside = self.lock();
        inside.messages.push_back(message);
        // Before the ring: who announces itself and then sees no news is rung. (The bell has the fence.)
        self.has_news.store(true, Ordering::SeqCst);
        if let Some(ring) = &inside.ring {
            ring();
        }
        drop(inside);
        self.came.notify_one();
    }

    /// From now on, messages ring this too, until [`Inbox::listen_here`].
    pub(crate) fn listen_at(&self, ring: impl Fn() + Send + 'static) {
        self.lock().ring = Some(Box::new(ring));
    }

    /// From now on, who waits for messages waits in [`Inbox::wait`].
    pub(crate) fn listen_here(&self) {
        self.lock().ring = None;
    }

    /// Whether something came since the last [`Inbox::take`].
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::SeqCst)
    }

    /// Takes the first message that is wanted; the others stay in order.
    pub(crate) fn take(&self, is_wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        // Before the look: what comes during it is news again.
        self.has_news.store(false, Ordering::SeqCst);
        let mut inside = self.lock();
        let at = inside.messages.iter().position(is_wanted)?;
        inside.messages.remove(at)
    }

    /// The next message, as soon as there is one.
    pub(crate) fn wait(&self) -> Message {
        let inside = self.came.wait_while(self.lock(), |inside| inside.messages.is_empty());
        let mut inside = inside.unwrap_or_else(PoisonError::into_inner);
        inside.messages.pop_front().expect("the wait is over when there is one")
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("messages", &self.lock().messages).finish_non_exhaustive()
    }
}
