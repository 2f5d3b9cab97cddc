//! A value that a forked child replaces by its own.
//!
//! The one thing to know: what the parent's threads were doing with the old value at the instant
//! of the fork is unknown (a lock may be taken for ever), so the child never drops it, it leaks it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// One value for this process; see the file's head.
pub struct PerProcess<T> {
    value: AtomicPtr<T>,
}

impl<T> PerProcess<T> {
    /// The value of the process that makes it.
    pub fn new(value: T) -> Self {
        PerProcess { value: AtomicPtr::new(Box::into_raw(Box::new(value))) }
    }

    /// This process' value.
    #[inline]
    pub fn get(&self) -> &T {
        // SAFETY: the pointer came from a box and is freed by `drop` alone, which borrows mutably.
        unsafe { &*self.value.load(Ordering::Acquire) }
    }

    /// In a child, right after the fork: a new value; the inherited one is leaked, so references to
    /// it stay good.
    pub fn replace_in_child(&self, value: T) {
        self.value.store(Box::into_raw(Box::new(value)), Ordering::Release);
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let value = self.value.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the pointer came from a box, and nobody borrows a value that is being dropped.
        drop(unsafe { Box::from_raw(value) });
    }
}

// SAFETY: a `PerProcess` owns its value and hands out shared references only.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as for a box.
unsafe impl<T: Send> Send for PerProcess<T> {}
