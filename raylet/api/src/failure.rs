//! What stands in the place of a result that there is not: the bytes of an error object.
//!
//! The one thing to know: workers, callers and the raylet all make them, and whoever gets the result
//! reads them; MessagePack with named fields, so a field may be added. This file must not know what
//! an object is.

use serde::{Deserialize, Serialize};

/// What kept a task from its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Whoever submitted it is gone, and it was not under way yet.
    CallerDied,
    /// Its actor is dead and will not come back.
    ActorDied,
    /// Its actor died during the call, and comes back.
    ActorUnavailable,
    /// The raylet cannot run it: a limit, a placement group that is gone, workers that do not start.
    Refused,
    /// Its value is gone, and cannot be made again.
    ObjectLost,
    /// Its value is gone, and what its task made when it ran again is something else.
    ReconstructionFailed,
    /// An error of a kind that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Why a task has no result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// What kept it from one.
    pub kind: TaskErrorKind,
    /// Path of the function.
    pub function: String,
    /// The error's or panic's own words.
    pub message: String,
    /// The stack where it panicked.
    pub backtrace: Option<String>,
    /// What another language's reader makes its own error of.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// Not to be tried again; only the worker that made it asks.
    #[serde(skip)]
    pub is_final: bool,
    /// Functions that did not run because this stood in an argument's place, the first first.
    pub passed: Vec<String>,
}

impl Failure {
    /// Of a function, for people.
    pub fn new(kind: TaskErrorKind, function: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { kind, function: function.into(), message: message.into(), ..Failure::default() }
    }

    /// As an object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("text and numbers always encode")
    }

    /// What the bytes of an error object say; whatever they are, it is a failure.
    pub fn from_bytes(bytes: &[u8]) -> Failure {
        let read = rmp_serde::from_slice(bytes);
        read.unwrap_or_else(|error| Failure::new(TaskErrorKind::Unknown, "a task", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_back_and_other_bytes_are_failures_too() {
        let failure = Failure::new(TaskErrorKind::Cancelled, "f", "by hand");
        assert_eq!(Failure::from_bytes(&failure.to_bytes()), failure);
        for bytes in [&b""[..], b"\xff", b"GET /"] {
            assert_eq!(Failure::from_bytes(bytes).kind, TaskErrorKind::Unknown, "{bytes:?}");
        }
    }
}
