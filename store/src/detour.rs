//! A private copy of a value whose spiller was stopped in the few stores that are its alone.
//!
//! The one thing to know: between *unloading* and *sealed* nobody can tell whether the block was
//! given back, and only the spiller may say so; but the file is complete by then (P1). A reader that
//! came across such an object reads the file into memory of its own and views that, so a stopped
//! process holds no reader up. Nothing shared is changed.
//!
//! Copies are kept while this client pins the slot, and dropped when it next makes one or reclaims.

use crate::error::GetError;
use crate::hold::PIN;
use crate::object::View;
use crate::spill_file;
use crate::state::Snapshot;
use crate::store::Inner;
use crate::sync::Ordering;
use crate::tables::Handle;
use std::ptr::NonNull;
use std::sync::{MutexGuard, PoisonError};

/// Stands for an offset: outside any data, so that the common path needs no look.
pub(crate) const DETOUR: u64 = u64::MAX;

/// The value of one object, for the views of this process.
pub(crate) struct Copy {
    handle: Handle,
    bytes: Box<[u8]>,
}

impl Inner {
    fn detours(&self) -> MutexGuard<'_, Vec<Copy>> {
        self.local().detours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the value of an object in *unloading*, which the caller pinned, copied from its file.
    pub(crate) fn detour(&self, handle: Handle) -> Result<u64, Box<GetError>> {
        let mut copies = self.detours();
        copies.retain(|copy| self.is_pinned_here(copy.handle.slot));
        if !copies.iter().any(|copy| copy.handle == handle) {
            let id = self.id_of(handle.slot);
            let mut bytes = vec![0; self.size_of(handle.slot) as usize].into_boxed_slice();
            let read = spill_file::read_into(&self.spill_path(handle), *id.as_bytes(), &mut bytes);
            read.map_err(|source| GetError::Restore { id, source })?;
            copies.push(Copy { handle, bytes });
        }
        Ok(DETOUR)
    }

    /// A view, by a pin that it takes over, of the copy that a detour left.
    pub(crate) fn view_detour(&self, slot: u32, seen: u64) -> Option<View<'_>> {
        let generation = Snapshot::unpack(self.tables.entry(slot).word.load(Ordering::SeqCst)).generation;
        let copies = self.detours();
        let copy = copies.iter().find(|copy| copy.handle == Handle { slot, generation })?;
        // While the pin stands, so does the copy: only `retain` drops one, and looks for pins.
        Some(View::over_copy(self, slot, seen, NonNull::from(&*copy.bytes)))
    }

    /// Lets go of the copies that no view of this process needs.
    pub(crate) fn drop_detours(&self) {
        self.detours().retain(|copy| self.is_pinned_here(copy.handle.slot));
    }

    fn is_pinned_here(&self, slot: u32) -> bool {
        let party = self.party();
        self.tables.cell(party.me, slot).load(Ordering::SeqCst) >= PIN
    }
}
