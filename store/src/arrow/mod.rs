//! Arrow tables as the bytes of one object: encode, decode, build in place.
//!
//! The one thing to know: the bytes are an Arrow IPC *file*, so any Arrow implementation reads the
//! mapping as it stands. Every buffer starts at a multiple of [`ALIGNMENT`] from the start of the
//! file, and what we decode points into the bytes and copies nothing.
//!
//! ```text
//! 0      "ARROW1\0\0"
//! 8      schema message                      padded so that the next part starts at 64 k
//! 64 k   dictionary messages, then batch messages, each
//!          prefix FFFFFFFF, length | flatbuffer | zeros to 64 k' | buffers, each from a multiple of 64
//!        FFFFFFFF 00000000                   end of the stream of messages
//!        footer flatbuffer: schema, where each message is
//!        u32 length of the footer, "ARROW1"
//! ```
//!
//! Invariants:
//!
//! * A1: whatever `Layout::write` or `BatchBuilder::finish` wrote, `decode` accepts.
//! * A2: whatever `decode` accepts unvalidated, every safe method of the arrays it returns may be
//!   called on without undefined behaviour.
//! * A3: `decode` never panics, and its time and memory are linear in the number of bytes, whatever
//!   the bytes claim.
//!
//! This module knows byte buffers only. It must not know objects, pins or segments.

mod body;
mod build;
mod check;
mod decode;
mod dictionary;
mod encode;
mod error;
mod frame;
pub mod fuzz;
mod message;
mod native;
mod piece;
mod place;
mod schema;
mod schemas;
#[cfg(any(test, feature = "testing"))]
mod testing;
#[cfg(test)]
mod tests;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

pub use build::{BatchBuilder, BatchPlan, BitsMut, Column, Places};
pub use decode::{decode, decode_schema};
pub use encode::Layout;
pub use error::{BuildError, DecodeError, EncodeError};
pub use message::decode_schema_message;

/// Every buffer starts at a multiple of this many bytes from the start of the file, and the file
/// itself should start at such an address.
pub const ALIGNMENT: usize = 64;

/// How deep types may nest, both ways: deeper ones are refused, so that recursion is bounded.
pub const DEPTH_MAX: usize = 64;

// The format is little-endian and offsets are 64-bit; a target that is neither would need swaps
// and narrowing that nobody has tested.
const _: () = assert!(cfg!(target_endian = "little") && usize::BITS == 64);

/// Record batches of one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// The batches, in the order written.
    pub batches: Vec<RecordBatch>,
}
