//! Arrays made in the store: memory of an object that is being written, and its seal by `put`.
//!
//! The one thing to know: a draft is found by the address of what is put, whatever array shows it. Its object has
//! room in front for the pickle that will say what the bytes are, which is written when they are put. Everything
//! else about a put of such an array is as of any other. This file must not know how values are laid out.

use crate::buffer::{Borrowed, Buffer};
use crate::codec;
use crate::session;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use store::{Canvas, CreateOptions, Encoding};

/// An object that is written through a Python object's buffer.
#[derive(Debug)]
pub(crate) struct Draft {
    canvas: Canvas,
    /// Bytes of the object in front of the canvas.
    head: usize,
}

/// The drafts that may be put without a copy, by address. Locked for moments, and by holders of the interpreter
/// alone: so it is free when the interpreter forks.
static DRAFTS: Mutex<BTreeMap<usize, Weak<Draft>>> = Mutex::new(BTreeMap::new());

fn drafts() -> MutexGuard<'static, BTreeMap<usize, Weak<Draft>>> {
    DRAFTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Draft {
    /// One that no put is to find.
    pub(crate) fn unnamed(canvas: Canvas) -> Draft {
        Draft { canvas, head: 0 }
    }

    /// The memory.
    pub(crate) fn canvas(&self) -> &Canvas {
        &self.canvas
    }

    /// Bytes of the object in front of it.
    pub(crate) fn head(&self) -> usize {
        self.head
    }

    /// The draft that a buffer is the whole of.
    pub(crate) fn of(buffer: &Borrowed) -> Option<Arc<Draft>> {
        let found = drafts().get(&buffer.address()).and_then(Weak::upgrade);
        found.filter(|draft| draft.canvas.bytes() == buffer.len())
    }

    /// From now on it is put like any array.
    pub(crate) fn forget(&self) {
        drafts().remove(&self.address());
    }

    fn address(&self) -> usize {
        self.canvas.pointer().addr().get()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Before the address can be another draft's.
        self.forget();
    }
}

/// Memory of a new object for an array of so many bytes, which `template` is like but for its size.
#[pyfunction]
pub(crate) fn empty<'py>(
    py: Python<'py>,
    template: &Bound<'py, PyAny>,
    dimensions: usize,
    bytes: usize,
) -> PyResult<Bound<'py, Buffer>> {
    let ray = session::current(py)?;
    let head = codec::head_bytes(template, dimensions)?;
    let options = CreateOptions { encoding: Encoding::Pickle, by_handle_only: true, ..CreateOptions::default() };
    // Waits for room, perhaps, and touches every page.
    let canvas = py.detach(|| {
        let size = head.saturating_add(bytes);
        let writer = ray.store().create(size as u64, &options).map_err(|error| codec::refused(&error))?;
        writer.into_canvas(head..size).map_err(|error| PyMemoryError::new_err(error.to_string()))
    })?;
    let draft = Arc::new(Draft { canvas, head });
    drafts().insert(draft.address(), Arc::downgrade(&draft));
    Buffer::over_draft(py, &draft, 0..bytes)
}
