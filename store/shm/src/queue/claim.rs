//! The claimer's side: take a record, finish it.
//!
//! The one thing to know: a claimer remembers privately how far it has looked, and tells the others
//! only now and then; the shared cursor's version says whether what it remembers still holds. It must
//! not touch a payload before its claim stands.

use thiserror::Error;

use super::cursor::Cursor;
use super::layout::Payload;
use super::word::{Broken, Position, Snapshot};
use super::{Found, Queue};
use crate::sync::Ordering;

/// How far a claimer looks ahead of the shared cursor before it moves that: its line is everybody's.
#[cfg(not(feature = "loom"))]
const LEAD_MAX: i64 = 16;
#[cfg(feature = "loom")]
const LEAD_MAX: i64 = 1;

/// Somebody who takes records out of one queue.
#[derive(Clone, Debug)]
pub struct Claimer {
    queue: Queue,
    me: u16,
    /// How far we looked, and the version of the cursor before we did.
    looked: Option<Cursor>,
}

/// A record that is ours to finish.
#[derive(Debug)]
#[must_use = "a claimed record is finished, or it stays claimed as long as its claimer lives"]
pub struct Claimed {
    claim: Snapshot,
    /// What its owner wrote.
    pub payload: Payload,
}

impl Claimed {
    /// Where it stood when we claimed it.
    pub fn position(&self) -> Position {
        self.claim.position
    }

    /// How many claimers of it died before.
    pub fn attempt(&self) -> u8 {
        self.claim.attempt
    }
}

/// A record that was to be finished is not claimed by the one who claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("record {position} is not claimed by {claimer} any more")]
pub struct Lost {
    /// Where it stood when it was claimed.
    pub position: u64,
    /// Who claimed it.
    pub claimer: u16,
}

impl Claimer {
    /// `me` is the number that a sweeper will know us by.
    pub fn new(queue: &Queue, me: u16) -> Claimer {
        Claimer { queue: queue.clone(), me, looked: None }
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Claims the first queued record.
    #[inline]
    pub fn claim(&mut self) -> Result<Option<Claimed>, Broken> {
        let shared = self.queue.cursor();
        let start = self.start(shared);
        match self.claim_from(shared, start) {
            Ok(Some(claimed)) => Ok(Some(claimed)),
            Ok(None) if self.looked.is_some() => Ok(None),
            // The shared cursor is where nothing can have been submitted: a stray store hit it.
            Ok(None) | Err(_) => self.claim_after_mending(),
        }
    }

    #[cold]
    fn claim_after_mending(&mut self) -> Result<Option<Claimed>, Broken> {
        self.queue.mend()?;
        let shared = self.queue.cursor();
        self.claim_from(shared, shared.position)
    }

    /// Ours, if nothing before it was queued again since.
    #[inline]
    fn start(&mut self, shared: Cursor) -> Position {
        match self.looked {
            Some(looked) if looked.version == shared.version && looked.position.after(shared.position) >= 0 => {
                looked.position
            }
            _ => {
                self.looked = self.queue.is_plausible(shared.position).then_some(shared);
                shared.position
            }
        }
    }

    #[inline]
    fn claim_from(&mut self, shared: Cursor, mut at: Position) -> Result<Option<Claimed>, Broken> {
        // Each turn is somebody else's success.
        loop {
            match self.queue.find_queued(at)? {
                Found::End(end) => {
                    self.move_on(shared, end);
                    return Ok(None);
                }
                Found::Queued(found) => {
                    at = found.position;
                    if let Some(claim) = self.queue.replace(found, found.claimed_by(self.me)) {
                        let payload = self.queue.record(at).copy();
                        self.move_on(shared, at.plus(1));
                        return Ok(Some(Claimed { claim, payload }));
                    }
                }
            }
        }
    }

    /// Nothing from `shared` up to here is queued, unless the version has changed.
    #[inline]
    fn move_on(&mut self, shared: Cursor, position: Position) {
        if self.looked.is_none() {
            return;
        }
        let looked = shared.moved_on(position);
        self.looked = Some(looked);
        if position.after(shared.position) >= LEAD_MAX {
            // If it fails, somebody else moved it, or took it back.
            self.queue.swap_cursor(shared, looked);
        }
    }

    /// For a claimer that slept and claimed: wakes the next sleeper if there is more, in case that the
    /// one who was woken for it stopped.
    pub fn pass_on(&self) -> Result<(), Broken> {
        if self.queue.bell().sleepers() > 0 && self.queue.has_queued()? {
            self.queue.bell().wake_one();
        }
        Ok(())
    }

    /// Finishes a record of this queue. What its claimer wrote before is seen by whoever reaps it.
    #[inline]
    pub fn finish(&self, claimed: Claimed) -> Result<(), Lost> {
        self.queue.finish(claimed)
    }
}

impl Queue {
    /// As [`Claimer::finish`], by any thread of the claimer.
    #[inline]
    pub fn finish(&self, claimed: Claimed) -> Result<(), Lost> {
        let claim = claimed.claim;
        match self.replace(claim, claim.done()) {
            Some(_) => Ok(()),
            None => self.finish_moved(claim),
        }
    }

    /// The owner may have moved it on, meanwhile too.
    #[cold]
    fn finish_moved(&self, claim: Snapshot) -> Result<(), Lost> {
        let done = self.replace_claim(claim.position, claim.claimer, Snapshot::done);
        done.map(|_| ()).ok_or(Lost { position: claim.position.number(), claimer: claim.claimer })
    }

    /// Replaces a claim of `claimer`, wherever the owner moves it; what it was replaced by.
    pub(super) fn replace_claim(
        &self,
        position: Position,
        claimer: u16,
        to: impl Fn(Snapshot) -> Snapshot,
    ) -> Option<Snapshot> {
        // Each turn is a lap of the owner's.
        loop {
            let found = Snapshot::unpack(self.record(position).word.load(Ordering::Acquire))?;
            let is_slot = self.is_same_slot(found.position, position);
            if !found.is_claimed_by(claimer) || !is_slot {
                return None;
            }
            if let Some(replaced) = self.replace(found, to(found)) {
                return Some(replaced);
            }
        }
    }

    pub(super) fn is_same_slot(&self, one: Position, other: Position) -> bool {
        (one.number() ^ other.number()) & (self.records() - 1) == 0
    }

    /// One compare-and-swap. Acquire: pairs with the release of whoever came before, so a claim sees
    /// the payload. Release: who sees the new word sees what we did before.
    #[inline]
    pub(super) fn replace(&self, from: Snapshot, to: Snapshot) -> Option<Snapshot> {
        let word = &self.record(from.position).word;
        word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire).ok().map(|_| to)
    }
}
