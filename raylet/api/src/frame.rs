//! Bytes to messages and back: the frame drawn in the crate's docs.
//!
//! The one thing to know: a short buffer is not an error, bad bytes are, and after bad bytes the
//! stream has no next frame, so the decoder stays failed. This file must not read or write sockets.

use crate::message::Message;

/// The version of the protocol this code speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// The longest frame: what `length` may say, in bytes. A page of objects is far below.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;
const HEADER_BYTES: usize = 4;

/// The peer's bytes, or a message of ours, break the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The frame is longer than allowed.
    #[error("a frame of {length_bytes} bytes, at most {limit_bytes} are allowed")]
    Oversize {
        /// What the frame says or the message needs.
        length_bytes: u64,
        /// [`FRAME_BYTES_MAX`].
        limit_bytes: u64,
    },
    /// The frame is too short for its own header.
    #[error("a frame of {length_bytes} bytes, at least {least_bytes} are needed")]
    Undersize {
        /// What the frame says.
        length_bytes: u64,
        /// The header's size.
        least_bytes: u64,
    },
    /// The peer speaks another version.
    #[error("protocol version {found}, this code speaks {supported}")]
    UnsupportedVersion {
        /// The version this code speaks.
        supported: u8,
        /// The version in the frame.
        found: u8,
    },
    /// A reserved byte is not zero.
    #[error("the reserved byte is {found}, not zero")]
    Reserved {
        /// The byte.
        found: u8,
    },
    /// Nobody knows this kind of message.
    #[error("no message has kind {kind}")]
    UnknownKind {
        /// The kind in the frame.
        kind: u16,
    },
    /// The body is not the MessagePack of the message.
    #[error("the body of a message of kind {kind} ({body_bytes} bytes) does not decode: {reason}")]
    BadBody {
        /// The kind in the frame.
        kind: u16,
        /// The body's size.
        body_bytes: u64,
        /// The decoder's or encoder's words.
        reason: String,
    },
    /// Bytes follow the message inside its frame.
    #[error("{trailing_bytes} bytes follow the message of kind {kind}")]
    TrailingBytes {
        /// The kind in the frame.
        kind: u16,
        /// How many.
        trailing_bytes: u64,
    },
}

/// The message as one frame.
pub fn encode(message: &Message) -> Result<Vec<u8>, ProtocolError> {
    let mut out = vec![0; LENGTH_BYTES];
    out.extend(message.kind().to_le_bytes());
    out.extend([PROTOCOL_VERSION, 0]);
    let encoded = message.encode_body(&mut out);
    encoded.map_err(|error| ProtocolError::BadBody {
        kind: message.kind(),
        body_bytes: (out.len() - LENGTH_BYTES - HEADER_BYTES) as u64,
        reason: cut(error.to_string()),
    })?;
    let length = out.len() - LENGTH_BYTES;
    check_length(length)?;
    out[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(out)
}

/// Takes bytes as they come and gives messages as they are whole.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front that belong to messages already given.
    given: usize,
    failed: Option<ProtocolError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds bytes that came. Call [`Decoder::next_message`] until `None` before adding more: then
    /// the buffer holds at most one frame and what came last.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.given);
        self.given = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` where more bytes are needed. After an error, the same error.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let decoded = decode(&self.buffer[self.given..]);
        match decoded {
            Ok(Some((message, taken))) => {
                self.given += taken;
                Ok(Some(message))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Whether the stream stands between two messages, so that its end here is a clean one.
    pub fn is_empty(&self) -> bool {
        self.given == self.buffer.len()
    }
}

/// Decodes the frame at the front of `bytes`: the message and how many bytes it took.
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, ProtocolError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    // Checked before the rest has come: a wrong length must not make anybody wait for gigabytes.
    let length = u32::from_le_bytes(*length) as usize;
    check_length(length)?;
    let Some(frame) = rest.get(..length) else {
        return check_header(rest).map(|()| None);
    };
    check_header(frame)?;
    let (header, body) = frame.split_at(HEADER_BYTES);
    let message = decode_body(u16::from_le_bytes([header[0], header[1]]), body)?;
    Ok(Some((message, LENGTH_BYTES + length)))
}

/// Decodes arbitrary bytes as a stream; never panics.
pub fn fuzz_decode(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    decoder.extend(bytes);
    while let Ok(Some(_)) = decoder.next_message() {}
    // The same bytes as the body of each kind: a random length rarely lets a body be reached.
    if let Some((kind, body)) = bytes.split_first() {
        let _ = decode_body(u16::from(*kind), body);
    }
}

fn check_length(length: usize) -> Result<(), ProtocolError> {
    let length_bytes = length as u64;
    if length > FRAME_BYTES_MAX {
        return Err(ProtocolError::Oversize { length_bytes, limit_bytes: FRAME_BYTES_MAX as u64 });
    }
    if length < HEADER_BYTES {
        return Err(ProtocolError::Undersize { length_bytes, least_bytes: HEADER_BYTES as u64 });
    }
    Ok(())
}

/// The header's version and reserved byte, as far as they have come.
fn check_header(frame: &[u8]) -> Result<(), ProtocolError> {
    match (frame.get(2), frame.get(3)) {
        (Some(&found), _) if found != PROTOCOL_VERSION => {
            Err(ProtocolError::UnsupportedVersion { supported: PROTOCOL_VERSION, found })
        }
        (_, Some(&found)) if found != 0 => Err(ProtocolError::Reserved { found }),
        _ => Ok(()),
    }
}

fn decode_body(kind: u16, body: &[u8]) -> Result<Message, ProtocolError> {
    let mut rest = body;
    let decoded = Message::decode_body(kind, &mut rest);
    let decoded = decoded.ok_or(ProtocolError::UnknownKind { kind })?;
    let message = decoded.map_err(|error| ProtocolError::BadBody {
        kind,
        body_bytes: body.len() as u64,
        reason: cut(error.to_string()),
    })?;
    match rest.len() {
        0 => Ok(message),
        trailing => Err(ProtocolError::TrailingBytes { kind, trailing_bytes: trailing as u64 }),
    }
}

/// A decoder's words may quote the peer's bytes at any length.
fn cut(reason: String) -> String {
    const CHARACTERS_MAX: usize = 200;
    reason.chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Ending, Hello, ListObjects, Status};

    fn frame(kind: u16, version: u8, reserved: u8, body: &[u8]) -> Vec<u8> {
        let mut out = ((HEADER_BYTES + body.len()) as u32).to_le_bytes().to_vec();
        out.extend(kind.to_le_bytes());
        out.extend([version, reserved]);
        out.extend(body);
        out
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: ProtocolError) {
        let mut decoder = Decoder::new();
        decoder.extend(bytes);
        assert_eq!(decoder.next_message(), Err(expected.clone()));
        decoder.extend(&encode(&Status {}.into()).unwrap());
        assert_eq!(decoder.next_message(), Err(expected));
    }

    #[test]
    fn messages_come_whole_from_any_cut() {
        let label = "x".repeat(300);
        let messages: [Message; 3] =
            [Hello { label, ..Hello::default() }.into(), Status {}.into(), Ending { client_count: u32::MAX }.into()];
        let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        for step in 1..=stream.len() {
            let mut decoder = Decoder::new();
            let mut came = Vec::new();
            for bytes in stream.chunks(step) {
                decoder.extend(bytes);
                while let Some(message) = decoder.next_message().unwrap() {
                    came.push(message);
                }
            }
            assert_eq!(came, messages, "in steps of {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn bad_bytes_are_errors_that_stay() {
        let length_bytes = FRAME_BYTES_MAX as u64 + 1;
        let oversize = ProtocolError::Oversize { length_bytes, limit_bytes: length_bytes - 1 };
        check(&(length_bytes as u32).to_le_bytes(), oversize);
        let undersize = ProtocolError::Undersize { length_bytes: 3, least_bytes: 4 };
        check(&3_u32.to_le_bytes(), undersize);
        let version = ProtocolError::UnsupportedVersion { supported: 1, found: 2 };
        check(&frame(3, 2, 0, &[0x80]), version);
        check(&frame(3, 1, 9, &[0x80]), ProtocolError::Reserved { found: 9 });
        check(&frame(99, 1, 0, &[0x80]), ProtocolError::UnknownKind { kind: 99 });
        let trailing = ProtocolError::TrailingBytes { kind: 3, trailing_bytes: 2 };
        check(&frame(3, 1, 0, &[0x80, 0, 0]), trailing);
    }

    #[test]
    fn another_version_is_noticed_before_the_frame_is_whole() {
        let whole = frame(1, 7, 0, &[0; 100]);
        let error = decode(&whole[..7]).unwrap_err();
        assert_eq!(error, ProtocolError::UnsupportedVersion { supported: 1, found: 7 });
    }

    #[test]
    fn bodies_that_do_not_decode_are_errors() {
        let nested = vec![0x91; 100_000];
        let huge_array = [0x81, 0xa5, b'l', b'a', b'b', b'e', b'l', 0xdd, 0xff, 0xff, 0xff, 0xff];
        for body in [&[][..], &[0xc1], &[0x81], &[0x93, 1, 2], &nested, &huge_array] {
            let error = decode(&frame(1, 1, 0, body)).unwrap_err();
            assert!(matches!(error, ProtocolError::BadBody { kind: 1, .. }), "{error}");
        }
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let mut body = vec![0x83];
        for (name, value) in [("cursor", 5), ("later", 6), ("count_max", 7)] {
            body.push(0xa0 | name.len() as u8);
            body.extend(name.bytes());
            body.push(value);
        }
        let (message, _) = decode(&frame(5, 1, 0, &body)).unwrap().unwrap();
        assert_eq!(message, ListObjects { cursor: 5, count_max: 7 }.into());
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let label = "x".repeat(FRAME_BYTES_MAX);
        let error = encode(&Hello { label, ..Hello::default() }.into()).unwrap_err();
        assert!(matches!(error, ProtocolError::Oversize { .. }), "{error}");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let good = encode(&Hello { label: "driver".into(), ..Hello::default() }.into()).unwrap();
        let mut state = 1_u32;
        for round in 0..20_000_usize {
            let mut bytes = good.clone();
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = state as usize % bytes.len();
            bytes[place] ^= (state >> 24) as u8;
            bytes.truncate(1 + round % good.len());
            fuzz_decode(&bytes);
        }
    }
}
