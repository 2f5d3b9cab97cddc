//! The segment of queues, mapped: bells at its start, queues where the raylet says.
//!
//! The one thing to know: an offset comes over the control line and is an allegation until the queue
//! there has been opened. This file must not make queues; the raylet does.

use raylet_api::work::TaskSegment;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use store_shm::map::SharedMap;
use store_shm::queue::{Bell, Queue, QueueError};
use store_shm::segment::{Memfd, SegmentError};
use store_shm::{GateError, SharedArray};

/// The queues of one raylet, as this process sees them.
#[derive(Clone)]
pub(crate) struct Segment {
    map: Arc<SharedMap>,
    /// One for each queue of a class, one for each actor.
    pub(crate) bells: SharedArray<Bell>,
}

/// The raylet's segment of queues cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentOpenError {
    /// It cannot be mapped.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The bells do not fit in.
    #[error("{bells} bells do not fit the raylet's segment of {bytes} bytes")]
    Bells {
        /// How many there should be.
        bells: u64,
        /// Bytes of the segment.
        bytes: u64,
        /// What does not fit.
        source: GateError,
    },
}

impl Segment {
    /// Maps what came with the greeting.
    pub(crate) fn open(fd: OwnedFd, layout: TaskSegment) -> Result<Segment, SegmentOpenError> {
        let map = Arc::new(SharedMap::map(&Memfd::from_fd(fd)?)?);
        let (bells, bytes) = (layout.bells, map.bytes());
        let mapped = SharedArray::new(&map, 0, bells);
        let bells = mapped.map_err(|source| SegmentOpenError::Bells { bells, bytes, source })?;
        Ok(Segment { map, bells })
    }

    /// The queue at an offset.
    pub(crate) fn queue(&self, offset: u64) -> Result<Queue, QueueError> {
        Queue::open(&self.map, offset, &self.bells)
    }
}
