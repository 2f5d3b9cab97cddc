//! What tests check and call: the invariants, and the shared steps of operations one by one.

use crate::alloc::{MEDIUM_GRANULE, SMALL_GRANULE};
use crate::hold::{DECIDING, HOLDS};
use crate::inspect::Usage;
use crate::layout::chunk::Kind;
use crate::layout::entry::{FLAG_DELETED, IN_MEMORY};
use crate::layout::{CHUNK_BYTES, GRANULES};
use crate::object::ObjectRef;
use crate::publish::PUBLISHED;
use crate::state::{Snapshot, State};
use crate::store::{Inner, Store};
use crate::sync::Ordering;
use crate::tables::Handle;

/// Everything that holds while nobody works. Panics with the number of what does not.
pub(crate) fn check_invariants(inner: &Inner) {
    let used_by_entries: u64 = inner.living_slots().map(|slot| check_entry(inner, slot)).sum();
    check_blocks_are_named(inner);
    let usage = inner.usage();
    let Usage { capacity_bytes, used_bytes, unused_bytes, free_bytes, .. } = usage;
    assert_eq!(used_bytes + unused_bytes + free_bytes, capacity_bytes, "A1: used + unused + free = capacity");
    assert_eq!(used_bytes, used_by_entries, "A2: blocks by bits, blocks by entries");
}

/// One entry; returns the bytes of its blocks.
fn check_entry(inner: &Inner, slot: u32) -> u64 {
    let entry = inner.tables.entry(slot);
    let word = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
    assert!(
        matches!(word.state, State::Sealed | State::Promised | State::Writing),
        "H1: slot {slot} rests as {word:?}"
    );
    for client in inner.tables.clients_in_use() {
        if inner.tables.has_touched(client, slot) {
            let cell = inner.tables.cell(client, slot).load(Ordering::SeqCst);
            assert_eq!(cell & DECIDING, 0, "H1: client {client} is still deciding over slot {slot}");
            let class = entry.holders.load(Ordering::SeqCst) >> (client % 64) & 1;
            assert!(cell & HOLDS == 0 || class == 1, "H3: client {client} holds slot {slot} unseen");
        }
    }
    let is_deleted = entry.flags.load(Ordering::SeqCst) & FLAG_DELETED != 0;
    if entry.publisher.load(Ordering::SeqCst) == PUBLISHED && !is_deleted {
        let handle = Handle { slot, generation: word.generation };
        assert_eq!(inner.tables.find(&inner.id_of(slot)), Some(handle), "I1: slot {slot} is not found by its id");
    }
    let listed = entry.listed.load(Ordering::SeqCst);
    assert_eq!(listed & ((1 << 40) - 1), 0, "L1: slot {slot} carries a tag: {listed:#x}");
    for position in 0..entry.children.load(Ordering::SeqCst) {
        let child = inner.tables.list_item(slot, position).expect("L3: a list item names no slot");
        let word = Snapshot::unpack(inner.tables.entry(child.slot).word.load(Ordering::SeqCst));
        assert!(
            word.lives() && word.generation == child.generation,
            "L3: {child:?} in the list of slot {slot} is gone"
        );
    }
    block_bytes(inner, slot)
}

fn block_bytes(inner: &Inner, slot: u32) -> u64 {
    let entry = inner.tables.entry(slot);
    let size = entry.size.load(Ordering::SeqCst);
    let location = entry.location.load(Ordering::SeqCst);
    let value = if location & IN_MEMORY != 0 { rounded(size) } else { 0 };
    let list = entry.list.load(Ordering::SeqCst);
    let list = if list & IN_MEMORY != 0 {
        rounded(u64::from(entry.children.load(Ordering::SeqCst)) * crate::list::ITEM_BYTES)
    } else {
        0
    };
    value + list
}

fn rounded(bytes: u64) -> u64 {
    match bytes {
        0 => 0,
        1..=crate::alloc::SMALL_MAX => bytes.next_multiple_of(SMALL_GRANULE),
        _ if bytes <= crate::alloc::MEDIUM_MAX => bytes.next_multiple_of(MEDIUM_GRANULE),
        _ => bytes.next_multiple_of(CHUNK_BYTES),
    }
}

fn check_blocks_are_named(inner: &Inner) {
    for chunk in 0..inner.tables.chunk_count() {
        let word = inner.tables.span_word(chunk);
        if matches!(word.kind, Kind::Free | Kind::Body) {
            continue;
        }
        let bits = &inner.tables.chunk_bits[chunk as usize];
        for granule in 0..GRANULES {
            let taken =
                bits.heads[granule / 64].load(Ordering::SeqCst) & !bits.freed[granule / 64].load(Ordering::SeqCst);
            if taken >> (granule % 64) & 1 == 1 {
                assert!(
                    inner.party().block_is_named(chunk, granule, word.kind),
                    "A2: granule {granule} of chunk {chunk} is nobody's"
                );
            }
        }
    }
}

impl Store {
    /// Moves one object to disk now; false where somebody views it.
    pub fn spill_now(&self, object: &ObjectRef) -> Result<bool, crate::spill_file::SpillError> {
        self.inner.spill_one(object.slot())
    }

    /// Spills until `bytes` came back; returns how many did.
    pub fn spill_bytes(&self, bytes: u64) -> u64 {
        self.inner.spill(bytes)
    }

    /// By when an object is taken to have been used last, in milliseconds of the store's time.
    pub fn used_ms(&self, object: &ObjectRef) -> u32 {
        self.inner.tables.entry(object.slot()).used_ms.load(Ordering::Relaxed)
    }

    /// Has it taken to have been used then.
    pub fn set_used_ms(&self, object: &ObjectRef, used_ms: u32) {
        self.inner.tables.entry(object.slot()).used_ms.store(used_ms, Ordering::Relaxed);
    }

    /// Whether a spiller stands between the two stores in which nobody can pin.
    pub fn is_unloading(&self, object: &ObjectRef) -> bool {
        let word = self.inner.tables.entry(object.slot()).word.load(Ordering::SeqCst);
        Snapshot::unpack(word).state == State::Unloading
    }

    /// Lets the heap's active spans rest, so that a client without objects owns nothing.
    pub fn rest(&self) {
        self.inner.rest_heaps();
    }

    /// Whether the bytes of an object are known to be valid in its encoding.
    pub fn is_validated(&self, object: &ObjectRef) -> bool {
        self.inner.is_validated(object.handle())
    }

    /// Ends this client as a kill would: what it holds stays in its row for a sweep, and nothing
    /// that is dropped from now on gives anything back.
    pub fn abandon(&self) {
        let me = self.inner.me.swap(0, Ordering::SeqCst);
        self.inner.tables.leave(me as u16);
    }

    /// Clients that the kernel says are dead and that are not swept yet.
    pub fn unswept_clients(&self) -> usize {
        self.inner.tables.dead_clients().len()
    }
}
