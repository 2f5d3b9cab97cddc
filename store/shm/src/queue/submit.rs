//! The owner's side: submit, and reap what is finished, in order.
//!
//! The one thing to know: where the owner stands is private, and no other process needs it: who comes
//! after a dead owner finds it in the records ([`Submitter::new`]). It must not write to a record
//! that it has not reaped.

use thiserror::Error;

use super::layout::Payload;
use super::word::{Broken, Position, Snapshot, State};
use super::{ADVANCE_MAX, Cancel, Place, Queue};
use crate::sync::{Ordering, fence};

/// Claimed records that one call moves on at most.
const MOVES_MAX: u32 = if cfg!(feature = "loom") { 2 } else { 64 };

/// Who submits to one queue: one thread of one process at a time.
#[derive(Debug)]
pub struct Submitter {
    queue: Queue,
    /// The next position to submit at.
    head: Position,
    /// The first position that is not reaped; at most a lap behind.
    tail: Position,
    /// Of records that moved on: where they stand, and where they were submitted. Few: each is being
    /// worked on for longer than a lap.
    moved: Vec<(Position, Position)>,
}

/// No record is free: wait for a finish, reap, try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all {records} records of the queue are in use")]
pub struct Full {
    /// How many there are.
    pub records: u64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was finished.
    Done {
        /// By whom, or in whose name.
        claimer: u16,
        /// How many claimers died before.
        attempt: u8,
    },
    /// It was cancelled, or withdrawn.
    Cancelled,
}

impl Submitter {
    /// Submits to a queue from now on: its owner, or whoever comes after an owner that is dead. What is
    /// not reaped is ours to reap.
    pub fn new(queue: &Queue) -> Result<Submitter, Broken> {
        let tail = first_left(queue)?;
        let mut head = tail;
        while head.after(tail) < queue.records() as i64 && !matches!(queue.place(head)?, Place::NotYet) {
            head = head.plus(1);
        }
        Ok(Submitter { queue: queue.clone(), head, tail, moved: Vec::new() })
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Where the next record will stand.
    pub fn next(&self) -> Position {
        self.head
    }

    /// How many records are submitted and not reaped.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.head.after(self.tail) as u64
    }

    /// Submits, and wakes one claimer if any sleeps.
    #[inline]
    pub fn try_submit(&mut self, payload: &Payload) -> Result<Position, Full> {
        let (position, word) = self.fill(payload)?;
        // A swap where a store would do: as a read-modify-write it is most of the fence that the ring
        // needs. Release: pairs with the acquire in `place` and in the claim (Q1).
        self.queue.record(position).word.swap(word, Ordering::AcqRel);
        self.queue.bell().wake_one_after_rmw();
        Ok(position)
    }

    /// Submits and wakes nobody: [`Submitter::ring`] after the last of several.
    #[inline]
    pub fn push(&mut self, payload: &Payload) -> Result<Position, Full> {
        let (position, word) = self.fill(payload)?;
        // Release: as above.
        self.queue.record(position).word.store(word, Ordering::Release);
        Ok(position)
    }

    /// Wakes as many claimers as records were pushed.
    pub fn ring(&self, pushed: u64) {
        // Pairs with the fence in `Bell::announce`.
        fence(Ordering::SeqCst);
        for _ in 0..pushed {
            if self.queue.bell().sleepers() == 0 {
                return;
            }
            self.queue.bell().wake_one();
        }
    }

    #[inline]
    fn fill(&mut self, payload: &Payload) -> Result<(Position, u64), Full> {
        if self.in_flight() >= self.queue.records() {
            return Err(Full { records: self.queue.records() });
        }
        let position = self.head;
        self.queue.record(position).fill(payload);
        self.head = position.plus(1);
        Ok((position, Snapshot::queued(position).pack()))
    }

    /// Hands out what is finished, in order, up to the first record that is not; how many it were. In
    /// a full ring, a record that somebody works on lets those behind it pass.
    #[inline]
    pub fn reap(&mut self, mut each: impl FnMut(Position, Outcome)) -> Result<u64, Broken> {
        let before = self.tail;
        let reaped = self.reap_to_unfinished(&mut each);
        if self.tail != before {
            // Release: who begins here finds nothing before, as we did.
            self.queue.header().reaped.store(self.tail.number(), Ordering::Release);
        }
        reaped
    }

    fn reap_to_unfinished(&mut self, each: &mut impl FnMut(Position, Outcome)) -> Result<u64, Broken> {
        let mut reaped = 0;
        let mut moves = 0;
        while self.tail != self.head {
            let found = self.submitted(self.tail)?;
            if found.is_finished() {
                let position = self.submitted_at(found.position);
                self.tail = self.tail.plus(1);
                reaped += 1;
                each(position, outcome(found));
            } else if self.is_in_the_way(found) && moves < MOVES_MAX {
                moves += u32::from(self.move_on(found));
            } else {
                self.help_requeue(found);
                break;
            }
        }
        Ok(reaped)
    }

    /// Ends a requeue that its sweeper was stopped in, or nobody would find the record (Q3).
    fn help_requeue(&self, found: Snapshot) {
        let is_requeued = found.state == State::Queued && found.attempt > 0;
        if is_requeued && self.queue.cursor().position.after(found.position) > 0 {
            self.queue.show_again(found.position);
        }
    }

    fn submitted(&self, position: Position) -> Result<Snapshot, Broken> {
        match self.queue.place(position)? {
            Place::Here(found) => Ok(found),
            Place::NotYet => Err(self.queue.broken(position, 0)),
            Place::Over(found) => Err(self.queue.broken(position, found.pack())),
        }
    }

    fn is_in_the_way(&self, found: Snapshot) -> bool {
        found.state == State::Claimed && self.in_flight() == self.queue.records()
    }

    /// Lets a claimed record stand for the next position, which is the same slot as the ring is full:
    /// then those behind it can be reaped (Q4). False if it changed meanwhile.
    #[cold]
    fn move_on(&mut self, found: Snapshot) -> bool {
        let Some(moved) = self.queue.replace(found, found.moved_on(self.queue.records())) else { return false };
        let submitted = self.submitted_at(found.position);
        self.moved.push((moved.position, submitted));
        self.tail = self.tail.plus(1);
        self.head = self.head.plus(1);
        true
    }

    /// Where the record that now stands at a position was submitted; forgets that it moved.
    #[inline]
    fn submitted_at(&mut self, position: Position) -> Position {
        let moved = self.moved.iter().position(|(stands, _)| *stands == position);
        moved.map_or(position, |index| self.moved.swap_remove(index).1)
    }

    /// Takes a record back that nobody claimed yet; by the position that submitting it gave.
    pub fn withdraw(&self, position: Position) -> Cancel {
        let moved = self.moved.iter().find(|(_, submitted)| *submitted == position);
        self.queue.cancel(moved.map_or(position, |(stands, _)| *stands))
    }
}

/// The first position that may not be over. Ends as `Queue::find_queued` does.
fn first_left(queue: &Queue) -> Result<Position, Broken> {
    let reaped = queue.reaped();
    let mut tail = reaped;
    while (0..ADVANCE_MAX).contains(&tail.after(reaped)) {
        // Over: moved on, or the hint is behind, and the owner died before it could say so.
        let Place::Over(found) = queue.place(tail)? else { return Ok(tail) };
        tail = queue.jump(found);
    }
    Err(Broken::Endless { from: reaped.number(), to: tail.number() })
}

fn outcome(found: Snapshot) -> Outcome {
    match found.state {
        State::Done => Outcome::Done { claimer: found.claimer, attempt: found.attempt },
        State::Empty | State::Queued | State::Claimed | State::Cancelled => Outcome::Cancelled,
    }
}
