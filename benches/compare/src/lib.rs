//! The store beside its peers and its limits, measured in one run.
//!
//! The one thing to know: every work is run by all its contenders in turn, round after round on the
//! same machine, and only ratios within a run mean anything. `work` says what is measured and
//! against whom, `run` takes the turns, `report` prints; `peers` and `ours` do the work itself.
//!
//! Nothing here may be linked by the product, and no limit (`peers::limits`) may use the store's own
//! code: a limit that shares our mistakes is no limit.

pub mod child;
pub mod error;
pub mod ours;
pub mod peers;
pub mod python;
pub mod raw;
pub mod report;
pub mod run;
pub mod scratch;
pub mod stats;
pub mod work;
