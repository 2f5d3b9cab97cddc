//! What is measured of the Python package, in which unit and against whom: one table.
//!
//! The one thing to know: the names are what a promise is looked up by, so a renamed row is a lost
//! promise. The rows of `ray_perf.py` have its own names, by which it is also told what to run.

use crate::plan::{Peer, Unit, WorkPlan, plan};

/// Actors that live at once.
pub const ACTORS: usize = 1_000;
/// References in one object.
pub const REFERENCES: usize = 100_000;
/// Tasks that wait at once.
pub const QUEUED_TASKS: usize = 1_000_000;
/// Items of a list of nothing to do.
pub const NOOP_ITEMS: usize = 10_000;
/// Items of a list of a millisecond each.
pub const MILLISECOND_ITEMS: usize = 2_000;
/// Items of a pool, of which Ray does some two hundred a second.
pub const POOL_ITEMS: usize = 2_000;

/// One thing that programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RayWork {
    /// A row of `ray_perf.py`, which is its plan's name.
    Perf(&'static str),
    /// One that copies gigabytes, in its own unit: 0.8 or 8 of them a call, for 800 or 8,000 MiB.
    PerfCopies(Copies),
    /// Part of the life of a session in a fresh interpreter.
    Life(Part),
    /// An actor made, to its first answer.
    ActorStart,
    /// Many made at once, to an answer from each.
    ActorsStarted,
    /// What each of them costs the machine.
    ActorMemory,
    /// What a session costs that has run one task.
    IdleFootprint,
    /// What a task with an argument of 100 MB takes longer than one without.
    LargeArgument,
    /// One object that holds many references, read.
    ReferencesInObject,
    /// What a task that waits costs, its caller's reference included; all of them are run at the end.
    QueuedTasks,
    /// A list of items, a task each, of a function that does nothing.
    NoopItems,
    /// The same of a function that computes for a millisecond.
    MillisecondItems,
    /// A list of items through `util.multiprocessing.Pool`.
    PoolItems,
}

/// Which copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// One client, the same 800 MiB again and again.
    Single,
    /// Ten tasks, each of which makes and puts 80 MiB ten times.
    Multi,
}

/// What is timed of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The package, by an interpreter that has imported nothing else.
    Import,
    /// `init` with a raylet of its own.
    Init,
    /// From there to the first result.
    FirstTask,
    /// `shutdown`.
    Shutdown,
}

use Peer::{ConcurrentFutures, Loky, Memcpy, MultiprocessingPool, Ray};
use Unit::{Bytes, GigabytesPerSecond, Nanoseconds, PerSecond};

const fn perf(row: &'static str) -> WorkPlan<RayWork> {
    plan(RayWork::Perf(row), row, PerSecond, &[Ray])
}

/// The 23 rows of `ray_perf.py` but those of Ray Client, in its order.
pub const PERF_ROWS: [WorkPlan<RayWork>; 23] = [
    perf("single client get calls (Plasma Store)"),
    perf("single client put calls (Plasma Store)"),
    perf("multi client put calls (Plasma Store)"),
    plan(RayWork::PerfCopies(Copies::Single), "single client put gigabytes", GigabytesPerSecond, &[Memcpy, Ray]),
    perf("single client tasks and get batch"),
    plan(RayWork::PerfCopies(Copies::Multi), "multi client put gigabytes", GigabytesPerSecond, &[Memcpy, Ray]),
    perf("single client get object containing 10k refs"),
    perf("single client wait 1k refs"),
    perf("single client tasks sync"),
    perf("single client tasks async"),
    perf("multi client tasks async"),
    perf("1:1 actor calls sync"),
    perf("1:1 actor calls async"),
    perf("1:1 actor calls concurrent"),
    perf("1:n actor calls async"),
    perf("n:n actor calls async"),
    perf("n:n actor calls with arg async"),
    perf("1:1 async-actor calls sync"),
    perf("1:1 async-actor calls async"),
    perf("1:1 async-actor calls with args async"),
    perf("1:n async-actor calls async"),
    perf("n:n async-actor calls async"),
    perf("placement group create/removal"),
];

/// Rows of `ray_perf.py` under names that say what they are.
pub const SHORT_NAMES: [(&str, &str); 7] = [
    ("put small", "single client put calls (Plasma Store)"),
    ("get small", "single client get calls (Plasma Store)"),
    ("tasks sync", "single client tasks sync"),
    ("tasks async", "single client tasks async"),
    ("actor calls sync", "1:1 actor calls sync"),
    ("actor calls async", "1:1 actor calls async"),
    ("async actor calls async", "1:1 async-actor calls async"),
];

/// Every other row, but those that follow from others.
pub const PROGRAMS: [WorkPlan<RayWork>; 14] = [
    plan(RayWork::Life(Part::Import), "import", Nanoseconds, &[Ray]),
    plan(RayWork::Life(Part::Init), "init", Nanoseconds, &[Ray]),
    plan(RayWork::Life(Part::FirstTask), "first task", Nanoseconds, &[Ray]),
    plan(RayWork::Life(Part::Shutdown), "shutdown", Nanoseconds, &[Ray]),
    plan(RayWork::ActorStart, "actor start", Nanoseconds, &[Ray]).in_rounds(3),
    plan(RayWork::ActorsStarted, "1,000 actors started", Nanoseconds, &[]).in_rounds(0),
    plan(RayWork::ActorMemory, "PSS of each of 1,000 actors", Bytes, &[]).in_rounds(0),
    plan(RayWork::IdleFootprint, "idle footprint", Bytes, &[Ray]).in_rounds(0),
    plan(RayWork::LargeArgument, "task with 100 MB argument minus task without", Nanoseconds, &[Ray]),
    plan(RayWork::ReferencesInObject, "100,000 refs in one object", Nanoseconds, &[Ray]).in_rounds(1),
    plan(RayWork::QueuedTasks, "each of 1,000,000 queued tasks", Bytes, &[]).in_rounds(0),
    plan(
        RayWork::NoopItems,
        "no-op over 10,000 items",
        PerSecond,
        &[MultiprocessingPool, Loky, ConcurrentFutures, Ray],
    )
    .in_rounds(3),
    plan(
        RayWork::MillisecondItems,
        "1 ms of computing over 2,000 items",
        PerSecond,
        &[MultiprocessingPool, Loky, ConcurrentFutures, Ray],
    )
    .in_rounds(3),
    plan(RayWork::PoolItems, "Pool.map of a no-op over 2,000 items", PerSecond, &[MultiprocessingPool, Ray])
        .in_rounds(2),
];

/// Both.
pub fn ray_works() -> Vec<WorkPlan<RayWork>> {
    PROGRAMS.into_iter().chain(PERF_ROWS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::check_names;

    #[test]
    fn names_are_unique_and_hold_no_comma_before_a_peer() {
        check_names(&ray_works());
    }

    #[test]
    fn a_short_name_stands_for_a_row_that_exists() {
        for (_, long) in SHORT_NAMES {
            assert!(PERF_ROWS.iter().any(|plan| plan.name == long), "{long}");
        }
    }

    #[test]
    fn no_row_is_run_with_another_one() {
        for plan in PERF_ROWS {
            let run = PERF_ROWS.iter().filter(|other| other.name.contains(plan.name)).count();
            assert_eq!(run, 1, "{}", plan.name);
        }
    }
}
