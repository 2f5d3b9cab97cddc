//! A typed reference to an object, and how references travel inside values.
//!
//! The one thing to know: a reference never travels without a holder. While a value is written, the
//! references in it are collected, and the container lists them before it is sealed; in the bytes
//! stands only which entry it is. While a value is read, that list is at hand, and each
//! reference read is a fresh one. So a reference can be written nowhere else: a serializer outside
//! [`sending`] gets an error. This file must not know what a task is.
//!
//! In the bytes: an array of slot and generation.

use crate::remote::{FetchError, Raylet};
use crate::scoped;
use crate::value::{SerdeValue, Value};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use store::{Handle, ObjectId, ObjectRef as RawRef};

/// Names a value that stands, or will: an argument for tasks, something to get or to wait for.
///
/// The object lives as long as somebody refers to it. References are small, cheap to clone, and
/// travel inside values and arguments. Under an async runtime, `.await` gives the value.
pub struct ObjectRef<T> {
    object: RawRef,
    ray: Raylet,
    value: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    /// Says that `object` holds a `T`; a wrong word is found out when it is decoded.
    pub(crate) fn new(ray: &Raylet, object: RawRef) -> ObjectRef<T> {
        ObjectRef { object, ray: ray.clone(), value: PhantomData }
    }

    /// The object itself, without the type.
    pub fn object(&self) -> &RawRef {
        &self.object
    }

    /// The 28 bytes that name the object.
    pub fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// Whether it is an object of this raylet.
    pub(crate) fn is_of(&self, ray: &Raylet) -> bool {
        self.ray.is_same(ray)
    }

    /// Whether the value, or the error in its place, stands.
    pub fn is_ready(&self) -> bool {
        self.object.is_ready()
    }
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> ObjectRef<T> {
        ObjectRef::new(&self.ray, self.object.clone())
    }
}

impl<T> PartialEq for ObjectRef<T> {
    fn eq(&self, other: &ObjectRef<T>) -> bool {
        self.object.handle() == other.object.handle()
    }
}

impl<T> Eq for ObjectRef<T> {}

impl<T> std::hash::Hash for ObjectRef<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Handle { slot, generation } = self.object.handle();
        (slot, generation).hash(state);
    }
}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRef<{}>({})", std::any::type_name::<T>(), self.id())
    }
}

/// The value of a reference, in time; see [`ObjectRef`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Awaited<T>(ObjectRef<T>);

impl<T: Value> Future for Awaited<T> {
    type Output = Result<T, FetchError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let object = &self.0;
        // Registered first, then looked at: a seal in between wakes.
        let may_come = object.is_ready() || object.ray.engine().wake_when_ready(&object.object, context.waker());
        let is_over = object.is_ready() || !may_come;
        if is_over { Poll::Ready(object.ray.get(object)) } else { Poll::Pending }
    }
}

impl<T: Value> IntoFuture for ObjectRef<T> {
    type Output = Result<T, FetchError>;
    type IntoFuture = Awaited<T>;

    fn into_future(self) -> Awaited<T> {
        Awaited(self)
    }
}

impl<T: Value> IntoFuture for &ObjectRef<T> {
    type Output = Result<T, FetchError>;
    type IntoFuture = Awaited<T>;

    fn into_future(self) -> Awaited<T> {
        Awaited(self.clone())
    }
}

thread_local! {
    /// What the value that is being written names so far.
    static SENT: RefCell<Option<Vec<RawRef>>> = const { RefCell::new(None) };
    /// What the value that is being read may name.
    static RECEIVED: RefCell<Option<(Raylet, Vec<RawRef>)>> = const { RefCell::new(None) };
}

/// Runs `write`, and gives the references that it wrote.
pub(crate) fn sending<R>(write: impl FnOnce() -> R) -> (R, Vec<RawRef>) {
    scoped::gathered(&SENT, write)
}

/// Runs `read`, for which the references of its container are these.
pub(crate) fn receiving<R>(ray: &Raylet, mut list: Vec<RawRef>, read: impl FnOnce() -> R) -> R {
    list.sort_unstable_by_key(|object| object.handle().slot);
    let ours = (!list.is_empty()).then(|| (ray.clone(), list));
    scoped::within(&RECEIVED, ours, read)
}

/// Writes `object` into the value that this thread is writing.
pub(crate) fn send<S: Serializer>(object: &RawRef, serializer: S) -> Result<S::Ok, S::Error> {
    let is_listed = SENT.with_borrow_mut(|sent| sent.as_mut().map(|list| list.push(object.clone())).is_some());
    if !is_listed {
        let advice = "a reference travels only inside what is put, or given to or returned from a task";
        return Err(S::Error::custom(advice));
    }
    let Handle { slot, generation } = object.handle();
    (slot, generation).serialize(serializer)
}

/// Reads a reference from the value that this thread is reading.
pub(crate) fn receive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Raylet, RawRef), D::Error> {
    let (slot, generation) = <(u32, u64)>::deserialize(deserializer)?;
    let named = Handle { slot, generation };
    RECEIVED.with_borrow(|received| {
        let (ray, list) = received.as_ref().ok_or_else(|| D::Error::custom("its container lists no references"))?;
        let at = list.binary_search_by_key(&slot, |object| object.handle().slot);
        let listed = at.ok().map(|at| &list[at]).filter(|object| object.handle() == named);
        let missing = || D::Error::custom(format_args!("{named:?} is not among the {} references listed", list.len()));
        Ok((ray.clone(), listed.ok_or_else(missing)?.clone()))
    })
}

impl<T> Serialize for ObjectRef<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        send(&self.object, serializer)
    }
}

impl<'de, T> Deserialize<'de> for ObjectRef<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ObjectRef<T>, D::Error> {
        let (ray, object) = receive(deserializer)?;
        Ok(ObjectRef { object, ray, value: PhantomData })
    }
}

impl<T> SerdeValue for ObjectRef<T> {}
