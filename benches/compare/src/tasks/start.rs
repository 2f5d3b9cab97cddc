//! How long it takes until something runs: a worker, a raylet, a driver with a raylet of its own.
//!
//! The one thing to know: a worker counts only if its process did not exist when the work was
//! submitted; those that were forked ahead of demand answer sooner and are left out.

use std::time::Instant;

use raylet_client::prelude::ActorHandle;
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
/// Actors made at once: more than there are workers that stand by.
const AT_ONCE: usize = 6;

/// From the making of some actors at once to the first instruction of one in a worker that did not
/// exist: the raylet forks ahead of demand, and who is made first finds a worker that stands by.
pub(super) fn worker(bench: &Bench) -> Result<Boxed, BenchError> {
    let world = World::shared(Room::Default)?;
    let count = bench.effort.count(STARTS);
    Ok(Box::new(move || unpinned(|| (0..count).map(|_| first_birth(&world)).collect())))
}

fn first_birth(world: &World) -> Result<f64, BenchError> {
    let before = family(world.pid()?);
    let start = now_nanos();
    let make = |_| Touched::remote(&world.ray).map_err(BenchError::raylet("make an actor"));
    let actors: Vec<_> = (0..AT_ONCE).map(make).collect::<Result<_, _>>()?;
    let births: Vec<(u64, u32)> = actors.iter().map(|actor| birth(world, actor)).collect::<Result<_, _>>()?;
    actors.iter().for_each(|actor| world.ray.kill(actor));
    let new = births.iter().filter(|(_, pid)| !before.contains(pid)).map(|(born, _)| *born);
    let what = "workers that did not exist before";
    let first = new.min().ok_or(BenchError::TooFew { what, found: 0, wanted: 1 })?;
    Ok(first.saturating_sub(start) as f64)
}

fn birth(world: &World, actor: &ActorHandle<Touched>) -> Result<(u64, u32), BenchError> {
    let birth = actor.birth().map_err(BenchError::raylet("call"))?;
    world.ray.get(&birth).map_err(BenchError::raylet("get"))
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
