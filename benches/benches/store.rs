//! The store's operations one by one, in one process, beside the atomics that bound them.
//!
//! The one thing to know: this is for detail, for instance before and after a change; what is
//! promised is measured beside the peers by `make bench-store`. Objects are dropped outside the
//! timed part, by batches.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Config, CreateOptions, ObjectRef, Store};

const CAPACITY_BYTES: u64 = 1 << 30;
const SIZES: [usize; 4] = [100, 4 << 10, 64 << 10, 1 << 20];

fn store() -> Store {
    let config = Config { capacity_bytes: CAPACITY_BYTES, ..Config::default() };
    Store::in_process(config).expect("a store of a gibibyte can be made")
}

fn by_handle() -> CreateOptions<'static> {
    CreateOptions { by_handle_only: true, ..CreateOptions::default() }
}

fn limits(criterion: &mut Criterion) {
    let word = AtomicU64::new(0);
    criterion.bench_function("limit/rmw pair", |bencher| {
        bencher.iter(|| {
            black_box(word.fetch_add(1, Ordering::SeqCst));
            black_box(word.fetch_sub(1, Ordering::SeqCst))
        });
    });
}

fn gets(criterion: &mut Criterion) {
    let store = store();
    let object = store.put(&[7; 100]).expect("there is room");
    let id = object.id();
    let mut group = criterion.benchmark_group("get and release");
    group.bench_function("view by handle", |bencher| {
        bencher.iter(|| black_box(store.view(&object).expect("it is held")[0]));
    });
    group.bench_function("view by id", |bencher| {
        bencher.iter(|| black_box(store.view_by_id(&id).expect("it is there")[0]));
    });
    group.bench_function("owned", |bencher| bencher.iter(|| store.get(&object).expect("it is held")));
    group.bench_function("clone a reference", |bencher| bencher.iter(|| object.clone()));
}

fn puts(criterion: &mut Criterion) {
    let store = store();
    let mut group = criterion.benchmark_group("put");
    for size in SIZES {
        let source = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, options) in [("by id", CreateOptions::default()), ("by handle", by_handle())] {
            group.bench_with_input(BenchmarkId::new(name, size), &source, |bencher, source| {
                let put = |()| store.put_with(source, &options).expect("there is room");
                bencher.iter_batched(|| (), put, BatchSize::NumIterations(64));
            });
        }
    }
}

fn lives(criterion: &mut Criterion) {
    let store = store();
    let options = CreateOptions::default();
    let mut group = criterion.benchmark_group("whole life");
    group.bench_function("put and free", |bencher| {
        bencher.iter(|| drop(store.put(&[7; 100]).expect("there is room")));
    });
    group.bench_function("put and free by handle", |bencher| {
        bencher.iter(|| drop(store.put_with(&[7; 100], &by_handle()).expect("there is room")));
    });
    group.bench_function("promise, put for it, free", |bencher| {
        bencher.iter(|| {
            let promise = store.promise_by_handle(None).expect("there is room");
            store.put_for(promise.handle(), &[7; 8], &options).expect("there is room")
        });
    });
    let children: Vec<ObjectRef> = (0..3).map(|_| store.put(&[7; 100]).expect("there is room")).collect();
    group.bench_function("container of three", |bencher| {
        let options = CreateOptions { references: &children, ..by_handle() };
        bencher.iter(|| drop(store.put_with(&[7; 8], &options).expect("there is room")));
    });
}

fn waits(criterion: &mut Criterion) {
    let store = store();
    let mut group = criterion.benchmark_group("wait for all that stand");
    for count in [1, 100, 10_000] {
        let objects: Vec<ObjectRef> = (0..count).map(|_| store.put(&[7; 8]).expect("there is room")).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &objects, |bencher, objects| {
            bencher.iter(|| store.wait(objects, objects.len(), Duration::from_secs(1)).expect("all stand"));
        });
    }
}

criterion_group!(benches, limits, gets, puts, lives, waits);
criterion_main!(benches);
