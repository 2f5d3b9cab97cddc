//! How long a raylet and a worker take to start, and what an idle one costs.
//!
//! The one thing to know: this executable is all of them: driver, raylet, reaper, zygote, workers. A
//! worker says on its standard output at which instant its main function began. Run it in release:
//! `cargo run --release -p raylet-client --example workers`.

use raylet::pool::{Event, Line, Pool, Program, WorkerSpec};
use raylet::{Config, Raylet};
use raylet_client::role::{self, Worker, set_worker_main};
use std::path::Path;
use std::time::{Duration, Instant};
use store_shm::process::Fresh;
use tokio::sync::mpsc::{self, Receiver, UnboundedReceiver};

const COUNT: usize = 200;
const CAPACITY_BYTES: u64 = 2 << 30;
const STORED_BYTES: usize = 1 << 30;

store_shm::before_main!(early set_main);

fn set_main(_: Fresh) {
    set_worker_main(say_when);
}

/// The worker: its first instruction takes the time.
fn say_when(worker: Worker) -> i32 {
    let now = now_ns();
    println!("{now}");
    worker.wait_for_the_end()
}

/// The machine's clock, the same in every process.
fn now_ns() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
    Duration::from(now).as_nanos()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = tempfile::tempdir()?;
    ready_times(base.path())?;
    let raylet = Raylet::start(&config(base.path(), "workers"))?;
    let directory = raylet.session().directory().to_str().map(str::to_owned);
    let (tell_events, mut events) = mpsc::unbounded_channel();
    let (tell_lines, mut lines) = mpsc::channel(COUNT);
    let pool = Pool::start(tell_events, tell_lines, None)?;
    let started = Instant::now();
    pool.start_zygote(1, Program::own());
    let Some(Event::ZygoteReady { pid: zygote, .. }) = events.blocking_recv() else { return Err("no zygote".into()) };
    println!("zygote ready                               {:>8.2} ms", started.elapsed().as_secs_f64() * 1e3);
    let mut world = World { pool, events: &mut events, lines: &mut lines, count: 0 };
    world.fork_times("fork to main, nothing joined", None)?;
    world.fork_times("fork to main, store empty", directory.clone())?;
    let object = raylet.store().put(&vec![1; STORED_BYTES])?;
    world.fork_times("fork to main, nothing joined, 1 GiB in the store", None)?;
    let workers = world.fork_times("fork to main, 1 GiB in the store", directory)?;
    drop(object);
    println!(
        "PSS of an idle worker that joined (median)  {:>8} KiB",
        median(workers.iter().map(|&pid| pss_kib(pid)).collect())
    );
    println!("PSS of the zygote                           {:>8} KiB", pss_kib(zygote));
    let started = Instant::now();
    drop(world);
    println!("all {} workers ended                       {:>8.2} ms", 4 * COUNT, started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn config(base: &Path, session: &str) -> Config {
    let session = session.to_owned();
    Config { base: base.to_owned(), session, capacity_bytes: CAPACITY_BYTES, max_clients: 2048, ..Config::default() }
}

/// A raylet as a child of this process: from the call to its readiness, and its end.
fn ready_times(base: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (mut ready_us, mut ended_us) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let started = Instant::now();
        let raylet = role::start_raylet(&config(base, "ready"))?;
        ready_us.push(started.elapsed().as_micros() as u64);
        if round == 0 {
            println!("PSS of an idle raylet                       {:>8} KiB", pss_kib(raylet.pid()));
            let reaper = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", raylet.pid()))?;
            println!("PSS of its reaper                           {:>8} KiB", pss_kib(reaper.trim().parse()?));
        }
        let started = Instant::now();
        drop(raylet);
        ended_us.push(started.elapsed().as_micros() as u64);
    }
    println!("raylet ready, median of 20                  {:>8} us", median(ready_us));
    println!("raylet ended, median of 20                  {:>8} us", median(ended_us));
    Ok(())
}

struct World<'a> {
    pool: Pool,
    events: &'a mut UnboundedReceiver<Event>,
    lines: &'a mut Receiver<Line>,
    count: u64,
}

impl World<'_> {
    /// Starts workers one after the other; returns their pids.
    fn fork_times(&mut self, what: &str, directory: Option<String>) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
        let (mut times_ns, mut pids) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            self.count += 1;
            let spec = WorkerSpec { worker: self.count, directory: directory.clone(), ..WorkerSpec::default() };
            let asked = now_ns();
            self.pool.start_worker(1, spec);
            match self.events.blocking_recv() {
                Some(Event::WorkerStarted { process, .. }) => pids.push(process.pid),
                other => return Err(format!("{other:?}").into()),
            }
            let line = self.lines.blocking_recv().ok_or("no line")?;
            let began: u128 = String::from_utf8(line.bytes)?.parse()?;
            times_ns.push((began - asked) as u64);
        }
        times_ns.sort_unstable();
        let [p50, p99] = [COUNT / 2, COUNT * 99 / 100].map(|at| times_ns[at] as f64 / 1e3);
        println!("{what:50} p50 {p50:>7.0} us  p99 {p99:>7.0} us");
        Ok(pids)
    }
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

/// A process' share of the memory that it uses, without shared memory of the store.
fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default()
    };
    field("Pss:") - field("Pss_Shmem:")
}
