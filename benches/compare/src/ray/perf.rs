//! Ray's own microbenchmark, a row at a time: the file of Ray's wheel, unmodified, on both sides.
//!
//! The one thing to know: each run is a process that runs the whole file with all rows but one left out,
//! which is the file's own option; so ours and Ray's take turns row by row, and one that hangs costs one
//! row. A run gives one figure, the mean that it prints.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::program::Program;
use super::side::Side;
use crate::error::BenchError;
use crate::python::script_path;
use crate::run::{Bench, Boxed};

/// A run takes some fifteen seconds beside its warm-up.
const LIMIT_SECONDS: u64 = 110;
/// The file, below an environment's packages.
const RAY_PERF: &str = "ray/_private/ray_perf.py";

/// The figure of one row, a run a round.
pub(super) fn contender(row: &'static str, side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let warm_up_seconds = bench.perf.warm_up_seconds;
    let program = program(row, warm_up_seconds, side, bench)?;
    Ok(Box::new(move || {
        let said = program.run(side.module(), LIMIT_SECONDS + warm_up_seconds.ceil() as u64)?;
        let answer = || BenchError::Answer { peer: side.module(), answer: said.trim().to_owned() };
        Ok(vec![figure(row, &said).ok_or_else(answer)?])
    }))
}

fn program(row: &str, warm_up_seconds: f64, side: Side, bench: &Bench) -> Result<Program, BenchError> {
    let ray_perf = ray_perf(&Side::Ray.interpreter(bench)?)?;
    // Ours runs the same script, which imports ray, the way any program of Ray's is run on ours.
    let mut arguments: Vec<OsString> = match side {
        Side::Ours => ["-m", "raylet", "run"].map(OsString::from).into(),
        Side::Ray => vec![],
    };
    arguments.extend([script_path("ray_perf_rows.py").into(), ray_perf.into(), warm_up_seconds.to_string().into()]);
    let environment = vec![("TESTS_TO_RUN", row.into()), ("TESTS_TO_SKIP", "client:".into())];
    Ok(Program { interpreter: side.interpreter(bench)?, arguments, environment })
}

/// The file in the environment of this interpreter.
fn ray_perf(interpreter: &Path) -> Result<PathBuf, BenchError> {
    let libraries = interpreter.ancestors().nth(2).unwrap_or(interpreter).join("lib");
    let versions = fs::read_dir(libraries).map_err(BenchError::system("the packages of Ray's environment"))?;
    let mut files = versions.flatten().map(|version| version.path().join("site-packages").join(RAY_PERF));
    files.find(|file| file.exists()).ok_or(BenchError::NotInstalled { peer: "ray" })
}

/// The mean in the line `<row> per second <mean> +- <deviation>`.
fn figure(row: &str, said: &str) -> Option<f64> {
    let figures = said.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(" per second "))?;
    figures.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_a_row_is_found_among_others() {
        let said = "Tip: ...\n1:1 actor calls sync per second 685.03 +- 202.67\nput per second 1.5e-05 +- 0.0\n";
        assert_eq!(figure("1:1 actor calls sync", said), Some(685.03));
        assert_eq!(figure("put", said), Some(1.5e-5));
        assert_eq!(figure("1:1 actor calls", said), None);
    }
}
