//! The codec's insides, for the package's own tests: bytes that no program wrote.
//!
//! The one thing to know: nothing of the package calls these. This file must not hold what the product
//! needs.

use super::{decode_arguments, decode_private, encode_arguments, refused};
use crate::refs::ObjectRef;
use crate::session;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use store::{CreateOptions, Encoding};

/// The bytes of an object, and the number of its encoding.
#[pyfunction]
fn _bytes<'py>(py: Python<'py>, object: &Bound<'py, ObjectRef>) -> PyResult<(Bound<'py, PyBytes>, u8)> {
    let bytes = session::current(py)?.store().get(object.get().live(py)?);
    let bytes = bytes.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok((PyBytes::new(py, &bytes), bytes.encoding() as u8))
}

/// An object of any bytes.
#[pyfunction]
fn _put_bytes(py: Python<'_>, bytes: &[u8], encoding: u8, references: Vec<Py<ObjectRef>>) -> PyResult<Py<ObjectRef>> {
    let known = [Encoding::Raw, Encoding::Arrow, Encoding::Pickle, Encoding::MessagePack];
    let unknown = || PyValueError::new_err("no such encoding");
    let encoding = *known.get(usize::from(encoding)).ok_or_else(unknown)?;
    let references: Vec<_> = references.iter().filter_map(|object| object.get().object().cloned()).collect();
    let options = CreateOptions { encoding, references: &references, ..Default::default() };
    let object = session::current(py)?.store().put_with(bytes, &options).map_err(|error| refused(&error))?;
    ObjectRef::of(py, object)
}

/// The value of a reference, with arrays to write to.
#[pyfunction]
fn _get_private<'py>(py: Python<'py>, object: &Bound<'py, ObjectRef>) -> PyResult<Bound<'py, PyAny>> {
    let bytes = session::current(py)?.store().get(object.get().live(py)?);
    decode_private(py, bytes.map_err(|error| PyRuntimeError::new_err(error.to_string()))?)
}

#[pyfunction]
fn _encode_arguments<'py>(
    py: Python<'py>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<(Bound<'py, PyBytes>, Vec<Py<ObjectRef>>)> {
    let arguments = encode_arguments(py, args, kwargs, &session::current(py)?, "f", &[])?;
    let bytes = PyBytes::new(py, arguments.bytes());
    let awaited = arguments.into_awaited().into_iter().map(|object| ObjectRef::of(py, object));
    Ok((bytes, awaited.collect::<PyResult<_>>()?))
}

#[pyfunction]
fn _decode_arguments<'py>(
    py: Python<'py>,
    bytes: &[u8],
    awaited: Vec<Bound<'py, ObjectRef>>,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    decode_arguments(py, bytes, |at: usize| {
        let object = awaited.get(at).ok_or_else(|| PyValueError::new_err("no such object"))?;
        session::get(py, object, None, None).map(|value| value.into_bound(py))
    })
}

/// Registers them.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(_put_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(_get_private, module)?)?;
    module.add_function(wrap_pyfunction!(_encode_arguments, module)?)?;
    module.add_function(wrap_pyfunction!(_decode_arguments, module)?)
}
