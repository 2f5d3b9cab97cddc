//! Slabs of slots: the same bits and words as spans of data, over 256 entries at a time.
//!
//! Invariant **A4**: a slot may be handed out again when its bit is in `freed` *and* its entry's
//! word says free; the freer sets the bit first and the word last, so while it sleeps in between
//! the slot waits.
//!
//! Invariant **A5**: who activates a slab has first noted the page of its own row on which the slab's cells
//! lie, so that handing out a slot need not.

use crate::layout::SLAB_SLOTS;
use crate::layout::chunk::{Kind, NOBODY, SpanWord};
use crate::layout::entry::Entry;
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::{Party, Tables};

impl Tables {
    pub(crate) fn slab_word(&self, slab: u32) -> SpanWord {
        SpanWord::unpack(self.slabs[slab as usize].word.load(Ordering::SeqCst))
    }

    /// Whether any slot of the slab is taken.
    pub(crate) fn slab_is_taken(&self, slab: u32) -> bool {
        let slab = &self.slabs[slab as usize];
        slab.heads
            .iter()
            .zip(&slab.freed)
            .any(|(heads, freed)| heads.load(Ordering::SeqCst) & !freed.load(Ordering::SeqCst) != 0)
    }

    fn slot_is_free(&self, slot: u32) -> bool {
        Snapshot::unpack(self.entry(slot).word.load(Ordering::SeqCst)).state == State::Free
    }
}

impl Party<'_> {
    /// Takes one slab from one state to another; `None` when somebody was quicker.
    pub(crate) fn turn_slab(&self, slab: u32, from: SpanWord, kind: Kind) -> Option<SpanWord> {
        let to = from.next(kind, u32::from(self.me));
        self.tables.slabs[slab as usize]
            .word
            .compare_exchange(from.pack(), to.pack(), Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| to)
    }

    /// Lets a slab rest; it goes back if everything in it came back.
    pub(crate) fn rest_slab(&self, slab: u32, active: SpanWord) {
        // A swap: the fence in `free_slab_if_empty` is free behind a read-modify-write.
        self.tables.slabs[slab as usize].word.swap(active.same(Kind::Small).pack(), Ordering::SeqCst);
        self.free_slab_if_empty(slab);
    }

    /// A freshly claimed slab: nothing is taken but slots whose freer still has its last step
    /// before it; those are marked as about to come back (A4).
    pub(crate) fn begin_slab(&self, slab: u32) {
        let shared = &self.tables.slabs[slab as usize];
        for word in 0..shared.heads.len() {
            shared.heads[word].store(0, Ordering::SeqCst);
            shared.freed[word].store(0, Ordering::SeqCst);
            for bit in 0..SLAB_SLOTS.min(64) as u32 {
                let slot = slab * SLAB_SLOTS as u32 + word as u32 * 64 + bit;
                if slot != 0 && !self.tables.slot_is_free(slot) {
                    let heads = shared.heads[word].load(Ordering::Relaxed);
                    shared.heads[word].store(heads | 1 << bit, Ordering::SeqCst);
                    shared.freed[word].fetch_or(1 << bit, Ordering::SeqCst);
                }
            }
        }
    }

    /// Slots of a dead owner that were handed out and whose object never began.
    pub(crate) fn free_unused_slots(&self, slab: u32) {
        let shared = &self.tables.slabs[slab as usize];
        for word in 0..shared.heads.len() {
            let mut taken = shared.heads[word].load(Ordering::SeqCst) & !shared.freed[word].load(Ordering::SeqCst);
            while taken != 0 {
                let bit = taken.trailing_zeros();
                taken &= taken - 1;
                let slot = slab * SLAB_SLOTS as u32 + word as u32 * 64 + bit;
                if self.tables.slot_is_free(slot) {
                    shared.freed[word].fetch_or(1 << bit, Ordering::SeqCst);
                }
            }
        }
    }

    /// Hands a slot out: one plain store by the slab's owner.
    pub(crate) fn take_slot(&self, slot: u32) {
        let (slab, word, bit) = place(slot);
        let heads = &self.tables.slabs[slab as usize].heads[word];
        heads.store(heads.load(Ordering::Relaxed) | bit, Ordering::Release);
    }

    /// Owner: takes back the slots that were freed in one word of bits, and says which are free.
    pub(crate) fn collect_slots(&self, slab: u32, word: usize) -> u64 {
        let shared = &self.tables.slabs[slab as usize];
        let mut left = shared.freed[word].load(Ordering::Acquire) & shared.heads[word].load(Ordering::Relaxed);
        let mut came_back = 0;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            left &= left - 1;
            let slot = slab * SLAB_SLOTS as u32 + word as u32 * 64 + bit.trailing_zeros();
            if self.tables.slot_is_free(slot) {
                came_back |= bit;
            }
        }
        let heads = shared.heads[word].load(Ordering::Relaxed) & !came_back;
        if came_back != 0 {
            shared.heads[word].store(heads, Ordering::SeqCst);
            shared.freed[word].fetch_and(!came_back, Ordering::SeqCst);
        }
        // Slot 0 names nothing and is never handed out.
        let nameless = if slab == 0 && word == 0 { 1 } else { 0 };
        !heads & !nameless
    }

    /// The last step of an object's end: the slot's next life begins (A4).
    pub(crate) fn free_slot(&self, slot: u32, dead: Snapshot) {
        let entry = self.tables.entry(slot);
        clear(entry);
        let (slab, word, bit) = place(slot);
        self.tables.slabs[slab as usize].freed[word].fetch_or(bit, Ordering::SeqCst);
        let freed = entry.word.compare_exchange(dead.pack(), dead.freed(), Ordering::SeqCst, Ordering::SeqCst);
        assert!(freed.is_ok(), "H4: slot {slot} was {dead:?} and changed to {:#x}", freed.unwrap_or_else(|now| now));
        self.free_slab_if_empty(slab);
    }

    /// Frees a resting slab whose slots all came back.
    pub(crate) fn free_slab_if_empty(&self, slab: u32) {
        // A last freer sees that the slab rests, or whoever lets it rest sees the last bit.
        fence_after_rmw();
        let word = self.tables.slab_word(slab);
        if word.kind != Kind::Small || self.tables.slab_is_taken(slab) {
            return;
        }
        let freed = word.next(Kind::Free, NOBODY);
        let shared = &self.tables.slabs[slab as usize].word;
        let _won = shared.compare_exchange(word.pack(), freed.pack(), Ordering::SeqCst, Ordering::SeqCst).is_ok();
        #[cfg(not(feature = "loom"))]
        if _won {
            self.tables.header().slab_hint.fetch_min(u64::from(slab), Ordering::Relaxed);
        }
    }
}

fn place(slot: u32) -> (u32, usize, u64) {
    let within = slot % SLAB_SLOTS as u32;
    (slot / SLAB_SLOTS as u32, within as usize / 64, 1 << (within % 64))
}

/// What the next life must not inherit.
fn clear(entry: &Entry) {
    entry.location.store(0, Ordering::Relaxed);
    entry.list.store(0, Ordering::Relaxed);
    entry.children.store(0, Ordering::Relaxed);
    entry.holders.store(0, Ordering::Relaxed);
    entry.waiters.store(0, Ordering::Relaxed);
    entry.flags.store(0, Ordering::Relaxed);
}
