//! Python's `multiprocessing.shared_memory`: a block created and 100 bytes written into it.
//!
//! Setting: one named block for each object, as the module has it; closing and unlinking are not
//! timed.

use crate::error::BenchError;
use crate::python::PythonPeer;
use crate::run::{Bench, Boxed};

const MULTIPROCESSING: PythonPeer =
    PythonPeer { name: "multiprocessing", script: "multiprocessing_peer.py", requirements: &[], arguments: &[] };

/// Small puts, the only work it is asked for.
pub fn contender(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let mut script = bench.environments.start(MULTIPROCESSING)?;
    let count = bench.effort.count(2_000);
    Ok(Some(Box::new(move || script.ask("put_small", count))))
}
