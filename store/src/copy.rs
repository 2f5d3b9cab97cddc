//! Copying a value to where it stays.
//!
//! The one thing to know: one core does not use up the memory's bandwidth, so large values are
//! copied by several. They take piece after piece, so a thread that comes late, or never, costs
//! nothing but its share.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// From here on threads pay: the copy takes ten times as long as starting them.
const TOGETHER_FROM_BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 1 << 20;
/// More threads add nothing once the memory is busy, and take cores from others.
const THREADS_MAX: usize = 4;

/// Copies `from` to `to`, which are of one length, by several threads where that pays.
///
/// # Panics
///
/// Where the lengths differ.
#[inline(always)]
pub fn copy(from: &[u8], to: &mut [u8]) {
    if from.len() < TOGETHER_FROM_BYTES { to.copy_from_slice(from) } else { copy_together(from, to) }
}

#[cold]
fn copy_together(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "what is copied is as long as its place");
    let pieces = Mutex::new(from.chunks(PIECE_BYTES).zip(to.chunks_mut(PIECE_BYTES)));
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let copy_pieces = || {
        while let Some((from, to)) = next() {
            to.copy_from_slice(from);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads() {
            // Without a thread there are fewer hands.
            let _ = thread::Builder::new().name("store-copy".to_owned()).spawn_scoped(scope, copy_pieces);
        }
        copy_pieces();
    });
}

/// As many as this thread may use cores now; it may have been bound to one since it last copied.
fn threads() -> usize {
    let Ok(cores) = sched_getaffinity(Pid::from_raw(0)) else { return 1 };
    (0..CpuSet::count()).filter(|&core| cores.is_set(core) == Ok(true)).take(THREADS_MAX).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_whoever_copies_it() {
        for bytes in [0, 1, TOGETHER_FROM_BYTES - 1, TOGETHER_FROM_BYTES, TOGETHER_FROM_BYTES + PIECE_BYTES + 1] {
            let from: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let mut to = vec![0; bytes];
            copy(&from, &mut to);
            assert!(from == to, "{bytes} bytes were not copied whole");
        }
    }
}
