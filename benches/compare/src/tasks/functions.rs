//! What the workers of this bench run.
//!
//! The one thing to know: a worker is this executable in another role, so these are linked in. They
//! do nothing that would be measured beside the call itself.

use arrow_array::RecordBatch;
use bytes::Bytes;
use raylet_client::prelude::*;

use super::world::now_nanos;

/// Nothing at all.
#[remote]
pub(super) fn noop() {}

/// A link of a chain.
#[remote]
pub(super) fn after(previous: u64) -> u64 {
    previous + 1
}

/// Has a batch and does nothing with it.
#[remote]
pub(super) fn take(batch: RecordBatch) -> u64 {
    batch.num_rows() as u64
}

/// Gives back what it got.
#[remote]
pub(super) fn echo(payload: Bytes) -> Bytes {
    payload
}

/// The worker that this runs in.
#[remote]
pub(super) fn worker_pid() -> u32 {
    std::process::id()
}

/// Keeps its CPU until there is a file of this name.
#[remote]
pub(super) fn hold_cpu(until: String) {
    while !std::path::Path::new(&until).exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// An actor that knows when it was made.
pub(super) struct Touched {
    born_nanos: u64,
}

#[remote]
impl Touched {
    pub(super) fn new() -> Touched {
        Touched { born_nanos: now_nanos() }
    }

    /// Nothing at all.
    pub(super) fn touch(&mut self) {}

    /// The first instruction of its making, on the machine's clock, and its process.
    pub(super) fn birth(&self) -> (u64, u32) {
        (self.born_nanos, std::process::id())
    }
}
