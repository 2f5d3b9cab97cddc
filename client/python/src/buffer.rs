//! Bytes in place, across the boundary: an object's as Python's buffer protocol sees them, and a Python
//! object's as Rust does.
//!
//! The one thing to know: what is handed out keeps the object pinned, so a view of another library holds
//! the bytes where they are for as long as it lives; it is read-only, or memory of this process alone, or of an
//! object that nobody else knows yet. This is the one file of the extension with `unsafe`. It must not know what
//! the bytes mean.

#![allow(unsafe_code)]

use crate::draft::Draft;
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

/// A range of an object's bytes; the object stays where it is meanwhile.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct Buffer {
    memory: Memory,
    range: Range<usize>,
}

/// Whose pages they are.
enum Memory {
    /// Of a sealed object, read-only.
    Object(Arc<Object>),
    /// The same, and what is written stays in this process; the object is what keeps it good.
    Private(Arc<PrivateMap>, #[allow(dead_code)] Arc<Object>),
    /// Of an object that is being written, or was.
    Draft(Arc<Draft>),
}

impl Memory {
    fn first(&self) -> *mut u8 {
        match self {
            Memory::Object(object) => object.as_ptr().cast_mut(),
            Memory::Private(private, _) => private.pointer().as_ptr(),
            Memory::Draft(draft) => draft.canvas().pointer().as_ptr(),
        }
    }
}

impl Buffer {
    /// Over a range that lies inside the object.
    pub(crate) fn over<'py>(
        py: Python<'py>,
        object: &Arc<Object>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, Buffer>> {
        Buffer::new(py, Memory::Object(Arc::clone(object)), object.len(), range)
    }

    /// As [`Buffer::over`], of the object's private memory.
    pub(crate) fn over_private<'py>(
        py: Python<'py>,
        object: &Arc<Object>,
        range: Range<usize>,
        private: &Arc<PrivateMap>,
    ) -> PyResult<Bound<'py, Buffer>> {
        let memory = Memory::Private(Arc::clone(private), Arc::clone(object));
        Buffer::new(py, memory, object.len(), range)
    }

    /// Over a range of what a draft shows.
    pub(crate) fn over_draft<'py>(
        py: Python<'py>,
        draft: &Arc<Draft>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, Buffer>> {
        Buffer::new(py, Memory::Draft(Arc::clone(draft)), draft.canvas().bytes(), range)
    }

    fn new(py: Python<'_>, memory: Memory, bytes: usize, range: Range<usize>) -> PyResult<Bound<'_, Buffer>> {
        if range.start > range.end || range.end > bytes {
            return Err(PyIndexError::new_err(format!("bytes {range:?} of an object of {bytes}")));
        }
        Bound::new(py, Buffer { memory, range })
    }

    fn first(&self) -> *mut u8 {
        self.memory.first().wrapping_add(self.range.start)
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
        let is_read_only = c_int::from(matches!(this.memory, Memory::Object(_)));
        // SAFETY: (1) the interpreter gives a view that it owns; (2) the range was checked to be inside the
        // object, whose bytes stay mapped while this lives, of which the view takes a reference; (3) what
        // is sealed and not this process' own is marked read-only, so nobody is given leave to write to it;
        // (4) no slice is made over a draft's pages, into which the program writes as it likes.
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

    /// Where the bytes are.
    pub(crate) fn address(&self) -> usize {
        self.0.buf_ptr().addr()
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
