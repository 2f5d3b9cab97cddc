//! What can go wrong, one type for each family of operations; every variant carries the numbers.

use crate::object_id::ObjectId;
use std::path::PathBuf;
use std::time::Duration;
use store_shm::gate::GateError;
use store_shm::segment::SegmentError;
use thiserror::Error;

pub(crate) use store_shm::segment::SegmentError as WindowError;

/// A segment is not a store of this version, or a size is impossible.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The first eight bytes are not a store's.
    #[error("not a store: magic is {found:#018x}, expected {expected:#018x}")]
    Magic {
        /// What the segment begins with.
        found: u64,
        /// What a store begins with.
        expected: u64,
    },
    /// Another version wrote the segment.
    #[error("store layout version {found}, this library reads {expected}: use the same version on both sides")]
    Version {
        /// The segment's version.
        found: u32,
        /// This library's.
        expected: u32,
    },
    /// The tables do not fit the segment.
    #[error("the tables segment has {bytes} bytes, its header asks for {needed_bytes}")]
    TooSmall {
        /// Size of the segment.
        bytes: u64,
        /// Size the geometry needs.
        needed_bytes: u64,
    },
    /// The data segment is not as long as the header says.
    #[error("the data segment has {bytes} bytes, the header says {expected_bytes}")]
    DataSize {
        /// Size of the segment.
        bytes: u64,
        /// Size in the header.
        expected_bytes: u64,
    },
    /// A table size that no store can have.
    #[error("{field} = {value} is impossible (limit {limit})")]
    Geometry {
        /// Which size.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A table would lie outside its segment.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The kernel refused a segment or a mapping.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// Opening a store or joining it failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The segments are not a store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A mapping failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Every row of holds is taken.
    #[error("all {clients} clients of the store are connected: end some, or start it with a larger limit")]
    TooManyClients {
        /// How many clients the store was made for.
        clients: u64,
    },
    /// The admission names a client that is not the store's to give.
    #[error("client {client} of generation {generation} is not waiting to be joined")]
    NotAdmitted {
        /// Client number in the admission.
        client: u16,
        /// Its generation.
        generation: u16,
    },
    /// The directory for spill files cannot be used.
    #[error("spill directory {path} cannot be used: {source}")]
    SpillDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread that keeps the store could not be started.
    #[error("could not start a thread: {0}")]
    Thread(std::io::Error),
}

/// Who keeps how much, in an [`CreateError::OutOfMemory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderShare {
    /// Client number.
    pub client: u16,
    /// Its process.
    pub pid: u32,
    /// What it called itself.
    pub label: String,
    /// Bytes of objects in memory that it holds.
    pub held_bytes: u64,
    /// Bytes of these that it has live views of, so that they cannot move to disk.
    pub pinned_bytes: u64,
    /// Its process is stopped (SIGSTOP): what it holds comes back when it continues or ends.
    pub is_stopped: bool,
}

fn holders_text(holders: &[HolderShare]) -> String {
    if holders.is_empty() {
        return "nobody holds the rest".to_owned();
    }
    let each = holders.iter().map(|holder| {
        let stopped = if holder.is_stopped { ", stopped" } else { "" };
        format!(
            "pid {} ({}{stopped}) holds {} bytes, {} pinned",
            holder.pid, holder.label, holder.held_bytes, holder.pinned_bytes
        )
    });
    each.collect::<Vec<_>>().join("; ")
}

/// A lost value could not be taken from a twin; it is lost as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemakeError {
    /// The object has ended.
    #[error("object {id} is gone")]
    Gone {
        /// The id.
        id: ObjectId,
    },
    /// What was made in its place is something else.
    #[error(
        "what was made again for object {id} differs from it: {found_bytes} bytes instead of {expected_bytes}, or \
         another encoding, list of references or checksum"
    )]
    Differs {
        /// The id.
        id: ObjectId,
        /// Bytes that the value had.
        expected_bytes: u64,
        /// Bytes that the twin has.
        found_bytes: u64,
    },
    /// There was no room for it, or somebody stored where he must not.
    #[error(transparent)]
    Get(Box<GetError>),
}

/// Making an object failed; nothing of it is left.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// An object of that id exists.
    #[error("object {id} exists already")]
    DuplicateObject {
        /// The id.
        id: ObjectId,
    },
    /// Larger than the store: waiting cannot help.
    #[error("an object of {requested_bytes} bytes never fits a store of {capacity_bytes} bytes")]
    TooLarge {
        /// Size asked for.
        requested_bytes: u64,
        /// Size of the store.
        capacity_bytes: u64,
    },
    /// No room until the deadline, or none that waiting could make.
    #[error("no room for {requested_bytes} bytes: {free_bytes} of {capacity_bytes} are free after {} ms; {}", waited.as_millis(), holders_text(holders))]
    OutOfMemory {
        /// Size asked for.
        requested_bytes: u64,
        /// Bytes of chunks nobody owns.
        free_bytes: u64,
        /// Size of the store.
        capacity_bytes: u64,
        /// How long the call waited; zero where waiting could not help.
        waited: Duration,
        /// Who keeps the rest, the largest first.
        holders: Vec<HolderShare>,
    },
    /// Every entry of the table is in use.
    #[error("all {slots} entries of the object table are in use")]
    TooManyObjects {
        /// Entries of the table.
        slots: u64,
    },
    /// A reference to an object of another store.
    #[error("one of {count} references is to an object of another store")]
    ForeignReference {
        /// References given.
        count: usize,
    },
    /// More references than a list can have.
    #[error("a list of {count} references is too long (limit {limit})")]
    TooManyReferences {
        /// References given.
        count: usize,
        /// Limit.
        limit: usize,
    },
    /// The machine has no page left.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The batch cannot be written as Arrow IPC.
    #[error(transparent)]
    Encode(#[from] crate::arrow::EncodeError),
    /// The connection of a parent process: the fork of a child could not be given its own.
    #[error("this process was forked and could not become a client of its own: open the store again")]
    Forked,
    /// The raylet has ended.
    #[error("the raylet has ended")]
    RayletGone,
}

/// Reading an object failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GetError {
    /// Nobody has an object of that id.
    #[error("no object {id}")]
    NotFound {
        /// The id.
        id: ObjectId,
    },
    /// The object has not been sealed (in time).
    #[error("object {id} was not sealed within {} ms{}", waited.as_millis(), writer_text(writer))]
    NotSealed {
        /// The id.
        id: ObjectId,
        /// How long the call waited.
        waited: Duration,
        /// The process that is writing it or moving it to disk, where there is one.
        writer: Option<u32>,
    },
    /// The entry says that the value lies outside the store: a stray write hit the tables.
    #[error("object {id} claims bytes outside the store: {source}")]
    Corrupt {
        /// The id.
        id: ObjectId,
        /// Which bytes.
        source: GateError,
    },
    /// The value is on disk and could not be brought back.
    #[error("object {id} could not be restored: {source}")]
    Restore {
        /// The id.
        id: ObjectId,
        /// Why.
        source: crate::spill_file::SpillError,
    },
    /// The value is on disk and there was no room for it in memory.
    #[error("object {id} could not be restored: {source}")]
    NoRoom {
        /// The id.
        id: ObjectId,
        /// Why.
        source: Box<CreateError>,
    },
    /// The object is no Arrow table.
    #[error("object {id} holds {found:?}, not an Arrow table")]
    WrongEncoding {
        /// The id.
        id: ObjectId,
        /// What it holds.
        found: crate::object::Encoding,
    },
    /// The bytes are no valid Arrow IPC file.
    #[error("object {id} is not valid Arrow IPC: {source}")]
    Decode {
        /// The id.
        id: ObjectId,
        /// Why.
        source: crate::arrow::DecodeError,
    },
    /// The references of a parent process: the fork of a child could not be given its own.
    #[error("this process was forked and could not become a client of its own: open the store again")]
    Forked,
    /// The raylet has ended while the call waited.
    #[error("the raylet has ended")]
    RayletGone,
    /// A promise for a blocking get could not be made.
    #[error(transparent)]
    Promise(Box<CreateError>),
}

fn writer_text(writer: &Option<u32>) -> String {
    writer.map(|pid| format!("; process {pid} is at it")).unwrap_or_default()
}

/// Binding or looking up a name failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Another object has that name.
    #[error("the name {name:?} in namespace {namespace:?} is taken")]
    Taken {
        /// Namespace of the name.
        namespace: String,
        /// The name.
        name: String,
    },
    /// Two names have the same 28-byte digest: this one cannot be used.
    #[error("the name {name:?} in namespace {namespace:?} collides with another name")]
    Collision {
        /// Namespace of the name.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The record of the name could not be made.
    #[error(transparent)]
    Create(#[from] Box<CreateError>),
    /// The record of the name could not be read.
    #[error(transparent)]
    Get(#[from] Box<GetError>),
}

/// Text that is no object id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an object id is 56 hexadecimal digits, not {length} characters")]
pub struct ParseIdError {
    /// Characters of the text.
    pub length: usize,
}
