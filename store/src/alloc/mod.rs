//! Where slots and bytes come from: spans anyone may claim, and private heaps on top of them.
//!
//! The one thing to know: there is no allocator process and no lock between processes. A chunk
//! belongs to whoever's number its word holds; claiming, giving back and adopting one are each one
//! CAS of that word (`span`, `slab`). What lies free inside an owned span is its owner's private
//! knowledge (`heap`), and can be rebuilt from the shared bits by anyone once the owner is dead.

#[cfg(not(feature = "loom"))]
pub(crate) mod heap;
pub(crate) mod slab;
pub(crate) mod span;
#[cfg(not(feature = "loom"))]
pub(crate) mod window;

/// Bytes of a granule in a span of small blocks: Arrow's alignment.
pub(crate) const SMALL_GRANULE: u64 = 64;
/// Bytes of a granule in a span of medium blocks: a page.
pub(crate) const MEDIUM_GRANULE: u64 = 4096;
/// Granules that one block may have: what eight bits can say.
pub(crate) const BLOCK_GRANULES_MAX: u64 = 256;
/// Largest small block, 16 KiB.
pub(crate) const SMALL_MAX: u64 = SMALL_GRANULE * BLOCK_GRANULES_MAX;
/// Largest medium block, 1 MiB.
pub(crate) const MEDIUM_MAX: u64 = MEDIUM_GRANULE * BLOCK_GRANULES_MAX;
/// Chunks of a full span of medium blocks, 4 MiB.
pub(crate) const MEDIUM_CHUNKS: u32 = 64;
