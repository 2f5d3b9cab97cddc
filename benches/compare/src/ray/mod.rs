//! The bench of the Python package: its table, and the same programs on ours and on Ray.
//!
//! The one thing to know: ours and Ray run the same files, so a work has one contender for both, and
//! what is looked at from outside (memory, processes) is asked of the kernel.

mod footprint;
mod life;
mod perf;
mod program;
mod side;
mod summary;
pub mod work;

use crate::error::BenchError;
use crate::peers::{copies, process_pools};
use crate::plan::{Made, Peer, Setting, Unit, Work};
use crate::report::Report;
use crate::run::{Bench, Boxed, no_such_peer};
use side::Side;
use work::{ACTORS, Copies, MILLISECOND_ITEMS, NOOP_ITEMS, POOL_ITEMS, REFERENCES, RayWork};

impl Work for RayWork {
    fn ours(self, _setting: Setting, bench: &Bench) -> Made {
        contender(self, Side::Ours, bench).map(Some)
    }

    fn peer(self, peer: Peer, bench: &Bench) -> Made {
        match (peer, self) {
            (Peer::Ray, work) => contender(work, Side::Ray, bench).map(Some),
            (Peer::Memcpy, Self::PerfCopies(which)) => copies::contender(which, bench),
            (Peer::MultiprocessingPool | Peer::Loky | Peer::ConcurrentFutures, _) => {
                let (operation, count) = items(self, bench);
                process_pools::contender(peer, operation, count, bench)
            }
            _ => no_such_peer(self, peer),
        }
    }

    fn rounds_anew(self, bench: &Bench) -> Option<usize> {
        match self {
            Self::Perf(_) | Self::PerfCopies(_) => Some(bench.perf.rounds),
            Self::Life(_) => Some(bench.effort.rounds),
            _ => None,
        }
    }

    fn conclude(report: &mut Report) {
        summary::conclude(report);
    }
}

fn contender(work: RayWork, side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let count = |full| bench.effort.count(full);
    match work {
        RayWork::Perf(row) => perf::contender(row, side, bench),
        RayWork::PerfCopies(Copies::Single) => perf::contender("single client put gigabytes", side, bench),
        RayWork::PerfCopies(Copies::Multi) => perf::contender("multi client put gigabytes", side, bench),
        RayWork::Life(part) => life::contender(part, side, bench),
        RayWork::ActorStart => asking("actor_start", count(10), Unit::Nanoseconds, side, bench),
        RayWork::ActorsStarted => asking("actors_started", count(ACTORS), Unit::Nanoseconds, side, bench),
        RayWork::ActorMemory => footprint::actors(side, bench),
        RayWork::IdleFootprint => footprint::idle(side, bench),
        RayWork::LargeArgument => asking("large_argument", count(100), Unit::Nanoseconds, side, bench),
        RayWork::ReferencesInObject => {
            asking("references_in_object", count(REFERENCES), Unit::Nanoseconds, side, bench)
        }
        RayWork::QueuedTasks => footprint::queued_tasks(side, bench),
        RayWork::NoopItems | RayWork::MillisecondItems | RayWork::PoolItems => {
            let (operation, count) = items(work, bench);
            asking(operation, count, Unit::PerSecond, side, bench)
        }
    }
}

/// What scripts call a work of items, and how many it has.
fn items(work: RayWork, bench: &Bench) -> (&'static str, usize) {
    match work {
        RayWork::MillisecondItems => ("millisecond_items", bench.effort.count(MILLISECOND_ITEMS)),
        RayWork::PoolItems => ("pool_items", bench.effort.count(POOL_ITEMS)),
        _ => ("noop_items", bench.effort.count(NOOP_ITEMS)),
    }
}

/// An operation of the programs' script, which says nanoseconds.
fn asking(operation: &'static str, count: usize, unit: Unit, side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let mut script = side.start("programs.py", bench)?;
    let in_unit = move |nanos| if unit == Unit::PerSecond { 1e9 / nanos } else { nanos };
    Ok(Box::new(move || Ok(script.ask(operation, count)?.into_iter().map(in_unit).collect())))
}
