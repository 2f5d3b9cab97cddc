//! What a Python user has without Ray: `multiprocessing.Pool`, joblib's loky, `concurrent.futures`.
//!
//! Setting: as many processes as cores, unpinned, started before anything is timed; items go in chunks,
//! as each of them does by itself or, `ProcessPoolExecutor`, as it is told to.

use crate::plan::{Made, Peer};
use crate::python::PythonPeer;
use crate::run::Bench;

const SCRIPT: &str = "pools_peer.py";
const MULTIPROCESSING: PythonPeer =
    PythonPeer { name: "multiprocessing.Pool", script: SCRIPT, requirements: &[], arguments: &["multiprocessing"] };
const LOKY: PythonPeer =
    PythonPeer { name: "loky", script: SCRIPT, requirements: &["joblib==1.5.2"], arguments: &["loky"] };
const FUTURES: PythonPeer =
    PythonPeer { name: "concurrent.futures", script: SCRIPT, requirements: &[], arguments: &["futures"] };

/// Items a second of a list that is given to a pool.
pub fn contender(peer: Peer, operation: &'static str, count: usize, bench: &Bench) -> Made {
    let pool = match peer {
        Peer::Loky => LOKY,
        Peer::ConcurrentFutures => FUTURES,
        _ => MULTIPROCESSING,
    };
    let mut script = bench.environments.start(pool)?;
    Ok(Some(Box::new(move || Ok(script.ask(operation, count)?.into_iter().map(|each| 1e9 / each).collect()))))
}
