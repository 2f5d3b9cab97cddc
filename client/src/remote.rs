//! The raylet as a program sees it: start or join, put, get, wait, cancel, kill.
//!
//! The one thing to know: a [`Raylet`] is an engine behind types. The engine ([`engine::Engine`])
//! moves bytes, handles and keys; which Rust type they are is said here and in what `#[remote]`
//! makes, once, so that a wrong type does not compile. This file must not know how tasks run.

pub(crate) mod engine;

use crate::actor::{Actor, ActorHandle, RawActor};
use crate::local::Local;
use crate::refs::ObjectRef;
use crate::task::error::TaskError;
use crate::task::options::{Options, OptionsError};
use crate::task::{Arguments, Frame};
use crate::task::{DuplicateFunction, Fallible, Function, Parts};
use crate::value::{Parcel, Value, ValueError};
use engine::{Call, Engine};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::{CreateError, Encoding, GetError, Object, ObjectId, ObjectRef as RawRef, OpenError, Store};

/// Where tasks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// In the calling thread, one after the other, each before its `remote` returns: for tests, and
    /// for finding errors with a debugger. Objects are in shared memory as always.
    #[default]
    Local,
}

/// How a program joins or starts a raylet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where tasks run.
    pub mode: Mode,
    /// Bytes of objects that fit into memory.
    pub capacity_bytes: u64,
    /// Where objects go when memory is full; `None`: nowhere.
    pub spill_directory: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config { mode: Mode::default(), capacity_bytes: 1 << 30, spill_directory: None }
    }
}

/// There is no raylet to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// No store could be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Two remote functions look the same to a worker.
    #[error(transparent)]
    DuplicateFunction(#[from] DuplicateFunction),
}

/// A task or a call of an actor was not accepted; nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// An argument has no bytes.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// No room for an argument, or none for the result.
    #[error(transparent)]
    Create(#[from] Box<CreateError>),
    /// The options cannot be met anywhere.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A reference to an object of another raylet.
    #[error("object {id} is another raylet's: get its value, and give that")]
    ForeignReference {
        /// The object.
        id: ObjectId,
    },
    /// A living actor has the name.
    #[error("the name {name:?} is taken by another actor: choose another, or find that one by `ray.actor`")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// In local mode a call runs at once, and the actor is in the middle of another.
    #[error("{class} calls itself while it runs, which local mode cannot do: call the method on `self`")]
    Reentrant {
        /// The actor's class.
        class: &'static str,
    },
    /// The raylet has ended.
    #[error("the raylet has ended: init again")]
    RayletGone,
}

/// A value could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The task that should have made it failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// It was not there in time: it may still come.
    #[error("object {id} had no value within {} ms; it may still come: wait longer, or cancel its task", waited.as_millis())]
    TimedOut {
        /// The object.
        id: ObjectId,
        /// How long the call waited.
        waited: Duration,
    },
    /// Its bytes are not of this type.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The store could not give it.
    #[error(transparent)]
    Get(Box<GetError>),
}

impl From<Box<GetError>> for FetchError {
    fn from(error: Box<GetError>) -> FetchError {
        match *error {
            GetError::NotSealed { id, waited, .. } => FetchError::TimedOut { id, waited },
            other => FetchError::Get(Box::new(other)),
        }
    }
}

/// What was asked of `wait` makes no sense, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// More, or fewer, than can become ready.
    #[error("{count} of {references} references can never be ready: ask for 1 to {references}")]
    Count {
        /// How many should be ready.
        count: usize,
        /// How many were given.
        references: usize,
    },
    /// One reference stands twice in the list.
    #[error("reference {second} is the same as {first}")]
    Duplicate {
        /// Where it stands first, from 0.
        first: usize,
        /// Where it stands again.
        second: usize,
    },
    /// The store could not wait.
    #[error(transparent)]
    Get(#[from] Box<GetError>),
}

/// What a wait found: ready references, and the others.
pub type Waited<T> = (Vec<ObjectRef<T>>, Vec<ObjectRef<T>>);

/// A raylet: gives tasks to workers and objects to everybody. Cheap to clone.
///
/// ```
/// use raylet_client::prelude::*;
///
/// #[remote]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// # fn main() -> Result<()> {
/// let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
/// let nine: ObjectRef<u64> = square::remote(&ray, 3)?;
/// let more = square::remote(&ray, &nine)?;
/// assert_eq!(ray.get(&more)?, 81);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Raylet {
    engine: Arc<dyn Engine>,
}

impl Raylet {
    /// Joins or starts a raylet.
    pub fn init(config: Config) -> Result<Raylet, InitError> {
        crate::task::check_functions()?;
        match config.mode {
            Mode::Local => Ok(Raylet { engine: Arc::new(Local::new(&config)?) }),
        }
    }

    /// The raylet of the task or actor that this thread runs; `None` outside of one.
    ///
    /// A first parameter of type `&Raylet` is the same, and cannot be absent.
    pub fn current() -> Option<Raylet> {
        crate::task::frame().map(|Frame { ray, .. }| ray)
    }

    pub(crate) fn is_same(&self, other: &Raylet) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine)
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The store that all values are in.
    pub fn store(&self) -> &Store {
        self.engine.store()
    }

    /// Makes an object of a value, given or lent.
    pub fn put<T: Value>(&self, value: impl Lend<T>) -> Result<ObjectRef<T>, SubmitError> {
        let object = value.lend().form()?.put(self.store())?;
        Ok(ObjectRef::new(self, object))
    }

    /// The value, as soon as it is there; the error of its task where that failed.
    pub fn get<T: Value>(&self, object: &ObjectRef<T>) -> Result<T, FetchError> {
        self.fetch(object, None)
    }

    /// As [`Raylet::get`], at most `timeout`; zero asks without waiting.
    pub fn get_timeout<T: Value>(&self, object: &ObjectRef<T>, timeout: Duration) -> Result<T, FetchError> {
        self.fetch(object, Some(timeout))
    }

    /// All values in order, or the first error in order.
    pub fn get_all<T: Value>(&self, objects: &[ObjectRef<T>]) -> Result<Vec<T>, FetchError> {
        objects.iter().map(|object| self.get(object)).collect()
    }

    fn fetch<T: Value>(&self, object: &ObjectRef<T>, timeout: Option<Duration>) -> Result<T, FetchError> {
        let bytes = self.engine.get(object.object(), timeout)?;
        Ok(T::from_parcel(self.parcel(bytes)?)?)
    }

    fn parcel(&self, object: Object) -> Result<Parcel<'_>, TaskError> {
        match object.encoding() {
            Encoding::Error => Err(TaskError::from_bytes(&object)),
            _ => Ok(Parcel::of_object(self, object)),
        }
    }

    /// Waits until `count` are ready, or failed, at most `timeout`: up to `count` ready ones and all
    /// others, each in the order given. Without a `timeout` it waits as long as it takes.
    pub fn wait<T>(
        &self,
        objects: &[ObjectRef<T>],
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<Waited<T>, WaitError> {
        check_wait(objects, count)?;
        let raw: Vec<RawRef> = objects.iter().map(|object| object.object().clone()).collect();
        let is_ready = self.engine.wait(&raw, count, timeout)?;
        let mut taken = 0;
        let mut is_taken = |is_ready: bool| {
            taken += usize::from(is_ready);
            is_ready && taken <= count
        };
        let (ready, rest): (Vec<_>, Vec<_>) =
            objects.iter().zip(is_ready).partition(|(_, is_ready)| is_taken(*is_ready));
        let refs = |list: Vec<(&ObjectRef<T>, bool)>| list.into_iter().map(|(object, _)| object.clone()).collect();
        Ok((refs(ready), refs(rest)))
    }

    /// Takes back the task that makes this object, unless it is done; its result becomes an error of
    /// kind [`Cancelled`](crate::TaskErrorKind::Cancelled). With `force` a running one's worker is killed.
    pub fn cancel<T>(&self, object: &ObjectRef<T>, force: bool) {
        self.engine.cancel(object.object(), force);
    }

    /// Ends an actor now; calls that wait for it fail. It is not restarted.
    pub fn kill<A: Actor>(&self, actor: &ActorHandle<A>) {
        self.engine.kill(actor.raw().anchor());
    }

    /// The living actor of this name; `None` when there is none.
    pub fn actor<A: Actor>(&self, name: &str) -> Result<Option<ActorHandle<A>>, crate::actor::ActorError> {
        let Some(anchor) = self.engine.find_actor(name) else { return Ok(None) };
        let raw = RawActor::new(self, anchor);
        raw.check::<A>()?;
        Ok(Some(ActorHandle::new(raw)))
    }

    /// Submits a function; what `#[remote]` calls.
    pub(crate) fn submit(
        &self,
        function: &'static Function,
        arguments: Arguments,
        options: Option<&Options>,
        results: usize,
    ) -> Result<crate::task::ResultRefs, SubmitError> {
        options.map_or(Ok(()), Options::check)?;
        self.engine.submit(self, function, Call { arguments, options, results })
    }
}

/// A `T` or a `&T`.
pub trait Lend<T> {
    #[doc(hidden)]
    fn lend(&self) -> &T;
}

impl<T: Value> Lend<T> for T {
    fn lend(&self) -> &T {
        self
    }
}

impl<T: Value> Lend<T> for &T {
    fn lend(&self) -> &T {
        self
    }
}

/// Every count and no reference twice.
fn check_wait<T>(objects: &[ObjectRef<T>], count: usize) -> Result<(), WaitError> {
    if count == 0 && !objects.is_empty() || count > objects.len() {
        return Err(WaitError::Count { count, references: objects.len() });
    }
    let mut places = std::collections::HashMap::with_capacity(objects.len());
    for (second, object) in objects.iter().enumerate() {
        if let Some(first) = places.insert(object.object().handle(), second) {
            return Err(WaitError::Duplicate { first, second });
        }
    }
    Ok(())
}

impl fmt::Debug for Raylet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raylet").field("engine", &self.engine.name()).finish_non_exhaustive()
    }
}

/// Submits a call of one result.
pub fn submit_one<T>(
    ray: &Raylet,
    function: &'static Function,
    arguments: Arguments,
    options: Option<&Options>,
) -> Result<ObjectRef<T>, SubmitError> {
    Ok(ObjectRef::new(ray, ray.submit(function, arguments, options, 1)?.one()))
}

/// Submits a call whose result's parts are objects of their own.
pub fn submit_parts<T: Parts>(
    ray: &Raylet,
    function: &'static Function,
    arguments: Arguments,
    options: Option<&Options>,
    parts: usize,
) -> Result<T::Refs, SubmitError> {
    Ok(T::refs(ray, ray.submit(function, arguments, options, parts)?.many()))
}

/// What a fallible function returned, or its error.
pub fn outcome<R: Fallible>(name: &str, returned: R) -> Result<R::Ok, TaskError> {
    returned.into_result().map_err(|error| crate::task::returned(name, error))
}
