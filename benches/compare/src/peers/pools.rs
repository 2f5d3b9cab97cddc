//! Pools of threads in this process: no other process, no bytes, no crash to survive.
//!
//! Setting: as many threads as cores, free to run anywhere. A task sets a flag; the harness awaits
//! the flags in the order of submission, as one who wants results would.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{available_parallelism, yield_now};

use crate::child::unpinned;
use crate::error::BenchError;
use crate::plan::Made;
use crate::run::{Bench, Boxed};
use crate::stats::{OUTSTANDING, time_in_flight};

/// Looks at a flag before the core is given away.
const LOOKS: u32 = 100;

/// Rayon's pool, tasks spawned from outside.
pub fn rayon(bench: &Bench) -> Made {
    let pool = unpinned(|| rayon::ThreadPoolBuilder::new().num_threads(threads()).build());
    let pool = pool.map_err(|error| BenchError::system("rayon's pool")(std::io::Error::other(error)))?;
    contender(bench, move |task| pool.spawn(task)).map(Some)
}

/// The crate `threadpool`: one queue behind a lock.
pub fn thread_pool(bench: &Bench) -> Made {
    let pool = unpinned(|| threadpool::ThreadPool::new(threads()));
    contender(bench, move |task| pool.execute(task)).map(Some)
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

type Task = Box<dyn FnOnce() + Send>;

/// Tasks a second, so many of them outstanding.
fn contender(bench: &Bench, submit: impl Fn(Task) + 'static) -> Result<Boxed, BenchError> {
    let count = bench.effort.count(200_000);
    let done: Arc<Vec<AtomicBool>> = Arc::new((0..OUTSTANDING).map(|_| AtomicBool::new(false)).collect());
    Ok(Box::new(move || {
        let mut next = 0;
        let submit = || {
            let at = next;
            next = (next + 1) % OUTSTANDING;
            let done = Arc::clone(&done);
            // Release: pairs with the acquire in `await_flag`.
            submit(Box::new(move || done[at].store(true, Ordering::Release)));
            Ok(at)
        };
        let await_result = |at: usize| -> Result<(), BenchError> {
            await_flag(&done[at]);
            Ok(())
        };
        let rate = unpinned(|| time_in_flight(count, submit, await_result));
        Ok(vec![rate?])
    }))
}

fn await_flag(flag: &AtomicBool) {
    let mut looks = 0;
    while !flag.swap(false, Ordering::Acquire) {
        looks += 1;
        if looks % LOOKS == 0 { yield_now() } else { spin_loop() }
    }
}
