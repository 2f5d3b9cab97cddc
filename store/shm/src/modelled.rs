//! Loom's atomics, with a place to end before every write, and a futex made of loom's parts.
//!
//! The one thing to know: a process that ends does so between two of its writes to shared words,
//! and a look in between leaves no trace. So a model that ends a thread before its first, second,
//! ... write has ended it everywhere. The thread unwinds to where [`ends_after`] was called.

use std::cell::Cell;

use loom::sync::atomic::Ordering;
use loom::sync::{Condvar, Mutex};

loom::thread_local! {
    /// Writes that the thread may still make, plus one; 0 is no limit.
    static LEFT: Cell<u32> = Cell::new(0);
}

/// What a thread that ended unwinds with.
struct Ended;

/// Runs `work`, which ends before write number `writes` (from 0) of this thread; true if it got there.
pub fn ends_after(writes: u32, work: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(writes + 1));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    LEFT.with(|left| left.set(0));
    match outcome {
        Ok(()) => false,
        Err(cause) if cause.is::<Ended>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

/// Within `ends_after`: this thread ends before write number `writes` from here on.
#[cfg(test)]
pub(crate) fn limit_writes(writes: u32) {
    LEFT.with(|left| left.set(writes + 1));
}

/// Whatever is unwound after a thread's end is not done: a killed process runs no destructor.
pub(crate) fn is_ending() -> bool {
    std::thread::panicking()
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
        /// As `std`'s, in the methods that protocols use.
        ///
        /// Loom keeps only the last access of each atomic when it looks for accesses to swap: it does
        /// not see that another thread's load came before a thread's own load and write. So every
        /// access also writes a probe beside the word, and all of those exclude each other. Nobody
        /// reads the probe, so it orders nothing, fences or not (a read-modify-write would).
        #[derive(Debug)]
        pub struct $name {
            word: loom::sync::atomic::$name,
            probe: loom::sync::atomic::AtomicU32,
        }

        #[allow(dead_code)]
        impl $name {
            /// A word that has `value`.
            pub fn new(value: $number) -> $name {
                $name { word: loom::sync::atomic::$name::new(value), probe: loom::sync::atomic::AtomicU32::new(0) }
            }

            /// Both are one step: loom switches before the access, never between it and the probe.
            fn access<T>(&self, access: impl FnOnce(&loom::sync::atomic::$name) -> T) -> T {
                let outcome = access(&self.word);
                loom::stop_exploring();
                self.probe.store(0, Ordering::Relaxed);
                loom::explore();
                outcome
            }

            fn write<T>(&self, access: impl FnOnce(&loom::sync::atomic::$name) -> T) -> T {
                before_write();
                self.access(access)
            }

            /// As `std`'s.
            pub fn load(&self, order: Ordering) -> $number {
                self.access(|word| word.load(order))
            }

            /// As `std`'s.
            pub fn store(&self, value: $number, order: Ordering) {
                self.write(|word| word.store(value, order))
            }

            /// As `std`'s.
            pub fn swap(&self, value: $number, order: Ordering) -> $number {
                self.write(|word| word.swap(value, order))
            }

            /// As `std`'s.
            pub fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                self.write(|word| word.fetch_add(value, order))
            }

            /// As `std`'s.
            pub fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                self.write(|word| word.fetch_or(value, order))
            }

            /// As `std`'s.
            pub fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                self.write(|word| word.fetch_and(value, order))
            }

            /// As `std`'s.
            pub fn compare_exchange(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                self.write(|word| word.compare_exchange(current, new, success, failure))
            }

            /// As `std`'s, but that it never fails for nothing.
            pub fn compare_exchange_weak(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                self.compare_exchange(current, new, success, failure)
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name::new(0)
            }
        }
    };
}

modelled!(AtomicU32, u32);
modelled!(AtomicU64, u64);

/// Where threads sleep, as in the kernel: comparing and going to sleep are one step under a lock.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// How many sleep and were not woken yet.
    count: Mutex<usize>,
    woken: Condvar,
}

impl Default for Sleepers {
    fn default() -> Sleepers {
        Sleepers { count: Mutex::new(0), woken: Condvar::new() }
    }
}

impl Sleepers {
    /// Sleeps if `is_unchanged`; whether it did.
    pub(crate) fn sleep_if(&self, is_unchanged: impl FnOnce() -> bool) -> bool {
        let mut count = self.count.lock().expect("no model panics with the lock");
        if !is_unchanged() {
            return false;
        }
        *count += 1;
        drop(self.woken.wait(count).expect("no model panics with the lock"));
        true
    }

    /// Wakes up to `most`; how many there were.
    pub(crate) fn wake(&self, most: usize) -> usize {
        // A wake is a step that a process may end before, as a write is.
        before_write();
        let mut count = self.count.lock().expect("no model panics with the lock");
        let woken = most.min(*count);
        (0..woken).for_each(|_| self.woken.notify_one());
        *count -= woken;
        woken
    }
}
