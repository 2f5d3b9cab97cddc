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
//! A program that wants objects says `Hello` and keeps the connection for life. Questions (`Status`,
//! the listings) and `Shutdown` need no `Hello`. Requests are answered in order, so a client may send
//! several before it reads.
//!
//! | message | kind | from -> to | when | reply | errors | safe to repeat |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | [`Hello`] | 1 | client -> raylet | once, first | `Welcome` | `UnsupportedVersion`, `TooManyClients`, `PeerInvisible`, `AlreadyAdmitted`, `ShuttingDown`, `Internal` | on a new connection: gives a second client |
//! | [`Welcome`] | 2 | raylet -> client | answers `Hello`; the descriptors ride on its first byte | - | - | - |
//! | [`Goodbye`] | 3 | client -> raylet | the client is done and touches shared memory no more | `Farewell` | `NotAdmitted` | the second gets `NotAdmitted` |
//! | [`Farewell`] | 4 | raylet -> client | answers `Goodbye`; what the client held is being reclaimed | - | - | - |
//! | [`ReserveHint`] | 5 | client -> raylet | before a first put of 1 MiB or more, and when warm memory ran out | none | `NotAdmitted` | yes |
//! | [`Status`] | 6 | anyone -> raylet | any time | `StatusReply` | - | yes |
//! | [`StatusReply`] | 7 | raylet -> asker | answers `Status` | - | - | - |
//! | [`ListObjects`] | 8 | anyone -> raylet | any time | `ObjectsReply` | `ShuttingDown` | yes |
//! | [`ObjectsReply`] | 9 | raylet -> asker | one page; `next_cursor` asks for the next | - | - | - |
//! | [`ListClients`] | 10 | anyone -> raylet | any time | `ClientsReply` | `ShuttingDown` | yes |
//! | [`ClientsReply`] | 11 | raylet -> asker | one page | - | - | - |
//! | [`Shutdown`] | 12 | anyone -> raylet | any time | `Ending`, then the connection ends when the raylet does | - | yes |
//! | [`Ending`] | 13 | raylet -> asker | answers `Shutdown` | - | - | - |
//! | [`Error`] | 14 | raylet -> anyone | instead of a reply | - | - | - |
//!
//! Bytes that are no frame get one `Error` with `BadFrame`, and that connection is closed; nobody
//! else notices. A frame that is too long, has a kind nobody knows, or a body that does not decode is
//! such bytes; a short buffer is not, more may come. A message in the wrong direction gets
//! `UnexpectedMessage` and the connection stays.
//!
//! # The end of a client
//!
//! The end of a connection says nothing: a client may close it by accident and keep reading what it
//! has mapped. A client is gone when it said `Goodbye` or when the kernel says its process is dead.
//! A forked child inherits the connection but is not the client: it connects and says `Hello` itself,
//! because the raylet watches the process that connected.
//!
//! # What needs a new version
//!
//! Nothing: a new message kind (old peers answer `BadFrame`), a new field with a default, a new error
//! code (old peers read [`ErrorCode::Unknown`]), a new
//! [`Want`] (an old raylet answers `BadFrame`). A new version: the frame, a field that
//! goes or changes meaning, the order of the descriptors. The layout of shared memory has its own
//! number, `layout_version` in `Welcome`; a client that was built for another one must not map.

pub mod address;
pub mod frame;
pub mod ids;
pub mod message;

#[cfg(test)]
mod golden;

pub use frame::{Decoder, FRAME_BYTES_MAX, PROTOCOL_VERSION, ProtocolError, encode};
pub use ids::{ActorId, JobId, ObjectId, TaskId};
pub use message::*;

/// How many descriptors ride on the first byte of `Welcome`: tables for reading and writing, data
/// for reading and writing, data for reading only, in this order.
pub const WELCOME_DESCRIPTORS: usize = 3;
