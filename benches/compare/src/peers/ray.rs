//! Ray 2.60.0 driven from Python: its object store, its tasks and its actors.
//!
//! Setting: one node, no dashboard, unpinned (Ray brings some ten processes). Small values are
//! `bytes`, large ones a NumPy array of touched bytes; references are dropped untimed. Tasks have as
//! many CPUs as there are cores, and workers that have run tasks before.

use crate::error::BenchError;
use crate::plan::{Made, Peer, Unit};
use crate::python::PythonPeer;
use crate::run::{Bench, Boxed, no_such_peer};
use crate::stats::OUTSTANDING;
use crate::store::work::{LARGE_BYTES, StoreWork};
use crate::tasks::work::TaskWork;

const REQUIREMENTS: &[&str] = &["ray==2.60.0", "numpy"];
const OBJECTS: PythonPeer = peer("ray_peer.py", &[]);
const TASKS: PythonPeer = peer("ray_tasks_peer.py", &[]);

/// A script run by an interpreter that has Ray.
pub const fn peer(script: &'static str, arguments: &'static [&'static str]) -> PythonPeer {
    PythonPeer { name: "ray", script, requirements: REQUIREMENTS, arguments }
}

/// Ray for a work of the store.
pub fn objects(work: StoreWork, bench: &Bench) -> Made {
    let (operation, count, bytes) = match work {
        StoreWork::GetByIdHot => ("get", bench.effort.count(500), None),
        StoreWork::PutSmall => ("put_small", bench.effort.count(300), None),
        StoreWork::PutLargeWarm => ("put_large", bench.effort.count(4), Some(LARGE_BYTES)),
        _ => return no_such_peer(work, Peer::Ray),
    };
    let in_unit = move |each| bytes.map_or(each, |bytes| bytes as f64 / each);
    asking(OBJECTS, operation, count, in_unit, bench).map(Some)
}

/// Ray for a work of tasks.
pub fn tasks(work: TaskWork, bench: &Bench) -> Made {
    let count = |full| bench.effort.count(full);
    let (operation, count, unit) = match work {
        TaskWork::NoopHot => ("task", count(200), Unit::Nanoseconds),
        TaskWork::NoopsInFlight => ("tasks_in_flight", count(OUTSTANDING), Unit::PerSecond),
        TaskWork::ChainHop => ("chain", count(500), Unit::Nanoseconds),
        TaskWork::ActorHot => ("actor_call", count(300), Unit::Nanoseconds),
        TaskWork::ActorInFlight => ("actor_calls_in_flight", count(OUTSTANDING), Unit::PerSecond),
        TaskWork::EmbeddedStart => ("start", 1, Unit::Nanoseconds),
        _ => return no_such_peer(work, Peer::Ray),
    };
    let in_unit = move |each| if unit == Unit::PerSecond { 1e9 / each } else { each };
    asking(TASKS, operation, count, in_unit, bench).map(Some)
}

fn asking(
    peer: PythonPeer,
    operation: &'static str,
    count: usize,
    in_unit: impl Fn(f64) -> f64 + 'static,
    bench: &Bench,
) -> Result<Boxed, BenchError> {
    let mut script = bench.environments.start(peer)?;
    Ok(Box::new(move || Ok(script.ask(operation, count)?.into_iter().map(&in_unit).collect())))
}
