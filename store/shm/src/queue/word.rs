//! The word that decides over a record: where in the queue it stands and who may do what with it.
//!
//! ```text
//!  63                   24 23         8 7       4 3     0
//! +-----------------------+------------+---------+-------+
//! |  position (40 bits)   |  claimer   | attempt | state |
//! +-----------------------+------------+---------+-------+
//! ```
//!
//! The one thing to know: all zeros is a record that was never used. Nothing here touches memory;
//! it packs and unpacks. Positions wrap, and are compared by their distance only.

use thiserror::Error;

const POSITION_BITS: u32 = 40;
const POSITION_SHIFT: u32 = 64 - POSITION_BITS;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const CLAIMER_SHIFT: u32 = 8;
const ATTEMPT_SHIFT: u32 = 4;
const NIBBLE: u64 = 15;

/// The highest number that an attempt is counted to; it stays there.
pub const ATTEMPT_MAX: u8 = 15;

/// The how-manieth record of its queue this is, modulo 2^40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position(u64);

impl Position {
    /// The position with this number; what does not fit is cut off.
    pub const fn from_number(number: u64) -> Position {
        Position(number & POSITION_MASK)
    }

    /// Its number, below 2^40.
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn plus(self, count: u64) -> Position {
        Position::from_number(self.0.wrapping_add(count))
    }

    pub(crate) const fn minus(self, count: u64) -> Position {
        Position::from_number(self.0.wrapping_sub(count))
    }

    /// How many positions after `other` this one comes; negative if before.
    pub(crate) const fn after(self, other: Position) -> i64 {
        (self.0.wrapping_sub(other.0) << POSITION_SHIFT) as i64 >> POSITION_SHIFT
    }
}

/// What a record is in; see the table in `queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Never used.
    Empty = 0,
    /// To be claimed.
    Queued = 1,
    /// Being worked on by the claimer that the word names.
    Claimed = 2,
    /// Finished, by the claimer that the word names or in its name.
    Done = 3,
    /// Taken back before anybody claimed it.
    Cancelled = 4,
}

impl State {
    pub(crate) const ALL: [State; 5] = [State::Empty, State::Queued, State::Claimed, State::Done, State::Cancelled];
}

/// One reading of a record's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where in the queue it stands.
    pub position: Position,
    /// Who claimed it, while it is claimed or done; else zero.
    pub claimer: u16,
    /// How often it was claimed by somebody who died, up to [`ATTEMPT_MAX`].
    pub attempt: u8,
    /// What it is in.
    pub state: State,
}

impl Snapshot {
    pub(crate) const fn queued(position: Position) -> Snapshot {
        Snapshot { position, claimer: 0, attempt: 0, state: State::Queued }
    }

    pub(crate) const fn pack(self) -> u64 {
        self.position.0 << POSITION_SHIFT
            | (self.claimer as u64) << CLAIMER_SHIFT
            | (self.attempt as u64 & NIBBLE) << ATTEMPT_SHIFT
            | self.state as u64
    }

    /// `None`: no such state.
    pub(crate) fn unpack(word: u64) -> Option<Snapshot> {
        Some(Snapshot {
            position: Position(word >> POSITION_SHIFT),
            claimer: (word >> CLAIMER_SHIFT) as u16,
            attempt: (word >> ATTEMPT_SHIFT & NIBBLE) as u8,
            state: *State::ALL.get((word & NIBBLE) as usize)?,
        })
    }

    pub(crate) const fn claimed_by(self, claimer: u16) -> Snapshot {
        Snapshot { claimer, state: State::Claimed, ..self }
    }

    pub(crate) const fn done(self) -> Snapshot {
        Snapshot { state: State::Done, ..self }
    }

    pub(crate) const fn cancelled(self) -> Snapshot {
        Snapshot { state: State::Cancelled, ..self }
    }

    pub(crate) const fn requeued(self) -> Snapshot {
        let attempt = if self.attempt < ATTEMPT_MAX { self.attempt + 1 } else { ATTEMPT_MAX };
        Snapshot { claimer: 0, attempt, state: State::Queued, ..self }
    }

    /// The same claim, a lap later.
    pub(crate) const fn moved_on(self, records: u64) -> Snapshot {
        Snapshot { position: self.position.plus(records), ..self }
    }

    pub(crate) fn is_claimed_by(self, claimer: u16) -> bool {
        self.state == State::Claimed && self.claimer == claimer
    }

    pub(crate) fn is_finished(self) -> bool {
        matches!(self.state, State::Done | State::Cancelled)
    }
}

/// What a queue's words say cannot be: somebody stored where he must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Broken {
    /// A record holds a word that no protocol step leaves there.
    #[error("record {slot} of a queue holds {word:#x}, which does not fit position {position}")]
    Record {
        /// Which record.
        slot: u64,
        /// What it holds.
        word: u64,
        /// What it was expected to stand for.
        position: u64,
    },
    /// The records lead in a circle.
    #[error("the records of a queue lead from position {from} to {to} and on")]
    Endless {
        /// Where the search began.
        from: u64,
        /// Where it was given up.
        to: u64,
    },
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_packing() {
        for state in State::ALL {
            let snapshot =
                Snapshot { position: Position(POSITION_MASK - 3), claimer: 0xBEEF, attempt: ATTEMPT_MAX, state };
            assert_eq!(Snapshot::unpack(snapshot.pack()), Some(snapshot));
        }
    }

    #[test]
    fn unknown_states_are_refused() {
        (5..16).for_each(|state| assert_eq!(Snapshot::unpack(state), None));
    }

    #[test]
    fn positions_are_compared_across_the_wrap() {
        let last = Position(POSITION_MASK);
        assert_eq!(last.plus(1), Position(0));
        assert_eq!(last.plus(1).after(last), 1);
        assert_eq!(last.after(last.plus(5)), -5);
        assert_eq!(Position(0).minus(1), last);
    }

    #[test]
    fn attempts_are_counted_to_the_last_and_stay() {
        let mut word = Snapshot::queued(Position(7)).claimed_by(3);
        for attempt in 1..=20u8 {
            word = word.requeued().claimed_by(3);
            assert_eq!(word.attempt, attempt.min(ATTEMPT_MAX));
        }
        assert_eq!(word.position, Position(7));
    }
}
