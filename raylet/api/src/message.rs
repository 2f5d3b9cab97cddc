//! The messages: one struct each, one enum over all.
//!
//! The one thing to know: bodies are maps from field name to value, and every reply's field has a
//! default, so a field may be added without a new version (the crate's docs say what may not). This
//! file must not know bytes; `frame` does.

use crate::ids::ObjectId;
use crate::inside::*;
use crate::work::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a client comes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Want {
    /// Create and read objects.
    #[default]
    Store,
    /// That, and have tasks run: the connection stays as the control line.
    Driver,
    /// Run tasks: the connection stays as the control line.
    Worker,
}

/// A client introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version the client speaks; the frame carries it as well.
    pub protocol_version: u32,
    /// The client's pid as it sees itself. The raylet asks the kernel; the two must agree.
    pub pid: u32,
    /// When the process started, in the kernel's ticks; 0 where the client does not know. Tells a
    /// process that took over the pid from the one that connected.
    #[serde(default)]
    pub start_ticks: u64,
    /// What the client calls itself; cut after [`LABEL_BYTES_MAX`].
    pub label: String,
    /// What the client comes for.
    #[serde(default)]
    pub want: Want,
    /// A worker's number, as the raylet gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// What a driver's workers are started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramWish>,
}

/// Bytes of a label that are kept.
pub const LABEL_BYTES_MAX: usize = 40;

/// The raylet takes a client in. Three descriptors ride on the frame's first byte; a fourth, of the
/// segment of queues, for drivers and workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The client's row in the client table.
    pub client_index: u32,
    /// How often that row was reused.
    pub client_generation: u64,
    /// Names this run of the raylet; no other run has the same.
    pub session_id: String,
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Slots of the object table.
    pub slot_count: u64,
    /// Rows of the client table.
    pub max_clients: u32,
    /// Layout of the segments; a client built for another must not map them.
    pub layout_version: u32,
    /// The number of the job whose driver the client is; ids derive from it. From 1.
    #[serde(default)]
    pub job: u32,
    /// Where spilled objects are; absent where nothing is ever spilled.
    #[serde(default)]
    pub spill_directory: Option<String>,
    /// The raylet's pid, as the raylet sees it.
    #[serde(default)]
    pub raylet_pid: u32,
    /// The segment of queues, for drivers and workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskSegment>,
    /// What runs is to be remembered, see [`GiveEvents`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub timeline: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Asks how the raylet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// How the raylet and its store are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    /// The session's name.
    pub session: String,
    /// Names this run of the raylet.
    pub session_id: String,
    /// The raylet's pid, as the raylet sees it.
    pub raylet_pid: u32,
    /// Milliseconds since the raylet was ready.
    pub uptime_ms: u64,
    /// Open connections, the asker's included.
    pub connection_count: u64,
    /// Connections closed because of bad bytes.
    pub bad_connection_count: u64,
    /// The store's numbers.
    pub store: StoreStatus,
    /// The port of 127.0.0.1 where metrics are to be had; absent where nobody asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
}

/// The store's numbers. All are sums at about one moment; nothing is stopped to count them.
/// `used + unused + free = capacity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Bytes that live objects have in memory, rounded up as they are allocated.
    pub used_bytes: u64,
    /// Bytes that clients own and no object has.
    pub unused_bytes: u64,
    /// Bytes nobody owns.
    pub free_bytes: u64,
    /// Bytes of the data segment that the kernel has given memory to.
    pub resident_bytes: u64,
    /// Bytes of the tables that the kernel has given memory to.
    pub metadata_bytes: u64,
    /// Bytes of live objects that are on disk only.
    pub spilled_bytes: u64,
    /// Live objects.
    pub object_count: u64,
    /// Live objects that are on disk only.
    pub spilled_object_count: u64,
    /// Slots of the object table.
    pub slot_count: u64,
    /// Clients that are in, the raylet itself included.
    pub client_count: u32,
    /// Clients there may be, the raylet itself included.
    pub max_clients: u32,
    /// Clients that left or died and were swept.
    pub swept_client_count: u64,
    /// Holds that sweeps gave back.
    pub swept_hold_count: u64,
    /// Whatever else the store counts, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Asks for a page of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListObjects {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`].
    pub count_max: u32,
}

/// Entries of one page at most, so that a page stays far below the frame's limit.
pub const PAGE_COUNT_MAX: u32 = 1024;
/// Holders listed for one object at most; the counts beside the list are of all.
pub const HOLDERS_COUNT_MAX: usize = 8;

/// A page of the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectsReply {
    /// The objects of the page.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// Where an object is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ObjectState {
    /// Named, and nobody has made it yet.
    Promised,
    /// Being written.
    Writing,
    /// Sealed, bytes in memory.
    InMemory,
    /// Sealed, bytes in memory, being copied to disk.
    Spilling,
    /// Sealed, bytes on disk.
    OnDisk,
    /// Being taken apart.
    Ending,
    /// A state this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// Its id.
    pub id: ObjectId,
    /// Its payload.
    pub bytes: u64,
    /// Where it is in its life.
    pub state: ObjectState,
    /// Milliseconds since it was begun.
    #[serde(default)]
    pub age_ms: u64,
    /// How many objects list it.
    #[serde(default)]
    pub listed_count: u64,
    /// References of all clients.
    pub reference_count: u64,
    /// Pins of all clients.
    pub pin_count: u64,
    /// The first [`HOLDERS_COUNT_MAX`] clients that hold it.
    #[serde(default)]
    pub holders: Vec<Holder>,
}

/// A client's hold on an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// The client's row.
    pub client_index: u32,
    /// The client's process.
    pub pid: u32,
    /// How often it names the object.
    pub references: u32,
    /// How many live views it has.
    pub pins: u32,
}

/// Asks for a page of the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListClients {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`].
    pub count_max: u32,
}

/// A page of the clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientsReply {
    /// The clients of the page.
    pub clients: Vec<ClientInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// Its row in the client table.
    pub client_index: u32,
    /// Its process, as the raylet sees it.
    pub pid: u32,
    /// What it calls itself.
    pub label: String,
    /// Milliseconds since it was admitted.
    pub age_ms: u64,
    /// The client that forked it, if one did.
    pub parent: Option<u32>,
    /// Bytes of objects that it names or looks at.
    pub held_bytes: u64,
    /// Bytes of these that it looks at, so that they cannot move to disk.
    pub pinned_bytes: u64,
    /// Bytes it waits for room for; 0 when it does not.
    pub waiting_bytes: u64,
    /// Its process is stopped.
    pub stopped: bool,
}

/// Asks the raylet to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {}

/// The raylet is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Clients that were still in.
    pub client_count: u32,
}

/// Why a request failed, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The peer speaks another version. Numbers: `supported`, `found`.
    UnsupportedVersion,
    /// The bytes were no frame; the connection is closed.
    BadFrame,
    /// A whole message, but not one the raylet takes. Numbers: `kind`.
    UnexpectedMessage,
    /// The client table is full. Numbers: `max_clients`.
    TooManyClients,
    /// The connection said `Hello` before.
    AlreadyAdmitted,
    /// The raylet and the peer do not see the peer's process under the same pid (it is in a pid
    /// namespace of its own, or already gone), so its death could not be noticed. Numbers: `pid`.
    PeerInvisible,
    /// The raylet is ending.
    ShuttingDown,
    /// The raylet failed. Numbers: `errno`, where there is one.
    Internal,
    /// A code this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The raylet could not do what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub text: String,
    /// The numbers of the matter, by name.
    #[serde(default)]
    pub numbers: BTreeMap<String, u64>,
}

impl Error {
    /// An error with its numbers.
    pub fn new(code: ErrorCode, text: impl Into<String>, numbers: &[(&str, u64)]) -> Error {
        let numbers = numbers.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Error { code, text: text.into(), numbers }
    }
}

macro_rules! messages {
    ($($name:ident = $kind:literal,)*) => {
        /// Any message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Message {
            /// The number that stands for the message in a frame.
            pub fn kind(&self) -> u16 {
                match self { $(Message::$name(_) => $kind,)* }
            }

            /// The message's name, for errors and logs.
            pub fn name(&self) -> &'static str {
                match self { $(Message::$name(_) => stringify!($name),)* }
            }

            pub(crate) fn encode_body(
                &self,
                out: &mut Vec<u8>,
            ) -> Result<(), rmp_serde::encode::Error> {
                match self { $(Message::$name(body) => rmp_serde::encode::write_named(out, body),)* }
            }

            /// `None` where nobody knows the kind.
            pub(crate) fn decode_body(
                kind: u16,
                body: &mut &[u8],
            ) -> Option<Result<Message, rmp_serde::decode::Error>> {
                match kind {
                    $($kind => Some(rmp_serde::from_read(body).map(Message::$name)),)*
                    _ => None,
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(body: $name) -> Message {
                Message::$name(body)
            }
        })*
    };
}

messages! {
    Hello = 1,
    Welcome = 2,
    Status = 3,
    StatusReply = 4,
    ListObjects = 5,
    ObjectsReply = 6,
    ListClients = 7,
    ClientsReply = 8,
    Shutdown = 9,
    Ending = 10,
    Error = 11,
    OpenQueue = 12,
    OpenActorQueue = 13,
    QueueOpened = 14,
    WantWorkers = 15,
    CloseQueue = 16,
    SubmitTask = 17,
    CancelTask = 18,
    Blocked = 19,
    Woken = 20,
    CreateActor = 21,
    ActorCreated = 22,
    ReleasedActor = 23,
    KillActor = 24,
    FindActor = 25,
    ActorFound = 26,
    AskActor = 27,
    CreateGroup = 28,
    RemoveGroup = 29,
    Done = 30,
    Refused = 31,
    NameFunctions = 32,
    WorkerReady = 33,
    Grant = 34,
    Withdraw = 35,
    LeaseIdle = 36,
    LeaseBusy = 37,
    LeaseReturned = 38,
    RunTask = 39,
    TaskDone = 40,
    InterruptTask = 41,
    RunActor = 42,
    ServeQueue = 43,
    DropQueue = 44,
    QueueDropped = 45,
    ActorReady = 46,
    ActorFailed = 47,
    EndWorker = 48,
    ActorExited = 49,
    LogLines = 50,
    Notice = 51,
    QueueEnded = 52,
    KeepRecipe = 53,
    RemakeObject = 54,
    ListTasks = 64,
    TasksReply = 65,
    ListActors = 66,
    ActorsReply = 67,
    ListWorkers = 68,
    WorkersReply = 69,
    ListGroups = 70,
    GroupsReply = 71,
    Summary = 72,
    SummaryReply = 73,
    Timeline = 74,
    TimelineReply = 75,
    GiveEvents = 76,
    Events = 77,
}
