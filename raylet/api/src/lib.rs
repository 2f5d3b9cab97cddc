//! What a client, the command line and the raylet may say to each other.
//!
//! The one thing to know: the socket is for control only. It carries a greeting with three
//! descriptors and questions about the whole; objects never pass through it. This crate holds the
//! bytes, the names and the place of the socket; it opens no segment, starts nothing and decides
//! nothing.
//!
//! # The conversation
//!
//! A Unix stream socket in a directory of mode 0700 ([`address`]). Another user is refused by the
//! kernel's word on the peer. Each side sends frames ([`frame`]):
//!
//! ```text
//!  offset bytes                                             all integers little endian
//!       0     4  length: how many bytes follow this field, 4 + body, at most 1 MiB
//!       4     2  kind: which message (the table below)
//!       6     1  protocol version, 1
//!       7     1  reserved, zero
//!       8     -  body: the message's fields as a MessagePack map, name to value
//! ```
//!
//! A program that wants objects says `Hello`, maps what comes with the `Welcome` and joins the store;
//! from then on it needs the connection no more. Questions (`Status`, the listings) and `Shutdown`
//! need no `Hello`. Requests are answered in order, so a client may send several before it reads.
//!
//! | message | kind | from -> to | when | reply | errors | safe to repeat |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | [`Hello`] | 1 | client -> raylet | once on a connection | `Welcome` | `UnsupportedVersion`, `TooManyClients`, `PeerInvisible`, `AlreadyAdmitted`, `ShuttingDown`, `Internal` | on a new connection: gives a second client |
//! | [`Welcome`] | 2 | raylet -> client | answers `Hello`; the descriptors ride on its first byte | - | - | - |
//! | [`Status`] | 3 | anyone -> raylet | any time | `StatusReply` | `ShuttingDown` | yes |
//! | [`StatusReply`] | 4 | raylet -> asker | answers `Status` | - | - | - |
//! | [`ListObjects`] | 5 | anyone -> raylet | any time | `ObjectsReply` | `ShuttingDown` | yes |
//! | [`ObjectsReply`] | 6 | raylet -> asker | one page; `next_cursor` asks for the next | - | - | - |
//! | [`ListClients`] | 7 | anyone -> raylet | any time | `ClientsReply` | `ShuttingDown` | yes |
//! | [`ClientsReply`] | 8 | raylet -> asker | one page | - | - | - |
//! | [`Shutdown`] | 9 | anyone -> raylet | any time | `Ending`, then the connection ends when the raylet does | - | yes |
//! | [`Ending`] | 10 | raylet -> asker | answers `Shutdown` | - | - | - |
//! | [`Error`] | 11 | raylet -> anyone | instead of a reply | - | - | - |
//! | [`ListTasks`] | 64 | anyone -> raylet | any time | `TasksReply` | `ShuttingDown` | yes |
//! | [`TasksReply`] | 65 | raylet -> asker | one page | - | - | - |
//! | [`ListActors`] | 66 | anyone -> raylet | any time | `ActorsReply` | `ShuttingDown` | yes |
//! | [`ActorsReply`] | 67 | raylet -> asker | one page | - | - | - |
//! | [`ListWorkers`] | 68 | anyone -> raylet | any time | `WorkersReply` | `ShuttingDown` | yes |
//! | [`WorkersReply`] | 69 | raylet -> asker | one page | - | - | - |
//! | [`ListGroups`] | 70 | anyone -> raylet | any time | `GroupsReply` | `ShuttingDown` | yes |
//! | [`GroupsReply`] | 71 | raylet -> asker | one page | - | - | - |
//! | [`Summary`] | 72 | anyone -> raylet | any time | `SummaryReply` | `ShuttingDown` | yes |
//! | [`SummaryReply`] | 73 | raylet -> asker | answers `Summary` | - | - | - |
//! | [`Timeline`] | 74 | anyone -> raylet | any time | `TimelineReply` | `ShuttingDown` | yes |
//! | [`TimelineReply`] | 75 | raylet -> asker | one page | - | - | - |
//! | [`GiveEvents`] | 76 | raylet -> worker, driver | somebody wants the timeline | `Events` | - | yes |
//! | [`Events`] | 77 | worker, driver -> raylet | answers `GiveEvents`; unasked before it sleeps | - | - | no: each tells of other spans |
//!
//! The rows of [`inside`] come in pages: a page may be short, even empty, and the one who asks goes on
//! until no `next_cursor` comes.
//!
//! A driver and a worker keep the connection as their *control line*; what else goes over it has kinds
//! 12 to 54 and stands in [`work`], each with its answer. Neither side waits there for the other's next
//! message: requests are numbered, and a raylet that is stopped holds up only what it alone can do.
//!
//! Bytes that are no frame get one `Error` with `BadFrame`, and that connection is closed; nobody
//! else notices. A frame that is too long, has a kind nobody knows, or a body that does not decode is
//! such bytes; a short buffer is not, more may come. A message in the wrong direction gets
//! `UnexpectedMessage` and the connection stays.
//!
//! # The end of a client
//!
//! An admission is taken back when its connection ends before the client has joined the store. From
//! then on the end of the connection says nothing: a client leaves by a word of its own in shared
//! memory, or is gone when the kernel says its process is dead; the store's keeper sees both. A
//! forked child is a client of its own by the store's doing and says no `Hello`.
//!
//! # What needs a new version
//!
//! Nothing: a new message kind (old peers answer `BadFrame`), a new field with a default, a new error
//! code (old peers read [`ErrorCode::Unknown`]), a new
//! [`Want`] (an old raylet answers `BadFrame`). A new version: the frame, a field that
//! goes or changes meaning, the order of the descriptors. The layout of shared memory has its own
//! number, `layout_version` in `Welcome`; a client that was built for another one must not map.

pub mod address;
pub mod failure;
pub mod frame;
pub mod ids;
pub mod inside;
pub mod message;
pub mod record;
pub mod work;
pub mod zygote;

#[cfg(test)]
mod golden;

pub use failure::{Failure, TaskErrorKind};
pub use frame::{Decoder, FRAME_BYTES_MAX, PROTOCOL_VERSION, ProtocolError, encode};
pub use ids::{ActorId, JobId, ObjectId, TaskId};
pub use inside::*;
pub use message::*;
pub use record::{ObjectKey, Record};
pub use work::*;

/// How many descriptors ride on the first byte of `Welcome`: tables for reading and writing, data
/// for reading and writing, data for reading only, in this order.
pub const WELCOME_DESCRIPTORS: usize = 3;
/// As many for drivers and workers, who get the segment of queues behind these.
pub const TASK_DESCRIPTORS: usize = 4;
