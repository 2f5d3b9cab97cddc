//! Local mode: every task and call runs in the calling thread, before its submission returns.
//!
//! The one thing to know: it keeps what programs can see. Arguments and results go through the
//! store as bytes, errors are objects, references are counted: only processes are missing. So what
//! runs here runs with workers, unless it depends on not being alone in its process. Options are
//! checked and, but for names, mean nothing here.
//!
//! Async bodies run on a thread beside with a runtime of its own, for the caller may be inside one.
//! No lock is held while user code runs, but for the actor's own. This file must not know types.

use crate::actor::{Class, Method, MethodBody, State};
use crate::remote::engine::{Call, Engine, GroupCall};
use crate::remote::{CancelOptions, Config, GroupError, Raylet, SubmitError};
use crate::stream::Writer;
use crate::task::{
    self, Arguments, Body, Frame, Function, Incoming, Options, ResultRefs, Results, TaskError, TaskErrorKind,
    TaskFuture,
};
use crate::value::{Form, Value};
use crate::worker::seal_error;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;
use store::{CreateError, Encoding, GetError, Handle, Object, ObjectRef as RawRef, OpenError, Store};

/// Bytes of objects where nobody says otherwise.
const CAPACITY_BYTES: u64 = 1 << 30;
/// For "as long as it takes": the store wants a number.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The engine of [`Mode::Local`](crate::Mode).
pub(crate) struct Local {
    store: Store,
    actors: Mutex<HashMap<Handle, Arc<LocalActor>>>,
}

struct LocalActor {
    class: &'static Class,
    name: Option<String>,
    /// Why it is dead.
    died: OnceLock<TaskError>,
    /// What it is; `None` once it is dead.
    state: Mutex<Option<State>>,
}

impl LocalActor {
    fn die(&self, why: TaskError) {
        // The first reason stands.
        let _ = self.died.set(why);
        // Where a call is under way, that ends the state when it is done.
        let state = self.state.try_lock().ok().and_then(|mut state| state.take());
        drop(state);
    }

    /// Runs `body` on the state of a living actor.
    fn with_state(&self, body: impl FnOnce(&mut State) -> Result<(), TaskError>) -> Result<(), TaskError> {
        let mut state = lock(&self.state);
        let outcome = match (self.died.get(), &mut *state) {
            (None, Some(state)) => body(state),
            (died, _) => return Err(died.cloned().unwrap_or_else(|| died_of(self.class, &"it has no state"))),
        };
        if self.died.get().is_some() {
            let ended = state.take();
            drop((state, ended));
        }
        outcome
    }
}

/// Makes objects of results as they come.
struct Sealed<'a> {
    store: &'a Store,
    objects: Vec<RawRef>,
    stream: Option<Writer>,
}

impl Results for Sealed<'_> {
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>> {
        self.objects.push(form.put(self.store)?);
        Ok(())
    }

    fn push(&mut self, form: &Form<'_>, ahead: u32) -> Result<bool, Box<CreateError>> {
        self.stream.as_mut().map_or(Ok(false), |stream| stream.push(form, ahead))
    }
}

/// Nothing here is left half changed by a panic: user code runs behind [`task::execute`].
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Local {
    pub(crate) fn new(config: &Config) -> Result<Local, OpenError> {
        let store = Store::in_process(store::Config {
            capacity_bytes: if config.capacity_bytes > 0 { config.capacity_bytes } else { CAPACITY_BYTES },
            spill_directory: config.spill_directory.clone(),
            label: "local mode".to_owned(),
            ..store::Config::default()
        })?;
        Ok(Local { store, actors: Mutex::default() })
    }

    /// The error that stands in an argument's place, if one does.
    fn failed_argument(&self, arguments: &Arguments) -> Result<Option<TaskError>, Box<GetError>> {
        for object in &arguments.awaited {
            let object = self.get(object, None)?;
            if object.encoding() == Encoding::Error {
                return Ok(Some(TaskError::from_bytes(&object)));
            }
        }
        Ok(None)
    }

    /// Runs a body and gives its results, errors included.
    fn run(
        &self,
        name: &str,
        call: &Call<'_>,
        body: impl FnOnce(Incoming<'_>, &mut Sealed<'_>) -> Result<(), TaskError>,
    ) -> Result<ResultRefs, SubmitError> {
        // Read when it is over, so nothing waits for its reader.
        let promise = |_| self.store.promise_by_handle(None);
        let cells =
            if call.is_stream { (0..call.results).map(promise).collect::<Result<Vec<_>, _>>()? } else { Vec::new() };
        let stream = match &cells[..] {
            [end, first] => Some(Writer::new(&self.store, [end.handle(), first.handle()], 0).unbounded()),
            _ => None,
        };
        let mut sealed = Sealed { store: &self.store, objects: Vec::with_capacity(call.results), stream };
        let outcome = match self.failed_argument(&call.arguments) {
            Ok(None) => body(incoming(name, &call.arguments), &mut sealed),
            Ok(Some(error)) => Err(error.pass(name)),
            Err(error) => Err(TaskError::new(TaskErrorKind::Argument, name, &error)),
        };
        if let Some(stream) = sealed.stream {
            if let Some((place, error)) = stream.end(name, outcome) {
                seal_error(&self.store, &[place], &error);
            }
            return Ok(ResultRefs::Many(cells));
        }
        let objects = self.fill(name, sealed.objects, outcome, call.results)?;
        Ok(ResultRefs::Many(objects))
    }

    /// What came, with an error in the place of each result that did not; of all where there are
    /// too many.
    fn fill(
        &self,
        name: &str,
        mut objects: Vec<RawRef>,
        outcome: Result<(), TaskError>,
        wanted: usize,
    ) -> Result<Vec<RawRef>, SubmitError> {
        let found = objects.len();
        let error = match outcome {
            Ok(()) if found == wanted => return Ok(objects),
            Ok(()) => {
                objects.clear();
                let message = format_args!("{found} results came, {wanted} were declared");
                TaskError::new(TaskErrorKind::ResultCount, name, &message)
            }
            Err(error) => error,
        };
        objects.truncate(wanted);
        let error = error.form().put(&self.store)?;
        objects.resize(wanted, error);
        Ok(objects)
    }

    fn actor(&self, anchor: &RawRef) -> Option<Arc<LocalActor>> {
        lock(&self.actors).get(&anchor.handle()).cloned()
    }

    /// Drops the actors that nobody refers to any more.
    fn sweep(&self) {
        let is_gone = |handle: &Handle| self.store.refer(*handle).is_none();
        let mut actors = lock(&self.actors);
        let gone: Vec<Handle> = actors.keys().copied().filter(is_gone).collect();
        let gone: Vec<_> = gone.iter().filter_map(|handle| actors.remove(handle)).collect();
        drop(actors);
        // Their states may hold handles of others: dropped without the lock.
        drop(gone);
    }

    /// The actor's state made by its constructor, or why there is none.
    fn create(&self, ray: &Raylet, class: &'static Class, arguments: &Arguments) -> Result<State, TaskError> {
        if let Some(error) = self.failed_argument(arguments).map_err(|error| died_of(class, &error))? {
            return Err(died_of(class, &error));
        }
        let mut state = None;
        let outcome = task::execute(class.name, frame(ray, None), || {
            state = Some((class.create)(ray, incoming(class.name, arguments))?);
            Ok(())
        });
        outcome.map_err(|error| died_of(class, &error))?;
        state.ok_or_else(|| died_of(class, &"its constructor made nothing"))
    }
}

fn incoming<'a>(name: &'a str, arguments: &'a Arguments) -> Incoming<'a> {
    Incoming::new(name, arguments.bytes(), &arguments.awaited)
}

fn died_of(class: &Class, why: &dyn std::fmt::Display) -> TaskError {
    TaskError::new(TaskErrorKind::ActorDied, class.name, why)
}

/// The frame of a task that the task of this thread calls.
fn frame(ray: &Raylet, actor: Option<Handle>) -> Frame {
    let mut actors = task::frame().map(|frame| frame.actors).unwrap_or_default();
    actors.extend(actor);
    Frame { ray: ray.clone(), actors, task: None }
}

fn execute_body(
    body: Body,
    name: &str,
    frame: Frame,
    incoming: Incoming<'_>,
    results: &mut Sealed<'_>,
) -> Result<(), TaskError> {
    let ray = frame.ray.clone();
    match body {
        Body::Sync(body) => task::execute(name, frame, || body(&ray, incoming, results)),
        Body::Async(body) => beside(name, frame, || body(&ray, incoming, results)),
    }
}

fn execute_method(
    method: &Method,
    state: &mut State,
    frame: Frame,
    incoming: Incoming<'_>,
    results: &mut Sealed<'_>,
) -> Result<(), TaskError> {
    let (ray, name) = (frame.ray.clone(), method.name);
    let state = &mut **state;
    match method.body {
        MethodBody::Exclusive(body) => task::execute(name, frame, || body(state, &ray, incoming, results)),
        MethodBody::Shared(body) => task::execute(name, frame, || body(state, &ray, incoming, results)),
        MethodBody::ExclusiveAsync(body) => beside(name, frame, || body(state, &ray, incoming, results)),
        MethodBody::SharedAsync(body) => beside(name, frame, || body(state, &ray, incoming, results)),
    }
}

/// Runs an async body to its end on a thread beside.
fn beside<'a>(name: &str, frame: Frame, body: impl FnOnce() -> TaskFuture<'a> + Send) -> Result<(), TaskError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| TaskError::new(TaskErrorKind::WorkerCrashed, name, &error))?;
        task::execute(name, frame, || runtime.block_on(body()))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("local-async".to_owned()).spawn_scoped(scope, run);
        let thread = thread.map_err(|error| TaskError::new(TaskErrorKind::WorkerCrashed, name, &error))?;
        thread.join().expect("user code does not unwind past `execute`")
    })
}

impl Engine for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn submit(&self, ray: &Raylet, function: &'static Function, call: Call<'_>) -> Result<ResultRefs, SubmitError> {
        self.run(function.name, &call, |incoming, results| {
            execute_body(function.body, function.name, frame(ray, None), incoming, results)
        })
    }

    fn create_actor(&self, ray: &Raylet, class: &'static Class, call: Call<'_>) -> Result<RawRef, SubmitError> {
        self.sweep();
        let options = call.options.cloned().unwrap_or_default().or((class.options)());
        let retries = options.max_task_retries.unwrap_or(0);
        let Options { name, .. } = options;
        let taken = name.as_ref().filter(|name| self.find_actor(name, None).is_some());
        if let Some(name) = taken {
            return Err(SubmitError::NameTaken { name: name.clone() });
        }
        let anchor = class.anchor(retries).put(&self.store)?;
        let actor = LocalActor { class, name, died: OnceLock::new(), state: Mutex::default() };
        match self.create(ray, class, &call.arguments) {
            Ok(state) => *lock(&actor.state) = Some(state),
            Err(error) => actor.die(error),
        }
        lock(&self.actors).insert(anchor.handle(), Arc::new(actor));
        Ok(anchor)
    }

    fn call_actor(
        &self,
        ray: &Raylet,
        anchor: &RawRef,
        method: &'static Method,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError> {
        let frame = frame(ray, Some(anchor.handle()));
        let Some(actor) = self.actor(anchor) else { return Err(SubmitError::RayletGone) };
        if frame.actors.iter().filter(|running| **running == anchor.handle()).count() > 1 {
            return Err(SubmitError::Reentrant { class: actor.class.name });
        }
        self.run(method.name, &call, |incoming, results| {
            actor.with_state(|state| execute_method(method, state, frame, incoming, results))
        })
    }

    fn find_actor(&self, name: &str, _namespace: Option<&str>) -> Option<RawRef> {
        let actors = lock(&self.actors);
        let named = |actor: &LocalActor| actor.name.as_deref() == Some(name) && actor.died.get().is_none();
        let (handle, _) = actors.iter().find(|(_, actor)| named(actor))?;
        self.store.refer(*handle)
    }

    fn released_actor(&self, anchor: Handle) {
        if self.store.refer(anchor).is_none() {
            let gone = lock(&self.actors).remove(&anchor);
            drop(gone);
        }
    }

    fn get(&self, object: &RawRef, timeout: Option<Duration>) -> Result<Object, Box<GetError>> {
        self.store.get_timeout(object, timeout.unwrap_or(FOREVER))
    }

    fn wait(&self, objects: &[RawRef], count: usize, timeout: Option<Duration>) -> Result<Vec<bool>, Box<GetError>> {
        self.store.wait(objects, count, timeout.unwrap_or(FOREVER))
    }

    fn wake_when_ready(&self, _object: &RawRef, waker: &Waker) -> bool {
        // Results are there before a reference to them is.
        waker.wake_by_ref();
        true
    }

    fn cancel(&self, _object: &RawRef, _options: CancelOptions) {
        // What could be cancelled is done.
    }

    fn kill(&self, anchor: &RawRef, _no_restart: bool) {
        if let Some(actor) = self.actor(anchor) {
            actor.die(died_of(actor.class, &"it was killed by `Raylet::kill`"));
        }
    }

    fn create_group(&self, _group: GroupCall) -> Result<RawRef, GroupError> {
        // There is no second task that could take what is reserved.
        let nothing = ().form().map_err(SubmitError::from)?;
        Ok(nothing.put(&self.store).map_err(SubmitError::from)?)
    }

    fn remove_group(&self, _group: &RawRef) -> Result<(), GroupError> {
        Ok(())
    }
}
