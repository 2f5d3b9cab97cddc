//! One object's entry: two cache lines that say what it is, where it lies and who may end it.
//!
//! ```text
//!   0 word        state, decider, generation (`state.rs`)
//!   8 location    0 none | bit 63: offset in data | bit 62: on disk
//!  16 size        bytes of the value
//!  24 holders     bit c % 64: a client of that class ever held this generation
//!  32 waiters     bit c % 64: a client of that class waits for the value
//!  40 listed      how many containers list it, and whose change is under way (`list.rs`)
//!  48 flags       encoding, lifetime, indexed, validated, on disk, deleted, promised by handle
//!  52 checksum    crc32 of the value, where asked for
//!  56 next        index chain: the next entry, marked when this one leaves
//!  64 id          28 bytes, in words
//!  92 children    how many objects its list names
//!  96 list        offset of its list of references in data, 0 none
//! 104 cursor      how far its list is counted (`list.rs`)
//! 112 made_ms     when it was created, store time
//! 116 used_ms     when somebody last took a hold from cold, store time
//! 120 creator     a client, generation 16 | number 16: who promised it; once sealed, who made it
//! 124 publisher   who enters it into the index (`publish.rs`)
//! ```
//!
//! | field | written by | while |
//! | --- | --- | --- |
//! | word | as `state.rs` says | always |
//! | location | decider; a restorer by CAS from disk to memory | writing, unloading; sealed |
//! | size, id, children, list, made_ms, creator | the decider | writing, or before promised |
//! | holders, waiters, flags | anyone, by fetch_or (flags: and fetch_and) | living |
//! | listed | whoever seals or frees a container, by CAS | living |
//! | next | its inserter; then whoever unlinks, by CAS | in the index |
//! | publisher | its creator; then whoever it names, and by CAS from nobody and the dead | living |
//! | cursor | who seals or frees this container, and who helps, by CAS | writing, dead |

use crate::object_id::ObjectId;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// See the drawing above.
#[repr(C, align(128))]
pub(crate) struct Entry {
    pub(crate) word: AtomicU64,
    pub(crate) location: AtomicU64,
    pub(crate) size: AtomicU64,
    pub(crate) holders: AtomicU64,
    pub(crate) waiters: AtomicU64,
    pub(crate) listed: AtomicU64,
    pub(crate) flags: AtomicU32,
    pub(crate) checksum: AtomicU32,
    pub(crate) next: AtomicU64,
    pub(crate) id: [AtomicU64; 3],
    pub(crate) id_index: AtomicU32,
    pub(crate) children: AtomicU32,
    pub(crate) list: AtomicU64,
    pub(crate) cursor: AtomicU64,
    pub(crate) made_ms: AtomicU32,
    pub(crate) used_ms: AtomicU32,
    pub(crate) creator: AtomicU32,
    pub(crate) publisher: AtomicU32,
}

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<Entry>() == 128);
    assert!(std::mem::offset_of!(Entry, flags) == 48);
    assert!(std::mem::offset_of!(Entry, next) == 56);
    assert!(std::mem::offset_of!(Entry, id) == 64);
    assert!(std::mem::offset_of!(Entry, list) == 96);
    assert!(std::mem::offset_of!(Entry, publisher) == 124);
};

/// The value lies in memory at the offset in the low bits.
pub(crate) const IN_MEMORY: u64 = 1 << 63;
/// The value lies in its spill file.
pub(crate) const ON_DISK: u64 = 1 << 62;

/// Flags: the low byte is the encoding.
pub(crate) const FLAG_ENCODING: u32 = 0xFF;
/// Outlives its references until somebody evicts it.
pub(crate) const FLAG_CACHED: u32 = 1 << 8;
/// Found by its id, or was, or is about to be: may stand in the index.
pub(crate) const FLAG_INDEXED: u32 = 1 << 9;
/// Its bytes were checked by its own writer or by a first reader.
pub(crate) const FLAG_VALIDATED: u32 = 1 << 10;
/// A spill file with these bytes exists.
pub(crate) const FLAG_FILE: u32 = 1 << 11;
/// Somebody asked for its deletion.
pub(crate) const FLAG_DELETED: u32 = 1 << 12;
/// `checksum` was computed at seal.
pub(crate) const FLAG_CHECKSUM: u32 = 1 << 13;
/// Lives until its name is dropped.
pub(crate) const FLAG_NAMED: u32 = 1 << 14;
/// Its creator promised it by handle, to whoever refers to it.
pub(crate) const FLAG_PROMISED: u32 = 1 << 15;

impl Entry {
    /// The id, as four words; a reader checks the generation afterwards.
    #[inline]
    pub(crate) fn id_words(&self) -> ([u64; 3], u32) {
        let words = [
            self.id[0].load(Ordering::Relaxed),
            self.id[1].load(Ordering::Relaxed),
            self.id[2].load(Ordering::Relaxed),
        ];
        (words, self.id_index.load(Ordering::Relaxed))
    }

    /// Whether this is the entry of `id`, word by word: a comparison of the arrays goes through
    /// memory and waits for its own stores.
    #[inline(always)]
    pub(crate) fn has_id(&self, id: &ObjectId) -> bool {
        let (words, index) = id.words();
        let [first, second, third] = &self.id;
        let differs = (first.load(Ordering::Relaxed) ^ words[0])
            | (second.load(Ordering::Relaxed) ^ words[1])
            | (third.load(Ordering::Relaxed) ^ words[2])
            | u64::from(self.id_index.load(Ordering::Relaxed) ^ index);
        differs == 0
    }

    #[cfg(feature = "loom")]
    pub(crate) fn new() -> Entry {
        let long = || AtomicU64::new(0);
        let short = || AtomicU32::new(0);
        Entry {
            word: long(),
            location: long(),
            size: long(),
            holders: long(),
            waiters: long(),
            listed: long(),
            flags: short(),
            checksum: short(),
            next: long(),
            id: [long(), long(), long()],
            id_index: short(),
            children: short(),
            list: long(),
            cursor: long(),
            made_ms: short(),
            used_ms: short(),
            creator: short(),
            publisher: short(),
        }
    }
}
