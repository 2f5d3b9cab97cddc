//! What carries tasks out: the seam between the typed API and local mode or a raylet.
//!
//! The one thing to know: everything here is handles, keys and packed bytes; no method knows a
//! user's type. Whoever implements it owes:
//!
//! * results come back at once, as references to objects that will have a value or an error;
//! * every object in `awaited` has a value before the body runs; if one is an error, the body does
//!   not run and the error stands in the place of each result ([`TaskError::pass`]);
//! * objects in `awaited`, and with them what they list, live until the results are sealed, whoever dies;
//! * calls of one actor by one caller run in the order given;
//! * a body runs by [`task::execute`](crate::task::execute) and nowhere else.
//!
//! This file must not know an implementation.

use super::{CancelOptions, GroupError, Raylet, Strategy, SubmitError};
use crate::actor::{Class, Method};
use crate::binding::{ActorWish, Callable, MethodWish};
use crate::engine::Place;
use crate::engine::spec::Unpacked;
use crate::task::{Arguments, Function, Options, ResultRefs};
use raylet_api::message::Message;
use raylet_api::work::Demand;
use raylet_api::{JobId, TaskId};
use std::task::Waker;
use std::time::Duration;
use store::{GetError, Object, ObjectRef as RawRef, Store};

/// What every call consists of, beside what it calls.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) arguments: Arguments,
    /// Checked, and not merged with the attribute's yet: the usual call has none.
    pub(crate) options: Option<&'a Options>,
    /// How many objects the call makes.
    pub(crate) results: usize,
    /// Its two results are the end and the first cell of a stream.
    pub(crate) is_stream: bool,
}

/// A placement group to make; its bundles are checked.
#[derive(Debug)]
pub(crate) struct GroupCall {
    pub(crate) bundles: Vec<Demand>,
    pub(crate) strategy: Strategy,
    /// What listings call it.
    pub(crate) name: String,
    /// It outlives its job.
    pub(crate) is_detached: bool,
}

/// Carries out what programs ask for.
pub(crate) trait Engine: Send + Sync + 'static {
    /// For people.
    fn name(&self) -> &'static str;

    /// Where all objects are.
    fn store(&self) -> &Store;

    /// Has a function run. `ray` is who asks, and for local bodies who they ask.
    fn submit(&self, ray: &Raylet, function: &'static Function, call: Call<'_>) -> Result<ResultRefs, SubmitError>;

    /// Makes an actor: an object that stands for it, its *anchor*. The actor lives while somebody
    /// refers to the anchor, which holds what [`Class::anchor`] says.
    fn create_actor(&self, ray: &Raylet, class: &'static Class, call: Call<'_>) -> Result<RawRef, SubmitError>;

    /// Has a method run on an actor.
    fn call_actor(
        &self,
        ray: &Raylet,
        anchor: &RawRef,
        method: &'static Method,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError>;

    /// The anchor of the living actor of this name, in a namespace or the job's own.
    fn find_actor(&self, name: &str, namespace: Option<&str>) -> Option<RawRef>;

    /// This process has one more handle.
    fn retained_actor(&self, _anchor: &RawRef) {}

    /// This process has one handle less, whose reference to the anchor is gone already.
    fn released_actor(&self, anchor: store::Handle);

    /// Waits for a value or an error. `None` waits as long as it takes.
    fn get(&self, object: &RawRef, timeout: Option<Duration>) -> Result<Object, Box<GetError>>;

    /// Waits until `count` have values or errors; which ones have, in order.
    fn wait(&self, objects: &[RawRef], count: usize, timeout: Option<Duration>) -> Result<Vec<bool>, Box<GetError>>;

    /// Has `waker` woken when the object has a value; at once where it has one already. False where
    /// nobody ever will, as the raylet is gone: `get` says so.
    fn wake_when_ready(&self, object: &RawRef, waker: &Waker) -> bool;

    /// Cancels the task of this result, unless it is done.
    fn cancel(&self, object: &RawRef, options: CancelOptions);

    /// In a worker: a call has large results, which are about to be sealed.
    fn keep_recipe(&self, _call: &Unpacked) {}

    /// Whether the task that this thread runs was cancelled.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Ends the actor of this anchor: for good, or to be restarted if it may be.
    fn kill(&self, anchor: &RawRef, no_restart: bool);

    /// Reserves resources; a promise that stands for them.
    fn create_group(&self, group: GroupCall) -> Result<RawRef, GroupError>;

    /// Gives them back.
    fn remove_group(&self, group: &RawRef) -> Result<(), GroupError>;

    /// Has a function of another language run.
    fn submit_foreign(
        &self,
        _callable: &Callable,
        _arguments: Arguments,
        _results: usize,
        _is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        Err(SubmitError::NoWorkers)
    }

    /// Makes an actor of another language; its anchor.
    fn create_foreign(&self, _wish: &ActorWish, _arguments: Arguments) -> Result<RawRef, SubmitError> {
        Err(SubmitError::NoWorkers)
    }

    /// Has a method of such an actor run.
    fn call_foreign(
        &self,
        _anchor: &RawRef,
        _method: &MethodWish,
        _arguments: Arguments,
        _results: usize,
        _is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        Err(SubmitError::NoWorkers)
    }

    /// Says what a key is called.
    fn name_function(&self, _key: u64, _name: &str) {}

    /// Asks the raylet.
    fn ask(&self, _question: Box<dyn FnOnce(u64) -> Message + '_>, _timeout: Duration) -> Result<Message, SubmitError> {
        Err(SubmitError::NoWorkers)
    }

    /// Leaves the session for good, whoever still refers to it, and ends what was started for it.
    fn leave(&self) {}

    /// Where the raylet is; none in local mode.
    fn place(&self) -> Option<&Place> {
        None
    }

    /// Whose calls this thread's are.
    fn current_task(&self) -> Option<TaskId> {
        None
    }

    /// The job of what this thread runs.
    fn job(&self) -> JobId {
        JobId::new(0)
    }
}
