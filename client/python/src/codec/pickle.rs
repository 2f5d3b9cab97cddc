//! Values as pickle, protocol 5, with their buffers beside it.
//!
//! The one thing to know: there are two picklers. The interpreter's own writes functions and classes by
//! name alone, so it is given what certainly holds none: exact containers of exact simple values, as far
//! as a short look goes, and arrays of numbers. Everything else is `raylet._private.pickling`'s. This
//! file must not know where the bytes lie.

use super::layout::Layout;
use super::{CodecError, copy};
use crate::buffer::{Borrowed, Buffer};
use crate::draft::Draft;
use crate::refs::{self, Received};
use pyo3::exceptions::PyMemoryError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Object, ObjectRef as RawRef, Store};

/// What looking at an item costs, and at a reference, for each of which the longer way calls Python.
const LOOK: usize = 4096;
const LOOK_AT_REFERENCE: usize = 1;
/// What is spent on looking before the longer way is taken, which costs less than looking on.
const LOOKS_MAX: usize = 256 * LOOK;

/// For a pickle that says more than that of the array that was asked for: of another shape, or type.
const HEAD_SPARE_BYTES: usize = 256;

/// Somebody registered a serializer: for arrays, for all we know.
static HAS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Has arrays go through `raylet._private.pickling`, too, as a serializer may be registered for them.
#[pyfunction(name = "_prefer_registered")]
pub(super) fn prefer_registered() {
    HAS_REGISTERED.store(true, Ordering::Relaxed);
}

/// A pickled value, planned.
pub(super) struct Pickled<'py> {
    stream: Bound<'py, PyBytes>,
    buffers: Vec<Borrowed>,
    references: Vec<RawRef>,
    /// Where each reference is in the object's list, and how many are.
    positions: Vec<u32>,
    listed: u32,
    layout: Layout,
}

impl<'py> Pickled<'py> {
    pub(super) fn of(value: &Bound<'py, PyAny>) -> PyResult<Pickled<'py>> {
        let list = only_references(value);
        let is_list = list.is_some();
        let (stream, buffers, references) = match list {
            Some(references) => (PyBytes::new(value.py(), &[]), Vec::new(), references),
            None => {
                let (dumped, references) = refs::sending(|| dump(value));
                let (stream, buffers) = dumped?;
                (stream, buffers, references)
            }
        };
        let (positions, listed) = positions(&references);
        let sizes = buffers.iter().map(Borrowed::len);
        let mut layout = Layout::plan(stream.as_bytes().len(), sizes, positions.len());
        layout.is_list = is_list;
        Ok(Pickled { stream, buffers, references, positions, listed, layout })
    }

    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn references(&self) -> &[RawRef] {
        &self.references
    }

    /// The pickle, where that is all.
    pub(super) fn alone(&self) -> Option<&[u8]> {
        (self.references.is_empty() && self.buffers.is_empty()).then(|| self.stream.as_bytes())
    }

    /// Seals the object in which its one buffer lies already, if that is one: nothing large is copied.
    pub(super) fn put_in_place(&self, py: Python<'_>, store: &Store) -> Option<RawRef> {
        let ([buffer], []) = (self.buffers.as_slice(), self.references.as_slice()) else { return None };
        let draft = Draft::of(buffer)?;
        let layout = self.layout.with_buffer_from(draft.head())?;
        let stream = self.stream.as_bytes();
        // Without the interpreter: the seal has a lock, and what it asks of the kernel may take a while.
        let sealed = py.detach(|| {
            draft.canvas().seal(store, |out| {
                layout.write_head(&[], 0, out);
                out[layout.pickle.clone()].copy_from_slice(stream);
                layout.write_sum(out);
                true
            })
        })?;
        draft.forget();
        Some(sealed)
    }

    pub(super) fn write_to(&self, py: Python<'_>, out: &mut [u8]) {
        self.layout.write_head(&self.positions, self.listed, out);
        copy(py, self.stream.as_bytes(), &mut out[self.layout.pickle.clone()]);
        self.layout.write_sum(out);
        for (buffer, place) in self.buffers.iter().zip(&self.layout.buffers) {
            buffer.read(|bytes| copy(py, bytes, &mut out[place.clone()]));
        }
    }
}

/// Where the bytes begin in an object of an array like `template`, of so many dimensions and any size.
pub(crate) fn head_bytes(template: &Bound<'_, PyAny>, dimensions: usize) -> PyResult<usize> {
    // Of a number the pickle has from 2 to 10 bytes; another view of the bytes may need more words.
    Ok(Pickled::of(template)?.layout.buffer_behind(dimensions.saturating_mul(8).saturating_add(HEAD_SPARE_BYTES)))
}

/// The references of a list that holds nothing else: a hundred thousand of them are worth a way of their own,
/// as the unpickler would make and keep two objects more for each.
fn only_references(value: &Bound<'_, PyAny>) -> Option<Vec<RawRef>> {
    let list = value.is_exact_instance_of::<PyList>().then(|| value.cast_exact::<PyList>().ok())??;
    let reference = |item: Bound<'_, PyAny>| {
        let object = item.is_exact_instance_of::<refs::ObjectRef>().then(|| item.cast_exact::<refs::ObjectRef>().ok());
        object??.get().object().cloned()
    };
    let references: Vec<RawRef> = list.iter().map(reference).collect::<Option<_>>()?;
    (!references.is_empty()).then_some(references)
}

/// Where each reference will be found: the store sorts a list by slot and names nothing twice.
fn positions(references: &[RawRef]) -> (Vec<u32>, u32) {
    let mut order: Vec<u32> = references.iter().map(|object| object.handle().slot).collect();
    order.sort_unstable();
    order.dedup();
    let place = |object: &RawRef| order.partition_point(|slot| *slot < object.handle().slot) as u32;
    (references.iter().map(place).collect(), order.len() as u32)
}

type Dumped<'py> = (Bound<'py, PyBytes>, Vec<Borrowed>);

fn dump<'py>(value: &Bound<'py, PyAny>) -> PyResult<Dumped<'py>> {
    let py = value.py();
    if is_simple(value, &mut { LOOKS_MAX }) {
        let stream = dumps(py)?.call1((value, 5))?;
        return Ok((stream.cast_into_exact()?, Vec::new()));
    }
    if is_array(value)? {
        return dump_array(value);
    }
    dump_long(value)
}

fn dump_array<'py>(value: &Bound<'py, PyAny>) -> PyResult<Dumped<'py>> {
    let py = value.py();
    let buffers = PyList::empty(py);
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "buffer_callback"), buffers.getattr(intern!(py, "append"))?)?;
    let stream = dumps(py)?.call((value, 5), Some(&keywords))?;
    // Strided items, or times: NumPy itself writes such into the pickle.
    if buffers.is_empty() { dump_long(value) } else { Ok((stream.cast_into_exact()?, borrow(&buffers)?)) }
}

/// By the package's pickler.
fn dump_long<'py>(value: &Bound<'py, PyAny>) -> PyResult<Dumped<'py>> {
    let py = value.py();
    static LONG_WAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dumped = LONG_WAY.import(py, "raylet._private.pickling", "dumps")?.call1((value,))?;
    let (stream, buffers): (Bound<'py, PyBytes>, Bound<'py, PyList>) = dumped.extract()?;
    Ok((stream, borrow(&buffers)?))
}

fn borrow(buffers: &Bound<'_, PyList>) -> PyResult<Vec<Borrowed>> {
    buffers.iter().map(|buffer| Borrowed::of(&buffer)).collect()
}

fn dumps(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    DUMPS.import(py, "_pickle", "dumps")
}

fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "_pickle", "loads")
}

/// Whether it holds nothing but what every interpreter has; false where that takes long to say.
fn is_simple(value: &Bound<'_, PyAny>, looks: &mut usize) -> bool {
    let is_reference = value.is_exact_instance_of::<refs::ObjectRef>();
    let Some(left) = looks.checked_sub(if is_reference { LOOK_AT_REFERENCE } else { LOOK }) else { return false };
    *looks = left;
    if is_reference {
        return true;
    }
    if is_single(value) {
        return true;
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return list.iter().all(|item| is_simple(&item, looks));
    }
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        return tuple.iter_borrowed().all(|item| is_simple(&item, looks));
    }
    if let Ok(map) = value.cast_exact::<PyDict>() {
        return map.iter().all(|(key, item)| is_simple(&key, looks) && is_simple(&item, looks));
    }
    if let Ok(set) = value.cast_exact::<PySet>() {
        return set.iter().all(|item| is_simple(&item, looks));
    }
    let set = value.cast_exact::<PyFrozenSet>();
    set.is_ok_and(|set| set.iter().all(|item| is_simple(&item, looks)))
}

fn is_single(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_none()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyByteArray>()
        || value.is_exact_instance_of::<PyComplex>()
}

/// Whether it is exactly a NumPy array, and of no Python objects.
fn is_array(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    static ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let array = match ARRAY.get(py) {
        Some(array) => array,
        // While nobody has imported NumPy there is no array, and importing it is not ours.
        None => match py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.get_item(intern!(py, "numpy")) {
            Ok(numpy) if numpy.hasattr(intern!(py, "ndarray"))? => {
                let array = numpy.getattr(intern!(py, "ndarray"))?.unbind();
                ARRAY.get_or_init(py, || array)
            }
            _ => return Ok(false),
        },
    };
    if !value.get_type().is(array) || HAS_REGISTERED.load(Ordering::Relaxed) {
        return Ok(false);
    }
    Ok(!value.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "hasobject"))?.extract::<bool>()?)
}

/// The value of a whole object; if `is_private`, with buffers that the program may write to.
pub(super) fn read(py: Python<'_>, object: Object, is_private: bool) -> PyResult<Bound<'_, PyAny>> {
    let layout = Layout::read(&object)?;
    let received = received(&object, &layout)?;
    if layout.is_list {
        return list_of(py, &received);
    }
    if layout.buffers.is_empty() {
        // Nothing of it is read in place, so the object need not stay.
        let stream = PyBytes::new(py, &object[layout.pickle.clone()]);
        drop(object);
        return refs::receiving(received, || loads(py)?.call1((stream,)));
    }
    let object = Arc::new(object);
    let stream = Buffer::over(py, &object, layout.pickle)?;
    let buffers = if is_private {
        private_buffers(py, &object, layout.buffers)?
    } else {
        let buffers = layout.buffers.into_iter().map(|place| Buffer::over(py, &object, place));
        PyList::new(py, buffers.collect::<PyResult<Vec<_>>>()?)?
    };
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "buffers"), buffers)?;
    refs::receiving(received, || loads(py)?.call((stream,), Some(&keywords)))
}

fn list_of<'py>(py: Python<'py>, received: &Received) -> PyResult<Bound<'py, PyAny>> {
    let reference = |position: &u32| refs::ObjectRef::of(py, received.listed[*position as usize].clone());
    let list = received.positions.iter().map(reference).collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, list)?.into_any())
}

/// Buffers that may be written to: of pages that become copies then, or copies where there are none.
fn private_buffers<'py>(
    py: Python<'py>,
    object: &Arc<Object>,
    places: Vec<Range<usize>>,
) -> PyResult<Bound<'py, PyList>> {
    let private = object.private().map_err(|error| PyMemoryError::new_err(error.to_string()))?.map(Arc::new);
    let buffer = |place: Range<usize>| match &private {
        Some(private) => Ok(Buffer::over_private(py, object, place, private)?.into_any()),
        None => Ok(PyByteArray::new(py, &object[place]).into_any()),
    };
    PyList::new(py, places.into_iter().map(buffer).collect::<PyResult<Vec<_>>>()?)
}

/// A value of which the pickle is all, as it stands inside other bytes.
pub(super) fn read_alone<'py>(py: Python<'py>, stream: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let stream = PyBytes::new(py, stream);
    refs::receiving(Received::default(), || loads(py)?.call1((stream,)))
}

/// What the pickle may name.
fn received(object: &Object, layout: &Layout) -> Result<Received, CodecError> {
    if layout.references() == 0 {
        return Ok(Received::default());
    }
    let listed = object.references();
    if listed.len() != layout.listed as usize {
        let (number, limit) = (u64::from(layout.listed), listed.len() as u64);
        return Err(CodecError::Range { what: "the count of listed objects", number, limit });
    }
    Ok(Received { positions: layout.positions(object)?, listed })
}
