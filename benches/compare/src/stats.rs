//! Samples, quantiles and the timed loops that every contender shares.
//!
//! The one thing to know: a loop that times ours and a loop that times a peer are the same loop, so
//! the cost of looking at the clock is on both sides. No unit is converted here.

use std::collections::VecDeque;
use std::time::Instant;

/// Tasks under way at once where a row says "in flight".
pub const OUTSTANDING: usize = 10_000;
/// Operations between two looks at the clock where one operation takes nanoseconds.
pub const OPERATIONS_PER_BATCH: usize = 256;

/// Nanoseconds for one operation, as the mean of each batch. The tail of such samples is the tail of
/// batches: one slow operation among 256 shows as a 256th of itself.
pub fn time_batches(batch_count: usize, operations: usize, mut operation: impl FnMut()) -> Vec<f64> {
    (0..batch_count)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..operations {
                operation();
            }
            start.elapsed().as_nanos() as f64 / operations as f64
        })
        .collect()
}

/// As [`time_batches`], of operations that make something: ending what a batch made is not timed.
pub fn time_batches_of_makings<T, E>(
    batch_count: usize,
    operations: usize,
    mut make: impl FnMut() -> Result<T, E>,
) -> Result<Vec<f64>, E> {
    let mut made = Vec::with_capacity(operations);
    (0..batch_count)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..operations {
                made.push(make()?);
            }
            let nanos = start.elapsed().as_nanos() as f64;
            made.clear();
            Ok(nanos / operations as f64)
        })
        .collect()
}

/// The sum of all eight words of the first cache line; zero where there is none. Whoever times a get
/// adds these up and shows the end of it to `black_box`: storing each would cost more than reading.
#[inline]
pub fn read_first_line(bytes: &[u8]) -> u64 {
    let words = bytes.first_chunk::<64>().map(|line| line.as_chunks::<8>().0);
    let sum = |sum: u64, word: &[u8; 8]| sum.wrapping_add(u64::from_ne_bytes(*word));
    words.map_or(0, |words| words.iter().fold(0, sum))
}

/// Nanoseconds of each of `count` operations, the first error ending the loop.
pub fn time_each<E>(count: usize, mut operation: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            operation()?;
            Ok(start.elapsed().as_nanos() as f64)
        })
        .collect()
}

/// Tasks completed a second out of `count`, never more than [`OUTSTANDING`] of them submitted and not
/// awaited; the oldest is awaited first. From the first submission to the last result.
pub fn time_in_flight<T, E>(
    count: usize,
    mut submit: impl FnMut() -> Result<T, E>,
    mut await_result: impl FnMut(T) -> Result<(), E>,
) -> Result<f64, E> {
    let mut outstanding = VecDeque::with_capacity(OUTSTANDING);
    let start = Instant::now();
    for _ in 0..count {
        if outstanding.len() == OUTSTANDING
            && let Some(oldest) = outstanding.pop_front()
        {
            await_result(oldest)?;
        }
        outstanding.push_back(submit()?);
    }
    outstanding.into_iter().try_for_each(await_result)?;
    Ok(count as f64 * 1e9 / start.elapsed().as_nanos() as f64)
}

/// Gigabytes a second of each of `count` operations that move `bytes` each.
pub fn time_copies<E>(count: usize, bytes: usize, operation: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    let nanos = time_each(count, operation)?;
    Ok(nanos.into_iter().map(|each| bytes as f64 / each).collect())
}

/// The value below which `quantile` of the samples lie; the nearest sample, none where there are none.
pub fn quantile(samples: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied()
}

/// The middle sample.
pub fn median(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.5)
}

/// What all rounds of one contender came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The median over rounds of each round's median.
    pub median: f64,
    /// Over the samples of all rounds; for a rate these are its best moments and are not printed.
    pub p99: f64,
    /// As `p99`, one in a thousand.
    pub p999: f64,
    /// How many samples stand behind the tail.
    pub sample_count: usize,
}

impl Summary {
    /// None where no round gave a sample.
    pub fn of(rounds: &[Vec<f64>]) -> Option<Self> {
        let medians: Vec<f64> = rounds.iter().filter_map(|round| median(round)).collect();
        let all: Vec<f64> = rounds.iter().flatten().copied().collect();
        Some(Self {
            median: median(&medians)?,
            p99: quantile(&all, 0.99)?,
            p999: quantile(&all, 0.999)?,
            sample_count: all.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_slow_round_does_not_move_the_median() {
        let rounds = vec![vec![1.0, 2.0, 3.0], vec![100.0; 3], vec![2.0; 3]];
        let summary = Summary::of(&rounds).expect("there are samples");
        assert_eq!((summary.median, summary.p99, summary.sample_count), (2.0, 100.0, 9));
    }

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(median(&samples), Some(500.0));
        assert_eq!(quantile(&samples, 0.999), Some(999.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn no_more_are_in_flight_than_may_be() {
        let (most, now) = (Cell::new(0), Cell::new(0_usize));
        let submit = || {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            Ok::<(), ()>(())
        };
        let end = |()| {
            now.set(now.get() - 1);
            Ok(())
        };
        let rate = time_in_flight(OUTSTANDING * 2, submit, end);
        assert!(rate.is_ok_and(|rate| rate > 0.0));
        assert_eq!((most.get(), now.get()), (OUTSTANDING, 0));
    }

    #[test]
    fn a_loop_gives_one_sample_for_each_batch() {
        assert_eq!(time_batches(3, 4, || {}).len(), 3);
        assert_eq!(time_each(5, || Err::<(), u8>(7)), Err(7));
        assert_eq!(time_copies(2, 8, || Ok::<(), u8>(())).map(|rates| rates.len()), Ok(2));
    }
}
