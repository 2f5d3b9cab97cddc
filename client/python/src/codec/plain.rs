//! Single values as MessagePack: what costs a program least, and any language reads.
//!
//! The one thing to know: exact types only. A subclass is another value, and comes back as one, so it
//! is somebody else's ([`super::pickle`]). This file must not look into containers.

use super::{CodecError, Reader};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyMemoryView, PyNone, PyString};

/// Longest text or bytes that MessagePack can say.
const BYTES_MAX: usize = u32::MAX as usize;

/// A value, or what stands before its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    bytes: [u8; 9],
    len: u8,
}

impl Head {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    fn of<const N: usize>(tag: u8, number: [u8; N]) -> Head {
        let mut bytes = [0; 9];
        bytes[0] = tag;
        bytes[1..=N].copy_from_slice(&number);
        Head { bytes, len: N as u8 + 1 }
    }

    #[inline]
    fn int(number: i64) -> Head {
        match number {
            -32..=127 => Head::of(number as u8, []),
            128..=0xff => Head::of(0xcc, [number as u8]),
            0x100..=0xffff => Head::of(0xcd, (number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => Head::of(0xce, (number as u32).to_be_bytes()),
            0x1_0000_0000.. => Head::of(0xcf, (number as u64).to_be_bytes()),
            -0x80..=-33 => Head::of(0xd0, [number as u8]),
            -0x8000..=-0x81 => Head::of(0xd1, (number as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => Head::of(0xd2, (number as i32).to_be_bytes()),
            _ => Head::of(0xd3, number.to_be_bytes()),
        }
    }

    #[inline]
    pub(super) fn text(len: usize) -> Head {
        match len {
            0..=31 => Head::of(0xa0 | len as u8, []),
            32..=0xff => Head::of(0xd9, [len as u8]),
            0x100..=0xffff => Head::of(0xda, (len as u16).to_be_bytes()),
            _ => Head::of(0xdb, (len as u32).to_be_bytes()),
        }
    }

    #[inline]
    fn binary(len: usize) -> Head {
        match len {
            0..=0xff => Head::of(0xc4, [len as u8]),
            0x100..=0xffff => Head::of(0xc5, (len as u16).to_be_bytes()),
            _ => Head::of(0xc6, (len as u32).to_be_bytes()),
        }
    }
}

/// A single value, planned.
pub(super) enum Plain<'py> {
    /// All of it.
    Head(Head),
    /// Text, which is known to be UTF-8, and how many bytes.
    Text(Head, Bound<'py, PyString>, usize),
    /// Bytes.
    Bytes(Head, Bound<'py, PyBytes>),
}

impl<'py> Plain<'py> {
    /// `None`: it is not one of these.
    #[inline]
    pub(super) fn of(value: &Bound<'py, PyAny>) -> PyResult<Option<Plain<'py>>> {
        if value.is_exact_instance_of::<PyInt>() {
            // One that does not fit is rare, and then an error was made for nothing.
            return Ok(value.extract::<i64>().ok().map(|number| Plain::Head(Head::int(number))));
        }
        if value.is_exact_instance_of::<PyString>() {
            return Ok(Plain::of_text(value));
        }
        if value.is_none() {
            return Ok(Some(Plain::Head(Head::of(0xc0, []))));
        }
        if value.is_exact_instance_of::<PyFloat>() {
            return Ok(Some(Plain::Head(Head::of(0xcb, value.extract::<f64>()?.to_be_bytes()))));
        }
        if value.is_exact_instance_of::<PyBool>() {
            return Ok(Some(Plain::Head(Head::of(0xc2 | u8::from(value.extract::<bool>()?), []))));
        }
        if value.is_exact_instance_of::<PyBytes>() {
            return Ok(Plain::of_bytes(value));
        }
        if value.is_exact_instance_of::<PyByteArray>() || value.is_exact_instance_of::<PyMemoryView>() {
            let copied = value.py().get_type::<PyBytes>().call1((value,))?;
            return Ok(Plain::of_bytes(&copied));
        }
        Ok(None)
    }

    /// Text with lone surrogates is no UTF-8, and so none of these.
    #[inline]
    fn of_text(value: &Bound<'py, PyAny>) -> Option<Plain<'py>> {
        let text = value.cast_exact::<PyString>().ok()?;
        let len = text.to_str().ok()?.len();
        (len <= BYTES_MAX).then(|| Plain::Text(Head::text(len), text.clone(), len))
    }

    #[inline]
    fn of_bytes(value: &Bound<'py, PyAny>) -> Option<Plain<'py>> {
        let bytes = value.cast_exact::<PyBytes>().ok()?;
        let len = bytes.as_bytes().len();
        (len <= BYTES_MAX).then(|| Plain::Bytes(Head::binary(len), bytes.clone()))
    }

    #[inline]
    pub(super) fn size(&self) -> usize {
        match self {
            Plain::Head(head) => head.as_slice().len(),
            Plain::Text(head, _, len) => head.as_slice().len() + len,
            Plain::Bytes(head, bytes) => head.as_slice().len() + bytes.as_bytes().len(),
        }
    }

    #[inline]
    pub(super) fn write_to(&self, py: Python<'_>, out: &mut [u8]) {
        let (head, body) = match self {
            Plain::Head(head) => (head, &[][..]),
            Plain::Text(head, text, _) => {
                (head, text.to_str().expect("the interpreter keeps the UTF-8 that it gave").as_bytes())
            }
            Plain::Bytes(head, bytes) => (head, bytes.as_bytes()),
        };
        let (to_head, to_body) = out.split_at_mut(head.as_slice().len());
        to_head.copy_from_slice(head.as_slice());
        super::copy(py, body, to_body);
    }
}

/// A single value that is all of `bytes`; `None`: it is a container.
#[inline]
pub(super) fn read<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
    let mut reader = Reader { left: bytes };
    let tag = reader.byte("a value")?;
    let value = read_one(py, tag, &mut reader)?;
    if value.is_some() {
        reader.end()?;
    }
    Ok(value)
}

/// The single value that begins with `tag`; `None`: nothing single does.
#[inline]
pub(super) fn read_one<'py>(py: Python<'py>, tag: u8, reader: &mut Reader<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = match tag {
        0x00..=0x7f | 0xe0..=0xff => int(py, i64::from(tag as i8)),
        0xcc => int(py, i64::from(reader.byte("a number")?)),
        0xcd => int(py, i64::from(u16::from_be_bytes(reader.array("a number")?))),
        0xce => int(py, i64::from(u32::from_be_bytes(reader.array("a number")?))),
        0xcf => u64::from_be_bytes(reader.array("a number")?).into_pyobject(py)?.into_any(),
        0xd0 => int(py, i64::from(reader.byte("a number")? as i8)),
        0xd1 => int(py, i64::from(i16::from_be_bytes(reader.array("a number")?))),
        0xd2 => int(py, i64::from(i32::from_be_bytes(reader.array("a number")?))),
        0xd3 => int(py, i64::from_be_bytes(reader.array("a number")?)),
        0xc0 => PyNone::get(py).to_owned().into_any(),
        0xc2 | 0xc3 => PyBool::new(py, tag == 0xc3).to_owned().into_any(),
        0xca => PyFloat::new(py, f64::from(f32::from_be_bytes(reader.array("a number")?))).into_any(),
        0xcb => PyFloat::new(py, f64::from_be_bytes(reader.array("a number")?)).into_any(),
        _ => return read_run(py, tag, reader),
    };
    Ok(Some(value))
}

#[inline]
fn int(py: Python<'_>, number: i64) -> Bound<'_, PyAny> {
    match number.into_pyobject(py) {
        Ok(number) => number.into_any(),
        Err(never) => match never {},
    }
}

/// Text or bytes.
#[inline]
fn read_run<'py>(py: Python<'py>, tag: u8, reader: &mut Reader<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let len = match tag {
        0xa0..=0xbf => u64::from(tag & 0x1f),
        0xd9 | 0xc4 => u64::from(reader.byte("a length")?),
        0xda | 0xc5 => u64::from(u16::from_be_bytes(reader.array("a length")?)),
        0xdb | 0xc6 => u64::from(u32::from_be_bytes(reader.array("a length")?)),
        _ => return Ok(None),
    };
    if matches!(tag, 0xc4..=0xc6) {
        return Ok(Some(PyBytes::new(py, reader.take("bytes", len)?).into_any()));
    }
    let text = std::str::from_utf8(reader.take("text", len)?).map_err(CodecError::Utf8)?;
    Ok(Some(PyString::new(py, text).into_any()))
}
