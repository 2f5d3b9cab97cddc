//! Thread-local values that stand while a piece of code runs.
//!
//! The one thing to know: what stood before comes back when the code is over, also when it panics.
//! This file must not know what is kept.

use std::cell::RefCell;
use std::thread::LocalKey;

/// A cell of a thread; `None` outside of any [`within`].
type Cell<T> = LocalKey<RefCell<Option<T>>>;

/// Runs `body` while `value`, or nothing, stands in the cell.
pub fn within<T, R>(cell: &'static Cell<T>, value: impl Into<Option<T>>, body: impl FnOnce() -> R) -> R {
    let _before = Restored { cell, before: cell.replace(value.into()) };
    body()
}

/// As [`within`]; also what `body` made of the value.
pub fn gathered<T: Default, R>(cell: &'static Cell<T>, body: impl FnOnce() -> R) -> (R, T) {
    within(cell, T::default(), || {
        let done = body();
        (done, cell.take().unwrap_or_default())
    })
}

struct Restored<T: 'static> {
    cell: &'static Cell<T>,
    before: Option<T>,
}

impl<T> Drop for Restored<T> {
    fn drop(&mut self) {
        // What is let go of may look into the cell: not while it is borrowed.
        let ours = self.cell.replace(self.before.take());
        drop(ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static NUMBERS: RefCell<Option<Vec<u32>>> = const { RefCell::new(None) };
    }

    fn push(number: u32) {
        NUMBERS.with_borrow_mut(|numbers| numbers.as_mut().unwrap().push(number));
    }

    #[test]
    fn what_stood_before_comes_back_also_after_a_panic() {
        let (inner, outer) = gathered(&NUMBERS, || {
            push(1);
            let ((), inner) = gathered(&NUMBERS, || push(2));
            let panicked = std::panic::catch_unwind(|| within(&NUMBERS, vec![9], || panic!("on purpose")));
            assert!(panicked.is_err());
            push(3);
            inner
        });
        assert_eq!((inner, outer), (vec![2], vec![1, 3]));
        assert!(NUMBERS.take().is_none());
    }
}
