//! The Python half's part: functions of `raylet._private.hooks`, imported when the first one is needed.
//!
//! The one thing to know: no hook is called on the path of a put, get or call that goes well. This
//! file must not know what a hook does.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyModule};
use raylet_client::TaskError;

static HOOKS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// The module of hooks.
pub(crate) fn hooks(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    HOOKS
        .get_or_try_init(py, || Ok(PyModule::import(py, "raylet._private.hooks")?.unbind()))
        .map(|hooks| hooks.bind(py))
}

/// A hook by its name.
pub(crate) fn hook<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    hooks(py)?.getattr(name)
}

/// The exception that stands for an error object.
pub(crate) fn exception_of(py: Python<'_>, error: &TaskError, object_id: &str) -> PyErr {
    let made = with_parts(py, "make_error", error, object_id);
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Calls a hook with all that there is to say about an error object.
pub(crate) fn with_parts<'py>(
    py: Python<'py>,
    name: &str,
    error: &TaskError,
    object_id: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let payload = (!error.payload().is_empty()).then(|| PyBytes::new(py, error.payload()));
    let (kind, passed) = (format!("{:?}", error.kind()), PyList::new(py, error.passed())?);
    let (function, message, backtrace) = (error.function(), error.message(), error.backtrace());
    hook(py, name)?.call1((kind, function, message, backtrace, passed, payload, object_id))
}

/// The exception of something that has no error object.
pub(crate) fn exception(py: Python<'_>, kind: &str, message: &str, object_id: &str) -> PyErr {
    let nothing: Option<Bound<'_, PyBytes>> = None;
    let made = hook(py, "make_error").and_then(|hook| {
        let passed: [&str; 0] = [];
        hook.call1((kind, "", message, None::<&str>, passed, nothing, object_id))
    });
    made.map_or_else(|error| error, PyErr::from_value)
}

/// The exception of a wait that took too long.
#[cold]
pub(crate) fn timed_out(py: Python<'_>) -> PyErr {
    let made = hook(py, "timeout_error").and_then(|hook| hook.call0());
    made.map_or_else(|error| error, PyErr::from_value)
}
