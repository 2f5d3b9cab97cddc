//! The lists of one message: nodes and buffers, consumed front to back, each checked as it is met.
//!
//! The one thing to know: a buffer that comes out of here lies inside the message's body, is long
//! enough for the rows that asked for it, and shares no byte budget with another: together the
//! buffers of a message are no longer than its body. Nothing here looks at values.

use arrow_buffer::Buffer;
use arrow_ipc::{FieldNode, MetadataVersion};
use flatbuffers::Vector;

use super::DecodeError;
use super::error::{Feature, Part};
use super::message::{Message, number, range_within};

/// Whose bytes the buffers are.
pub(super) trait Source {
    /// The whole file.
    fn bytes(&self) -> &Buffer;
    /// The buffer, or if it is misaligned a copy, if one can be afforded.
    fn aligned(&mut self, buffer: Buffer, align: usize) -> Result<Buffer, DecodeError>;
}

/// The length and null count of one array.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) rows: usize,
    pub(super) null_count: usize,
}

/// The lists of one message, consumed front to back.
pub(super) struct Body<'a> {
    pub(super) version: MetadataVersion,
    start: usize,
    bytes: usize,
    unclaimed_bytes: usize,
    nodes: Vector<'a, FieldNode>,
    next_node: usize,
    buffers: Vector<'a, arrow_ipc::Buffer>,
    next_buffer: usize,
    variadic_counts: Option<Vector<'a, i64>>,
    next_variadic: usize,
}

impl<'a> Body<'a> {
    pub(super) fn new(message: &Message<'a>, batch: &arrow_ipc::RecordBatch<'a>) -> Result<Self, DecodeError> {
        if batch.compression().is_some() {
            return Err(DecodeError::Unsupported { feature: Feature::Compression });
        }
        let missing = |part| DecodeError::Missing { offset: message.offset, part };
        Ok(Self {
            version: message.header.version(),
            start: message.body_start,
            bytes: message.body_bytes,
            unclaimed_bytes: message.body_bytes,
            nodes: batch.nodes().ok_or(missing(Part::Node))?,
            next_node: 0,
            buffers: batch.buffers().ok_or(missing(Part::Buffer))?,
            next_buffer: 0,
            variadic_counts: batch.variadicBufferCounts(),
            next_variadic: 0,
        })
    }

    /// Everything listed must have been read, or the message belongs to another schema.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        let variadic = self.variadic_counts.map_or(0, |counts| counts.len());
        let lists = [
            (Part::Node, self.next_node, self.nodes.len()),
            (Part::Buffer, self.next_buffer, self.buffers.len()),
            (Part::VariadicCount, self.next_variadic, variadic),
        ];
        match lists.into_iter().find(|(_, read, count)| read != count) {
            Some((part, _, count)) => Err(DecodeError::Count { part, count }),
            None => Ok(()),
        }
    }

    pub(super) fn node(&mut self) -> Result<Node, DecodeError> {
        let count = self.nodes.len();
        if self.next_node >= count {
            return Err(DecodeError::Count { part: Part::Node, count });
        }
        let node = self.nodes.get(self.next_node);
        self.next_node += 1;
        let rows = number(Part::Rows, node.length())?;
        let null_count = number(Part::NullCount, node.null_count())?;
        if null_count > rows {
            return Err(DecodeError::NullCount { claimed: null_count, actual: rows });
        }
        Ok(Node { rows, null_count })
    }

    pub(super) fn buffer(&mut self, source: &impl Source) -> Result<Buffer, DecodeError> {
        let count = self.buffers.len();
        if self.next_buffer >= count {
            return Err(DecodeError::Count { part: Part::Buffer, count });
        }
        let place = self.buffers.get(self.next_buffer);
        self.next_buffer += 1;
        let (offset, length, available) = (place.offset(), place.length(), self.bytes);
        let (offset, length) =
            range_within(offset, length, available).ok_or(DecodeError::OutOfBounds { offset, length, available })?;
        let left = self.unclaimed_bytes.checked_sub(length);
        self.unclaimed_bytes = left.ok_or(DecodeError::Overlapping { claimed: length, available })?;
        // An empty buffer may be anywhere, even misaligned; the start of the file never is.
        let start = if length == 0 { 0 } else { self.start + offset };
        Ok(source.bytes().slice_with_length(start, length))
    }

    /// The bytes of `count` values, trimmed to them.
    pub(super) fn values(
        &mut self,
        source: &mut impl Source,
        count: usize,
        width: usize,
        align: usize,
        rows: usize,
    ) -> Result<Buffer, DecodeError> {
        let buffer = self.buffer(source)?;
        let needed = count.saturating_mul(width);
        if buffer.len() < needed {
            return Err(DecodeError::ShortBuffer { rows, needed, bytes: buffer.len() });
        }
        let trimmed = match buffer.len() {
            bytes if bytes == needed => buffer,
            _ => buffer.slice_with_length(0, needed),
        };
        source.aligned(trimmed, align)
    }

    /// One offset more than rows; an empty array may have none.
    pub(super) fn offsets(
        &mut self,
        source: &mut impl Source,
        rows: usize,
        width: usize,
    ) -> Result<Buffer, DecodeError> {
        let is_absent =
            rows == 0 && self.next_buffer < self.buffers.len() && self.buffers.get(self.next_buffer).length() == 0;
        let count = if is_absent { 0 } else { rows.saturating_add(1) };
        self.values(source, count, width, width, rows)
    }

    pub(super) fn bytes(&mut self, source: &impl Source) -> Result<Buffer, DecodeError> {
        self.buffer(source)
    }

    pub(super) fn entries(
        &mut self,
        source: &mut impl Source,
        rows: usize,
        width: usize,
    ) -> Result<Vec<Buffer>, DecodeError> {
        let offsets = self.values(source, rows, width, width, rows)?;
        Ok(vec![offsets, self.values(source, rows, width, width, rows)?])
    }

    pub(super) fn views(&mut self, source: &mut impl Source, rows: usize) -> Result<Vec<Buffer>, DecodeError> {
        let count = self.variadic_counts.filter(|counts| self.next_variadic < counts.len());
        let count = count.map_or(0, |counts| counts.get(self.next_variadic));
        self.next_variadic += 1;
        let count = number(Part::VariadicCount, count)?;
        let views = self.values(source, rows, 16, 16, rows)?;
        let left = self.buffers.len() - self.next_buffer;
        if count > left {
            return Err(DecodeError::Count { part: Part::VariadicCount, count });
        }
        let mut buffers = Vec::with_capacity(count + 1);
        buffers.push(views);
        for _ in 0..count {
            buffers.push(self.buffer(source)?);
        }
        Ok(buffers)
    }
}
