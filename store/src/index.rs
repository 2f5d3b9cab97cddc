//! From id to entry: chains that are pushed at the head and unlinked by marks.
//!
//! A bucket is one word, the link to the first entry; `Entry::next` is the link to the next. A
//! link is `mark 1 | slot 24 | low 39 bits of the generation`, so a link to an entry that was
//! reused no longer fits it, and a walk that meets one starts again. The algorithm is Michael's
//! lock-free list (SPAA 2002), unordered, with generations in place of safe reclamation.
//!
//! Invariants:
//!
//! - **I1** An entry enters by one CAS of its bucket, after a walk of exactly the chain that this
//!   CAS replaces found no living entry of the same id.
//! - **I2** Once marked, an entry's link never changes again in that life.
//! - **I3** An entry is freed only after a whole walk of its chain did not meet it.
//!
//! The one thing to know: ids that differ in their last four bytes only lie in neighbouring
//! buckets, so the results of one task and the puts of one driver share cache lines.

use crate::object_id::ObjectId;
use crate::state::Snapshot;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::tables::{Handle, Party, Tables};

const MARK: u64 = 1 << 63;
const SLOT_SHIFT: u32 = 39;
const TAG_MASK: u64 = (1 << SLOT_SHIFT) - 1;

/// Walks of one chain after which it cannot be that others change it: a stray store broke it.
const WALKS_MAX: u32 = 1 << 14;

fn link_to(handle: Handle) -> u64 {
    u64::from(handle.slot) << SLOT_SHIFT | handle.generation & TAG_MASK
}

fn slot_of(link: u64) -> u32 {
    (link >> SLOT_SHIFT) as u32 & 0xFF_FFFF
}

/// What a walk found at one link.
struct Hop {
    handle: Handle,
    next: u64,
    same_id: bool,
    lives: bool,
}

impl Tables {
    #[inline(always)]
    fn bucket(&self, id: &ObjectId) -> &AtomicU64 {
        let (words, index) = id.words();
        // Multiply-and-fold of the 24 bytes that siblings share, as in wyhash.
        let fold = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            wide as u64 ^ (wide >> 64) as u64
        };
        let mixed = fold(words[0] ^ 0xA076_1D64_78BD_642F, words[1] ^ 0xE703_7ED1_A0B4_28DB);
        let mixed = fold(mixed ^ words[2], 0x8EBC_6AF0_9C88_C6E3);
        &self.index[mixed.wrapping_add(u64::from(index)) as usize & (self.index.len() - 1)]
    }

    /// Reads the entry behind a link; `None` when the link no longer fits what it points to.
    #[inline]
    fn hop(&self, link: u64, id: &ObjectId) -> Option<Hop> {
        let slot = slot_of(link);
        if !self.names_entry(slot) {
            return None;
        }
        let entry = self.entry(slot);
        let word = Snapshot::unpack(entry.word.load(Ordering::Acquire));
        if word.generation & TAG_MASK != link & TAG_MASK {
            return None;
        }
        let same_id = entry.has_id(id);
        if same_id && word.lives() {
            // A found entry is held next, and that looks at the generation again.
            let next = entry.next.load(Ordering::Acquire);
            let handle = Handle { slot, generation: word.generation };
            return Some(Hop { handle, next, same_id, lives: true });
        }
        let next = entry.next.load(Ordering::Acquire);
        // The reads above belong to this generation only if it is still there after them.
        fence(Ordering::Acquire);
        let after = Snapshot::unpack(entry.word.load(Ordering::Relaxed));
        (after.generation == word.generation).then_some(Hop {
            handle: Handle { slot, generation: word.generation },
            next,
            same_id,
            lives: after.lives(),
        })
    }

    /// The living entry of `id`, if the index has one.
    ///
    /// Most often it is a sealed object at the head of its chain; that look is inlined, and the walk
    /// is not: together they cost a get by id half as much again.
    #[inline(always)]
    pub(crate) fn find(&self, id: &ObjectId) -> Option<Handle> {
        let bucket = self.bucket(id);
        self.sealed_at(bucket.load(Ordering::Acquire), id).or_else(|| self.find_in_chain(bucket, id))
    }

    /// What `link` names, where that is a sealed object of this id that has not left the index.
    #[inline(always)]
    fn sealed_at(&self, link: u64, id: &ObjectId) -> Option<Handle> {
        let slot = slot_of(link);
        if !self.names_entry(slot) {
            return None;
        }
        let entry = self.entry(slot);
        let word = entry.word.load(Ordering::Acquire);
        let generation = Snapshot::generation_of(word);
        let is_sealed = word == Snapshot::sealed(generation);
        let is_meant = (generation ^ link) & TAG_MASK == 0 && entry.has_id(id);
        let is_listed = entry.next.load(Ordering::Acquire) & MARK == 0;
        (is_sealed & is_meant & is_listed).then_some(Handle { slot, generation })
    }

    #[cold]
    fn find_in_chain(&self, bucket: &AtomicU64, id: &ObjectId) -> Option<Handle> {
        for _ in 0..WALKS_MAX {
            if let Ok(found) = self.walk(bucket.load(Ordering::Acquire), id) {
                return found;
            }
        }
        None
    }

    /// Walks a chain from `link`; `Err` when it changed underfoot.
    #[inline]
    fn walk(&self, mut link: u64, id: &ObjectId) -> Result<Option<Handle>, Changed> {
        for _ in 0..self.geometry.slots {
            if link == 0 {
                return Ok(None);
            }
            let hop = self.hop(link, id).ok_or(Changed)?;
            if hop.same_id && hop.lives && hop.next & MARK == 0 {
                return Ok(Some(hop.handle));
            }
            link = hop.next & !MARK;
        }
        // More hops than slots: the chain was overwritten by a stray store. Nothing is found.
        Ok(None)
    }
}

/// The chain changed during the walk.
struct Changed;

/// What became of entering an object that others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is found by its id.
    Stands,
    /// Another living object has the id.
    Taken,
    /// It was deleted before.
    Deleted,
}

impl Party<'_> {
    /// Enters `handle`, whose entry says `indexed` already, under `id`; or says which living entry
    /// has that id (I1).
    pub(crate) fn enter(&self, handle: Handle, id: &ObjectId) -> Result<(), Handle> {
        let bucket = self.tables.bucket(id);
        let entry = self.tables.entry(handle.slot);
        loop {
            let head = bucket.load(Ordering::SeqCst);
            let Ok(found) = self.tables.walk(head, id) else {
                self.sweep_chain(bucket, id);
                continue;
            };
            if let Some(existing) = found {
                return Err(existing);
            }
            entry.next.store(head, Ordering::Release);
            if bucket.compare_exchange(head, link_to(handle), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Ok(());
            }
        }
    }

    /// As [`Party::enter`], of an entry that others hold and may delete meanwhile; only by the client
    /// that it names as its publisher, which holds it. Repeatable: a dead publisher's step is found.
    pub(crate) fn enter_held(&self, handle: Handle, id: &ObjectId) -> Entered {
        let bucket = self.tables.bucket(id);
        let next = &self.tables.entry(handle.slot).next;
        loop {
            let before = next.load(Ordering::SeqCst);
            if before & MARK != 0 {
                return Entered::Deleted;
            }
            let head = bucket.load(Ordering::SeqCst);
            match self.tables.walk(head, id) {
                Err(Changed) => self.sweep_chain(bucket, id),
                Ok(Some(found)) if found == handle => return Entered::Stands,
                Ok(Some(_)) => return Entered::Taken,
                // A mark that comes after this stays (I2); then the entry is in a chain, but nobody
                // finds it, and who ends it takes it out.
                Ok(None) => {
                    if next.compare_exchange(before, head, Ordering::SeqCst, Ordering::SeqCst).is_ok()
                        && bucket.compare_exchange(head, link_to(handle), Ordering::SeqCst, Ordering::SeqCst).is_ok()
                    {
                        return Entered::Stands;
                    }
                }
            }
        }
    }

    /// Takes an entry out of the index; repeatable, and right whoever helps or interrupts (I2, I3).
    pub(crate) fn unindex(&self, slot: u32) {
        let entry = self.tables.entry(slot);
        let id = ObjectId::from_words(entry.id_words());
        entry.next.fetch_or(MARK, Ordering::SeqCst);
        self.sweep_chain(self.tables.bucket(&id), &id);
    }

    /// Unlinks every marked entry of a chain; ends after a whole walk that met none.
    fn sweep_chain(&self, bucket: &AtomicU64, id: &ObjectId) {
        for _ in 0..WALKS_MAX {
            if self.sweep_chain_once(bucket, id) {
                return;
            }
        }
        // Nobody can walk it: it begins anew, and what was in it has only its handles left.
        bucket.store(0, Ordering::SeqCst);
    }

    fn sweep_chain_once(&self, bucket: &AtomicU64, id: &ObjectId) -> bool {
        let mut from = bucket;
        let mut link = from.load(Ordering::SeqCst);
        let mut clean = true;
        for _ in 0..self.tables.geometry.slots {
            if link & MARK != 0 {
                // `from` itself has left the chain meanwhile.
                return false;
            }
            if link == 0 {
                return clean;
            }
            let Some(hop) = self.tables.hop(link, id) else { return false };
            if hop.next & MARK == 0 {
                from = &self.tables.entry(hop.handle.slot).next;
                link = hop.next;
                continue;
            }
            let after = hop.next & !MARK;
            if from.compare_exchange(link, after, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                return false;
            }
            clean = false;
            link = after;
        }
        true
    }
}
