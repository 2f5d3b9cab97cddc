//! What any structure in shared memory needs: segments, mappings, the one bounds gate, futexes,
//! doorbells, the kernel's word on who is dead, descriptors over sockets, and fork handlers.
//!
//! The one thing to know: this crate is where `unsafe` lives, so that what is built on it need not
//! have any. It must not know objects, allocation, tasks or any policy.
//!
//! # Trust model
//!
//! Everybody who maps a segment runs as the same user. They may crash at any instruction, be
//! stopped at any instruction, or be buggy; they do not attack. So:
//!
//! * **A number read from shared memory is an allegation.** It becomes an address only through
//!   [`gate`], once: overflow, bounds and alignment are checked there and nowhere else.
//! * **No pointers and no `usize` in a segment**, only offsets from its start and fields of fixed
//!   width: each process maps it somewhere else.
//! * **What changes after publication is an atomic.** Safe code sees shared words only as
//!   [`map::Shared`] types, all of whose interior mutation goes through atomics, so a buggy peer can
//!   make a value wrong but cannot make reading it undefined.
//! * **A `&[u8]` over an object exists only once nobody writes it any more.** The caller states that
//!   with the `unsafe` of [`map::ReadMap::slice`]; everything before goes through raw pointers.
//! * **Nobody can shorten a segment.** Each mapping demands `F_SEAL_SHRINK`, so a mapped page never
//!   turns into SIGBUS because a peer truncated the file. Pages that were never allocated can still
//!   do so when memory runs out, hence [`segment::Memfd::allocate`] and the `populate` functions.
//! * **A stray write is a fault in the offender.** Views come from a read-only mapping; the writable
//!   one ([`map::WriteWindow`]) is closed but for ranges its process holds, and absent in what it
//!   forks.
//! * **Dead means the kernel said so** ([`liveness`]). Any doubt is alive.
//!
//! # Unsafe
//!
//! Each `unsafe` block names the check that makes it sound in `// SAFETY:`. Four kinds exist: system
//! calls without a safe wrapper, forming references behind the gate, the marker trait
//! [`map::Shared`], and the fork registry's hand-over of a lock guard between two callbacks.

#![allow(unsafe_code)]

pub mod array;
pub mod clock;
pub mod doorbell;
pub mod fd;
pub mod fork;
pub mod futex;
pub mod gate;
pub mod liveness;
pub mod map;
#[cfg(feature = "loom")]
pub mod modelled;
pub mod per_process;
pub mod process;
pub mod queue;
pub mod segment;
mod sync;
pub mod turn;

#[cfg(test)]
mod testing;

pub use array::SharedArray;
pub use doorbell::Doorbell;
pub use fd::FdError;
pub use fork::AtFork;
pub use futex::WaitOutcome;
pub use gate::GateError;
pub use liveness::{ProcessId, Watch, WatchError};
pub use map::{ReadMap, Shared, SharedMap, WriteWindow};
pub use segment::{Memfd, SegmentError};
