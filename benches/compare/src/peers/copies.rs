//! The copies of `ray_perf.py`'s two rows of gigabytes and nothing else, by NumPy's source and libc's copy.
//!
//! Setting: unpinned, the destination warm 4 KiB pages of shared memory. The source is what the rows have:
//! zeroes that nobody has written, 800 MiB read again and again, or 80 MiB made anew for each copy by as
//! many processes as there are cores.

use crate::error::BenchError;
use crate::peers::ray;
use crate::python::PythonPeer;
use crate::ray::work::Copies;
use crate::run::{Bench, Boxed};

/// Whose NumPy makes the source is all the same.
const COPIES: PythonPeer = ray::peer("memcpy_peer.py", &[]);
/// Calls of a round.
const CALLS_SINGLE: usize = 100;
const CALLS_MULTI: usize = 10;

/// Gigabytes a second as the row counts them: 0.8 for 800 MiB.
pub fn contender(which: Copies, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let mut script = bench.environments.start(COPIES)?;
    let (operation, count, gigabytes) = match which {
        Copies::Single => ("single_put", bench.effort.count(CALLS_SINGLE), 0.8),
        Copies::Multi => ("multi_put", bench.effort.count(CALLS_MULTI), 8.0),
    };
    Ok(Some(Box::new(move || {
        let nanos = script.ask(operation, count)?;
        Ok(nanos.into_iter().map(|each| gigabytes * 1e9 / each).collect())
    })))
}
