//! What sessions cost: an idle one, one with many actors, one with many tasks in its queue.
//!
//! The one thing to know: a session is its driver and all processes that come from it. Counted are
//! their proportional private pages and pages of files, and the blocks of the shared segments that any
//! of them has open, each segment once.

use std::thread::sleep;
use std::time::Duration;

use super::side::Side;
use super::work::{ACTORS, QUEUED_TASKS};
use crate::error::BenchError;
use crate::processes::{family, pss_bytes_without_shared, segment_bytes};
use crate::python::Script;
use crate::run::{Bench, Boxed};

/// How long a session that was just used is left alone before anybody looks.
const REST: Duration = Duration::from_secs(1);

/// The bytes of a session, after a rest.
fn session_bytes(driver: &Script) -> f64 {
    sleep(REST);
    let family = family(driver.pid());
    // A process that ended between the two looks costs nothing.
    let processes: u64 = family.iter().filter_map(|pid| pss_bytes_without_shared(*pid).ok()).sum();
    (processes + segment_bytes(&family)) as f64
}

/// Bytes of a session whose driver has imported the package alone and has run one task.
pub(super) fn idle(side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let driver = side.start("idle_driver.py", bench)?;
    Ok(Box::new(move || Ok(vec![session_bytes(&driver)])))
}

/// What each of many living actors adds.
pub(super) fn actors(side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let mut driver = side.start("programs.py", bench)?;
    let count = bench.effort.count(ACTORS);
    Ok(Box::new(move || {
        let before = session_bytes(&driver);
        driver.ask("actors_started", count)?;
        Ok(vec![(session_bytes(&driver) - before) / count as f64])
    }))
}

/// What each of many waiting tasks adds; that all of them run in the end is checked.
pub(super) fn queued_tasks(side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let mut driver = side.start("programs.py", bench)?;
    let count = bench.effort.count(QUEUED_TASKS);
    Ok(Box::new(move || {
        driver.ask("hold_cores", count)?;
        let before = session_bytes(&driver);
        driver.ask("queue", count)?;
        let after = session_bytes(&driver);
        driver.ask("run_queue", count)?;
        Ok(vec![(after - before) / count as f64])
    }))
}
