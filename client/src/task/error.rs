//! Why a task has no result: a value that stands in the result's place.
//!
//! The one thing to know: it is an object like any other (encoding *error*, MessagePack with named
//! fields), so it travels to whoever gets the result, and through tasks that have it as argument.
//! This file must not know who runs tasks.

use super::panic::Panic;
use raylet_api::Failure;
pub use raylet_api::TaskErrorKind;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use store::Encoding;

use crate::value::Form;

fn text(kind: TaskErrorKind) -> &'static str {
    match kind {
        TaskErrorKind::Returned => "returned an error",
        TaskErrorKind::Panicked => "panicked",
        TaskErrorKind::Argument => "could not read an argument",
        TaskErrorKind::Result => "could not store its result",
        TaskErrorKind::ResultCount => "returned a wrong number of results",
        TaskErrorKind::UnknownFunction => "is unknown to the worker",
        TaskErrorKind::Cancelled => "was cancelled",
        TaskErrorKind::TimedOut => "was not done in time",
        TaskErrorKind::WorkerCrashed => "lost its worker",
        TaskErrorKind::ActorDied => "found its actor dead",
        TaskErrorKind::ActorUnavailable => "lost its actor, which is being restarted: try again",
        TaskErrorKind::CallerDied => "was never begun, as whoever submitted it is gone",
        TaskErrorKind::Refused => "cannot run",
        TaskErrorKind::ObjectLost => "had a value that is lost",
        TaskErrorKind::ReconstructionFailed => "had a value that is lost, and made another one when it ran again",
        _ => "failed",
    }
}

/// Why a task has no result.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskError(Box<Failure>);

impl TaskError {
    /// An error of the function called `function`.
    pub fn new(kind: TaskErrorKind, function: &str, message: &dyn fmt::Display) -> TaskError {
        TaskError(Box::new(Failure::new(kind, function, message.to_string())))
    }

    /// An error that another language made: `payload` is its own, which its reader understands; an
    /// `is_final` one is not tried again where others of the application are.
    pub fn foreign(kind: TaskErrorKind, function: &str, message: &str, payload: Vec<u8>, is_final: bool) -> TaskError {
        let failure = Failure::new(kind, function, message);
        TaskError(Box::new(Failure { payload, is_final, ..failure }))
    }

    /// What another language's reader makes its own error of; empty where Rust made it.
    pub fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Whether it is not to be tried again where others of the application are.
    pub(crate) fn is_final(&self) -> bool {
        self.0.is_final
    }

    pub(crate) fn panicked(function: &str, panic: Panic) -> TaskError {
        let mut error = TaskError::new(TaskErrorKind::Panicked, function, &panic.message);
        error.0.backtrace = panic.backtrace;
        error
    }

    /// The same, in the place of the result of `function`, of which it was an argument.
    pub(crate) fn pass(mut self, function: &str) -> TaskError {
        self.0.passed.push(function.to_owned());
        self
    }

    /// What kept the task from its result.
    pub fn kind(&self) -> TaskErrorKind {
        self.0.kind
    }

    /// Path of the function that failed.
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// The error's or panic's own words; a panic's end with its place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The stack where it panicked.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// Functions that did not run because of it, from the one that had it as argument on.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        self.0.passed.iter().map(String::as_str)
    }

    /// As an object's bytes.
    pub(crate) fn form(&self) -> Form<'static> {
        Form::Bytes { encoding: Encoding::Error, bytes: Cow::Owned(self.0.to_bytes()), references: Vec::new() }
    }

    /// What the bytes of an error object say; whatever they are, it is an error.
    pub fn from_bytes(bytes: &[u8]) -> TaskError {
        TaskError(Box::new(Failure::from_bytes(bytes)))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.function, text(self.0.kind), self.0.message)?;
        self.0.passed.iter().try_for_each(|function| write!(f, "; so {function} did not run"))
    }
}

/// For people who end `main` with it: the backtrace, too.
impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.0.backtrace.iter().try_for_each(|backtrace| write!(f, "\n{backtrace}"))
    }
}

impl std::error::Error for TaskError {}
