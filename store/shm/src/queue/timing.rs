//! How fast a queue is between two processes, printed beside an rmw pair; it asserts no time.
//!
//! The one thing to know: numbers mean something in release alone, on an idle machine:
//! `cargo test --release -p store-shm --lib queue::timing -- --nocapture`. In other builds it runs
//! tiny, to see that it still does.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::tests::payload;
use super::*;
use crate::segment::{Memfd, page_bytes};
use crate::testing::{fork_child, reap};

const RECORDS: u64 = 1024;
const ROUNDS: u64 = if cfg!(debug_assertions) { 2_000 } else { 300_000 };
const TASKS: u64 = if cfg!(debug_assertions) { 20_000 } else { 3_000_000 };
/// Looks before a claimer sleeps.
const SPINS: u32 = 2_000;
/// The same where there are more processes than processors: spinning keeps the owner from working.
const SPINS_CROWDED: u32 = 20;
/// Those that the measured processes are put on.
const PROCESSORS: usize = 2;
/// The measured runs, of which the best and the median are printed.
const RUNS: usize = 5;

struct Ground {
    queue: Queue,
    is_over: SharedArray<AtomicU32>,
}

fn ground() -> Ground {
    let page = page_bytes();
    let memfd = Memfd::create("test", 2 * page + Queue::bytes(RECORDS).unwrap()).unwrap();
    let map = Arc::new(SharedMap::map(&memfd).unwrap());
    let bells = SharedArray::new(&map, 0, 1).unwrap();
    let queue = Queue::format(&map, 2 * page, RECORDS, &bells, 0, 1).unwrap();
    Ground { queue, is_over: SharedArray::new(&map, page, 1).unwrap() }
}

fn stay_on(processors: &[usize]) {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| _ = set.set(*processor));
    // Where there is no such processor, times mean little anyway.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

fn work(ground: &Ground, me: u16, spins: u32) -> i32 {
    let mut claimer = Claimer::new(&ground.queue, me);
    let mut fruitless = 0;
    while ground.is_over[0].load(Ordering::Relaxed) == 0 {
        if let Some(claimed) = claimer.claim().expect("nothing is broken") {
            black_box(&claimed.payload);
            claimer.finish(claimed).expect("it is ours");
            fruitless = 0;
        } else if fruitless < spins {
            fruitless += 1;
            spin_loop();
        } else {
            let announced = ground.queue.bell().announce();
            if !ground.queue.has_queued().expect("nothing is broken") {
                let _ = announced.sleep(Some(Duration::from_millis(1)));
            }
        }
    }
    0
}

/// The first claimer beside the owner's processor, the next wherever there is room.
fn work_elsewhere(ground: &Ground, me: u16, spins: u32) -> i32 {
    stay_on(if me == 0 { &[1] } else { &[0, 1] });
    work(ground, me, spins)
}

/// How long `measure` takes beside so many claimers.
fn beside_claimers(claimers: u16, measure: fn(&mut Submitter)) -> Duration {
    let ground = ground();
    let is_crowded = usize::from(claimers) >= PROCESSORS;
    let spins = if is_crowded { SPINS_CROWDED } else { SPINS };
    let start = |me| fork_child(|| work_elsewhere(&ground, me, spins));
    let children: Vec<Pid> = (0..claimers).map(start).collect();
    let mut submitter = Submitter::new(&ground.queue).unwrap();
    let started = Instant::now();
    measure(&mut submitter);
    let took = started.elapsed();
    ground.is_over[0].store(1, Ordering::SeqCst);
    children.into_iter().for_each(|child| assert_eq!(reap(child), WaitStatus::Exited(child, 0)));
    took
}

fn round_trips(submitter: &mut Submitter) {
    for number in 0..ROUNDS {
        submitter.try_submit(&payload(number)).expect("there is room");
        while submitter.reap(|_, _| {}).expect("nothing is broken") == 0 {
            spin_loop();
        }
    }
}

fn in_flight(submitter: &mut Submitter) {
    let mut submitted = 0;
    let mut reaped = 0;
    while reaped < TASKS {
        while submitted < TASKS && submitter.try_submit(&payload(submitted)).is_ok() {
            submitted += 1;
        }
        let count = submitter.reap(|_, _| {}).expect("nothing is broken");
        reaped += count;
        if count == 0 {
            thread::yield_now();
        }
    }
}

fn rmw_pair() -> f64 {
    let word = AtomicU64::new(0);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(word.fetch_add(1, Ordering::SeqCst));
        black_box(word.fetch_sub(1, Ordering::SeqCst));
    }
    started.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64
}

fn report(name: &str, claimers: u16, count: u64, measure: fn(&mut Submitter)) {
    let mut nanoseconds: Vec<f64> =
        (0..RUNS).map(|_| beside_claimers(claimers, measure).as_secs_f64() * 1e9 / count as f64).collect();
    nanoseconds.sort_by(f64::total_cmp);
    let (best, median) = (nanoseconds[0], nanoseconds[RUNS / 2]);
    eprintln!("{name}: best {best:.0} ns ({:.2} M/s), median {median:.0} ns ({:.2} M/s)", 1e3 / best, 1e3 / median);
}

#[test]
fn what_a_record_costs() {
    // Its own thread, so that no other test stays on one processor for it.
    let measured = thread::spawn(|| {
        stay_on(&[0]);
        eprintln!("rmw pair: {:.1} ns", rmw_pair());
        report("round trip, hot", 1, ROUNDS, round_trips);
        report("in flight, 1 claimer", 1, TASKS, in_flight);
        report("in flight, 2 claimers", 2, TASKS, in_flight);
    });
    measured.join().expect("nothing is broken");
}
