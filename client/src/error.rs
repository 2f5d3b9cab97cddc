//! Why a client could not join.
//!
//! The one thing to know: "nobody is there" is a case of its own, because a driver then starts a
//! raylet. What goes wrong later is the store's to say; this file must not repeat it.

pub use crate::engine::segment::SegmentOpenError;
use raylet_api::address::AddressError;
use raylet_api::frame::ProtocolError;
use raylet_api::message::ErrorCode;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use store::OpenError;

/// Joining a raylet failed; nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No raylet runs in the session.
    #[error("no raylet runs at {}", path.display())]
    NotRunning {
        /// The socket where one would listen.
        path: PathBuf,
    },
    /// The session's name or socket is no good.
    #[error(transparent)]
    Address(AddressError),
    /// The raylet is there and did not answer: it is stopped, or very busy.
    #[error("the raylet did not answer within {limit_ms} ms")]
    NoAnswer {
        /// How long it had.
        limit_ms: u64,
    },
    /// The raylet ended meanwhile.
    #[error("the raylet closed the connection")]
    Closed,
    /// The raylet does not let this client in.
    #[error("the raylet says: {text}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        text: String,
        /// The numbers of the matter, by name.
        numbers: BTreeMap<String, u64>,
    },
    /// The raylet was built for another layout of shared memory.
    #[error("the raylet's store has layout {found}, this client reads {expected}")]
    Layout {
        /// The layout this client reads.
        expected: u32,
        /// The raylet's.
        found: u32,
    },
    /// The raylet's bytes break the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The raylet answered with something else.
    #[error(
        "the raylet answered with {found} and {descriptors} descriptors, {expected_descriptors} belong to a Welcome"
    )]
    Unexpected {
        /// The message's name.
        found: &'static str,
        /// Descriptors that came.
        descriptors: usize,
        /// Descriptors of a greeting.
        expected_descriptors: usize,
    },
    /// The raylet gave a client number that no store has.
    #[error("client {index} of generation {generation} can be no client of a store")]
    ClientNumber {
        /// The number.
        index: u32,
        /// Its generation.
        generation: u64,
    },
    /// The store could not be joined.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The raylet's segment of queues could not be joined.
    #[error(transparent)]
    Queues(#[from] SegmentOpenError),
    /// The connection broke.
    #[error("the connection to the raylet broke")]
    Io(#[source] io::Error),
}

impl From<AddressError> for ConnectError {
    fn from(error: AddressError) -> ConnectError {
        match error {
            AddressError::NotRunning { path } => ConnectError::NotRunning { path },
            other => ConnectError::Address(other),
        }
    }
}
