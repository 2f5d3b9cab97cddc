//! The store's side of every work.
//!
//! The one thing to know: nothing here may be easier than what the peers of the same work do: the
//! same source, as many places, the payload's first line read in every get.

use crate::child::{end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::work::Work;

/// Which of ours a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What the row is about.
    Measured,
    /// What the row's peer "self" is: the same in the easier setting.
    Baseline,
}

/// Ours for a work; none where the store cannot do it yet.
pub fn contender(
    _work: Work,
    _setting: Setting,
    _bench: &Bench,
) -> Result<Option<Boxed>, BenchError> {
    Ok(None)
}

/// Another process of ours, started with `OwnedChild::start_role(&["ours", "--role", ..])`.
pub fn role(role: &str, _argument: &str, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    Err(BenchError::UnknownRole {
        role: role.to_owned(),
    })
}
