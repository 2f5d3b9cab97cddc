//! Two processes that sleep on two futex words: what no wake-up can beat.
//!
//! The one thing to know: a sample is a whole round trip, and each end has a core. Nothing of the
//! store is linked into these loops.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::child::{HARNESS_CORE, OTHER_CORE, OwnedChild, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::hogs::Hogs;
use crate::pace::{CALLS, at_pace};
use crate::plan::Made;
use crate::raw::{PAGE_BYTES, SharedPages, WORDS_PER_LINE, futex_wait, futex_wake};
use crate::run::Bench;

/// The word the harness writes, then the word the other process writes, a line apart.
const PING: usize = 0;
const PONG: usize = WORDS_PER_LINE;

/// Round trips one after the other.
pub fn back_to_back(bench: &Bench) -> Made {
    let mut pair = Pair::start()?;
    let count = bench.effort.count(3_000);
    Ok(Some(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        (0..count).map(|_| pair.trip()).collect()
    })))
}

/// One round trip a millisecond.
pub fn paced(bench: &Bench) -> Made {
    let mut pair = Pair::start()?;
    let count = bench.effort.count(CALLS);
    Ok(Some(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        at_pace(count, || pair.trip())
    })))
}

/// One round trip a millisecond while both cores are busy with others.
pub fn beside_hogs(bench: &Bench) -> Made {
    let mut pair = Pair::start()?;
    let hogs = Hogs::start()?;
    let count = bench.effort.count(CALLS);
    Ok(Some(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        hogs.beside(|| at_pace(count, || pair.trip()))
    })))
}

/// The harness's end and the other process.
struct Pair {
    pages: SharedPages,
    other: OwnedChild,
    turn: u32,
}

impl Pair {
    fn start() -> Result<Self, BenchError> {
        let pages = SharedPages::warm(PAGE_BYTES)?;
        pages.words()[PING].store(0, Ordering::Relaxed);
        let path = pages.path().display().to_string();
        let core = OTHER_CORE.to_string();
        let other = OwnedChild::start_role(&["futex-echo", "--pages", &path, "--core", &core])?;
        Ok(Self { pages, other, turn: 0 })
    }

    fn trip(&mut self) -> Result<f64, BenchError> {
        if self.other.has_ended() {
            return Err(BenchError::Answer { peer: "futex", answer: String::new() });
        }
        self.turn += 1;
        let start = Instant::now();
        hand_over(self.pages.futex_word(PING), self.turn);
        await_turn(self.pages.futex_word(PONG), self.turn);
        Ok(start.elapsed().as_nanos() as f64)
    }
}

fn hand_over(word: &AtomicU32, turn: u32) {
    // Release: pairs with the acquire in `await_turn`.
    word.store(turn, Ordering::Release);
    futex_wake(word);
}

fn await_turn(word: &AtomicU32, turn: u32) {
    loop {
        let seen = word.load(Ordering::Acquire);
        if seen == turn {
            return;
        }
        futex_wait(word, seen);
    }
}

/// The other end; ends with the harness.
pub fn echo(pages: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    let pages = SharedPages::open(pages)?;
    for turn in 1..u32::MAX {
        await_turn(pages.futex_word(PING), turn);
        hand_over(pages.futex_word(PONG), turn);
    }
    Ok(())
}
