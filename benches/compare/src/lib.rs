//! The store and its tasks beside their peers and limits, each bench measured in one run.
//!
//! The one thing to know: every work is run by all its contenders in turn, round after round on the
//! same machine, and only ratios within a run mean anything. `store`, `tasks` and `ray` are the
//! benches: what is measured and against whom, and what ours does; `peers` do the same work; `run`
//! takes the turns, `report` prints.
//!
//! Nothing here may be linked by the product, and no limit (`peers::limits`, `peers::futex`) may use
//! the store's own code: a limit that shares our mistakes is no limit.

pub mod child;
pub mod cli;
pub mod error;
pub mod hogs;
pub mod pace;
pub mod peers;
pub mod plan;
pub mod processes;
pub mod python;
pub mod raw;
pub mod ray;
pub mod report;
pub mod run;
pub mod scratch;
pub mod stats;
pub mod store;
pub mod tasks;
pub mod watchdog;
