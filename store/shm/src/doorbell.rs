//! A doorbell: one word a client sleeps on, rung by anybody who has news for it.
//!
//! ```text
//! offset 0  sequence  u32  how often it was rung; wraps
//!        4  sleepers  u32  threads between announcing sleep and being up again
//! ```
//!
//! The one thing to know: read [`Doorbell::sequence`], then look for news, then sleep with what you
//! read; a ring in between makes the sleep return at once. Ringing is one atomic addition and one
//! load while nobody sleeps. A doorbell carries no news itself, and a ring may be for nothing.
//!
//! | field | written by | when |
//! | --- | --- | --- |
//! | sequence | anybody | each ring |
//! | sleepers | threads of the doorbell's client | around each sleep |
//! | sleepers | its sweeper | once, after the kernel said that the client is dead |

use std::mem::{align_of, offset_of, size_of};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::futex::{self, WaitOutcome};
use crate::map::Shared;

/// See the drawing above. All zeros is a doorbell that was never rung.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Doorbell {
    /// Rings so far, modulo 2^32. Only ever added to.
    sequence: AtomicU32,
    /// Threads that sleep or are about to. Too high costs needless wakes; too low would lose one.
    sleepers: AtomicU32,
}

const _: () = {
    assert!(size_of::<Doorbell>() == 8);
    assert!(align_of::<Doorbell>() == 4);
    assert!(offset_of!(Doorbell, sequence) == 0);
    assert!(offset_of!(Doorbell, sleepers) == 4);
};

// SAFETY: (1) repr(C) of two u32 without padding, as asserted above; (2) any bytes are valid;
// (3) both fields are atomics; (4) no Drop.
unsafe impl Shared for Doorbell {}

impl Doorbell {
    /// What to pass to [`Doorbell::sleep`]; read it *before* looking for news.
    pub fn sequence(&self) -> u32 {
        // SeqCst: whoever sees a ring here also sees the news published before it.
        self.sequence.load(Ordering::SeqCst)
    }

    /// Publishes that there is news; makes a system call only if somebody sleeps.
    pub fn ring(&self) {
        // The bump comes before the load, and in `sleep` the announcement before the comparison, all
        // SeqCst. So in their single order either our bump precedes the comparison, and the sleeper
        // stays up; or its announcement precedes our load, and we wake it. Weaker orderings would
        // let both sides miss each other.
        self.sequence.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            futex::wake_all(&self.sequence);
        }
    }

    /// Sleeps until a ring after `seen` was read. May return early: look for news again.
    pub fn sleep(&self, seen: u32, timeout: Option<Duration>) -> WaitOutcome {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // This comparison is the one `ring` reasons about. A ring between it and the kernel's own
        // comparison finds us announced and wakes us, or changes the word and the kernel declines.
        let outcome =
            if self.sequence() == seen { futex::wait(&self.sequence, seen, timeout) } else { WaitOutcome::Changed };
        // Dying before this line leaves the count too high: needless wakes until `reset`.
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// Threads asleep or about to be; too high if some died in their sleep.
    pub fn sleepers(&self) -> u32 {
        self.sleepers.load(Ordering::SeqCst)
    }

    /// Forgets the sleepers of a client that is dead. With a live one it would wrap the count.
    pub fn reset(&self) {
        self.sleepers.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::WaitStatus;

    use super::*;
    use crate::map::SharedMap;
    use crate::segment::{Memfd, page_bytes};
    use crate::testing::{fork_child, reap};

    fn shared() -> SharedMap {
        let memfd = Memfd::create("test", page_bytes()).unwrap();
        SharedMap::map(&memfd).unwrap()
    }

    fn doorbells(map: &SharedMap) -> &[Doorbell] {
        map.array::<Doorbell>(0, 2).unwrap()
    }

    #[test]
    fn ring_before_sleep_is_not_lost() {
        let doorbell = Doorbell::default();
        let seen = doorbell.sequence();
        doorbell.ring();
        assert_eq!(doorbell.sleep(seen, None), WaitOutcome::Changed);
        assert_eq!(doorbell.sleepers(), 0);
    }

    #[test]
    fn silent_doorbell_times_out() {
        let doorbell = Doorbell::default();
        let timeout = Some(Duration::from_micros(50));
        assert_eq!(doorbell.sleep(0, timeout), WaitOutcome::TimedOut);
        assert_eq!(doorbell.sleepers(), 0);
    }

    #[test]
    fn no_ring_is_lost_between_threads() {
        const ROUNDS: u64 = 20_000;
        let doorbell = Doorbell::default();
        let news = AtomicU64::new(0);
        let taken = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    news.store(round, Ordering::Release);
                    doorbell.ring();
                    while taken.load(Ordering::Acquire) < round {
                        thread::yield_now();
                    }
                }
            });
            for round in 1..=ROUNDS {
                loop {
                    let seen = doorbell.sequence();
                    if news.load(Ordering::Acquire) >= round {
                        break;
                    }
                    let _ = doorbell.sleep(seen, None);
                }
                taken.store(round, Ordering::Release);
            }
        });
        assert_eq!(doorbell.sleepers(), 0);
    }

    #[test]
    fn processes_wake_each_other_across_a_fork() {
        const ROUNDS: u32 = 500;
        let map = shared();
        let [ours, theirs] = doorbells(&map) else { unreachable!("two were asked for") };
        let child = fork_child(|| {
            for round in 0..ROUNDS {
                while theirs.sequence() == round {
                    let _ = theirs.sleep(round, None);
                }
                ours.ring();
            }
            0
        });
        for round in 0..ROUNDS {
            theirs.ring();
            while ours.sequence() == round {
                let _ = ours.sleep(round, None);
            }
        }
        assert_eq!(reap(child), WaitStatus::Exited(child, 0));
        assert_eq!(ours.sleepers(), 0);
    }

    #[test]
    fn sleeper_killed_in_its_sleep_is_forgotten_on_reset() {
        let map = shared();
        let doorbell = &doorbells(&map)[0];
        let child = fork_child(|| {
            loop {
                let _ = doorbell.sleep(doorbell.sequence(), None);
            }
        });
        while doorbell.sleepers() == 0 {
            thread::yield_now();
        }
        kill(child, Signal::SIGKILL).unwrap();
        reap(child);
        assert_eq!(doorbell.sleepers(), 1);
        doorbell.ring();
        doorbell.reset();
        assert_eq!(doorbell.sleepers(), 0);
    }
}
