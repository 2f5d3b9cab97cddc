//! Every operation, interrupted behind every machine instruction.
//!
//! The one thing to know: each test prints how many instructions it stepped, how often it killed
//! and how often it stopped; see `tests::stepping` for what that means.

mod basic;
mod disk;
mod forking;
mod lists;
mod promise;
mod queue;
mod submit;
mod sweep;
