//! One buffer of a body: where its bytes come from, and how they are written, once.
//!
//! The one thing to know: an unsliced buffer is one memcpy; everything else (shifted bitmaps,
//! rebased offsets, renumbered keys) is a single pass from source to destination, in fixed-width
//! chunks that the compiler turns into vector code. Pieces never allocate and never read twice.

use std::sync::Arc;

use arrow_buffer::{Buffer, ScalarBuffer};

/// The source of one buffer.
#[derive(Debug)]
pub(super) enum Piece {
    /// These bytes, as they are.
    Bytes(Buffer),
    /// This many zeros.
    Zeros(usize),
    /// `len` bits from bit `offset`, moved to bit 0; the rest of the last byte is zero.
    Bits { bits: Buffer, offset: usize, len: usize },
    /// Each number less `base`.
    Offsets32 { offsets: ScalarBuffer<i32>, base: i32 },
    /// Each number less `base`.
    Offsets64 { offsets: ScalarBuffer<i64>, base: i64 },
    /// List view offsets less `base`, or 0 where the size is 0 (such an offset may be anything).
    ViewOffsets32 { offsets: ScalarBuffer<i32>, sizes: ScalarBuffer<i32>, base: i32 },
    /// List view offsets less `base`, or 0 where the size is 0 (such an offset may be anything).
    ViewOffsets64 { offsets: ScalarBuffer<i64>, sizes: ScalarBuffer<i64>, base: i64 },
    /// Dense union offsets, each less the first row its child keeps.
    UnionOffsets { offsets: ScalarBuffer<i32>, type_ids: ScalarBuffer<i8>, first_rows: Box<[i32; 128]> },
    /// Run ends of `width` bytes, less `skipped`, at most `rows`.
    RunEnds { run_ends: Buffer, width: usize, skipped: u64, rows: u64 },
    /// Views whose data buffers were dropped or cut: per old buffer, its new number and the bytes
    /// cut off its front.
    Views { views: ScalarBuffer<u128>, moves: Box<[(u32, u32)]> },
    /// Dictionary keys of `width` bytes, renumbered.
    Keys { keys: Buffer, width: usize, renumber: Renumber },
}

/// How the keys of one batch change when the dictionaries of all batches become one.
#[derive(Debug, Clone)]
pub(super) enum Renumber {
    /// They do not.
    Same,
    /// The batch's dictionary starts at this value of the common one.
    Add(u64),
    /// Each old key's new key. A key outside belongs to a null and becomes 0.
    Table(Arc<[u64]>),
}

impl Piece {
    /// How many bytes `write` fills.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(bytes) => *bytes,
            Self::Bits { len, .. } => len.div_ceil(8),
            Self::Offsets32 { offsets, .. }
            | Self::ViewOffsets32 { offsets, .. }
            | Self::UnionOffsets { offsets, .. } => offsets.inner().len(),
            Self::Offsets64 { offsets, .. } | Self::ViewOffsets64 { offsets, .. } => offsets.inner().len(),
            Self::RunEnds { run_ends, .. } => run_ends.len(),
            Self::Views { views, .. } => views.inner().len(),
            Self::Keys { keys, .. } => keys.len(),
        }
    }

    /// Writes the piece; `out` has exactly [`Piece::bytes`].
    pub(super) fn write(&self, out: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => out.copy_from_slice(bytes),
            Self::Zeros(_) => out.fill(0),
            Self::Bits { bits, offset, len } => copy_bits(bits, *offset, *len, out),
            Self::Offsets32 { offsets, base } => {
                fill(out, offsets.iter().map(|o| o.wrapping_sub(*base).to_le_bytes()));
            }
            Self::Offsets64 { offsets, base } => {
                fill(out, offsets.iter().map(|o| o.wrapping_sub(*base).to_le_bytes()));
            }
            Self::ViewOffsets32 { offsets, sizes, base } => {
                let moved = |(o, s): (&i32, &i32)| if *s == 0 { 0 } else { o.wrapping_sub(*base) };
                fill(out, offsets.iter().zip(sizes.iter()).map(|p| moved(p).to_le_bytes()));
            }
            Self::ViewOffsets64 { offsets, sizes, base } => {
                let moved = |(o, s): (&i64, &i64)| if *s == 0 { 0 } else { o.wrapping_sub(*base) };
                fill(out, offsets.iter().zip(sizes.iter()).map(|p| moved(p).to_le_bytes()));
            }
            Self::UnionOffsets { offsets, type_ids, first_rows } => {
                let moved = |(o, id): (&i32, &i8)| o.wrapping_sub(first_rows[(*id & 127) as usize]);
                fill(out, offsets.iter().zip(type_ids.iter()).map(|p| moved(p).to_le_bytes()));
            }
            Self::RunEnds { run_ends, width, skipped, rows } => {
                map_words(run_ends, *width, out, |end| end.wrapping_sub(*skipped).min(*rows));
            }
            Self::Views { views, moves } => {
                fill(out, views.iter().map(|v| move_view(*v, moves).to_le_bytes()));
            }
            Self::Keys { keys, width, renumber } => write_keys(keys, *width, renumber, out),
        }
    }
}

/// Writes equal-sized values one after the other.
fn fill<const WIDTH: usize>(out: &mut [u8], values: impl Iterator<Item = [u8; WIDTH]>) {
    for (to, value) in out.as_chunks_mut::<WIDTH>().0.iter_mut().zip(values) {
        *to = value;
    }
}

fn write_keys(keys: &[u8], width: usize, renumber: &Renumber, out: &mut [u8]) {
    match renumber {
        Renumber::Same => out.copy_from_slice(keys),
        Renumber::Add(first) => map_words(keys, width, out, |key| key.wrapping_add(*first)),
        Renumber::Table(table) => map_words(keys, width, out, |key| {
            let key = usize::try_from(key).unwrap_or(usize::MAX);
            table.get(key).copied().unwrap_or(0)
        }),
    }
}

/// Applies `map` to little-endian numbers of `width` bytes, zero-extended; the low bytes count.
fn map_words(from: &[u8], width: usize, out: &mut [u8], map: impl Fn(u64) -> u64) {
    match width {
        1 => map_width::<1>(from, out, map),
        2 => map_width::<2>(from, out, map),
        4 => map_width::<4>(from, out, map),
        _ => map_width::<8>(from, out, map),
    }
}

fn map_width<const WIDTH: usize>(from: &[u8], out: &mut [u8], map: impl Fn(u64) -> u64) {
    let from = from.as_chunks::<WIDTH>().0;
    for (to, from) in out.as_chunks_mut::<WIDTH>().0.iter_mut().zip(from) {
        let mut word = [0; 8];
        word[..WIDTH].copy_from_slice(from);
        to.copy_from_slice(&map(u64::from_le_bytes(word)).to_le_bytes()[..WIDTH]);
    }
}

/// A view of 12 bytes or less holds its own data; a longer one names a buffer and an offset.
fn move_view(view: u128, moves: &[(u32, u32)]) -> u128 {
    let (length, buffer, offset) = (view as u32, (view >> 64) as u32, (view >> 96) as u32);
    if length <= 12 {
        return view;
    }
    let Some(&(number, cut_bytes)) = moves.get(buffer as usize) else {
        return view;
    };
    let low = view & u128::from(u64::MAX);
    low | u128::from(number) << 64 | u128::from(offset.wrapping_sub(cut_bytes)) << 96
}

/// Copies `len` bits from bit `offset`, eight bytes at a time, and clears the bits behind the last.
fn copy_bits(bits: &[u8], offset: usize, len: usize, out: &mut [u8]) {
    let from = &bits[offset / 8..];
    let shift = offset % 8;
    if shift == 0 {
        out.copy_from_slice(&from[..out.len()]);
    } else {
        shift_bits(from, shift, out);
    }
    if let Some(last) = out.last_mut().filter(|_| !len.is_multiple_of(8)) {
        *last &= (1 << (len % 8)) - 1;
    }
}

fn shift_bits(from: &[u8], shift: usize, out: &mut [u8]) {
    // A word needs the eight bytes under it and the one behind them.
    let words = (from.len().saturating_sub(1) / 8).min(out.len() / 8);
    let (head, tail) = out.split_at_mut(words * 8);
    for (i, to) in head.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let low = from.as_chunks::<8>().0[i];
        let high = u64::from(from[i * 8 + 8]);
        *to = (u64::from_le_bytes(low) >> shift | high << (64 - shift)).to_le_bytes();
    }
    for (i, to) in (words * 8..).zip(tail) {
        let high = from.get(i + 1).copied().unwrap_or(0);
        *to = from[i] >> shift | high << (8 - shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_arrive_at_bit_zero_and_the_rest_is_clear() {
        let bits: Vec<u8> = (0..64u32).map(|i| (i.wrapping_mul(167) >> 1) as u8).collect();
        let bit = |b: &[u8], i: usize| b[i / 8] >> (i % 8) & 1;
        for offset in 0..80 {
            for len in (0..=200).chain([bits.len() * 8 - offset]) {
                let mut out = vec![0xaa; len.div_ceil(8)];
                copy_bits(&bits, offset, len, &mut out);
                for i in 0..out.len() * 8 {
                    let expected = if i < len { bit(&bits, offset + i) } else { 0 };
                    assert_eq!(bit(&out, i), expected, "offset {offset} len {len} bit {i}");
                }
            }
        }
    }
}
