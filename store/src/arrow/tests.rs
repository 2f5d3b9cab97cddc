//! What `mod.rs` promises: roundtrips of every type, whole and sliced; A1 to A3; building in place.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int8Array, Int32Array, RecordBatch, RecordBatchOptions, StringArray, make_array,
};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::fuzz::{Mutator, aligned, fuzz_decode, seeds, walk};
use super::testing::{flat_types, nested_types, random_batch, random_type, schema_of};
use super::*;

fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<u8> {
    let layout = Layout::plan(schema, batches).unwrap();
    // Rubbish in the destination must not show through.
    let mut out = vec![0xa5; layout.bytes()];
    layout.write(&mut out).unwrap();
    out
}

fn check_places(data: &ArrayData, bytes: &Buffer) {
    let file = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls).filter(|buffer| !buffer.is_empty()) {
        let start = buffer.as_ptr() as usize;
        assert!(file.contains(&start) && start + buffer.len() <= file.end, "copied");
        assert_eq!((start - file.start) % ALIGNMENT, 0, "misaligned");
    }
    data.child_data().iter().for_each(|child| check_places(child, bytes));
}

/// Encodes, decodes both ways, and compares everything.
fn check_roundtrip(schema: &SchemaRef, batches: &[RecordBatch], what: &str) {
    let bytes = aligned(&encode(schema, batches));
    for validated in [false, true] {
        let table = decode(bytes.clone(), validated).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(table.schema, *schema, "{what}");
        assert_eq!(table.batches.len(), batches.len(), "{what}");
        for (decoded, original) in table.batches.iter().zip(batches) {
            assert_eq!(decoded.num_rows(), original.num_rows(), "{what}");
            for (decoded, original) in decoded.columns().iter().zip(original.columns()) {
                assert_eq!(decoded, original, "{what}");
                let data = decoded.to_data();
                data.validate_full().unwrap_or_else(|e| panic!("{what}: {e}"));
                check_places(&data, &bytes);
            }
        }
        walk(&table);
    }
}

#[test]
fn every_type_survives_whole_sliced_and_empty() {
    for (i, data_type) in flat_types().into_iter().chain(nested_types()).enumerate() {
        let mut random = Mutator::new(i as u64);
        let schema = schema_of(std::slice::from_ref(&data_type));
        for rows in [0, 1, 7, 8, 64, 131] {
            for slice in [false, true] {
                let batches: Vec<_> = (0..2).map(|_| random_batch(&mut random, &schema, rows, slice)).collect();
                check_roundtrip(&schema, &batches, &format!("{data_type} rows {rows} slice {slice}"));
            }
        }
        check_roundtrip(&schema, &[], &format!("{data_type} without batches"));
    }
}

#[test]
fn random_nested_schemas_survive() {
    for seed in 0..400 {
        let mut random = Mutator::new(seed);
        let types: Vec<_> = (0..1 + random.below(4)).map(|_| random_type(&mut random, 4)).collect();
        let schema = schema_of(&types);
        let batches: Vec<_> = (0..random.below(4))
            .map(|_| {
                let (rows, slice) = (random.below(70), random.below(2) == 0);
                random_batch(&mut random, &schema, rows, slice)
            })
            .collect();
        check_roundtrip(&schema, &batches, &format!("seed {seed} {types:?}"));
    }
}

#[test]
fn metadata_and_row_counts_survive() {
    let extension = [("ARROW:extension:name", "point"), ("ARROW:extension:metadata", "{}")];
    let extension = extension.map(|(k, v)| (k.to_string(), v.to_string()));
    let field = Field::new("p", DataType::Int32, false).with_metadata(std::collections::HashMap::from(extension));
    let metadata = [("pandas".to_string(), "{\"x\": 1}".to_string())];
    let schema = Schema::new_with_metadata(vec![field], std::collections::HashMap::from(metadata));
    let schema = Arc::new(schema);
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
    check_roundtrip(&schema, &[batch], "metadata");
    let bytes = aligned(&encode(&schema, &[]));
    assert_eq!(decode_schema(&bytes).unwrap(), schema);

    let empty = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(12_345));
    let batch = RecordBatch::try_new_with_options(empty.clone(), vec![], &options).unwrap();
    check_roundtrip(&empty, &[batch], "rows without columns");
}

#[test]
fn ordered_dictionaries_stay_ordered() {
    let data_type = DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into());
    let field = Field::new("d", data_type, true).with_dict_is_ordered(true);
    let schema = Arc::new(Schema::new(vec![field]));
    let bytes = aligned(&encode(&schema, &[]));
    assert_eq!(decode_schema(&bytes).unwrap().field(0).dict_is_ordered(), Some(true));
}

#[test]
fn a_slice_is_as_large_as_a_copy_of_its_rows() {
    for data_type in flat_types().into_iter().chain(nested_types()) {
        let mut random = Mutator::new(5);
        let schema = schema_of(std::slice::from_ref(&data_type));
        let long = random_batch(&mut random, &schema, 4000, false);
        let short = encode(&schema, &[long.slice(1000, 10)]).len();
        let whole = encode(&schema, std::slice::from_ref(&long)).len();
        // List views may point anywhere, so a few rows may keep everything between them.
        let is_view = format!("{data_type}").contains("ListView");
        assert!(is_view || short < 6000, "{data_type}: {short} of {whole}");
    }
}

fn dictionary_batch(schema: &SchemaRef, values: Vec<Option<&str>>, keys: Vec<Option<i8>>) -> RecordBatch {
    let values = Arc::new(StringArray::from(values));
    let array = DictionaryArray::<Int8Type>::new(Int8Array::from(keys), values);
    RecordBatch::try_new(schema.clone(), vec![Arc::new(array)]).unwrap()
}

fn dictionary_schema() -> SchemaRef {
    schema_of(&[DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into())])
}

#[test]
fn dictionaries_that_differ_become_one() {
    let schema = dictionary_schema();
    let batches = [
        dictionary_batch(&schema, vec![Some("a"), Some("b")], vec![Some(0), Some(1), None]),
        dictionary_batch(&schema, vec![Some("c"), None, Some("a")], vec![Some(2), Some(0), Some(1)]),
        dictionary_batch(&schema, vec![], vec![None]),
    ];
    check_roundtrip(&schema, &batches, "different dictionaries");
    let table = decode(aligned(&encode(&schema, &batches)), true).unwrap();
    let values = |i: usize| table.batches[i].column(0).as_any_dictionary().values().clone();
    assert_eq!(values(0).len(), 5);
    assert_eq!(values(0).to_data().buffers()[1].as_ptr(), values(1).to_data().buffers()[1].as_ptr());
}

#[test]
fn a_growing_dictionary_is_written_once_and_keys_stay() {
    let schema = dictionary_schema();
    let batches = [
        dictionary_batch(&schema, vec![Some("a")], vec![Some(0)]),
        dictionary_batch(&schema, vec![Some("a"), Some("b")], vec![Some(1)]),
    ];
    check_roundtrip(&schema, &batches, "growing dictionary");
    let table = decode(aligned(&encode(&schema, &batches)), true).unwrap();
    assert_eq!(table.batches[0].column(0).as_any_dictionary().values().len(), 2);
}

#[test]
fn dictionaries_too_many_for_the_key_share_values_or_fail() {
    let schema = dictionary_schema();
    let words: Vec<String> = (0..200).map(|i| format!("word {i}")).collect();
    let batch = |from: usize, count: usize| {
        let values = words[from..from + count].iter().map(|w| Some(w.as_str())).collect();
        dictionary_batch(&schema, values, (0..count as i8).map(Some).collect())
    };
    check_roundtrip(&schema, &[batch(0, 100), batch(28, 100)], "128 different");
    let error = Layout::plan(&schema, &[batch(0, 100), batch(29, 100)]).unwrap_err();
    let EncodeError::DictionaryTooLarge { values: 129, values_max: 128, .. } = error else {
        panic!("{error:?}");
    };
}

#[test]
fn what_does_not_fit_the_schema_is_refused() {
    let schema = schema_of(&[DataType::Int32]);
    let other = schema_of(&[DataType::Int64]);
    let batch = random_batch(&mut Mutator::new(1), &other, 3, false);
    let error = Layout::plan(&schema, &[batch]).unwrap_err();
    assert!(matches!(error, EncodeError::ColumnType { batch: 0, column: 0, .. }));

    let mut deep = DataType::Int8;
    for _ in 0..DEPTH_MAX {
        deep = DataType::List(Arc::new(Field::new("item", deep, true)));
    }
    let error = Layout::plan(&schema_of(&[deep.clone()]), &[]).unwrap_err();
    assert!(matches!(error, EncodeError::Inexpressible { .. }));
    let DataType::List(inner) = deep else { unreachable!() };
    check_roundtrip(&schema_of(&[inner.data_type().clone()]), &[], "as deep as allowed");

    let layout = Layout::plan(&schema, &[]).unwrap();
    let error = layout.write(&mut [0; 3]).unwrap_err();
    assert!(matches!(error, EncodeError::OutputLength { actual: 3, .. }));
}

#[test]
fn buffers_of_other_writers_are_copied_only_where_rust_needs_it() {
    let schema = schema_of(&[DataType::Int64, DataType::Decimal128(38, 2)]);
    let batch = random_batch(&mut Mutator::new(3), &schema, 10, false);
    let file = encode(&schema, std::slice::from_ref(&batch));
    let mut shifted = vec![0; 8];
    shifted.extend_from_slice(&file);
    let bytes = aligned(&shifted).slice(8);
    let table = decode(bytes.clone(), false).unwrap();
    assert_eq!(table.batches[0], batch);
    let data = table.batches[0].column(0).to_data();
    let file = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    assert!(file.contains(&(data.buffers()[0].as_ptr() as usize)));
}

/// Small files of many types, to mutate.
#[test]
fn hostile_bytes_never_panic_and_what_is_accepted_is_valid() {
    let seeds = seeds();
    let mut random = Mutator::new(1);
    let mut bytes = Vec::new();
    let mut accepted = 0;
    for i in 0..200_000 {
        random.mutate(&seeds, &mut bytes);
        if i % 8 != 0 {
            accepted += usize::from(fuzz_decode(&bytes).is_some());
            continue;
        }
        // Now and then ask Arrow itself (A2). Its own check may not be asked of a fixed-size list
        // that claims more items than there is memory.
        let Ok(table) = decode(aligned(&bytes), false) else {
            continue;
        };
        for column in table.batches.iter().flat_map(RecordBatch::columns) {
            if column.len() < 1000 {
                column.to_data().validate_full().unwrap_or_else(|e| panic!("mutation {i}: {e}"));
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn every_prefix_is_refused() {
    for seed in seeds().iter().take(4) {
        for end in 0..seed.len() {
            assert_eq!(fuzz_decode(&seed[..end]), None, "{end} bytes");
        }
    }
}

fn build_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("flag", DataType::Boolean, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("blob", DataType::LargeBinary, false),
        Field::new("hash", DataType::FixedSizeBinary(4), true),
    ]))
}

/// Bytes that start aligned and are full of rubbish.
struct Aligned(Vec<u128>, usize);

impl Aligned {
    fn new(bytes: usize) -> Self {
        Self(vec![u128::MAX / 3; bytes / 16 + 8], bytes)
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(ALIGNMENT) * 16;
        let all = super::native::values_mut_bytes(&mut self.0);
        &mut all[start..start + self.1]
    }
}

fn fill(builder: &mut BatchBuilder<'_>, rows: usize) {
    for (i, id) in builder.primitive::<Int64Type>(0).unwrap().iter_mut().enumerate() {
        *id = i as i64;
    }
    builder.column(1).unwrap().booleans().unwrap().fill((0..rows).map(|i| i % 3 == 0)).unwrap();
    builder.column(1).unwrap().validity().unwrap().set(1, false).unwrap();
    let [_, _, text, blob, hash] = builder.columns() else { unreachable!() };
    for row in 0..rows {
        match row % 4 {
            3 => text.append_null().unwrap(),
            _ => text.append_str(&"ü".repeat(row % 4)).unwrap(),
        }
        blob.append_bytes(&[row as u8; 3]).unwrap();
    }
    hash.fixed_size_binary().unwrap().fill(7);
}

#[test]
fn a_batch_built_in_place_is_a_table() {
    for rows in [2, 8, 61] {
        let plan = BatchPlan::new(build_schema(), rows).unwrap();
        let plan = plan.value_bytes(2, rows * 9).unwrap().value_bytes(3, rows * 3).unwrap();
        let mut memory = Aligned::new(plan.bytes().unwrap());
        let mut builder = BatchBuilder::new(plan, memory.bytes()).unwrap();
        fill(&mut builder, rows);
        builder.finish().unwrap();
        let bytes = aligned(memory.bytes());
        let table = decode(bytes.clone(), false).unwrap();
        let batch = &table.batches[0];
        batch.columns().iter().for_each(|column| check_places(&column.to_data(), &bytes));
        assert_eq!(batch.num_rows(), rows);
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(rows - 1), rows as i64 - 1);
        assert_eq!(batch.column(1).null_count(), 1);
        assert!(batch.column(1).as_boolean().value(0));
        let text = batch.column(2).as_string::<i32>();
        for row in 0..rows {
            assert_eq!(text.is_null(row), row % 4 == 3);
            assert!(text.is_null(row) || text.value(row) == "ü".repeat(row % 4));
        }
        assert_eq!(batch.column(3).as_binary::<i64>().value(1), [1; 3]);
        assert_eq!(batch.column(4).as_fixed_size_binary().value(0), [7; 4]);
        // What was built is what would have been encoded, but for the reserve.
        let encoded = decode(aligned(&encode(&table.schema, &table.batches)), false).unwrap();
        assert_eq!(encoded, table);
    }
}

#[test]
fn misuse_of_a_builder_is_an_error() {
    let plan = || BatchPlan::new(build_schema(), 2).unwrap().value_bytes(2, 3).unwrap();
    let mut memory = Aligned::new(plan().bytes().unwrap());
    let error = BatchBuilder::new(plan(), &mut memory.bytes()[1..]).unwrap_err();
    assert!(matches!(error, BuildError::OutputLength { .. }));
    let mut builder = BatchBuilder::new(plan(), memory.bytes()).unwrap();
    let error = builder.primitive::<Int32Type>(0).unwrap_err();
    assert!(matches!(error, BuildError::WrongType { column: 0, .. }));
    assert!(matches!(builder.column(9).unwrap_err(), BuildError::NoSuchColumn { column: 9, .. }));
    let text = builder.column(2).unwrap();
    let error = text.append_str("four").unwrap_err();
    assert!(matches!(error, BuildError::OutOfSpace { requested_bytes: 4, free_bytes: 3, .. }));
    assert!(matches!(text.append_bytes(b"x").unwrap_err(), BuildError::WrongType { .. }));
    text.append_str("abc").unwrap();
    text.append_null().unwrap();
    assert!(matches!(text.append_str("").unwrap_err(), BuildError::TooManyValues { .. }));
    let error = builder.column(0).unwrap().validity().unwrap_err();
    assert!(matches!(error, BuildError::NotNullable { column: 0 }));
    assert!(matches!(builder.finish().unwrap_err(), BuildError::NotWritten { column: 0 }));
    // Half-built bytes are no table.
    assert!(decode(aligned(memory.bytes()), false).is_err());
    let nested = BatchPlan::new(schema_of(&nested_types()[..1]), 1).unwrap_err();
    assert!(matches!(nested, BuildError::UnsupportedType { column: 0, .. }));
    let error = plan().value_bytes(2, 1 << 31).unwrap_err();
    assert!(matches!(error, BuildError::Layout { .. }));
}

/// Of text column 1 of three rows with these offsets, filled from outside: the table, or what is wrong.
fn fill_places(offsets: [i32; 4]) -> Result<Vec<u8>, BuildError> {
    let schema = schema_of(&[DataType::Int64, DataType::Utf8]);
    let plan = BatchPlan::new(schema, 3).unwrap().value_bytes(1, 10).unwrap();
    let mut memory = Aligned::new(plan.bytes().unwrap());
    drop(BatchBuilder::new(plan.clone(), memory.bytes()).unwrap());
    let places = plan.places().unwrap();
    let mut write = |place: Range<usize>, bytes: &[u8]| memory.bytes()[place][..bytes.len()].copy_from_slice(bytes);
    write(places[0].values.clone(), &[5i64, 6, 7].map(i64::to_le_bytes).concat());
    write(places[0].validity.clone(), &[0b1111_1101]);
    write(places[1].offsets.clone().unwrap(), &offsets.map(i32::to_le_bytes).concat());
    write(places[1].values.clone(), b"abcdefghij");
    BatchBuilder::of_filled(plan, memory.bytes())?.finish()?;
    Ok(memory.bytes().to_vec())
}

#[test]
fn a_batch_that_was_filled_in_its_places_is_a_table() {
    let bytes = aligned(&fill_places([0, 2, 2, 5]).unwrap());
    let table = decode(bytes, false).unwrap();
    let [numbers, texts] = table.batches[0].columns() else { panic!("there are two columns") };
    assert_eq!((numbers.null_count(), numbers.as_primitive::<Int64Type>().value(2)), (1, 7));
    assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["ab", "", "cde"]);
}

#[test]
fn offsets_from_outside_are_checked() {
    for (offsets, wrong) in [([1, 2, 2, 5], 0), ([0, 2, 1, 5], 2), ([0, 2, 5, 11], 3), ([0, 2, -1, 5], 2)] {
        let error = fill_places(offsets).unwrap_err();
        assert!(matches!(error, BuildError::Offset { column: 1, row, value_bytes: 10 } if row == wrong), "{error}");
    }
}

#[test]
fn a_string_built_in_place_is_still_checked() {
    let array: ArrayRef = make_array(StringArray::from(vec!["aé"]).to_data());
    let schema = schema_of(&[DataType::Utf8]);
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).unwrap();
    let mut file = encode(&schema, &[batch]);
    let at = file.windows(3).rposition(|w| w == "aé".as_bytes()).unwrap();
    file[at + 2] = b'x';
    assert!(matches!(decode(aligned(&file), false).unwrap_err(), DecodeError::Data { .. }));
}
#[test]
fn more_than_two_gibibytes_are_planned() {
    // Zeroed memory that nobody touches is free.
    let values = Buffer::from(MutableBuffer::from_len_zeroed(3 << 30));
    let data = ArrayData::builder(DataType::Int64).len(3 << 27).add_buffer(values);
    let array = make_array(data.build().unwrap());
    let schema = schema_of(&[DataType::Int64, DataType::Int64]);
    let batch = RecordBatch::try_new(schema.clone(), vec![array.clone(), array]).unwrap();
    let layout = Layout::plan(&schema, &[batch]).unwrap();
    assert!((6 << 30..(6 << 30) + 4096).contains(&layout.bytes()));
}

#[test]
fn tables_of_one_schema_share_it_and_others_do_not() {
    let types = [flat_types(), nested_types()].concat();
    let file = |types: &[DataType], seed| {
        let schema = schema_of(types);
        let batch = random_batch(&mut Mutator::new(seed), &schema, 40 + seed as usize, false);
        (aligned(&encode(&schema, std::slice::from_ref(&batch))), batch)
    };
    let first = file(&types, 1);
    // The shape is the same, the places of the messages are not.
    let second = file(&types, 2);
    let other = file(&types[1..], 1);
    for (bytes, batch) in [&first, &second, &other, &first] {
        for validated in [false, true, true] {
            let table = decode(bytes.clone(), validated).unwrap();
            assert_eq!(table.batches[0], *batch);
            assert_eq!(table.schema, batch.schema());
        }
    }
    // Another test may have the cache, or fill it, in between.
    let shared = (0..1000).any(|_| {
        let [a, b] = [&first, &second].map(|(bytes, _)| decode(bytes.clone(), true).unwrap().schema);
        std::sync::Arc::ptr_eq(&a, &b)
    });
    assert!(shared);
}

#[test]
fn what_is_read_unchecked_is_what_is_read_checked() {
    let mut random = Mutator::new(17);
    for data_type in flat_types().into_iter().chain(nested_types()) {
        let schema = schema_of(std::slice::from_ref(&data_type));
        let batches: Vec<_> = [0, 1, 9, 70].map(|rows| random_batch(&mut random, &schema, rows, true)).into();
        let bytes = aligned(&encode(&schema, &batches));
        let [unchecked, checked] = [true, false].map(|validated| decode(bytes.clone(), validated).unwrap());
        assert_eq!(unchecked, checked, "{data_type}");
        for batch in &unchecked.batches {
            batch.column(0).to_data().validate_full().unwrap();
        }
    }
}
