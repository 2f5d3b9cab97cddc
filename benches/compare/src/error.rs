//! What can go wrong while measuring. A peer's failure costs its rows, never the run.

use std::error::Error;
use std::io;
use std::process::ExitStatus;

/// Why a contender gave no measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The system refused something the harness needs.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The peer's environment is missing and the caller asked for no installation.
    #[error("{peer} is not installed and --no-install was given")]
    NotInstalled {
        /// The peer's name.
        peer: &'static str,
    },
    /// An executable that is run beside this one is missing.
    #[error("{what} is not built; `make {target}` builds it")]
    NotBuilt {
        /// Which.
        what: &'static str,
        /// What builds it.
        target: &'static str,
    },
    /// Creating the peer's environment failed.
    #[error("installing {peer} ended with {status}")]
    Install {
        /// The peer's name.
        peer: &'static str,
        /// How the installer ended.
        status: ExitStatus,
    },
    /// A peer's process ended or said something that is no answer.
    #[error("{peer} answered {answer:?}")]
    Answer {
        /// The peer's name.
        peer: &'static str,
        /// What it wrote; empty when it ended.
        answer: String,
    },
    /// LMDB refused.
    #[error("lmdb: {0}")]
    Lmdb(#[from] heed::Error),
    /// iceoryx2 refused.
    #[error("iceoryx2, {step}: {source}")]
    Iceoryx2 {
        /// What was being done.
        step: &'static str,
        /// Its own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// gRPC refused.
    #[error("grpc, {step}: {source}")]
    Grpc {
        /// What was being done.
        step: &'static str,
        /// Its own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The raylet refused.
    #[error("the raylet, {step}: {source}")]
    Raylet {
        /// What was being done.
        step: &'static str,
        /// Its own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store refused.
    #[error("the store, {step}: {source}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// Its own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What a row's name says did not happen, so its number would mean something else.
    #[error("{what}: {found} where at least {wanted} was expected")]
    TooFew {
        /// What was counted.
        what: &'static str,
        /// How often it was.
        found: u64,
        /// How often it has to be.
        wanted: u64,
    },
    /// A peer read bytes that nobody wrote.
    #[error("read {found:#x} where {expected:#x} was written")]
    WrongBytes {
        /// What should have been there.
        expected: u64,
        /// What was there.
        found: u64,
    },
    /// A peer's process did not answer in time.
    #[error("no answer from the other process within {waited_ms} ms")]
    Silent {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// This executable was started in a role that it does not have.
    #[error("no such role: {role}")]
    UnknownRole {
        /// The role asked for.
        role: String,
    },
    /// A signal asked the run to end.
    #[error("interrupted by a signal")]
    Interrupted,
}

impl BenchError {
    /// Names the step at which the system refused.
    pub fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    /// Names the step at which the store refused.
    pub fn store<E: Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Store { step, source: Box::new(source) }
    }

    /// Names the step at which the raylet refused.
    pub fn raylet<E: Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Raylet { step, source: Box::new(source) }
    }

    /// As [`BenchError::system`], for an error number.
    pub fn errno(step: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |number| Self::System { step, source: number.into() }
    }
}
