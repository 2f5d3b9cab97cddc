//! The two sides of every program: an interpreter and the name of the package that it imports.
//!
//! The one thing to know: whatever runs on one side runs on the other, from the same file.

use std::path::PathBuf;

use crate::error::BenchError;
use crate::peers::ray;
use crate::python::{Script, script_path};
use crate::run::Bench;

/// Whose package a program imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Ours.
    Ours,
    /// Ray's.
    Ray,
}

impl Side {
    /// What the program imports.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Ours => "raylet",
            Self::Ray => "ray",
        }
    }

    /// An interpreter that has it.
    pub(super) fn interpreter(self, bench: &Bench) -> Result<PathBuf, BenchError> {
        match self {
            Self::Ours => bench.environments.ours(),
            Self::Ray => bench.environments.interpreter(ray::peer("", &[])),
        }
    }

    /// A script that takes commands, told the name of the package.
    pub(super) fn start(self, script: &str, bench: &Bench) -> Result<Script, BenchError> {
        Script::start(self.module(), &self.interpreter(bench)?, &script_path(script), &[self.module()])
    }
}
