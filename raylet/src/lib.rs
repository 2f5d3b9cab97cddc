//! The raylet's rim: the session on disk, the door, the socket and the threads.
//!
//! The one thing to know: the rim decides nothing about objects. What the store knows and does is
//! behind [`keeper::ObjectKeeper`]; the rim lets clients in, hears of their death from the kernel and
//! tells the keeper. It must not touch an object's bytes or a table's cell.
//!
//! ```text
//!  socket thread (tokio)                    keeper thread
//!    accept, frames, pidfds                   sweeps, warms, spills, in slices of <= 1 ms
//!    admit, status: quick calls --+           lists
//!    everything else: a queue ----+---------> bell
//! ```
//!
//! Invariants:
//!
//! * **R1** A client is given up once: by its `Goodbye` or by its pidfd, never by the end of a
//!   connection.
//! * **R2** The socket thread never waits for the keeper thread.
//! * **R3** Whoever holds the session's lock, and nobody else, makes or removes its files, its door
//!   and its spill directory.
//! * **R4** Everything a session makes outside its directory is named in its lock file before it is
//!   made, so a sweep after SIGKILL finds it.
//! * **R5** Bad bytes end the connection they came on and nothing else.

pub mod ask;
pub mod bare;
pub mod cli;
pub mod door;
pub mod keeper;
pub mod machine;
pub mod raylet;
pub mod session;

mod connection;
mod server;

pub use keeper::{Admission, AdmitError, ObjectKeeper, Rest, StoreFacts};
pub use raylet::{Config, Ender, Raylet, StartError};
