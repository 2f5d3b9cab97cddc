//! Moving bytes to disk and back.
//!
//! The one thing to know: whoever pins wins. The spiller writes the file while the object is in
//! *spilling*, in which a pin turns the word back; only when nobody pinned to the end does it become
//! *unloading*, the one state in which nobody can pin. Coming back needs no state at all: whoever
//! wants to read pins first, reads the file into a block of its own, and offers the block by one
//! CAS of the location; of several, one wins, and nobody waits for another.
//!
//! Invariants:
//!
//! - **P1** The file is complete under its name before the word says *unloading*.
//! - **P2** The location changes from memory to disk only in *unloading*, by the decider; from disk
//!   to memory only by CAS, by a client that pins.
//! - **P3** Only a client that refers to the object spills it, so nobody ends it meanwhile.

use crate::error::GetError;
use crate::hold::{Held, REFERENCE};
use crate::layout::entry::{FLAG_FILE, IN_MEMORY, ON_DISK};
use crate::spill_file::{self, SpillError};
use crate::state::{Snapshot, State};
use crate::store::Inner;
use crate::sync::Ordering;
use crate::tables::{Handle, Party};
use crate::wait::Deadline;
use std::path::PathBuf;
use std::time::Duration;
use store_shm::gate::GateError;

/// How long a reader lets a spiller do its last stores before it takes it for stopped.
const UNLOADING_PATIENCE: Duration = Duration::from_millis(1);

fn file_name(handle: Handle) -> String {
    format!("{:06x}-{:011x}.object", handle.slot, handle.generation)
}

impl Inner {
    /// Moves referenced objects that nobody views to disk, until `bytes` came back; how many bytes
    /// did. The longest unused go first, large before small among those of one second.
    pub(crate) fn spill(&self, bytes: u64) -> u64 {
        let _one_at_a_time = self.spilling();
        let mut candidates: Vec<(u32, std::cmp::Reverse<u64>, u32)> = self
            .living_slots()
            .filter(|&slot| self.is_spillable(slot))
            .map(|slot| {
                let second = self.tables.entry(slot).used_ms.load(Ordering::Relaxed) / 1000;
                (second, std::cmp::Reverse(self.size_of(slot)), slot)
            })
            .collect();
        candidates.sort_unstable();
        let mut came_back = 0;
        for (_, size, slot) in candidates {
            if came_back >= bytes {
                break;
            }
            match self.spill_one(slot) {
                Ok(true) => came_back += size.0,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "an object could not be spilled");
                    break;
                }
            }
        }
        came_back
    }

    fn is_spillable(&self, slot: u32) -> bool {
        let entry = self.tables.entry(slot);
        let state = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state;
        let in_memory = entry.location.load(Ordering::SeqCst) & IN_MEMORY != 0;
        state == State::Sealed && in_memory && self.size_of(slot) > 0 && !self.party().is_pinned(slot)
    }

    /// Moves one object to disk; false where somebody views it, or it ended.
    pub(crate) fn spill_one(&self, slot: u32) -> Result<bool, SpillError> {
        let party = self.party();
        let entry = self.tables.entry(slot);
        let generation = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).generation;
        let handle = Handle { slot, generation };
        let moved = match party.hold(handle, REFERENCE) {
            Held::Gone => return Ok(false),
            Held::NoValue => Ok(false),
            Held::Value => self.spill_held(handle),
        };
        party.release(slot, REFERENCE);
        moved
    }

    fn spill_held(&self, handle: Handle) -> Result<bool, SpillError> {
        let party = self.party();
        let entry = self.tables.entry(handle.slot);
        // A value without bytes has no block, and would get none when it comes back.
        if entry.size.load(Ordering::Relaxed) == 0 || !party.begin_spill(handle) {
            return Ok(false);
        }
        if let Err(error) = self.write_file(handle) {
            party.abandon_spill(handle);
            return Err(error);
        }
        let moved = party.end_spill(handle);
        if moved {
            let header = self.tables.header();
            header.spilled_objects.fetch_add(1, Ordering::Relaxed);
            header.spilled_bytes.fetch_add(entry.size.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Ok(moved)
    }

    /// The file of an object in *spilling*. One that exists is whole, as it was renamed into place,
    /// and still right, as the bytes never change.
    fn write_file(&self, handle: Handle) -> Result<(), SpillError> {
        let entry = self.tables.entry(handle.slot);
        let Some(directory) = &self.tables.files else { return Ok(()) };
        // Before the file: whoever ends the object, at whatever instant, looks for one.
        entry.flags.fetch_or(FLAG_FILE, Ordering::SeqCst);
        if directory.path().join(file_name(handle)).exists() {
            return Ok(());
        }
        let id = self.id_of(handle.slot);
        let offset = entry.location.load(Ordering::SeqCst) & !IN_MEMORY;
        let size = entry.size.load(Ordering::Relaxed);
        // Corrupt tables: there is nothing that could be written.
        let Ok(bytes) = crate::object::spillable(self, offset, size, id) else { return Ok(()) };
        spill_file::write(directory.path(), &file_name(handle), *id.as_bytes(), bytes)
    }

    /// Where the value of an object lies that this client has pinned; brings it back from disk.
    pub(crate) fn bring_to_memory(&self, handle: Handle) -> Result<u64, Box<GetError>> {
        let entry = self.tables.entry(handle.slot);
        let deadline = Deadline::after(UNLOADING_PATIENCE);
        loop {
            let state = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state;
            let location = entry.location.load(Ordering::SeqCst);
            if state == State::Unloading && deadline.left().is_none() {
                return self.detour(handle);
            } else if state == State::Unloading {
                std::thread::yield_now();
            } else if location & IN_MEMORY != 0 {
                return Ok(location & !IN_MEMORY);
            } else if location != ON_DISK {
                return Err(self.misplaced(handle, location));
            } else if let Some(offset) = self.restore(handle)? {
                return Ok(offset);
            }
        }
    }

    /// Where the file of an object is, if it has one.
    pub(crate) fn spill_path(&self, handle: Handle) -> PathBuf {
        self.tables.files.as_ref().map(|directory| directory.path().join(file_name(handle))).unwrap_or_default()
    }

    /// A stray store hit where the value lies, or how long it is.
    fn misplaced(&self, handle: Handle, offset: u64) -> Box<GetError> {
        let (bytes, limit) = (self.size_of(handle.slot), self.tables.geometry.capacity_bytes);
        Box::new(GetError::Corrupt {
            id: self.id_of(handle.slot),
            source: GateError::OutOfBounds { offset, bytes, limit },
        })
    }

    /// Reads the file into a block of this client and offers it; `None` when another was quicker.
    fn restore(&self, handle: Handle) -> Result<Option<u64>, Box<GetError>> {
        let id = self.id_of(handle.slot);
        self.offer_filled(handle, |bytes| {
            let read = spill_file::read_into(&self.spill_path(handle), *id.as_bytes(), bytes);
            read.map_err(|source| GetError::Restore { id, source })
        })
    }

    /// Has a block of this client filled with the value of an object on disk, which this client pins, and
    /// offers it; `None` when another was quicker.
    pub(crate) fn offer_filled(
        &self,
        handle: Handle,
        fill: impl FnOnce(&mut [u8]) -> Result<(), GetError>,
    ) -> Result<Option<u64>, Box<GetError>> {
        let entry = self.tables.entry(handle.slot);
        let id = self.id_of(handle.slot);
        let size = entry.size.load(Ordering::Relaxed);
        if size > self.tables.geometry.capacity_bytes {
            return Err(self.misplaced(handle, 0));
        }
        let no_room = |source| Box::new(GetError::NoRoom { id, source });
        let offset = self.block_or_wait(size, handle.slot, None).map_err(no_room)?;
        let mut block = self.unsealed_at(offset, size);
        let offered = fill(block.bytes_mut()).map(|()| self.party().offer(handle.slot, offset));
        if !matches!(offered, Ok(true)) {
            self.party().free_block(offset, handle.slot);
        }
        let won = offered?;
        if won {
            self.tables.header().restored_objects.fetch_add(1, Ordering::Relaxed);
        }
        Ok(won.then_some(offset))
    }
}

/// The shared part, which any process can be interrupted in.
impl Party<'_> {
    /// Removes the file of an object that ends; one that is gone already is no matter.
    pub(crate) fn forget_file(&self, handle: Handle) {
        if let Some(directory) = &self.tables.files
            && let Err(error) = spill_file::remove(&directory.path().join(file_name(handle)))
        {
            tracing::warn!(%error, "a spill file could not be removed");
        }
    }
}
