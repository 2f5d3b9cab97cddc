//! Ray 2.60.0's object store through `ray.put` and `ray.get`.
//!
//! Setting: one node, no dashboard, unpinned (Ray brings some ten processes). Small values are
//! `bytes`, large ones a NumPy array of touched bytes; references are dropped untimed.

use crate::error::BenchError;
use crate::python::PythonPeer;
use crate::run::{Bench, Boxed, no_such_peer};
use crate::work::{LARGE_BYTES, Peer, Work};

const RAY: PythonPeer = PythonPeer { name: "ray", requirements: &["ray==2.60.0", "numpy"] };

/// Ray for a work.
pub fn contender(work: Work, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let (operation, count, bytes) = match work {
        Work::GetByIdHot => ("get", bench.effort.count(500), None),
        Work::PutSmall => ("put_small", bench.effort.count(300), None),
        Work::PutLargeWarm => ("put_large", bench.effort.count(4), Some(LARGE_BYTES)),
        _ => return no_such_peer(work, Peer::Ray),
    };
    let mut script = bench.environments.start(RAY)?;
    Ok(Some(Box::new(move || {
        let nanos = script.ask(operation, count)?;
        let in_unit = |each| bytes.map_or(each, |bytes| bytes as f64 / each);
        Ok(nanos.into_iter().map(in_unit).collect())
    })))
}
