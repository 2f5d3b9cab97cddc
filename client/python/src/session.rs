//! The membership of this process, and what concerns objects: put, get, wait, be woken.
//!
//! The one thing to know: there is one session at a time, a driver's by `init` or a worker's own, and
//! each has a number: what was prepared in another is prepared anew. A wait lets go of the interpreter
//! and comes back now and then to look for signals. This file must not know calls.

use crate::backstage;
use crate::codec;
use crate::hooks;
use crate::refs::ObjectRef;
use crate::stream::Stream;
use nix::sys::signal::{SigSet, SigmaskHow};
use pyo3::exceptions::{PyConnectionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use raylet_client::binding::Program;
use raylet_client::remote::{CancelOptions, Config};
use raylet_client::{InitError, Mode, Raylet, TaskError, TaskErrorKind, Transport};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};
use store::{Encoding, GetError, ObjectRef as RawRef};

/// How long a driver waits before it looks for signals, and a worker, whose every wait lends its CPU.
const LOOK_DRIVER: Duration = Duration::from_millis(50);
const LOOK_WORKER: Duration = Duration::from_secs(1);
/// How long `get` of several waits for one before it looks for errors among the others.
const LOOK_ERRORS: Duration = Duration::from_millis(10);

static SESSION: RwLock<Option<Raylet>> = RwLock::new(None);
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The number of the session; another one after each init and shutdown.
#[inline]
pub(crate) fn number() -> u64 {
    NUMBER.load(Ordering::Relaxed)
}

/// The session's raylet.
#[inline]
pub(crate) fn current(py: Python<'_>) -> PyResult<Raylet> {
    found().ok_or_else(|| hooks::exception(py, "Shutdown", "there is no session", ""))
}

/// Whether there is a session.
#[inline]
pub(crate) fn is_there() -> bool {
    SESSION.read().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// The session's raylet, where there is one.
#[inline]
pub(crate) fn found() -> Option<Raylet> {
    SESSION.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What the session is called; no other has the same.
pub(crate) fn name() -> String {
    found().and_then(|ray| Some(ray.place()?.session_id.clone())).unwrap_or_default()
}

/// Begins a session, or ends the one there is.
pub(crate) fn set(ray: Option<Raylet>) {
    let before = std::mem::replace(&mut *SESSION.write().unwrap_or_else(PoisonError::into_inner), ray);
    NUMBER.fetch_add(1, Ordering::Relaxed);
    // References and handles may still be there: nothing is asked of them any more.
    if let Some(before) = before {
        before.leave();
    }
}

/// What a dict has under a name, where that is not None.
pub(crate) fn item<'py, T: FromPyObjectOwned<'py>>(given: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>> {
    match given.get_item(name)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

/// Starts threads that leave signals to the interpreter's own.
fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let started = start();
    // What cannot be set was never changed.
    let _ = before.map(|before| before.thread_set_mask());
    started
}

fn config_of(given: &Bound<'_, PyDict>) -> PyResult<Config> {
    let mut config = Config::default();
    if item::<String>(given, "mode")?.as_deref() == Some("local") {
        config.mode = Mode::Local;
    }
    config.address = item(given, "address")?;
    config.namespace = item(given, "namespace")?;
    config.transport = item::<String>(given, "transport")?.as_deref().map(transport).transpose()?;
    config.log_to_driver = item(given, "log_to_driver")?.unwrap_or(true);
    config.capacity_bytes = item(given, "object_store_memory")?.unwrap_or(0);
    config.spill_directory = item::<String>(given, "spill_directory")?.map(Into::into);
    config.num_cpus = item(given, "num_cpus")?;
    config.num_gpus = item(given, "num_gpus")?;
    config.memory_bytes = item(given, "memory")?;
    config.timeline = item(given, "timeline")?.unwrap_or(false);
    config.workers_max = item(given, "workers_max")?;
    if let Some(resources) = item::<std::collections::BTreeMap<String, f64>>(given, "resources")? {
        config.resources = resources.into_iter().collect();
    }
    config.printer = backstage::printer();
    config.worker_program = Some(program(given, "executable", "arguments")?);
    config.raylet_program = Some(program(given, "raylet_executable", "raylet_arguments")?);
    Ok(config)
}

pub(crate) fn transport(name: &str) -> PyResult<Transport> {
    match name {
        "direct" => Ok(Transport::Direct),
        "raylet" => Ok(Transport::Raylet),
        other => Err(PyValueError::new_err(format!("{other:?} is no transport: \"direct\" or \"raylet\""))),
    }
}

/// An interpreter that takes its role when it is up.
fn program(given: &Bound<'_, PyDict>, executable: &str, arguments: &str) -> PyResult<Program> {
    let is_worker = executable == "executable";
    let mut environment = vec![("RAYLET_ROLE_LATER".to_owned(), "1".to_owned())];
    if is_worker && let Some(more) = item::<std::collections::BTreeMap<String, String>>(given, "environment")? {
        environment.extend(more);
    }
    Ok(Program {
        executable: item(given, executable)?,
        arguments: item(given, arguments)?.unwrap_or_default(),
        environment,
        directory: if is_worker { item(given, "directory")? } else { None },
    })
}

/// Joins or starts a raylet; what is to be told of it.
#[pyfunction]
pub(crate) fn init<'py>(py: Python<'py>, config: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let config = config_of(config)?;
    let ray = std::thread::scope(|scope| -> PyResult<Raylet> {
        let is_local = config.mode == Mode::Local;
        let starting = scope.spawn(|| without_signals(|| Raylet::init(config)));
        // Meanwhile the interpreter gets ready for its first call.
        let warm_up = || hooks::hook(py, "session_starts")?.call0().map(drop);
        let warmed = if is_local { Ok(()) } else { warm_up() };
        let started = py.detach(|| starting.join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        warmed?;
        started.map_err(init_error)
    })?;
    let told = about(py, &ray)?;
    set(Some(ray));
    Ok(told)
}

pub(crate) fn about<'py>(py: Python<'py>, ray: &Raylet) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    let job = ray.job();
    told.set_item("job_id", PyBytes::new(py, job.as_bytes()))?;
    let place = ray.place();
    told.set_item("session_dir", place.map(|place| place.directory.display().to_string()))?;
    told.set_item("session_id", place.map(|place| place.session_id.clone()))?;
    told.set_item("address", place.map(|place| place.directory.display().to_string()))?;
    told.set_item("node_id", node_id(place.map_or("local", |place| &place.session_id)))?;
    Ok(told)
}

/// What is to be told of the session, as [`init`] says it; `None` where there is none.
#[pyfunction]
pub(crate) fn facts(py: Python<'_>) -> PyResult<Option<Bound<'_, PyDict>>> {
    found().map(|ray| about(py, &ray)).transpose()
}

/// 28 bytes of hexadecimal that every process of one session derives alike.
fn node_id(session: &str) -> String {
    let mut text = String::with_capacity(56);
    for part in 0..4u8 {
        let hash = raylet_client::binding::key(&format!("{session}{part}"));
        text.push_str(&format!("{hash:016x}"));
    }
    text.truncate(56);
    text
}

fn init_error(error: InitError) -> PyErr {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error {
        InitError::Connect { .. } => PyConnectionError::new_err(text),
        InitError::Options(_) | InitError::Address { .. } | InitError::ForceDirect { .. } => {
            PyValueError::new_err(text)
        }
        _ => PyRuntimeError::new_err(text),
    }
}

/// Ends the session; twice is once.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    crate::refs::forget_kept();
    crate::call::forget_definitions();
    // What is still to be said needs the session; what its end lets through comes behind that.
    backstage::settle(py);
    py.detach(|| set(None));
    backstage::settle(py);
}

/// Whether there is a session.
#[pyfunction]
pub(crate) fn is_initialized() -> bool {
    is_there()
}

/// Makes an object of a value. A hook is asked where there is no session, and what a reference is to be.
#[pyfunction]
pub(crate) fn put<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let Some(ray) = found().filter(|_| !value.is_instance_of::<ObjectRef>()) else {
        return hooks::hook(py, "put_other")?.call1((value,));
    };
    let object = codec::put(py, &ray, value)?;
    Ok(ObjectRef::of(py, object)?.into_bound(py).into_any())
}

/// Makes an object that is an error: reading it raises what the hooks make of it.
#[pyfunction]
pub(crate) fn put_error(
    py: Python<'_>,
    kind: &str,
    name: &str,
    message: &str,
    payload: Vec<u8>,
) -> PyResult<Py<ObjectRef>> {
    let ray = current(py)?;
    let kind = if kind == "Cancelled" { TaskErrorKind::Cancelled } else { TaskErrorKind::Returned };
    let error = TaskError::foreign(kind, name, message, payload, true);
    let object = raylet_client::binding::put_error(&ray, &error);
    ObjectRef::of(py, object.map_err(|error| codec::refused(&error))?)
}

/// The value of a reference, or the values of a list of them; a hook is asked about anything else, and where
/// there is no session.
#[pyfunction]
#[pyo3(signature = (object_refs, *, timeout=None, writable=None))]
pub(crate) fn get<'py>(
    py: Python<'py>,
    object_refs: &Bound<'py, PyAny>,
    timeout: Option<f64>,
    writable: Option<&Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    if let (Some(ray), None) = (found(), writable) {
        let timeout = timeout.filter(|timeout| *timeout >= 0.0);
        if let Ok(one) = object_refs.cast_exact::<ObjectRef>() {
            return get_one(py, &ray, one.get(), limit(timeout)?);
        }
        if let Ok(list) = object_refs.cast_exact::<PyList>()
            && list.iter().all(|item| item.is_exact_instance_of::<ObjectRef>())
        {
            return get_all(py, &ray, list, timeout);
        }
    }
    Ok(hooks::hook(py, "get_other")?.call1((object_refs, timeout, writable))?.unbind())
}

/// The value of a reference with buffers that the program may write to: nobody else sees what it writes.
#[pyfunction]
#[pyo3(signature = (object, timeout=None))]
pub(crate) fn get_writable(py: Python<'_>, object: &Bound<'_, ObjectRef>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
    let (ray, raw) = (current(py)?, object.get().live(py)?);
    if !raw.is_ready() {
        wait_for(py, &ray, raw, &[], limit(timeout)?)?;
    }
    let found = py.detach(|| ray.object(raw, None)).map_err(|error| get_error(py, raw, &error))?;
    if found.encoding() == Encoding::Error {
        return value_of(py, &ray, raw);
    }
    codec::decode_private(py, found).map(Bound::unbind)
}

/// Until when; `None` without limit.
fn limit(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(timeout) = timeout else { return Ok(None) };
    let timeout = Duration::try_from_secs_f64(timeout.max(0.0));
    let timeout = timeout.map_err(|_| PyValueError::new_err("the timeout is no number of seconds"))?;
    Ok(Instant::now().checked_add(timeout))
}

#[inline]
fn get_one(py: Python<'_>, ray: &Raylet, one: &ObjectRef, until: Option<Instant>) -> PyResult<Py<PyAny>> {
    let raw = one.live(py)?;
    if !raw.is_ready() {
        wait_for(py, ray, raw, &[], until)?;
    }
    value_of(py, ray, raw)
}

/// The value of an object that has one, or its error.
pub(crate) fn value_of(py: Python<'_>, ray: &Raylet, raw: &RawRef) -> PyResult<Py<PyAny>> {
    let found = match raw.is_ready() {
        true => ray.object(raw, None),
        // On disk: to be read.
        false => py.detach(|| ray.object(raw, None)),
    };
    match found {
        Ok(object) if object.encoding() == Encoding::Error => {
            Err(hooks::exception_of(py, &TaskError::from_bytes(&object), &raw.id().to_string()))
        }
        Ok(object) => codec::decode(py, object).map(Bound::unbind),
        Err(error) => Err(get_error(py, raw, &error)),
    }
}

/// Has the package report the error of a result that nobody read.
#[cold]
pub(crate) fn report_unread(raw: RawRef) {
    if crate::worker::is_worker() {
        return;
    }
    backstage::run(move |py| {
        let Some(object) = found().and_then(|ray| ray.object(&raw, Some(Duration::ZERO)).ok()) else { return };
        let error = TaskError::from_bytes(&object);
        if let Err(error) = hooks::with_parts(py, "unhandled", &error, &raw.id().to_string()) {
            error.write_unraisable(py, None);
        }
    });
}

/// How many bytes an object has.
#[pyfunction]
pub(crate) fn size_of(py: Python<'_>, object: &Bound<'_, ObjectRef>) -> PyResult<u64> {
    Ok(object.get().live(py)?.size())
}

fn get_error(py: Python<'_>, raw: &RawRef, error: &GetError) -> PyErr {
    let kind = match error {
        GetError::RayletGone => "Shutdown",
        _ => "ObjectLost",
    };
    hooks::exception(py, kind, &error.to_string(), &raw.id().to_string())
}

fn look() -> Duration {
    if crate::worker::is_worker() { LOOK_WORKER } else { LOOK_DRIVER }
}

/// Waits for an object; where one of `others` has an error first, that is raised.
fn wait_for(
    py: Python<'_>,
    ray: &Raylet,
    raw: &RawRef,
    others: &[Bound<'_, ObjectRef>],
    until: Option<Instant>,
) -> PyResult<()> {
    let mut pause = if others.is_empty() { look() } else { LOOK_ERRORS };
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let objects = std::slice::from_ref(raw);
        let found = py.detach(|| ray.ready(objects, 1, Some(left.map_or(pause, |left| left.min(pause)))));
        if found.map_err(|error| get_error(py, raw, &error))?[0] {
            return Ok(());
        }
        py.check_signals()?;
        for other in others {
            let other = other.get().live(py)?;
            if other.is_ready() {
                fail_early(py, ray, other)?;
            }
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return Err(hooks::timed_out(py));
        }
        pause = look();
    }
}

fn get_all<'py>(py: Python<'py>, ray: &Raylet, list: &Bound<'py, PyList>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
    let until = limit(timeout)?;
    let refs: Vec<Bound<'py, ObjectRef>> =
        list.iter().map(|item| Ok(item.cast_into::<ObjectRef>()?)).collect::<PyResult<_>>()?;
    // Waits for the last ones last: mostly they are done by then.
    for (at, one) in refs.iter().enumerate() {
        let raw = one.get().live(py)?;
        if !raw.is_ready() {
            wait_for(py, ray, raw, &refs[at + 1..], until)?;
        }
        fail_early(py, ray, raw)?;
    }
    let values = refs.iter().map(|one| value_of(py, ray, one.get().live(py)?)).collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, values)?.into_any().unbind())
}

/// The error of an object that has one.
fn fail_early(py: Python<'_>, ray: &Raylet, raw: &RawRef) -> PyResult<()> {
    if raw.encoding() == Encoding::Error { value_of(py, ray, raw).map(drop) } else { Ok(()) }
}

/// Ready references and the others, in order; streams are ready when their next item is there. A hook is
/// asked about what is not a list of different references, of which there are as many.
#[pyfunction]
#[pyo3(signature = (ray_waitables, *, num_returns=1, timeout=None, fetch_local=true))]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    ray_waitables: &Bound<'py, PyAny>,
    num_returns: i64,
    timeout: Option<f64>,
    fetch_local: bool,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    if is_there()
        && timeout.is_none_or(|timeout| timeout >= 0.0)
        && let Ok(refs) = ray_waitables.cast_exact::<PyList>()
        && let Ok(wanted) = usize::try_from(num_returns)
        && (1..=refs.len()).contains(&wanted)
        && are_different(refs)
    {
        return match first_ready(refs, wanted)? {
            Some(split) => Ok(split),
            None => wait_for_any(py, refs, wanted, timeout),
        };
    }
    let other = hooks::hook(py, "wait_other")?.call1((ray_waitables, num_returns, timeout, fetch_local))?;
    other.extract()
}

/// Whether a list has nothing but references, each once. Mostly they stand in the order they were made in.
fn are_different(refs: &Bound<'_, PyList>) -> bool {
    let mut slots = Vec::with_capacity(refs.len());
    let mut is_ascending = true;
    for item in refs.iter() {
        let Ok(object) = item.cast_exact::<ObjectRef>() else { return false };
        let Some(object) = object.get().object().filter(|_| object.get().is_current()) else { return false };
        let handle = object.handle();
        is_ascending &= slots.last().is_none_or(|last| *last < (handle.slot, handle.generation));
        slots.push((handle.slot, handle.generation));
    }
    if !is_ascending {
        slots.sort_unstable();
    }
    is_ascending || slots.windows(2).all(|pair| pair[0] != pair[1])
}

/// The first so many that are ready, and the rest; `None` where there are not so many.
fn first_ready<'py>(
    refs: &Bound<'py, PyList>,
    wanted: usize,
) -> PyResult<Option<(Bound<'py, PyList>, Bound<'py, PyList>)>> {
    let ready = refs
        .iter()
        .enumerate()
        .filter(|(_, item)| item.cast_exact::<ObjectRef>().is_ok_and(|item| item.get().is_ready()));
    let at: Vec<usize> = ready.map(|(at, _)| at).take(wanted).collect();
    if at.len() < wanted {
        return Ok(None);
    }
    let taken = PyList::empty(refs.py());
    let rest = refs.get_slice(0, refs.len());
    for position in at.iter().rev() {
        rest.del_item(*position)?;
    }
    for position in at {
        taken.append(refs.get_item(position)?)?;
    }
    Ok(Some((taken, rest)))
}

/// As [`wait`], of references and streams.
#[pyfunction]
#[pyo3(signature = (refs, num_returns, timeout=None))]
pub(crate) fn wait_for_any<'py>(
    py: Python<'py>,
    refs: &Bound<'py, PyList>,
    num_returns: usize,
    timeout: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let ray = current(py)?;
    let until = limit(timeout)?;
    let awaited: Vec<Awaited<'py>> = refs.iter().map(|item| Awaited::of(py, item)).collect::<PyResult<_>>()?;
    loop {
        let is_ready: Vec<bool> = awaited.iter().map(Awaited::is_ready).collect();
        let count = is_ready.iter().filter(|ready| **ready).count();
        if count >= num_returns || until.is_some_and(|until| until <= Instant::now()) {
            return split(py, refs, &is_ready, num_returns);
        }
        let mut objects = Vec::new();
        for (one, is_ready) in awaited.iter().zip(&is_ready) {
            if !is_ready {
                one.objects(py, &mut objects)?;
            }
        }
        let pause = until.map_or(look(), |until| look().min(until.saturating_duration_since(Instant::now())));
        let more = (num_returns - count).min(objects.len());
        let found = py.detach(|| ray.ready(&objects, more, Some(pause)));
        found.map_err(|error| get_error(py, &objects[0], &error))?;
        py.check_signals()?;
    }
}

/// What `wait` waits for.
enum Awaited<'py> {
    Object(Bound<'py, ObjectRef>),
    Stream(Bound<'py, Stream>),
}

impl<'py> Awaited<'py> {
    fn of(py: Python<'py>, item: Bound<'py, PyAny>) -> PyResult<Awaited<'py>> {
        match item.cast_into::<ObjectRef>() {
            Ok(object) => {
                object.get().live(py)?;
                Ok(Awaited::Object(object))
            }
            Err(error) => Ok(Awaited::Stream(error.into_inner().getattr("_stream")?.cast_into::<Stream>()?)),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Awaited::Object(object) => object.get().is_ready(),
            Awaited::Stream(stream) => stream.get().is_next_ready(),
        }
    }

    fn objects(&self, py: Python<'_>, list: &mut Vec<RawRef>) -> PyResult<()> {
        match self {
            Awaited::Object(object) => list.push(object.get().live(py)?.clone()),
            Awaited::Stream(stream) => list.extend(stream.get().awaited()),
        }
        Ok(())
    }
}

fn split<'py>(
    py: Python<'py>,
    refs: &Bound<'py, PyList>,
    is_ready: &[bool],
    num_returns: usize,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let (ready, rest) = (PyList::empty(py), PyList::empty(py));
    let mut taken = 0;
    for (item, is_ready) in refs.iter().zip(is_ready) {
        if *is_ready && taken < num_returns {
            taken += 1;
            ready.append(item)?;
        } else {
            rest.append(item)?;
        }
    }
    Ok((ready, rest))
}

/// Whether a reference has a value or an error.
#[pyfunction]
pub(crate) fn is_ready(object: &Bound<'_, ObjectRef>) -> bool {
    object.get().is_ready()
}

/// Takes back the call that makes an object.
#[pyfunction]
pub(crate) fn cancel(py: Python<'_>, object: &Bound<'_, ObjectRef>, force: bool, recursive: bool) -> PyResult<()> {
    let (ray, raw) = (current(py)?, object.get().live(py)?.clone());
    py.detach(|| ray.cancel_object(&raw, CancelOptions { force, recursive }));
    Ok(())
}

/// Has something called when it is woken, once.
struct Callback(Mutex<Option<Py<PyAny>>>);

impl Wake for Callback {
    fn wake(self: Arc<Self>) {
        if let Some(callback) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            backstage::call(callback);
        }
    }
}

/// Calls `callback` from some thread as soon as the reference has a value: at once where it has one.
#[pyfunction]
pub(crate) fn on_ready(py: Python<'_>, object: &Bound<'_, ObjectRef>, callback: Py<PyAny>) -> PyResult<()> {
    let (ray, raw) = (current(py)?, object.get().live(py)?.clone());
    let waker = Waker::from(Arc::new(Callback(Mutex::new(Some(callback)))));
    if !py.detach(|| ray.wake_when_ready(&raw, &waker)) {
        waker.wake();
    }
    Ok(())
}
