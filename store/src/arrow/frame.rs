//! The skeleton of the file: messages, their flatbuffers, the footer.
//!
//! The one thing to know: a flatbuffer's size depends on how many nodes and buffers it lists, never
//! on their values, so that a builder may lay a message out first and write its numbers last.
//! Nothing here touches the bytes of arrays.

use arrow_ipc::convert::{IpcSchemaEncoder, metadata_to_fb};
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{Block, Buffer as BufferPlace, FieldNode, MessageHeader, MetadataVersion};
use arrow_schema::Schema;
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{ALIGNMENT, EncodeError};

/// First and last bytes of the file.
pub(super) const MAGIC: &[u8; 6] = b"ARROW1";
/// Start of the file: the magic, padded to 8.
pub(super) const HEAD: &[u8; 8] = b"ARROW1\0\0";
/// Before each message's length; distinguishes it from an old format.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes before a message's flatbuffer: the continuation and the length.
pub(super) const PREFIX_BYTES: usize = 8;

/// What a record batch's header lists.
#[derive(Debug, Default, Clone)]
pub(super) struct Listing {
    pub(super) nodes: Vec<FieldNode>,
    pub(super) buffers: Vec<BufferPlace>,
    pub(super) variadic_counts: Vec<i64>,
}

/// The next multiple of the alignment.
pub(super) fn align_up(bytes: usize) -> Result<usize, EncodeError> {
    bytes
        .checked_next_multiple_of(ALIGNMENT)
        .filter(|&b| i64::try_from(b).is_ok())
        .ok_or(EncodeError::TooLarge { bytes })
}

/// The sum, if it is a length the format can say.
pub(super) fn add(a: usize, b: usize) -> Result<usize, EncodeError> {
    a.checked_add(b).filter(|&sum| i64::try_from(sum).is_ok()).ok_or(EncodeError::TooLarge { bytes: a.max(b) })
}

/// The schema as an encapsulated message that starts at `start`.
pub(super) fn schema_message(schema: &Schema, start: usize) -> Result<Vec<u8>, EncodeError> {
    let mut fbb = FlatBufferBuilder::new();
    let schema = schema_offset(&mut fbb, schema).as_union_value();
    let flatbuffer = finish_message(fbb, MessageHeader::Schema, schema, 0);
    encapsulate(&flatbuffer, start)
}

/// A record batch as an encapsulated message that starts at a multiple of the alignment.
pub(super) fn batch_message(rows: usize, listing: &Listing, body_bytes: usize) -> Result<Vec<u8>, EncodeError> {
    let mut fbb = FlatBufferBuilder::new();
    let batch = batch_offset(&mut fbb, rows, listing).as_union_value();
    let flatbuffer = finish_message(fbb, MessageHeader::RecordBatch, batch, body_bytes);
    encapsulate(&flatbuffer, 0)
}

/// The values of a dictionary as an encapsulated message that starts at a multiple of the alignment.
pub(super) fn dictionary_message(
    id: i64,
    rows: usize,
    listing: &Listing,
    body_bytes: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut fbb = FlatBufferBuilder::new();
    let batch = batch_offset(&mut fbb, rows, listing);
    let mut builder = arrow_ipc::DictionaryBatchBuilder::new(&mut fbb);
    builder.add_id(id);
    builder.add_data(batch);
    let dictionary = builder.finish().as_union_value();
    let flatbuffer = finish_message(fbb, MessageHeader::DictionaryBatch, dictionary, body_bytes);
    encapsulate(&flatbuffer, 0)
}

/// Everything after the last body: end of stream, footer, its length, the magic.
pub(super) fn tail(schema: &Schema, dictionaries: &[Block], batches: &[Block]) -> Result<Vec<u8>, EncodeError> {
    let footer = footer(schema, dictionaries, batches);
    let footer_bytes = i32::try_from(footer.len()).map_err(|_| EncodeError::TooLarge { bytes: footer.len() })?;
    let mut tail = Vec::with_capacity(PREFIX_BYTES + footer.len() + 4 + MAGIC.len());
    tail.extend_from_slice(&CONTINUATION);
    tail.extend_from_slice(&0i32.to_le_bytes());
    tail.extend_from_slice(&footer);
    tail.extend_from_slice(&footer_bytes.to_le_bytes());
    tail.extend_from_slice(MAGIC);
    Ok(tail)
}

fn footer(schema: &Schema, dictionaries: &[Block], batches: &[Block]) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let dictionaries = fbb.create_vector(dictionaries);
    let batches = fbb.create_vector(batches);
    let metadata = (!schema.metadata().is_empty()).then(|| metadata_to_fb(&mut fbb, schema.metadata()));
    let schema = schema_offset(&mut fbb, schema);
    let mut builder = arrow_ipc::FooterBuilder::new(&mut fbb);
    builder.add_version(MetadataVersion::V5);
    builder.add_schema(schema);
    builder.add_dictionaries(dictionaries);
    builder.add_recordBatches(batches);
    if let Some(metadata) = metadata {
        builder.add_custom_metadata(metadata);
    }
    let root = builder.finish();
    fbb.finish(root, None);
    fbb.finished_data().to_vec()
}

/// Dictionaries are numbered in the order in which this meets them: a dictionary's values first,
/// then itself. `dictionary.rs` counts the same way.
fn schema_offset<'b>(fbb: &mut FlatBufferBuilder<'b>, schema: &Schema) -> WIPOffset<arrow_ipc::Schema<'b>> {
    let mut tracker = DictionaryTracker::new(true);
    IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(fbb, schema)
}

fn batch_offset<'b>(
    fbb: &mut FlatBufferBuilder<'b>,
    rows: usize,
    listing: &Listing,
) -> WIPOffset<arrow_ipc::RecordBatch<'b>> {
    let nodes = fbb.create_vector(&listing.nodes);
    let buffers = fbb.create_vector(&listing.buffers);
    let counts = (!listing.variadic_counts.is_empty()).then(|| fbb.create_vector(&listing.variadic_counts));
    let mut builder = arrow_ipc::RecordBatchBuilder::new(fbb);
    builder.add_length(rows as i64);
    builder.add_nodes(nodes);
    builder.add_buffers(buffers);
    if let Some(counts) = counts {
        builder.add_variadicBufferCounts(counts);
    }
    builder.finish()
}

fn finish_message(
    mut fbb: FlatBufferBuilder<'_>,
    kind: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    body_bytes: usize,
) -> Vec<u8> {
    let mut builder = arrow_ipc::MessageBuilder::new(&mut fbb);
    builder.add_version(MetadataVersion::V5);
    builder.add_header_type(kind);
    builder.add_header(header);
    builder.add_bodyLength(body_bytes as i64);
    let root = builder.finish();
    fbb.finish(root, None);
    fbb.finished_data().to_vec()
}

/// Prefix, flatbuffer, zeros up to the alignment (counted from the start of the file).
fn encapsulate(flatbuffer: &[u8], start: usize) -> Result<Vec<u8>, EncodeError> {
    let end = align_up(start + PREFIX_BYTES + flatbuffer.len())?;
    let metadata_bytes = end - start - PREFIX_BYTES;
    let length = i32::try_from(metadata_bytes).map_err(|_| EncodeError::TooLarge { bytes: metadata_bytes })?;
    let mut message = Vec::with_capacity(end - start);
    message.extend_from_slice(&CONTINUATION);
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(flatbuffer);
    message.resize(end - start, 0);
    Ok(message)
}
