//! Whom we are held against, one file each.
//!
//! The one thing to know: a peer runs in the fastest setting we found for it, and its file says which.
//! Which of them a work has stands in the work's table.

pub mod copies;
pub mod futex;
pub mod grpc;
pub mod iceoryx2;
pub mod limits;
pub mod lmdb;
pub mod multiprocessing;
pub mod pipe;
pub mod plasma;
pub mod pools;
pub mod process_pools;
pub mod ray;
pub mod spawn;
