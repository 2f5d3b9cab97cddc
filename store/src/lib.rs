//! Immutable Arrow objects in shared memory, shared by processes without asking a daemon.
//!
//! ```
//! use store::{Config, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::in_process(Config { capacity_bytes: 64 << 20, ..Config::default() })?;
//! let object = store.put(b"written once, read in place")?;
//! assert_eq!(&store.view(&object)?[..7], b"written");
//! # Ok(())
//! # }
//! ```
//!
//! An **object** is immutable bytes under an [`ObjectId`]: created, written in place, sealed, read
//! by any process of the store, freed. Two holds keep it: a *reference* ([`ObjectRef`]: somebody
//! names it, its bytes may move to disk) and a *pin* ([`View`], [`Object`]: somebody looks at the
//! bytes, they stay). It ends when nobody has either and no container lists it.
//!
//! # What it costs
//!
//! | operation | shared writes |
//! | --- | --- |
//! | view and release what one refers to | two read-modify-writes of the own cell |
//! | put by handle | one of the own cell; plain stores to the own entry and chunk |
//! | put under an id | the same, a CAS of a bucket, a swap of the word |
//! | last release | the own cell, three CAS of the word, a bit each for block and slot |
//!
//! No system call, no lock that another process could hold, no message.
//!
//! # Who may write what
//!
//! Every shared word has one writer for life, or names its writer in the same word as its state;
//! every hand-over is one CAS. So any process may be killed at any instruction, and a sweep gives
//! back exactly what it held; any process may be stopped at any instruction, and nobody waits for
//! it. The tables of words and their writers stand at the head of each file, with numbered
//! invariants that the asserts and tests name:
//!
//! | invariants | file | about |
//! | --- | --- | --- |
//! | H1-H4 | `hold` | holds, and who ends an object |
//! | I1-I3 | `index` | from id to entry |
//! | L1-L3 | `list` | references inside objects |
//! | A1-A4 | `alloc` | spans, blocks, slots |
//! | P1-P3 | `spill` | disk and back |
//! | R1-R4 | `reclaim` | the dead |

#![cfg_attr(feature = "loom", allow(dead_code, unused_imports, unreachable_pub))]

#[cfg(not(feature = "loom"))]
pub mod arrow;
#[cfg(not(feature = "loom"))]
pub mod spill_file;

mod alloc;
#[cfg(not(feature = "loom"))]
mod canvas;
#[cfg(not(feature = "loom"))]
mod copy;
#[cfg(not(feature = "loom"))]
mod detour;
#[cfg(not(feature = "loom"))]
mod error;
#[cfg(not(feature = "loom"))]
mod fork;
#[cfg(all(any(test, feature = "testing"), not(feature = "loom")))]
pub mod fuzz;
mod hold;
mod index;
#[cfg(not(feature = "loom"))]
mod inspect;
#[cfg(not(feature = "loom"))]
mod keeper;
mod layout;
mod list;
#[cfg(not(feature = "loom"))]
mod make;
#[cfg(not(feature = "loom"))]
mod members;
#[cfg(all(test, feature = "loom"))]
mod models;
#[cfg(not(feature = "loom"))]
mod names;
#[cfg(not(feature = "loom"))]
mod object;
mod object_id;
#[cfg(not(feature = "loom"))]
mod publish;
#[cfg(not(feature = "loom"))]
mod read;
#[cfg(not(feature = "loom"))]
mod reclaim;
#[cfg(not(feature = "loom"))]
mod remake;
#[cfg(not(feature = "loom"))]
mod space;
#[cfg(not(feature = "loom"))]
mod spill;
#[cfg(not(feature = "loom"))]
mod spill_directory;
mod state;
#[cfg(not(feature = "loom"))]
mod store;
#[cfg(not(feature = "loom"))]
mod sweep_gate;
mod sync;
#[cfg(not(feature = "loom"))]
mod table;
mod tables;
mod take_over;
#[cfg(all(any(test, feature = "testing"), not(feature = "loom")))]
mod testing;
mod unload;
#[cfg(not(feature = "loom"))]
mod wait;

pub use object_id::ObjectId;
pub use tables::Handle;

#[cfg(not(feature = "loom"))]
pub use self::{
    canvas::Canvas,
    copy::copy,
    error::{CreateError, GetError, HolderShare, LayoutError, NameError, OpenError, ParseIdError, RemakeError},
    inspect::{ClientInfo, Holder, ObjectInfo, ObjectState, Usage},
    keeper::Keeping,
    layout::{CAPACITY_MAX, CHUNK_BYTES, CLIENTS_MAX, Geometry, LAYOUT_VERSION, SLOTS_MAX},
    make::ObjectWriter,
    members::ClientId,
    object::{Encoding, Object, ObjectRef, View},
    store::{Config, CreateOptions, Lifetime, REFERENCES_MAX, Segments, Store},
    sweep_gate::SweepGate,
    table::BuildBatchError,
};
