//! The promise that the tables' structs may lie in memory that several processes write.

#![allow(unsafe_code)]

use super::chunk::{ChunkBits, SlotSlab};
use super::client::ClientRecord;
use super::entry::Entry;
use super::header::Header;
use store_shm::map::Shared;

// SAFETY: for all of them: `repr(C)`, made of atomics (and a doorbell, which is two) without
// padding, as the const blocks beside their definitions prove by size and offsets; any bytes are
// valid; there is nothing to drop.
unsafe impl Shared for Entry {}
// SAFETY: as above.
unsafe impl Shared for SlotSlab {}
// SAFETY: as above.
unsafe impl Shared for ChunkBits {}
// SAFETY: as above.
unsafe impl Shared for ClientRecord {}
// SAFETY: as above.
unsafe impl Shared for Header {}
