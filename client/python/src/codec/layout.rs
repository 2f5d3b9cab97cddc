//! The bytes of a pickled value: a header, the pickle, and the buffers that are read where they lie.
//!
//! ```text
//! 0   version u8 | kind u8 | 0, 0 | buffers u32
//! 8   bytes of the pickle u64
//! 16  references u32 | objects in the list of the value's object u32
//! 24  crc32 u32 of everything up to the end of the pickle but this | 0 u32
//! 32  of each buffer: offset u64 | bytes u64
//! ..  of each reference: its position in that list u32
//! ..  the pickle
//! ..  each buffer, aligned to 64 bytes
//! ```
//!
//! Of kind 0 the value is the pickle's; of kind 1 it is the list of the references, and the pickle empty.
//!
//! Numbers are little endian; offsets count from the value's first byte. The one thing to know: what is
//! read here is an allegation, and [`Layout::read`] has checked all of it: the unpickler would follow
//! other bytes into any amount of memory. This file must not touch Python.

use super::{CodecError, Reader};
use std::ops::Range;

/// The one version there is.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
/// Where the checksum is.
const SUM: Range<usize> = 24..28;
/// What vector instructions and Arrow like, and a line of the cache.
const ALIGN: usize = 64;

/// Where the parts of a value lie.
#[derive(Debug)]
pub(super) struct Layout {
    /// The value is the list of the references.
    pub(super) is_list: bool,
    /// The positions of the references.
    positions: Range<usize>,
    /// How many objects the positions choose from.
    pub(super) listed: u32,
    /// The pickle.
    pub(super) pickle: Range<usize>,
    /// The buffers, in the order in which the pickle names them.
    pub(super) buffers: Vec<Range<usize>>,
}

impl Layout {
    /// For parts of these sizes.
    pub(super) fn plan(
        pickle_bytes: usize,
        buffers: impl ExactSizeIterator<Item = usize>,
        references: usize,
    ) -> Layout {
        let positions_at = HEADER_BYTES + buffers.len() * 16;
        let pickle_at = positions_at + references * 4;
        let mut end = pickle_at + pickle_bytes;
        let place = |bytes: usize| {
            let start = end.next_multiple_of(ALIGN);
            end = start + bytes;
            start..end
        };
        let buffers = buffers.map(place).collect();
        Layout {
            is_list: false,
            positions: positions_at..pickle_at,
            listed: 0,
            pickle: pickle_at..pickle_at + pickle_bytes,
            buffers,
        }
    }

    /// The same with its one buffer from `start` on, if that is behind the pickle and aligned as it would be.
    pub(super) fn with_buffer_from(&self, start: usize) -> Option<Layout> {
        let [buffer] = self.buffers.as_slice() else { return None };
        let fits = start >= self.pickle.end && start.is_multiple_of(ALIGN);
        let (positions, pickle, place) = (self.positions.clone(), self.pickle.clone(), start..start + buffer.len());
        fits.then(|| Layout { is_list: self.is_list, positions, listed: self.listed, pickle, buffers: vec![place] })
    }

    /// Where a buffer begins behind a pickle that may be longer by so much.
    pub(super) fn buffer_behind(&self, more: usize) -> usize {
        (self.pickle.end + size_of::<[u64; 2]>() + more).next_multiple_of(ALIGN)
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> usize {
        self.buffers.last().map_or(self.pickle.end, |last| last.end)
    }

    /// Writes everything but the pickle and the buffers.
    pub(super) fn write_head(&self, positions: &[u32], listed: u32, out: &mut [u8]) {
        let (head, rest) = out.split_at_mut(HEADER_BYTES);
        head[..4].copy_from_slice(&[VERSION, u8::from(self.is_list), 0, 0]);
        head[4..8].copy_from_slice(&(self.buffers.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&(self.pickle.len() as u64).to_le_bytes());
        head[16..20].copy_from_slice(&(positions.len() as u32).to_le_bytes());
        head[20..24].copy_from_slice(&listed.to_le_bytes());
        head[24..].fill(0);
        let (places, rest) = rest.split_at_mut(self.buffers.len() * 16);
        for (place, buffer) in places.chunks_exact_mut(16).zip(&self.buffers) {
            place[..8].copy_from_slice(&(buffer.start as u64).to_le_bytes());
            place[8..].copy_from_slice(&(buffer.len() as u64).to_le_bytes());
        }
        for (to, position) in rest.chunks_exact_mut(4).zip(positions) {
            to.copy_from_slice(&position.to_le_bytes());
        }
        let mut end = self.pickle.end;
        for buffer in &self.buffers {
            out[end..buffer.start].fill(0);
            end = buffer.end;
        }
    }

    /// Writes the checksum, when everything else stands.
    pub(super) fn write_sum(&self, out: &mut [u8]) {
        let sum = self.sum(out);
        out[SUM].copy_from_slice(&sum.to_le_bytes());
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[..SUM.start]);
        sum.update(&bytes[SUM.end..self.pickle.end]);
        sum.finalize()
    }

    /// What the bytes say, if it is true of them.
    pub(super) fn read(bytes: &[u8]) -> Result<Layout, CodecError> {
        let mut reader = Reader { left: bytes };
        let [version, kind, ..] = reader.array::<4>("the header")?;
        if version != VERSION {
            return Err(CodecError::Version { version, expected: VERSION });
        }
        let buffers = u32::from_le_bytes(reader.array("the header")?);
        let pickle_bytes = u64::from_le_bytes(reader.array("the header")?);
        let references = u32::from_le_bytes(reader.array("the header")?);
        let listed = u32::from_le_bytes(reader.array("the header")?);
        let sum = u32::from_le_bytes(reader.array("the header")?);
        reader.array::<4>("the header")?;
        let places = reader.take("the places of buffers", u64::from(buffers) * 16)?;
        let positions_at = bytes.len() - reader.left.len();
        reader.take("the positions of references", u64::from(references) * 4)?;
        let pickle_at = bytes.len() - reader.left.len();
        let pickle_end = pickle_at + reader.take("the pickle", pickle_bytes)?.len();
        let place = |place: &[u8]| {
            let [at, len] = [&place[..8], &place[8..]].map(|n| u64::from_le_bytes(n.try_into().expect("8 of 16")));
            checked(at, len, pickle_end..bytes.len())
        };
        let buffers = places.chunks_exact(16).map(place).collect::<Result<_, _>>()?;
        let is_list = kind == 1;
        let layout =
            Layout { is_list, positions: positions_at..pickle_at, listed, pickle: pickle_at..pickle_end, buffers };
        let found = layout.sum(bytes);
        if found == sum { Ok(layout) } else { Err(CodecError::Sum { sum, found }) }
    }

    /// How many references the pickle names.
    pub(super) fn references(&self) -> usize {
        self.positions.len() / 4
    }

    /// The position of each reference in the list, each below [`Layout::listed`].
    pub(super) fn positions(&self, bytes: &[u8]) -> Result<Vec<u32>, CodecError> {
        let limit = u64::from(self.listed);
        let position = |bytes: &[u8]| {
            let position = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
            let is_listed = position < self.listed;
            is_listed.then_some(position).ok_or(CodecError::Range {
                what: "a position",
                number: position.into(),
                limit,
            })
        };
        bytes[self.positions.clone()].chunks_exact(4).map(position).collect()
    }
}

/// A buffer's place, if it lies within.
fn checked(at: u64, len: u64, within: Range<usize>) -> Result<Range<usize>, CodecError> {
    let end = at.saturating_add(len);
    let limit = within.end as u64;
    if at < within.start as u64 || end > limit {
        return Err(CodecError::Range { what: "the end of a buffer", number: end, limit: limit + 1 });
    }
    Ok(at as usize..end as usize)
}
