//! The extension module `raylet._native`: the Rust client as Python calls it.
//!
//! The one thing to know: what happens for each put, get, call and task happens here, without a line of
//! Python; what happens once (options, definitions, errors as exceptions) is the package's. This crate
//! must not know what Ray is: names and texts that programs match on are in the package.

mod buffer;
mod codec;
mod refs;
mod session;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    codec::register(module)?;
    session::register(module)
}
