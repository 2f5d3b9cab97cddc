//! The arguments of a call as bytes beside the objects that it awaits.
//!
//! ```text
//! positional u8; 255: u32 follows
//! each positional value, then for each keyword its name as MessagePack text and its value
//! value: MessagePack of a single value
//!        0xd4 position u16     the value of an awaited object: a reference was given
//!        0xd5 position u16     the same: the caller put the value, as it is large or names objects
//!        0xd6 bytes u16 ..     a pickle
//! ```
//!
//! The one thing to know: the usual call, a few numbers, short texts and references, fits into a task's
//! record and takes no memory of its own. Bytes that are read are an allegation. This file must not know
//! where a call is written.

use super::plain::{self, Head, Plain};
use super::{CodecError, Keywords, Place, Reader, encode_as, pickle, refused};
use crate::refs::ObjectRef;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use raylet_api::record::INLINE_BYTES_MAX;
use raylet_client::{Raylet, binding};
use store::{ObjectRef as RawRef, Store};

/// A value of more bytes becomes an object.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// The position of an awaited object is a u16.
const AWAITED_MAX: usize = u16::MAX as usize;

const AWAITED: u8 = 0xd4;
const BY_VALUE: u8 = 0xd5;
const PICKLED: u8 = 0xd6;
/// More positional arguments than this are counted in four bytes.
const MANY: u8 = 255;

/// The arguments of a call, written.
#[derive(Debug)]
pub(crate) struct Arguments {
    bytes: Compact,
    awaited: Vec<RawRef>,
}

impl Arguments {
    /// What a record or a spec object carries.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// As they are submitted.
    #[inline]
    pub(crate) fn packed(self) -> binding::Arguments {
        binding::Arguments::of_parts(self.bytes.as_slice(), self.awaited)
    }

    /// The same, for whoever goes on holding them.
    pub(crate) fn into_awaited(self) -> Vec<RawRef> {
        self.awaited
    }
}

/// Bytes that take memory of their own only when they do not fit into a record.
#[derive(Debug)]
struct Compact {
    inline: [u8; INLINE_BYTES_MAX],
    len: usize,
    /// All of them, once there are more.
    more: Vec<u8>,
}

impl Compact {
    fn as_slice(&self) -> &[u8] {
        if self.more.is_empty() { &self.inline[..self.len] } else { &self.more }
    }

    /// Room behind what is there.
    fn grow(&mut self, bytes: usize) -> &mut [u8] {
        let len = self.len;
        self.len += bytes;
        if self.more.is_empty() && self.len <= INLINE_BYTES_MAX {
            return &mut self.inline[len..self.len];
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.inline[..len]);
        }
        self.more.resize(self.len, 0);
        &mut self.more[len..]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }
}

/// Writes the arguments of a call of `function`; what is large is put into the store.
pub(crate) fn encode_arguments<'py>(
    py: Python<'py>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    ray: &Raylet,
    function: &str,
    header: &[u8],
) -> PyResult<Arguments> {
    let mut bytes = Compact { inline: [0; INLINE_BYTES_MAX], len: 0, more: Vec::new() };
    bytes.push(header);
    let mut writer = Writer { py, store: ray.store(), function, to: Arguments { bytes, awaited: Vec::new() } };
    writer.count(args.len())?;
    for argument in args.iter_borrowed() {
        writer.value(&argument)?;
    }
    for (name, argument) in kwargs.into_iter().flat_map(|kwargs| kwargs.iter()) {
        writer.name(&name)?;
        writer.value(&argument)?;
    }
    Ok(writer.to)
}

struct Writer<'a, 'py> {
    py: Python<'py>,
    store: &'a Store,
    function: &'a str,
    to: Arguments,
}

impl<'py> Writer<'_, 'py> {
    fn count(&mut self, positional: usize) -> PyResult<()> {
        if positional < usize::from(MANY) {
            self.to.bytes.push(&[positional as u8]);
            return Ok(());
        }
        let count = u32::try_from(positional).map_err(|_| PyValueError::new_err("too many arguments"))?;
        self.to.bytes.push(&[MANY]);
        self.to.bytes.push(&count.to_le_bytes());
        Ok(())
    }

    fn name(&mut self, name: &Bound<'py, PyAny>) -> PyResult<()> {
        let name = name.cast::<PyString>()?.to_str()?;
        self.to.bytes.push(Head::text(name.len()).as_slice());
        self.to.bytes.push(name.as_bytes());
        Ok(())
    }

    #[inline]
    fn value(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        match Plain::of(value)? {
            Some(Plain::Head(head)) => {
                self.to.bytes.push(head.as_slice());
                Ok(())
            }
            Some(plain) if plain.size() <= VALUE_BYTES_MAX => {
                plain.write_to(self.py, self.to.bytes.grow(plain.size()));
                Ok(())
            }
            _ => self.other(value),
        }
    }

    fn other(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        if value.is_exact_instance_of::<ObjectRef>() {
            let object = value.cast_exact::<ObjectRef>()?.get().live(self.py)?.clone();
            return self.awaited(AWAITED, object);
        }
        let encoded = encode_as(self.py, value, Place::Argument(self.function))?;
        match encoded.pickle_alone() {
            Some(stream) if stream.len() <= VALUE_BYTES_MAX => {
                self.to.bytes.push(&[PICKLED]);
                self.to.bytes.push(&(stream.len() as u16).to_le_bytes());
                self.to.bytes.push(stream);
                Ok(())
            }
            _ => {
                let object = encoded.put(self.py, self.store).map_err(|error| refused(&error))?;
                self.awaited(BY_VALUE, object)
            }
        }
    }

    fn awaited(&mut self, tag: u8, object: RawRef) -> PyResult<()> {
        let position = self.to.awaited.len();
        if position >= AWAITED_MAX {
            return Err(PyValueError::new_err(format!(
                "a call takes at most {AWAITED_MAX} references or large values"
            )));
        }
        let [low, high] = (position as u16).to_le_bytes();
        self.to.bytes.push(&[tag, low, high]);
        self.to.awaited.push(object);
        Ok(())
    }
}

/// Reads the arguments of a call; `awaited` gives the value of the object at a position.
pub(crate) fn decode_arguments<'py>(
    py: Python<'py>,
    bytes: &[u8],
    mut awaited: impl FnMut(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyTuple>, Keywords<'py>)> {
    let mut reader = Reader { left: bytes };
    let count = match reader.byte("the arguments")? {
        MANY => u32::from_le_bytes(reader.array("the arguments")?) as usize,
        count => usize::from(count),
    };
    // Each takes a byte at least.
    let mut values = Vec::with_capacity(count.min(reader.left.len()));
    for _ in 0..count {
        values.push(read_value(py, &mut reader, &mut awaited)?);
    }
    let args = PyTuple::new(py, values)?;
    if reader.left.is_empty() {
        return Ok((args, None));
    }
    let kwargs = PyDict::new(py);
    while !reader.left.is_empty() {
        let tag = reader.byte("a name")?;
        let name = plain::read_one(py, tag, &mut reader)?.ok_or(CodecError::Tag { byte: tag })?;
        kwargs.set_item(name.cast_into_exact::<PyString>()?, read_value(py, &mut reader, &mut awaited)?)?;
    }
    Ok((args, Some(kwargs)))
}

#[inline]
fn read_value<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    awaited: &mut impl FnMut(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let tag = reader.byte("an argument")?;
    match tag {
        AWAITED | BY_VALUE => awaited(usize::from(u16::from_le_bytes(reader.array("a position")?))),
        PICKLED => {
            let len = u16::from_le_bytes(reader.array("a length")?);
            pickle::read_alone(py, reader.take("a pickled argument", len.into())?)
        }
        byte => Ok(plain::read_one(py, byte, reader)?.ok_or(CodecError::Tag { byte })?),
    }
}
