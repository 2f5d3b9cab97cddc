//! Actors: a value in a process of its own, and typed handles to it.
//!
//! The one thing to know: an actor is named by an object, its *anchor*. A handle refers to the
//! anchor, a handle inside a value is a reference in that container's list, and the actor lives
//! while the anchor does: so handles are counted as references are, by nobody new. What the anchor
//! holds is the class, which a handle that comes out of a value checks.
//!
//! Methods of `&mut self` run alone; those of `&self` may run beside each other. A method that
//! panics leaves the actor as it then is, as an exception does elsewhere. This file must not know
//! where actors run.

use crate::refs::{self, ObjectRef};
use crate::remote::engine::Call;
use crate::remote::{FetchError, Raylet, SubmitError};
use crate::stream::{RESULTS, RefStream};
use crate::task::{Arguments, Incoming, Options, Parts, Results, TaskError, TaskFuture};
use crate::value::{Form, SerdeValue};
use linkme::distributed_slice;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use store::{Encoding, ObjectRef as RawRef};

/// Every actor class of this executable.
#[distributed_slice]
pub static CLASSES: [Class];

/// What an actor is while it runs.
pub type State = Box<AnyState>;

/// An actor class.
#[derive(Debug)]
pub struct Class {
    /// Hash of module path and type: the same in each process of one executable.
    pub key: u64,
    /// Path of the type.
    pub name: &'static str,
    /// Reads the arguments and calls `new`.
    pub create: fn(&Raylet, Incoming<'_>) -> Result<State, TaskError>,
    /// What can be called.
    pub methods: &'static [Method],
    /// What the attribute says.
    pub options: fn() -> Options,
}

/// A method of an actor class.
#[derive(Debug)]
pub struct Method {
    /// Hash of path and signature.
    pub key: u64,
    /// Path of the method.
    pub name: &'static str,
    /// What runs.
    pub body: MethodBody,
}

/// An actor's state as its methods get it.
pub type AnyState = dyn Any + Send + Sync;
/// A method of `&mut self`.
pub type ExclusiveBody =
    for<'a> fn(&'a mut AnyState, &'a Raylet, Incoming<'a>, &'a mut dyn Results) -> Result<(), TaskError>;
/// A method of `&self`.
pub type SharedBody = for<'a> fn(&'a AnyState, &'a Raylet, Incoming<'a>, &'a mut dyn Results) -> Result<(), TaskError>;
/// An async method of `&mut self`.
pub type ExclusiveAsyncBody =
    for<'a> fn(&'a mut AnyState, &'a Raylet, Incoming<'a>, &'a mut dyn Results) -> TaskFuture<'a>;
/// An async method of `&self`.
pub type SharedAsyncBody = for<'a> fn(&'a AnyState, &'a Raylet, Incoming<'a>, &'a mut dyn Results) -> TaskFuture<'a>;

/// What a method needs of the actor's state.
#[derive(Clone, Copy, Debug)]
pub enum MethodBody {
    /// Runs alone.
    Exclusive(ExclusiveBody),
    /// May run beside others.
    Shared(SharedBody),
    /// Runs alone, also while it waits.
    ExclusiveAsync(ExclusiveAsyncBody),
    /// Gives its thread to others while it waits.
    SharedAsync(SharedAsyncBody),
}

impl Class {
    /// What the anchor of such an actor holds: which class, and how often a call is tried again.
    pub(crate) fn anchor(&self, task_retries: i32) -> Form<'static> {
        anchor(self.key, self.name, task_retries, Vec::new())
    }
}

/// What an anchor holds.
pub(crate) fn anchor(key: u64, class: &str, task_retries: i32, references: Vec<RawRef>) -> Form<'static> {
    let bytes = rmp_serde::to_vec(&(key, class, task_retries)).expect("text and numbers always encode");
    Form::Bytes { encoding: Encoding::MessagePack, bytes: Cow::Owned(bytes), references }
}

/// The class of this key; `None` when this executable has none. A worker that becomes an actor asks.
#[allow(dead_code, reason = "asked by workers, which local mode has none of")]
pub(crate) fn class(key: u64) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.key == key)
}

/// A type with `#[remote]` on its impl block, which implements this.
#[diagnostic::on_unimplemented(message = "`{Self}` is no actor", note = "put `#[remote]` on its impl block")]
pub trait Actor: Send + Sync + Sized + 'static {
    /// The methods as a handle has them.
    type Methods: Methods;

    /// What workers know of it.
    #[doc(hidden)]
    fn class() -> &'static Class;
}

/// The methods of an actor class as a handle has them; `#[remote]` implements it.
pub trait Methods: 'static {
    #[doc(hidden)]
    fn over(raw: RawActor) -> Self;
    #[doc(hidden)]
    fn raw(&self) -> &RawActor;
}

/// A handle is for another class.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// The actor is of another class than the handle's type says.
    #[error("the actor is a {found}, not a {expected}")]
    WrongClass {
        /// The class of the handle's type.
        expected: &'static str,
        /// The actor's.
        found: String,
    },
    /// What it is could not be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not an actor's anchor.
    #[error("the object is no actor: {source}")]
    NotAnActor {
        /// What came of reading it as one.
        source: rmp_serde::decode::Error,
    },
}

/// An actor, without its type.
#[derive(Debug)]
pub struct RawActor {
    ray: Raylet,
    /// `None` only within `drop`.
    anchor: Option<RawRef>,
    /// For the calls by this handle.
    options: Option<Arc<Options>>,
}

impl RawActor {
    pub(crate) fn new(ray: &Raylet, anchor: RawRef) -> RawActor {
        ray.engine().retained_actor(&anchor);
        RawActor { ray: ray.clone(), anchor: Some(anchor), options: None }
    }

    pub(crate) fn anchor(&self) -> &RawRef {
        self.anchor.as_ref().expect("it is taken in drop only")
    }

    /// Whether it is an `A`.
    pub(crate) fn check<A: Actor>(&self) -> Result<(), ActorError> {
        let object = self.ray.engine().get(self.anchor(), None).map_err(FetchError::from)?;
        let read = rmp_serde::from_slice::<(u64, String, i32)>(&object);
        let (key, found, _) = read.map_err(|source| ActorError::NotAnActor { source })?;
        let class = A::class();
        if key == class.key { Ok(()) } else { Err(ActorError::WrongClass { expected: class.name, found }) }
    }

    /// The raylet that it lives in.
    pub fn ray(&self) -> &Raylet {
        &self.ray
    }

    /// Calls a method of one result.
    pub fn call<T>(&self, method: &'static Method, arguments: Arguments) -> Result<ObjectRef<T>, SubmitError> {
        Ok(ObjectRef::new(&self.ray, self.submit(method, arguments, 1, false)?.one()))
    }

    /// Calls a method whose result's items are objects of their own.
    pub fn call_stream<T>(&self, method: &'static Method, arguments: Arguments) -> Result<RefStream<T>, SubmitError> {
        Ok(RefStream::new(&self.ray, self.submit(method, arguments, RESULTS, true)?))
    }

    /// Calls a method whose result's parts are objects of their own.
    pub fn call_parts<T: Parts>(
        &self,
        method: &'static Method,
        arguments: Arguments,
        parts: usize,
    ) -> Result<T::Refs, SubmitError> {
        Ok(T::refs(&self.ray, self.submit(method, arguments, parts, false)?.many()))
    }

    fn submit(
        &self,
        method: &'static Method,
        arguments: Arguments,
        results: usize,
        is_stream: bool,
    ) -> Result<crate::task::ResultRefs, SubmitError> {
        let options = self.options.as_deref();
        options.map_or(Ok(()), Options::check)?;
        let call = Call { arguments, options, results, is_stream };
        self.ray.engine().call_actor(&self.ray, self.anchor(), method, call)
    }
}

impl Clone for RawActor {
    fn clone(&self) -> RawActor {
        let mut again = RawActor::new(&self.ray, self.anchor().clone());
        again.options = self.options.clone();
        again
    }
}

impl Drop for RawActor {
    fn drop(&mut self) {
        if let Some(anchor) = self.anchor.take() {
            let handle = anchor.handle();
            drop(anchor);
            self.ray.engine().released_actor(handle);
        }
    }
}

/// Names an actor, which lives while somebody has a handle. Has the actor's methods; each returns a
/// reference at once, and calls of one handle run in order. Cheap to clone; travels inside values.
pub struct ActorHandle<A: Actor> {
    methods: A::Methods,
    class: PhantomData<fn() -> A>,
}

impl<A: Actor> ActorHandle<A> {
    pub(crate) fn new(raw: RawActor) -> ActorHandle<A> {
        ActorHandle { methods: A::Methods::over(raw), class: PhantomData }
    }

    pub(crate) fn raw(&self) -> &RawActor {
        self.methods.raw()
    }

    /// The same actor; calls by this handle have these options.
    pub fn options(&self, options: Options) -> ActorHandle<A> {
        let mut raw = self.raw().clone();
        raw.options = Some(Arc::new(options));
        ActorHandle::new(raw)
    }
}

impl<A: Actor> Deref for ActorHandle<A> {
    type Target = A::Methods;

    fn deref(&self) -> &A::Methods {
        &self.methods
    }
}

impl<A: Actor> Clone for ActorHandle<A> {
    fn clone(&self) -> ActorHandle<A> {
        ActorHandle::new(self.raw().clone())
    }
}

impl<A: Actor> PartialEq for ActorHandle<A> {
    fn eq(&self, other: &ActorHandle<A>) -> bool {
        self.raw().anchor().handle() == other.raw().anchor().handle()
    }
}

impl<A: Actor> Eq for ActorHandle<A> {}

impl<A: Actor> fmt::Debug for ActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle<{}>({})", A::class().name, self.raw().anchor().id())
    }
}

impl<A: Actor> Serialize for ActorHandle<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        refs::send(self.raw().anchor(), serializer)
    }
}

impl<'de, A: Actor> Deserialize<'de> for ActorHandle<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ActorHandle<A>, D::Error> {
        let (ray, anchor) = refs::receive(deserializer)?;
        let raw = RawActor::new(&ray, anchor);
        raw.check::<A>().map_err(D::Error::custom)?;
        Ok(ActorHandle::new(raw))
    }
}

impl<A: Actor> SerdeValue for ActorHandle<A> {}

/// Makes an actor; what `#[remote]` calls.
pub fn create<A: Actor>(
    ray: &Raylet,
    arguments: Arguments,
    options: Option<&Options>,
) -> Result<ActorHandle<A>, SubmitError> {
    options.map_or(Ok(()), Options::check)?;
    let anchor =
        ray.engine().create_actor(ray, A::class(), Call { arguments, options, results: 0, is_stream: false })?;
    Ok(ActorHandle::new(RawActor::new(ray, anchor)))
}

/// The state as what it is.
pub fn state<A: Actor>(state: &AnyState) -> &A {
    state.downcast_ref().expect("an engine keeps each state with its class")
}

/// The state as what it is, to change.
pub fn state_mut<A: Actor>(state: &mut AnyState) -> &mut A {
    state.downcast_mut().expect("an engine keeps each state with its class")
}

/// Has the actor whose method calls this end when its calls that run are over; false where no method
/// of an actor runs in this thread.
///
/// The results of those calls stand as always; calls that wait fail as those to a dead actor do. It is
/// not restarted.
pub fn exit_actor() -> bool {
    let Some(frame) = crate::task::frame() else { return false };
    let Some(anchor) = frame.actors.last() else { return false };
    if !crate::worker::actor::exit() {
        // Local mode: what is killed in the middle of a call ends after it.
        frame.ray.store().refer(*anchor).iter().for_each(|anchor| frame.ray.engine().kill(anchor, true));
    }
    true
}
