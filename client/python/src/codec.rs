//! Values between Python and the store: a Python object as an object's bytes, and back.
//!
//! The one thing to know: [`encode`] plans and [`Encoded::write_to`] writes, so that what is large is
//! copied once, into its place. What other languages can read is MessagePack ([`plain`]); everything
//! else is pickle with its buffers laid out to be read in place ([`layout`]). Bytes that are read are
//! an allegation. This module must not know tasks, nor which errors a program sees of a failed one.
//!
//! | value | travels as |
//! | --- | --- |
//! | exact `None bool int float str bytes`, ints in 64 bits; `bytearray` and `memoryview` as `bytes` | MessagePack |
//! | exact containers of such, and exact arrays of numbers | pickle, written by the interpreter's own pickler |
//! | everything else | pickle, written by `raylet._private.pickling` |

mod arguments;
mod layout;
mod pickle;
mod plain;
mod probe;
mod table;
mod unplain;

pub(crate) use arguments::{decode_arguments, encode_arguments};
pub(crate) use pickle::head_bytes;

use crate::buffer::Buffer;
use crate::refs;
use pickle::Pickled;
use plain::Plain;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use raylet_client::Raylet;
use raylet_client::binding::{Form, Writing};
use std::sync::Arc;
use store::{CreateError, CreateOptions, Encoding, Object, ObjectRef as RawRef, Store};
use table::ArrowTable;

/// Up to here a value is written beside the store first: one put is cheaper than a writer.
const SMALL_BYTES: usize = 256;
/// From here on other threads of the interpreter run while bytes are copied.
const DETACHED_FROM_BYTES: usize = 256 << 10;

/// Bytes that are no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CodecError {
    /// The bytes end too early.
    #[error("the bytes end in the middle of {what}: {needed} more are needed, {left} are left")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that there are.
        left: usize,
    },
    /// More bytes than the value has.
    #[error("{bytes} bytes follow the value")]
    Excess {
        /// How many.
        bytes: usize,
    },
    /// A first byte that nothing begins with.
    #[error("no value begins with byte {byte:#04x}")]
    Tag {
        /// The byte.
        byte: u8,
    },
    /// A number that must be below another.
    #[error("{what} {number} is not below {limit}")]
    Range {
        /// What the number counts.
        what: &'static str,
        /// The number.
        number: u64,
        /// What it has to stay below.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// A header of another version.
    #[error("the value is laid out in version {version}, and this is version {expected}")]
    Version {
        /// The version found.
        version: u8,
        /// The one that is understood.
        expected: u8,
    },
    /// The bytes are not what was written.
    #[error("the checksum is {found:#010x}, and {sum:#010x} was written")]
    Sum {
        /// What was written.
        sum: u32,
        /// Of what is there.
        found: u32,
    },
    /// An object of an encoding that is no value.
    #[error("the object holds {encoding:?}, which is no value")]
    Encoding {
        /// What it holds.
        encoding: Encoding,
    },
}

impl From<CodecError> for PyErr {
    fn from(error: CodecError) -> PyErr {
        PyValueError::new_err(format!("the bytes of an object cannot be read: {error}"))
    }
}

/// For what a value is encoded; errors name it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A put.
    Put,
    /// What a task returned.
    Result,
    /// An argument of the function or method of this name.
    Argument(&'a str),
}

impl Place<'_> {
    /// As `raylet._private.pickling.explain` takes it: before the value, and behind it.
    fn words(&self) -> (&'static str, String) {
        match self {
            Place::Put => ("the put value", String::new()),
            Place::Result => ("the return value", String::new()),
            Place::Argument(function) => ("the argument", format!(" for a task or actor {function}")),
        }
    }
}

/// A value about to become an object.
pub(crate) struct Encoded<'py> {
    body: Body<'py>,
}

enum Body<'py> {
    Plain(Plain<'py>),
    Pickled(Box<Pickled<'py>>),
}

/// Plans how a value is written; the value must not change before it is.
pub(crate) fn encode<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    encode_as(py, value, Place::Put)
}

/// As [`encode`], with the place that an error is to name.
#[inline]
pub(crate) fn encode_as<'py>(py: Python<'py>, value: &Bound<'py, PyAny>, place: Place<'_>) -> PyResult<Encoded<'py>> {
    if let Some(plain) = Plain::of(value)? {
        return Ok(Encoded { body: Body::Plain(plain) });
    }
    match Pickled::of(value) {
        Ok(pickled) => Ok(Encoded { body: Body::Pickled(Box::new(pickled)) }),
        Err(error) => Err(explained(py, value, place, error)),
    }
}

/// A `TypeError` of pickling with the report of what is to blame; other errors as they are.
#[cold]
fn explained(py: Python<'_>, value: &Bound<'_, PyAny>, place: Place<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyTypeError>(py) {
        return error;
    }
    let (before, behind) = place.words();
    let explain = || {
        let module = py.import(intern!(py, "raylet._private.pickling"))?;
        module.call_method1(intern!(py, "explain"), (value, before, behind, error.value(py)))
    };
    explain().map_or_else(|other| other, PyErr::from_value)
}

impl<'py> Encoded<'py> {
    /// How the bytes are to be read.
    pub(crate) fn encoding(&self) -> Encoding {
        match &self.body {
            Body::Plain(_) => Encoding::MessagePack,
            Body::Pickled(_) => Encoding::Pickle,
        }
    }

    /// How many bytes it takes.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Plain(plain) => plain.size(),
            Body::Pickled(pickled) => pickled.size(),
        }
    }

    /// The objects that the value names; its object is to list them.
    #[inline]
    pub(crate) fn references(&self) -> &[RawRef] {
        match &self.body {
            Body::Plain(_) => &[],
            Body::Pickled(pickled) => pickled.references(),
        }
    }

    /// The pickle, where the value is one that names nothing and has no buffers.
    fn pickle_alone(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Plain(_) => None,
            Body::Pickled(pickled) => pickled.alone(),
        }
    }

    /// Writes the value; `out` is [`Encoded::size`] long.
    pub(crate) fn write_to(&self, py: Python<'_>, out: &mut [u8]) {
        match &self.body {
            Body::Plain(plain) => plain.write_to(py, out),
            Body::Pickled(pickled) => pickled.write_to(py, out),
        }
    }

    /// Makes an object of it that only its handle names.
    #[inline]
    pub(crate) fn put(&self, py: Python<'_>, store: &Store) -> Result<RawRef, Box<CreateError>> {
        let references = self.references();
        let options =
            CreateOptions { encoding: self.encoding(), references, by_handle_only: true, ..CreateOptions::default() };
        if let Body::Plain(Plain::Head(head)) = &self.body {
            return store.put_with(head.as_slice(), &options);
        }
        if let Body::Pickled(pickled) = &self.body
            && let Some(object) = pickled.put_in_place(py, store)
        {
            return Ok(object);
        }
        let size = self.size();
        if size <= SMALL_BYTES {
            let mut bytes = [0; SMALL_BYTES];
            self.write_to(py, &mut bytes[..size]);
            return store.put_with(&bytes[..size], &options);
        }
        // A create may wait for room, which other threads of this process have to make.
        let mut writer = py.detach(|| store.create(size as u64, &options))?;
        self.write_to(py, &mut writer);
        Ok(writer.seal())
    }

    /// As a result is made of.
    #[inline]
    pub(crate) fn with_form<R>(&self, py: Python<'py>, with: impl FnOnce(&Form<'_>) -> R) -> R {
        let (encoding, references) = (self.encoding(), self.references());
        with(&Form::Written { encoding, len: self.size() as u64, references, write: &Writes { py, encoded: self } })
    }
}

/// Writes a value into the place of a result.
struct Writes<'a, 'py> {
    py: Python<'py>,
    encoded: &'a Encoded<'py>,
}

impl Writing for Writes<'_, '_> {
    fn write(&self, place: &mut [u8]) {
        self.encoded.write_to(self.py, place);
    }
}

impl std::fmt::Debug for Writes<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writes").field("bytes", &self.encoded.size()).finish_non_exhaustive()
    }
}

/// Makes an object of a value.
#[inline]
pub(crate) fn put(py: Python<'_>, ray: &Raylet, value: &Bound<'_, PyAny>) -> PyResult<RawRef> {
    encode(py, value)?.put(py, ray.store()).map_err(|error| refused(&error))
}

/// Copies what may be large, letting other threads of the interpreter run meanwhile.
fn copy(py: Python<'_>, from: &[u8], to: &mut [u8]) {
    if from.len() < DETACHED_FROM_BYTES { to.copy_from_slice(from) } else { py.detach(|| store::copy(from, to)) }
}

/// The value of a whole object. An object that holds an error is no value: that is the caller's.
#[inline]
pub(crate) fn decode(py: Python<'_>, object: Object) -> PyResult<Bound<'_, PyAny>> {
    decode_either(py, object, false)
}

/// As [`decode`], with arrays that the program may write to: each page becomes its own then.
pub(crate) fn decode_private(py: Python<'_>, object: Object) -> PyResult<Bound<'_, PyAny>> {
    decode_either(py, object, true)
}

#[inline]
fn decode_either(py: Python<'_>, object: Object, is_private: bool) -> PyResult<Bound<'_, PyAny>> {
    match object.encoding() {
        Encoding::MessagePack => match plain::read(py, &object)? {
            Some(value) => Ok(value),
            None => unplain::read(py, &object),
        },
        Encoding::Pickle => pickle::read(py, object, is_private),
        Encoding::Raw => Ok(PyBytes::new(py, &object).into_any()),
        Encoding::Arrow => read_arrow(py, object),
        encoding => Err(CodecError::Encoding { encoding }.into()),
    }
}

/// A table that another language put, as views into the store: pyarrow's, where that is.
fn read_arrow(py: Python<'_>, object: Object) -> PyResult<Bound<'_, PyAny>> {
    let (Ok(arrow), Ok(ipc)) = (py.import("pyarrow"), py.import("pyarrow.ipc")) else {
        return Ok(ArrowTable::of(py, object)?.into_any());
    };
    let bytes = object.len();
    let whole = Buffer::over(py, &Arc::new(object), 0..bytes)?;
    let file = ipc.call_method1("open_file", (arrow.call_method1("py_buffer", (whole,))?,))?;
    file.call_method0("read_all")
}

/// What a put that failed raises.
#[cold]
pub(crate) fn refused(error: &CreateError) -> PyErr {
    match error {
        CreateError::ForeignReference { .. } => PyValueError::new_err(error.to_string()),
        // Whoever asks has the interpreter.
        _ => Python::attach(|py| crate::hooks::exception(py, "StoreFull", &error.to_string(), "")),
    }
}

/// A call's keyword arguments.
pub(crate) type Keywords<'py> = Option<Bound<'py, PyDict>>;

/// Reads bytes from the front; each step checks that they are there.
struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, what: &'static str, bytes: u64) -> Result<&'a [u8], CodecError> {
        let short = CodecError::Short { what, needed: bytes, left: self.left.len() };
        let at = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.left.len()).ok_or(short)?;
        let (taken, left) = self.left.split_at(at);
        self.left = left;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let bytes = self.take(what, N as u64)?;
        Ok(bytes.try_into().expect("as many bytes were taken"))
    }

    #[inline]
    fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        Ok(self.array::<1>(what)?[0])
    }

    fn end(&self) -> Result<(), CodecError> {
        if self.left.is_empty() { Ok(()) } else { Err(CodecError::Excess { bytes: self.left.len() }) }
    }
}

/// Registers what the package needs of the codec.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Buffer>()?;
    module.add_class::<ArrowTable>()?;
    module.add_function(wrap_pyfunction!(pickle::prefer_registered, module)?)?;
    probe::register(module)?;
    refs::register(module)
}
