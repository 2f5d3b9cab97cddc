//! The arrays of one message: which buffers they have, and where each goes in the body.
//!
//! The one thing to know: this walks arrays depth first, as the format lists them, and slices on
//! the way down: what leaves here has offset 0 and no row that the slice hides. It reads offsets
//! (the last of them, or all where that decides what a child must keep), never values.

use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_ipc::{Buffer as BufferPlace, FieldNode};
use arrow_schema::{DataType, UnionFields, UnionMode};

use super::EncodeError;
use super::dictionary::Dictionary;
use super::frame::{Listing, add, align_up};
use super::piece::{Piece, Renumber};
use super::schema::{dictionary_count, fixed_width};

/// Bytes at a place in the file, or in a body.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) source: Source,
}

/// Where a part's bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    Metadata(Vec<u8>),
    Piece(Piece),
}

impl Source {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Metadata(bytes) => bytes.len(),
            Self::Piece(piece) => piece.bytes(),
        }
    }

    pub(super) fn write(&self, out: &mut [u8]) {
        match self {
            Self::Metadata(bytes) => out.copy_from_slice(bytes),
            Self::Piece(piece) => piece.write(out),
        }
    }
}

/// The arrays of one message.
pub(super) struct Body<'a> {
    pub(super) listing: Listing,
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    dictionaries: &'a [Dictionary],
    next_dictionary: usize,
    chunk: usize,
}

impl<'a> Body<'a> {
    pub(super) fn new(dictionaries: &'a [Dictionary], next_dictionary: usize, chunk: usize) -> Self {
        let (listing, parts) = (Listing::default(), Vec::new());
        Self { listing, parts, bytes: 0, dictionaries, next_dictionary, chunk }
    }

    /// Lists the array and everything in it, depth first, as the format asks.
    pub(super) fn array(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        use DataType::*;
        match data.data_type() {
            Null => self.node(data.len(), data.len()),
            Union(fields, mode) => return self.union(data, fields, *mode),
            RunEndEncoded(run_ends, _) => return self.run_ends(data, run_ends.data_type()),
            _ => {
                self.node(data.len(), data.null_count());
                self.validity(data)?;
                self.values(data)?;
            }
        }
        Ok(())
    }

    fn values(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        use DataType::*;
        match data.data_type() {
            Boolean => self.bits(&data.buffers()[0], data.offset(), data.len()),
            Utf8 | Binary => self.strings32(data),
            LargeUtf8 | LargeBinary => self.strings64(data),
            Utf8View | BinaryView => self.views(data),
            List(_) | Map(_, _) => self.list32(data),
            LargeList(_) => self.list64(data),
            ListView(_) => self.list_view32(data),
            LargeListView(_) => self.list_view64(data),
            FixedSizeList(_, size) => {
                let size = *size as usize;
                self.array(&slice(&data.child_data()[0], data.offset() * size, data.len() * size))
            }
            Struct(_) => self.children(data),
            Dictionary(key, values) => self.keys(data, key, values),
            other => {
                let (width, _) = fixed_width(other).unwrap_or((0, 1));
                self.push(fixed(&data.buffers()[0], data.offset(), data.len(), width))
            }
        }
    }

    fn node(&mut self, rows: usize, null_count: usize) {
        self.listing.nodes.push(FieldNode::new(rows as i64, null_count as i64));
    }

    fn push(&mut self, piece: Piece) -> Result<(), EncodeError> {
        let bytes = piece.bytes();
        let end = align_up(add(self.bytes, bytes)?)?;
        self.listing.buffers.push(BufferPlace::new(self.bytes as i64, bytes as i64));
        if bytes > 0 {
            self.parts.push(Part { offset: self.bytes, source: Source::Piece(piece) });
        }
        self.bytes = end;
        Ok(())
    }

    fn validity(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        match data.nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => self.bits(nulls.buffer(), nulls.offset(), nulls.len()),
            None => self.push(Piece::Zeros(0)),
        }
    }

    fn bits(&mut self, bits: &Buffer, offset: usize, len: usize) -> Result<(), EncodeError> {
        self.push(Piece::Bits { bits: bits.clone(), offset, len })
    }

    fn children(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (offset, len) = (data.offset(), data.len());
        data.child_data().iter().try_for_each(|child| self.array(&slice(child, offset, len)))
    }

    fn strings32(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (start, end) = self.offsets32(data)?;
        self.push(fixed(&data.buffers()[1], start, end - start, 1))
    }

    fn strings64(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (start, end) = self.offsets64(data)?;
        self.push(fixed(&data.buffers()[1], start, end - start, 1))
    }

    fn list32(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (start, end) = self.offsets32(data)?;
        self.array(&slice(&data.child_data()[0], start, end - start))
    }

    fn list64(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (start, end) = self.offsets64(data)?;
        self.array(&slice(&data.child_data()[0], start, end - start))
    }

    /// Pushes the offsets from 0 and returns the range of values they covered.
    fn offsets32(&mut self, data: &ArrayData) -> Result<(usize, usize), EncodeError> {
        let Some(offsets) = offsets::<i32>(data) else {
            return self.push(Piece::Zeros(4)).map(|()| (0, 0));
        };
        let (base, end) = (offsets[0], offsets[data.len()]);
        self.push(match base {
            0 => Piece::Bytes(offsets.into_inner()),
            base => Piece::Offsets32 { offsets, base },
        })?;
        Ok((base.as_usize(), end.as_usize()))
    }

    fn offsets64(&mut self, data: &ArrayData) -> Result<(usize, usize), EncodeError> {
        let Some(offsets) = offsets::<i64>(data) else {
            return self.push(Piece::Zeros(8)).map(|()| (0, 0));
        };
        let (base, end) = (offsets[0], offsets[data.len()]);
        self.push(match base {
            0 => Piece::Bytes(offsets.into_inner()),
            base => Piece::Offsets64 { offsets, base },
        })?;
        Ok((base.as_usize(), end.as_usize()))
    }

    fn list_view32(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (offsets, sizes) = (typed::<i32>(data, 0), typed::<i32>(data, 1));
        let (start, end) = covered(&offsets, &sizes);
        let size_bytes = sizes.inner().clone();
        let base = start as i32;
        self.push(match base == 0 && offsets.iter().all(|offset| offset.as_usize() <= end) {
            true => Piece::Bytes(offsets.into_inner()),
            false => Piece::ViewOffsets32 { offsets, sizes, base },
        })?;
        self.push(Piece::Bytes(size_bytes))?;
        self.array(&slice(&data.child_data()[0], start, end - start))
    }

    fn list_view64(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let (offsets, sizes) = (typed::<i64>(data, 0), typed::<i64>(data, 1));
        let (start, end) = covered(&offsets, &sizes);
        let size_bytes = sizes.inner().clone();
        let base = start as i64;
        self.push(match base == 0 && offsets.iter().all(|offset| offset.as_usize() <= end) {
            true => Piece::Bytes(offsets.into_inner()),
            false => Piece::ViewOffsets64 { offsets, sizes, base },
        })?;
        self.push(Piece::Bytes(size_bytes))?;
        self.array(&slice(&data.child_data()[0], start, end - start))
    }

    /// Data buffers no view needs are dropped, the others cut to the range that views need.
    fn views(&mut self, data: &ArrayData) -> Result<(), EncodeError> {
        let views = typed::<u128>(data, 0);
        let buffers = &data.buffers()[1..];
        let ranges = needed_ranges(&views, buffers.len());
        let mut moves = vec![(0, 0); buffers.len()].into_boxed_slice();
        let mut kept = Vec::new();
        for ((range, buffer), moved) in ranges.iter().zip(buffers).zip(&mut moves) {
            if range.0 < range.1 {
                *moved = (kept.len() as u32, range.0 as u32);
                kept.push(fixed(buffer, range.0, range.1 - range.0, 1));
            }
        }
        let is_same = moves.iter().enumerate().all(|(i, m)| *m == (i as u32, 0));
        self.push(match is_same {
            true => Piece::Bytes(views.into_inner()),
            false => Piece::Views { views, moves },
        })?;
        self.listing.variadic_counts.push(kept.len() as i64);
        kept.into_iter().try_for_each(|piece| self.push(piece))
    }

    fn keys(&mut self, data: &ArrayData, key: &DataType, values: &DataType) -> Result<(), EncodeError> {
        let id = self.next_dictionary + dictionary_count(values);
        self.next_dictionary = id + 1;
        let (width, _) = fixed_width(key).unwrap_or((8, 8));
        let start = data.offset() * width;
        let keys = data.buffers()[0].slice_with_length(start, data.len() * width);
        self.push(match &self.dictionaries[id].renumber[self.chunk] {
            Renumber::Same => Piece::Bytes(keys),
            renumber => Piece::Keys { keys, width, renumber: renumber.clone() },
        })
    }

    fn run_ends(&mut self, data: &ArrayData, index: &DataType) -> Result<(), EncodeError> {
        let (start, count) = match index {
            DataType::Int16 => runs::<i16>(data),
            DataType::Int32 => runs::<i32>(data),
            _ => runs::<i64>(data),
        };
        let (run_ends, values) = (&data.child_data()[0], &data.child_data()[1]);
        let (width, _) = fixed_width(index).unwrap_or((8, 8));
        let first = (run_ends.offset() + start) * width;
        let ends = run_ends.buffers()[0].slice_with_length(first, count * width);
        self.node(data.len(), 0);
        self.node(count, 0);
        self.push(Piece::Zeros(0))?;
        let (skipped, rows) = (data.offset() as u64, data.len() as u64);
        self.push(Piece::RunEnds { run_ends: ends, width, skipped, rows })?;
        self.array(&slice(values, start, count))
    }

    fn union(&mut self, data: &ArrayData, fields: &UnionFields, mode: UnionMode) -> Result<(), EncodeError> {
        self.node(data.len(), 0);
        let type_ids = typed::<i8>(data, 0);
        self.push(Piece::Bytes(type_ids.inner().clone()))?;
        match mode {
            UnionMode::Sparse => self.children(data),
            UnionMode::Dense => self.dense_union(data, fields, type_ids),
        }
    }

    fn dense_union(
        &mut self,
        data: &ArrayData,
        fields: &UnionFields,
        type_ids: ScalarBuffer<i8>,
    ) -> Result<(), EncodeError> {
        let offsets = typed::<i32>(data, 1);
        let mut rows = [(i32::MAX, 0i32); 128];
        for (id, offset) in type_ids.iter().zip(offsets.iter()) {
            let range = &mut rows[(*id & 127) as usize];
            *range = (range.0.min(*offset), range.1.max(*offset + 1));
        }
        let first_rows = rows.map(|(first, end)| if first < end { first } else { 0 });
        self.push(match first_rows.iter().all(|&first| first == 0) {
            true => Piece::Bytes(offsets.into_inner()),
            false => Piece::UnionOffsets { offsets, type_ids, first_rows: Box::new(first_rows) },
        })?;
        for ((id, _), child) in fields.iter().zip(data.child_data()) {
            let (first, end) = rows[(id & 127) as usize];
            let rows = end.saturating_sub(first).max(0);
            let first = if rows > 0 { first } else { 0 };
            self.array(&slice(child, first.as_usize(), rows.as_usize()))?;
        }
        Ok(())
    }
}

/// A slice, without a copy of the children where it is the whole.
fn slice(data: &ArrayData, offset: usize, len: usize) -> ArrayData {
    if offset == 0 && len == data.len() { data.clone() } else { data.slice(offset, len) }
}

fn fixed(buffer: &Buffer, offset: usize, len: usize, width: usize) -> Piece {
    Piece::Bytes(buffer.slice_with_length(offset * width, len * width))
}

fn typed<T: ArrowNativeType>(data: &ArrayData, buffer: usize) -> ScalarBuffer<T> {
    ScalarBuffer::new(data.buffers()[buffer].clone(), data.offset(), data.len())
}

/// The visible offsets, one more than rows. An empty array may have none at all.
fn offsets<T: ArrowNativeType>(data: &ArrayData) -> Option<ScalarBuffer<T>> {
    let is_empty = data.is_empty();
    let buffer = data.buffers()[0].clone();
    (!is_empty).then(|| ScalarBuffer::new(buffer, data.offset(), data.len() + 1))
}

/// The range of values that list view entries cover.
fn covered<T: ArrowNativeType>(offsets: &[T], sizes: &[T]) -> (usize, usize) {
    let entries = offsets.iter().zip(sizes).map(|(o, s)| (o.as_usize(), s.as_usize()));
    let used = entries.filter(|(_, size)| *size > 0);
    let (start, end) =
        used.fold((usize::MAX, 0), |(start, end), (offset, size)| (start.min(offset), end.max(offset + size)));
    if start < end { (start, end) } else { (0, 0) }
}

/// Per data buffer, the bytes its views need.
fn needed_ranges(views: &[u128], buffers: usize) -> Vec<(usize, usize)> {
    let mut ranges = vec![(usize::MAX, 0); buffers];
    for view in views {
        let length = *view as u32 as usize;
        let (buffer, offset) = ((view >> 64) as u32 as usize, (view >> 96) as usize);
        if length > 12
            && let Some(range) = ranges.get_mut(buffer)
        {
            *range = (range.0.min(offset), range.1.max(offset + length));
        }
    }
    ranges
}

/// The first run that a run-end encoded array still shows, and how many.
fn runs<T: ArrowNativeType>(data: &ArrayData) -> (usize, usize) {
    if data.is_empty() {
        return (0, 0);
    }
    let ends = typed::<T>(&data.child_data()[0], 0);
    let (first_row, last_row) = (data.offset(), data.offset() + data.len() - 1);
    let start = ends.partition_point(|end| end.as_usize() <= first_row);
    let last = ends.partition_point(|end| end.as_usize() <= last_row);
    (start, last + 1 - start)
}
