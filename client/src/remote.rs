//! The raylet as a program sees it: start or join, put, get, wait, cancel, kill.
//!
//! The one thing to know: a [`Raylet`] is an engine behind types. The engine ([`engine::Engine`])
//! moves bytes, handles and keys; which Rust type they are is said here and in what `#[remote]`
//! makes, once, so that a wrong type does not compile. This file must not know how tasks run.

pub(crate) mod config;
pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod group;

pub use config::{Config, Mode};
pub use error::{FetchError, GroupError, InitError, SubmitError, WaitError};
pub use group::{PlacementGroup, Strategy};

use crate::actor::{Actor, ActorHandle, RawActor};
use crate::local::Local;
use crate::refs::ObjectRef;
use crate::stream::RESULTS;
use crate::task::error::TaskError;
use crate::task::options::Options;
use crate::task::{Arguments, Frame};
use crate::task::{Fallible, Function, Parts};
use crate::value::{Parcel, Value};
use engine::{Call, Engine};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use store::{Encoding, Object, ObjectRef as RawRef, Store};

/// How long `get_all` waits for one value before it looks for errors among the others, at first and at
/// last.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(16);

/// How a task is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelOptions {
    /// The worker that runs it is killed.
    pub force: bool,
    /// What it submitted is cancelled as well, and what that submitted.
    pub recursive: bool,
}

impl Default for CancelOptions {
    /// With all that it submitted, and without force.
    fn default() -> CancelOptions {
        CancelOptions { force: false, recursive: true }
    }
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
    /// Joins or starts a raylet, as the [`Config`] says.
    ///
    /// Each call gives a raylet, or a membership in one, of its own: objects and references of one are
    /// foreign to the others, and clones of one are the same. It ends with the last clone, and with it,
    /// by and by, what this call started; references hold clones. In a worker it is the worker's own.
    pub fn init(config: Config) -> Result<Raylet, InitError> {
        crate::task::check_functions()?;
        match config.mode {
            Mode::Local => Ok(Raylet::over(Arc::new(Local::new(&config)?))),
            Mode::Raylet => crate::engine::start::init(&config),
        }
    }

    pub(crate) fn over(engine: Arc<dyn Engine>) -> Raylet {
        Raylet { engine }
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

    /// All values in order, or an error as soon as there is one: what is not there then is not waited for.
    pub fn get_all<T: Value>(&self, objects: &[ObjectRef<T>]) -> Result<Vec<T>, FetchError> {
        let get = |(at, object): (usize, &ObjectRef<T>)| match object.is_ready() {
            true => self.get(object),
            false => self.get_unless_others_fail(object, &objects[at + 1..]),
        };
        objects.iter().enumerate().map(get).collect()
    }

    fn get_unless_others_fail<T: Value>(
        &self,
        object: &ObjectRef<T>,
        others: &[ObjectRef<T>],
    ) -> Result<T, FetchError> {
        let mut pause = LOOK_MIN;
        loop {
            match self.get_timeout(object, pause) {
                Err(FetchError::TimedOut { .. }) => {}
                done => return done,
            }
            let failed = others.iter().filter(|other| other.is_ready()).find_map(|other| self.error_of(other));
            if let Some(error) = failed {
                return Err(error.into());
            }
            pause = (2 * pause).min(LOOK_MAX);
        }
    }

    /// The error that stands in the place of a value.
    fn error_of<T>(&self, object: &ObjectRef<T>) -> Option<TaskError> {
        let object = self.engine.get(object.object(), Some(Duration::ZERO)).ok()?;
        self.parcel(object).err()
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
    ///
    /// What that task has submitted is cancelled with it, and so on; from then on it can submit nothing.
    /// [`Raylet::cancel_with`] leaves them if told to. A task that is running goes on by itself, and can look
    /// by [`Raylet::is_cancelled`].
    pub fn cancel<T>(&self, object: &ObjectRef<T>, force: bool) {
        self.cancel_with(object, CancelOptions { force, ..CancelOptions::default() });
    }

    /// As [`Raylet::cancel`], as it is told.
    pub fn cancel_with<T>(&self, object: &ObjectRef<T>, options: CancelOptions) {
        self.engine.cancel(object.object(), options);
    }

    /// Whether somebody has cancelled the task that this thread runs, so that it may end early.
    pub fn is_cancelled(&self) -> bool {
        self.engine.is_cancelled()
    }

    /// Ends an actor now; calls that wait for it fail. It is not restarted.
    pub fn kill<A: Actor>(&self, actor: &ActorHandle<A>) {
        self.engine.kill(actor.raw().anchor(), true);
    }

    /// The living actor of this name; `None` when there is none.
    pub fn actor<A: Actor>(&self, name: &str) -> Result<Option<ActorHandle<A>>, crate::actor::ActorError> {
        let Some(anchor) = self.engine.find_actor(name, None) else { return Ok(None) };
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
        self.engine.submit(self, function, Call { arguments, options, results, is_stream: false })
    }

    /// As [`Raylet::submit`], of a function that returns a stream.
    pub(crate) fn submit_stream(
        &self,
        function: &'static Function,
        arguments: Arguments,
        options: Option<&Options>,
    ) -> Result<crate::task::ResultRefs, SubmitError> {
        options.map_or(Ok(()), Options::check)?;
        self.engine.submit(self, function, Call { arguments, options, results: RESULTS, is_stream: true })
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
