//! Entering an object that only handles named into the index.
//!
//! The one thing to know: others hold the object already, so of all who want it published one has
//! to do it: the entry names it, `publisher = client + 1`, until the object stands in the index. A
//! dead publisher is replaced by the next one, or by its sweeper; a living one is left to it.
//!
//! It must not enter what was deleted: deleter and publisher each write their flag, then read the
//! other's.

use crate::hold::{Held, REFERENCE};
use crate::index::Entered;
use crate::layout::entry::{FLAG_DELETED, FLAG_INDEXED};
use crate::object_id::ObjectId;
use crate::state::Snapshot;
use crate::sync::{Ordering, yield_now};
use crate::tables::{Handle, Party};

/// The entry stands in the index, or was made there.
pub(crate) const PUBLISHED: u32 = u32::MAX;
/// The entry is named by handles only.
pub(crate) const UNPUBLISHED: u32 = 0;

/// Looks at a word that says another thread of this client publishes; more, and a stray store
/// wrote it.
const LOOKS_MAX: u32 = 1 << 16;

impl Party<'_> {
    fn as_publisher(&self) -> u32 {
        u32::from(self.me) + 1
    }

    /// Has an object that this client holds found by its id; false where another has that id. While
    /// another client is at it, this is true although the id may turn out to be taken.
    pub(crate) fn publish_held(&self, handle: Handle, id: &ObjectId) -> bool {
        let publisher = &self.tables.entry(handle.slot).publisher;
        for _ in 0..LOOKS_MAX {
            let before = publisher.load(Ordering::SeqCst);
            if before == PUBLISHED || self.is_living_other(before) {
                return true;
            }
            if before == self.as_publisher() {
                // Another thread of this client.
                yield_now();
                continue;
            }
            if publisher.compare_exchange(before, self.as_publisher(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return self.publish_mine(handle, id);
            }
        }
        true
    }

    fn is_living_other(&self, publisher: u32) -> bool {
        match publisher.checked_sub(1) {
            Some(client) if client != u32::from(self.me) && u64::from(client) < self.tables.geometry.clients => {
                !self.tables.client(client as u16).is_dead()
            }
            _ => false,
        }
    }

    fn publish_mine(&self, handle: Handle, id: &ObjectId) -> bool {
        let entry = self.tables.entry(handle.slot);
        // Before it can be in a chain: whoever ends it looks for it there.
        let flags = entry.flags.fetch_or(FLAG_INDEXED, Ordering::SeqCst);
        let entered = if flags & FLAG_DELETED != 0 { Entered::Deleted } else { self.enter_held(handle, id) };
        let next = if entered == Entered::Taken { UNPUBLISHED } else { PUBLISHED };
        entry.publisher.store(next, Ordering::SeqCst);
        entered != Entered::Taken
    }

    /// Does what is left of a dead client's publishing of whatever lives in a slot.
    pub(crate) fn finish_publishing(&self, slot: u32, dead: u16) {
        let entry = self.tables.entry(slot);
        let theirs = u32::from(dead) + 1;
        if entry.publisher.load(Ordering::SeqCst) != theirs {
            return;
        }
        let generation = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).generation;
        let handle = Handle { slot, generation };
        if self.hold(handle, REFERENCE) == Held::Gone {
            return;
        }
        if entry.publisher.compare_exchange(theirs, self.as_publisher(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            let id = ObjectId::from_words(entry.id_words());
            // Where the id is taken, it stays what it was: named by handles.
            self.publish_mine(handle, &id);
        }
        self.release(slot, REFERENCE);
    }
}
