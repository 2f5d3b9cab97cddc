//! Something that one thread of a process uses at a time, and no thread waits for.
//!
//! The one thing to know: taking a turn is one atomic swap and giving it back a plain store, half
//! of what a mutex costs, because nobody can be asleep for it. Who finds it taken goes elsewhere. It
//! must not lie in shared memory: a process that ends keeps its turn.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A value for whoever has the turn.
#[derive(Default)]
pub struct Turn<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `try_take` lets one thread at a time at the value.
unsafe impl<T: Send> Sync for Turn<T> {}

impl<T> Turn<T> {
    /// A value nobody uses yet.
    pub fn new(value: T) -> Self {
        Turn { is_taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The turn, unless another thread has it.
    #[inline]
    pub fn try_take(&self) -> Option<Taken<'_, T>> {
        // Acquire: pairs with the release of whoever had it before. A `Taken` is made only once the
        // turn is ours: dropping one gives the turn back.
        (!self.is_taken.swap(true, Ordering::Acquire)).then(|| Taken { turn: self })
    }
}

/// The turn; given back when dropped.
pub struct Taken<'a, T> {
    turn: &'a Turn<T>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only `Taken`, as the swap in `try_take` found the turn free.
        unsafe { &*self.turn.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this `Taken` is borrowed mutably.
        unsafe { &mut *self.turn.value.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.turn.is_taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn one_thread_at_a_time_has_the_turn() {
        let turn = Arc::new(Turn::new(0u64));
        let count = |turn: &Turn<u64>| {
            for _ in 0..10_000 {
                loop {
                    if let Some(mut value) = turn.try_take() {
                        *value += 1;
                        break;
                    }
                    thread::yield_now();
                }
            }
        };
        let other = thread::spawn({
            let turn = Arc::clone(&turn);
            move || count(&turn)
        });
        count(&turn);
        other.join().expect("the other thread counts too");
        assert_eq!(*turn.try_take().expect("nobody has it any more"), 20_000);
    }

    #[test]
    fn a_taken_turn_is_refused_and_comes_back() {
        let turn = Turn::new(());
        let taken = turn.try_take();
        assert!(taken.is_some() && turn.try_take().is_none());
        assert!(turn.try_take().is_none(), "a refusal gave back another's turn");
        drop(taken);
        assert!(turn.try_take().is_some());
    }
}
