//! Arrow tables as objects: in place, aligned, read-only, checked once.
//!
//! The one thing to know: what the encoding itself can do is tested beside its code; here it is what
//! becomes of it in shared memory.

use crate::common::{MIB, check_nothing_is_left, small, under};
use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use store::arrow::{BatchPlan, BuildError};
use store::{BuildBatchError, CreateOptions, Encoding, GetError, Object, ObjectRef, Store};
use tests::Unboxed;
use tests::chance::Chance;
use tests::world::id_of;

fn schema() -> SchemaRef {
    let metadata = HashMap::from([("ARROW:extension:name".to_owned(), "raylet.point".to_owned())]);
    let fields = vec![
        Field::new("number", DataType::Int64, false).with_metadata(metadata),
        Field::new("text", DataType::Utf8, true),
        Field::new("words", DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))), true),
        Field::new("kind", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), true),
    ];
    let of_table = HashMap::from([("made by".to_owned(), "a test".to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, of_table))
}

/// Rows whose columns are plain, of variable length, nested and dictionary-encoded.
fn batch(rows: usize) -> RecordBatch {
    let numbers = Int64Array::from_iter_values((0..rows as i64).map(|row| row * row));
    let texts: StringArray = (0..rows).map(|row| (row % 3 != 0).then(|| format!("row {row}"))).collect();
    let mut words = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        (0..row % 4).for_each(|word| words.values().append_value(word.to_string()));
        words.append(row % 5 != 0);
    }
    let kinds: DictionaryArray<Int32Type> = (0..rows).map(|row| Some(["red", "green", "blue"][row % 3])).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts), Arc::new(words.finish()), Arc::new(kinds)];
    RecordBatch::try_new(schema(), columns).expect("the columns fit the schema")
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

/// Whether this process could write to an address.
fn is_writable(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process can read its own maps");
    let number = |text: &str| usize::from_str_radix(text, 16).expect("an address is hexadecimal");
    let mut lines = maps.lines().map(|line| line.split_once(' ').expect("range, then the rest"));
    let line = lines.find(|(range, _)| {
        let (start, end) = range.split_once('-').expect("start-end");
        (number(start)..number(end)).contains(&address)
    });
    line.expect("the address is mapped").1.starts_with("rw")
}

fn check_in_place(data: &arrow_array::ArrayRef, object: &Range<usize>) -> usize {
    fn count(data: &arrow_data::ArrayData, object: &Range<usize>) -> usize {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let buffers = data.buffers().iter().chain(nulls).filter(|buffer| !buffer.is_empty());
        let own = buffers.map(|buffer| {
            let start = buffer.as_ptr() as usize;
            assert!(object.contains(&start) && start + buffer.len() <= object.end, "a buffer was copied");
            assert_eq!(start % 64, 0, "a buffer is not aligned");
            1
        });
        own.sum::<usize>() + data.child_data().iter().map(|child| count(child, object)).sum::<usize>()
    }
    count(&data.to_data(), object)
}

#[test]
fn a_table_is_read_where_it_was_written() {
    let store = small(4 * MIB);
    let batches = [batch(100), batch(0), batch(1000)];
    let object = store.put_table(&schema(), &batches, &under(id_of(1))).expect("there is room");
    let bytes = store.get(&object).expect("it is sealed");
    assert_eq!(bytes.encoding(), Encoding::Arrow);
    let place = addresses(&bytes);
    let table = store.get_table(&object).expect("we wrote it");
    assert_eq!(table.schema, schema(), "names, types, metadata of table and fields");
    assert_eq!(table.batches, batches);
    let columns = table.batches.iter().flat_map(RecordBatch::columns);
    assert!(columns.map(|column| check_in_place(column, &place)).sum::<usize>() > 20);
    assert_eq!(place.start % 64, 0);
    assert!(!is_writable(place.start) && !is_writable(place.end - 1), "a stray write would hit the object");
}

#[test]
fn a_batch_is_put_and_got() {
    let store = small(4 * MIB);
    for rows in [0, 1, 10_000] {
        let object = store.put_batch(&batch(rows)).expect("there is room");
        assert_eq!(store.get_table(&object).expect("we wrote it").batches, [batch(rows)]);
    }
    let none = store.put_table(&schema(), &[], &CreateOptions::default()).expect("there is room");
    let table = store.get_table(&none).expect("we wrote it");
    assert_eq!((table.schema, table.batches.len()), (schema(), 0));
    drop(none);
    check_nothing_is_left(&store);
}

#[test]
fn the_buffers_of_a_table_keep_its_object() {
    let store = small(4 * MIB);
    let object = store.put_table(&schema(), &[batch(50)], &under(id_of(1))).expect("there is room");
    let table = store.get_table(&object).expect("we wrote it");
    drop(object);
    let column = table.batches[0].column(1).clone();
    drop(table);
    assert!(store.contains(&id_of(1)), "a column is left");
    assert_eq!(&column, batch(50).column(1));
    drop(column);
    assert!(!store.contains(&id_of(1)));
    check_nothing_is_left(&store);
}

#[test]
fn bytes_own_the_pin() {
    let store = small(4 * MIB);
    let object = store.put_with(b"0123456789", &under(id_of(1))).expect("there is room");
    let place = addresses(&store.get(&object).expect("it is sealed"));
    let bytes = store.get(&object).expect("it is sealed").into_bytes();
    drop(object);
    let part: bytes::Bytes = bytes.slice(3..6);
    drop(bytes);
    assert!(store.contains(&id_of(1)), "a part is left");
    assert!(&part[..] == b"345" && place.contains(&(part.as_ptr() as usize)), "it was copied");
    let moved = std::thread::spawn(move || drop(part));
    moved.join().expect("bytes may end in any thread");
    assert!(!store.contains(&id_of(1)));
    check_nothing_is_left(&store);
}

/// What another Arrow implementation writes.
fn foreign_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut file, &schema()).expect("a schema can be written");
    batches.iter().for_each(|batch| writer.write(batch).expect("a batch can be written"));
    writer.finish().expect("a file can be finished");
    drop(writer);
    file
}

fn put_arrow(store: &Store, bytes: &[u8]) -> ObjectRef {
    let options = CreateOptions { encoding: Encoding::Arrow, ..CreateOptions::default() };
    store.put_with(bytes, &options).expect("there is room")
}

#[test]
fn what_others_wrote_is_checked_by_its_first_reader_alone() {
    let store = small(4 * MIB);
    let object = put_arrow(&store, &foreign_file(&[batch(10), batch(20)]));
    assert!(!store.is_validated(&object), "nobody has checked it");
    assert_eq!(store.get_table(&object).expect("it is valid").batches, [batch(10), batch(20)]);
    assert!(store.is_validated(&object), "the next reader would check it again");
    assert_eq!(store.get_table(&object).expect("it is valid").batches, [batch(10), batch(20)]);
    let ours = store.put_batch(&batch(10)).expect("there is room");
    assert!(store.is_validated(&ours), "we know what we wrote");
}

#[test]
fn hostile_bytes_are_a_typed_error_and_stay_readable_as_bytes() {
    let seed = Chance::seed_or(17);
    println!("seed {seed}");
    let (store, mut chance) = (small(4 * MIB), Chance::new(seed));
    let valid = foreign_file(&[batch(30)]);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = valid.clone();
        match chance.below(3) {
            0 => bytes.truncate(chance.below(bytes.len() as u64) as usize),
            1 => bytes = (0..chance.below(500)).map(|_| chance.next_u64() as u8).collect(),
            _ => (0..1 + chance.below(8)).for_each(|_| {
                let at = chance.below(bytes.len() as u64) as usize;
                bytes[at] = chance.next_u64() as u8;
            }),
        }
        let object = put_arrow(&store, &bytes);
        match store.get_table(&object).unboxed() {
            Ok(_) => {}
            Err(GetError::Decode { id, .. }) if id == object.id() => {
                assert!(!store.is_validated(&object));
                refused += 1;
            }
            Err(error) => panic!("no such error: {error}"),
        }
        assert!(*store.view(&object).expect("it is sealed") == *bytes, "its bytes changed");
    }
    assert!(refused > 2000, "only {refused} of 3000 were refused");
    check_nothing_is_left(&store);
}

#[test]
fn what_is_no_table_is_not_taken_for_one() {
    let store = small(4 * MIB);
    let object = store.put(&foreign_file(&[batch(1)])).expect("there is room");
    let error = store.get_table(&object).unboxed().err();
    assert!(
        matches!(error, Some(GetError::WrongEncoding { id, found: Encoding::Raw }) if id == object.id()),
        "{error:?}"
    );
}

fn plan(rows: usize) -> BatchPlan {
    let fields = vec![Field::new("x", DataType::Float64, false), Field::new("name", DataType::Utf8, false)];
    let plan = BatchPlan::new(Arc::new(Schema::new(fields)), rows).expect("flat types can be planned");
    plan.value_bytes(1, 4 * rows).expect("the second column has values")
}

#[test]
fn a_batch_is_built_where_it_stays() {
    let store = small(4 * MIB);
    let object = store.create_batch(plan(1000), &under(id_of(1)), |builder| {
        for (row, value) in builder.primitive::<arrow_array::types::Float64Type>(0)?.iter_mut().enumerate() {
            *value = row as f64 / 2.0;
        }
        (0..1000).try_for_each(|row| builder.column(1)?.append_str(&format!("{row}")))
    });
    let object = object.expect("the columns fit the plan");
    let place = addresses(&store.get(&object).expect("it is sealed"));
    let table = store.get_table(&object).expect("we wrote it");
    let built = &table.batches[0];
    assert_eq!(
        built.column(0).as_ref(),
        &Float64Array::from_iter_values((0..1000).map(|row| f64::from(row) / 2.0)) as &dyn Array
    );
    assert_eq!(
        built.column(1).as_ref(),
        &StringArray::from_iter_values((0..1000).map(|row| row.to_string())) as &dyn Array
    );
    built.columns().iter().for_each(|column| assert!(check_in_place(column, &place) > 0));
}

#[test]
fn a_batch_that_does_not_become_what_was_planned_leaves_nothing() {
    let store = small(4 * MIB);
    let unfilled = store.create_batch(plan(10), &under(id_of(1)), |_| Ok(())).err();
    assert!(
        matches!(
            unfilled,
            Some(BuildBatchError::Build(BuildError::NotWritten { .. } | BuildError::TooFewValues { .. }))
        ),
        "{unfilled:?}"
    );
    let overfull = store.create_batch(plan(10), &under(id_of(1)), |builder| {
        (0..100).try_for_each(|_| builder.column(1)?.append_str("more"))
    });
    assert!(matches!(overfull, Err(BuildBatchError::Build(_))), "{overfull:?}");
    assert!(!store.contains(&id_of(1)));
    check_nothing_is_left(&store);
}

const READ_WITH_PYARROW: &str = "
import sys, pyarrow as pa
table = pa.ipc.open_file(pa.memory_map(sys.argv[1])).read_all()
table.validate(full=True)
rows = table.num_rows
assert rows == 130, rows
assert table.column('number').to_pylist() == [i * i for i in range(100)] + [i * i for i in range(30)]
texts = lambda n: [None if i % 3 == 0 else f'row {i}' for i in range(n)]
assert table.column('text').to_pylist() == texts(100) + texts(30)
words = lambda n: [None if i % 5 == 0 else [str(w) for w in range(i % 4)] for i in range(n)]
assert table.column('words').to_pylist() == words(100) + words(30), table.column('words')
kinds = lambda n: [['red', 'green', 'blue'][i % 3] for i in range(n)]
assert table.column('kind').to_pylist() == kinds(100) + kinds(30)
assert table.schema.metadata == {b'made by': b'a test'}
with pa.OSFile(sys.argv[2], 'wb') as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
print(pa.__version__)
";

/// A Python that has pyarrow: the usual one, or one of those that the benches set up.
fn python_with_pyarrow() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv-bench");
    let benches = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python"));
    let mut pythons = std::iter::once(PathBuf::from("python3")).chain(benches);
    pythons.find(|python| {
        Command::new(python).args(["-c", "import pyarrow"]).output().is_ok_and(|output| output.status.success())
    })
}

#[test]
fn pyarrow_reads_what_we_write_and_we_what_pyarrow_writes() {
    let Some(python) = python_with_pyarrow() else {
        eprintln!("skipped: no Python here has pyarrow");
        return;
    };
    let store = small(4 * MIB);
    let batches = [batch(100), batch(30)];
    let object = store.put_table(&schema(), &batches, &CreateOptions::default()).expect("there is room");
    let files = tempfile::tempdir().expect("a test has a directory for temporary files");
    let (ours, theirs) = (files.path().join("ours.arrow"), files.path().join("theirs.arrow"));
    let bytes: Object = store.get(&object).expect("it is sealed");
    std::fs::write(&ours, &*bytes).expect("there is room on disk");
    let output =
        Command::new(python).args(["-c", READ_WITH_PYARROW]).args([&ours, &theirs]).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("pyarrow {}", String::from_utf8_lossy(&output.stdout).trim());
    let back = put_arrow(&store, &std::fs::read(&theirs).expect("pyarrow wrote it"));
    let table = store.get_table(&back).expect("pyarrow writes valid files");
    assert_eq!(table.schema, schema());
    let rows: Vec<i64> = table
        .batches
        .iter()
        .flat_map(|batch| {
            let numbers = batch.column(0).as_any().downcast_ref::<Int64Array>().expect("the schema says so");
            numbers.values().to_vec()
        })
        .collect();
    assert!(rows.into_iter().eq((0..100).chain(0..30).map(|row: i64| row * row)));
}
