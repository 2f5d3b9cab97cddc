//! The store's operations one by one, in one process, beside the atomics that bound them.
//!
//! The one thing to know: this is for detail, for instance before and after a change; what is
//! promised is measured beside the peers by `make bench-store`. Objects are dropped outside the
//! timed part, by batches.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use store::{Config, CreateOptions, Handle, Keeping, ObjectId, ObjectRef, Store};
use store_shm::liveness::ProcessId;

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

/// Results of tasks: the caller promises, a worker puts, the caller looks and frees. Each number is one
/// step of one object, among `BATCH` under way.
const BATCH: u64 = 256;

/// Two clients of one store, as two processes have it: each with its own number and mappings.
fn caller_and_worker() -> (Store, Store) {
    let caller = store();
    let client = caller.admit(ProcessId::current(), "worker").expect("there are numbers");
    let config = Config { keeping: Keeping::Daemon, ..Config::default() };
    let worker = Store::attach(caller.segments().expect("descriptors"), client, config).expect("it is admitted");
    (caller, worker)
}

/// What the worker does for each call.
fn put_results(worker: &Store, promises: &[Handle]) {
    let options = CreateOptions::default();
    for &promise in promises {
        drop(worker.put_for(promise, &[7; 8], &options).expect("there is room"));
    }
}

/// Time that each of the three steps took for `count` objects, with `put` for the second.
fn steps(caller: &Store, count: u64, mut put: impl FnMut(&[Handle]) -> Duration) -> [Duration; 3] {
    let task = [3; 24];
    let mut spent = [Duration::ZERO; 3];
    let (mut objects, mut handles) = (Vec::with_capacity(BATCH as usize), Vec::with_capacity(BATCH as usize));
    for _ in 0..count.div_ceil(BATCH) {
        let start = Instant::now();
        for number in 0..BATCH as u32 {
            let id = ObjectId::of_task(task, number);
            objects.push(caller.promise_by_handle(Some(&id)).expect("there is room"));
        }
        spent[0] += start.elapsed();
        handles.extend(objects.iter().map(ObjectRef::handle));
        spent[1] += put(&handles);
        handles.clear();
        let start = Instant::now();
        for object in objects.drain(..) {
            black_box(caller.view(&object).expect("it is sealed")[0]);
        }
        spent[2] += start.elapsed();
    }
    spent.map(|spent| spent.mul_f64(count as f64 / count.next_multiple_of(BATCH) as f64))
}

fn task_results(criterion: &mut Criterion) {
    let (caller, worker) = caller_and_worker();
    let mut group = criterion.benchmark_group("task result");
    const STEPS: [&str; 3] = ["promise", "put for it", "view and free"];
    for (step, name) in STEPS.into_iter().enumerate() {
        group.bench_function(format!("{name}, one core"), |bencher| {
            bencher.iter_custom(|count| {
                let put = |promises: &[Handle]| {
                    let start = Instant::now();
                    put_results(&worker, promises);
                    start.elapsed()
                };
                steps(&caller, count, put)[step]
            });
        });
    }
    let (to_worker, calls) = mpsc::sync_channel::<Vec<Handle>>(1);
    let (to_caller, ends) = mpsc::sync_channel::<Duration>(1);
    let worker = &worker;
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(promises) = spun(&calls) {
                let start = Instant::now();
                put_results(worker, &promises);
                to_caller.send(start.elapsed()).expect("the caller waits for it");
            }
        });
        for (step, name) in STEPS.into_iter().enumerate() {
            group.bench_function(format!("{name}, two cores"), |bencher| {
                bencher.iter_custom(|count| {
                    let put = |promises: &[Handle]| {
                        to_worker.send(promises.to_vec()).expect("the worker waits for it");
                        spun(&ends).expect("the worker answers")
                    };
                    steps(&caller, count, put)[step]
                });
            });
        }
        drop(to_worker);
    });
}

/// The next message, without sleeping for it; `None` once nobody sends any.
fn spun<T>(receiver: &mpsc::Receiver<T>) -> Option<T> {
    loop {
        match receiver.try_recv() {
            Ok(message) => return Some(message),
            Err(mpsc::TryRecvError::Empty) => std::hint::spin_loop(),
            Err(mpsc::TryRecvError::Disconnected) => return None,
        }
    }
}

criterion_group!(benches, limits, gets, puts, lives, waits, task_results);
criterion_main!(benches);
