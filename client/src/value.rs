//! What may be an argument, a result, or be put: a Rust value as an object's bytes and back.
//!
//! The one thing to know: a [`Value`] says what its bytes are ([`Form`]) and reads itself back from
//! bytes that somebody else holds in place ([`Parcel`]). Arrow and raw bytes are read where they
//! lie; everything else is MessagePack. This file must not know tasks, nor where a form is stored.
//!
//! | type | travels as | read back |
//! | --- | --- | --- |
//! | `RecordBatch`, `Table` | an Arrow IPC file | in place: its buffers hold the object's pin |
//! | `bytes::Bytes` | raw bytes | in place |
//! | `Vec<u8>` | raw bytes | one copy |
//! | numbers, text, tuples, `Option`, `Vec`, maps, `ObjectRef`, `ActorHandle`, what derives [`Value`](macro@crate::Value) | MessagePack | decoded |
//! | another crate's serde type | the same, in the wrapper [`Serde`] | decoded |

use crate::refs;
use crate::remote::Raylet;
use arrow_array::RecordBatch;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use store::arrow::Table;
use store::{CreateError, CreateOptions, Encoding, GetError, Object, ObjectId, ObjectRef as RawRef, Store};

mod plain;

/// A value did not become bytes, or bytes did not become a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Serde's `Serialize` of the type refused.
    #[error("a value of type {type_name} cannot be encoded: {source}")]
    Encode {
        /// The type.
        type_name: &'static str,
        /// What serde said.
        source: rmp_serde::encode::Error,
    },
    /// The bytes are another type's.
    #[error("{bytes} bytes do not decode as {type_name}: {source}; was it made as another type?")]
    Decode {
        /// The type asked for.
        type_name: &'static str,
        /// How many bytes there are.
        bytes: usize,
        /// What serde said.
        source: rmp_serde::decode::Error,
    },
    /// The bytes are in another encoding than the type's.
    #[error("the object holds {found:?}, and a {type_name} is read from {expected:?}: was it made as another type?")]
    WrongEncoding {
        /// The type asked for.
        type_name: &'static str,
        /// Its encoding.
        expected: Encoding,
        /// The object's.
        found: Encoding,
    },
    /// A `RecordBatch` was asked for, and the object is a table of several.
    #[error("the object is a table of {batches} batches, not one RecordBatch: ask for a Table")]
    NotOneBatch {
        /// Batches of the table.
        batches: usize,
    },
    /// The object's bytes could not be had.
    #[error(transparent)]
    Get(#[from] Box<GetError>),
}

/// Writes a value into its place.
pub trait Writing: std::fmt::Debug {
    /// Writes all of it, as many bytes as were said.
    fn write(&self, place: &mut [u8]);
}

/// What a value is made of, before it has a place.
#[derive(Debug)]
#[non_exhaustive]
pub enum Form<'a> {
    /// Bytes, and the objects that they name.
    Bytes {
        /// How they are to be read.
        encoding: Encoding,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
        /// What the container is to list.
        references: Vec<RawRef>,
    },
    /// Bytes that are written straight into their place, and the objects that they name.
    Written {
        /// How they are to be read.
        encoding: Encoding,
        /// How many.
        len: u64,
        /// What the container is to list.
        references: &'a [RawRef],
        /// Writes all of them.
        write: &'a dyn Writing,
    },
    /// Record batches of one schema; written straight into their place.
    Table {
        /// The schema of each.
        schema: arrow_schema::SchemaRef,
        /// The batches.
        batches: &'a [RecordBatch],
    },
}

impl Form<'_> {
    /// Makes an object of it. Only its handle names it; the id can be published later.
    pub(crate) fn put(&self, store: &Store) -> Result<RawRef, Box<CreateError>> {
        self.put_as(store, None)
    }

    /// The same, under an id that was chosen.
    pub(crate) fn put_as(&self, store: &Store, id: Option<ObjectId>) -> Result<RawRef, Box<CreateError>> {
        let options = CreateOptions { id, by_handle_only: true, ..CreateOptions::default() };
        match self {
            Form::Bytes { encoding, bytes, references } => {
                store.put_with(bytes, &CreateOptions { encoding: *encoding, references, ..options })
            }
            Form::Written { encoding, len, references, write } => {
                let mut writer = store.create(*len, &CreateOptions { encoding: *encoding, references, ..options })?;
                write.write(&mut writer);
                Ok(writer.seal())
            }
            Form::Table { schema, batches } => store.put_table(schema, batches, &options),
        }
    }
}

/// Bytes to read a value from.
#[derive(Debug)]
pub struct Parcel<'a> {
    ray: &'a Raylet,
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    Object(Object),
    Inline { encoding: Encoding, bytes: &'a [u8] },
}

impl<'a> Parcel<'a> {
    pub(crate) fn of_object(ray: &'a Raylet, object: Object) -> Parcel<'a> {
        Parcel { ray, body: Body::Object(object) }
    }

    pub(crate) fn inline(ray: &'a Raylet, encoding: Encoding, bytes: &'a [u8]) -> Parcel<'a> {
        Parcel { ray, body: Body::Inline { encoding, bytes } }
    }

    /// How the bytes are to be read.
    pub fn encoding(&self) -> Encoding {
        match &self.body {
            Body::Object(object) => object.encoding(),
            Body::Inline { encoding, .. } => *encoding,
        }
    }

    /// The bytes where they lie.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Object(object) => object,
            Body::Inline { bytes, .. } => bytes,
        }
    }

    /// The bytes kept in place; copied only where they came inside a task's record.
    pub fn into_bytes(self) -> Bytes {
        match self.body {
            Body::Object(object) => object.into_bytes(),
            Body::Inline { bytes, .. } => Bytes::copy_from_slice(bytes),
        }
    }

    fn into_table(self, type_name: &'static str) -> Result<Table, ValueError> {
        self.expect(Encoding::Arrow, type_name)?;
        match self.body {
            Body::Object(object) => Ok(object.into_table()?),
            Body::Inline { encoding: found, .. } => {
                Err(ValueError::WrongEncoding { type_name, expected: Encoding::Arrow, found })
            }
        }
    }

    fn expect(&self, expected: Encoding, type_name: &'static str) -> Result<(), ValueError> {
        let found = self.encoding();
        if found == expected { Ok(()) } else { Err(ValueError::WrongEncoding { type_name, expected, found }) }
    }

    /// The value that serde reads, references inside it included.
    fn decode<T: DeserializeOwned>(self) -> Result<T, ValueError> {
        let type_name = std::any::type_name::<T>();
        self.expect(Encoding::MessagePack, type_name)?;
        let bytes = self.bytes();
        let read = || rmp_serde::from_slice(bytes);
        let value = match &self.body {
            Body::Object(object) => refs::receiving(self.ray, object.references(), read),
            // What names objects is an object.
            Body::Inline { .. } => read(),
        };
        value.map_err(|source| ValueError::Decode { type_name, bytes: bytes.len(), source })
    }
}

/// What tasks take and return and what can be put; see the [module](self) for who is one.
///
/// A type of one's own becomes one by `#[derive(Serialize, Deserialize, Value)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between processes",
    label = "not a `Value`",
    note = "a type of your own: `#[derive(serde::Serialize, serde::Deserialize, raylet_client::Value)]`",
    note = "another crate's serde type: wrap it, `raylet_client::Serde<{Self}>`"
)]
pub trait Value: Sized {
    /// What the bytes are.
    fn form(&self) -> Result<Form<'_>, ValueError>;

    /// Reads the value back.
    fn from_parcel(parcel: Parcel<'_>) -> Result<Self, ValueError>;
}

/// A [`Value`] that serde writes, as MessagePack; `#[derive(Value)]` implements it.
///
/// Nothing needs to be written: `impl SerdeValue for Mine {}` is all that the derive does.
pub trait SerdeValue: Serialize + DeserializeOwned {
    #[doc(hidden)]
    fn form_of_one(&self) -> Result<Form<'_>, ValueError> {
        serde_form(self)
    }

    #[doc(hidden)]
    fn one_from_parcel(parcel: Parcel<'_>) -> Result<Self, ValueError> {
        parcel.decode()
    }

    /// Of a `Vec` of these: so that bytes travel as they are.
    #[doc(hidden)]
    fn form_of_many(many: &[Self]) -> Result<Form<'_>, ValueError> {
        serde_form(many)
    }

    #[doc(hidden)]
    fn many_from_parcel(parcel: Parcel<'_>) -> Result<Vec<Self>, ValueError> {
        parcel.decode()
    }
}

fn serde_form<T: Serialize + ?Sized>(value: &T) -> Result<Form<'static>, ValueError> {
    let (bytes, references) = refs::sending(|| rmp_serde::to_vec_named(value));
    let bytes = bytes.map_err(|source| ValueError::Encode { type_name: std::any::type_name::<T>(), source })?;
    Ok(Form::Bytes { encoding: Encoding::MessagePack, bytes: Cow::Owned(bytes), references })
}

impl<T: SerdeValue> Value for T {
    fn form(&self) -> Result<Form<'_>, ValueError> {
        self.form_of_one()
    }

    fn from_parcel(parcel: Parcel<'_>) -> Result<T, ValueError> {
        T::one_from_parcel(parcel)
    }
}

impl Value for RecordBatch {
    fn form(&self) -> Result<Form<'_>, ValueError> {
        Ok(Form::Table { schema: self.schema(), batches: std::slice::from_ref(self) })
    }

    fn from_parcel(parcel: Parcel<'_>) -> Result<RecordBatch, ValueError> {
        let mut table = parcel.into_table("RecordBatch")?;
        match table.batches.len() {
            0 => Ok(RecordBatch::new_empty(table.schema)),
            1 => Ok(table.batches.remove(0)),
            batches => Err(ValueError::NotOneBatch { batches }),
        }
    }
}

impl Value for Table {
    fn form(&self) -> Result<Form<'_>, ValueError> {
        Ok(Form::Table { schema: self.schema.clone(), batches: &self.batches })
    }

    fn from_parcel(parcel: Parcel<'_>) -> Result<Table, ValueError> {
        parcel.into_table("Table")
    }
}

impl Value for Bytes {
    fn form(&self) -> Result<Form<'_>, ValueError> {
        Ok(raw_form(self))
    }

    fn from_parcel(parcel: Parcel<'_>) -> Result<Bytes, ValueError> {
        parcel.expect(Encoding::Raw, "Bytes")?;
        Ok(parcel.into_bytes())
    }
}

fn raw_form(bytes: &[u8]) -> Form<'_> {
    Form::Bytes { encoding: Encoding::Raw, bytes: Cow::Borrowed(bytes), references: Vec::new() }
}

/// Another crate's serde type as a [`Value`].
///
/// ```
/// use raylet_client::{prelude::*, Serde};
/// use std::net::Ipv4Addr;
///
/// #[remote]
/// fn is_private(address: Serde<Ipv4Addr>) -> bool {
///     address.0.is_private()
/// }
///
/// # fn main() -> Result<()> {
/// # let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
/// let answer = is_private::remote(&ray, Serde(Ipv4Addr::LOCALHOST))?;
/// assert!(!ray.get(&answer)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serde<T>(pub T);

impl<T: Serialize + DeserializeOwned> SerdeValue for Serde<T> {}
