//! Remote functions as workers know them: a table by key, and how one runs.
//!
//! The one thing to know: `#[remote]` makes each function a [`Function`] in [`FUNCTIONS`], which the
//! linker gathers from every crate of the executable: data, complete before any code runs. A
//! constructor-made registry would not do: a worker starts in a constructor of its own, before the
//! others may have run. This file must not know where a task runs.
//!
//! A body reads its arguments, runs the user's function and hands results over one by one. What the
//! user's code does (panic, return an error) becomes a [`TaskError`]; nothing unwinds past
//! [`execute`].

pub(crate) mod arguments;
mod buffer;
pub(crate) mod error;
pub(crate) mod options;
mod panic;

pub use arguments::{Argument, Arguments, Incoming, UnpackError};
pub use error::{TaskError, TaskErrorKind};
pub use options::{Options, OptionsError, RESOURCE_UNIT, Transport};

use crate::engine::scope::Scope;
use crate::remote::Raylet;
use crate::scoped;
use crate::value::{Form, Value};
use linkme::distributed_slice;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use store::{CreateError, Handle, ObjectRef as RawRef};

/// Every remote function of this executable.
#[distributed_slice]
pub static FUNCTIONS: [Function];

/// A remote function.
#[derive(Debug)]
pub struct Function {
    /// Hash of module path, name and signature: the same in each process of one executable.
    pub key: u64,
    /// Path of the function.
    pub name: &'static str,
    /// Where it is written.
    pub place: (&'static str, u32),
    /// What runs.
    pub body: Body,
    /// What the attribute says; a call's options go before them.
    pub options: fn() -> Options,
}

/// Reads arguments, runs the user's code, hands the results over.
pub type SyncBody = fn(&Raylet, Incoming<'_>, &mut dyn Results) -> Result<(), TaskError>;
/// The same, in time; the future stays on the thread that made it.
pub type AsyncBody = for<'a> fn(&'a Raylet, Incoming<'a>, &'a mut dyn Results) -> TaskFuture<'a>;
/// A body under way.
pub type TaskFuture<'a> = Pin<Box<dyn Future<Output = Result<(), TaskError>> + 'a>>;

/// What runs.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Holds its thread until it is done.
    Sync(SyncBody),
    /// Gives its thread back while it waits.
    Async(AsyncBody),
}

/// Where a body puts its results, in order.
pub trait Results {
    /// The next result.
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>>;

    /// The next item of a stream, of which `ahead` may wait for their reader (0: any number); false
    /// where nobody reads on, as where the result is no stream.
    fn push(&mut self, _form: &Form<'_>, _ahead: u32) -> Result<bool, Box<CreateError>> {
        Ok(false)
    }
}

/// FNV-1a of a function's path and signature.
pub const fn key(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Two remote functions of this executable have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} at {}:{} and at {}:{} cannot be told apart: rename one", first.0, first.1, second.0, second.1)]
pub struct DuplicateFunction {
    /// The path that both have.
    pub name: &'static str,
    /// Where one is written.
    pub first: (&'static str, u32),
    /// Where the other is.
    pub second: (&'static str, u32),
}

/// The function of this key; `None` when this executable has none. A worker calls it for each task.
#[allow(dead_code, reason = "asked by workers, which local mode has none of")]
pub(crate) fn function(key: u64) -> Option<&'static Function> {
    table().as_ref().ok()?.get(&key).copied()
}

/// Whether each key names one function; said once, at init.
pub(crate) fn check_functions() -> Result<(), DuplicateFunction> {
    table().as_ref().map(|_| ()).map_err(|error| *error)
}

type FunctionTable = Result<HashMap<u64, &'static Function>, DuplicateFunction>;

fn table() -> &'static FunctionTable {
    static TABLE: OnceLock<FunctionTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = HashMap::with_capacity(FUNCTIONS.len());
        for function in FUNCTIONS {
            if let Some(first) = table.insert(function.key, function) {
                let (first, second) = (first.place, function.place);
                return Err(DuplicateFunction { name: function.name, first, second });
            }
        }
        Ok(table)
    })
}

/// Handles of the results of one call.
#[derive(Debug)]
pub enum ResultRefs {
    /// Of one: the usual case, without an allocation.
    One(RawRef),
    /// Of another number.
    Many(Vec<RawRef>),
}

impl ResultRefs {
    /// The only one.
    pub(crate) fn one(self) -> RawRef {
        match self {
            ResultRefs::One(object) => object,
            ResultRefs::Many(mut many) => many.pop().expect("an engine gives as many results as it was asked for"),
        }
    }

    /// All of them.
    pub(crate) fn many(self) -> Vec<RawRef> {
        match self {
            ResultRefs::One(object) => vec![object],
            ResultRefs::Many(many) => many,
        }
    }
}

/// A `Result`, whatever alias it is written by.
pub trait Fallible {
    /// What is returned when all is well.
    type Ok;
    /// Why it is not.
    type Error: Display;
    /// As std's.
    fn into_result(self) -> Result<Self::Ok, Self::Error>;
}

impl<T, E: Display> Fallible for Result<T, E> {
    type Ok = T;
    type Error = E;

    fn into_result(self) -> Result<T, E> {
        self
    }
}

/// Seals what a function returned as one result.
pub fn seal_one<T: Value>(name: &str, value: T, results: &mut dyn Results) -> Result<(), TaskError> {
    let form = value.form().map_err(|error| TaskError::new(TaskErrorKind::Result, name, &error))?;
    results.seal(&form).map_err(|error| TaskError::new(TaskErrorKind::Result, name, &error))
}

/// What a function said went wrong.
pub fn returned(name: &str, error: impl Display) -> TaskError {
    TaskError::new(TaskErrorKind::Returned, name, &format_args!("{error:#}"))
}

/// A returned value whose parts are results of their own: a tuple, an array or a `Vec`.
pub trait Parts {
    /// A reference for each part.
    type Refs;

    /// Seals each part.
    fn seal_each(self, name: &str, results: &mut dyn Results) -> Result<(), TaskError>;
    /// Types the references of the parts.
    fn refs(ray: &Raylet, objects: Vec<RawRef>) -> Self::Refs;
}

impl<T: Value> Parts for Vec<T> {
    type Refs = Vec<crate::refs::ObjectRef<T>>;

    fn seal_each(self, name: &str, results: &mut dyn Results) -> Result<(), TaskError> {
        self.into_iter().try_for_each(|part| seal_one(name, part, results))
    }

    fn refs(ray: &Raylet, objects: Vec<RawRef>) -> Self::Refs {
        objects.into_iter().map(|object| crate::refs::ObjectRef::new(ray, object)).collect()
    }
}

macro_rules! parts_of_tuples {
    ($(($($name:ident)*))*) => { $(
        impl<$($name: Value),*> Parts for ($($name,)*) {
            type Refs = ($(crate::refs::ObjectRef<$name>,)*);

            #[allow(non_snake_case)]
            fn seal_each(self, name: &str, results: &mut dyn Results) -> Result<(), TaskError> {
                let ($($name,)*) = self;
                $(seal_one(name, $name, results)?;)*
                Ok(())
            }

            fn refs(ray: &Raylet, objects: Vec<RawRef>) -> Self::Refs {
                let mut objects = objects.into_iter();
                let mut next = || objects.next().expect("an engine gives as many results as it was asked for");
                ($(crate::refs::ObjectRef::<$name>::new(ray, next()),)*)
            }
        }
    )* };
}

parts_of_tuples!((A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H));

/// What the thread's task is, so that it can submit others.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) ray: Raylet,
    /// Actors whose methods are under way in this thread, the outermost first.
    pub(crate) actors: Vec<Handle>,
    /// In whose name it submits; none where the engine names no tasks.
    pub(crate) task: Option<Arc<Scope>>,
}

thread_local! {
    static FRAME: RefCell<Option<Frame>> = const { RefCell::new(None) };
}

/// The frame of the task that this thread runs.
pub(crate) fn frame() -> Option<Frame> {
    FRAME.with_borrow(Clone::clone)
}

/// Calls `with` with the scope of the task that this thread runs, if it runs one.
pub(crate) fn with_scope<R>(with: impl FnOnce(Option<&Scope>) -> R) -> R {
    FRAME.with_borrow(|frame| with(frame.as_ref().and_then(|frame| frame.task.as_deref())))
}

/// Runs code with a frame.
pub(crate) fn within<R>(frame: Frame, body: impl FnOnce() -> R) -> R {
    scoped::within(&FRAME, frame, body)
}

/// Runs user code as a task of this name: a panic becomes an error with its backtrace.
pub(crate) fn execute(name: &str, frame: Frame, body: impl FnOnce() -> Result<(), TaskError>) -> Result<(), TaskError> {
    within(frame, || panic::catch(body)).unwrap_or_else(|panic| Err(TaskError::panicked(name, panic)))
}
