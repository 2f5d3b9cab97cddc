//! Who has had how much: the clock that shares a machine out.
//!
//! The one thing to know: use is counted as share of the machine times microseconds, while it
//! happens, and the one who waits with the least use comes first. Jobs are compared first, then the
//! classes of a job, then the queues of a class: so a driver with a hundred classes or callers gets
//! no more than one with one.
//!
//! Why time and not turns: a lease and a task through the raylet are of very different length, and
//! two drivers of one class must get alike whichever way they take. Why use is charged while it
//! happens and not at the end: otherwise whoever takes all workers at once has had nothing yet. A
//! small part is charged at the grant itself, so that grants at one moment alternate.
//!
//! Nobody starves: whoever waits stands still while those that are served move on. Nobody saves up:
//! who starts to wait is moved up to where the last grant was (`floor`). Nobody is punished for
//! ever: more than `lag_us_max` ahead of the floor is forgiven.
//!
//! This file must not know what is shared.

use crate::ids::Time;

/// One participant's use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    used: u64,
    rate: u64,
    as_of: Time,
    is_waiting: bool,
    waiting_since: Time,
    /// Of this wait it was said that it is long.
    is_said: bool,
}

impl Share {
    /// For how long it has waited without a grant, in microseconds.
    pub(crate) fn waited(&self, now: Time) -> u64 {
        if self.is_waiting { now.since(self.waiting_since) } else { 0 }
    }

    /// Says that it has waited for long: whether that is news.
    pub(crate) fn say(&mut self) -> bool {
        !std::mem::replace(&mut self.is_said, true)
    }

    /// Use until now.
    pub(crate) fn used(&self, now: Time) -> u64 {
        self.used + self.rate * now.since(self.as_of)
    }

    /// What it uses a microsecond.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    fn settle(&mut self, now: Time) {
        self.used = self.used(now);
        self.as_of = now;
    }

    /// From now on it uses so much more.
    pub(crate) fn begin(&mut self, now: Time, rate: u64) {
        self.settle(now);
        self.rate += rate;
    }

    /// From now on it uses so much less.
    pub(crate) fn end(&mut self, now: Time, rate: u64) {
        self.settle(now);
        assert!(self.rate >= rate, "N5: use ends that began");
        self.rate -= rate;
    }

    /// A grant costs something at once, and ends the wait.
    pub(crate) fn granted(&mut self, now: Time, amount: u64) {
        self.used += amount;
        (self.waiting_since, self.is_said) = (now, false);
    }

    /// Says whether it waits. Who starts to wait saves nothing up; who is far ahead is forgiven.
    pub(crate) fn waits(&mut self, now: Time, is_waiting: bool, floor: u64, lag: u64) {
        if is_waiting {
            self.settle(now);
            let least = if self.is_waiting { 0 } else { floor };
            if !self.is_waiting {
                (self.waiting_since, self.is_said) = (now, false);
            }
            self.used = self.used.clamp(least, floor.saturating_add(lag));
        }
        self.is_waiting = is_waiting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_counted_while_it_happens() {
        let mut share = Share::default();
        share.begin(Time(10), 5);
        assert_eq!(share.used(Time(30)), 100);
        share.end(Time(30), 5);
        assert_eq!(share.used(Time(99)), 100);
    }

    #[test]
    fn who_starts_to_wait_saves_nothing_up_and_is_not_punished_for_ever() {
        let mut share = Share::default();
        share.waits(Time(0), true, 700, 50);
        assert_eq!(share.used(Time(0)), 700);
        share.granted(Time(0), 1_000);
        share.waits(Time(0), true, 800, 50);
        assert_eq!(share.used(Time(0)), 850);
    }
}
