//! What a program with tasks and actors names: `use raylet_client::prelude::*`.
//!
//! The one thing to know: the names here are the typed ones. `ObjectRef<T>` and [`Config`] are
//! those of [`refs`](crate::refs) and [`remote`](crate::remote), not the store's and the daemon's,
//! which the crate's root has. This file must not define what users name elsewhere.

pub use crate::actor::ActorHandle;
pub use crate::refs::ObjectRef;
pub use crate::remote::{CancelOptions, Config, FetchError, Mode, PlacementGroup, Raylet, Strategy, SubmitError};
pub use crate::stream::RefStream;
pub use crate::task::{Options, TaskError, TaskErrorKind, Transport};
pub use crate::value::{Serde, Value};
pub use raylet_macros::{Value, remote};
pub use store::arrow::Table;

/// Any error, as tasks and `main` return it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error may be any.
pub type Result<T, E = Error> = std::result::Result<T, E>;
