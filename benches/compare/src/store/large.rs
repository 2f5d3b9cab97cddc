//! Large objects: puts into warm, fresh and ever fresher memory; a table got and read.
//!
//! The one thing to know: large puts are not pinned, because the store prepares memory with a thread
//! of its own and a user's process is not pinned either.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use store::{CreateOptions, ObjectRef, Store};

use super::new_store;
use super::talk::Partner;
use crate::child::unpinned;
use crate::error::BenchError;
use crate::plan::Setting;
use crate::run::{Bench, Boxed};
use crate::stats::time_each;
use crate::store::work::{LARGE_BYTES, MIB, TABLE_BATCH_ROWS, TABLE_BATCHES, TABLE_COLUMNS};

/// Has a reserve of two large objects: a tenth of it.
const FRESH_CAPACITY_BYTES: u64 = 2 << 30;
/// Room for what the sustained row puts, all of it alive.
const SUSTAINED_CAPACITY_BYTES: u64 = 6 << 30;
/// Large puts of one sustained round.
const SUSTAINED_PUTS: usize = 40;
/// How long preparing memory may take.
const SETTLE: Duration = Duration::from_secs(30);
/// Bytes of the table's values.
const TABLE_BYTES: f64 = (TABLE_COLUMNS * TABLE_BATCHES * TABLE_BATCH_ROWS * 8) as f64;

/// Objects of one size that come and go, at most so many alive.
struct Rotation {
    store: Store,
    source: Rc<[u8]>,
    bytes: usize,
    places: usize,
    alive: VecDeque<ObjectRef>,
}

impl Rotation {
    /// Gigabytes a second of one put; what goes for it goes untimed.
    fn put(&mut self) -> Result<f64, BenchError> {
        if self.alive.len() == self.places {
            self.alive.pop_front();
        }
        let start = Instant::now();
        let object = self.store.put(&self.source[..self.bytes]);
        let nanos = start.elapsed().as_nanos() as f64;
        self.alive.push_back(object.map_err(BenchError::store("put"))?);
        Ok(self.bytes as f64 / nanos)
    }
}

/// Puts into memory that puts have used before.
pub(super) fn put_warm(bytes: usize, places: usize, count: usize, bench: &Bench) -> Result<Boxed, BenchError> {
    let mut rotation = Rotation {
        store: new_store(FRESH_CAPACITY_BYTES)?,
        source: bench.source(),
        bytes,
        places,
        alive: VecDeque::new(),
    };
    for _ in 0..2 * places {
        rotation.put()?;
    }
    settle(&rotation.store)?;
    let count = bench.effort.count(count);
    // A put of a mebibyte is one thread's work: it is pinned as its peer is, and keeps its cache.
    let is_alone = bytes < LARGE_BYTES;
    Ok(Box::new(move || {
        let mut puts = || (0..count).map(|_| rotation.put()).collect();
        if is_alone { puts() } else { unpinned(puts) }
    }))
}

fn settle(store: &Store) -> Result<(), BenchError> {
    let waited_ms = SETTLE.as_millis() as u64;
    store.settle(SETTLE).then_some(()).ok_or(BenchError::Silent { waited_ms })
}

/// A store in which one put of 1 MiB has had the reserve filled.
fn fresh_store(capacity_bytes: u64, source: &[u8]) -> Result<(Store, ObjectRef), BenchError> {
    let store = new_store(capacity_bytes)?;
    let first = store.put(&source[..MIB]).map_err(BenchError::store("put"))?;
    settle(&store)?;
    Ok((store, first))
}

/// One put of 100 MiB into each of some fresh stores.
pub(super) fn put_untouched(bench: &Bench) -> Result<Boxed, BenchError> {
    let source = bench.source();
    let count = bench.effort.count(4);
    Ok(Box::new(move || {
        let put = || unpinned(|| large_puts(FRESH_CAPACITY_BYTES, 1, &source));
        (0..count).map(|_| Ok(put()?[0])).collect()
    }))
}

/// Puts that all stay, counted from where the reserve has been used up twice over.
pub(super) fn put_sustained(bench: &Bench) -> Result<Boxed, BenchError> {
    let source = bench.source();
    let count = bench.effort.count(SUSTAINED_PUTS).max(12);
    Ok(Box::new(move || {
        let rates = unpinned(|| large_puts(SUSTAINED_CAPACITY_BYTES, count, &source))?;
        let reserve = SUSTAINED_CAPACITY_BYTES as usize / 10;
        Ok(rates[(2 * reserve / LARGE_BYTES).min(count - 1)..].to_vec())
    }))
}

/// Gigabytes a second of each of some large puts into one fresh store, all kept alive.
fn large_puts(capacity_bytes: u64, count: usize, source: &Rc<[u8]>) -> Result<Vec<f64>, BenchError> {
    let (store, first) = fresh_store(capacity_bytes, source)?;
    let mut rotation = Rotation {
        store,
        source: Rc::clone(source),
        bytes: LARGE_BYTES,
        places: usize::MAX,
        alive: VecDeque::from([first]),
    };
    (0..count).map(|_| rotation.put()).collect()
}

/// A store with the table in it.
fn table_store() -> Result<(Store, ObjectRef), BenchError> {
    let store = new_store(FRESH_CAPACITY_BYTES)?;
    let names: Vec<String> = (0..TABLE_COLUMNS).map(|index| format!("c{index}")).collect();
    let fields = names.iter().map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=TABLE_BATCH_ROWS as i64));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column; TABLE_COLUMNS])
        .expect("eight columns of one length fit eight fields");
    let batches = vec![batch; TABLE_BATCHES];
    let table = store.put_table(&schema, &batches, &CreateOptions::default());
    Ok((store, table.map_err(BenchError::store("put a table"))?))
}

/// Gets of the table by the process that put it: decoded, one value read, let go.
pub(super) fn get_table(bench: &Bench) -> Result<Boxed, BenchError> {
    let (store, object) = table_store()?;
    let count = bench.effort.count(200);
    Ok(Box::new(move || {
        time_each(count, || {
            let table = store.get_table(&object);
            let table = table.map_err(BenchError::store("get a table"))?;
            let column = table.batches[0].column(0).as_primitive::<Int64Type>();
            check_value(column.value(0).cast_unsigned(), 1)
        })
    }))
}

fn check_value(found: u64, expected: u64) -> Result<(), BenchError> {
    (found == expected).then_some(()).ok_or(BenchError::WrongBytes { expected, found })
}

/// All bytes summed by a process that joins for it; its first pass, or its second.
pub(super) fn full_read(setting: Setting) -> Result<Boxed, BenchError> {
    let (store, object) = table_store()?;
    let objects = [object];
    Ok(Box::new(move || {
        let mut reader = Partner::start("sum", &store)?;
        reader.talk.tell_objects(&objects)?;
        let [first, second, sum] = reader.talk.hear()?;
        let rows = TABLE_BATCH_ROWS as u64;
        let columns = (TABLE_COLUMNS * TABLE_BATCHES) as u64;
        check_value(sum, columns * (rows * (rows + 1) / 2))?;
        let nanos = match setting {
            Setting::Measured => first,
            Setting::Baseline => second,
        };
        Ok(vec![TABLE_BYTES / nanos as f64])
    }))
}
