//! Record batches to file bytes, in two passes: plan, then write each byte once.
//!
//! The one thing to know: [`Layout::plan`] reads offsets and metadata only (and views, to see which
//! data they still need), builds every flatbuffer and places every buffer; [`Layout::write`] fills
//! the destination front to back. A slice is written compactly: visible rows only, offsets from 0.
//! Nothing here allocates in proportion to the values.

use arrow_array::{Array, RecordBatch};
use arrow_ipc::Block;
use arrow_schema::SchemaRef;

use super::dictionary::{self, Dictionary};
use super::frame::{self, add};
use super::place::{Body, Part, Source};
use super::schema::check_type;
use super::{DEPTH_MAX, EncodeError};

/// Where every byte of an encoded table goes. It holds the source buffers, not copies.
#[derive(Debug)]
pub struct Layout {
    parts: Vec<Part>,
    bytes: usize,
}

impl Layout {
    /// Plans the bytes of `batches`, which must all have the columns of `schema`.
    pub fn plan(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, EncodeError> {
        check_expressible(schema)?;
        for (i, batch) in batches.iter().enumerate() {
            check_batch(schema, i, batch)?;
        }
        let dictionaries = dictionary::collect(schema, batches)?;
        let mut file = File::start(schema)?;
        for id in 0..dictionaries.len() {
            file.push_dictionary(id, &dictionaries)?;
        }
        for (i, batch) in batches.iter().enumerate() {
            file.push_batch(i, batch, &dictionaries)?;
        }
        file.finish(schema)
    }

    /// How many bytes [`Layout::write`] fills.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes every byte of `out`, padding included.
    pub fn write(&self, out: &mut [u8]) -> Result<(), EncodeError> {
        if out.len() != self.bytes {
            return Err(EncodeError::OutputLength { actual: out.len(), planned: self.bytes });
        }
        let mut written = 0;
        for part in &self.parts {
            out[written..part.offset].fill(0);
            written = part.offset + part.source.bytes();
            part.source.write(&mut out[part.offset..written]);
        }
        out[written..].fill(0);
        Ok(())
    }
}

fn check_expressible(schema: &SchemaRef) -> Result<(), EncodeError> {
    for (column, field) in schema.fields().iter().enumerate() {
        check_type(field.data_type(), DEPTH_MAX)
            .map_err(|_| EncodeError::Inexpressible { column, data_type: field.data_type().clone() })?;
    }
    Ok(())
}

fn check_batch(schema: &SchemaRef, batch: usize, data: &RecordBatch) -> Result<(), EncodeError> {
    let (columns, expected) = (data.num_columns(), schema.fields().len());
    if columns != expected {
        return Err(EncodeError::ColumnCount { batch, columns, expected });
    }
    for (column, (array, field)) in data.columns().iter().zip(schema.fields()).enumerate() {
        if array.data_type() != field.data_type() {
            let (actual, expected) = (array.data_type().clone(), field.data_type().clone());
            return Err(EncodeError::ColumnType { batch, column, actual, expected });
        }
        let null_count = array.null_count();
        if null_count > 0 && !field.is_nullable() {
            return Err(EncodeError::UnexpectedNulls { batch, column, null_count });
        }
    }
    Ok(())
}

/// The file as planned so far.
struct File {
    parts: Vec<Part>,
    bytes: usize,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

impl File {
    fn start(schema: &SchemaRef) -> Result<Self, EncodeError> {
        let mut head = frame::HEAD.to_vec();
        head.extend(frame::schema_message(schema, head.len())?);
        let bytes = head.len();
        let parts = vec![Part { offset: 0, source: Source::Metadata(head) }];
        Ok(Self { parts, bytes, dictionaries: Vec::new(), batches: Vec::new() })
    }

    fn push_dictionary(&mut self, id: usize, dictionaries: &[Dictionary]) -> Result<(), EncodeError> {
        let dictionary = &dictionaries[id];
        let mut body = Body::new(dictionaries, id - dictionary.inner_count, 0);
        body.array(&dictionary.values)?;
        let rows = dictionary.values.len();
        let metadata = frame::dictionary_message(id as i64, rows, &body.listing, body.bytes)?;
        let block = self.push_message(metadata, body.parts, body.bytes)?;
        self.dictionaries.push(block);
        Ok(())
    }

    fn push_batch(
        &mut self,
        chunk: usize,
        batch: &RecordBatch,
        dictionaries: &[Dictionary],
    ) -> Result<(), EncodeError> {
        let mut body = Body::new(dictionaries, 0, chunk);
        for column in batch.columns() {
            body.array(&column.to_data())?;
        }
        let metadata = frame::batch_message(batch.num_rows(), &body.listing, body.bytes)?;
        let block = self.push_message(metadata, body.parts, body.bytes)?;
        self.batches.push(block);
        Ok(())
    }

    fn push_message(&mut self, metadata: Vec<u8>, body: Vec<Part>, body_bytes: usize) -> Result<Block, EncodeError> {
        let (start, metadata_bytes) = (self.bytes, metadata.len());
        let body_start = add(start, metadata_bytes)?;
        self.bytes = add(body_start, body_bytes)?;
        self.parts.push(Part { offset: start, source: Source::Metadata(metadata) });
        self.parts.extend(body.into_iter().map(|mut part| {
            part.offset += body_start;
            part
        }));
        // `frame` refused metadata longer than an i32, `add` sums longer than an i64.
        Ok(Block::new(start as i64, metadata_bytes as i32, body_bytes as i64))
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<Layout, EncodeError> {
        let tail = frame::tail(schema, &self.dictionaries, &self.batches)?;
        let bytes = add(self.bytes, tail.len())?;
        self.parts.push(Part { offset: self.bytes, source: Source::Metadata(tail) });
        Ok(Layout { parts: self.parts, bytes })
    }
}
