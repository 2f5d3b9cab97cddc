//! The demo beside its ideal: plain processes, one for each core, on the same corpus.
//!
//! The one thing to know: both are the demo's own executable, built beside this one, and say what they
//! took. One run gives the map operators and the whole, so the second of the two works shows the other
//! half of the runs that the first one made.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Stdio;

use serde::Deserialize;

use super::work::{DEMO_BYTES, TaskWork};
use crate::child::{role_command, unpinned};
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::scratch;

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// Tasks on workers.
    Ours,
    /// Processes without a raylet.
    Ideal,
}

/// What a run says.
#[derive(Clone, Copy, Deserialize)]
struct Run {
    map_seconds: f64,
    whole_seconds: f64,
}

thread_local! {
    /// Runs of ours, and of the ideal.
    static RUNS: RefCell<[Vec<Run>; 2]> = RefCell::default();
}

/// Nanoseconds of the demo's map operators or of the whole, a run a round.
pub(super) fn contender(work: TaskWork, who: Who, bench: &Bench) -> Result<Boxed, BenchError> {
    let bytes = bench.effort.count(DEMO_BYTES);
    let mut rounds = 0;
    Ok(Box::new(move || {
        let run = run_of_round(rounds, who, bytes)?;
        rounds += 1;
        let seconds = if work == TaskWork::DemoMap { run.map_seconds } else { run.whole_seconds };
        Ok(vec![seconds * 1e9])
    }))
}

/// The run of this round, if another work has made it; else a new one.
fn run_of_round(round: usize, who: Who, bytes: usize) -> Result<Run, BenchError> {
    let known = RUNS.with_borrow(|runs| runs[who as usize].get(round).copied());
    if let Some(run) = known {
        return Ok(run);
    }
    let run = unpinned(|| run(who, bytes))?;
    RUNS.with_borrow_mut(|runs| runs[who as usize].push(run));
    Ok(run)
}

/// Beside this executable, where cargo puts examples.
fn executable() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(BenchError::system("our own path"))?;
    let demo = own.with_file_name("examples").join("demo");
    let is_there = demo.try_exists().map_err(BenchError::system("the demo's executable"))?;
    is_there
        .then_some(demo)
        .ok_or(BenchError::NotBuilt { what: "example demo of raylet-client", target: "bench-tasks" })
}

fn run(who: Who, bytes: usize) -> Result<Run, BenchError> {
    let directory = scratch::on_disk()?;
    let mode = match who {
        Who::Ours => "--measure",
        Who::Ideal => "--ideal",
    };
    let mut command = role_command(&["run"])?;
    command.arg("--").arg(executable()?).args([mode, "--json", "--to-bytes", &bytes.to_string(), "--output"]);
    let output = command.arg(directory.path()).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let said = output.map_err(BenchError::system("the demo"))?.stdout;
    let answer = || BenchError::Answer { peer: "demo", answer: String::from_utf8_lossy(&said).trim().to_owned() };
    serde_json::from_slice(&said).map_err(|_| answer())
}
