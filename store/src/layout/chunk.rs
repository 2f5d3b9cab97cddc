//! Slabs of slots and chunks of data: who owns them, what is taken, what came back.
//!
//! A *span* is one or more chunks; its first chunk's word says what it is, the others' words name
//! the first. Both slabs and spans keep two bitmaps: `heads`, written by the owner alone with
//! plain stores when it hands something out, and `freed`, to which anyone who frees adds a bit and
//! from which the owner alone takes them away. Taken is `heads & !freed`. So handing out costs no
//! atomic read-modify-write, and freeing one.
//!
//! ```text
//!  63  61 60                      36 35                                0
//! +------+--------------------------+-----------------------------------+
//! | kind | owner, or first chunk    | generation (36 bits)              |
//! +------+--------------------------+-----------------------------------+
//! ```
//!
//! | kind | means | who may leave it |
//! | --- | --- | --- |
//! | free | nobody's; the owner field is a hint who has it mapped | anyone: CAS to claimed or body |
//! | body | part of the span that begins at the named chunk, while that is a span and long enough; else free | anyone, once it is free: CAS |
//! | claimed | being set up by the owner alone | owner: store |
//! | active, filling | its owner hands out small, medium blocks of it | owner: store small, medium |
//! | small, medium, large | nobody hands out of it | owner: CAS to active, filling; whoever frees its last block: CAS to free, generation + 1 |
//!
//! The generation grows whenever a span is claimed, activated or freed, so a CAS that slept
//! through any of these fails.

use super::{GRANULES, SLAB_WORDS};
use crate::sync::{AtomicU32, AtomicU64};

pub(crate) const NOBODY: u32 = 0xFFFF;
const GENERATION_BITS: u32 = 36;
const OWNER_BITS: u32 = 25;

/// What a slab or chunk is; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Free = 0,
    Body = 1,
    Claimed = 2,
    Active = 3,
    Small = 4,
    Medium = 5,
    Large = 6,
    Filling = 7,
}

/// One reading of a slab's or chunk's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanWord {
    pub(crate) kind: Kind,
    /// The owner, or for a body the number of the span's first chunk.
    pub(crate) owner: u32,
    pub(crate) generation: u64,
}

impl SpanWord {
    pub(crate) const fn pack(self) -> u64 {
        (self.kind as u64) << (GENERATION_BITS + OWNER_BITS)
            | (self.owner as u64 & ((1 << OWNER_BITS) - 1)) << GENERATION_BITS
            | self.generation & ((1 << GENERATION_BITS) - 1)
    }

    pub(crate) fn unpack(word: u64) -> SpanWord {
        let kind = match word >> (GENERATION_BITS + OWNER_BITS) {
            0 => Kind::Free,
            1 => Kind::Body,
            2 => Kind::Claimed,
            3 => Kind::Active,
            4 => Kind::Small,
            5 => Kind::Medium,
            6 => Kind::Large,
            _ => Kind::Filling,
        };
        SpanWord {
            kind,
            owner: (word >> GENERATION_BITS) as u32 & ((1 << OWNER_BITS) - 1),
            generation: word & ((1 << GENERATION_BITS) - 1),
        }
    }

    /// The next generation, as another kind, of another owner.
    pub(crate) const fn next(self, kind: Kind, owner: u32) -> SpanWord {
        let generation = (self.generation + 1) & ((1 << GENERATION_BITS) - 1);
        SpanWord { kind, owner, generation }
    }

    /// The same generation as another kind: only its owner may do so.
    pub(crate) const fn same(self, kind: Kind) -> SpanWord {
        SpanWord { kind, ..self }
    }
}

/// 256 entries: which are taken.
#[repr(C, align(128))]
pub(crate) struct SlotSlab {
    pub(crate) word: AtomicU64,
    pub(crate) heads: [AtomicU64; SLAB_WORDS],
    pub(crate) freed: [AtomicU64; SLAB_WORDS],
    pub(crate) reserved: [AtomicU64; 7],
}

/// The granules of one span at which a taken block begins.
#[repr(C, align(256))]
pub(crate) struct ChunkBits {
    pub(crate) heads: [AtomicU64; GRANULES / 64],
    pub(crate) freed: [AtomicU64; GRANULES / 64],
}

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<SlotSlab>() == 128);
    assert!(size_of::<ChunkBits>() == 256);
};

#[cfg(feature = "loom")]
impl SlotSlab {
    pub(crate) fn new() -> SlotSlab {
        SlotSlab {
            word: AtomicU64::new(0),
            heads: std::array::from_fn(|_| AtomicU64::new(0)),
            freed: std::array::from_fn(|_| AtomicU64::new(0)),
            reserved: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

#[cfg(feature = "loom")]
impl ChunkBits {
    pub(crate) fn new() -> ChunkBits {
        ChunkBits {
            heads: std::array::from_fn(|_| AtomicU64::new(0)),
            freed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Block -> slot and length: slot in the low 24 bits, granules less one above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    pub(crate) slot: u32,
    pub(crate) granules: u32,
}

impl Back {
    /// No block begins here.
    pub(crate) const NONE: u32 = 0;

    pub(crate) const fn pack(self) -> u32 {
        self.slot & 0xFF_FFFF | (self.granules - 1) << 24
    }

    pub(crate) const fn unpack(back: u32) -> Back {
        Back { slot: back & 0xFF_FFFF, granules: (back >> 24) + 1 }
    }
}

pub(crate) type Backs = AtomicU32;

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn span_words_and_backs_survive_packing() {
        for kind in
            [Kind::Free, Kind::Body, Kind::Claimed, Kind::Active, Kind::Small, Kind::Medium, Kind::Large, Kind::Filling]
        {
            let word = SpanWord { kind, owner: (1 << 25) - 1, generation: (1 << 36) - 2 };
            assert_eq!(SpanWord::unpack(word.pack()), word);
        }
        for granules in [1, 2, 255, 256] {
            let back = Back { slot: 0xAB_CDEF, granules };
            assert_eq!(Back::unpack(back.pack()), back);
        }
    }
}
