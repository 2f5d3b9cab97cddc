//! Calls of tasks and actors: one after the other, at a pace, many at once, in a chain.
//!
//! The one thing to know: a call is what a user writes, from the submission to its value in hand; the
//! reference to the result goes within the time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use raylet_client::prelude::{ActorHandle, ObjectRef};

use super::functions::{Touched, after, echo, noop, take};
use super::work::{ARGUMENT_BYTES_LARGE, ARGUMENT_BYTES_SMALL, CHAIN_HOPS};
use super::world::{Room, World};
use crate::child::{HARNESS_CORE, OTHER_CORE, pin_process, pin_to_core, unpinned};
use crate::error::BenchError;
use crate::hogs::Hogs;
use crate::pace::{CALLS, at_pace};
use crate::plan::Setting;
use crate::run::{Bench, Boxed};
use crate::stats::{time_each, time_in_flight};

/// Tasks of one round in flight.
const IN_FLIGHT: usize = 200_000;
/// Calls of one round, one after the other.
const HOT: usize = 20_000;

/// A world whose answering worker is on the other core.
fn pair(room: Room) -> Result<Rc<World>, BenchError> {
    let world = World::shared(room)?;
    world.pin_worker()?;
    Ok(world)
}

/// Tasks one after the other.
pub(super) fn noop_hot(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Default)?;
    let count = bench.effort.count(HOT);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        time_each(count, || world.call())
    }))
}

fn timed_call(world: &World) -> Result<f64, BenchError> {
    let start = Instant::now();
    world.call()?;
    Ok(start.elapsed().as_nanos() as f64)
}

/// One task a millisecond.
pub(super) fn noop_asleep(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Default)?;
    let count = bench.effort.count(CALLS);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        at_pace(count, || timed_call(&world))
    }))
}

/// One task a millisecond, both cores busy with others.
pub(super) fn beside_hogs(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Default)?;
    let hogs = Hogs::start()?;
    let count = bench.effort.count(CALLS);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        hogs.beside(|| at_pace(count, || timed_call(&world)))
    }))
}

/// What the busy processes do while that goes on, or while the raylet only stands by.
pub(super) fn hogs_beside(setting: Setting, bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Default)?;
    let hogs = Hogs::start()?;
    let count = bench.effort.count(CALLS);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        let call = || match setting {
            Setting::Measured => timed_call(&world),
            Setting::Baseline => Ok(0.0),
        };
        Ok(vec![hogs.rate_beside(|| at_pace(count, call).map(drop))?])
    }))
}

/// Tasks completed a second.
pub(super) fn noops_in_flight(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let count = bench.effort.count(IN_FLIGHT);
    Ok(Box::new(move || {
        let submit = || noop::remote(&world.ray).map_err(BenchError::raylet("submit"));
        Ok(vec![unpinned(|| time_in_flight(count, submit, |done| await_unit(&world, &done)))?])
    }))
}

fn await_unit(world: &World, done: &ObjectRef<()>) -> Result<(), BenchError> {
    world.ray.get(done).map_err(BenchError::raylet("get"))
}

/// Nanoseconds of a whole chain by its length.
pub(super) fn chain_hop(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let hops = bench.effort.count(CHAIN_HOPS);
    Ok(Box::new(move || Ok(vec![unpinned(|| chain(&world, hops))? / hops as f64])))
}

fn chain(world: &World, hops: usize) -> Result<f64, BenchError> {
    let start = Instant::now();
    let mut last = world.ray.put(0_u64).map_err(BenchError::raylet("put"))?;
    for _ in 0..hops {
        last = after::remote(&world.ray, &last).map_err(BenchError::raylet("submit"))?;
    }
    let found = world.ray.get(&last).map_err(BenchError::raylet("get"))?;
    let nanos = start.elapsed().as_nanos() as f64;
    let expected = hops as u64;
    (found == expected).then_some(nanos).ok_or(BenchError::WrongBytes { expected, found })
}

/// An actor and its process' id, whose constructor has run.
fn actor(world: &World) -> Result<(ActorHandle<Touched>, u32), BenchError> {
    let actor = Touched::remote(&world.ray).map_err(BenchError::raylet("make an actor"))?;
    let birth = actor.birth().map_err(BenchError::raylet("call"))?;
    let (_, pid) = world.ray.get(&birth).map_err(BenchError::raylet("get"))?;
    Ok((actor, pid))
}

/// Calls of one actor, one after the other.
pub(super) fn actor_hot(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let (actor, pid) = actor(&world)?;
    pin_process(pid, OTHER_CORE);
    let count = bench.effort.count(HOT);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        time_each(count, || {
            let done = actor.touch().map_err(BenchError::raylet("call"))?;
            await_unit(&world, &done)
        })
    }))
}

/// Calls of one actor completed a second.
pub(super) fn actor_in_flight(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let (actor, _) = actor(&world)?;
    let count = bench.effort.count(IN_FLIGHT);
    Ok(Box::new(move || {
        let submit = || actor.touch().map_err(BenchError::raylet("call"));
        Ok(vec![unpinned(|| time_in_flight(count, submit, |done| await_unit(&world, &done)))?])
    }))
}

/// A put batch of one column with so many bytes.
fn put_batch(world: &World, bytes: usize) -> Result<ObjectRef<RecordBatch>, BenchError> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..(bytes / size_of::<i64>()) as i64));
    let batch = RecordBatch::try_from_iter([("number", column)]).expect("one column has one length");
    world.ray.put(batch).map_err(BenchError::raylet("put"))
}

/// Tasks one after the other that are given a batch.
pub(super) fn large_argument(setting: Setting, bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Large)?;
    let bytes = match setting {
        Setting::Measured => bench.effort.count(ARGUMENT_BYTES_LARGE),
        Setting::Baseline => ARGUMENT_BYTES_SMALL,
    };
    let batch = put_batch(&world, bytes)?;
    let expected = (bytes / size_of::<i64>()) as u64;
    let count = bench.effort.count(HOT / 10);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        time_each(count, || {
            let rows = take::remote(&world.ray, &batch).map_err(BenchError::raylet("submit"))?;
            let found = world.ray.get(&rows).map_err(BenchError::raylet("get"))?;
            (found == expected).then_some(()).ok_or(BenchError::WrongBytes { expected, found })
        })
    }))
}

/// A payload put, given to a task that returns it, and its result read.
pub(super) fn put_and_echo(payload: Bytes, count: usize, bench: &Bench) -> Result<Boxed, BenchError> {
    let world = pair(Room::Large)?;
    let count = bench.effort.count(count);
    Ok(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        time_each(count, || {
            let put = world.ray.put(&payload).map_err(BenchError::raylet("put"))?;
            let echoed = echo::remote(&world.ray, &put).map_err(BenchError::raylet("submit"))?;
            let echoed = world.ray.get(&echoed).map_err(BenchError::raylet("get"))?;
            let (expected, found) = (payload.len() as u64, echoed.len() as u64);
            (expected == found).then_some(()).ok_or(BenchError::WrongBytes { expected, found })
        })
    }))
}
