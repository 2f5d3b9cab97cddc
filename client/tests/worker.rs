//! What workers do, on a real raylet: streams, actors of several calls at once, ends, GPUs.
//!
//! The one thing to know: each program runs in local mode and on both transports, unless it is about
//! processes. Nothing sleeps; waiting has a bound that only a hang reaches.

use arrow_array::{Int64Array, RecordBatch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::exit_actor;
use raylet_client::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Only a hang lasts longer.
const LONG: Duration = Duration::from_secs(60);

fn config(transport: Transport) -> Config {
    Config {
        address: Some("local".to_owned()),
        transport: Some(transport),
        capacity_bytes: 64 << 20,
        num_cpus: Some(2.0),
        num_gpus: Some(2.0),
        ..Config::default()
    }
}

/// On both transports.
fn remotely(program: fn(&Raylet)) {
    for transport in [Transport::Direct, Transport::Raylet] {
        program(&Raylet::init(config(transport)).unwrap());
    }
}

/// On both transports and in local mode.
fn everywhere(program: fn(&Raylet)) {
    program(&Raylet::init(Config { mode: Mode::Local, capacity_bytes: 64 << 20, ..Config::default() }).unwrap());
    remotely(program);
}

#[remote(stream)]
fn squares(end: u64) -> impl Iterator<Item = u64> {
    (0..end).map(|x| x * x)
}

#[remote(stream, ahead = 4)]
fn counted(ray: &Raylet, counter: ActorHandle<Counter>, end: u64) -> impl Iterator<Item = u64> {
    (0..end).map(move |_| ray.get(&counter.add(1).unwrap()).unwrap())
}

#[remote(stream)]
fn odd_ones_fail(end: u64) -> impl Iterator<Item = Result<u64>> {
    (0..end).map(|x| if x == 3 { Err(format!("{x} is too many").into()) } else { Ok(x) })
}

#[remote(stream)]
fn begins(end: u64) -> Result<impl Iterator<Item = u64>> {
    if end == 0 { Err("nothing to begin with".into()) } else { Ok(0..end) }
}

#[remote(stream)]
fn panics_at(end: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |x| if x == end { panic!("no {x}") } else { x })
}

#[remote(stream)]
fn batches(count: i64) -> impl Iterator<Item = RecordBatch> {
    (0..count).map(|x| {
        let column: arrow_array::ArrayRef = Arc::new(Int64Array::from(vec![x; 100]));
        RecordBatch::try_from_iter([("x", column)]).unwrap()
    })
}

#[remote(stream)]
fn tasks(ray: &Raylet, count: u64) -> impl Iterator<Item = ObjectRef<u64>> {
    (0..count).map(|x| double::remote(ray, x).unwrap())
}

/// Its first worker is killed before the sixth item.
#[remote(stream)]
fn dies_once(ray: &Raylet, counter: ActorHandle<Counter>, end: u64) -> impl Iterator<Item = u64> {
    (0..end).inspect(move |x| {
        if *x == 5 && ray.get(&counter.add(1).unwrap()).unwrap() == 1 {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    })
}

#[remote]
fn double(x: u64) -> u64 {
    x * 2
}

struct Counter(u64);

#[remote]
impl Counter {
    fn new() -> Counter {
        Counter(0)
    }

    fn add(&mut self, n: u64) -> u64 {
        self.0 += n;
        self.0
    }

    #[remote(stream)]
    fn count_to(&mut self, end: u64) -> impl Iterator<Item = u64> {
        (0..end).map(|_| {
            self.0 += 1;
            self.0
        })
    }

    fn leave(&mut self) -> u64 {
        assert!(exit_actor());
        self.0
    }
}

fn values<T: Value>(ray: &Raylet, stream: RefStream<T>) -> Vec<T> {
    stream.map(|item| ray.get(&item).unwrap()).collect()
}

#[test]
fn items_come_in_order_and_end() {
    everywhere(|ray| {
        for end in [0, 1, 100] {
            let expected: Vec<u64> = (0..end).map(|x| x * x).collect();
            assert_eq!(values(ray, squares::remote(ray, end).unwrap()), expected);
        }
        assert_eq!(values(ray, begins::remote(ray, 3).unwrap()), [0, 1, 2]);
        let batches = values(ray, batches::remote(ray, 5).unwrap());
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 500);
        let doubled = values(ray, tasks::remote(ray, 4).unwrap());
        assert_eq!(ray.get_all(&doubled).unwrap(), [0, 2, 4, 6]);
    });
}

#[test]
fn an_error_is_the_last_item() {
    everywhere(|ray| {
        let check = |stream: RefStream<u64>, before: &[u64], text: &str| {
            let items: Vec<_> = stream.collect();
            let (error, good) = items.split_last().unwrap();
            assert_eq!(ray.get_all(good).unwrap(), before);
            let error = ray.get(error).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        check(odd_ones_fail::remote(ray, 10).unwrap(), &[0, 1, 2], "3 is too many");
        check(begins::remote(ray, 0).unwrap(), &[], "nothing to begin with");
        check(panics_at::remote(ray, 2).unwrap(), &[0, 1], "no 2");
        let failed: ObjectRef<u64> = double::remote(ray, panics_at::remote(ray, 0).unwrap().next().unwrap()).unwrap();
        check(squares::remote(ray, &failed).unwrap(), &[], "no 0");
    });
}

#[test]
fn a_method_streams_from_its_state() {
    everywhere(|ray| {
        let counter = Counter::remote(ray).unwrap();
        counter.add(10).unwrap();
        let stream = counter.count_to(3).unwrap();
        assert_eq!(values(ray, stream), [11, 12, 13]);
        assert_eq!(ray.get(&counter.add(0).unwrap()).unwrap(), 13);
    });
}

#[test]
fn a_stream_runs_only_so_far_ahead_of_its_reader() {
    remotely(|ray| {
        let counter = Counter::options(Options::new().num_cpus(0)).remote(ray).unwrap();
        let mut stream = counted::remote(ray, &counter, 100).unwrap();
        for read in 1..=100 {
            assert_eq!(ray.get(&stream.next().unwrap()).unwrap(), read);
            let made = ray.get(&counter.add(0).unwrap()).unwrap();
            assert!(made <= read + 4 + 1, "{made} were made when {read} were read");
        }
        assert!(stream.next().is_none());
    });
}

#[test]
fn a_stream_goes_on_where_its_dead_worker_was_or_ends_with_the_reason() {
    remotely(|ray| {
        let counter = || Counter::options(Options::new().num_cpus(0)).remote(ray).unwrap();
        let patient = dies_once::options(Options::new().max_retries(1));
        assert_eq!(values(ray, patient.remote(ray, counter(), 10).unwrap()), (0..10).collect::<Vec<_>>());
        // Nothing is read before the worker is dead: half of it waits, and is not made again.
        let mut unread = patient.remote(ray, counter(), 40).unwrap();
        let first = unread.next().unwrap();
        let second = ray.get(&unread.nth(20).unwrap()).unwrap();
        assert_eq!((ray.get(&first).unwrap(), second), (0, 21));
        let impatient = dies_once::options(Options::new().max_retries(0));
        let items: Vec<_> = impatient.remote(ray, counter(), 10).unwrap().collect();
        let (error, good) = items.split_last().unwrap();
        assert_eq!(ray.get_all(good).unwrap(), [0, 1, 2, 3, 4]);
        let FetchError::Task(error) = ray.get(error).unwrap_err() else { panic!("an error of the task") };
        assert_eq!(error.kind(), TaskErrorKind::WorkerCrashed, "{error}");
    });
}

#[test]
fn a_stream_that_nobody_reads_on_ends() {
    remotely(|ray| {
        let endless = panics_at::remote(ray, u64::MAX).unwrap();
        let begun: Vec<_> = endless.take(3).map(|item| ray.get(&item).unwrap()).collect();
        assert_eq!(begun, [0, 1, 2]);
        // All CPUs: its worker has to be free again.
        let all = double::options(Options::new().num_cpus(2)).remote(ray, 4).unwrap();
        assert_eq!(ray.get_timeout(&all, LONG).unwrap(), 8);
    });
}

#[test]
fn a_stream_can_be_awaited_and_timed() {
    everywhere(|ray| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = squares::remote(ray, 3).unwrap();
        let read = runtime.block_on(async {
            let mut read = Vec::new();
            while let Some(item) = stream.next_async().await {
                read.push(item.await.unwrap());
            }
            read
        });
        assert_eq!(read, [0, 1, 4]);
        let mut stream = squares::remote(ray, 1).unwrap();
        assert_eq!(ray.get(&stream.next_timeout(LONG).unwrap().unwrap()).unwrap(), 0);
        assert!(stream.next_timeout(LONG).unwrap().is_none());
    });
}

#[test]
fn an_actor_that_leaves_is_dead_for_good() {
    everywhere(|ray| {
        let counter = Counter::options(Options::new().max_restarts(5)).remote(ray).unwrap();
        counter.add(7).unwrap();
        assert_eq!(ray.get(&counter.leave().unwrap()).unwrap(), 7);
        let late = ray.get(&counter.add(1).unwrap());
        let FetchError::Task(error) = late.unwrap_err() else { panic!("an error of the call") };
        assert_eq!(error.kind(), TaskErrorKind::ActorDied, "{error}");
        assert!(!exit_actor());
    });
}

static MEETING: Barrier = Barrier::new(3);
static INSIDE: AtomicU64 = AtomicU64::new(0);

struct Hall;

#[remote]
impl Hall {
    fn new() -> Hall {
        Hall
    }

    fn meet(&self) -> u64 {
        MEETING.wait();
        1
    }

    fn alone(&mut self) -> u64 {
        let others = INSIDE.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        others
    }
}

#[test]
fn an_actor_runs_several_calls_at_once_and_exclusive_ones_alone() {
    remotely(|ray| {
        let hall = Hall::options(Options::new().max_concurrency(3)).remote(ray).unwrap();
        let meetings: Vec<_> = (0..6).map(|_| hall.meet().unwrap()).collect();
        let alone: Vec<_> = (0..20).map(|_| hall.alone().unwrap()).collect();
        assert_eq!(ray.get_all(&meetings).unwrap(), [1; 6]);
        assert_eq!(ray.get_all(&alone).unwrap(), [0; 20]);
    });
}

#[remote(num_gpus = 1)]
fn gpus() -> String {
    std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default()
}

#[remote(max_calls = 2)]
fn process() -> u32 {
    std::process::id()
}

#[test]
fn a_task_sees_its_gpus() {
    remotely(|ray| {
        let one = ray.get(&gpus::remote(ray).unwrap()).unwrap();
        assert!(["0", "1"].contains(&one.as_str()), "{one:?}");
        let two = ray.get(&gpus::options(Options::new().num_gpus(2)).remote(ray).unwrap()).unwrap();
        let mut both: Vec<&str> = two.split(',').collect();
        both.sort_unstable();
        assert_eq!(both, ["0", "1"]);
    });
}

#[test]
fn a_worker_ends_after_as_many_calls_as_it_may_run() {
    remotely(|ray| {
        let pids: Vec<u32> = (0..6).map(|_| ray.get(&process::remote(ray).unwrap()).unwrap()).collect();
        for pid in &pids {
            assert!(pids.iter().filter(|other| *other == pid).count() <= 2, "{pids:?}");
        }
    });
}
