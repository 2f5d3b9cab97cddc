//! A raylet of a work, as a user has one: `init` and nothing else.
//!
//! The one thing to know: ours and the peer "self" of one work share a raylet, which ends with the
//! last of them. It starts while the harness is not pinned, so its processes run where they like; a
//! worker that stands for the other end of a pair is pinned from outside, as the peers' other ends are.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use raylet_client::prelude::{Config, Mode, Raylet};

use super::functions::{noop, worker_pid};
use crate::child::{OTHER_CORE, pin_process, unpinned};
use crate::error::BenchError;
use crate::processes::children;
use crate::run::Bench;

/// Room for a few of the largest objects.
const CAPACITY_BYTES_LARGE: u64 = 6 << 30;
/// Calls by which the worker that answers calls is found.
const CALLS: usize = 32;

thread_local! {
    static SHARED: RefCell<Weak<World>> = RefCell::default();
}

/// What a raylet has room for.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// What `init` gives who says nothing.
    Default,
    /// Objects of a gibibyte.
    Large,
}

/// A raylet and the process that it is.
pub(super) struct World {
    pub(super) ray: Raylet,
    pid: Option<u32>,
}

impl World {
    /// The raylet of the work that is being measured.
    pub(super) fn shared(room: Room, bench: &Bench) -> Result<Rc<World>, BenchError> {
        SHARED.with_borrow_mut(|shared| {
            if let Some(world) = shared.upgrade() {
                return Ok(world);
            }
            let world = Rc::new(World::new(room, bench)?);
            *shared = Rc::downgrade(&world);
            Ok(world)
        })
    }

    /// A raylet that nobody else uses.
    pub(super) fn new(room: Room, bench: &Bench) -> Result<World, BenchError> {
        check_mode(bench)?;
        let before = children(std::process::id());
        let ray = unpinned(|| init(room))?;
        let pid = children(std::process::id()).into_iter().find(|child| !before.contains(child));
        Ok(World { ray, pid })
    }

    /// The raylet's process.
    pub(super) fn pid(&self) -> Result<u32, BenchError> {
        self.pid.ok_or(BenchError::TooFew { what: "processes of a raylet", found: 0, wanted: 1 })
    }

    /// One call of the task that does nothing.
    pub(super) fn call(&self) -> Result<(), BenchError> {
        let done = noop::remote(&self.ray).map_err(BenchError::raylet("submit"))?;
        self.ray.get(&done).map_err(BenchError::raylet("get"))
    }

    /// Gives the worker that answers one call after the other the other core.
    pub(super) fn pin_worker(&self) -> Result<(), BenchError> {
        for _ in 0..CALLS {
            let pid = worker_pid::remote(&self.ray).map_err(BenchError::raylet("submit"))?;
            let pid = self.ray.get(&pid).map_err(BenchError::raylet("get"))?;
            pin_if_other(pid);
        }
        Ok(())
    }
}

/// Pins a process, unless it is this one: in local mode tasks run here.
pub(super) fn pin_if_other(pid: u32) {
    if pid != std::process::id() {
        pin_process(pid, OTHER_CORE);
    }
}

/// Starts a raylet as the README says.
pub(super) fn init(room: Room) -> Result<Raylet, BenchError> {
    let config = match room {
        Room::Default => Config::default(),
        Room::Large => Config { capacity_bytes: CAPACITY_BYTES_LARGE, ..Config::default() },
    };
    Raylet::init(config).map_err(BenchError::raylet("init"))
}

/// Without workers nothing here means anything.
pub(super) fn check_mode(bench: &Bench) -> Result<(), BenchError> {
    let has_workers = Config::default().mode != Mode::Local;
    let is_smoke_run = bench.effort.divisor > 1;
    let missing = BenchError::TooFew { what: "workers in local mode", found: 0, wanted: 1 };
    (has_workers || is_smoke_run).then_some(()).ok_or(missing)
}

/// The machine's clock, the same in every process.
pub(super) fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
    Duration::from(now).as_nanos() as u64
}
