//! What reading a table in place costs, whatever its size: the arrays are made, no value is read.
//!
//! The one thing to know: the bound is 20 us + 300 ns for each column of each batch; the same bytes
//! through `arrow-ipc`'s own decoder, which also looks at values as safe code must, stand beside it.
//! "new schema" is a table whose schema this process has not met lately. It must not read values,
//! or it would measure memory.

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use store::arrow::{Layout, decode};

const ROWS: usize = 100;

/// Makes a column, given its number.
type Make = fn(usize) -> ArrayRef;

/// A kind of column, and how one is made.
const KINDS: [(&str, Make); 6] = [
    ("int64", |column| Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (row * column) as i64)))),
    ("utf8", |_| Arc::new(StringArray::from_iter_values(texts()))),
    ("view", |_| Arc::new(StringViewArray::from_iter_values(texts()))),
    ("dictionary", |column| Arc::new(dictionary(column))),
    ("struct", |column| Arc::new(pair(column))),
    ("list", |_| Arc::new(lists())),
];
/// More schemas than a process keeps.
const SCHEMAS: usize = 20;
/// Columns and batches.
const SHAPES: [(usize, usize); 4] = [(1, 1), (10, 10), (100, 1), (100, 20)];

fn texts() -> impl Iterator<Item = String> {
    (0..ROWS).map(|row| format!("a text that is longer than twelve bytes {row}"))
}

fn dictionary(column: usize) -> DictionaryArray<Int32Type> {
    let keys = Int32Array::from_iter_values((0..ROWS).map(|row| (row % 8) as i32));
    let values = StringArray::from_iter_values((0..8).map(|value| format!("value {value} of column {column}")));
    DictionaryArray::new(keys, Arc::new(values))
}

fn pair(column: usize) -> StructArray {
    let number = Int64Array::from_iter_values((0..ROWS).map(|row| (row + column) as i64));
    let text = StringArray::from_iter_values(texts());
    let fields = [("number", DataType::Int64), ("text", DataType::Utf8)];
    let fields = fields.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
    StructArray::from(vec![(fields[0].clone(), Arc::new(number) as ArrayRef), (fields[1].clone(), Arc::new(text))])
}

fn lists() -> arrow_array::ListArray {
    let mut builder = ListBuilder::new(Int64Builder::new());
    for row in 0..ROWS {
        builder.values().append_slice(&[row as i64; 3]);
        builder.append(true);
    }
    builder.finish()
}

fn file(make: Make, columns: usize, batches: usize, name: &str) -> Buffer {
    let arrays: Vec<ArrayRef> = (0..columns).map(make).collect();
    let fields = arrays.iter().enumerate();
    let fields: Vec<Field> =
        fields.map(|(i, array)| Field::new(format!("{name} {i}"), array.data_type().clone(), true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays).expect("the columns are those of the schema");
    let batches = vec![batch; batches];
    let layout = Layout::plan(&schema, &batches).expect("every type can be encoded");
    let mut bytes = MutableBuffer::from_len_zeroed(layout.bytes());
    layout.write(&mut bytes).expect("the plan gave its size");
    bytes.into()
}

/// As its documentation reads a file.
fn plain(bytes: &Buffer) -> Vec<RecordBatch> {
    let end = bytes.len() - 10;
    let footer_bytes = read_footer_length(bytes[end..].try_into().expect("ten bytes")).expect("it is a file");
    let footer = arrow_ipc::root_as_footer(&bytes[end - footer_bytes..end]).expect("it is a footer");
    let schema = try_fb_to_schema(footer.schema().expect("there is a schema")).expect("it is valid");
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let part = |block: &arrow_ipc::Block| {
        bytes.slice_with_length(block.offset() as usize, block.metaDataLength() as usize + block.bodyLength() as usize)
    };
    for block in footer.dictionaries().into_iter().flatten() {
        decoder.read_dictionary(block, &part(block)).expect("it is valid");
    }
    let blocks = footer.recordBatches().into_iter().flatten();
    blocks
        .map(|block| decoder.read_record_batch(block, &part(block)).expect("it is valid").expect("it is a batch"))
        .collect()
}

fn get(criterion: &mut Criterion) {
    for (kind, make) in KINDS {
        let mut group = criterion.benchmark_group(kind);
        for (columns, batches) in SHAPES {
            let bytes = file(make, columns, batches, "column");
            assert_eq!(decode(bytes.clone(), true).expect("it is valid").batches, plain(&bytes));
            let shape = format!("{columns} x {batches}");
            group.bench_function(BenchmarkId::new("ours", &shape), |bencher| {
                bencher.iter(|| black_box(decode(bytes.clone(), true).expect("it is valid")));
            });
            let unknown: Vec<Buffer> =
                (0..SCHEMAS).map(|number| file(make, columns, batches, &format!("{number} column"))).collect();
            let mut next = unknown.iter().cycle();
            group.bench_function(BenchmarkId::new("ours, new schema", &shape), |bencher| {
                bencher.iter(|| {
                    let bytes = next.next().expect("it is a cycle").clone();
                    black_box(decode(bytes, true).expect("it is valid"))
                });
            });
            group.bench_function(BenchmarkId::new("arrow-ipc", &shape), |bencher| {
                bencher.iter(|| black_box(plain(&bytes)));
            });
        }
    }
}

criterion_group!(benches, get);
criterion_main!(benches);
