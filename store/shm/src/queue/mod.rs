//! A queue of records in shared memory: one owner submits, many claimers take, nobody waits.
//!
//! The one thing to know: everything about a record is one word ([`word`]), which names who has it,
//! and each change of hands is one compare-and-swap (one store, where only one may). So a claimer
//! that is stopped delays the record that it claimed, an owner that is stopped delays what it has not
//! submitted, and what a dead one had is found by its number. It must not know what a record asks for.
//!
//! The record in slot `s` of `n` stands for positions `s`, `s + n`, `s + 2n`, ... one after another.
//!
//! | state | means | who may leave it, and how |
//! | --- | --- | --- |
//! | empty | never used | owner: store queued |
//! | queued | to be claimed | claimer: CAS to claimed; anyone: CAS to cancelled |
//! | claimed | `claimer` works on it | claimer: CAS to done; its sweeper: CAS to queued with attempt + 1, or to done; owner of a full ring: CAS to itself, a lap later |
//! | done | finished | owner, once it has reaped it: store queued, a lap later |
//! | cancelled | taken back before it was claimed | as done |
//!
//! | field | written by | while |
//! | --- | --- | --- |
//! | payload | owner | the word is empty, or finished and reaped |
//! | `service` | whoever gives out claimers | always |
//! | `reaped` | owner | always; only a hint of where to begin |
//! | `cursor` | claimers and sweepers, by CAS | always; only a hint of where to begin |
//!
//! Invariants:
//!
//! - **Q1** A record is submitted by one release store, its whole payload before it. Where the
//!   records of a lap end is where the first word still stands for the lap before; nothing behind
//!   that is looked at, and no shared count of records exists that could disagree.
//! - **Q2** One attempt of a record is claimed once and ended once: by its claimer, or by the sweeper
//!   of its claimer, who is dead.
//! - **Q3** No queued record lies before the cursor, but while its requeue is not over. A requeue
//!   that its sweeper died in is ended by the next one's [`Queue::mend`]; one that its sweeper was
//!   stopped in, by the owner, as soon as nothing before that record is left to reap.
//! - **Q4** The owner's ring is full only of records that are queued or not reaped yet: one that is
//!   claimed for longer than a lap moves on with it, and keeps the position it was submitted at
//!   towards its owner.
//! - **Q5** Somebody looks at each queued record, or is awake and will, see [`bell`]. A claimer that was
//!   killed between being woken and claiming is its sweeper's matter ([`Queue::mend`] rings for all), and
//!   one that was *stopped* there is the matter of who comes by: the next claimer that is woken
//!   ([`Claimer::pass_on`]), and whoever waits for a record ([`Queue::nudge`]).
//!
//! Whether anybody serves a queue is said by one word ([`Service`]), by the one who gives out
//! claimers. The owner submits, then looks at it; who gives out claimers stores it, then has the last
//! claimer look for records (or cancels them itself): so of a record and a service that ends one is
//! seen. [`Queue::service`] has the fence of the one side, [`Queue::set_service`] that of the other.
//!
//! A word that no protocol step leaves is a typed error ([`Broken`]) for whoever needs that record,
//! and skipped by sweeps; in a ring that stands still, whatever it says, every call ends.

pub mod bell;
pub mod claim;
mod cursor;
pub mod layout;
#[cfg(all(test, feature = "loom"))]
mod models;
#[cfg(all(test, not(feature = "loom")))]
mod processes;
pub mod submit;
pub mod sweep;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
#[cfg(all(test, not(feature = "loom")))]
mod timing;
pub mod word;

pub use bell::{Announced, Bell};
pub use claim::{Claimed, Claimer, Lost};
pub use layout::{PAYLOAD_WORDS, Payload};
pub use submit::{Full, Outcome, Submitter};
pub use sweep::{Cancel, Entry};
pub use word::{ATTEMPT_MAX, Broken, Position, Snapshot, State};

#[cfg(not(feature = "loom"))]
use std::sync::Arc;

#[cfg(not(feature = "loom"))]
use thiserror::Error;

use self::cursor::Cursor;
use self::layout::{Header, Record};
use crate::sync::{Array, Ordering, fence};
#[cfg(not(feature = "loom"))]
use crate::{array::SharedArray, gate::GateError, map::SharedMap};

/// Most records of one queue: two laps have to fit into half of the positions, with room to spare.
pub const RECORDS_MAX: u64 = 1 << 32;

/// Further than this nobody looks in one search: so many records are not submitted meanwhile.
const ADVANCE_MAX: i64 = 1 << 38;

/// Why a queue could not be made or opened.
#[cfg(not(feature = "loom"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueueError {
    /// It does not lie inside its segment.
    #[error("a queue does not fit its segment")]
    Gate(#[from] GateError),
    /// What lies there is no queue of this layout.
    #[error("what lies at offset {offset} begins with {found:#x}, and is no queue")]
    NotAQueue {
        /// Where.
        offset: u64,
        /// What a queue's magic number should be.
        found: u64,
    },
    /// Not a power of two, or out of range.
    #[error("a queue of {records} records: the number has to be a power of two up to {RECORDS_MAX}")]
    Records {
        /// How many.
        records: u64,
    },
    /// It names a bell that does not exist.
    #[error("a queue names bell {bell} of {bells}")]
    NoSuchBell {
        /// Which.
        bell: u32,
        /// How many there are.
        bells: u64,
    },
}

/// Who claims from a queue, by the word of whoever gives out claimers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// So many claimers; with none of them, the owner has to ask for some.
    Claimers(u32),
    /// Nobody, ever again: the owner takes back what it submits.
    Ended,
}

const SERVICE_ENDED: u64 = u64::MAX;

/// A queue, as this process sees it.
#[derive(Clone)]
pub struct Queue {
    header: Array<Header>,
    /// A power of two of them.
    records: Array<Record>,
    bells: Array<Bell>,
    bell: usize,
    #[cfg(not(feature = "loom"))]
    owner: u16,
}

/// What a record says about a position.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing was submitted there yet.
    NotYet,
    /// The record stands for it.
    Here(Snapshot),
    /// The record stands for a later lap: whatever was at the position is over, or moved on.
    Over(Snapshot),
}

/// Where a search for a queued record came to.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// It is queued.
    Queued(Snapshot),
    /// There is none up to here, where nothing was submitted yet.
    End(Position),
}

#[cfg(not(feature = "loom"))]
impl Queue {
    /// The bytes that a queue takes; its offset has to be a multiple of 128.
    pub fn bytes(records: u64) -> Result<u64, QueueError> {
        check_records(records)?;
        Ok(size_of::<Header>() as u64 + records * size_of::<Record>() as u64)
    }

    /// Makes a queue in memory that is all zeros and that nobody else looks at yet.
    pub fn format(
        map: &Arc<SharedMap>,
        offset: u64,
        records: u64,
        bells: &SharedArray<Bell>,
        bell: u32,
        owner: u16,
    ) -> Result<Queue, QueueError> {
        check_records(records)?;
        let header = SharedArray::<Header>::new(map, offset, 1)?;
        header[0].records.store(records, Ordering::Relaxed);
        header[0].bell_and_owner.store(u64::from(bell) | u64::from(owner) << 32, Ordering::Relaxed);
        // Release: pairs with the acquire in `open`.
        header[0].magic.store(layout::MAGIC, Ordering::Release);
        Queue::open(map, offset, bells)
    }

    /// Opens a queue that somebody made.
    pub fn open(map: &Arc<SharedMap>, offset: u64, bells: &SharedArray<Bell>) -> Result<Queue, QueueError> {
        let header = SharedArray::<Header>::new(map, offset, 1)?;
        let found = header[0].magic.load(Ordering::Acquire);
        if found != layout::MAGIC {
            return Err(QueueError::NotAQueue { offset, found });
        }
        let records = header[0].records.load(Ordering::Relaxed);
        check_records(records)?;
        // The header passed the gate, so this does not overflow.
        let records = SharedArray::new(map, offset + size_of::<Header>() as u64, records)?;
        let bell_and_owner = header[0].bell_and_owner.load(Ordering::Relaxed);
        let bell = bell_and_owner as u32;
        if bell as usize >= bells.len() {
            return Err(QueueError::NoSuchBell { bell, bells: bells.len() as u64 });
        }
        let owner = (bell_and_owner >> 32) as u16;
        Ok(Queue { header, records, bells: bells.clone(), bell: bell as usize, owner })
    }

    /// The client that submits, as it was named when the queue was made.
    pub fn owner(&self) -> u16 {
        self.owner
    }
}

#[cfg(not(feature = "loom"))]
fn check_records(records: u64) -> Result<(), QueueError> {
    if records.is_power_of_two() && records <= RECORDS_MAX { Ok(()) } else { Err(QueueError::Records { records }) }
}

impl Queue {
    /// What its claimers sleep on.
    #[inline]
    pub fn bell(&self) -> &Bell {
        &self.bells[self.bell]
    }

    /// How many records there are.
    #[inline]
    pub fn records(&self) -> u64 {
        self.records.len() as u64
    }

    #[inline]
    fn header(&self) -> &Header {
        &self.header[0]
    }

    #[inline]
    fn record(&self, position: Position) -> &Record {
        &self.records[position.number() as usize & (self.records.len() - 1)]
    }

    fn broken(&self, position: Position, word: u64) -> Broken {
        let slot = position.number() & (self.records() - 1);
        Broken::Record { slot, word, position: position.number() }
    }

    /// Acquire: pairs with the release of whoever put the record into the state that is read.
    #[inline]
    fn place(&self, position: Position) -> Result<Place, Broken> {
        let word = self.record(position).word.load(Ordering::Acquire);
        let broken = || self.broken(position, word);
        let read = Snapshot::unpack(word).ok_or_else(broken)?;
        let laps_apart = read.position.after(position);
        match laps_apart {
            _ if read.state == State::Empty => {
                if word == 0 {
                    Ok(Place::NotYet)
                } else {
                    Err(broken())
                }
            }
            0 => Ok(Place::Here(read)),
            _ if laps_apart == -(self.records() as i64) => Ok(Place::NotYet),
            1.. if laps_apart as u64 & (self.records() - 1) == 0 => Ok(Place::Over(read)),
            _ => Err(broken()),
        }
    }

    /// The first queued record from a position on.
    ///
    /// In a ring that stands still each record is met twice at most: once where it stands for a
    /// later lap, which is jumped to, and once there. So every further turn is somebody else's
    /// progress, unless words that were stored over lead in a circle around all positions.
    #[inline]
    fn find_queued(&self, from: Position) -> Result<Found, Broken> {
        let mut at = from;
        while (0..ADVANCE_MAX).contains(&at.after(from)) {
            at = match self.place(at)? {
                Place::NotYet => return Ok(Found::End(at)),
                Place::Here(found) if found.state == State::Queued => return Ok(Found::Queued(found)),
                Place::Here(_) => at.plus(1),
                Place::Over(found) => self.jump(found),
            };
        }
        Err(Broken::Endless { from: from.number(), to: at.number() })
    }

    /// A lap before what stands there, everything was over when that was submitted.
    fn jump(&self, found: Snapshot) -> Position {
        found.position.minus(self.records()).plus(1)
    }

    #[inline]
    fn cursor(&self) -> Cursor {
        // Acquire: pairs with the release in `swap_cursor`; who sees a changed version sees the
        // record that was queued again before.
        Cursor::unpack(self.header().cursor.load(Ordering::Acquire))
    }

    fn swap_cursor(&self, from: Cursor, to: Cursor) -> bool {
        let swapped =
            self.header().cursor.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }

    /// Where everything before is reaped, as far as is known.
    fn reaped(&self) -> Position {
        Position::from_number(self.header().reaped.load(Ordering::Acquire))
    }

    /// Whether positions up to here can have been submitted: a hint that a stray store hit says
    /// anything.
    fn is_plausible(&self, position: Position) -> bool {
        let before = position.minus(1);
        let is_first = position.number() == 0 && self.record(before).word.load(Ordering::Relaxed) == 0;
        is_first || matches!(self.place(before), Ok(Place::Here(_) | Place::Over(_)))
    }

    /// Who claims from it; of a record that was submitted before, either this or whoever ends the
    /// service knows.
    #[inline]
    pub fn service(&self) -> Service {
        // Pairs with the fence in `set_service`.
        fence(Ordering::SeqCst);
        match self.header().service.load(Ordering::Relaxed) {
            SERVICE_ENDED => Service::Ended,
            claimers => Service::Claimers(u32::try_from(claimers).unwrap_or(u32::MAX)),
        }
    }

    /// Says who claims from it: for the one who gives out claimers. Look for records after this, if it
    /// takes claimers away.
    pub fn set_service(&self, service: Service) {
        let word = match service {
            Service::Claimers(claimers) => u64::from(claimers),
            Service::Ended => SERVICE_ENDED,
        };
        self.header().service.store(word, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Whether some record is queued.
    pub fn has_queued(&self) -> Result<bool, Broken> {
        Ok(matches!(self.find_queued(self.cursor().position)?, Found::Queued(_)))
    }

    /// For whoever has waited for a record for a while (a millisecond, then ever longer): wakes
    /// everybody if a record is queued, as a claimer that was stopped may have been woken for it.
    /// Whether one is.
    pub fn nudge(&self) -> Result<bool, Broken> {
        let has_queued = self.has_queued()?;
        if has_queued {
            self.bell().wake_all();
        }
        Ok(has_queued)
    }

    #[cfg(all(test, feature = "loom"))]
    pub(crate) fn for_model(records: u64) -> Queue {
        Queue::for_model_beside(records, std::sync::Arc::from([Bell::default()]))
    }

    #[cfg(all(test, feature = "loom"))]
    pub(crate) fn for_model_beside(records: u64, bells: Array<Bell>) -> Queue {
        let records = (0..records).map(|_| Record::default()).collect();
        Queue { header: std::sync::Arc::from([Header::default()]), records, bells, bell: 0 }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("records", &self.records.len()).field("bell", &self.bell).finish_non_exhaustive()
    }
}
