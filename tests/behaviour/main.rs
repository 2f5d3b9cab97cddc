//! What a store does, seen through its public API: one file for each promise it makes.
//!
//! The one thing to know: a test whose name is in `alone!` runs in a process of its own, because what
//! it forks becomes a client of its store. Nothing in here may look at anything but the public API
//! and the invariants that the store checks for tests.

mod common;

mod forks;
mod full;
mod input;
mod life;
mod lifetimes;
mod memory;
mod names;
mod references;
mod spilling;
mod tables;
mod threads;
mod waiting;
