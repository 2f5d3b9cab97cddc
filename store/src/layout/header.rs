//! The first page of the tables: what this segment is, and words that everyone may bump.
//!
//! Hints are never trusted: a wrong one costs a longer search and nothing else.

use store_shm::doorbell::Doorbell;

use std::sync::atomic::{AtomicU32, AtomicU64};

/// Identity and geometry are written before the segment is shared; the rest as noted.
#[repr(C, align(128))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) reserved: AtomicU32,
    pub(crate) capacity_bytes: AtomicU64,
    pub(crate) slots: AtomicU64,
    pub(crate) clients: AtomicU64,
    pub(crate) buckets: AtomicU64,
    /// Monotonic milliseconds at which store time is zero.
    pub(crate) epoch_ms: AtomicU64,
    /// Mixed into derived ids, so that two stores never mint the same one.
    pub(crate) seed: AtomicU64,
    /// The client + 1 that keeps house (sweeps, spills, warms); 0 none. By CAS.
    pub(crate) keeper: AtomicU64,
    /// Rung when memory came back and somebody sleeps for it.
    pub(crate) space: Doorbell,
    /// Rung when there is work for the keeper: not its client's bell, which rings for its values.
    pub(crate) chores: Doorbell,
    /// Bytes that sleepers ask the keeper to free; fetch_max by them, swap by the keeper.
    pub(crate) wanted_bytes: AtomicU64,
    /// Set when a first large put asked for warm memory.
    pub(crate) warm_wanted: AtomicU64,
    /// Hint: no free chunk lies below.
    pub(crate) chunk_hint: AtomicU64,
    /// Hint: no free chunk lies at or above. fetch_max by who frees.
    pub(crate) chunk_top_hint: AtomicU64,
    /// Grows when pages of free chunks were given back to the kernel.
    pub(crate) punched: AtomicU64,
    /// Hint: no free slab lies below.
    pub(crate) slab_hint: AtomicU64,
    /// One more than the highest client number ever used. fetch_max.
    pub(crate) clients_high: AtomicU64,
    /// One more than the highest slab ever claimed. fetch_max.
    pub(crate) slabs_high: AtomicU64,
    /// Counters for people: spilled, restored, evicted, swept.
    pub(crate) spilled_objects: AtomicU64,
    pub(crate) spilled_bytes: AtomicU64,
    pub(crate) restored_objects: AtomicU64,
    pub(crate) evicted_objects: AtomicU64,
    pub(crate) swept_clients: AtomicU64,
    pub(crate) swept_holds: AtomicU64,
    pub(crate) reserved_words: [AtomicU64; 6],
}

const _: () = assert!(size_of::<Header>() == 256 && size_of::<Header>() <= 4096);
