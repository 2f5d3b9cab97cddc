//! What others do with a queue: cancel, list, and give back what the dead had.
//!
//! The one thing to know: each step is one compare-and-swap that names whom it takes a record from,
//! so a sweep that ended half-way is done again and two at once do each step once. Only for the dead
//! as the kernel knows them: nobody who is swept ever goes on.
//!
//! A dead claimer: [`Queue::claimed_by`], then [`Queue::requeue`] or [`Queue::finish_for_dead`] for each,
//! then [`Queue::mend`], on every queue that it could claim from. A dead owner: [`Queue::queued`], then
//! [`Queue::cancel`] for what nobody wants.

use super::layout::Payload;
use super::word::{Broken, Position, Snapshot, State};
use super::{Found, Place, Queue};
use crate::sync::{Ordering, fence};

/// How often a record that changes while it is copied is copied again.
const COPIES_MAX: u32 = 8;

/// A record that is queued or claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, and who has it.
    pub word: Snapshot,
    /// What its owner wrote.
    pub payload: Payload,
}

/// What became of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Cancel {
    /// Nobody will claim it.
    Cancelled,
    /// Somebody works on it.
    Claimed {
        /// Who.
        claimer: u16,
    },
    /// It is done, or was cancelled before.
    Finished,
    /// No record stands there: it was reaped, or moved on, or never submitted.
    Gone,
}

impl Queue {
    /// Cancels a record that nobody has claimed.
    pub fn cancel(&self, position: Position) -> Cancel {
        // Each turn is somebody else's success.
        loop {
            let Ok(Place::Here(found)) = self.place(position) else { return Cancel::Gone };
            match found.state {
                State::Queued if self.replace(found, found.cancelled()).is_some() => return Cancel::Cancelled,
                State::Queued => {}
                State::Claimed => return Cancel::Claimed { claimer: found.claimer },
                State::Done | State::Cancelled => return Cancel::Finished,
                State::Empty => return Cancel::Gone,
            }
        }
    }

    /// The record at a position, if it is queued or claimed.
    pub fn look(&self, position: Position) -> Option<Entry> {
        self.look_at_slot(position).filter(|entry| entry.word.position == position)
    }

    /// As [`Queue::look`], whichever lap the slot of the position is in.
    fn look_at_slot(&self, position: Position) -> Option<Entry> {
        for _ in 0..COPIES_MAX {
            let before = self.unfinished(position)?;
            let payload = self.record(position).copy();
            // The payload is as the word says only if the record was not finished before it was read.
            fence(Ordering::Acquire);
            let after = self.unfinished(position)?;
            if after.position == before.position {
                return Some(Entry { word: after, payload });
            }
        }
        None
    }

    /// What stands in the slot of a position, unless it is finished.
    fn unfinished(&self, position: Position) -> Option<Snapshot> {
        let found = match self.place(position).ok()? {
            Place::Here(found) | Place::Over(found) => found,
            Place::NotYet => return None,
        };
        matches!(found.state, State::Queued | State::Claimed).then_some(found)
    }

    /// The positions that may hold something unfinished, each slot once.
    fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        let reaped = self.reaped();
        let is_plausible = self.is_plausible(reaped);
        // Where the hint is no help, every slot that was ever used, by the position that it says itself.
        let first = if is_plausible { reaped } else { Position::from_number(0) };
        let positions = (0..self.records()).map(move |count| first.plus(count));
        let read = move |position: &Position| {
            if is_plausible {
                !matches!(self.place(*position), Ok(Place::NotYet))
            } else {
                self.record(*position).word.load(Ordering::Acquire) != 0
            }
        };
        positions.take_while(read).map(move |position| if is_plausible { position } else { self.stands_for(position) })
    }

    fn stands_for(&self, position: Position) -> Position {
        let found = Snapshot::unpack(self.record(position).word.load(Ordering::Acquire));
        found.map(|found| found.position).filter(|found| self.is_same_slot(*found, position)).unwrap_or(position)
    }

    fn entries(&self, is_wanted: impl Fn(Snapshot) -> bool) -> impl Iterator<Item = Entry> {
        let wanted = move |position: &Position| self.unfinished(*position).is_some_and(&is_wanted);
        let wanted: Vec<Position> = self.positions().filter(wanted).collect();
        wanted.into_iter().filter_map(|position| self.look_at_slot(position))
    }

    /// What a dead client had claimed.
    pub fn claimed_by(&self, dead: u16) -> impl Iterator<Item = Entry> + '_ {
        self.entries(move |word| word.is_claimed_by(dead)).filter(move |entry| entry.word.is_claimed_by(dead))
    }

    /// What nobody has claimed yet.
    pub fn queued(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries(|word| word.state == State::Queued).filter(|entry| entry.word.state == State::Queued)
    }

    /// Queues again what a dead client had claimed, with one more attempt; false if it does not have
    /// it (any more).
    pub fn requeue(&self, position: Position, dead: u16) -> bool {
        let Some(queued) = self.replace_claim(position, dead, Snapshot::requeued) else { return false };
        // Who dies before this leaves it to the next sweeper's `mend` (Q3, Q5).
        self.show_again(queued.position);
        true
    }

    /// Lets claimers find a record that is queued again.
    pub(super) fn show_again(&self, position: Position) {
        self.take_cursor_back(position);
        self.bell().wake_one();
    }

    /// Finishes what a dead client had claimed, for its result stands or nobody will try again; false if
    /// it does not have it (any more).
    pub fn finish_for_dead(&self, position: Position, dead: u16) -> bool {
        self.replace_claim(position, dead, Snapshot::done).is_some()
    }

    fn take_cursor_back(&self, position: Position) {
        // Each turn is somebody else's success.
        loop {
            let cursor = self.cursor();
            if self.swap_cursor(cursor, cursor.taken_back(position)) {
                return;
            }
        }
    }

    /// Ends every sweep: puts the cursor right, and wakes everybody if something is queued, as the dead
    /// may have been woken for it, or have died in a sweep. Also for a cursor that a stray store hit.
    pub fn mend(&self) -> Result<(), Broken> {
        let cursor = self.cursor();
        let first = match self.find_queued(self.reaped())? {
            Found::Queued(found) => found.position,
            Found::End(end) => end,
        };
        let is_wrong = first.after(cursor.position) < 0 || !self.is_plausible(cursor.position);
        if is_wrong && !self.swap_cursor(cursor, cursor.taken_back(first).moved_on(first)) {
            // Somebody else moved it, from what we read: the same once more, whatever it is now.
            self.take_cursor_back(first);
        }
        self.nudge().map(|_| ())
    }
}
