//! References inside objects: a container's list counts as a hold of everything it names.
//!
//! Each entry counts how many containers list it. A count that is changed by a process that may
//! end at any instruction has to be changed exactly once, so a change is three steps that anyone
//! can finish:
//!
//! 1. CAS the child's `listed` to the new count *and* the tag of this change;
//! 2. CAS the container's `cursor` past this position;
//! 3. CAS the tag away.
//!
//! ```text
//! listed   63 count 40 | 39 container's slot 16 | 15 dropping | 14 position, low 15 bits 0
//! cursor   63 attempt 33 | 32 dropping | 31 position 0
//! ```
//!
//! The cursor counts how many positions, from the first, are counted in their children: listing
//! moves it up, and dropping moves it down again. Who meets a foreign tag does steps 2 and 3
//! first; a stopped process holds nobody up. A sweeper reads cursor and tag and goes on.
//!
//! Invariants:
//!
//! - **L1** A child carries a tag only while its container's change at that position is under way;
//!   it is cleared before the container's next change.
//! - **L2** The cursor never takes the same value twice: an attempt lists upwards, then drops
//!   downwards, and the next attempt has another number. So a CAS that slept cannot succeed.
//! - **L3** Children are distinct within a list, and held by the client that lists them.
//!
//! The one thing to know: nothing here recurses. What a drop sets free goes to the caller's work.

use crate::hold::Work;
use crate::layout::entry::Entry;
use crate::sync::Ordering;
use crate::tables::{Handle, Party, Tables};

/// Bytes of one list item in the data segment: slot and generation, little-endian u64 each.
pub(crate) const ITEM_BYTES: u64 = 16;
const COUNT_SHIFT: u32 = 40;
const TAG_MASK: u64 = (1 << COUNT_SHIFT) - 1;
const TAG_DROPPING: u64 = 1 << 15;
const TAG_POSITION: u64 = TAG_DROPPING - 1;
const ATTEMPT_SHIFT: u32 = 33;
const CURSOR_DROPPING: u64 = 1 << 32;

/// How many containers list the object.
pub(crate) fn listed_count(entry: &Entry) -> u64 {
    entry.listed.load(Ordering::SeqCst) >> COUNT_SHIFT
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Listing,
    Dropping,
}

fn tag(container: u32, direction: Direction, position: u32) -> u64 {
    let dropping = if direction == Direction::Dropping { TAG_DROPPING } else { 0 };
    u64::from(container) << 16 | dropping | u64::from(position) & TAG_POSITION
}

/// The cursor after the change at `position`, given the one before; `None` where the change is
/// not the one this cursor stands at.
fn advanced(cursor: u64, direction: Direction, position: u64) -> Option<u64> {
    let at = cursor & u64::from(u32::MAX);
    let dropping = cursor & CURSOR_DROPPING != 0;
    match direction {
        Direction::Listing => (!dropping && at & TAG_POSITION == position).then(|| cursor + 1),
        Direction::Dropping => (dropping && at > 0 && (at - 1) & TAG_POSITION == position).then(|| cursor - 1),
    }
}

impl Tables {
    /// How many objects a container lists: what its entry says, as far as that many fit the data.
    pub(crate) fn children_of(&self, container: u32) -> u32 {
        let most = if cfg!(feature = "loom") { u64::MAX } else { self.geometry.capacity_bytes / ITEM_BYTES };
        self.entry(container).children.load(Ordering::Acquire).min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// What the list of a container names at `position`.
    #[cfg(not(feature = "loom"))]
    pub(crate) fn list_item(&self, container: u32, position: u32) -> Option<Handle> {
        use crate::layout::entry::IN_MEMORY;
        let entry = self.entry(container);
        if position >= self.children_of(container) {
            return None;
        }
        let list = entry.list.load(Ordering::Acquire) & !IN_MEMORY;
        let bytes = crate::object::list_item_bytes(&self.data, list + u64::from(position) * ITEM_BYTES)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 of 16 bytes"));
        let slot = u32::try_from(word(0)).ok()?;
        self.names_entry(slot).then(|| Handle { slot, generation: word(8) })
    }

    #[cfg(feature = "loom")]
    pub(crate) fn list_item(&self, container: u32, position: u32) -> Option<Handle> {
        self.lists[container as usize].get(position as usize).copied()
    }
}

impl Party<'_> {
    /// Before a list is written: a cursor that no earlier attempt ever had (L2).
    pub(crate) fn begin_list(&self, container: u32) {
        let cursor = &self.tables.entry(container).cursor;
        let attempt = (cursor.load(Ordering::SeqCst) >> ATTEMPT_SHIFT).wrapping_add(1);
        cursor.store(attempt << ATTEMPT_SHIFT, Ordering::SeqCst);
    }

    /// Counts every child of a container that this client is writing; the client holds them (L3).
    pub(crate) fn list_children(&self, container: u32) {
        let entry = self.tables.entry(container);
        for position in 0..entry.children.load(Ordering::Relaxed) {
            // None: a stray store hit the list; what was counted is dropped with the container.
            let Some(child) = self.tables.list_item(container, position) else { return };
            self.change(container, position, child, Direction::Listing);
        }
    }

    /// Lets go of every child that is counted, from wherever an earlier attempt stopped.
    pub(crate) fn unlist_children(&self, container: u32, work: &mut Work) {
        let entry = self.tables.entry(container);
        if entry.children.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.turn_to_dropping(container, entry);
        let mut at = self.settled_cursor(container, entry).min(self.tables.children_of(container));
        while at > 0 {
            let position = at - 1;
            if let Some(child) = self.tables.list_item(container, position) {
                self.drop_child(container, position, child, work);
            }
            at = position;
        }
    }

    /// How many children are counted, once no drop is under way that somebody left half-way. A tag
    /// goes after the cursor has moved: so a cursor that is still the same after a look that found
    /// no tag is right.
    fn settled_cursor(&self, container: u32, entry: &Entry) -> u32 {
        loop {
            let before = entry.cursor.load(Ordering::SeqCst);
            let at = (before & u64::from(u32::MAX)) as u32;
            let found = self.finish_change(container, at, Direction::Dropping);
            if !found && entry.cursor.load(Ordering::SeqCst) == before {
                return at;
            }
        }
    }

    /// Before a child's slot is freed: ends the change that somebody left half-way. Its tag would
    /// be lost with the slot, and whoever goes on for the container would change a count twice.
    pub(crate) fn finish_listing(&self, child: u32) {
        let entry = self.tables.entry(child);
        let listed = entry.listed.load(Ordering::SeqCst);
        if listed & TAG_MASK != 0 {
            self.help(entry, listed);
        }
    }

    fn drop_child(&self, container: u32, position: u32, child: Handle, work: &mut Work) {
        // Before the count falls, so that a sweeper of this client finds the child (H1).
        let decides = self.claim_decision(child.slot);
        self.change(container, position, child, Direction::Dropping);
        if decides {
            work.push(child.slot);
        } else {
            // Another thread of this client decides; it may have looked before the count fell.
            self.claim_again(child.slot, work);
        }
    }

    fn claim_again(&self, slot: u32, work: &mut Work) {
        if self.claim_decision(slot) {
            work.push(slot);
        }
    }

    /// Ends the listing that somebody else may have left half-way, and turns the cursor round.
    fn turn_to_dropping(&self, container: u32, entry: &Entry) {
        loop {
            let cursor = entry.cursor.load(Ordering::SeqCst);
            if cursor & CURSOR_DROPPING != 0 {
                return;
            }
            let position = (cursor & u64::from(u32::MAX)) as u32;
            if self.finish_change(container, position, Direction::Listing) {
                continue;
            }
            let turned = cursor | CURSOR_DROPPING;
            let _ = entry.cursor.compare_exchange(cursor, turned, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Does what is left of the change beside the cursor: the one under way, and the tag of the one
    /// before it. True when there was one.
    fn finish_change(&self, container: u32, at: u32, direction: Direction) -> bool {
        let positions = [Some(at), at.checked_sub(1)];
        let mut found = false;
        for position in positions.into_iter().flatten() {
            let Some(child) = self.tables.list_item(container, position) else { continue };
            let entry = self.tables.entry(child.slot);
            let listed = entry.listed.load(Ordering::SeqCst);
            if listed & TAG_MASK == tag(container, direction, position) {
                self.help(entry, listed);
                found = true;
            }
        }
        found
    }

    /// One change of one child's count, exactly once.
    fn change(&self, container: u32, position: u32, child: Handle, direction: Direction) {
        let entry = self.tables.entry(child.slot);
        let mine = tag(container, direction, position);
        let changed = loop {
            let before = entry.listed.load(Ordering::SeqCst);
            if before & TAG_MASK != 0 {
                self.help(entry, before);
                continue;
            }
            let count = before >> COUNT_SHIFT;
            let count = match direction {
                Direction::Listing => count + 1,
                Direction::Dropping if count > 0 => count - 1,
                // A stray store hit the count or the list (or, in a model, the protocol is wrong).
                Direction::Dropping => {
                    #[cfg(feature = "loom")]
                    panic!("L1: {child:?} is listed 0 times and dropped once more");
                    #[cfg(not(feature = "loom"))]
                    return;
                }
            };
            let after = count << COUNT_SHIFT | mine;
            if entry.listed.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                break after;
            }
        };
        self.help(entry, changed);
    }

    /// Steps 2 and 3 of the change that `listed` names.
    fn help(&self, child: &Entry, listed: u64) {
        let slot = (listed >> 16) as u32 & 0xFF_FFFF;
        let direction = if listed & TAG_DROPPING != 0 { Direction::Dropping } else { Direction::Listing };
        if self.tables.names_entry(slot) {
            let container = self.tables.entry(slot);
            let cursor = container.cursor.load(Ordering::SeqCst);
            // The tag must still stand: then the cursor belongs to the attempt that set it (L1).
            if child.listed.load(Ordering::SeqCst) != listed {
                return;
            }
            if let Some(next) = advanced(cursor, direction, listed & TAG_POSITION) {
                let _ = container.cursor.compare_exchange(cursor, next, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
        let cleared = listed & !TAG_MASK;
        let _ = child.listed.compare_exchange(listed, cleared, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_moves_only_for_the_change_it_stands_at() {
        let listing = 7 << ATTEMPT_SHIFT | 40_000;
        assert_eq!(advanced(listing, Direction::Listing, 40_000 & TAG_POSITION), Some(listing + 1));
        assert_eq!(advanced(listing, Direction::Listing, 1), None);
        assert_eq!(advanced(listing, Direction::Dropping, 39_999 & TAG_POSITION), None);
        let dropping = listing | CURSOR_DROPPING;
        assert_eq!(advanced(dropping, Direction::Dropping, 39_999 & TAG_POSITION), Some(dropping - 1));
        assert_eq!(advanced(dropping & !u64::from(u32::MAX), Direction::Dropping, 0), None);
    }
}
