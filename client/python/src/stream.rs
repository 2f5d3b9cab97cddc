//! The items of a call that streams, as references that come one after the other.
//!
//! The one thing to know: one thread at a time steps it; who waits for the next item sleeps without
//! the interpreter. This file must not know generators.

use crate::hooks;
use crate::refs::ObjectRef;
use crate::session;
use pyo3::prelude::*;
use raylet_client::FetchError;
use raylet_client::stream::RefStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::ObjectRef as RawRef;

/// Between two looks for signals.
const LOOK: Duration = Duration::from_millis(50);

/// The items of a call that streams.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct Stream {
    inside: Mutex<RefStream<()>>,
    /// Has a value when there are no more items.
    end: Option<RawRef>,
}

impl Stream {
    pub(crate) fn new(stream: RefStream<()>) -> Stream {
        let end = stream.end().cloned();
        Stream { inside: Mutex::new(stream), end }
    }

    fn with<R>(&self, look: impl FnOnce(&mut RefStream<()>) -> R) -> R {
        look(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `next` would not wait.
    pub(crate) fn is_next_ready(&self) -> bool {
        self.with(|stream| {
            let is_ready = |object: Option<&RawRef>| object.is_none_or(RawRef::is_ready);
            is_ready(stream.next_cell()) || is_ready(stream.end())
        })
    }

    /// What is to be waited for before the next item.
    pub(crate) fn awaited(&self) -> Vec<RawRef> {
        self.with(|stream| stream.next_cell().into_iter().chain(stream.end()).cloned().collect())
    }
}

#[pymethods]
impl Stream {
    /// The reference of the next item; None at the end.
    #[pyo3(name = "next", signature = (timeout=None))]
    fn next_ref(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<ObjectRef>>> {
        let until = timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
        loop {
            let pause = until.map_or(LOOK, |until| LOOK.min(until.saturating_duration_since(Instant::now())));
            match py.detach(|| self.with(|stream| stream.next_timeout(pause))) {
                Ok(Some(item)) => return ObjectRef::of(py, item.object().clone()).map(Some),
                Ok(None) => return Ok(None),
                Err(FetchError::TimedOut { .. }) => py.check_signals()?,
                Err(error) => return Err(hooks::exception(py, "ObjectLost", &error.to_string(), "")),
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(hooks::timed_out(py));
            }
        }
    }

    /// Whether `next` would not wait.
    #[pyo3(name = "is_next_ready")]
    fn is_next_ready_(&self) -> bool {
        self.is_next_ready()
    }

    /// Has a value, or an error, when there are no more items.
    fn completed(&self, py: Python<'_>) -> PyResult<Option<Py<ObjectRef>>> {
        self.end.as_ref().map(|end| ObjectRef::of(py, end.clone())).transpose()
    }

    /// Calls `callback` when the next item or the end is there; it may come more than once.
    fn on_next(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        for object in self.awaited() {
            let object = ObjectRef::of(py, object)?;
            session::on_ready(py, object.bind(py), callback.clone_ref(py))?;
        }
        Ok(())
    }
}
