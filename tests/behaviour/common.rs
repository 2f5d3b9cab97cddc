//! Stores to test with, and what must be true at the end of a test.
//!
//! The one thing to know: stores without threads (`small`) are deterministic and never wait; `kept`
//! ones have the threads that users have. It must not know any promise that is tested.

use std::time::Duration;
use store::{Config, CreateOptions, Keeping, ObjectId, Store};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
/// Far longer than anything here takes: who waits that long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a store without threads that never waits is made with.
pub(crate) fn small_config(capacity_bytes: u64) -> Config {
    Config {
        capacity_bytes,
        max_clients: 32,
        label: "behaviour".to_owned(),
        create_timeout: Duration::ZERO,
        keeping: Keeping::Inline,
        ..Config::default()
    }
}

/// A store without threads that never waits.
pub(crate) fn small(capacity_bytes: u64) -> Store {
    Store::in_process(small_config(capacity_bytes)).expect("a small store can be made")
}

/// A store as users have it, with threads that keep it.
pub(crate) fn kept(capacity_bytes: u64) -> Store {
    let config = Config { keeping: Keeping::Threads, create_timeout: PATIENCE, ..small_config(capacity_bytes) };
    Store::in_process(config).expect("a small store can be made")
}

/// Options that give an id.
pub(crate) fn under(id: ObjectId) -> CreateOptions<'static> {
    CreateOptions { id: Some(id), ..CreateOptions::default() }
}

/// Bytes that follow from a seed, cheap enough for gigabytes.
pub(crate) fn fill(seed: u64, bytes: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// As [`fill`], in a buffer of its own.
pub(crate) fn filled(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    fill(seed, &mut bytes);
    bytes
}

/// Lets other threads and processes run until `is_so`.
///
/// # Panics
///
/// When that takes longer than anything here does.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// What holds of a store that nobody has anything in: nothing is used, nothing is stranded.
pub(crate) fn check_nothing_is_left(store: &Store) {
    store.reclaim();
    // Where a thread keeps the store, it may be at it already.
    until("the dead are swept", || store.unswept_clients() == 0);
    store.rest();
    store.check_invariants();
    let usage = store.usage();
    assert_eq!(usage.used_bytes, 0, "objects are left: {:#?}", store.list());
    assert_eq!(usage.free_bytes, usage.capacity_bytes, "memory is stranded: {usage:?}");
    assert!(store.list().is_empty(), "objects are left: {:#?}", store.list());
}
