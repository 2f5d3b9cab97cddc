//! A program started the way everybody starts one: spawn, its end, its exit status.
//!
//! The one thing to know: it is `/bin/true`, the least there is; a program that joined a store and took
//! work would need longer.

use std::process::{Command, Stdio};

use crate::child::unpinned;
use crate::error::BenchError;
use crate::plan::Made;
use crate::run::Bench;
use crate::stats::time_each;

/// From the start of the program to its end.
pub fn contender(bench: &Bench) -> Made {
    let count = bench.effort.count(100);
    Ok(Some(Box::new(move || unpinned(|| time_each(count, spawn)))))
}

fn spawn() -> Result<(), BenchError> {
    let ended = Command::new("/bin/true").stdin(Stdio::null()).status().map_err(BenchError::system("/bin/true"))?;
    ended.success().then_some(()).ok_or(BenchError::Answer { peer: "/bin/true", answer: ended.to_string() })
}
