//! The bench of tasks and actors: its table, and our side of every work.
//!
//! The one thing to know: everything here goes through what a user writes: `init`, `remote`, `put`,
//! `get`. Only who is looked at from outside (memory, time, processes) is asked of the kernel.

mod calls;
mod demo;
mod footprint;
mod functions;
mod role;
mod start;
pub mod work;
mod world;

use bytes::Bytes;

use crate::error::BenchError;
use crate::peers::{futex, grpc, iceoryx2, pipe, pools, ray, spawn};
use crate::plan::{Made, Peer, Setting, Work};
use crate::run::{Bench, Boxed, no_such_peer};
use footprint::Whose;
use work::{ARGUMENT_BYTES_LARGE, TaskWork};

pub use role::role;

impl Work for TaskWork {
    fn ours(self, setting: Setting, bench: &Bench) -> Made {
        ours(self, setting, bench).map(Some)
    }

    fn peer(self, peer: Peer, bench: &Bench) -> Made {
        match (peer, self) {
            (Peer::Ray, work) => ray::tasks(work, bench),
            (Peer::Iceoryx2, _) => iceoryx2::request_response::contender(bench),
            (Peer::Futex, TaskWork::BesideHogs) => futex::beside_hogs(bench),
            (Peer::Futex, _) => futex::paced(bench),
            (Peer::Pipe, _) => pipe::paced(bench),
            (Peer::Rayon, _) => pools::rayon(bench),
            (Peer::ThreadPool, _) => pools::thread_pool(bench),
            (Peer::ProcessSpawn, _) => spawn::contender(bench),
            (Peer::Grpc, TaskWork::Echo(bytes)) => grpc::contender(payload(bytes, bench), echoes(bytes), bench),
            (Peer::Ideal, work) => demo::contender(work, demo::Who::Ideal, bench).map(Some),
            _ => no_such_peer(self, peer),
        }
    }
}

fn ours(work: TaskWork, setting: Setting, bench: &Bench) -> Result<Boxed, BenchError> {
    match work {
        TaskWork::NoopHot => calls::noop_hot(bench),
        TaskWork::NoopAsleep => calls::noop_asleep(bench),
        TaskWork::NoopsInFlight => calls::noops_in_flight(bench),
        TaskWork::ChainHop => calls::chain_hop(bench),
        TaskWork::ActorHot => calls::actor_hot(bench),
        TaskWork::ActorInFlight => calls::actor_in_flight(bench),
        TaskWork::LargeArgument => calls::large_argument(setting, bench),
        TaskWork::BesideHogs => calls::beside_hogs(bench),
        TaskWork::HogsBesidePair => calls::hogs_beside(setting, bench),
        TaskWork::WorkerStart => start::worker(bench),
        TaskWork::RayletReady => start::raylet(bench),
        TaskWork::EmbeddedStart => start::embedded(bench),
        TaskWork::QueuedTask => footprint::queued_task(Whose::Raylet, bench),
        TaskWork::QueuedTaskAndCaller => footprint::queued_task(Whose::RayletAndCaller, bench),
        TaskWork::IdleMemory => footprint::idle_memory(false),
        TaskWork::IdleFamilyMemory => footprint::idle_memory(true),
        TaskWork::IdleTime => footprint::idle_time(bench),
        TaskWork::Echo(bytes) => calls::put_and_echo(payload(bytes, bench), echoes(bytes), bench),
        TaskWork::DemoMap | TaskWork::DemoWhole => demo::contender(work, demo::Who::Ours, bench),
    }
}

/// So many touched bytes, none of them zero; the largest are less in a smoke run.
fn payload(bytes: usize, bench: &Bench) -> Bytes {
    let bytes = bytes.min(bench.effort.count(ARGUMENT_BYTES_LARGE));
    (0..bytes).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 11) as u8 | 1).collect()
}

/// Echoes of one round: as many as fit into a few hundred mebibytes, at most a thousand.
fn echoes(bytes: usize) -> usize {
    ((256 << 20) / bytes).clamp(1, 1_000)
}
