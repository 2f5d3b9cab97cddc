//! What the attribute `remote` writes calls of: no part of the interface, and may change.
//!
//! The one thing to know: code made in other crates names these by path, so whatever is renamed
//! here is renamed in `raylet-macros`. This file must hold names only.

pub use crate::actor::{
    Actor, ActorHandle, CLASSES, Class, Method, MethodBody, Methods, RawActor, State, create, state, state_mut,
};
pub use crate::refs::ObjectRef;
pub use crate::remote::{Raylet, SubmitError, outcome, submit_one, submit_parts};
pub use crate::stream::{AHEAD, RefStream, push_one, submit_stream};
pub use crate::task::{
    Argument, Arguments, Body, FUNCTIONS, Fallible, Function, Incoming, Options, Parts, Results, TaskError, TaskFuture,
    key, seal_one,
};
pub use crate::value::SerdeValue;
pub use linkme;
pub use serde::{Serialize, de::DeserializeOwned};
