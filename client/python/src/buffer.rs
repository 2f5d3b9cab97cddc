//! Bytes in place, across the boundary: an object's as Python's buffer protocol sees them, and a Python
//! object's as Rust does.
//!
//! The one thing to know: what is handed out keeps the object pinned, so a view of another library holds
//! the bytes where they are for as long as it lives; it is read-only, or memory of this process alone. This is the one file of the
//! extension with `unsafe`. It must not know what the bytes mean.

#![allow(unsafe_code)]

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyIndexError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::Arc;
use store::Object;
use store_shm::map::PrivateMap;

/// A range of a sealed object's bytes; the object stays pinned meanwhile.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct Buffer {
    object: Arc<Object>,
    range: Range<usize>,
    /// All of the object's bytes as memory that may be written to; without it they are read-only.
    private: Option<Arc<PrivateMap>>,
}

impl Buffer {
    /// Over a range that lies inside the object.
    pub(crate) fn over<'py>(
        py: Python<'py>,
        object: &Arc<Object>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, Buffer>> {
        Buffer::over_either(py, object, range, None)
    }

    /// As [`Buffer::over`], of the object's private memory where there is one.
    pub(crate) fn over_either<'py>(
        py: Python<'py>,
        object: &Arc<Object>,
        range: Range<usize>,
        private: Option<&Arc<PrivateMap>>,
    ) -> PyResult<Bound<'py, Buffer>> {
        let bytes = object.len();
        if range.start > range.end || range.end > bytes {
            return Err(PyIndexError::new_err(format!("bytes {range:?} of an object of {bytes}")));
        }
        Bound::new(py, Buffer { object: Arc::clone(object), range, private: private.cloned() })
    }

    fn first(&self) -> *mut u8 {
        match &self.private {
            Some(private) => private.pointer().as_ptr().wrapping_add(self.range.start),
            None => self.object[self.range.clone()].as_ptr().cast_mut(),
        }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.range.len()
    }

    /// # Safety
    ///
    /// The interpreter calls it with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let (first, len) = (this.first().cast(), this.range.len() as ffi::Py_ssize_t);
        let is_read_only = c_int::from(this.private.is_none());
        // SAFETY: (1) the interpreter gives a view that it owns; (2) the range was checked to be inside the
        // object, whose bytes stay mapped while this lives, of which the view takes a reference; (3) what
        // is not this process' own is marked read-only, so nobody is given leave to write to it.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), first, len, is_read_only, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// The bytes of a Python object that exports them, which stays until this is dropped.
pub(crate) struct Borrowed(PyBuffer<u8>);

impl Borrowed {
    /// Of a `pickle.PickleBuffer`, whatever its items are.
    pub(crate) fn of(buffer: &Bound<'_, PyAny>) -> PyResult<Borrowed> {
        let raw = buffer.call_method0(intern!(buffer.py(), "raw"))?;
        Ok(Borrowed(PyBuffer::get(&raw)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// The bytes, to be copied. What the program writes into them meanwhile arrives or does not.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        let bytes = match self.0.as_slice_ptr() {
            // SAFETY: (1) the exporter keeps the bytes where they are while the buffer is held, which
            // outlives the call; (2) they are contiguous, or there were no pointer; (3) they are only
            // copied, byte by byte, so a thread of the program that writes to them tears its own value.
            Some(bytes) if self.len() > 0 => unsafe { bytes.as_ref() },
            _ => &[],
        };
        read(bytes)
    }
}
