//! How long it takes until something runs: a worker, a raylet, a driver with a raylet of its own.
//!
//! The one thing to know: a worker counts only if its process did not exist when the work was
//! submitted; one that was forked ahead of demand answers sooner and is left out.

use std::time::Instant;

use raylet_client::role::start_raylet;
use raylet_client::{Client, ConnectOptions};

use super::functions::{Touched, noop};
use super::role::first_line;
use super::world::{Room, World, init, now_nanos};
use crate::child::unpinned;
use crate::error::BenchError;
use crate::processes::family;
use crate::run::{Bench, Boxed};
use crate::scratch;

/// Starts of one round.
const STARTS: usize = 20;

/// From the making of an actor to its first instruction, in a worker that did not exist.
pub(super) fn worker(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let count = bench.effort.count(STARTS);
    Ok(Box::new(move || {
        let births: Result<Vec<_>, _> = unpinned(|| (0..2 * count).map(|_| birth(&world)).collect());
        let samples: Vec<f64> = births?.into_iter().flatten().collect();
        let (found, wanted) = (samples.len() as u64, count as u64);
        let what = "workers that did not exist before";
        (found >= wanted).then_some(samples).ok_or(BenchError::TooFew { what, found, wanted })
    }))
}

/// None where the worker was there before.
fn birth(world: &World) -> Result<Option<f64>, BenchError> {
    let before = family(world.pid()?);
    let start = now_nanos();
    let actor = Touched::remote(&world.ray).map_err(BenchError::raylet("make an actor"))?;
    let birth = actor.birth().map_err(BenchError::raylet("call"))?;
    let (born, pid) = world.ray.get(&birth).map_err(BenchError::raylet("get"))?;
    world.ray.kill(&actor);
    Ok((!before.contains(&pid)).then(|| born.saturating_sub(start) as f64))
}

/// From the start of the raylet's executable to the answer to a hello.
pub(super) fn raylet(bench: &Bench) -> Result<Boxed, BenchError> {
    let directory = scratch::on_disk()?;
    let count = bench.effort.count(STARTS);
    Ok(Box::new(move || {
        let base = directory.path().to_owned();
        let config = raylet_client::Config { base, session: "ready".to_owned(), ..raylet_client::Config::default() };
        unpinned(|| (0..count).map(|_| raylet_once(&config)).collect())
    }))
}

fn raylet_once(config: &raylet_client::Config) -> Result<f64, BenchError> {
    let start = Instant::now();
    let raylet = start_raylet(config).map_err(BenchError::raylet("start"))?;
    let client = Client::connect(&ConnectOptions::at(raylet.session_directory()));
    let nanos = start.elapsed().as_nanos() as f64;
    client.map_err(BenchError::raylet("hello"))?;
    Ok(nanos)
}

/// From `init` to the first result, each in a process of its own.
pub(super) fn embedded(bench: &Bench) -> Result<Boxed, BenchError> {
    let count = bench.effort.count(STARTS / 2);
    Ok(Box::new(move || unpinned(|| (0..count).map(|_| Ok(first_line::<1>("embedded-start")?[0])).collect())))
}

/// The process of its own.
pub(super) fn embedded_role() -> Result<[f64; 1], BenchError> {
    let start = Instant::now();
    let ray = init(Room::Default)?;
    let done = noop::remote(&ray).map_err(BenchError::raylet("submit"))?;
    ray.get(&done).map_err(BenchError::raylet("get"))?;
    Ok([start.elapsed().as_nanos() as f64])
}
