//! The engine of a real raylet: submits calls, has them run by workers, and waits for their results.
//!
//! The one thing to know: on the direct transport nothing here asks the raylet for a call. A call is a
//! promise and a record in a queue that leased workers claim from ([`lane`]); the raylet is told how
//! many workers a queue could use. What cannot go on its way at once stays private: tasks whose
//! arguments are not there ([`frontier`]), and calls behind a full ring. Whoever submits or waits moves
//! that on, and where nobody does a thread that exists as long as something is left ([`pump`]).
//!
//! | file | what |
//! | --- | --- |
//! | [`line`], [`segment`], [`spec`] | the control line; the queues, mapped; a call as words: shared with workers |
//! | [`scope`], [`plan`] | in whose name a call is; what a function's calls are |
//! | [`lane`], [`frontier`] | a queue of ours and its backlog; tasks that wait for arguments |
//! | [`submit`], [`actors`], [`routed`] | calls of functions; of actors; through the raylet |
//! | [`wait`], [`pump`] | get and wait; who moves things on |
//! | [`fail`], [`interrupt`] | errors in the place of results; tasks here that somebody cancels |
//! | [`lineage`] | values that are lost, made again |
//! | [`start`], [`print`] | join or start a raylet; what workers wrote |
//!
//! A driver and every worker have one. This directory must not know users' types, and it must not
//! run their code: workers do.

pub(crate) mod actors;
mod fail;
mod frontier;
mod interrupt;
mod lane;
pub(crate) mod line;
mod lineage;
pub(crate) mod plan;
pub(crate) mod print;
mod pump;
mod routed;
pub(crate) mod scope;
pub(crate) mod segment;
mod slots;
pub(crate) mod spec;
pub(crate) mod start;
mod submit;
mod wait;

#[cfg(test)]
mod tests;

pub(crate) use start::join_as_worker;

use crate::actor::{Class, Method};
use crate::binding::{ActorWish, Callable, MethodWish};
use crate::remote::engine::{Call, Engine, GroupCall};
use crate::remote::{CancelOptions, GroupError, Raylet, SubmitError};
use crate::task::{Arguments, Function, ResultRefs, Transport, with_scope};
use actors::Actors;
use frontier::Frontier;
use interrupt::Interrupts;
use lane::Lane;
use line::Line;
pub(crate) use lineage::RECIPE_RESULT_BYTES_MIN;
use lineage::Remaking;
use plan::Plans;
use pump::Pump;
use raylet_api::message::Message;
use raylet_api::work::{ClassWish, NameFunctions};
use raylet_api::{JobId, TaskId};
use routed::Routed;
use scope::Scope;
use segment::Segment;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::Waker;
use std::time::Duration;
use store::{GetError, Handle, Object, ObjectRef as RawRef, Store};
use store_shm::AtFork;
use wait::Spin;

/// How long the raylet may take to answer what a call has to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The engine of [`Mode::Raylet`](crate::Mode).
pub(crate) struct Remote {
    shared: Arc<Shared>,
    /// Ended last: this process has left the session by then.
    #[cfg(feature = "embedded")]
    child: Mutex<Option<crate::role::RayletChild>>,
}

impl Remote {
    /// Leaves the session, and ends the raylet that was started for it.
    fn end(&self) {
        if self.shared.is_forked.load(Ordering::Relaxed) {
            return;
        }
        self.shared.close_pump();
        self.shared.line.close();
        #[cfg(feature = "embedded")]
        drop(lock(&self.child).take());
    }
}

/// What the engine's threads share.
pub(crate) struct Shared {
    store: Store,
    line: Arc<Line>,
    segment: Segment,
    /// Where the raylet is to be found.
    place: Place,
    /// Says to the raylet when it sleeps.
    is_worker: bool,
    /// The driver's, or a worker's own where no task asks.
    scope: Scope,
    job: JobId,
    transport: Transport,
    /// `None`: each job has its own.
    namespace: Option<String>,
    /// The keys whose names it has told the raylet, apart from those of this executable.
    named: Mutex<BTreeSet<u64>>,
    plans: Plans,
    classes: Mutex<HashMap<ClassWish, Arc<Lane>>>,
    /// All queues, of classes and of actors.
    lanes: RwLock<Vec<Arc<Lane>>>,
    /// Some lane may have something left to do.
    has_lanes_left: AtomicBool,
    /// Calls may wait for room in a ring.
    has_backlog: AtomicBool,
    frontier: Frontier,
    actors: Actors,
    routed: Routed,
    interrupts: Interrupts,
    remaking: Remaking,
    pump: Pump,
    spin: Spin,
    /// Threads that sleep until an object has a value.
    blocked: AtomicUsize,
    /// This is a forked child: the queues are its parent's.
    is_forked: AtomicBool,
}

/// A session's place and name.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its directory.
    pub directory: PathBuf,
    /// Names this run of the raylet; no other run has the same.
    pub session_id: String,
}

/// Nothing behind these locks is left half changed by a panic: no user code runs under one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Whether calls can be submitted at all.
    #[inline]
    fn check(&self) -> Result<(), SubmitError> {
        if self.is_forked.load(Ordering::Relaxed) {
            return Err(SubmitError::Forked);
        }
        if self.line.is_gone() { Err(SubmitError::RayletGone) } else { Ok(()) }
    }

    fn lanes(&self) -> RwLockReadGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_lane(&self, lane: &Arc<Lane>) {
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).push(lane.clone());
    }

    fn remove_lane(&self, lane: &Arc<Lane>) {
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, lane));
    }
}

impl AtFork for Shared {
    fn before_fork(&self) {}

    fn after_fork_in_parent(&self) {}

    fn after_fork_in_child(&self) {
        self.is_forked.store(true, Ordering::Relaxed);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.end();
    }
}

impl Engine for Remote {
    fn name(&self) -> &'static str {
        "raylet"
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    fn submit(&self, _ray: &Raylet, function: &'static Function, call: Call<'_>) -> Result<ResultRefs, SubmitError> {
        self.shared.check_parent()?;
        self.shared.submit(function, call)
    }

    fn create_actor(&self, _ray: &Raylet, class: &'static Class, call: Call<'_>) -> Result<RawRef, SubmitError> {
        self.shared.check_parent()?;
        self.shared.create_actor(class, call)
    }

    fn call_actor(
        &self,
        _ray: &Raylet,
        anchor: &RawRef,
        method: &'static Method,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError> {
        self.shared.check_parent()?;
        self.shared.call_actor(anchor, method.key, call)
    }

    fn find_actor(&self, name: &str, namespace: Option<&str>) -> Option<RawRef> {
        self.shared.find_actor(name, namespace)
    }

    fn retained_actor(&self, anchor: &RawRef) {
        self.shared.retained_actor(anchor);
    }

    fn released_actor(&self, anchor: Handle) {
        self.shared.released_actor(anchor);
    }

    fn get(&self, object: &RawRef, timeout: Option<Duration>) -> Result<Object, Box<GetError>> {
        self.shared.get(object, timeout)
    }

    fn wait(&self, objects: &[RawRef], count: usize, timeout: Option<Duration>) -> Result<Vec<bool>, Box<GetError>> {
        self.shared.wait(objects, count, timeout)
    }

    fn wake_when_ready(&self, object: &RawRef, waker: &Waker) -> bool {
        self.shared.wake_when_ready(object, waker)
    }

    fn cancel(&self, object: &RawRef, options: CancelOptions) {
        self.shared.cancel(object, options);
    }

    fn keep_recipe(&self, call: &spec::Unpacked) {
        self.shared.keep_recipe(call);
    }

    fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }

    fn kill(&self, anchor: &RawRef, no_restart: bool) {
        self.shared.kill(anchor, no_restart);
    }

    fn create_group(&self, group: GroupCall) -> Result<RawRef, GroupError> {
        self.shared.check_parent()?;
        self.shared.create_group(group)
    }

    fn remove_group(&self, group: &RawRef) -> Result<(), GroupError> {
        self.shared.remove_group(group)
    }

    #[inline]
    fn submit_foreign(
        &self,
        callable: &Callable,
        arguments: Arguments,
        results: usize,
        is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        let call = Call { arguments, options: None, results, is_stream };
        self.shared.submit_planned(&callable.plan, callable.key, call)
    }

    fn create_foreign(&self, wish: &ActorWish, arguments: Arguments) -> Result<RawRef, SubmitError> {
        self.shared.create_foreign(wish, arguments)
    }

    #[inline]
    fn call_foreign(
        &self,
        anchor: &RawRef,
        method: &MethodWish,
        arguments: Arguments,
        results: usize,
        is_stream: bool,
    ) -> Result<ResultRefs, SubmitError> {
        let call = Call { arguments, options: method.options.as_ref(), results, is_stream };
        self.shared.call_actor(anchor, method.key, call)
    }

    fn name_function(&self, key: u64, name: &str) {
        if lock(&self.shared.named).insert(key) {
            // A raylet that is gone lists nothing.
            let _ = self.shared.line.send(NameFunctions { names: vec![(key, name.to_owned())] });
        }
    }

    fn ask(&self, question: Box<dyn FnOnce(u64) -> Message + '_>, timeout: Duration) -> Result<Message, SubmitError> {
        self.shared.check()?;
        Ok(self.shared.line.ask(question, timeout)?)
    }

    fn leave(&self) {
        self.end();
    }

    fn place(&self) -> Option<&Place> {
        Some(&self.shared.place)
    }

    fn current_task(&self) -> Option<TaskId> {
        with_scope(|scope| scope.unwrap_or(&self.shared.scope).id(&self.shared.store))
    }

    fn job(&self) -> JobId {
        self.shared.current_job()
    }
}
