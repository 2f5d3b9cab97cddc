//! What is measured of tasks and actors, in which unit and against whom: one table.
//!
//! The one thing to know: the names are what a promise is looked up by, so a renamed row is a lost
//! promise. Sizes that ours and a peer must share stand here and nowhere else.

use crate::plan::{Peer, Unit, WorkPlan, plan};

/// Tasks of a chain, each of which takes the result of the one before.
pub const CHAIN_HOPS: usize = 10_000;
/// Tasks that are queued while nobody can run them.
pub const QUEUED_TASKS: usize = 1_000_000;
/// Seconds that an idle raylet is watched.
pub const IDLE_SECONDS: usize = 60;
/// Bytes of the smaller argument.
pub const ARGUMENT_BYTES_SMALL: usize = 1 << 10;
/// Bytes of the larger argument.
pub const ARGUMENT_BYTES_LARGE: usize = 1 << 30;

/// Bytes of the demo's corpus, repeated to that.
pub const DEMO_BYTES: usize = 256_000_000;

/// One thing a contender does with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskWork {
    /// Submit to result, one after the other: both sides are awake.
    NoopHot,
    /// The same, one a millisecond: both sides have slept.
    NoopAsleep,
    /// Completed a second, `stats::OUTSTANDING` of them outstanding.
    NoopsInFlight,
    /// A chain of dependent tasks submitted at once, by its length.
    ChainHop,
    /// Call to result, one after the other.
    ActorHot,
    /// Completed a second, as many outstanding.
    ActorInFlight,
    /// A task that is given a put batch; the peer "self" gives the smaller one.
    LargeArgument,
    /// Submit to result, one a millisecond, beside a busy process on each core.
    BesideHogs,
    /// What the busy processes do meanwhile; the peer "self" is what they do alone.
    HogsBesidePair,
    /// Submit to the first instruction of what runs in a worker that did not exist.
    WorkerStart,
    /// The raylet's executable started, to the answer to a hello.
    RayletReady,
    /// `init` to the first result, in a process that has just begun.
    EmbeddedStart,
    /// What a task that waits costs the raylet and the shared segments.
    QueuedTask,
    /// The same with what its caller keeps.
    QueuedTaskAndCaller,
    /// Memory of a raylet that nobody uses, without shared memory.
    IdleMemory,
    /// The same with every process that it started.
    IdleFamilyMemory,
    /// Processor time of a raylet and every process that it started, while nobody uses it.
    IdleTime,
    /// A payload of so many bytes put, given to a task that returns it, and its result read.
    Echo(usize),
    /// The demo's map operators on its corpus.
    DemoMap,
    /// The whole demo.
    DemoWhole,
}

use Peer::{Futex, Grpc, Iceoryx2, Ideal, Itself, Pipe, ProcessSpawn, Ray, Rayon, ThreadPool};
use Unit::{Bytes, Nanoseconds, PerSecond};

/// Every row of the tasks' bench.
pub const TASK_WORKS: [WorkPlan<TaskWork>; 23] = [
    plan(TaskWork::NoopHot, "no-op task hot", Nanoseconds, &[Iceoryx2, Ray]),
    plan(TaskWork::NoopAsleep, "no-op task asleep", Nanoseconds, &[Futex, Pipe]),
    plan(TaskWork::NoopsInFlight, "no-op tasks in flight", PerSecond, &[Ray, Rayon, ThreadPool]),
    plan(TaskWork::ChainHop, "hop of a chain of dependent tasks", Nanoseconds, &[Ray]),
    plan(TaskWork::ActorHot, "actor call hot", Nanoseconds, &[Ray]),
    plan(TaskWork::ActorInFlight, "actor calls in flight", PerSecond, &[Ray]),
    plan(TaskWork::LargeArgument, "1 GiB argument over 1 KiB argument", Nanoseconds, &[Itself]),
    plan(TaskWork::BesideHogs, "pair with two busy neighbours", Nanoseconds, &[Futex]),
    plan(TaskWork::HogsBesidePair, "hogs beside a pair", PerSecond, &[Itself]),
    plan(TaskWork::WorkerStart, "worker start", Nanoseconds, &[ProcessSpawn]),
    plan(TaskWork::RayletReady, "raylet ready", Nanoseconds, &[]),
    plan(TaskWork::EmbeddedStart, "embedded start to first result", Nanoseconds, &[Ray]),
    plan(TaskWork::QueuedTask, "queued task", Bytes, &[]).in_rounds(0),
    plan(TaskWork::QueuedTaskAndCaller, "queued task with its caller", Bytes, &[]).in_rounds(0),
    plan(TaskWork::IdleMemory, "idle raylet PSS", Bytes, &[]).in_rounds(0),
    plan(TaskWork::IdleFamilyMemory, "idle raylet and its processes PSS", Bytes, &[]).in_rounds(0),
    plan(TaskWork::IdleTime, "idle raylet CPU time in 60 s", Nanoseconds, &[]).in_rounds(0),
    plan(TaskWork::Echo(1 << 10), "echo of 1 KiB by put and task", Nanoseconds, &[Grpc]),
    plan(TaskWork::Echo(1 << 20), "echo of 1 MiB by put and task", Nanoseconds, &[Grpc]),
    plan(TaskWork::Echo(64 << 20), "echo of 64 MiB by put and task", Nanoseconds, &[Grpc]).in_rounds(3),
    plan(TaskWork::Echo(1 << 30), "echo of 1 GiB by put and task", Nanoseconds, &[Grpc]).in_rounds(0),
    plan(TaskWork::DemoMap, "demo map operators", Nanoseconds, &[Ideal]).in_rounds(3),
    plan(TaskWork::DemoWhole, "demo whole", Nanoseconds, &[Ideal]).in_rounds(3),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::check_names;

    #[test]
    fn names_are_unique_and_hold_no_comma_before_a_peer() {
        check_names(&TASK_WORKS);
    }
}
