//! Sleeping on a word of shared memory and waking those who do.
//!
//! The one thing to know: these are *shared* futexes, found by the page and not by the address, so
//! they work between processes that map a segment at different places. Every return of [`wait`] is a
//! hint: the caller reads the word again and decides. It must not know what the word means.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::errno::Errno;

/// Why [`wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum WaitOutcome {
    /// Somebody woke us, or a signal or anything else did: look at the word again.
    Woken,
    /// The word was not the expected one, so there was nothing to sleep for.
    Changed,
    /// The time was up.
    TimedOut,
}

/// Sleeps while the word is `expected`, at most `timeout` of monotonic time. Comparing and going to
/// sleep are one step in the kernel, so a wake after a change of the word is never lost.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> WaitOutcome {
    let limit = timeout.map(timespec);
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: (1) the word outlives the call, and the kernel reads it atomically; (2) the limit is
    // null or points to `limit` above, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, limit) };
    match Errno::result(result) {
        Err(Errno::EAGAIN) => WaitOutcome::Changed,
        Err(Errno::ETIMEDOUT) => WaitOutcome::TimedOut,
        Ok(_) | Err(_) => WaitOutcome::Woken,
    }
}

/// Wakes everybody who sleeps on the word; says how many there were.
pub fn wake_all(word: &AtomicU32) -> usize {
    wake(word, i32::MAX)
}

/// Wakes one of those who sleep on the word; says whether there was any (0 or 1).
pub fn wake_one(word: &AtomicU32) -> usize {
    wake(word, 1)
}

fn wake(word: &AtomicU32, count_max: i32) -> usize {
    // SAFETY: the word is mapped memory; the kernel uses its address only.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count_max) };
    usize::try_from(woken).unwrap_or(0)
}

/// A time too long for the kernel's type becomes its longest, which nobody lives to see.
fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;

    #[test]
    fn changed_word_does_not_sleep() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, None), WaitOutcome::Changed);
    }

    #[test]
    fn unchanged_word_times_out() {
        let word = AtomicU32::new(1);
        let timeout = Some(Duration::from_micros(50));
        assert_eq!(wait(&word, 1, timeout), WaitOutcome::TimedOut);
        assert_eq!(wait(&word, 1, Some(Duration::ZERO)), WaitOutcome::TimedOut);
    }

    #[test]
    fn endless_timeout_is_not_an_error() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, Some(Duration::MAX)), WaitOutcome::Changed);
        assert_eq!(timespec(Duration::MAX).tv_sec, libc::time_t::MAX);
    }

    #[test]
    fn waking_nobody_wakes_none() {
        let word = AtomicU32::new(0);
        assert_eq!(wake_all(&word), 0);
        assert_eq!(wake_one(&word), 0);
    }

    #[test]
    fn sleeper_is_woken_after_the_word_changed() {
        let word = AtomicU32::new(0);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while word.load(Ordering::Acquire) == 0 {
                    let outcome = wait(&word, 0, None);
                    assert_ne!(outcome, WaitOutcome::TimedOut);
                }
            });
            word.store(1, Ordering::Release);
            wake_all(&word);
            sleeper.join().unwrap();
        });
    }
}
