//! Hostile bytes: a seeded mutator, and a decoder that then touches every value.
//!
//! The one thing to know: [`fuzz_decode`] must neither panic nor allocate out of proportion,
//! whatever it is given; there is nothing else to observe. Both halves are deterministic, so a
//! seed reproduces a failure. Only tests use this; it must not be on any path of the store.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    BinaryViewType, ByteArrayType, ByteViewType, GenericBinaryType, GenericStringType, Int16Type, Int32Type, Int64Type,
    RunEndIndexType, StringViewType,
};
use arrow_array::{Array, OffsetSizeTrait, RecordBatch, UnionArray};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_schema::{DataType, UnionFields};

use super::{Table, decode};

/// Numbers that lengths, offsets and counts get wrong.
const INTERESTING: [i64; 20] =
    [0, 1, 2, 3, 7, 8, 15, 63, 64, 127, 128, 255, 256, 65_535, -1, -8, 0x7fff_ffff, 0x8000_0000, i64::MAX, i64::MIN];

/// Turns valid bytes into bytes that are nearly valid.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The same seed makes the same mutations.
    pub fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// The next random number (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.random() % end as u64) as usize }
    }

    /// Puts one of `seeds` into `out`, with one to eight mutations.
    pub fn mutate(&mut self, seeds: &[Vec<u8>], out: &mut Vec<u8>) {
        out.clear();
        let seed = self.below(seeds.len());
        if let Some(seed) = seeds.get(seed) {
            out.extend_from_slice(seed);
        }
        // Mostly one or two: more and hardly anything gets past the footer.
        let count = 1 + (self.random().trailing_ones() as usize).min(7);
        for _ in 0..count {
            self.mutate_once(seeds, out);
        }
    }

    fn mutate_once(&mut self, seeds: &[Vec<u8>], out: &mut Vec<u8>) {
        if out.is_empty() {
            return;
        }
        let at = self.below(out.len());
        match self.below(16) {
            0..=3 => out[at] ^= 1 << self.below(8),
            4 => out[at] = self.random() as u8,
            5..=10 => self.set_number(out, at),
            11..=12 => self.nudge_number(out, at),
            13 => self.splice(seeds, out, at),
            14 => {
                let bytes = self.below(64).min(out.len() - at);
                let from = self.below(out.len() - bytes);
                out.copy_within(from..from + bytes, at);
            }
            _ => self.cut(out, at),
        }
    }

    fn set_number(&mut self, out: &mut [u8], at: usize) {
        let number = INTERESTING[self.below(INTERESTING.len())];
        let width = 1 << self.below(4);
        let at = at / width * width;
        let bytes = number.to_le_bytes();
        let end = (at + width).min(out.len());
        out[at..end].copy_from_slice(&bytes[..end - at]);
    }

    fn nudge_number(&mut self, out: &mut [u8], at: usize) {
        let at = at / 4 * 4;
        if let Some(word) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            let by = self.below(17) as u32;
            *word = u32::from_le_bytes(*word).wrapping_add(by).wrapping_sub(8).to_le_bytes();
        }
    }

    /// Some bytes of another seed at the same place, or at another.
    fn splice(&mut self, seeds: &[Vec<u8>], out: &mut [u8], at: usize) {
        let other = &seeds[self.below(seeds.len())];
        let from = if self.below(2) == 0 { at } else { self.below(other.len()) };
        let length = self.below(256).min(out.len() - at).min(other.len().saturating_sub(from));
        if length > 0 {
            out[at..at + length].copy_from_slice(&other[from..from + length]);
        }
    }

    fn cut(&mut self, out: &mut Vec<u8>, at: usize) {
        match self.below(3) {
            0 => out.truncate(at),
            1 => {
                let end = (at + 1 + self.below(64)).min(out.len());
                out.drain(at..end);
            }
            _ => {
                let zeros = vec![0; self.below(64)];
                out.splice(at..at, zeros);
            }
        }
    }
}

/// Valid tables of every type, to begin with.
#[cfg(any(test, feature = "testing"))]
pub fn seeds() -> Vec<Vec<u8>> {
    use super::testing::{flat_types, nested_types, random_batch, schema_of};
    let mut random = Mutator::new(99);
    let types: Vec<_> = flat_types().into_iter().chain(nested_types()).collect();
    let mut seeds = Vec::new();
    for types in types.chunks(2) {
        let schema = schema_of(types);
        let batches: Vec<_> = (0..2).map(|_| random_batch(&mut random, &schema, 5, false)).collect();
        let layout = super::Layout::plan(&schema, &batches).expect("every type can be encoded");
        let mut seed = vec![0; layout.bytes()];
        layout.write(&mut seed).expect("the plan gave its size");
        seeds.push(seed);
    }
    seeds
}

/// Decodes bytes nobody vouches for, and touches every value of what comes out. Returns a number
/// that depends on all values, or `None` if the bytes were refused.
pub fn fuzz_decode(bytes: &[u8]) -> Option<u64> {
    let table = decode(aligned(bytes), false).ok()?;
    Some(walk(&table))
}

/// A copy that starts aligned, as an object does.
pub fn aligned(bytes: &[u8]) -> Buffer {
    let mut copy = MutableBuffer::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy.into()
}

/// Touches every value of the table through the public methods of its arrays.
pub fn walk(table: &Table) -> u64 {
    table.batches.iter().map(walk_batch).fold(0, u64::wrapping_add)
}

fn walk_batch(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| walk_array(column)).fold(0, u64::wrapping_add)
}

fn walk_array(array: &dyn Array) -> u64 {
    use DataType::*;
    let nulls = array.nulls().map_or(0, |nulls| nulls.iter().filter(|valid| !valid).count() as u64);
    let values = match array.data_type() {
        Null => array.len() as u64,
        Boolean => array.as_boolean().values().iter().map(u64::from).sum(),
        Utf8 => walk_bytes::<GenericStringType<i32>>(array),
        LargeUtf8 => walk_bytes::<GenericStringType<i64>>(array),
        Binary => walk_bytes::<GenericBinaryType<i32>>(array),
        LargeBinary => walk_bytes::<GenericBinaryType<i64>>(array),
        Utf8View => walk_views::<StringViewType>(array),
        BinaryView => walk_views::<BinaryViewType>(array),
        FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            // Values without bytes are as many as the metadata says.
            let rows = if array.value_length() == 0 { 0 } else { array.len() };
            (0..rows).map(|row| sum(array.value(row))).fold(0, u64::wrapping_add)
        }
        List(_) => walk_list::<i32>(array),
        LargeList(_) => walk_list::<i64>(array),
        Map(_, _) => {
            let map = array.as_map();
            let entries: usize = (0..map.len()).map(|row| map.value_length(row) as usize).sum();
            walk_array(map.entries()).wrapping_add(entries as u64)
        }
        ListView(_) => walk_list_view::<i32>(array),
        LargeListView(_) => walk_list_view::<i64>(array),
        FixedSizeList(_, _) => walk_array(array.as_fixed_size_list().values()),
        Struct(_) => {
            let columns = array.as_struct().columns().iter();
            columns.map(|column| walk_array(column)).fold(0, u64::wrapping_add)
        }
        Union(fields, _) => walk_union(array.as_union(), fields),
        Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            // A dictionary without values has only nulls, and nothing to normalise keys to.
            let is_empty = dictionary.values().is_empty();
            let keys = if is_empty { Vec::new() } else { dictionary.normalized_keys() };
            let keys = keys.iter().map(|key| *key as u64).fold(0, u64::wrapping_add);
            keys.wrapping_add(walk_array(dictionary.values()))
        }
        RunEndEncoded(run_ends, _) => match run_ends.data_type() {
            Int16 => walk_runs::<Int16Type>(array),
            Int32 => walk_runs::<Int32Type>(array),
            _ => walk_runs::<Int64Type>(array),
        },
        _ => {
            // Fixed-width: any bytes are values.
            let data = array.to_data();
            data.buffers().iter().map(|buffer| sum(buffer)).fold(0, u64::wrapping_add)
        }
    };
    values.wrapping_add(nulls)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

fn walk_bytes<T: ByteArrayType>(array: &dyn Array) -> u64 {
    let array = array.as_bytes::<T>();
    let values = (0..array.len()).map(|row| {
        let value: &T::Native = array.value(row);
        sum(value.as_ref())
    });
    values.fold(0, u64::wrapping_add)
}

fn walk_views<T: ByteViewType>(array: &dyn Array) -> u64 {
    let array = array.as_byte_view::<T>();
    let values = (0..array.len()).map(|row| {
        let value: &T::Native = array.value(row);
        let bytes: &[u8] = value.as_ref();
        // Views may share bytes: the ends are enough, or the work would not be linear.
        bytes.len() as u64 + u64::from(*bytes.last().unwrap_or(&0))
    });
    values.fold(0, u64::wrapping_add)
}

fn walk_list<O: OffsetSizeTrait>(array: &dyn Array) -> u64 {
    let list = array.as_list::<O>();
    let lengths = (0..list.len()).map(|row| list.value(row).len() as u64);
    lengths.fold(walk_array(list.values()), u64::wrapping_add)
}

fn walk_list_view<O: OffsetSizeTrait>(array: &dyn Array) -> u64 {
    let list = array.as_list_view::<O>();
    let lengths = (0..list.len()).map(|row| list.value(row).len() as u64);
    lengths.fold(walk_array(list.values()), u64::wrapping_add)
}

fn walk_union(union: &UnionArray, fields: &UnionFields) -> u64 {
    let values = (0..union.len()).map(|row| {
        let child = union.child(union.type_id(row));
        u64::from(child.is_null(union.value_offset(row)))
    });
    let children = fields.iter().map(|(id, _)| walk_array(union.child(id)));
    values.chain(children).fold(0, u64::wrapping_add)
}

fn walk_runs<T: RunEndIndexType>(array: &dyn Array) -> u64 {
    let Some(runs) = array.as_any().downcast_ref::<arrow_array::RunArray<T>>() else {
        return 0;
    };
    let rows = runs.len();
    let ends = [0, rows / 2, rows.saturating_sub(1)].into_iter().filter(|row| *row < rows);
    let places = ends.map(|row| runs.get_physical_index(row) as u64);
    places.fold(walk_array(runs.values()), u64::wrapping_add)
}
