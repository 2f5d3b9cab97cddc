//! A look inside: what the raylet says of tasks, actors, objects, workers, groups, and what ran when.
//!
//! The one thing to know: answers are the command line's `--format json`, so both say the same. This file
//! must not know how they are shown.

use crate::{hooks, session};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use raylet::cli::look;

/// What the raylet says about something, as JSON text.
#[pyfunction]
#[pyo3(signature = (what, directory=None))]
pub(crate) fn ask(py: Python<'_>, what: &str, directory: Option<String>) -> PyResult<String> {
    let place = match directory {
        Some(directory) => directory.into(),
        None => {
            let ray = session::current(py)?;
            let nowhere = || PyRuntimeError::new_err("local mode has no raylet to ask");
            ray.place().ok_or_else(nowhere)?.directory.clone()
        }
    };
    match py.detach(|| look(what, &place)) {
        Some(Ok(text)) => Ok(text),
        Some(Err(text)) => Err(hooks::exception(py, "Shutdown", &text, "")),
        None => Err(PyValueError::new_err(format!("nothing is called {what:?}"))),
    }
}

/// A stretch of the program that shows in the timeline.
#[pyclass(frozen, module = "raylet._native", name = "ProfileEvent")]
pub(crate) struct Event {
    name: String,
    begun: std::sync::Mutex<Option<raylet_client::ProfileEvent>>,
}

/// A stretch of the program that shows in the timeline under this name, as a context manager.
#[pyfunction]
pub(crate) fn profile_event(name: String) -> Event {
    Event { name, begun: std::sync::Mutex::new(None) }
}

#[pymethods]
impl Event {
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf.get().set(Some(raylet_client::profile_event(&slf.get().name)));
        slf
    }

    #[pyo3(signature = (*_ignored))]
    fn __exit__(&self, _ignored: &Bound<'_, pyo3::types::PyTuple>) {
        self.set(None);
    }
}

impl Event {
    fn set(&self, begun: Option<raylet_client::ProfileEvent>) {
        let before =
            std::mem::replace(&mut *self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner), begun);
        drop(before);
    }
}
