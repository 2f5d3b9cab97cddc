//! Containers that a program in another language wrote as MessagePack.
//!
//! The one thing to know: a reference of a Rust program is an array of slot and generation; one that
//! names an object of the container's own list is read as an `ObjectRef`. This file must not be needed
//! for what Python wrote: there containers are pickled.

use super::{CodecError, Reader, plain};
use crate::refs::ObjectRef;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use store::{Handle, Object, ObjectRef as RawRef};

/// Containers in each other; a program's own types are never as deep, and the stack is not either.
const DEPTH_MAX: u64 = 200;

/// The value that is all of the object.
pub(super) fn read<'py>(py: Python<'py>, object: &Object) -> PyResult<Bound<'py, PyAny>> {
    let mut source = Source { py, reader: Reader { left: object }, listed: object.references() };
    let value = source.value(0)?;
    source.reader.end()?;
    Ok(value)
}

struct Source<'a, 'py> {
    py: Python<'py>,
    reader: Reader<'a>,
    listed: Vec<RawRef>,
}

impl<'py> Source<'_, 'py> {
    fn value(&mut self, depth: u64) -> PyResult<Bound<'py, PyAny>> {
        if depth >= DEPTH_MAX {
            return Err(CodecError::Range { what: "the depth", number: depth, limit: DEPTH_MAX }.into());
        }
        let tag = self.reader.byte("a value")?;
        if let Some(single) = plain::read_one(self.py, tag, &mut self.reader)? {
            return Ok(single);
        }
        match tag {
            0x90..=0x9f => self.array(u64::from(tag & 0xf), depth),
            0xdc => self.long_array(2, depth),
            0xdd => self.long_array(4, depth),
            0x80..=0x8f => self.map(u64::from(tag & 0xf), depth),
            0xde | 0xdf => {
                let count = self.count(if tag == 0xde { 2 } else { 4 })?;
                self.map(count, depth)
            }
            byte => Err(CodecError::Tag { byte }.into()),
        }
    }

    fn count(&mut self, bytes: u64) -> Result<u64, CodecError> {
        let count = self.reader.take("a count", bytes)?;
        Ok(count.iter().fold(0, |count, byte| count << 8 | u64::from(*byte)))
    }

    fn long_array(&mut self, bytes: u64, depth: u64) -> PyResult<Bound<'py, PyAny>> {
        let count = self.count(bytes)?;
        self.array(count, depth)
    }

    fn array(&mut self, count: u64, depth: u64) -> PyResult<Bound<'py, PyAny>> {
        // An item takes a byte at least, so an alleged count costs no more than the bytes do.
        let list = PyList::empty(self.py);
        for _ in 0..count {
            list.append(self.value(depth + 1)?)?;
        }
        match self.named(&list) {
            Some(object) => Ok(ObjectRef::of(self.py, object)?.into_bound(self.py).into_any()),
            None => Ok(list.into_any()),
        }
    }

    /// The listed object that two numbers name.
    fn named(&self, list: &Bound<'py, PyList>) -> Option<RawRef> {
        if self.listed.is_empty() || list.len() != 2 {
            return None;
        }
        let (slot, generation) = (list.get_item(0).ok()?.extract().ok()?, list.get_item(1).ok()?.extract().ok()?);
        let named = Handle { slot, generation };
        self.listed.iter().find(|object| object.handle() == named).cloned()
    }

    fn map(&mut self, count: u64, depth: u64) -> PyResult<Bound<'py, PyAny>> {
        let map = PyDict::new(self.py);
        for _ in 0..count {
            let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
            map.set_item(key, value)?;
        }
        Ok(map.into_any())
    }
}
