//! The extension module `raylet._native`: the Rust client as Python calls it.
//!
//! The one thing to know: what happens for each put, get, call and task happens here, without a line of
//! Python; what happens once (options, definitions, errors as exceptions) is the package's. This crate
//! must not know what Ray is: names and texts that programs match on are in the package.

mod backstage;
mod batch;
mod buffer;
mod call;
mod codec;
mod draft;
mod hooks;
mod look;
mod refs;
mod role;
mod session;
mod stream;
mod worker;

use pyo3::prelude::*;

/// The module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::batch::BatchDraft;
    #[pymodule_export]
    use crate::call::{
        _received_actor, ActorCore, Caller, create_actor, find_actor, placement_group, remove_placement_group,
    };
    #[pymodule_export]
    use crate::draft::empty;
    #[pymodule_export]
    use crate::look::{ask, profile_event};
    #[pymodule_export]
    use crate::role::{cli, run_role};
    #[pymodule_export]
    use crate::session::{
        cancel, facts, get, get_writable, init, is_initialized, is_ready, on_ready, put, put_error, shutdown, size_of,
        wait, wait_for_any,
    };
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::worker::{
        CallInbox, HostedCall, context, current_actor, exit_actor, interrupted, is_cancelled, running,
    };

    use super::*;

    #[pymodule_init]
    fn init_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::codec::register(module)
    }
}
