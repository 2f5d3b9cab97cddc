//! The session of this process: a raylet, and what puts to it and gets from it.
//!
//! The one thing to know: a stand-in for tests of values, in local mode. It must not learn more.

use crate::codec;
use crate::refs::ObjectRef;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use raylet_client::remote::Config;
use raylet_client::{CreateOptions, Encoding, Mode, Raylet};
use std::sync::{Mutex, PoisonError};

static SESSION: Mutex<Option<Raylet>> = Mutex::new(None);

/// The raylet of this process.
pub(crate) fn current() -> PyResult<Raylet> {
    let session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    session.clone().ok_or_else(|| PyRuntimeError::new_err("not initialized"))
}

#[pyfunction]
fn init_local() -> PyResult<()> {
    let config = Config { mode: Mode::Local, capacity_bytes: 1 << 30, ..Config::default() };
    let ray = Raylet::init(config).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    *SESSION.lock().unwrap_or_else(PoisonError::into_inner) = Some(ray);
    Ok(())
}

#[pyfunction]
fn shutdown() {
    crate::refs::forget_kept();
    *SESSION.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

#[pyfunction]
fn put(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<ObjectRef>> {
    let object = codec::encode(py, value)?.put(py, current()?.store()).map_err(|error| codec::refused(&error))?;
    ObjectRef::of(py, object)
}

#[pyfunction]
fn get<'py>(py: Python<'py>, object: &Bound<'py, ObjectRef>) -> PyResult<Bound<'py, PyAny>> {
    let ray = current()?;
    let bytes = ray.store().get(object.get().live(py)?).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    codec::decode(py, bytes, &ray)
}

/// The bytes of an object, and the number of its encoding.
#[pyfunction]
fn _bytes<'py>(py: Python<'py>, object: &Bound<'py, ObjectRef>) -> PyResult<(Bound<'py, PyBytes>, u8)> {
    let bytes = current()?.store().get(object.get().live(py)?);
    let bytes = bytes.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok((PyBytes::new(py, &bytes), bytes.encoding() as u8))
}

/// An object of any bytes.
#[pyfunction]
fn _put_bytes(py: Python<'_>, bytes: &[u8], encoding: u8, references: Vec<Py<ObjectRef>>) -> PyResult<Py<ObjectRef>> {
    let known = [Encoding::Raw, Encoding::Arrow, Encoding::Pickle, Encoding::MessagePack];
    let references: Vec<_> = references.iter().filter_map(|object| object.get().object().cloned()).collect();
    let options =
        CreateOptions { encoding: known[usize::from(encoding)], references: &references, ..Default::default() };
    let object = current()?.store().put_with(bytes, &options).map_err(|error| codec::refused(&error))?;
    ObjectRef::of(py, object)
}

#[pyfunction]
fn _encode_arguments<'py>(
    py: Python<'py>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<(Bound<'py, PyBytes>, Vec<Py<ObjectRef>>)> {
    let arguments = codec::encode_arguments(py, args, kwargs, &current()?, "f")?;
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
    let value = |at: usize| {
        let object = awaited.get(at).ok_or_else(|| pyo3::exceptions::PyValueError::new_err("no such object"))?;
        get(py, object)
    };
    codec::decode_arguments(py, bytes, value)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(init_local, module)?)?;
    module.add_function(wrap_pyfunction!(shutdown, module)?)?;
    module.add_function(wrap_pyfunction!(put, module)?)?;
    module.add_function(wrap_pyfunction!(get, module)?)?;
    module.add_function(wrap_pyfunction!(_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(_put_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(_encode_arguments, module)?)?;
    module.add_function(wrap_pyfunction!(_decode_arguments, module)?)
}
