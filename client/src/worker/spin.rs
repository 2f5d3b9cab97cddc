//! How long a worker looks for work before it sleeps: what paid lately, and not at all on one core.
//!
//! The one thing to know: looking costs a processor that others may want, sleeping costs whoever
//! submits next a system call and the time to wake. So a look that paid doubles the next search, one
//! that did not halves it, and a sleep that was short makes it four times as long: calls that come once
//! a millisecond are slept for almost at once, and those that come one on the other are found. This
//! file must not know what is looked for.

use std::thread;
use std::time::Duration;

/// Looks at most, which together take about as long as a sleep and a wake.
const LOOKS_MAX: u32 = 1024;
const LOOKS_MIN: u32 = 16;
/// A sleep that was over sooner would better have been a look.
const SHORT: Duration = Duration::from_micros(30);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Spin {
    looks: u32,
    is_allowed: bool,
}

impl Spin {
    pub(super) fn new() -> Spin {
        let is_allowed = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Spin { looks: LOOKS_MAX, is_allowed }
    }

    /// Looks until `found` finds something, at most as often as lately paid.
    #[inline]
    pub(super) fn until<T>(&mut self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        if !self.is_allowed {
            return None;
        }
        for _ in 0..self.looks {
            std::hint::spin_loop();
            if let Some(found) = found() {
                self.looks = (self.looks * 2).min(LOOKS_MAX);
                return Some(found);
            }
        }
        self.looks = (self.looks / 2).max(LOOKS_MIN);
        None
    }

    /// Work came after so long a sleep.
    pub(super) fn woke_after(&mut self, slept: Duration) {
        if slept < SHORT {
            self.looks = (self.looks * 4).min(LOOKS_MAX);
        }
    }
}
