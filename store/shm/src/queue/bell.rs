//! A bell: one word that many claimers sleep on, of whom each ring wakes one.
//!
//! ```text
//! offset 0  sequence  u32  how often somebody was to be woken; wraps; the futex
//!        4  sleepers  u32  announcements that no ring has used up
//! ```
//!
//! The one thing to know: [`Bell::announce`], *then* look for work, then sleep. A ring costs one
//! load while nobody is announced. A [`crate::Doorbell`] will not do here: its count of sleepers
//! is mended when its one client is dead, and a bell has many, so the count has to mend itself.
//!
//! | word | written by | how |
//! | --- | --- | --- |
//! | sleepers + 1 | who is about to sleep | fetch_add, which also reads the sequence |
//! | sequence + 1 | who rings | CAS, then wakes; nothing while there are no sleepers |
//! | sleepers - 1 | who rang and woke one | CAS, while the sequence is the one it wrote |
//! | sleepers 0 | who rang and woke nobody, or all | CAS from exactly what it wrote |
//! | sleepers - 1 | who announced and was not woken | CAS, while the sequence is the one it read |
//!
//! Invariants:
//!
//! - **B1** No more sleep in the kernel, or will without looking again, than `sleepers` says. An
//!   announcement is used up only *after* its sleeper was woken, and by whom the sequence names, so
//!   nobody uses up another's; whoever ends or stops on the way leaves the count too high. Who was
//!   announced before a ring and is not asleep by then never will be, as the sequence changed: so a
//!   count that is too high costs one needless system call, which finds nobody and mends it.
//! - **B2** Between publishing and looking at `sleepers`, and between announcing and looking for
//!   work, lies a full fence: one of the two sees the other.

#[cfg(not(feature = "loom"))]
use std::mem::{align_of, size_of};
use std::time::Duration;

use crate::futex::WaitOutcome;
use crate::sync::{AtomicU64, Ordering, fence, fence_after_rmw};

const ONE_SLEEPER: u64 = 1 << 32;

/// See the drawing above. All zeros is a bell that nobody listens to.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bell {
    word: AtomicU64,
    #[cfg(feature = "loom")]
    kernel: crate::modelled::Sleepers,
}

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<Bell>() == 8);
    assert!(align_of::<Bell>() == 8);
    assert!(cfg!(target_endian = "little"), "the sequence is the half of the word at the lower address");
};

#[cfg(not(feature = "loom"))]
// SAFETY: (1) repr(C) of one u64, as asserted above; (2) any bytes are valid; (3) it is an atomic;
// (4) no Drop.
unsafe impl crate::map::Shared for Bell {}

fn sequence(word: u64) -> u32 {
    word as u32
}

fn sleepers(word: u64) -> u32 {
    (word >> 32) as u32
}

fn word_of(sequence: u32, sleepers: u32) -> u64 {
    u64::from(sleepers) << 32 | u64::from(sequence)
}

impl Bell {
    /// Says that we are about to sleep. Look for work after this, and not only before.
    #[must_use = "look for work, then sleep"]
    pub fn announce(&self) -> Announced<'_> {
        let before = self.word.fetch_add(ONE_SLEEPER, Ordering::AcqRel);
        // Pairs with the fence of whoever rings (B2).
        fence_after_rmw();
        Announced { bell: self, seen: sequence(before) }
    }

    /// Wakes one sleeper, if there is any, for what was published before.
    pub fn wake_one(&self) {
        // Pairs with the fence in `announce` (B2).
        fence(Ordering::SeqCst);
        self.wake_one_after_fence();
    }

    /// As [`Bell::wake_one`], where the last thing before it was a read-modify-write.
    #[inline]
    pub(crate) fn wake_one_after_rmw(&self) {
        fence_after_rmw();
        self.wake_one_after_fence();
    }

    #[inline]
    fn wake_one_after_fence(&self) {
        if sleepers(self.word.load(Ordering::Relaxed)) > 0 {
            self.wake_announced(1);
        }
    }

    #[cold]
    fn wake_announced(&self, most: usize) {
        let Some(ours) = self.next_sequence() else { return };
        let woken = self.wake(most);
        if woken == 1 && most == 1 {
            // Who was woken leaves this to us.
            self.use_up(sequence(ours));
        } else {
            // Nobody from before our ring is or will be asleep (B1), and if the word is still ours,
            // nobody from after it.
            let mended = word_of(sequence(ours), 0);
            let _ = self.word.compare_exchange(ours, mended, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The word with the next sequence, once it is there; `None` if nobody is announced.
    fn next_sequence(&self) -> Option<u64> {
        let mut word = self.word.load(Ordering::Relaxed);
        while sleepers(word) > 0 {
            let after = word_of(sequence(word).wrapping_add(1), sleepers(word));
            match self.word.compare_exchange(word, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(after),
                Err(found) => word = found,
            }
        }
        None
    }

    /// Wakes everybody: for news that one may not be enough for, such as an end, or a claimer that was
    /// woken and may have died of it.
    pub fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if sleepers(self.word.load(Ordering::Relaxed)) > 0 {
            self.wake_announced(usize::MAX);
        }
    }

    /// Announcements not used up; too high if claimers were killed or stopped in their sleep.
    pub fn sleepers(&self) -> u32 {
        sleepers(self.word.load(Ordering::SeqCst))
    }

    /// Uses up one announcement, if the sequence is still `ours`.
    fn use_up(&self, ours: u32) {
        let mut word = self.word.load(Ordering::Relaxed);
        while sequence(word) == ours && sleepers(word) > 0 {
            match self.word.compare_exchange(word, word - ONE_SLEEPER, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }

    #[cfg(not(feature = "loom"))]
    fn futex(&self) -> &std::sync::atomic::AtomicU32 {
        // SAFETY: the lower half of our own word: in bounds, aligned, alive as long as `self`. Only
        // its address is used, by the kernel; nobody loads or stores half a word.
        unsafe { &*self.word.as_ptr().cast::<std::sync::atomic::AtomicU32>() }
    }

    #[cfg(not(feature = "loom"))]
    fn wake(&self, most: usize) -> usize {
        use crate::futex;
        if most == 1 { futex::wake_one(self.futex()) } else { futex::wake_all(self.futex()) }
    }

    #[cfg(feature = "loom")]
    fn wake(&self, most: usize) -> usize {
        self.kernel.wake(most)
    }

    #[cfg(not(feature = "loom"))]
    fn wait(&self, seen: u32, timeout: Option<Duration>) -> WaitOutcome {
        crate::futex::wait(self.futex(), seen, timeout)
    }

    #[cfg(feature = "loom")]
    fn wait(&self, seen: u32, _timeout: Option<Duration>) -> WaitOutcome {
        let is_unchanged = || sequence(self.word.load(Ordering::Acquire)) == seen;
        if self.kernel.sleep_if(is_unchanged) { WaitOutcome::Woken } else { WaitOutcome::Changed }
    }
}

/// Somebody who may sleep on a bell; dropped, it goes on without.
#[derive(Debug)]
pub struct Announced<'a> {
    bell: &'a Bell,
    seen: u32,
}

impl Announced<'_> {
    /// Sleeps until a ring that came after the announcement wakes somebody. May return early: look for
    /// work again. Who does not look any more has to pass the ring on, with [`Bell::wake_one`].
    pub fn sleep(self, timeout: Option<Duration>) -> WaitOutcome {
        let outcome = self.bell.wait(self.seen, timeout);
        if outcome == WaitOutcome::Woken {
            // Who woke us uses up the announcement; a signal leaves it, which is mended (B1).
            std::mem::forget(self);
        }
        outcome
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "loom")]
        if crate::modelled::is_ending() {
            return;
        }
        self.bell.use_up(self.seen);
    }
}
