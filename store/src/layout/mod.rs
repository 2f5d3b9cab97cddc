//! The bytes that all processes see: which table lies where in the tables segment.
//!
//! ```text
//! 0        header                      4 KiB   identity, geometry, hints, counters
//!          clients                     128 B   a client: who, alive or being swept, its doorbell
//!          touched                     bits    a client: pages of its row it ever wrote
//!          entries                     128 B   an object: its word, place, size, id ...
//!          slot slabs                  128 B   256 entries: owner, which are taken, which came back
//!          chunk words                   8 B   64 KiB of data: what it is part of, whose
//!          chunk lengths                 4 B   chunks of the span that begins here
//!          chunk bits                  256 B   blocks that begin in a chunk, blocks that came back
//!          chunk backs                 4 KiB   block -> slot and length, for each granule
//!          index                         8 B   a bucket: the first entry of a chain
//!          rows                          8 B   what client c holds of slot s
//! ```
//!
//! The one thing to know: each table begins on a page, has its worst-case size from the start and
//! is sparse, so it costs what was touched. Numbers in the header are allegations until
//! [`Geometry::check`] has recomputed them.

pub(crate) mod chunk;
#[cfg(not(feature = "loom"))]
pub(crate) mod client;
pub(crate) mod entry;
#[cfg(not(feature = "loom"))]
pub(crate) mod header;
#[cfg(not(feature = "loom"))]
mod shared;

#[cfg(not(feature = "loom"))]
use crate::error::LayoutError;

/// "RAYLETS1" read as little-endian bytes.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"RAYLETS1");
/// Grows with every change of a byte that two processes both read.
pub const LAYOUT_VERSION: u32 = 3;
/// Bytes of data that are granted, claimed and given back as one.
pub const CHUNK_BYTES: u64 = 64 << 10;
/// Entries in one slab of slots.
pub(crate) const SLAB_SLOTS: u64 = if cfg!(feature = "loom") { 4 } else { 256 };
/// Words of one bitmap of a slab.
pub(crate) const SLAB_WORDS: usize = SLAB_SLOTS.div_ceil(64) as usize;
/// Hold cells on one page of a row.
pub(crate) const CELLS_PER_PAGE: u64 = 512;
const _: () = assert!(CELLS_PER_PAGE.is_multiple_of(SLAB_SLOTS), "A5: the cells of a slab lie on one page");
/// Granules of a span that one set of chunk bits describes.
pub(crate) const GRANULES: usize = if cfg!(feature = "loom") { 64 } else { 1024 };
/// Slots that a 24-bit number can name.
pub const SLOTS_MAX: u64 = 1 << 24;
/// Clients that fit the table: the wanted 4,096, a raylet, and as many again while those leave.
pub const CLIENTS_MAX: u64 = 8192;
/// 2 TiB: what a 25-bit chunk number can name.
pub const CAPACITY_MAX: u64 = CHUNK_BYTES << 25;
const PAGE: u64 = 4096;

/// How large each table of a store is; fixed when the store is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the data segment, whole chunks.
    pub capacity_bytes: u64,
    /// Entries, slot 0 (which names nothing) included; whole slabs.
    pub slots: u64,
    /// Rows of holds.
    pub clients: u64,
    /// Buckets of the index, a power of two.
    pub buckets: u64,
}

/// Where each table begins, in bytes from the start of the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets {
    pub(crate) clients: u64,
    pub(crate) touched: u64,
    pub(crate) entries: u64,
    pub(crate) slabs: u64,
    pub(crate) chunk_words: u64,
    pub(crate) chunk_lengths: u64,
    pub(crate) chunk_bits: u64,
    pub(crate) chunk_backs: u64,
    pub(crate) index: u64,
    pub(crate) rows: u64,
    pub(crate) total: u64,
}

impl Geometry {
    /// Tables for `capacity_bytes` of data: the worst case of 16 M slots from 1 GiB on, and one
    /// slot for every 64 bytes below.
    #[cfg(not(feature = "loom"))]
    pub fn for_capacity(capacity_bytes: u64, clients: u64) -> Result<Geometry, LayoutError> {
        let capacity_bytes = capacity_bytes.next_multiple_of(CHUNK_BYTES);
        let slots = (capacity_bytes / 64).clamp(16 * SLAB_SLOTS, SLOTS_MAX);
        let buckets = (capacity_bytes / 512).next_power_of_two().clamp(1 << 10, SLOTS_MAX / 2);
        let geometry = Geometry { capacity_bytes, slots, clients, buckets };
        geometry.check()?;
        Ok(geometry)
    }

    /// Refuses what no store of this version can have.
    #[cfg(not(feature = "loom"))]
    pub(crate) fn check(&self) -> Result<(), LayoutError> {
        let bad = |field, value, limit| Err(LayoutError::Geometry { field, value, limit });
        if self.capacity_bytes == 0
            || self.capacity_bytes > CAPACITY_MAX
            || !self.capacity_bytes.is_multiple_of(CHUNK_BYTES)
        {
            return bad("capacity_bytes", self.capacity_bytes, CAPACITY_MAX);
        }
        if self.slots == 0 || self.slots > SLOTS_MAX || !self.slots.is_multiple_of(SLAB_SLOTS) {
            return bad("slots", self.slots, SLOTS_MAX);
        }
        if self.clients < 2 || self.clients > CLIENTS_MAX {
            return bad("clients", self.clients, CLIENTS_MAX);
        }
        if !self.buckets.is_power_of_two() || self.buckets > SLOTS_MAX {
            return bad("buckets", self.buckets, SLOTS_MAX);
        }
        Ok(())
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.capacity_bytes / CHUNK_BYTES
    }

    /// Words of the bitmap of row pages that one client may have touched.
    pub(crate) fn touched_words(&self) -> u64 {
        self.slots.div_ceil(CELLS_PER_PAGE * 64)
    }

    /// Where each table lies; the sums cannot overflow for a checked geometry.
    pub(crate) fn offsets(&self) -> Offsets {
        let mut at = PAGE;
        let mut table = |bytes: u64| {
            let start = at;
            at += bytes.next_multiple_of(PAGE);
            start
        };
        let chunks = self.chunks();
        let clients = table(self.clients * 128);
        let touched = table(self.clients * self.touched_words() * 8);
        let entries = table(self.slots * 128);
        let slabs = table(self.slots / SLAB_SLOTS * 128);
        let chunk_words = table(chunks * 8);
        let chunk_lengths = table(chunks * 4);
        let chunk_bits = table(chunks * 256);
        let chunk_backs = table(chunks * GRANULES as u64 * 4);
        let index = table(self.buckets * 8);
        let rows = table(self.clients * self.slots * 8);
        Offsets {
            clients,
            touched,
            entries,
            slabs,
            chunk_words,
            chunk_lengths,
            chunk_bits,
            chunk_backs,
            index,
            rows,
            total: at,
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_store_fits_the_address_space() {
        let largest = Geometry::for_capacity(CAPACITY_MAX, CLIENTS_MAX).expect("the limits are legal");
        assert!(largest.offsets().total < 1 << 42, "tables take {} bytes", largest.offsets().total);
    }

    #[test]
    fn impossible_sizes_are_refused_with_their_limits() {
        let good = Geometry::for_capacity(1 << 20, 8).expect("a small store is legal");
        for bad in [
            Geometry { capacity_bytes: 0, ..good },
            Geometry { capacity_bytes: CAPACITY_MAX + CHUNK_BYTES, ..good },
            Geometry { slots: SLOTS_MAX * 2, ..good },
            Geometry { clients: 1, ..good },
            Geometry { clients: CLIENTS_MAX + 1, ..good },
            Geometry { buckets: 3, ..good },
        ] {
            assert!(matches!(bad.check(), Err(LayoutError::Geometry { .. })), "{bad:?}");
        }
    }
}
