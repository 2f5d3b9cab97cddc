//! A shell in a directory of sessions of its own, for the tests of the command line.
//!
//! The one thing to know: whatever a test started is ended with its shell, even by a failure. This file
//! must not test anything.

// Each test target uses its part of this.
#![allow(dead_code)]

use raylet::session::{self, Record};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory for sessions and a way to type commands.
pub(crate) struct Shell {
    pub(crate) base: tempfile::TempDir,
    pub(crate) directory: PathBuf,
}

impl Shell {
    pub(crate) fn new() -> Shell {
        Shell::with_depth(0)
    }

    /// A directory whose path is longer by `depth` bytes than need be.
    pub(crate) fn with_depth(depth: usize) -> Shell {
        let base = tempfile::tempdir().unwrap();
        let mut directory = base.path().to_owned();
        if depth > 0 {
            directory.push("d".repeat(depth));
        }
        Shell { base, directory }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raylet"));
        command.args(words).env("RAYLET_DIR", &self.directory).env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must end with `code`; returns what it printed.
    #[track_caller]
    pub(crate) fn check(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {out}{err}");
        match code {
            0 => out,
            _ => err,
        }
    }

    /// What a command that must succeed prints for programs.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> serde_json::Value {
        let words: Vec<&str> = words.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.check(&words, 0)).unwrap()
    }

    pub(crate) fn record(&self, session: &str) -> Option<Record> {
        session::record(&self.directory.join(session))
    }

    pub(crate) fn sessions(&self) -> usize {
        std::fs::read_dir(&self.directory).map_or(0, Iterator::count)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            self.run(&["stop", "--force", "--session", &name]);
        }
        let _ = session::sweep_stale(&self.directory);
        // The directory itself goes with `base`.
        let _ = self.base.path();
    }
}

/// The number behind a metric's name.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
}

/// What a raylet's port answers to a request of these lines.
pub(crate) fn http(port: u64, lines: &[&str]) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
    stream.write_all((lines.join("\r\n") + "\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
