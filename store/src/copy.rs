//! Copying a value to where it stays.
//!
//! The one thing to know: one core does not use up the memory's bandwidth, so large values are
//! copied by several, past the caches. They take piece after piece, so a thread that comes late, or
//! never, costs nothing but its share.

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
            stream(from, to);
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

/// A line of the caches.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Line([std::arch::x86_64::__m128i; 4]);

/// Copies past the caches: a line that is written whole is not read first, and what is so large would only push
/// out what others use. Both have one length.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn stream(from: &[u8], to: &mut [u8]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    // SAFETY: a line may hold any bytes.
    let (head, lines, tail) = unsafe { to.align_to_mut::<Line>() };
    let (first, from) = from.split_at(head.len());
    let (middle, last) = from.split_at(size_of_val(lines));
    head.copy_from_slice(first);
    for (line, from) in lines.iter_mut().zip(middle.chunks_exact(size_of::<Line>())) {
        for (quarter, from) in line.0.iter_mut().zip(from.chunks_exact(16)) {
            // SAFETY: 16 bytes each, the place aligned to as many; every x86-64 knows the instructions.
            unsafe { _mm_stream_si128(quarter, _mm_loadu_si128(from.as_ptr().cast())) };
        }
    }
    tail.copy_from_slice(last);
    // Such stores are not ordered by those that publish the value.
    // SAFETY: every x86-64 knows the instruction.
    unsafe { _mm_sfence() };
}

/// The library's way where there is no portable other.
#[cfg(not(target_arch = "x86_64"))]
fn stream(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
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
            // Places that begin anywhere in a line, and end anywhere.
            for skipped in [0, 1, 16, 63] {
                let from: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
                let mut to = vec![0; skipped + bytes];
                copy(&from, &mut to[skipped..]);
                assert!(from == to[skipped..], "{bytes} bytes were not copied whole");
            }
        }
    }
}
