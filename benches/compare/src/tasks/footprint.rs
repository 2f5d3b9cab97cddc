//! What waiting costs: a task in a queue, a raylet that nobody uses.
//!
//! The one thing to know: memory is private pages plus the blocks of shared segments, before and
//! after; a segment counts once. The tasks are queued by a process of its own, whose heap was empty.

use std::fs::File;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use super::functions::{hold_cpu, noop, worker_pid};
use super::role::first_line;
use super::work::{IDLE_SECONDS, QUEUED_TASKS};
use super::world::{Room, World, init};
use crate::child::unpinned;
use crate::error::BenchError;
use crate::processes::{anonymous_bytes, children, cpu_nanos, family, pss_bytes_without_shared, segment_bytes};
use crate::run::{Bench, Boxed};
use crate::scratch;

/// How long a raylet that was just started or used is left alone before anybody looks.
const REST: Duration = Duration::from_secs(1);

/// What of a queued task is counted.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// The raylet's memory and the shared segments.
    Raylet,
    /// The caller's too.
    RayletAndCaller,
}

/// Bytes of each of many tasks that wait.
pub(super) fn queued_task(whose: Whose, bench: &Bench) -> Result<Boxed, BenchError> {
    let count = bench.effort.count(QUEUED_TASKS);
    Ok(Box::new(move || {
        let role = format!("queue-tasks {count}");
        let [raylet, caller] = unpinned(|| first_line::<2>(&role))?;
        Ok(vec![match whose {
            Whose::Raylet => raylet,
            Whose::RayletAndCaller => raylet + caller,
        }])
    }))
}

/// The process that queues them: bytes of the raylet and the segments, then of itself, by task.
pub(super) fn queue_role(count: usize) -> Result<[f64; 2], BenchError> {
    let directory = scratch::on_disk()?;
    let gate = directory.path().join("gate");
    let ray = init(Room::Default)?;
    let own = std::process::id();
    let raylet = children(own).first().copied();
    let raylet = raylet.ok_or(BenchError::TooFew { what: "processes of a raylet", found: 0, wanted: 1 })?;
    let cores = available_parallelism().map_or(1, usize::from);
    let first = worker_pid::remote(&ray).map_err(BenchError::raylet("submit"))?;
    ray.get(&first).map_err(BenchError::raylet("get"))?;
    let until = gate.display().to_string();
    let hold = |_| hold_cpu::remote(&ray, &until).map_err(BenchError::raylet("submit"));
    let held: Vec<_> = (0..cores).map(hold).collect::<Result<_, _>>()?;
    sleep(REST);
    let measure = || -> Result<[u64; 2], BenchError> {
        Ok([anonymous_bytes(raylet)? + segment_bytes(&[raylet, own]), anonymous_bytes(own)?])
    };
    let before = measure()?;
    let queued: Result<Vec<_>, _> = (0..count).map(|_| noop::remote(&ray)).collect();
    let queued = queued.map_err(BenchError::raylet("submit"))?;
    sleep(REST);
    let after = measure()?;
    File::create(&gate).map_err(BenchError::system("the gate"))?;
    ray.get_all(&held).map_err(BenchError::raylet("get"))?;
    ray.get_all(&queued).map_err(BenchError::raylet("get"))?;
    Ok([0, 1].map(|at| after[at].saturating_sub(before[at]) as f64 / count as f64))
}

/// A raylet that has run one task and then been left alone.
fn idle_world() -> Result<World, BenchError> {
    let world = World::new(Room::Default)?;
    world.call()?;
    world.pid()?;
    sleep(REST);
    Ok(world)
}

/// Memory of an idle raylet, or of all processes that come from it too.
pub(super) fn idle_memory(with_family: bool) -> Result<Boxed, BenchError> {
    let world = idle_world()?;
    Ok(Box::new(move || {
        let raylet = world.pid()?;
        let counted = if with_family { family(raylet) } else { vec![raylet] };
        let bytes: Result<Vec<u64>, _> = counted.into_iter().map(pss_bytes_without_shared).collect();
        Ok(vec![bytes?.iter().sum::<u64>() as f64])
    }))
}

/// Processor time of an idle raylet and of all processes that come from it.
pub(super) fn idle_time(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = idle_world()?;
    let watched = Duration::from_secs(bench.effort.count(IDLE_SECONDS) as u64);
    Ok(Box::new(move || {
        let family = family(world.pid()?);
        let time = || -> Result<f64, BenchError> { family.iter().map(|pid| cpu_nanos(*pid)).sum() };
        let before = time()?;
        sleep(watched);
        Ok(vec![time()? - before])
    }))
}
