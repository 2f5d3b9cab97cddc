//! Tables of other languages, as what any library takes that speaks Arrow's PyCapsule interface.
//!
//! The one thing to know: the buffers that a capsule hands out keep the object pinned, each for itself, however
//! long whoever took them keeps them. This is for programs without pyarrow: where that is, a table is its. This
//! file must not know what is in a table.

use arrow_array::RecordBatchIterator;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use store::Object;
use store::arrow::Table;

/// An Arrow table in the store.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct ArrowTable(Table);

impl ArrowTable {
    /// Of an object that is one; the bytes are checked where nobody did so before.
    pub(super) fn of(py: Python<'_>, object: Object) -> PyResult<Bound<'_, ArrowTable>> {
        let table = py.detach(|| object.into_table());
        let invalid = |error| PyValueError::new_err(format!("the bytes of an object cannot be read: {error}"));
        Bound::new(py, ArrowTable(table.map_err(invalid)?))
    }
}

#[pymethods]
impl ArrowTable {
    /// How many rows it has.
    fn __len__(&self) -> usize {
        self.0.batches.iter().map(|batch| batch.num_rows()).sum()
    }

    /// The batches; those that are asked for in another schema come in their own, as the interface allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let Table { schema, batches } = self.0.clone();
        let batches = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(batches)), c"arrow_array_stream")
    }

    /// What its columns are.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(&*self.0.schema);
        let schema = schema.map_err(|error| PyValueError::new_err(error.to_string()))?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    fn __repr__(&self) -> String {
        let names: Vec<_> = self.0.schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("<raylet ArrowTable of {} rows: {}>", self.__len__(), names.join(", "))
    }
}
