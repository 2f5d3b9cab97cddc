//! What no store can beat: atomics, copies, page faults and cache misses, bare.
//!
//! The one thing to know: nothing of the store is linked into these loops, and each does the least
//! that its name allows.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::BenchError;
use crate::plan::Peer;
use crate::raw::{PAGE_BYTES, SharedPages};
use crate::run::{Bench, Boxed, no_such_peer};
use crate::stats::{OPERATIONS_PER_BATCH, time_batches, time_copies};
use crate::store::work::{LARGE_BYTES, LARGE_PLACES, MEDIUM_PLACES, MIB, RANDOM_GET_REGIONS, StoreWork};

/// One fetch_add and one fetch_sub on a line nobody else writes, in a loop.
pub fn rmw_pair(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let pages = SharedPages::warm(PAGE_BYTES)?;
    let batches = bench.effort.count(4_000);
    Ok(Some(Box::new(move || {
        let word = &pages.words()[0];
        Ok(time_batches(batches, OPERATIONS_PER_BATCH, || {
            black_box(word.fetch_add(1, Ordering::SeqCst));
            black_box(word.fetch_sub(1, Ordering::SeqCst));
        }))
    })))
}

/// The same touched source into warm shared pages, as many places as a put rotates over.
pub fn memcpy(work: StoreWork, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let (bytes, places, count) = match work {
        StoreWork::PutMediumWarm => (MIB, MEDIUM_PLACES, bench.effort.count(512)),
        StoreWork::PutLargeWarm => (LARGE_BYTES, LARGE_PLACES, bench.effort.count(8)),
        _ => return no_such_peer(work, Peer::Memcpy),
    };
    let pages = SharedPages::warm(bytes * places)?;
    let source = bench.source();
    let mut place = 0;
    Ok(Some(Box::new(move || {
        time_copies(count, bytes, || {
            place = (place + 1) % places;
            pages.copy_in(place * bytes, &source[..bytes]);
            Ok(())
        })
    })))
}

/// The first write to each of 100 MiB of shared pages: one word a page, so this is the kernel's
/// time alone and more than any copy into such pages reaches.
pub fn faults(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let count = bench.effort.count(4);
    Ok(Some(Box::new(move || (0..count).map(|_| fault_rate()).collect())))
}

fn fault_rate() -> Result<f64, BenchError> {
    let pages = SharedPages::untouched(LARGE_BYTES)?;
    let start = Instant::now();
    for page in pages.words().chunks_exact(PAGE_BYTES / size_of::<u64>()) {
        page[0].store(1, Ordering::Relaxed);
    }
    Ok(LARGE_BYTES as f64 / start.elapsed().as_nanos() as f64)
}

/// As many dependent random lines as one get touches, each out of as large a region as the get's.
pub fn pointer_chase(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let mut chases = Vec::new();
    for region in RANDOM_GET_REGIONS {
        chases.push(Chase::new(bench.effort.count(region.lines), region.stride_bytes)?);
    }
    let batches = bench.effort.count(4_000);
    Ok(Some(Box::new(move || {
        let mut carried = 0;
        Ok(time_batches(batches, OPERATIONS_PER_BATCH, || {
            for chase in &mut chases {
                carried = chase.hop(carried);
            }
        }))
    })))
}

/// One random cycle through the first words of all lines of a region.
struct Chase {
    pages: SharedPages,
    at: usize,
    // Always zero, which the compiler cannot know.
    nothing: usize,
}

impl Chase {
    fn new(line_count: usize, stride_bytes: usize) -> Result<Self, BenchError> {
        let pages = SharedPages::untouched(line_count * stride_bytes)?;
        draw_cycle(pages.words(), line_count, stride_bytes / size_of::<u64>());
        Ok(Self { pages, at: 0, nothing: black_box(0) })
    }

    /// The next line's number; waits for `carried`, the number that the hop before this one loaded.
    fn hop(&mut self, carried: usize) -> usize {
        let index = self.at + (carried & self.nothing);
        self.at = self.pages.words()[index].load(Ordering::Relaxed) as usize;
        self.at
    }
}

/// Sattolo's shuffle with a fixed seed.
fn draw_cycle(words: &[AtomicU64], line_count: usize, stride: usize) {
    let line = |index: usize| &words[index * stride];
    (0..line_count).for_each(|index| line(index).store((index * stride) as u64, Ordering::Relaxed));
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for index in (1..line_count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = line((state % index as u64) as usize);
        let mine = line(index).load(Ordering::Relaxed);
        line(index).store(other.swap(mine, Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chase_visits_every_line_once() {
        let line_count = 4096;
        let mut chase = Chase::new(line_count, 128).expect("pages");
        for step in 1..=line_count {
            assert_eq!(chase.hop(step) == 0, step == line_count, "step {step}");
        }
    }
}
