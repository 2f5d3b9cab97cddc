//! Why a task has no result: a value that stands in the result's place.
//!
//! The one thing to know: it is an object like any other (encoding *error*, MessagePack with named
//! fields), so it travels to whoever gets the result, and through tasks that have it as argument.
//! This file must not know who runs tasks.

use super::panic::Panic;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use store::Encoding;

use crate::value::Form;

/// What kept a task from its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// The function returned an error.
    Returned,
    /// The function panicked.
    Panicked,
    /// An argument did not decode as its parameter's type.
    Argument,
    /// What the function returned could not be stored.
    Result,
    /// The function returned another number of results than it declares.
    ResultCount,
    /// No such function in the worker's executable.
    UnknownFunction,
    /// Somebody cancelled it.
    Cancelled,
    /// It was not done in time.
    TimedOut,
    /// Its worker died, and its retries are used up.
    WorkerCrashed,
    /// Its actor is dead and will not come back.
    ActorDied,
    /// Its actor died during the call, and comes back.
    ActorUnavailable,
    /// An error of a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

impl TaskErrorKind {
    fn text(self) -> &'static str {
        match self {
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
            TaskErrorKind::Unknown => "failed",
        }
    }
}

/// Why a task has no result.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskError(Box<Said>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    kind: TaskErrorKind,
    function: String,
    message: String,
    backtrace: Option<String>,
    /// Functions that did not run because this stood in an argument's place, the first first.
    passed: Vec<String>,
}

impl TaskError {
    /// An error of the function called `function`.
    pub fn new(kind: TaskErrorKind, function: &str, message: &dyn fmt::Display) -> TaskError {
        let (function, message) = (function.to_owned(), message.to_string());
        TaskError(Box::new(Said { kind, function, message, backtrace: None, passed: Vec::new() }))
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
        let bytes = rmp_serde::to_vec_named(self).expect("text and numbers always encode");
        Form::Bytes { encoding: Encoding::Error, bytes: Cow::Owned(bytes), references: Vec::new() }
    }

    /// What the bytes of an error object say; whatever they are, it is an error.
    pub(crate) fn from_bytes(bytes: &[u8]) -> TaskError {
        let read = rmp_serde::from_slice(bytes);
        read.unwrap_or_else(|error| TaskError::new(TaskErrorKind::Unknown, "a task", &format_args!("{error}")))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.function, self.0.kind.text(), self.0.message)?;
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
