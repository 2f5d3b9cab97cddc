//! The bytes of a queue in a segment.
//!
//! ```text
//! offset    0  magic u64 | records u64 | bell u32 | owner u32 | service u64 | reserved 32
//!          64  reaped u64 | reserved 56          the owner's line
//!         128  cursor u64 | reserved 120         the claimers' line
//!         256  record 0: word u64 | payload 15 x u64
//!         384  record 1 ..
//! ```
//!
//! The one thing to know: `magic` to `owner` are written once, before anybody else sees the queue;
//! what they say is checked when a queue is opened, and not read again. `service` changes rarely, so
//! its line is everybody's to read. All the rest is atomics.

#[cfg(not(feature = "loom"))]
use std::mem::{align_of, offset_of, size_of};

use crate::sync::AtomicU64;

/// Words that a record carries.
#[cfg(not(feature = "loom"))]
pub const PAYLOAD_WORDS: usize = 15;
/// Fewer, as loom explores each.
#[cfg(feature = "loom")]
pub const PAYLOAD_WORDS: usize = 1;

/// What a record carries: the owner's words, which nobody here looks at.
pub type Payload = [u64; PAYLOAD_WORDS];

/// "RAYQUEUE", and which layout this is.
#[cfg(not(feature = "loom"))]
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"RAYQUE\x00\x01");

/// The head of a queue; see the drawing above.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Header {
    #[cfg(not(feature = "loom"))]
    pub(crate) magic: AtomicU64,
    /// How many records follow, a power of two.
    #[cfg(not(feature = "loom"))]
    pub(crate) records: AtomicU64,
    /// Low half: which bell its claimers sleep on. High half: the client that submits.
    #[cfg(not(feature = "loom"))]
    pub(crate) bell_and_owner: AtomicU64,
    /// See [`super::Service`]. Written by whoever gives out claimers, and nobody else.
    pub(crate) service: AtomicU64,
    #[cfg(not(feature = "loom"))]
    reserved: [AtomicU64; 4],
    /// Number of the position below which the owner has reaped everything. Written by the owner; never
    /// too high, so a sweep may begin here.
    pub(crate) reaped: AtomicU64,
    #[cfg(not(feature = "loom"))]
    reserved_of_owner: [AtomicU64; 7],
    /// See `cursor`.
    pub(crate) cursor: AtomicU64,
    #[cfg(not(feature = "loom"))]
    reserved_of_claimers: [AtomicU64; 15],
}

/// One record; see the drawing above.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// See `word`.
    pub(crate) word: AtomicU64,
    /// Written by the owner alone, while the word is empty, or finished and reaped.
    pub(crate) payload: [AtomicU64; PAYLOAD_WORDS],
}

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<Header>() == 256);
    assert!(align_of::<Header>() == 128);
    assert!(offset_of!(Header, records) == 8);
    assert!(offset_of!(Header, bell_and_owner) == 16);
    assert!(offset_of!(Header, service) == 24);
    assert!(offset_of!(Header, reaped) == 64);
    assert!(offset_of!(Header, cursor) == 128);
    assert!(size_of::<Record>() == 128);
    assert!(align_of::<Record>() == 128);
    assert!(offset_of!(Record, payload) == 8);
};

#[cfg(not(feature = "loom"))]
// SAFETY: (1) repr(C) of u64 that fill it without padding, as asserted above; (2) any bytes are
// valid; (3) all fields are atomics; (4) no Drop.
unsafe impl crate::map::Shared for Header {}
#[cfg(not(feature = "loom"))]
// SAFETY: as above.
unsafe impl crate::map::Shared for Record {}

impl Record {
    /// Relaxed: the word's release store publishes it.
    #[inline]
    pub(crate) fn fill(&self, payload: &Payload) {
        use crate::sync::Ordering;
        for (word, value) in self.payload.iter().zip(payload) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// A copy; whole only if the word says the same before and after.
    #[inline]
    pub(crate) fn copy(&self) -> Payload {
        use crate::sync::Ordering;
        std::array::from_fn(|index| self.payload[index].load(Ordering::Relaxed))
    }
}
