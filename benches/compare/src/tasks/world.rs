//! A raylet of a work, as a user has one: `init` and nothing else.
//!
//! The one thing to know: ours and the peer "self" of one work share a raylet, which ends with the
//! last of them. It starts while the harness is not pinned, so its processes run where they like; a
//! worker that stands for the other end of a pair is pinned from outside, as the peers' other ends are.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use raylet_client::prelude::{Config, Raylet, Transport};

use super::functions::{noop, worker_pid};
use crate::child::{OTHER_CORE, pin_process, unpinned};
use crate::error::BenchError;
use crate::processes::children;

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
    pub(super) fn shared(room: Room) -> Result<Rc<World>, BenchError> {
        SHARED.with_borrow_mut(|shared| {
            if let Some(world) = shared.upgrade() {
                return Ok(world);
            }
            let world = Rc::new(World::new(room)?);
            *shared = Rc::downgrade(&world);
            Ok(world)
        })
    }

    /// A raylet that nobody else uses.
    pub(super) fn new(room: Room) -> Result<World, BenchError> {
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
            pin_process(pid, OTHER_CORE);
        }
        Ok(())
    }
}

/// Starts a raylet of our own, whoever else runs one, with tasks on leased workers.
pub(super) fn init(room: Room) -> Result<Raylet, BenchError> {
    let capacity_bytes = match room {
        Room::Default => Config::default().capacity_bytes,
        Room::Large => CAPACITY_BYTES_LARGE,
    };
    let (address, transport) = (Some("local".to_owned()), Some(Transport::Direct));
    let config = Config { address, transport, capacity_bytes, ..Config::default() };
    Raylet::init(config).map_err(BenchError::raylet("init"))
}

/// The machine's clock, the same in every process.
pub(super) fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
    Duration::from(now).as_nanos() as u64
}
