//! The segment of queues: who gets which place in it.
//!
//! ```text
//! offset 0          bells, one in each 128 bytes so that no two share a line
//!        BELLS_END  places, one after another, each for one queue of a class or one of an actor
//! ```
//!
//! The one thing to know: the segment is sparse and far larger than what is ever touched, so places
//! are cut off its unused end, and come back as holes that read as zeros. A place comes back only when
//! nobody looks at it any more, which is the caller's to know. This file must not know who submits or
//! claims.

use raylet_api::TaskSegment;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use store_shm::queue::{Bell, Queue, QueueError};
use store_shm::segment::{Memfd, SegmentError};
use store_shm::{GateError, SharedArray, SharedMap};

/// Address space only: pages come as queues are used.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 30;
/// Bells in one line of 128 bytes, of which the first is used.
const BELLS_PER_LINE: u32 = 16;
const BELLS: u64 = (1 << 20) * BELLS_PER_LINE as u64;
const BELLS_END: u64 = BELLS * size_of::<Bell>() as u64;
/// Whole pages on every machine.
const PLACE_ALIGNMENT: u64 = 64 << 10;

/// What a queue is for, which says how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// The calls of one caller that may share workers.
    Class,
    /// The calls of one caller to one actor.
    Actor,
}

impl Size {
    /// Records: enough for workers to be busy while the caller does something else; what is more
    /// waits with the caller.
    pub(crate) const fn records(self) -> u64 {
        match self {
            Size::Class => 4096,
            Size::Actor => 256,
        }
    }

    fn bytes(self) -> u64 {
        let bytes = Queue::bytes(self.records()).expect("a power of two of records");
        bytes.next_multiple_of(PLACE_ALIGNMENT)
    }
}

/// Why there is no queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueuesError {
    /// The segment cannot be made.
    #[error("the segment of queues")]
    Segment(#[from] SegmentError),
    /// It cannot be looked into.
    #[error("the segment of queues")]
    Gate(#[from] GateError),
    /// A queue cannot be made.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A descriptor of it cannot be had.
    #[error("a descriptor of the segment of queues")]
    Descriptor(#[source] io::Error),
    /// No place is left.
    #[error("{queues} queues are in use, and the segment of {bytes} bytes has room for no more")]
    Full {
        /// How many there are.
        queues: usize,
        /// The segment's size.
        bytes: u64,
    },
}

/// The segment and what of it is given out.
pub(crate) struct Segment {
    memfd: Memfd,
    map: Arc<SharedMap>,
    bells: SharedArray<Bell>,
    /// Where the part begins that was never given out.
    unused: u64,
    free_class: Vec<u64>,
    free_actor: Vec<u64>,
    unused_bell: u32,
    free_bells: Vec<u32>,
    queue_count: usize,
}

/// A queue and where it lies.
pub(crate) struct Place {
    pub(crate) queue: Queue,
    pub(crate) offset: u64,
    pub(crate) size: Size,
}

impl Segment {
    pub(crate) fn create() -> Result<Segment, QueuesError> {
        let memfd = Memfd::create("raylet-queues", SEGMENT_BYTES)?;
        let map = Arc::new(SharedMap::map(&memfd)?);
        let bells = SharedArray::new(&map, 0, BELLS)?;
        Ok(Segment {
            memfd,
            map,
            bells,
            unused: BELLS_END,
            free_class: Vec::new(),
            free_actor: Vec::new(),
            unused_bell: 0,
            free_bells: Vec::new(),
            queue_count: 0,
        })
    }

    /// What those are told who map it.
    pub(crate) fn announcement() -> TaskSegment {
        TaskSegment { bytes: SEGMENT_BYTES, bells: BELLS }
    }

    pub(crate) fn descriptor(&self) -> Result<OwnedFd, QueuesError> {
        Ok(self.memfd.try_clone()?)
    }

    /// A bell that nobody else has.
    pub(crate) fn take_bell(&mut self) -> Result<u32, QueuesError> {
        if let Some(bell) = self.free_bells.pop() {
            return Ok(bell);
        }
        let bell = self.unused_bell;
        if u64::from(bell) >= BELLS {
            return Err(self.full());
        }
        self.unused_bell += BELLS_PER_LINE;
        Ok(bell)
    }

    /// What the last one's sleepers left in it mends itself.
    pub(crate) fn give_bell(&mut self, bell: u32) {
        self.free_bells.push(bell);
    }

    /// A new queue, whose submitter is client `owner`.
    pub(crate) fn make(&mut self, size: Size, bell: u32, owner: u16) -> Result<Place, QueuesError> {
        let offset = self.take_place(size)?;
        let made = Queue::format(&self.map, offset, size.records(), &self.bells, bell, owner);
        let queue = made.inspect_err(|_| self.free(size).push(offset))?;
        self.queue_count += 1;
        Ok(Place { queue, offset, size })
    }

    fn take_place(&mut self, size: Size) -> Result<u64, QueuesError> {
        if let Some(offset) = self.free(size).pop() {
            return Ok(offset);
        }
        let offset = self.unused;
        if SEGMENT_BYTES - offset < size.bytes() {
            return Err(self.full());
        }
        self.unused += size.bytes();
        Ok(offset)
    }

    /// Takes a queue back that nobody looks at any more.
    pub(crate) fn give_back(&mut self, offset: u64, size: Size) {
        self.queue_count -= 1;
        match self.memfd.punch(offset, size.bytes()) {
            Ok(()) => self.free(size).push(offset),
            // Whoever gets it next has to find zeros.
            Err(error) => tracing::warn!(%error, offset, "a queue's place is lost"),
        }
    }

    fn free(&mut self, size: Size) -> &mut Vec<u64> {
        match size {
            Size::Class => &mut self.free_class,
            Size::Actor => &mut self.free_actor,
        }
    }

    fn full(&self) -> QueuesError {
        QueuesError::Full { queues: self.queue_count, bytes: SEGMENT_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store_shm::queue::{Claimer, Submitter};

    #[test]
    fn a_place_that_is_given_out_again_is_all_zeros() {
        let mut segment = Segment::create().unwrap();
        let bell = segment.take_bell().unwrap();
        let first = segment.make(Size::Actor, bell, 3).unwrap();
        Submitter::new(&first.queue).unwrap().try_submit(&[7; 15]).unwrap();
        assert!(first.queue.has_queued().unwrap());
        segment.give_back(first.offset, first.size);
        let again = segment.make(Size::Actor, bell, 4).unwrap();
        assert_eq!((again.offset, again.queue.owner()), (first.offset, 4));
        assert!(!again.queue.has_queued().unwrap());
        assert!(Claimer::new(&again.queue, 5).claim().unwrap().is_none());
    }

    #[test]
    fn places_and_bells_do_not_overlap() {
        let mut segment = Segment::create().unwrap();
        let bells = [segment.take_bell().unwrap(), segment.take_bell().unwrap()];
        assert_eq!(bells, [0, BELLS_PER_LINE]);
        let sizes = [Size::Class, Size::Actor, Size::Class];
        let places = sizes.map(|size| segment.make(size, bells[0], 1).unwrap());
        let mut end = BELLS_END;
        for place in &places {
            assert!(place.offset >= end);
            end = place.offset + Queue::bytes(place.size.records()).unwrap();
        }
    }
}
