//! A Python program that is run to its end, within a time.
//!
//! The one thing to know: it ends when the harness does, and the kernel ends it when its time is over;
//! whatever session it has started ends with it. What it says on standard error is shown only if it fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::child::{role_command, unpinned};
use crate::error::BenchError;
use crate::scratch;

/// Lines of standard error that say why it failed.
const LAST_WORDS: usize = 6;

/// What is run.
pub(super) struct Program {
    /// The interpreter.
    pub(super) interpreter: PathBuf,
    /// The script and what it is told.
    pub(super) arguments: Vec<OsString>,
    /// Variables besides those of the harness.
    pub(super) environment: Vec<(&'static str, OsString)>,
}

impl Program {
    /// What it says on standard output. `who` it is stands in the error.
    pub(super) fn run(&self, who: &'static str, limit_seconds: u64) -> Result<String, BenchError> {
        let directory = scratch::on_disk()?;
        let (said, complained) = (directory.path().join("output"), directory.path().join("errors"));
        let mut command = role_command(&["run", "--seconds", &limit_seconds.to_string()])?;
        command.arg("--").arg(&self.interpreter).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A session of its own, below a directory that is removed: nobody's else is found or joined.
        command.env_remove("RAY_ADDRESS").env("RAY_TMPDIR", directory.path());
        command.env("PYTHONWARNINGS", "ignore").env("PYTHONUNBUFFERED", "1");
        command.stdin(Stdio::null()).stdout(file(&said)?).stderr(file(&complained)?);
        let status = unpinned(|| command.status()).map_err(BenchError::system("a program"))?;
        if status.success() {
            return fs::read_to_string(said).map_err(BenchError::system("what a program said"));
        }
        Err(BenchError::Answer { peer: who, answer: format!("{status}: {}", last_words(&complained)) })
    }
}

fn file(path: &Path) -> Result<File, BenchError> {
    File::create(path).map_err(BenchError::system("a program's output"))
}

fn last_words(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
}
