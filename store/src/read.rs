//! Reading objects: a pin, a look at the word, a view.
//!
//! The one thing to know: the common path is two atomics on the own cell and a few loads; all else
//! (an entry that is gone, a value on disk, a spiller in the middle) is behind one cold call.

use crate::detour::DETOUR;
use crate::error::GetError;
use crate::hold::{Held, PIN, Unsettled};
use crate::layout::entry::IN_MEMORY;
use crate::object::{ObjectRef, View};
use crate::object_id::ObjectId;
use crate::store::{Inner, Store};
use crate::sync::Ordering;
use crate::tables::Handle;
use crate::wait::Deadline;
use std::time::Duration;
use store_shm::gate::GateError;

/// Where a pinned value was found by the rare path.
struct Found {
    slot: u32,
    offset: u64,
}

impl Store {
    /// A view of a sealed object, borrowed from the reference.
    ///
    /// Brings the bytes back from disk where they are there; fails if the value does not stand yet.
    #[inline(always)]
    pub fn view<'a>(&'a self, object: &'a ObjectRef) -> Result<View<'a>, Box<GetError>> {
        let pinned = self.inner.party().pin_referenced(object.slot(), object.tag());
        self.inner.view_pinned(object.slot(), pinned, || self.inner.find_offset(object.handle()))
    }

    /// A view of the sealed object of this id, found through the index.
    #[inline(always)]
    pub fn view_by_id(&self, id: &ObjectId) -> Result<View<'_>, Box<GetError>> {
        let Some(handle) = self.inner.tables.find(id) else {
            return Err(not_found(id));
        };
        let pinned = self.inner.party().hold_fast(handle, PIN);
        self.inner.view_pinned(handle.slot, pinned, || self.inner.find_slowly(handle, id))
    }
}

#[cold]
fn not_found(id: &ObjectId) -> Box<GetError> {
    Box::new(GetError::NotFound { id: *id })
}

impl Inner {
    #[inline(always)]
    pub(crate) fn view(&self, handle: Handle) -> Result<View<'_>, Box<GetError>> {
        self.view_pinned(handle.slot, self.party().hold_fast(handle, PIN), || self.find_offset(handle))
    }

    /// A view by a pin that was just taken.
    ///
    /// The rare path hands back two words instead of a view: a result that lives in memory costs
    /// more here than the two atomics (measured: 9.2 against 6.1 ns).
    #[inline(always)]
    fn view_pinned(
        &self,
        slot: u32,
        pinned: Result<u64, Unsettled>,
        otherwise: impl FnOnce() -> Result<Found, Box<GetError>>,
    ) -> Result<View<'_>, Box<GetError>> {
        let location = self.tables.entry(slot).location.load(Ordering::Acquire);
        let (slot, seen, offset) = match pinned {
            Ok(seen) if location & IN_MEMORY != 0 => (slot, seen, location & !IN_MEMORY),
            _ => match otherwise() {
                Ok(found) => (found.slot, PIN, found.offset),
                Err(error) => return Err(error),
            },
        };
        match View::over(self, slot, seen, offset, self.tables.entry(slot).size.load(Ordering::Relaxed)) {
            Some(view) => Ok(view),
            None => self.view_elsewhere(slot, seen, offset),
        }
    }

    /// By id, when the first look was not enough: the entry may be gone and another in its place.
    #[cold]
    fn find_slowly(&self, first: Handle, id: &ObjectId) -> Result<Found, Box<GetError>> {
        let mut handle = first;
        loop {
            match self.find_offset(handle) {
                Err(error) if matches!(*error, GetError::NotFound { .. }) => {}
                other => return other,
            }
            handle = match self.tables.find(id) {
                Some(now) if now != handle => now,
                _ => return Err(not_found(id)),
            };
            let _ = self.party().hold_fast(handle, PIN);
        }
    }

    /// Not in the data: a private copy, or nonsense.
    #[cold]
    fn view_elsewhere(&self, slot: u32, seen: u64, offset: u64) -> Result<View<'_>, Box<GetError>> {
        let copied = if offset == DETOUR { self.view_detour(slot, seen) } else { None };
        copied.ok_or_else(|| self.outside(slot, offset))
    }

    /// The tables say that an object lies where there is no data.
    fn outside(&self, slot: u32, offset: u64) -> Box<GetError> {
        self.party().release(slot, PIN);
        let bytes = self.size_of(slot);
        let source = GateError::OutOfBounds { offset, bytes, limit: self.tables.geometry.capacity_bytes };
        Box::new(GetError::Corrupt { id: self.id_of(slot), source })
    }

    /// The pin is in the cell; everything else is still open. Fails without the pin.
    #[cold]
    fn find_offset(&self, handle: Handle) -> Result<Found, Box<GetError>> {
        let party = self.party();
        if party.is_nobody() {
            return Err(Box::new(GetError::Forked));
        }
        let id = self.id_of(handle.slot);
        match party.settle(handle, PIN) {
            Held::Gone => return Err(not_found(&id)),
            Held::NoValue => {
                party.release(handle.slot, PIN);
                return Err(self.not_sealed(handle, Deadline::after(Duration::ZERO)));
            }
            Held::Value => {}
        }
        self.tables.entry(handle.slot).used_ms.store(self.now_ms(), Ordering::Relaxed);
        match self.bring_to_memory(handle) {
            Ok(offset) => Ok(Found { slot: handle.slot, offset }),
            Err(error) => {
                party.release(handle.slot, PIN);
                Err(error)
            }
        }
    }
}
