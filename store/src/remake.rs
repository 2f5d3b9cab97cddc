//! A value whose file is lost, from another object that was made in the same way: its *twin*.
//!
//! The one thing to know: it comes back as from its file (`spill`): pinned, the bytes in a block of this
//! client's, which one CAS of the location offers. So no state is new, and whoever is killed meanwhile
//! leaves it lost as it was. What was known of the value must be true of the twin: its length, encoding
//! and list, and its checksum where it has one. This file must not make twins.

use crate::error::{GetError, RemakeError};
use crate::hold::{Held, PIN};
use crate::layout::entry::{FLAG_CHECKSUM, ON_DISK};
use crate::object::{Object, ObjectRef};
use crate::store::{Inner, Store};
use crate::sync::Ordering;
use crate::tables::Handle;

impl Store {
    /// Gives an object whose spill file is lost its value again: the twin's. One that has its value in
    /// memory keeps that.
    pub fn restore_from(&self, lost: &ObjectRef, twin: &Object) -> Result<(), Box<RemakeError>> {
        let (inner, handle) = (&self.inner, lost.handle());
        let party = inner.party();
        match party.hold(handle, PIN) {
            Held::Value => {}
            Held::NoValue => {
                party.release(handle.slot, PIN);
                return Ok(());
            }
            Held::Gone => return Err(Box::new(RemakeError::Gone { id: lost.id() })),
        }
        let restored = inner.restore_pinned_from(handle, twin);
        party.release(handle.slot, PIN);
        restored
    }
}

impl Inner {
    fn restore_pinned_from(&self, handle: Handle, twin: &Object) -> Result<(), Box<RemakeError>> {
        if self.tables.entry(handle.slot).location.load(Ordering::SeqCst) != ON_DISK {
            return Ok(());
        }
        self.check_twin(handle, twin)?;
        let copy = |bytes: &mut [u8]| {
            bytes.copy_from_slice(twin);
            // Before the offer, as from then on it may be moved to disk again, which takes a file that is
            // there for a good one.
            self.party().forget_file(handle);
            Ok::<_, GetError>(())
        };
        self.offer_filled(handle, copy).map(drop).map_err(|source| Box::new(RemakeError::Get(source)))
    }

    fn check_twin(&self, handle: Handle, twin: &Object) -> Result<(), Box<RemakeError>> {
        let (id, entry) = (self.id_of(handle.slot), self.tables.entry(handle.slot));
        let (expected_bytes, found_bytes) = (self.size_of(handle.slot), twin.len() as u64);
        let list = |slot: u32| (0..self.tables.children_of(slot)).map(move |at| self.tables.list_item(slot, at));
        let has_checksum = entry.flags.load(Ordering::Relaxed) & FLAG_CHECKSUM != 0;
        let is_same = expected_bytes == found_bytes
            && self.encoding_of(handle.slot) == twin.encoding()
            && list(handle.slot).eq(list(twin.handle().slot))
            && (!has_checksum || entry.checksum.load(Ordering::Relaxed) == crc32fast::hash(twin));
        if is_same { Ok(()) } else { Err(Box::new(RemakeError::Differs { id, expected_bytes, found_bytes })) }
    }
}
