//! The arguments of one call: packed where it is submitted, read where it runs.
//!
//! The one thing to know: an argument is bytes in the call itself, or an object to wait for. Small
//! values are in the call; large ones, all Arrow, and whatever names other objects, become objects
//! of their own first: so who reads them reads in place, and what they name is listed by them. The
//! objects of a call are thus its `awaited` ones, and no others. This file must not know where the
//! packed call lies.
//!
//! ```text
//! count u8, then for each argument
//!   tag u8   0x80: the next of the awaited objects, and nothing else
//!            or an encoding; then the length of the bytes as LEB128, then the bytes
//! ```

use super::buffer::Buffer;
use super::{TaskError, TaskErrorKind};
use crate::refs::ObjectRef;
use crate::remote::{Raylet, SubmitError};
use crate::value::{Form, Parcel, SerdeValue, Value, ValueError};
use store::{Encoding, ObjectRef as RawRef};

/// Values up to this many bytes lie in the call.
const INLINE_BYTES_MAX: usize = 1024;
const AWAITED: u8 = 0x80;

/// The arguments of one call, packed.
#[derive(Debug, Default)]
pub struct Arguments {
    /// See the head of the file.
    packed: Buffer,
    /// Arguments that are objects, in order: the body waits for all.
    pub(crate) awaited: Vec<RawRef>,
}

impl Arguments {
    /// None yet.
    pub fn new() -> Arguments {
        Arguments::default()
    }

    /// Appends what a parameter of type `T` accepts.
    pub fn give<T>(&mut self, ray: &Raylet, argument: impl Argument<T>) -> Result<(), SubmitError> {
        if self.packed.is_empty() {
            self.packed.push(0);
        }
        self.packed.bytes_mut()[0] += 1;
        argument.give(ray, self)
    }

    /// See the head of the file.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.packed.bytes()
    }

    /// Packed by somebody else, who will read them where the call runs.
    #[inline]
    pub fn of_parts(bytes: &[u8], awaited: Vec<RawRef>) -> Arguments {
        let mut packed = Buffer::default();
        packed.extend(bytes);
        Arguments { packed, awaited }
    }

    fn object(&mut self, object: RawRef) {
        self.packed.push(AWAITED);
        self.awaited.push(object);
    }

    fn value(&mut self, ray: &Raylet, value: &impl Value) -> Result<(), SubmitError> {
        match value.form()? {
            Form::Bytes { encoding, bytes, references } if bytes.len() <= INLINE_BYTES_MAX && references.is_empty() => {
                self.inline(encoding, &bytes);
                Ok(())
            }
            form => {
                self.object(form.put(ray.engine().store())?);
                Ok(())
            }
        }
    }

    fn inline(&mut self, encoding: Encoding, bytes: &[u8]) {
        self.packed.push(encoding as u8);
        push_number(&mut self.packed, bytes.len());
        self.packed.extend(bytes);
    }

    fn reference<T>(&mut self, ray: &Raylet, object: &ObjectRef<T>) -> Result<(), SubmitError> {
        if !object.is_of(ray) {
            return Err(SubmitError::ForeignReference { id: object.id() });
        }
        self.object(object.object().clone());
        Ok(())
    }
}

fn push_number(bytes: &mut Buffer, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// What a parameter of type `T` accepts: a `T`, a `&T`, or a reference to one, which is awaited.
#[diagnostic::on_unimplemented(
    message = "a parameter of type `{T}` does not accept a `{Self}`",
    label = "expected `{T}`, `&{T}`, `ObjectRef<{T}>` or `&ObjectRef<{T}>`"
)]
pub trait Argument<T> {
    #[doc(hidden)]
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError>;
}

impl<T: Value> Argument<T> for T {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.value(ray, &self)
    }
}

impl<T: Value> Argument<T> for &T {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.value(ray, self)
    }
}

impl<T: Value> Argument<T> for ObjectRef<T> {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.reference(ray, &self)
    }
}

impl<T: Value> Argument<T> for &ObjectRef<T> {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.reference(ray, self)
    }
}

impl Argument<String> for &str {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.value(ray, &self.to_owned())
    }
}

impl Argument<Vec<u8>> for &[u8] {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.value(ray, &Raw(self))
    }
}

impl<const N: usize> Argument<Vec<u8>> for &[u8; N] {
    fn give(self, ray: &Raylet, arguments: &mut Arguments) -> Result<(), SubmitError> {
        arguments.value(ray, &Raw(self))
    }
}

/// Borrowed bytes, to be read back as another type.
struct Raw<'a>(&'a [u8]);

impl Value for Raw<'_> {
    fn form(&self) -> Result<Form<'_>, ValueError> {
        u8::form_of_many(self.0)
    }

    fn from_parcel(parcel: Parcel<'_>) -> Result<Self, ValueError> {
        let (type_name, expected, found) = ("borrowed bytes", Encoding::Raw, parcel.encoding());
        Err(ValueError::WrongEncoding { type_name, expected, found })
    }
}

/// A packed call does not follow its format: another version packed it, or a stray write hit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Another number of arguments than the function has parameters.
    #[error("{found} arguments came, the function takes {expected}: submitter and worker run different code")]
    Count {
        /// Parameters of the function.
        expected: usize,
        /// Arguments that came.
        found: usize,
    },
    /// The bytes end within an argument.
    #[error("the {bytes} bytes of the arguments end within number {position}")]
    Truncated {
        /// Which argument, from 0.
        position: usize,
        /// Bytes of all.
        bytes: usize,
    },
    /// A tag that nobody writes.
    #[error("argument {position} has the tag {tag:#04x}, which means nothing")]
    Tag {
        /// Which argument, from 0.
        position: usize,
        /// What stands there.
        tag: u8,
    },
    /// More arguments are objects than came along.
    #[error("argument {position} is an object, and none came for it")]
    Objects {
        /// Which argument, from 0.
        position: usize,
    },
}

/// The arguments of one call, where it runs; each is read once, in order.
#[derive(Debug)]
pub struct Incoming<'a> {
    name: &'a str,
    all: &'a [u8],
    left: &'a [u8],
    awaited: &'a [RawRef],
    position: usize,
}

impl<'a> Incoming<'a> {
    /// Of the function called `name`, from bytes that others may have written.
    pub(crate) fn new(name: &'a str, bytes: &'a [u8], awaited: &'a [RawRef]) -> Incoming<'a> {
        let left = bytes.get(1..).unwrap_or_default();
        Incoming { name, all: bytes, left, awaited, position: 0 }
    }

    /// Says how many parameters the function has.
    pub fn expect(&self, expected: usize) -> Result<(), TaskError> {
        let found = self.all.first().map_or(0, |count| usize::from(*count));
        if found == expected { Ok(()) } else { Err(self.refuse(&UnpackError::Count { expected, found })) }
    }

    /// The next argument, as the parameter of this name has it.
    pub fn take<T: Value>(&mut self, ray: &Raylet, parameter: &str) -> Result<T, TaskError> {
        let parcel = self.parcel(ray).map_err(|error| self.refuse(&error))?;
        self.position += 1;
        T::from_parcel(parcel).map_err(|error| self.refuse(&format_args!("argument `{parameter}`: {error}")))
    }

    fn refuse(&self, error: &dyn std::fmt::Display) -> TaskError {
        TaskError::new(TaskErrorKind::Argument, self.name, error)
    }

    fn parcel<'b>(&mut self, ray: &'b Raylet) -> Result<Parcel<'b>, UnpackOrGetError>
    where
        'a: 'b,
    {
        let tag = self.bytes(1)?[0];
        if tag == AWAITED {
            return Ok(Parcel::of_object(ray, ray.engine().store().get(self.object()?)?));
        }
        let position = self.position;
        let encoding = encoding(tag).ok_or(UnpackError::Tag { position, tag })?;
        let len = self.number()?;
        Ok(Parcel::inline(ray, encoding, self.bytes(len)?))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], UnpackError> {
        let short = UnpackError::Truncated { position: self.position, bytes: self.all.len() };
        let (bytes, left) = self.left.split_at_checked(len).ok_or(short)?;
        self.left = left;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<usize, UnpackError> {
        let mut number = 0;
        for shift in (0..u32::BITS).step_by(7) {
            let byte = self.bytes(1)?[0];
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(UnpackError::Truncated { position: self.position, bytes: self.all.len() })
    }

    fn object(&mut self) -> Result<&'a RawRef, UnpackError> {
        let (object, left) = self.awaited.split_first().ok_or(UnpackError::Objects { position: self.position })?;
        self.awaited = left;
        Ok(object)
    }
}

#[derive(Debug, thiserror::Error)]
enum UnpackOrGetError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Get(#[from] Box<store::GetError>),
}

/// What may lie in a call.
fn encoding(tag: u8) -> Option<Encoding> {
    [Encoding::Raw, Encoding::MessagePack].into_iter().find(|encoding| *encoding as u8 == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Config, Mode};

    fn local() -> Raylet {
        Raylet::init(Config { mode: Mode::Local, capacity_bytes: 1 << 20, ..Config::default() }).unwrap()
    }

    fn read(ray: &Raylet, bytes: &[u8], awaited: &[RawRef]) -> Result<(u64, Vec<u8>, String), TaskError> {
        let mut incoming = Incoming::new("f", bytes, awaited);
        incoming.expect(3)?;
        Ok((incoming.take(ray, "a")?, incoming.take(ray, "b")?, incoming.take(ray, "c")?))
    }

    fn packed(ray: &Raylet) -> Arguments {
        let mut arguments = Arguments::new();
        arguments.give::<u64>(ray, 7).unwrap();
        arguments.give::<Vec<u8>>(ray, &ray.put(vec![1u8; 3]).unwrap()).unwrap();
        arguments.give::<String>(ray, &"x".repeat(200)).unwrap();
        arguments
    }

    #[test]
    fn what_is_packed_is_read() {
        let ray = local();
        let packed = packed(&ray);
        let (bytes, awaited) = (packed.bytes(), &packed.awaited);
        assert_eq!(read(&ray, bytes, awaited), Ok((7, vec![1; 3], "x".repeat(200))));
        assert_eq!(bytes.len(), 1 + 3 + 1 + 3 + 202);
    }

    #[test]
    fn bytes_that_nobody_packed_are_errors_and_never_panics() {
        let ray = local();
        let packed = packed(&ray);
        let (bytes, awaited) = (packed.bytes().to_vec(), &packed.awaited);
        for len in 0..bytes.len() {
            assert!(read(&ray, &bytes[..len], awaited).is_err(), "{len} bytes");
        }
        assert!(read(&ray, &bytes, &[]).is_err(), "an object is missing");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc1, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                // A changed letter is a value like any other; all else is an error.
                let _ = read(&ray, &changed, awaited);
            }
        }
    }
}
