//! What a client for another language stands on: calls as keys and packed bytes, without Rust's types.
//!
//! The one thing to know: a record's key that no Rust function has is the other language's, if the
//! process has one ([`set_language`]). Its binding submits by [`Callable`]s and [`ActorWish`]es, and what
//! a worker is given for it goes to its [`Language`]. Everything else (promises, queues, leases,
//! retries, streams) is as for Rust. This file must not know which language it is.
//!
//! | a binding | by |
//! | --- | --- |
//! | prepares a function with its options once, submits it often | [`Raylet::callable`], [`Raylet::call`] |
//! | makes and finds actors, calls and ends them | [`Raylet::make_actor`], [`Raylet::call_method`], [`ForeignActor`] |
//! | gets, waits, is woken | [`Raylet::object`], [`Raylet::ready`], [`Raylet::wake_when_ready`] |
//! | runs calls in workers | [`Language`], [`Resident`], [`Handed`] |

pub use crate::engine::Place;
pub use crate::engine::print::{Printed, Printer};
pub use crate::role::{ForkHooks, take_role};
pub use crate::scoped::{gathered, within};
pub use crate::task::{Arguments, ResultRefs, Results, key};
pub use crate::value::{Form, Writing};
pub use crate::worker::actor::{CallScope, Handed};
pub use crate::worker::work;

use crate::engine::plan::Plan;
use crate::remote::engine::GroupCall;
use crate::remote::group::demand;
use crate::remote::{CancelOptions, GroupError, Raylet, Strategy, SubmitError};
use crate::stream::RefStream;
use crate::task::{Options, TaskError};
use raylet_api::message::Message;
use raylet_api::work::{BundleWish, Demand};
use raylet_api::{JobId, TaskId};
use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::task::Waker;
use std::time::Duration;
use store::{GetError, Handle, Object, ObjectRef as RawRef};

/// A call as it came to a worker.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// What its calls submit to.
    pub ray: &'a Raylet,
    /// Of the function, class or method.
    pub key: u64,
    /// The packed arguments, as the binding packed them.
    pub arguments: &'a [u8],
    /// The objects that came along, each with a value.
    pub awaited: &'a [RawRef],
    /// How many results are wanted.
    pub results: usize,
    /// The results are items of a stream, to be pushed.
    pub is_stream: bool,
    /// Attempts before this one.
    pub attempt: u32,
    /// Its first result.
    pub result: Option<Handle>,
}

/// Another language in this process, and how its calls run.
pub trait Language: Send + Sync {
    /// What people call the thing of this key.
    fn name(&self, key: u64) -> &'static str;

    /// Runs a function and hands its results over, on the thread that does the worker's work.
    fn run(&self, call: &Running<'_>, results: &mut dyn Results) -> Result<(), TaskError>;

    /// Makes an actor.
    fn create(&self, call: &Running<'_>) -> Result<Box<dyn Resident>, TaskError>;

    /// Somebody has cancelled the call that makes this result; it may be over.
    fn interrupt(&self, result: Handle);

    /// A variable of the process was set, which the language may have a copy of.
    fn variable_set(&self, name: &str, value: &str);
}

/// An actor of another language, in its worker.
pub trait Resident: Send + Sync {
    /// Whether calls are to be handed over as they come, to be ended whenever they are over; else they
    /// run one by one.
    fn is_host(&self) -> bool;

    /// What people call the method of this key.
    fn name(&self, key: u64) -> &'static str;

    /// Runs a method and hands its results over; only where it is no host.
    fn call(&self, call: &Running<'_>, results: &mut dyn Results) -> Result<(), TaskError>;

    /// Takes calls over; only where it is a host. Calls of one caller come in order.
    fn take(&self, calls: Vec<Handed>);

    /// No more calls come: returns when those taken over are over.
    fn finish(&self);
}

static LANGUAGE: OnceLock<Box<dyn Language>> = OnceLock::new();

/// Says that this process knows another language. Only the first call counts.
pub fn set_language(language: Box<dyn Language>) {
    let _ = LANGUAGE.set(language);
}

/// The other language of this process.
pub(crate) fn language() -> Option<&'static dyn Language> {
    LANGUAGE.get().map(|language| &**language)
}

static NAMES: RwLock<BTreeMap<u64, &'static str>> = RwLock::new(BTreeMap::new());

/// What people call the thing of this key.
pub(crate) fn name_of(key: u64) -> Option<&'static str> {
    NAMES.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
}

/// Names a key; kept to the end of the process, once each.
pub fn set_name(key: u64, name: &str) -> &'static str {
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    names.entry(key).or_insert_with(|| Box::leak(name.to_owned().into_boxed_str()))
}

/// What a process is started from; what is absent is this process' own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub executable: Option<String>,
    /// What it is given besides its name.
    pub arguments: Vec<String>,
    /// Variables that are set beside those of this process.
    pub environment: Vec<(String, String)>,
    /// Where it works.
    pub directory: Option<String>,
}

/// A function of another language with its options: prepared once for many calls.
#[derive(Debug)]
pub struct Callable {
    pub(crate) key: u64,
    pub(crate) plan: Plan,
}

/// An actor to be made.
#[derive(Clone, Debug, Default)]
pub struct ActorWish {
    /// Of its class.
    pub key: u64,
    /// What people call its class.
    pub class: String,
    /// What it needs and how it is treated: held for its life.
    pub options: Options,
    /// What has to be free to place it, where that is not what it holds.
    pub placing: Option<Options>,
    /// In which its name means it; none is the job's.
    pub namespace: Option<String>,
    /// What tells its callers about it; lives as long as its anchor does.
    pub about: Option<RawRef>,
}

/// A handle of an actor of another language; the actor lives while there are any.
#[derive(Debug)]
pub struct ForeignActor {
    ray: Raylet,
    /// `None` only within `drop`.
    anchor: Option<RawRef>,
}

impl ForeignActor {
    /// Of an anchor that this process refers to.
    pub fn of(ray: &Raylet, anchor: RawRef) -> ForeignActor {
        ray.engine().retained_actor(&anchor);
        ForeignActor { ray: ray.clone(), anchor: Some(anchor) }
    }

    /// The object that stands for it.
    pub fn anchor(&self) -> &RawRef {
        self.anchor.as_ref().expect("it is taken in drop only")
    }

    /// The raylet that it lives in.
    pub fn ray(&self) -> &Raylet {
        &self.ray
    }

    /// What its maker said about it.
    pub fn about(&self) -> Result<Option<RawRef>, Box<GetError>> {
        Ok(self.ray.engine().get(self.anchor(), None)?.references().into_iter().next())
    }

    /// Ends it now: for good, or to be restarted if it may be.
    pub fn kill(&self, no_restart: bool) {
        self.ray.engine().kill(self.anchor(), no_restart);
    }
}

impl Drop for ForeignActor {
    fn drop(&mut self) {
        if let Some(anchor) = self.anchor.take() {
            let handle = anchor.handle();
            drop(anchor);
            self.ray.engine().released_actor(handle);
        }
    }
}

/// What the calls of a method ask for besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct MethodWish {
    /// Hash of its name.
    pub key: u64,
    /// Retries and the like.
    pub options: Option<Options>,
}

impl Raylet {
    /// A function of another language with its options. Functions of one `group` that is not 0 have
    /// workers of their own.
    pub fn callable(&self, key: u64, options: Options, group: u64) -> Result<Callable, SubmitError> {
        options.check()?;
        let mut plan = Plan::with(key, options);
        if group != 0 {
            plan.class.group = group;
        }
        Ok(Callable { key, plan })
    }

    /// Names a key for listings and errors; what has its name already is told to nobody again.
    pub fn name_callable(&self, key: u64, name: &str) {
        set_name(key, name);
        self.engine().name_function(key, name);
    }

    /// Submits a call of a function.
    #[inline]
    pub fn call(
        &self,
        callable: &Callable,
        arguments: Arguments,
        results: usize,
        is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        self.engine().submit_foreign(callable, arguments, results, is_stream)
    }

    /// Makes an actor.
    pub fn make_actor(&self, wish: &ActorWish, arguments: Arguments) -> Result<ForeignActor, SubmitError> {
        wish.options.check()?;
        self.name_callable(wish.key, &wish.class);
        let anchor = self.engine().create_foreign(wish, arguments)?;
        Ok(ForeignActor::of(self, anchor))
    }

    /// Submits a call of a method.
    #[inline]
    pub fn call_method(
        &self,
        actor: &ForeignActor,
        method: &MethodWish,
        arguments: Arguments,
        results: usize,
        is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        self.engine().call_foreign(actor.anchor(), method, arguments, results, is_stream)
    }

    /// The living actor of a name, in a namespace or the job's own.
    pub fn find_foreign(&self, name: &str, namespace: Option<&str>) -> Option<ForeignActor> {
        let anchor = self.engine().find_actor(name, namespace)?;
        Some(ForeignActor::of(self, anchor))
    }

    /// The object as soon as it has a value or an error, at most `timeout`.
    #[inline]
    pub fn object(&self, object: &RawRef, timeout: Option<Duration>) -> Result<Object, Box<GetError>> {
        self.engine().get(object, timeout)
    }

    /// Waits until `count` are there; which ones are, in order.
    pub fn ready(
        &self,
        objects: &[RawRef],
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<bool>, Box<GetError>> {
        self.engine().wait(objects, count, timeout)
    }

    /// Has `waker` woken when the object has a value, at once where it has one; false where nobody will.
    pub fn wake_when_ready(&self, object: &RawRef, waker: &Waker) -> bool {
        self.engine().wake_when_ready(object, waker)
    }

    /// Takes back the call that makes an object.
    pub fn cancel_object(&self, object: &RawRef, options: CancelOptions) {
        self.engine().cancel(object, options);
    }

    /// Reserves bundles of resources together; a promise, sealed when they are.
    pub fn reserve(
        &self,
        bundles: &[Options],
        strategy: Strategy,
        name: &str,
        is_detached: bool,
    ) -> Result<RawRef, GroupError> {
        bundles.iter().try_for_each(Options::check)?;
        let bundles: Vec<Demand> = bundles.iter().map(demand).collect();
        self.engine().create_group(GroupCall { bundles, strategy, name: name.to_owned(), is_detached })
    }

    /// Gives them back.
    pub fn unreserve(&self, group: &RawRef) -> Result<(), GroupError> {
        self.engine().remove_group(group)
    }

    /// Asks the raylet something and waits for its answer.
    pub fn ask(&self, question: impl FnOnce(u64) -> Message, timeout: Duration) -> Result<Message, SubmitError> {
        self.engine().ask(Box::new(question), timeout)
    }

    /// Whose calls this thread's are: the driver's, or those of the task that it runs.
    pub fn current_task(&self) -> Option<TaskId> {
        self.engine().current_task()
    }

    /// Leaves the session for good, whoever still refers to it, and ends the raylet that was started for it.
    pub fn leave(&self) {
        self.engine().leave();
    }

    /// Where the raylet is; none in local mode.
    pub fn place(&self) -> Option<&Place> {
        self.engine().place()
    }

    /// The items of a call that streams.
    pub fn stream(&self, results: ResultRefs) -> RefStream<()> {
        RefStream::new(self, results)
    }

    /// The number the raylet gave this client.
    pub fn job(&self) -> JobId {
        self.engine().job()
    }
}

/// The anchor of the actor that this process is, once it is made.
pub fn actor_here() -> Option<Handle> {
    crate::worker::actor::here()
}

/// Has the actor of this process end after the calls that run; false where this is none.
pub fn exit_here() -> bool {
    crate::worker::actor::exit()
}

impl Options {
    /// Where a call runs: in a bundle of the group that this object stands for, or in any.
    pub fn placed(mut self, group: Handle, bundle: Option<u32>) -> Options {
        self.placement = Some(BundleWish { group: crate::engine::spec::object_key(group), bundle });
        self
    }
}

/// Makes an object of an error, which whoever reads it gets instead of a value.
pub fn put_error(ray: &Raylet, error: &TaskError) -> Result<RawRef, Box<store::CreateError>> {
    error.form().put(ray.store())
}
