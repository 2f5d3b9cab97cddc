//! The metadata of a file, read as untrusted: footer, schema, messages.
//!
//! The one thing to know: a flatbuffer may list one of its parts many times, and so stand for far
//! more than its bytes. The verifier counts every visit, and we bound the count by the bytes; so
//! whatever passes here may be walked without further thought. Nothing here reads bodies.

use std::sync::Arc;

use arrow_ipc::{Block, Footer, MetadataVersion};
use arrow_schema::SchemaRef;
use flatbuffers::VerifierOptions;

use super::error::{Feature, Part};
use super::frame::{CONTINUATION, HEAD, MAGIC, PREFIX_BYTES};
use super::schema::{check_fields, check_flatbuffer};
use super::{DEPTH_MAX, DecodeError};

/// A flatbuffer whose parts are shared may not stand for more than this many times its bytes.
const EXPANSION_MAX: usize = 8;

/// Where the footer starts, counted from the start of the file.
fn footer_range(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let not_arrow = DecodeError::NotArrow { bytes: bytes.len() };
    if bytes.len() < HEAD.len() + 4 + MAGIC.len() || !bytes.starts_with(MAGIC) || !bytes.ends_with(MAGIC) {
        return Err(not_arrow);
    }
    let end = bytes.len() - MAGIC.len() - 4;
    let length = i32_at(bytes, end).and_then(|length| usize::try_from(length).ok());
    let start = length.and_then(|length| end.checked_sub(length));
    start.filter(|&start| start >= HEAD.len()).map(|start| (start, end)).ok_or(not_arrow)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(i32::from_le_bytes(*word))
}

fn verifier_options(bytes: usize) -> VerifierOptions {
    VerifierOptions {
        // Footer, schema, field after field, its type.
        max_depth: DEPTH_MAX + 8,
        max_tables: bytes / 4 + 16,
        max_apparent_size: bytes.saturating_mul(EXPANSION_MAX) + 1024,
        ignore_missing_null_terminator: true,
    }
}

/// The flatbuffer of the footer, unverified.
pub(super) fn footer_bytes(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (start, end) = footer_range(bytes)?;
    Ok(&bytes[start..end])
}

/// Verifies a footer.
pub(super) fn check_footer(footer: &[u8]) -> Result<Footer<'_>, DecodeError> {
    let options = verifier_options(footer.len());
    arrow_ipc::root_as_footer_with_opts(&options, footer).map_err(|source| DecodeError::Metadata { offset: 0, source })
}

/// Verifies a footer and the schema in it.
pub(super) fn check_schema(footer: &[u8]) -> Result<Footer<'_>, DecodeError> {
    let footer = check_footer(footer)?;
    let (offset, part) = (0, Part::Schema);
    let schema = footer.schema().ok_or(DecodeError::Missing { offset, part })?;
    check_flatbuffer(&schema)?;
    Ok(footer)
}

/// The schema in a message of its own, as `pyarrow.Schema.serialize` and its like write it.
pub fn decode_schema_message(bytes: &[u8]) -> Result<SchemaRef, DecodeError> {
    let schema = arrow_ipc::convert::try_schema_from_ipc_buffer(bytes);
    let schema = schema.map_err(|source| DecodeError::Schema { source })?;
    check_fields(schema.fields())?;
    Ok(Arc::new(schema))
}

/// The schema of a footer that has been checked.
pub(super) fn read_schema(footer: &Footer<'_>) -> Result<SchemaRef, DecodeError> {
    let (offset, part) = (0, Part::Schema);
    let schema = footer.schema().ok_or(DecodeError::Missing { offset, part })?;
    if schema.endianness() != arrow_ipc::Endianness::Little {
        let feature = Feature::BigEndian;
        return Err(DecodeError::Unsupported { feature });
    }
    let schema = arrow_ipc::convert::try_fb_to_schema(schema).map_err(|source| DecodeError::Schema { source })?;
    check_fields(schema.fields())?;
    Ok(Arc::new(schema))
}

/// A message whose body lies inside the file.
pub(super) struct Message<'a> {
    pub(super) header: arrow_ipc::Message<'a>,
    /// Where the flatbuffer starts, for errors.
    pub(super) offset: usize,
    pub(super) body_start: usize,
    pub(super) body_bytes: usize,
    /// Metadata and body together.
    pub(super) bytes: usize,
}

impl<'a> Message<'a> {
    /// Reads the message that `block` points at, and verifies its flatbuffer.
    pub(super) fn read(bytes: &'a [u8], block: &Block) -> Result<Self, DecodeError> {
        Self::read_with(bytes, block, |offset, flatbuffer| {
            let options = verifier_options(flatbuffer.len());
            arrow_ipc::root_as_message_with_opts(&options, flatbuffer)
                .map_err(|source| DecodeError::Metadata { offset, source })
        })
    }

    /// Reads the message that `block` points at; `header` makes one of its flatbuffer.
    pub(super) fn read_with(
        bytes: &'a [u8],
        block: &Block,
        header: impl FnOnce(usize, &'a [u8]) -> Result<arrow_ipc::Message<'a>, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let available = bytes.len();
        let range = |offset: i64, length: i64| {
            let error = DecodeError::OutOfBounds { offset, length, available };
            range_within(offset, length, available).ok_or(error)
        };
        let (start, metadata_bytes) = range(block.offset(), block.metaDataLength().into())?;
        let body_start = start + metadata_bytes;
        let (_, body_bytes) = range(body_start as i64, block.bodyLength())?;
        let (offset, flatbuffer) = message_flatbuffer(start, &bytes[start..body_start])?;
        let header = header(offset, flatbuffer)?;
        if !(MetadataVersion::V4..=MetadataVersion::V5).contains(&header.version()) {
            return Err(DecodeError::Unsupported { feature: Feature::OldVersion });
        }
        if usize::try_from(header.bodyLength()) != Ok(body_bytes) {
            return Err(DecodeError::Number { part: Part::Body, value: header.bodyLength() });
        }
        let bytes = metadata_bytes + body_bytes;
        Ok(Self { header, offset, body_start, body_bytes, bytes })
    }
}

/// A length or count that must not be negative.
pub(super) fn number(part: Part, value: i64) -> Result<usize, DecodeError> {
    usize::try_from(value).map_err(|_| DecodeError::Number { part, value })
}

/// The range, if it lies within what there is.
pub(super) fn range_within(offset: i64, length: i64, available: usize) -> Option<(usize, usize)> {
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    let end = offset.checked_add(length)?;
    (end <= available).then_some((offset, length))
}

/// Takes the prefix off a message that starts at `start` in the file.
fn message_flatbuffer(start: usize, message: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let out_of_bounds = |length: i32| DecodeError::OutOfBounds {
        offset: start as i64,
        length: length.into(),
        available: message.len(),
    };
    let is_current = message.starts_with(&CONTINUATION);
    let prefix_bytes = if is_current { PREFIX_BYTES } else { PREFIX_BYTES - 4 };
    let length = i32_at(message, prefix_bytes - 4).ok_or_else(|| out_of_bounds(0))?;
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(prefix_bytes));
    let flatbuffer = end.and_then(|end| message.get(prefix_bytes..end));
    Ok((start + prefix_bytes, flatbuffer.ok_or_else(|| out_of_bounds(length))?))
}
