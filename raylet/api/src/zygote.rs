//! What a raylet and a zygote say to each other, over a socket that keeps messages apart.
//!
//! The one thing to know: both ends are of one run and one user, so there is no version and no
//! greeting; one packet is one message, and its descriptors ride on it. A zygote says nothing unasked
//! but [`FromZygote::Ready`] at its start and [`FromZygote::Ended`] for each worker. This file must
//! not fork; `raylet-client` does.
//!
//! | packet | from -> to | descriptors | when | answer |
//! | --- | --- | --- | --- | --- |
//! | [`ToZygote::Start`] | raylet -> zygote | the zygote's leash | first | `Ready` |
//! | [`ToZygote::Fork`] | raylet -> zygote | leash, stdout, stderr of the worker | any time later | `Forked` or `Refused`, in order |
//! | [`FromZygote::Ready`] | zygote -> raylet | - | once | - |
//! | [`FromZygote::Forked`] | zygote -> raylet | the worker's pidfd | answers `Fork` | - |
//! | [`FromZygote::Refused`] | zygote -> raylet | - | answers `Fork` | - |
//! | [`FromZygote::Ended`] | zygote -> raylet | - | before the worker is reaped | - |

use serde::{Deserialize, Serialize};

/// The variable by which an executable is told to be something else than its `main`.
pub const ROLE_VARIABLE: &str = "RAYLET_ROLE";
/// Set where the executable takes its role itself, and not before its `main`: an interpreter, which
/// has to be there first.
pub const LATER_VARIABLE: &str = "RAYLET_ROLE_LATER";
/// The role that forks workers.
pub const ROLE_ZYGOTE: &str = "zygote";
/// The role of a raylet that is its driver's child.
pub const ROLE_RAYLET: &str = "raylet";

/// Bytes of a packet at most.
pub const PACKET_BYTES_MAX: usize = 16 << 10;
/// Descriptors of a packet at most.
pub const PACKET_FDS_MAX: usize = 3;
/// Descriptors that ride on [`ToZygote::Fork`]: leash, stdout, stderr.
pub const FORK_FDS: usize = 3;

/// What a worker is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerSpec {
    /// The raylet's number for it; not used twice in one run.
    pub worker: u64,
    /// The directory of the session that it joins; none joins nothing, which is for tests.
    pub directory: Option<String>,
    /// What it calls itself in listings.
    pub label: String,
    /// How much rather than others the kernel is to kill it when memory runs out, -1000 to 1000;
    /// 0 leaves it as the zygote's.
    pub oom_score_adj: i32,
}

/// A raylet to its zygote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToZygote {
    /// The first packet.
    Start {},
    /// Forks a worker.
    Fork(WorkerSpec),
}

/// A zygote to its raylet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromZygote {
    /// It can fork.
    Ready {
        /// Its pid, as it sees itself.
        pid: u32,
    },
    /// The worker is there; it may not have done anything yet.
    Forked {
        /// The raylet's number for it.
        worker: u64,
        /// Its pid.
        pid: u32,
    },
    /// There is no such worker.
    Refused {
        /// The raylet's number for it.
        worker: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A worker has ended, and is reaped next.
    Ended {
        /// Its pid.
        pid: u32,
        /// How.
        exit: Exit,
    },
}

/// Why a zygote did not fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A constructor or a library has started threads, whose locks a child would inherit taken.
    #[error(
        "the zygote (pid {pid}) has {count} threads: something starts threads before `main`, and \
         whoever is forked beside threads may hang"
    )]
    Threaded {
        /// The zygote.
        pid: u32,
        /// Its threads.
        count: u64,
    },
    /// The kernel said no.
    #[error("the zygote (pid {pid}): error {errno} of the system")]
    System {
        /// The zygote.
        pid: u32,
        /// The system's number.
        errno: i32,
    },
    /// Not the descriptors that belong to a fork.
    #[error("{found} descriptors came with a fork, {expected} belong to it")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many should have.
        expected: usize,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(out, "exit code {code}"),
            Exit::Signal(signal) => write!(out, "signal {signal}"),
        }
    }
}

/// A packet that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Its bytes are no message.
    #[error("{bytes} bytes from the other end of the zygote's socket are no message")]
    Undecodable {
        /// How many.
        bytes: usize,
        /// The decoder's word.
        source: rmp_serde::decode::Error,
    },
    /// A label or path made it too long.
    #[error("a message of {bytes} bytes is longer than {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is possible.
        limit: usize,
    },
}

/// The bytes of a message.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, PacketError> {
    let bytes = rmp_serde::to_vec_named(message).expect("the messages have only fields that encode");
    match bytes.len() {
        0..=PACKET_BYTES_MAX => Ok(bytes),
        bytes => Err(PacketError::TooLong { bytes, limit: PACKET_BYTES_MAX }),
    }
}

/// The message of these bytes.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, PacketError> {
    rmp_serde::from_slice(bytes).map_err(|source| PacketError::Undecodable { bytes: bytes.len(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_as_they_were() {
        let spec = WorkerSpec { worker: 7, directory: Some("/x".into()), label: "f".into(), oom_score_adj: 500 };
        for message in [ToZygote::Start {}, ToZygote::Fork(spec)] {
            assert_eq!(decode::<ToZygote>(&encode(&message).unwrap()).unwrap(), message);
        }
        let refusal = Refusal::Threaded { pid: 1, count: 2 };
        for message in [
            FromZygote::Ready { pid: 3 },
            FromZygote::Forked { worker: 7, pid: 4 },
            FromZygote::Refused { worker: 7, refusal },
            FromZygote::Ended { pid: 4, exit: Exit::Signal(9) },
        ] {
            assert_eq!(decode::<FromZygote>(&encode(&message).unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bytes in [&b""[..], b"\xff", b"\x80", b"GET / HTTP/1.0\r\n"] {
            assert!(matches!(decode::<ToZygote>(bytes), Err(PacketError::Undecodable { .. })), "{bytes:?}");
        }
        let label = "x".repeat(PACKET_BYTES_MAX);
        let long = ToZygote::Fork(WorkerSpec { label, ..WorkerSpec::default() });
        assert!(matches!(encode(&long), Err(PacketError::TooLong { .. })));
    }
}
