//! Workers: how the interpreter runs the calls that a worker is given.
//!
//! The one thing to know: a function is loaded once and then called straight from here: arguments are
//! decoded, the function is called, and what it returns is written into the promised results. A plain
//! actor's methods are the same; a hosting actor is handed its calls ([`HostedCall`]). Errors are described
//! by a hook, where the language has words for them. This file must not know how calls get here.

mod actor;
mod hosted;

pub(crate) use hosted::{CallInbox, HostedCall};

use crate::backstage;
use crate::call::{AHEAD, DEFINITION, GROUP, actor_id};
use crate::codec::{self, Place};
use crate::hooks::{self, hook};
use crate::session;
use actor::Actor;
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use raylet_client::binding::{self, Language, Resident, Results, Running};
use raylet_client::role::WorkerSpec;
use raylet_client::{Raylet, TaskError, TaskErrorKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use store::Handle;

static IS_WORKER: AtomicBool = AtomicBool::new(false);
/// The thread that runs tasks, to be interrupted.
static MAIN: OnceLock<nix::sys::pthread::Pthread> = OnceLock::new();
/// The first result of what the main thread runs; generation 0 is nothing.
static RUNS_SLOT: AtomicU32 = AtomicU32::new(0);
static RUNS_GENERATION: AtomicU64 = AtomicU64::new(0);
/// What runs was cancelled.
static IS_CANCELLED: AtomicBool = AtomicBool::new(false);
/// The main thread is to be interrupted by its handler of signals.
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Held while a run begins, ends or is interrupted, so that the signal comes within the run.
static TURN: Mutex<()> = Mutex::new(());

/// Whether this process is a worker.
pub(crate) fn is_worker() -> bool {
    IS_WORKER.load(Ordering::Relaxed)
}

/// Nothing behind these locks is left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread runs.
#[derive(Clone, Debug)]
struct Current {
    key: u64,
    name: &'static str,
    attempt: u32,
    result: Option<Handle>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The life of a worker, in the process that was just forked, which has the interpreter.
pub(crate) fn work(spec: &WorkerSpec) -> i32 {
    IS_WORKER.store(true, Ordering::Relaxed);
    let _ = MAIN.set(nix::sys::pthread::pthread_self());
    Python::attach(|py| {
        let started = hook(py, "worker_started").and_then(|hook| hook.call0());
        if let Err(error) = started {
            error.print(py);
            return 1;
        }
        binding::set_language(Box::new(Interpreter::default()));
        let code = py.detach(|| match binding::work(spec) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("raylet: worker {} could not join: {error}", spec.worker);
                71
            }
        });
        exit(py, code);
        code
    })
}

/// What a program does at its end.
fn exit(py: Python<'_>, code: i32) {
    let exiting = hook(py, "worker_exiting").and_then(|hook| hook.call1((code,)));
    if let Err(error) = exiting {
        error.print(py);
    }
}

/// A function that is loaded.
struct Loaded {
    function: Py<PyAny>,
    name: &'static str,
}

/// The language of this process.
#[derive(Default)]
struct Interpreter {
    functions: Mutex<HashMap<u64, &'static Loaded>>,
}

/// The bytes of a call before its packed arguments.
#[derive(Clone, Copy, Debug, Default)]
struct Header<'a> {
    definition: Option<Handle>,
    ahead: Option<u32>,
    group: Option<&'a str>,
}

impl<'a> Header<'a> {
    /// And what is left.
    fn read(bytes: &'a [u8]) -> Option<(Header<'a>, &'a [u8])> {
        let (&flags, mut left) = bytes.split_first()?;
        let mut header = Header::default();
        if flags & DEFINITION != 0 {
            let (slot, rest) = left.split_first_chunk::<4>()?;
            let (generation, rest) = rest.split_first_chunk::<8>()?;
            header.definition =
                Some(Handle { slot: u32::from_le_bytes(*slot), generation: u64::from_le_bytes(*generation) });
            left = rest;
        }
        if flags & AHEAD != 0 {
            let (ahead, rest) = left.split_first_chunk::<4>()?;
            header.ahead = Some(u32::from_le_bytes(*ahead));
            left = rest;
        }
        if flags & GROUP != 0 {
            let (&length, rest) = left.split_first()?;
            let (group, rest) = rest.split_at_checked(usize::from(length))?;
            header.group = Some(std::str::from_utf8(group).ok()?);
            left = rest;
        }
        Some((header, left))
    }
}

/// Something about a call that is not the program's fault.
fn unreadable(name: &str, what: &dyn fmt::Display) -> TaskError {
    TaskError::new(TaskErrorKind::Argument, name, what)
}

/// What a call begins with, and its packed arguments; `name` is asked for errors.
fn header_of<'a>(call: &Running<'a>, name: impl Fn() -> &'static str) -> Result<(Header<'a>, &'a [u8]), TaskError> {
    Header::read(call.arguments).ok_or_else(|| unreadable(name(), &"the call does not begin as calls do"))
}

/// The definition that a call names.
fn definition_of(py: Python<'_>, name: &str, ray: &Raylet, header: &Header<'_>) -> Result<Py<PyAny>, TaskError> {
    let gone = || {
        let what = "its definition is gone, as the process that exported it is";
        TaskError::new(TaskErrorKind::UnknownFunction, name, &what)
    };
    let object = header.definition.and_then(|handle| ray.store().refer(handle)).ok_or_else(gone)?;
    session::value_of(py, ray, &object).map_err(|error| described(py, &error, name, None))
}

impl Interpreter {
    fn loaded(&self, py: Python<'_>, call: &Running<'_>, header: &Header<'_>) -> Result<&'static Loaded, TaskError> {
        if let Some(loaded) = lock(&self.functions).get(&call.key) {
            return Ok(loaded);
        }
        let definition = definition_of(py, self.name(call.key), call.ray, header)?;
        let load =
            || -> PyResult<(Py<PyAny>, String)> { hook(py, "load_function")?.call1((call.key, definition))?.extract() };
        let (function, name) = load().map_err(|error| described(py, &error, self.name(call.key), None))?;
        let name = binding::set_name(call.key, &name);
        let loaded: &'static Loaded = Box::leak(Box::new(Loaded { function, name }));
        lock(&self.functions).insert(call.key, loaded);
        Ok(loaded)
    }
}

impl Language for Interpreter {
    fn name(&self, key: u64) -> &'static str {
        lock(&self.functions).get(&key).map_or("a function", |loaded| loaded.name)
    }

    fn run(&self, call: &Running<'_>, results: &mut dyn Results) -> Result<(), TaskError> {
        Python::attach(|py| {
            begin_session(call.ray);
            let (header, arguments) = header_of(call, || self.name(call.key))?;
            let loaded = self.loaded(py, call, &header)?;
            let current = Current { key: call.key, name: loaded.name, attempt: call.attempt, result: call.result };
            let _turn = Turn::begin(current, true);
            invoke(py, loaded.function.bind(py), loaded.name, None, call, arguments, header.ahead, results)
        })
    }

    fn create(&self, call: &Running<'_>) -> Result<Box<dyn Resident>, TaskError> {
        Python::attach(|py| {
            begin_session(call.ray);
            Actor::create(py, call).map(|actor| Box::new(actor) as Box<dyn Resident>)
        })
    }

    fn interrupt(&self, result: Handle) {
        if hosted::is_hosting() {
            return backstage::run(move |py| hosted::cancel(py, result));
        }
        let _turn = lock(&TURN);
        let runs = (RUNS_SLOT.load(Ordering::SeqCst), RUNS_GENERATION.load(Ordering::SeqCst));
        if runs != (result.slot, result.generation) {
            return;
        }
        IS_CANCELLED.store(true, Ordering::SeqCst);
        // A method of an actor goes on; it may ask whether it was cancelled.
        if let (false, Some(main)) = (is_actor(), MAIN.get()) {
            IS_INTERRUPTED.store(true, Ordering::SeqCst);
            // Where the thread is gone, so is the process soon.
            let _ = nix::sys::pthread::pthread_kill(*main, nix::sys::signal::Signal::SIGINT);
        }
    }

    fn variable_set(&self, name: &str, value: &str) {
        Python::attach(|py| {
            let set = || py.import("os")?.getattr("environ")?.set_item(name, value);
            if let Err(error) = set() {
                error.print(py);
            }
        });
    }
}

/// Has the package report an error that nobody will read, as nobody refers to the result any more.
#[cold]
fn report_if_unread(py: Python<'_>, call: &Running<'_>, error: &TaskError) {
    let store = call.ray.store();
    let is_read = call.result.is_some_and(|result| store.holders_besides(result, store.client()));
    if is_read || error.kind() != TaskErrorKind::Returned {
        return;
    }
    if let Err(error) = hooks::with_parts(py, "unhandled", error, "") {
        error.print(py);
    }
}

static IS_ACTOR: AtomicBool = AtomicBool::new(false);
/// How often the actor that this process is was made before.
static RESTARTS: AtomicU32 = AtomicU32::new(0);

fn is_actor() -> bool {
    IS_ACTOR.load(Ordering::Relaxed)
}

/// A worker's session is that of its first call.
fn begin_session(ray: &Raylet) {
    if !session::is_there() {
        session::set(Some(ray.clone()));
    }
}

/// The time in which a call runs on this thread.
struct Turn {
    before: Option<Current>,
    is_main: bool,
}

impl Turn {
    fn begin(current: Current, is_main: bool) -> Turn {
        if let (true, Some(Handle { slot, generation })) = (is_main, current.result) {
            let _turn = lock(&TURN);
            IS_CANCELLED.store(false, Ordering::SeqCst);
            IS_INTERRUPTED.store(false, Ordering::SeqCst);
            RUNS_SLOT.store(slot, Ordering::SeqCst);
            RUNS_GENERATION.store(generation, Ordering::SeqCst);
        }
        Turn { before: CURRENT.replace(Some(current)), is_main }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
        if self.is_main {
            let _turn = lock(&TURN);
            RUNS_GENERATION.store(0, Ordering::SeqCst);
            IS_INTERRUPTED.store(false, Ordering::SeqCst);
        }
    }
}

/// The arguments of a call, each object replaced by its value.
fn arguments_of<'py>(
    py: Python<'py>,
    bytes: &[u8],
    call: &Running<'_>,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    codec::decode_arguments(py, bytes, |position| {
        let missing = || PyRuntimeError::new_err("the call names an object that did not come with it");
        let object = call.awaited.get(position).ok_or_else(missing)?;
        session::value_of(py, call.ray, object).map(|value| value.into_bound(py))
    })
}

/// Calls a function and hands its results over.
#[allow(clippy::too_many_arguments, reason = "each is another thing")]
fn invoke(
    py: Python<'_>,
    function: &Bound<'_, PyAny>,
    name: &'static str,
    actor: Option<&Bound<'_, PyAny>>,
    call: &Running<'_>,
    arguments: &[u8],
    ahead: Option<u32>,
    results: &mut dyn Results,
) -> Result<(), TaskError> {
    let describe = |error: PyErr| described(py, &error, name, actor);
    let mut run = || {
        let (args, kwargs) = arguments_of(py, arguments, call).map_err(describe)?;
        let returned = function.call(args, kwargs.as_ref()).map_err(describe)?;
        hand_over(py, &returned, name, actor, call, ahead, results)
    };
    run().inspect_err(|error| report_if_unread(py, call, error))
}

fn hand_over(
    py: Python<'_>,
    returned: &Bound<'_, PyAny>,
    name: &'static str,
    actor: Option<&Bound<'_, PyAny>>,
    call: &Running<'_>,
    ahead: Option<u32>,
    results: &mut dyn Results,
) -> Result<(), TaskError> {
    let describe = |error: PyErr| described(py, &error, name, actor);
    if call.is_stream {
        return push_all(py, returned, name, actor, ahead.unwrap_or(0), results);
    }
    match call.results {
        0 => Ok(()),
        1 => seal(py, returned, results).map_err(describe),
        count => {
            let parts = parts(py, returned, count).map_err(describe)?;
            parts.iter().try_for_each(|part| seal(py, part, results)).map_err(describe)
        }
    }
}

/// The parts of what a function of several results returned.
fn parts<'py>(py: Python<'py>, returned: &Bound<'py, PyAny>, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    hook(py, "parts_of")?.call1((returned, count))?.extract()
}

fn seal(py: Python<'_>, value: &Bound<'_, PyAny>, results: &mut dyn Results) -> PyResult<()> {
    let encoded = codec::encode_as(py, value, Place::Result)?;
    encoded.with_form(py, |form| results.seal(form)).map_err(|error| codec::refused(&error))
}

/// Items as they come. The interpreter is let go of by whoever waits for a reader.
fn push_all(
    py: Python<'_>,
    returned: &Bound<'_, PyAny>,
    name: &'static str,
    actor: Option<&Bound<'_, PyAny>>,
    ahead: u32,
    results: &mut dyn Results,
) -> Result<(), TaskError> {
    let describe = |error: PyErr| described(py, &error, name, actor);
    for item in returned.try_iter().map_err(describe)? {
        let encoded = codec::encode_as(py, &item.map_err(describe)?, Place::Result).map_err(describe)?;
        let pushed = encoded.with_form(py, |form| results.push(form, ahead));
        if !pushed.map_err(|error| describe(codec::refused(&error)))? {
            let _ = returned.call_method0("close");
            break;
        }
    }
    Ok(())
}

/// The error of a call, in the language's words.
fn described(py: Python<'_>, error: &PyErr, name: &str, actor: Option<&Bound<'_, PyAny>>) -> TaskError {
    if error.is_instance_of::<PySystemExit>(py) {
        let code = error.value(py).getattr("code").ok().and_then(|code| code.extract::<i32>().ok()).unwrap_or(0);
        exit(py, code);
        std::process::exit(code);
    }
    type Description = (String, Vec<u8>, bool, Option<String>);
    let describe = || -> PyResult<Description> {
        let value = error.value(py);
        // Python 3.11 keeps the two apart.
        value.setattr("__traceback__", error.traceback(py))?;
        let told = hook(py, "describe_error")?.call1((value, name, actor))?;
        told.extract()
    };
    match describe() {
        Ok((message, payload, is_retried, kind)) => {
            let kind = match kind.as_deref() {
                Some("ActorDied") => TaskErrorKind::ActorDied,
                Some("Cancelled") => TaskErrorKind::Cancelled,
                _ => TaskErrorKind::Returned,
            };
            TaskError::foreign(kind, name, &message, payload, !is_retried)
        }
        Err(failed) => {
            failed.print(py);
            TaskError::new(TaskErrorKind::Returned, name, &error)
        }
    }
}

/// Whether the main thread is to be interrupted now: once.
#[pyfunction]
pub(crate) fn interrupted() -> bool {
    IS_INTERRUPTED.swap(false, Ordering::SeqCst)
}

/// Whether somebody has cancelled what the main thread runs.
#[pyfunction]
pub(crate) fn is_cancelled() -> bool {
    IS_CANCELLED.load(Ordering::SeqCst)
}

/// The name of what this thread runs.
#[pyfunction]
pub(crate) fn running() -> Option<&'static str> {
    CURRENT.with_borrow(|current| current.as_ref().map(|current| current.name))
}

/// What runs in this thread, and for whom.
#[pyfunction]
pub(crate) fn context(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let told = PyDict::new(py);
    let ray = session::found();
    let current = CURRENT.with_borrow(Clone::clone);
    let task = ray.as_ref().and_then(Raylet::current_task);
    told.set_item("is_worker", is_worker())?;
    told.set_item("job_id", ray.as_ref().map(|ray| PyBytes::new(py, ray.job().as_bytes())))?;
    told.set_item("task_id", task.map(|task| PyBytes::new(py, task.as_bytes())))?;
    told.set_item("is_running", current.is_some())?;
    told.set_item("key", current.as_ref().map(|current| current.key))?;
    told.set_item("name", current.as_ref().map(|current| current.name))?;
    told.set_item("attempt", current.as_ref().map_or(0, |current| current.attempt))?;
    let actor = binding::actor_here().and_then(|anchor| ray.as_ref()?.store().refer(anchor));
    told.set_item("restarts", RESTARTS.load(Ordering::Relaxed))?;
    told.set_item("is_cancelled", is_cancelled())?;
    told.set_item("actor_id", actor.as_ref().map(|anchor| PyBytes::new(py, &actor_id(anchor))))?;
    Ok(told)
}

/// The actor that this process is: a handle of it.
#[pyfunction]
pub(crate) fn current_actor(py: Python<'_>) -> PyResult<Option<crate::call::ActorCore>> {
    let ray = session::current(py)?;
    let anchor = binding::actor_here().and_then(|anchor| ray.store().refer(anchor));
    anchor.map(|anchor| crate::call::ActorCore::of_anchor(py, anchor)).transpose()
}

/// Has the actor of this process end after the calls that run; false where this is none.
#[pyfunction]
pub(crate) fn exit_actor() -> bool {
    binding::exit_here()
}
