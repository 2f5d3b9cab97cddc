//! An object's word and location on the way to disk and back: the part that several processes
//! touch, and any of them can end in. Files are `spill`'s; the invariants P1-P3 stand there.
//!
//! The one thing to know: a pin turns *spilling* back at any time; in *unloading* nobody can pin,
//! and only the decider writes the location.

use crate::layout::entry::{IN_MEMORY, ON_DISK};
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::{Handle, Party};

impl Party<'_> {
    /// From sealed to spilling, unless somebody views the object.
    pub(crate) fn begin_spill(&self, handle: Handle) -> bool {
        let entry = self.tables.entry(handle.slot);
        let sealed = Snapshot::sealed(handle.generation);
        let spilling = Snapshot::unpack(sealed).to(State::Spilling, self.me);
        if entry.location.load(Ordering::SeqCst) & IN_MEMORY == 0
            || entry.word.compare_exchange(sealed, spilling, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return false;
        }
        fence_after_rmw();
        if self.is_pinned(handle.slot) {
            self.abandon_spill(handle);
            return false;
        }
        true
    }

    pub(crate) fn abandon_spill(&self, handle: Handle) {
        let sealed = Snapshot::sealed(handle.generation);
        let spilling = Snapshot::unpack(sealed).to(State::Spilling, self.me);
        let _ =
            self.tables.entry(handle.slot).word.compare_exchange(spilling, sealed, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// From spilling to sealed on disk; false where a pin came first (P1, P2).
    pub(crate) fn end_spill(&self, handle: Handle) -> bool {
        let spilling = Snapshot { state: State::Spilling, decider: self.me, generation: handle.generation };
        let unloading = spilling.to(State::Unloading, self.me);
        let word = &self.tables.entry(handle.slot).word;
        if word.compare_exchange(spilling.pack(), unloading, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        self.finish_unload(handle.slot);
        true
    }

    /// From unloading in this client's name to sealed on disk; repeatable from any point.
    pub(crate) fn finish_unload(&self, slot: u32) {
        let entry = self.tables.entry(slot);
        let location = entry.location.load(Ordering::SeqCst);
        if location & IN_MEMORY != 0 {
            self.free_block(location & !IN_MEMORY, slot);
            entry.location.store(ON_DISK, Ordering::SeqCst);
        }
        let unloading = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        entry.word.store(unloading.to(State::Sealed, 0), Ordering::SeqCst);
    }

    /// Offers a block that holds the bytes of an object on disk; false when another came first.
    pub(crate) fn offer(&self, slot: u32, offset: u64) -> bool {
        let location = &self.tables.entry(slot).location;
        location.compare_exchange(ON_DISK, IN_MEMORY | offset, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
