//! What an interpreter is besides a driver: a zygote, a worker, a raylet.
//!
//! The one thing to know: the process is an interpreter that has just begun and calls [`run_role`] first;
//! a zygote keeps the interpreter's lock for its one thread, so each fork has a whole interpreter. This file
//! must not know what a worker does.

#![allow(unsafe_code)]

use crate::hooks::hook;
use crate::worker;
use pyo3::ffi;
use pyo3::prelude::*;
use raylet_client::binding::{ForkHooks, take_role};

/// Takes the role that the environment names, and does not return; returns where there is none.
#[pyfunction]
pub(crate) fn run_role(_py: Python<'_>) {
    take_role(ForkHooks { before, after_in_parent, after_in_child, idle, work: worker::work });
}

fn before() {
    // SAFETY: the zygote's one thread has the interpreter's lock, as `run_role` was called with it.
    unsafe { ffi::PyOS_BeforeFork() }
}

fn after_in_parent() {
    // SAFETY: as above; the fork is over.
    unsafe { ffi::PyOS_AfterFork_Parent() }
}

fn after_in_child() {
    // SAFETY: this is the one thread of the child, a copy of the one that had the lock.
    unsafe { ffi::PyOS_AfterFork_Child() }
}

/// The interpreter's lock is the zygote's all the time.
fn idle() -> bool {
    Python::attach(|py| {
        let has_more = hook(py, "zygote_idle").and_then(|hook| hook.call0()?.extract());
        has_more.unwrap_or_else(|error| {
            error.print(py);
            false
        })
    })
}

/// The command line; its exit code. `own` is what starts it once more, for a raylet in the background.
#[pyfunction]
pub(crate) fn cli(py: Python<'_>, arguments: Vec<String>, own: Vec<String>) -> u8 {
    raylet::cli::set_own_command(own.into_iter().map(Into::into).collect());
    py.detach(|| raylet::cli::run(arguments))
}
