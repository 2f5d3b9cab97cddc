//! Questions to a running raylet over a blocking socket, for the command line and tests.
//!
//! The one thing to know: an answer has a time limit, because a raylet may be stopped; the limit
//! declares nobody dead, it only ends the question. This file must not read shared memory.

use raylet_api::address::{self, AddressError};
use raylet_api::frame::{self, Decoder, ProtocolError};
use raylet_api::message::{self, Message};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The raylet is there and does not answer.
    #[error("the raylet did not answer within {limit_ms} ms")]
    NoAnswer {
        /// The limit.
        limit_ms: u64,
    },
    /// The raylet closed the connection.
    #[error("the raylet closed the connection")]
    Closed,
    /// The raylet's bytes break the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The raylet answered with an error.
    #[error("the raylet says: {}", .0.text)]
    Refused(message::Error),
    /// The raylet answered something else.
    #[error("the raylet answered with {found}")]
    Unexpected {
        /// The message's name.
        found: &'static str,
    },
    /// The system said no.
    #[error("the connection to the raylet broke")]
    Io(#[source] io::Error),
}

/// A connection that asks.
pub struct Asker {
    stream: UnixStream,
    decoder: Decoder,
}

impl Asker {
    /// Connects to the raylet of the session in `directory`.
    pub fn connect(directory: &Path) -> Result<Asker, AskError> {
        let stream = address::connect(directory)?;
        let limited =
            stream.set_read_timeout(Some(ANSWER_TIME)).and_then(|()| stream.set_write_timeout(Some(ANSWER_TIME)));
        limited.map_err(AskError::Io)?;
        Ok(Asker { stream, decoder: Decoder::new() })
    }

    /// Asks, and returns the answer; an `Error` message is an error here.
    pub fn ask(&mut self, message: impl Into<Message>) -> Result<Message, AskError> {
        self.send(message)?;
        match self.receive()? {
            Message::Error(error) => Err(AskError::Refused(error)),
            answer => Ok(answer),
        }
    }

    /// Sends a message that has no answer, or whose answer is read later.
    pub fn send(&mut self, message: impl Into<Message>) -> Result<(), AskError> {
        let bytes = frame::encode(&message.into())?;
        self.stream.write_all(&bytes).map_err(broken)
    }

    /// The next message.
    pub fn receive(&mut self) -> Result<Message, AskError> {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            match self.stream.read(&mut bytes).map_err(broken)? {
                0 => return Err(AskError::Closed),
                count => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

fn broken(error: io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::NoAnswer { limit_ms: ANSWER_TIME.as_millis() as u64 }
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => AskError::Closed,
        _ => AskError::Io(error),
    }
}
