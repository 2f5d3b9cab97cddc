//! Plasma: `pyarrow` 10.0.1, the last line of wheels with its server, through its Python client.
//!
//! Setting: the server is started by the script with memory for everything; neither side is pinned,
//! which its large puts gain from. A small put is `create_and_seal`, its one-message form; a large
//! one `put_raw_buffer` with its six copying threads. A get is `get_buffers` and the first line read,
//! then the buffer let go, by a client that has the memory mapped but holds nothing of the object.

use crate::error::BenchError;
use crate::plan::Peer;
use crate::python::{PythonPeer, Script};
use crate::run::{Bench, Boxed, no_such_peer};
use crate::store::work::{LARGE_BYTES, StoreWork};

const PLASMA: PythonPeer = PythonPeer {
    name: "plasma",
    script: "plasma_peer.py",
    requirements: &["pyarrow==10.0.1", "numpy<2"],
    arguments: &[],
};

/// Plasma for a work.
pub fn contender(work: StoreWork, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let count = |full| bench.effort.count(full);
    match work {
        StoreWork::GetByHandleHot | StoreWork::GetByIdHot => asking(bench, "get", count(1_000)),
        StoreWork::PutSmall => asking(bench, "put_small", count(1_000)),
        StoreWork::GetTable => asking(bench, "get_table", count(200)),
        StoreWork::PutLargeWarm => rates(bench, "put_large", LARGE_BYTES, count(8)),
        StoreWork::FirstFullRead => rates(bench, "first_read", 1 << 30, 1),
        _ => no_such_peer(work, Peer::Plasma),
    }
}

/// Gets of an object the client already holds: counted in the client, no message.
pub fn held(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    asking(bench, "get_held", bench.effort.count(5_000))
}

fn asking(bench: &Bench, operation: &'static str, count: usize) -> Result<Option<Boxed>, BenchError> {
    let mut script: Script = bench.environments.start(PLASMA)?;
    Ok(Some(Box::new(move || script.ask(operation, count))))
}

fn rates(bench: &Bench, operation: &'static str, bytes: usize, count: usize) -> Result<Option<Boxed>, BenchError> {
    let mut script = bench.environments.start(PLASMA)?;
    Ok(Some(Box::new(move || {
        let nanos = script.ask(operation, count)?;
        Ok(nanos.into_iter().map(|each| bytes as f64 / each).collect())
    })))
}
