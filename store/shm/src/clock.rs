//! The cheap clock: monotonic milliseconds, as coarse as the kernel's tick.
//!
//! The one thing to know: a reading costs a few nanoseconds, so a put can afford one. It must not
//! be used to measure anything.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of the system's monotonic clock, a tick late at most.
#[inline]
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the coarse clock exists since Linux 2.6.32");
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}
