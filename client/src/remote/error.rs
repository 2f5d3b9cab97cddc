//! What can go wrong between a program and its raylet.
//!
//! The one thing to know: an error of a *task* is a value that stands in its result's place
//! ([`TaskError`]); what is here happens to the call itself. This file must not hold what the store says.

use crate::error::ConnectError;
use crate::task::error::TaskError;
use crate::task::{DuplicateFunction, OptionsError};
use crate::value::ValueError;
use raylet_api::work::RefusalCode;
use std::path::PathBuf;
use std::time::Duration;
use store::{CreateError, GetError, ObjectId, OpenError};
use store_shm::queue::{Broken, QueueError};

/// There is no raylet to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// No store could be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Two remote functions look the same to a worker.
    #[error(transparent)]
    DuplicateFunction(#[from] DuplicateFunction),
    /// The raylet could not be joined; [`ConnectError::NotRunning`] where only joining was asked for.
    #[error("cannot join the raylet at {}", directory.display())]
    Connect {
        /// The session's directory.
        directory: PathBuf,
        /// Why.
        source: ConnectError,
    },
    /// An address that names no session.
    #[error("{address:?} is no address of a raylet: a session's name or directory, or \"auto\"")]
    Address {
        /// What was given.
        address: String,
    },
    /// None runs, and this build cannot start one.
    #[error("no raylet runs, and without the feature `embedded` none is started: `raylet start`, then init again")]
    NotEmbedded,
    /// None runs, and one could not be started.
    #[cfg(feature = "embedded")]
    #[error("a raylet could not be started")]
    Start(#[from] crate::role::StartRayletError),
    /// Its resources make no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The variable `RAY_FORCE_DIRECT` says neither yes nor no.
    #[error("RAY_FORCE_DIRECT={value:?} says neither 1 nor 0: unset it, or set one of them")]
    ForceDirect {
        /// Its value.
        value: String,
    },
    /// A thread for the control line could not be started.
    #[error("the thread for the raylet's words could not be started")]
    Thread {
        /// The system's word.
        source: std::io::Error,
    },
}

/// A task or a call of an actor was not accepted; nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// An argument has no bytes.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// No room for an argument, or none for the result.
    #[error(transparent)]
    Create(#[from] Box<CreateError>),
    /// The options cannot be met anywhere.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A reference to an object of another raylet.
    #[error("object {id} is another raylet's: get its value, and give that")]
    ForeignReference {
        /// The object.
        id: ObjectId,
    },
    /// A living actor has the name.
    #[error("the name {name:?} is taken by another actor: choose another, or find that one by `ray.actor`")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// In local mode a call runs at once, and the actor is in the middle of another.
    #[error("{class} calls itself while it runs, which local mode cannot do: call the method on `self`")]
    Reentrant {
        /// The actor's class.
        class: &'static str,
    },
    /// In local mode another language runs its calls itself.
    #[error("local mode has no workers for another language")]
    NoWorkers,
    /// The raylet has ended.
    #[error("the raylet has ended: init again")]
    RayletGone,
    /// The raylet is there and silent: it is stopped, or very busy.
    #[error("the raylet did not answer within {waited_ms} ms: is it stopped?")]
    NoAnswer {
        /// How long it had.
        waited_ms: u64,
    },
    /// The raylet does not take it.
    #[error("the raylet refuses: {text}")]
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        text: String,
    },
    /// The raylet answered with something else: another version, or a broken line.
    #[error("the raylet answered with {found}, which is no answer to what was asked")]
    Unexpected {
        /// The message's name.
        found: &'static str,
    },
    /// A message would be longer than any may be.
    #[error(transparent)]
    Protocol(#[from] raylet_api::ProtocolError),
    /// The queue that the raylet has given cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The records of the queue make no sense: somebody stored where he must not.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The task that submits was cancelled, and with it what it submits.
    #[error("the task that submits was cancelled: end it")]
    Cancelled,
    /// This process was forked off the one that is in.
    #[error("this process was forked off the driver, and is none itself: init here")]
    Forked,
}

impl From<crate::engine::line::LineError> for SubmitError {
    fn from(error: crate::engine::line::LineError) -> SubmitError {
        use crate::engine::line::LineError;
        match error {
            LineError::RayletGone => SubmitError::RayletGone,
            LineError::NoAnswer { waited_ms } => SubmitError::NoAnswer { waited_ms },
            LineError::Protocol(error) => SubmitError::Protocol(error),
        }
    }
}

impl SubmitError {
    /// What an answer says that is not the one that was hoped for.
    pub(crate) fn refused(answer: raylet_api::Message) -> SubmitError {
        match answer {
            raylet_api::Message::Refused(refused) => SubmitError::Refused { code: refused.code, text: refused.text },
            other => SubmitError::Unexpected { found: other.name() },
        }
    }
}

/// A placement group was not made, or not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A group of nothing.
    #[error("a placement group has to have a bundle")]
    NoBundles,
    /// A bundle of nothing.
    #[error("bundle {bundle} of the placement group asks for no resource")]
    EmptyBundle {
        /// Which, from 0.
        bundle: usize,
    },
    /// A bundle that cannot mean anything.
    #[error(transparent)]
    Options(OptionsError),
    /// The raylet did not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// A value could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The task that should have made it failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// It was not there in time: it may still come.
    #[error("object {id} had no value within {} ms; it may still come: wait longer, or cancel its task", waited.as_millis())]
    TimedOut {
        /// The object.
        id: ObjectId,
        /// How long the call waited.
        waited: Duration,
    },
    /// Its bytes are not of this type.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The store could not give it.
    #[error(transparent)]
    Get(Box<GetError>),
}

impl From<Box<GetError>> for FetchError {
    fn from(error: Box<GetError>) -> FetchError {
        match *error {
            GetError::NotSealed { id, waited, .. } => FetchError::TimedOut { id, waited },
            other => FetchError::Get(Box::new(other)),
        }
    }
}

/// What was asked of `wait` makes no sense, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// More, or fewer, than can become ready.
    #[error("{count} of {references} references can never be ready: ask for 1 to {references}")]
    Count {
        /// How many should be ready.
        count: usize,
        /// How many were given.
        references: usize,
    },
    /// One reference stands twice in the list.
    #[error("reference {second} is the same as {first}")]
    Duplicate {
        /// Where it stands first, from 0.
        first: usize,
        /// Where it stands again.
        second: usize,
    },
    /// The store could not wait.
    #[error(transparent)]
    Get(#[from] Box<GetError>),
}
