//! Which types of the standard library are values.
//!
//! The one thing to know: a `Vec` asks its element how a run of them travels, so that `Vec<u8>` is
//! raw bytes. This file must hold lists only.

use super::{Form, Parcel, SerdeValue, ValueError, raw_form};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use store::Encoding;

macro_rules! plain {
    ($($type:ty),* $(,)?) => { $(impl SerdeValue for $type {})* };
}

plain!((), bool, char, i8, i16, i32, i64, i128, isize, u16, u32, u64, u128, usize, f32, f64);
plain!(String, std::path::PathBuf, std::time::Duration, std::time::SystemTime);
plain!(std::net::IpAddr, std::net::SocketAddr, std::num::NonZeroU64, std::num::NonZeroU32);

impl SerdeValue for u8 {
    fn form_of_many(many: &[u8]) -> Result<Form<'_>, ValueError> {
        Ok(raw_form(many))
    }

    fn many_from_parcel(parcel: Parcel<'_>) -> Result<Vec<u8>, ValueError> {
        parcel.expect(Encoding::Raw, "Vec<u8>")?;
        Ok(parcel.bytes().to_vec())
    }
}

impl<T: SerdeValue> SerdeValue for Vec<T> {
    fn form_of_one(&self) -> Result<Form<'_>, ValueError> {
        T::form_of_many(self)
    }

    fn one_from_parcel(parcel: Parcel<'_>) -> Result<Vec<T>, ValueError> {
        T::many_from_parcel(parcel)
    }
}

impl<T: SerdeValue> SerdeValue for Option<T> {}
impl<T: SerdeValue> SerdeValue for Box<T> {}
impl<T: SerdeValue> SerdeValue for VecDeque<T> {}
impl<T: SerdeValue + Ord> SerdeValue for BinaryHeap<T> {}
impl<T: SerdeValue + Ord> SerdeValue for BTreeSet<T> {}
impl<K: SerdeValue + Ord, V: SerdeValue> SerdeValue for BTreeMap<K, V> {}
impl<T: SerdeValue + Eq + Hash, S: BuildHasher + Default> SerdeValue for HashSet<T, S> {}
impl<K: SerdeValue + Eq + Hash, V: SerdeValue, S: BuildHasher + Default> SerdeValue for HashMap<K, V, S> {}
impl<T: SerdeValue, E: SerdeValue> SerdeValue for Result<T, E> {}
impl<T: SerdeValue, const N: usize> SerdeValue for [T; N] where [T; N]: Serialize + DeserializeOwned {}

macro_rules! tuples {
    ($(($($name:ident)*))*) => { $(impl<$($name: SerdeValue),*> SerdeValue for ($($name,)*) {})* };
}

tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H));
