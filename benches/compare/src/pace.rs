//! Calls at a pace: whoever is called has fallen asleep by the next one.
//!
//! The one thing to know: only the call is timed, not the wait for its millisecond.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// From the start of one call to the start of the next.
const PERIOD: Duration = Duration::from_millis(1);
/// Calls of a full round.
pub const CALLS: usize = 400;

/// What each of `count` calls gives, one a millisecond; a call that is late moves those after it.
pub fn at_pace(count: usize, mut call: impl FnMut() -> Result<f64, BenchError>) -> Result<Vec<f64>, BenchError> {
    let mut next = Instant::now();
    (0..count)
        .map(|_| {
            next = (next + PERIOD).max(Instant::now());
            sleep(next.saturating_duration_since(Instant::now()));
            call()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_a_period_apart() {
        let start = Instant::now();
        let samples = at_pace(3, || Ok(1.0)).expect("no call fails");
        assert_eq!(samples, [1.0; 3]);
        assert!(start.elapsed() >= 3 * PERIOD);
    }
}
