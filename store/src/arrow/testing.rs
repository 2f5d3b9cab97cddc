//! Arrays of any type, from a seed, for the tests of this module.
//!
//! The one thing to know: a type and a seed determine every value, so a failing test names both.

use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, StringViewBuilder};
use arrow_array::{ArrayRef, GenericListViewArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, make_array};
use arrow_buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef, TimeUnit, UnionFields, UnionMode};

use super::fuzz::Mutator;
use super::schema::fixed_width;

/// Types without children.
pub(super) fn flat_types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Date32,
        Date64,
        Utf8,
        LargeUtf8,
        Binary,
        LargeBinary,
        Utf8View,
        BinaryView,
        FixedSizeBinary(0),
        FixedSizeBinary(3),
        FixedSizeBinary(16),
        Decimal32(9, 2),
        Decimal64(18, -3),
        Decimal128(38, 10),
        Decimal256(76, 20),
        Time32(TimeUnit::Second),
        Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Microsecond),
        Time64(TimeUnit::Nanosecond),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.push(Timestamp(unit, None));
        types.push(Timestamp(unit, Some("Europe/Berlin".into())));
        types.push(Duration(unit));
    }
    for unit in [IntervalUnit::YearMonth, IntervalUnit::DayTime, IntervalUnit::MonthDayNano] {
        types.push(Interval(unit));
    }
    types
}

fn item(data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new("item", data_type, nullable))
}

fn map_of(keys: DataType, values: DataType) -> DataType {
    let entries = vec![Field::new("key", keys, false), Field::new("value", values, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

fn union_of(types: Vec<DataType>, mode: UnionMode) -> DataType {
    let ids = (0..types.len()).map(|i| i as i8 * 3 + 1).collect::<Vec<_>>();
    let fields = types.into_iter().enumerate().map(|(i, t)| Field::new(format!("u{i}"), t, true));
    DataType::Union(UnionFields::try_new(ids, fields.collect::<Vec<_>>()).unwrap(), mode)
}

fn runs_of(index: DataType, values: DataType) -> DataType {
    DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", index, false)),
        Arc::new(Field::new("values", values, true)),
    )
}

fn dictionary_of(key: DataType, values: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(values))
}

/// Every way to nest, around simple values.
pub(super) fn nested_types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![
        List(item(Int32, true)),
        LargeList(item(Utf8, true)),
        ListView(item(Int64, true)),
        LargeListView(item(Utf8View, true)),
        FixedSizeList(item(Float32, true), 3),
        FixedSizeList(item(Int8, false), 2),
        FixedSizeList(item(Null, true), 0),
        List(item(Boolean, false)),
        Struct(Vec::<Field>::new().into()),
        Struct(vec![Field::new("a", Int8, true), Field::new("b", Utf8, false)].into()),
        map_of(Utf8, Int64),
        map_of(Int32, List(item(Utf8, true))),
        union_of(vec![Int32, Utf8, Null], UnionMode::Sparse),
        union_of(vec![Int32, Utf8, Null], UnionMode::Dense),
        union_of(vec![dictionary_of(Int8, Utf8), List(item(Int16, true))], UnionMode::Dense),
        runs_of(Int16, Utf8),
        runs_of(Int32, Float64),
        runs_of(Int64, dictionary_of(Int8, Utf8)),
        List(item(dictionary_of(Int32, Utf8), true)),
        Struct(vec![Field::new("d", dictionary_of(UInt8, LargeUtf8), true)].into()),
        dictionary_of(Int32, List(item(dictionary_of(Int16, Utf8), true))),
        dictionary_of(Int16, Struct(vec![Field::new("s", Utf8View, true)].into())),
        List(item(List(item(List(item(Utf8, true)), true)), true)),
    ];
    for key in [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64] {
        types.push(dictionary_of(key, Utf8));
    }
    types
}

/// A random type that nests at most `depth` levels.
#[cfg(test)]
pub(super) fn random_type(random: &mut Mutator, depth: usize) -> DataType {
    use DataType::*;
    let flat = flat_types();
    if depth <= 1 || random.below(3) == 0 {
        return flat[random.below(flat.len())].clone();
    }
    let nullable = random.below(2) == 0;
    let child = random_type(random, depth - 1);
    match random.below(13) {
        0 => List(item(child, nullable)),
        1 => LargeList(item(child, nullable)),
        2 => ListView(item(child, true)),
        3 => LargeListView(item(child, true)),
        4 => FixedSizeList(item(child, nullable), random.below(4) as i32),
        5 => map_of(Utf8, child),
        6 => union_of(vec![child, random_type(random, depth - 1)], UnionMode::Sparse),
        7 => union_of(vec![child, random_type(random, depth - 1)], UnionMode::Dense),
        8 => runs_of(Int32, child),
        9 | 10 if !matches!(child, Dictionary(_, _)) => dictionary_of(Int32, child),
        _ => {
            let other = random_type(random, depth - 1);
            Struct(vec![Field::new("a", child, nullable), Field::new("b", other, true)].into())
        }
    }
}

fn random_nulls(random: &mut Mutator, rows: usize, nullable: bool) -> Option<NullBuffer> {
    (nullable && random.below(4) != 0).then(|| NullBuffer::from_iter((0..rows).map(|_| random.below(4) != 0)))
}

fn random_text(random: &mut Mutator) -> String {
    const LETTERS: [char; 8] = ['a', 'b', 'z', '0', 'ä', '€', '𝄞', ' '];
    (0..random.below(20)).map(|_| LETTERS[random.below(8)]).collect()
}

/// Whether values of this type may be null by themselves.
fn has_nulls(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Null | DataType::Union(_, _) | DataType::RunEndEncoded(_, _))
}

/// A random array; a nullable one has nulls if its type can.
pub(super) fn random_array(random: &mut Mutator, data_type: &DataType, rows: usize, nullable: bool) -> ArrayRef {
    use DataType::*;
    let nulls = random_nulls(random, rows, nullable && has_nulls(data_type));
    match data_type {
        ListView(field) => return random_list_view::<i32>(random, field, rows, nulls),
        LargeListView(field) => return random_list_view::<i64>(random, field, rows, nulls),
        Utf8View => {
            let mut builder = StringViewBuilder::new().with_fixed_block_size(40);
            for row in 0..rows {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                builder.append_option((!is_null).then(|| random_text(random)));
            }
            return Arc::new(builder.finish());
        }
        BinaryView => {
            let mut builder = BinaryViewBuilder::new().with_fixed_block_size(40);
            for row in 0..rows {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                builder.append_option((!is_null).then(|| random_text(random)));
            }
            return Arc::new(builder.finish());
        }
        _ => {}
    }
    let (rows, buffers, children) = random_parts(random, data_type, rows, nulls.as_ref());
    let builder = ArrayData::builder(data_type.clone()).len(rows).nulls(nulls);
    make_array(builder.buffers(buffers).child_data(children).build().unwrap())
}

fn random_parts(
    random: &mut Mutator,
    data_type: &DataType,
    rows: usize,
    nulls: Option<&NullBuffer>,
) -> (usize, Vec<Buffer>, Vec<ArrayData>) {
    use DataType::*;
    let child = |random: &mut Mutator, field: &Field, rows: usize| {
        random_array(random, field.data_type(), rows, field.is_nullable()).to_data()
    };
    let (buffers, children) = match data_type {
        Null => (vec![], vec![]),
        Boolean => (vec![random_bytes(random, rows.div_ceil(8))], vec![]),
        Utf8 | Binary => {
            let (lengths, text) = random_texts(random, rows);
            (vec![offsets::<i32>(&lengths), text], vec![])
        }
        LargeUtf8 | LargeBinary => {
            let (lengths, text) = random_texts(random, rows);
            (vec![offsets::<i64>(&lengths), text], vec![])
        }
        List(field) | Map(field, _) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4)).collect();
            (vec![offsets::<i32>(&lengths)], vec![child(random, field, lengths.iter().sum())])
        }
        LargeList(field) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4)).collect();
            (vec![offsets::<i64>(&lengths)], vec![child(random, field, lengths.iter().sum())])
        }
        FixedSizeList(field, size) => (vec![], vec![child(random, field, rows * *size as usize)]),
        Struct(fields) => (vec![], fields.iter().map(|field| child(random, field, rows)).collect()),
        Union(fields, mode) => {
            let ids: Vec<i8> = fields.iter().map(|(id, _)| id).collect();
            let picks: Vec<usize> = (0..rows).map(|_| random.below(ids.len())).collect();
            let type_ids = Buffer::from_vec(picks.iter().map(|&p| ids[p]).collect::<Vec<_>>());
            let mut counts = vec![0; ids.len()];
            let mut places = Vec::new();
            for &pick in &picks {
                places.push(counts[pick]);
                counts[pick] += 1;
            }
            if *mode == UnionMode::Sparse {
                counts.fill(rows as i32);
            }
            let children = fields.iter().zip(&counts);
            let children = children.map(|((_, field), count)| child(random, field, *count as usize)).collect();
            let mut buffers = vec![type_ids];
            if *mode == UnionMode::Dense {
                buffers.push(Buffer::from_vec(places));
            }
            (buffers, children)
        }
        Dictionary(key, values) => {
            let (width, _) = fixed_width(key).unwrap();
            let count = 1 + random.below(9);
            let mut keys = Vec::with_capacity(rows * width);
            for _ in 0..rows {
                keys.extend_from_slice(&random.below(count).to_le_bytes()[..width]);
            }
            let values = random_array(random, values, count, nulls.is_some()).to_data();
            (vec![super::fuzz::aligned(&keys)], vec![values])
        }
        RunEndEncoded(run_ends, values) => {
            let mut ends = Vec::new();
            let mut end = 0;
            while end < rows {
                end += 1 + random.below(5);
                ends.push(end);
            }
            let (width, _) = fixed_width(run_ends.data_type()).unwrap();
            let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()[..width].to_vec()).collect();
            let run_ends = ArrayData::builder(run_ends.data_type().clone())
                .len(ends.len())
                .add_buffer(Buffer::from_vec(bytes))
                .align_buffers(true)
                .build()
                .unwrap();
            (vec![], vec![run_ends, child(random, values, ends.len())])
        }
        other => {
            let (width, _) = fixed_width(other).unwrap();
            (vec![random_bytes(random, rows * width)], vec![])
        }
    };
    (rows, buffers, children)
}

fn random_bytes(random: &mut Mutator, bytes: usize) -> Buffer {
    super::fuzz::aligned(&(0..bytes).map(|_| random.random() as u8).collect::<Vec<_>>())
}

fn random_texts(random: &mut Mutator, rows: usize) -> (Vec<usize>, Buffer) {
    let texts: Vec<String> = (0..rows).map(|_| random_text(random)).collect();
    (texts.iter().map(String::len).collect(), Buffer::from_vec(texts.concat().into_bytes()))
}

fn offsets<O: OffsetSizeTrait>(lengths: &[usize]) -> Buffer {
    let mut end = 0;
    let mut offsets = vec![O::usize_as(0)];
    for length in lengths {
        end += length;
        offsets.push(O::usize_as(end));
    }
    Buffer::from_vec(offsets)
}

fn random_list_view<O: OffsetSizeTrait>(
    random: &mut Mutator,
    field: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let count = rows * 2;
    let values = random_array(random, field.data_type(), count, field.is_nullable());
    let (mut offsets, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let offset = random.below(count);
        offsets.push(O::usize_as(offset));
        sizes.push(O::usize_as(random.below(4).min(count - offset)));
    }
    let (offsets, sizes) = (ScalarBuffer::from(offsets), ScalarBuffer::from(sizes));
    Arc::new(GenericListViewArray::<O>::new(field.clone(), offsets, sizes, values, nulls))
}

/// A batch of random columns, cut out of longer ones if `slice`.
pub(super) fn random_batch(random: &mut Mutator, schema: &SchemaRef, rows: usize, slice: bool) -> RecordBatch {
    let (before, after) = if slice { (random.below(20), random.below(20)) } else { (0, 0) };
    let columns = schema.fields().iter().map(|field| {
        let array = random_array(random, field.data_type(), before + rows + after, field.is_nullable());
        if slice { array.slice(before, rows) } else { array }
    });
    let columns = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).unwrap()
}

/// A schema with one nullable column per type.
pub(super) fn schema_of(types: &[DataType]) -> SchemaRef {
    let fields = types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
