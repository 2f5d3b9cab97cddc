//! Loom's atomics, with a place to die before every store.
//!
//! The one thing to know: a client that ends does so between two of its writes to shared words,
//! and a look in between leaves no trace. So a model that ends a thread before its first, second,
//! ... write has ended it everywhere. The thread unwinds to where [`ends_after`] was called.

use loom::sync::atomic::Ordering;
use std::cell::Cell;

loom::thread_local! {
    /// Writes that the thread may still make, plus one; 0 is no limit.
    static LEFT: Cell<u32> = Cell::new(0);
}

/// What a thread that ended unwinds with.
struct Ended;

/// Runs `work`, which ends before write number `writes` (from 0) of this thread; true if it got there.
#[cfg(test)]
pub(crate) fn ends_after(writes: u32, work: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(writes + 1));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    LEFT.with(|left| left.set(0));
    match outcome {
        Ok(()) => false,
        Err(cause) if cause.is::<Ended>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

fn before_write() {
    LEFT.with(|left| match left.get() {
        0 => {}
        1 => std::panic::resume_unwind(Box::new(Ended)),
        more => left.set(more - 1),
    });
}

macro_rules! modelled {
    ($name:ident, $number:ty) => {
        /// As `std`'s, in the methods that the protocol uses.
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code)]
        impl $name {
            pub(crate) fn new(value: $number) -> $name {
                $name(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $number {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $number, order: Ordering) {
                before_write();
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                before_write();
                self.0.swap(value, order)
            }

            pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                before_write();
                self.0.fetch_add(value, order)
            }

            pub(crate) fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                before_write();
                self.0.fetch_or(value, order)
            }

            pub(crate) fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                before_write();
                self.0.fetch_and(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                before_write();
                self.0.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

modelled!(AtomicU32, u32);
modelled!(AtomicU64, u64);
