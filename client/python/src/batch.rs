//! Tables written in the store by Python: the memory of their columns, and the end of the writing.
//!
//! The one thing to know: Python writes values, validity and offsets into their places as it likes, and no later
//! than the seal these become memory of its own; the metadata is written here, by what stands in the places then.
//! This file must not know what Python makes of a column.

use crate::buffer::Buffer;
use crate::codec;
use crate::draft::Draft;
use crate::refs::ObjectRef;
use crate::session;
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use store::arrow::{BatchBuilder, BatchPlan, BuildError, Places, decode_schema_message};
use store::{Canvas, CreateOptions, Encoding, Store};

/// A table of one batch that is being written.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct BatchDraft {
    plan: BatchPlan,
    places: Vec<Places>,
    /// `None` once nothing is to be written any more.
    draft: Mutex<Option<Arc<Draft>>>,
}

/// The places of a column: validity where it is nullable, offsets where it has such, and values.
type Column<'py> = (Option<Bound<'py, Buffer>>, Option<Bound<'py, Buffer>>, Bound<'py, Buffer>);

#[pymethods]
impl BatchDraft {
    /// Of a schema as its IPC message, a number of rows, and room for the bytes of columns that have such.
    #[new]
    fn new(py: Python<'_>, schema: &[u8], rows: usize, value_bytes: Vec<(usize, usize)>) -> PyResult<BatchDraft> {
        let ray = session::current(py)?;
        let schema = decode_schema_message(schema).map_err(|error| PyTypeError::new_err(error.to_string()))?;
        let mut plan = BatchPlan::new(schema, rows).map_err(|error| refused(&error))?;
        for (column, bytes) in value_bytes {
            plan = plan.value_bytes(column, bytes).map_err(|error| refused(&error))?;
        }
        let places = plan.places().map_err(|error| refused(&error))?;
        let draft = Arc::new(Draft::unnamed(py.detach(|| canvas(ray.store(), &plan))?));
        Ok(BatchDraft { plan, places, draft: Mutex::new(Some(draft)) })
    }

    /// Where a column is to be written; `None` once it no longer is.
    fn column<'py>(&self, py: Python<'py>, column: usize) -> PyResult<Option<Column<'py>>> {
        let Some(draft) = self.current() else { return Ok(None) };
        let missing = || PyValueError::new_err(format!("no column {column} among {}", self.places.len()));
        let places = self.places.get(column).ok_or_else(missing)?;
        let over = |place: &Range<usize>| Buffer::over_draft(py, &draft, place.clone());
        let validity = (!places.validity.is_empty()).then(|| over(&places.validity)).transpose()?;
        let offsets = places.offsets.as_ref().map(over).transpose()?;
        Ok(Some((validity, offsets, over(&places.values)?)))
    }

    /// Seals the table; `None` where it was sealed or given up, or is of another session or process.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<Py<ObjectRef>>> {
        let (ray, Some(draft)) = (session::current(py)?, self.take()) else { return Ok(None) };
        let mut problem = None;
        let sealed = py.detach(|| {
            draft.canvas().seal(ray.store(), |out| {
                let finished = BatchBuilder::of_filled(self.plan.clone(), out).and_then(BatchBuilder::finish);
                problem = finished.err();
                problem.is_none()
            })
        });
        match problem {
            Some(error) => Err(refused(&error)),
            None => sealed.map(|object| ObjectRef::of(py, object)).transpose(),
        }
    }

    /// Gives the table up: it is gone with the last array that shows one of its columns.
    fn abort(&self) {
        self.take();
    }
}

impl BatchDraft {
    fn current(&self) -> Option<Arc<Draft>> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<Arc<Draft>> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The object, laid out, with room to write in all of it.
fn canvas(store: &Store, plan: &BatchPlan) -> PyResult<Canvas> {
    let bytes = plan.bytes().map_err(|error| refused(&error))?;
    let options = CreateOptions { encoding: Encoding::Arrow, by_handle_only: true, ..CreateOptions::default() };
    let mut writer = store.create(bytes as u64, &options).map_err(|error| codec::refused(&error))?;
    BatchBuilder::new(plan.clone(), &mut writer).map_err(|error| refused(&error))?;
    writer.into_canvas(0..bytes).map_err(|error| PyMemoryError::new_err(error.to_string()))
}

fn refused(error: &BuildError) -> PyErr {
    match error {
        BuildError::UnsupportedType { .. } | BuildError::WrongType { .. } => PyTypeError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}
