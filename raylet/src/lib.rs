//! The raylet's rim: the session on disk, the door, the socket, and the store that is kept here.
//!
//! The one thing to know: the rim decides nothing about objects. The store keeps itself, by threads
//! of its own in this process: they watch the clients' processes, sweep the dead, evict, spill and
//! warm. The rim makes the store, lets clients in and answers questions. It must not touch an
//! object's bytes or a table's cell.
//!
//! ```text
//!  socket thread (tokio)                   store-watch, store-keep (the store's own)
//!    accept, frames                          pidfds, sweeps; eviction, spilling, warm memory
//!    admit: one CAS in the client table
//!    schedule: the core's decisions        raylet-pool
//!      carried out, one task, no lock         zygotes, workers, what they write
//!    whatever looks at the whole store -> a thread beside
//! ```
//!
//! Invariants:
//!
//! * **R1** The rim takes an admission back only while nobody has joined by it. From then on the
//!   store alone ends a client: by the client's word in shared memory, or the kernel's.
//! * **R2** The socket thread never looks at the whole store.
//! * **R3** Whoever holds the session's lock, and nobody else, makes or removes its files, its door
//!   and its spill directory.
//! * **R4** Everything a session makes outside its directory is named in its lock file before it is
//!   made, so a sweep after SIGKILL finds it.
//! * **R5** Bad bytes end the connection they came on and nothing else.

pub mod ask;
pub mod cli;
pub mod door;
pub mod machine;
pub mod pool;
pub mod raylet;
pub mod session;

mod connection;
mod guarded;
mod logs;
mod metrics;
mod schedule;
mod server;
mod survey;
mod timeline;

pub use raylet::{Config, Ender, Raylet, StartError};
pub use schedule::QueuesError;
