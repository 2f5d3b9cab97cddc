//! Calls as programs make them: functions and methods that are prepared once and submitted often, and
//! handles of actors.
//!
//! The one thing to know: a [`Caller`] is what `f.remote` is. Once it is prepared for the session a
//! call binds its positional arguments by their number, packs them and submits, all without a line of
//! Python; keyword arguments and wrong numbers go to the function that was given for that. This file must not
//! know options by Ray's names.
//!
//! What a call's arguments begin with:
//!
//! ```text
//! flags u8
//!   DEFINITION  slot u32, generation u64   of the object that the function is defined by
//!   AHEAD       u32                        items that a stream may run ahead of its reader
//!   GROUP       length u8, text            the concurrency group
//! then the arguments as the codec packs them
//! ```

use crate::codec;
use crate::hooks;
use crate::refs::ObjectRef;
use crate::session::{self, item};
use crate::stream::Stream;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use raylet_client::binding::{ActorWish, Callable, ForeignActor, MethodWish, ResultRefs, key};
use raylet_client::{GroupError, Options, Raylet, Strategy, SubmitError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use store::{Handle, ObjectRef as RawRef};

pub(crate) const DEFINITION: u8 = 1;
pub(crate) const AHEAD: u8 = 2;
pub(crate) const GROUP: u8 = 4;
/// The number of results that means a stream.
const STREAMING: i64 = -1;
/// The largest number of arguments that means any.
const ANY: i64 = -1;

/// What a call is submitted to.
enum Target {
    Function(Callable),
    Method(Py<ActorCore>, MethodWish),
}

/// A caller that is prepared for one session.
struct Prepared {
    session: u64,
    ray: Raylet,
    target: Target,
    name: String,
    header: Vec<u8>,
    positional: (usize, i64),
    bind: Option<Py<PyAny>>,
    results: i64,
}

/// Submits calls of one function or method: what `f.remote` is.
#[pyclass(frozen, weakref, module = "raylet._native")]
pub(crate) struct Caller {
    prepare: Option<Py<PyAny>>,
    prepared: RwLock<Option<Arc<Prepared>>>,
}

#[pymethods]
impl Caller {
    #[new]
    fn new(prepare: Py<PyAny>) -> Caller {
        Caller { prepare: Some(prepare), prepared: RwLock::new(None) }
    }

    /// Prepares it for this session.
    #[pyo3(signature = (key, name, definition, options, positional, bind, num_returns, stream_ahead=None))]
    #[allow(clippy::too_many_arguments, reason = "the package calls it by names")]
    fn set(
        &self,
        py: Python<'_>,
        key: u64,
        name: String,
        definition: Py<ObjectRef>,
        options: &Bound<'_, PyDict>,
        positional: (usize, i64),
        bind: Option<Py<PyAny>>,
        num_returns: i64,
        stream_ahead: Option<u32>,
    ) -> PyResult<()> {
        let ray = session::current(py)?;
        let group = options.get_item("group")?.map_or(Ok(0), |group| group.extract())?;
        let callable = ray.callable(key, options_of(py, options, "resources")?, group);
        let callable = callable.map_err(|error| submit_error(py, &error))?;
        ray.name_callable(key, &name);
        let handle = keep_definition(key, definition.get().live(py)?);
        let header = header(Some(handle), stream_ahead, None)?;
        let target = Target::Function(callable);
        let session = session::number();
        let results = num_returns;
        let prepared = Prepared { session, ray, target, name, header, positional, bind, results };
        *self.prepared.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(prepared));
        Ok(())
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        submit(slf, args, kwargs)
    }

    /// The same as calling it.
    fn call<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        submit(slf, args, kwargs)
    }
}

impl Caller {
    #[inline]
    fn ready(&self) -> Option<Arc<Prepared>> {
        let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
        prepared.as_ref().filter(|prepared| prepared.session == session::number()).cloned()
    }

    /// Has itself prepared; or gives what is to be called instead.
    #[cold]
    fn prepare<'py>(slf: &Bound<'py, Self>) -> PyResult<Result<Arc<Prepared>, Bound<'py, PyAny>>> {
        let this = slf.get();
        if let Some(prepare) = &this.prepare {
            let instead = prepare.bind(slf.py()).call1((slf,))?;
            if !instead.is_none() {
                return Ok(Err(instead));
            }
        }
        let ready = this.ready();
        ready.map(Ok).ok_or_else(|| hooks::exception(slf.py(), "Shutdown", "a handle of an earlier session", ""))
    }
}

fn submit<'py>(
    slf: &Bound<'py, Caller>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let py = slf.py();
    let prepared = match slf.get().ready() {
        Some(prepared) => prepared,
        None => match Caller::prepare(slf)? {
            Ok(prepared) => prepared,
            Err(instead) => return Ok(instead.call(args, kwargs)?.unbind()),
        },
    };
    prepared.check(py, args, kwargs)?;
    let arguments =
        codec::encode_arguments(py, args, kwargs, &prepared.ray, &prepared.name, &prepared.header)?.packed();
    let is_stream = prepared.results == STREAMING;
    let count = if is_stream { 2 } else { prepared.results.max(0) as usize };
    let submitted = match &prepared.target {
        Target::Function(callable) => prepared.ray.call(callable, arguments, count, is_stream),
        Target::Method(actor, method) => {
            prepared.ray.call_method(&actor.get().actor, method, arguments, count, is_stream)
        }
    };
    let results = submitted.map_err(|error| submit_error(py, &error))?;
    prepared.hand_out(py, results)
}

impl Prepared {
    #[inline]
    fn check(&self, py: Python<'_>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let (min, max) = self.positional;
        let count = args.len();
        let fits = count >= min && (max == ANY || count as i64 <= max);
        match &self.bind {
            Some(bind) if !fits || kwargs.is_some_and(|kwargs| !kwargs.is_empty()) => {
                bind.call1(py, (args, kwargs.map_or_else(|| PyDict::new(py), Clone::clone))).map(drop)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn hand_out(&self, py: Python<'_>, results: ResultRefs) -> PyResult<Py<PyAny>> {
        match (self.results, results) {
            (STREAMING, results) => {
                let stream = Bound::new(py, Stream::new(self.ray.stream(results)))?;
                Ok(hooks::hook(py, "make_generator")?.call1((stream,))?.unbind())
            }
            (_, ResultRefs::One(one)) => Ok(ObjectRef::of_result(py, one)?.into_any()),
            (0, _) => Ok(py.None()),
            (_, ResultRefs::Many(many)) => {
                let refs = many.into_iter().map(|one| ObjectRef::of_result(py, one)).collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, refs)?.into_any().unbind())
            }
        }
    }
}

/// The definitions of functions, by the number of their session.
static DEFINITIONS: Mutex<(u64, BTreeMap<u64, RawRef>)> = Mutex::new((0, BTreeMap::new()));

/// Keeps what a key is defined by to the end of the session, as calls of it may be queued whoever still has the
/// function; where that is.
fn keep_definition(key: u64, definition: &RawRef) -> Handle {
    let mut definitions = DEFINITIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if definitions.0 != session::number() {
        *definitions = (session::number(), BTreeMap::new());
    }
    definitions.1.entry(key).or_insert_with(|| definition.clone()).handle()
}

/// Lets go of all definitions; a session that ends calls it.
pub(crate) fn forget_definitions() {
    let before = std::mem::take(&mut DEFINITIONS.lock().unwrap_or_else(PoisonError::into_inner).1);
    drop(before);
}

fn header(definition: Option<Handle>, ahead: Option<u32>, group: Option<&str>) -> PyResult<Vec<u8>> {
    let mut bytes = vec![0];
    if let Some(Handle { slot, generation }) = definition {
        bytes[0] |= DEFINITION;
        bytes.extend(slot.to_le_bytes());
        bytes.extend(generation.to_le_bytes());
    }
    if let Some(ahead) = ahead {
        bytes[0] |= AHEAD;
        bytes.extend(ahead.to_le_bytes());
    }
    if let Some(group) = group {
        let length = u8::try_from(group.len());
        let length =
            length.map_err(|_| PyValueError::new_err("the name of a concurrency group has at most 255 bytes"))?;
        bytes[0] |= GROUP;
        bytes.push(length);
        bytes.extend(group.as_bytes());
    }
    Ok(bytes)
}

/// An error of a submission, as a program sees it.
#[cold]
pub(crate) fn submit_error(py: Python<'_>, error: &SubmitError) -> PyErr {
    let text = error.to_string();
    match error {
        SubmitError::RayletGone | SubmitError::NoAnswer { .. } => hooks::exception(py, "Shutdown", &text, ""),
        SubmitError::NameTaken { name } => {
            let made = hooks::hook(py, "name_taken").and_then(|hook| hook.call1((name,)));
            made.map_or_else(|error| error, PyErr::from_value)
        }
        SubmitError::Create(error) => codec::refused(error),
        SubmitError::Options(_) => PyValueError::new_err(text),
        SubmitError::Forked => hooks::exception(py, "Forked", &text, ""),
        SubmitError::Refused { .. } => hooks::exception(py, "Refused", &text, ""),
        _ => PyRuntimeError::new_err(text),
    }
}

/// The options that a dict says; its resources are under the name `resources`.
fn options_of(py: Python<'_>, given: &Bound<'_, PyDict>, resources: &str) -> PyResult<Options> {
    let mut options = Options::new();
    for (name, amount) in item::<BTreeMap<String, f64>>(given, resources)?.unwrap_or_default() {
        options = options.resource(name, amount);
    }
    if let Some(bytes) = item::<u64>(given, "memory")? {
        options = options.memory_bytes(bytes);
    }
    type Set = fn(Options, i32) -> Options;
    let counts: [(&str, Set); 3] = [
        ("max_retries", Options::max_retries),
        ("max_restarts", Options::max_restarts),
        ("max_task_retries", Options::max_task_retries),
    ];
    for (name, set) in counts {
        if let Some(count) = item::<i64>(given, name)? {
            options = set(options, count.clamp(-1, i64::from(i32::MAX)) as i32);
        }
    }
    if let Some(is_wanted) = item::<bool>(given, "retry_errors")? {
        options = options.retry_exceptions(is_wanted);
    }
    if let Some(count) = item::<u32>(given, "max_calls")?.filter(|count| *count > 0) {
        options = options.max_calls(count);
    }
    if let Some(count) = item::<u32>(given, "max_concurrency")? {
        options = options.max_concurrency(count.max(1));
    }
    if let Some(limit) = item::<f64>(given, "timeout")? {
        options = options.timeout(Duration::from_secs_f64(limit.clamp(0.0, 1e9)));
    }
    if let Some(name) = item::<String>(given, "transport")? {
        options = options.transport(session::transport(&name)?);
    }
    // False is no group, also where the running task would lend its own.
    let is_placed = given.get_item("placement")?.is_some_and(|place| place.is_truthy().unwrap_or(false));
    if is_placed && let Some((group, bundle)) = item::<(Py<ObjectRef>, i64)>(given, "placement")? {
        options = options.placed(group.get().live(py)?.handle(), u32::try_from(bundle).ok());
    }
    Ok(options)
}

/// Makes an actor; returns at once.
#[pyfunction]
pub(crate) fn create_actor<'py>(
    py: Python<'py>,
    key: u64,
    name: String,
    definition: Py<ObjectRef>,
    options: &Bound<'py, PyDict>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<ActorCore> {
    let ray = session::current(py)?;
    let mut held = options_of(py, options, "resources")?;
    let placing = match options.contains("placing")? {
        true => Some(options_of(py, options, "placing")?),
        false => None,
    };
    if let Some(name) = item::<String>(options, "name")? {
        held = held.name(name);
    }
    if item::<bool>(options, "is_detached")?.unwrap_or(false) {
        held = held.detached();
    }
    if item::<bool>(options, "get_if_exists")?.unwrap_or(false) {
        held = held.get_if_exists();
    }
    let about = definition.get().live(py)?.clone();
    let header = header(Some(about.handle()), None, None)?;
    let arguments = codec::encode_arguments(py, args, kwargs, &ray, &name, &header)?.packed();
    let namespace = item(options, "namespace")?;
    let wish = ActorWish { key, class: name, options: held, placing, namespace, about: Some(about) };
    let made = py.detach(|| ray.make_actor(&wish, arguments));
    Ok(ActorCore::new(made.map_err(|error| submit_error(py, &error))?))
}

/// The living actor of a name.
#[pyfunction]
#[pyo3(signature = (name, namespace=None))]
pub(crate) fn find_actor(py: Python<'_>, name: &str, namespace: Option<&str>) -> PyResult<Option<ActorCore>> {
    let ray = session::current(py)?;
    Ok(py.detach(|| ray.find_foreign(name, namespace)).map(ActorCore::new))
}

/// A handle of an actor, which lives while there are any.
#[pyclass(frozen, weakref, module = "raylet._native")]
pub(crate) struct ActorCore {
    actor: ForeignActor,
    session: u64,
}

impl ActorCore {
    pub(crate) fn new(actor: ForeignActor) -> ActorCore {
        ActorCore { actor, session: session::number() }
    }

    /// Of an anchor that came inside a value.
    pub(crate) fn of_anchor(py: Python<'_>, anchor: RawRef) -> PyResult<ActorCore> {
        Ok(ActorCore::new(ForeignActor::of(&session::current(py)?, anchor)))
    }
}

/// The 16 bytes of an actor's id, which its anchor's id holds.
pub(crate) fn actor_id(anchor: &RawRef) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&anchor.id().as_bytes()[8..24]);
    id
}

#[pymethods]
impl ActorCore {
    /// The 16 bytes that name it.
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &actor_id(self.actor.anchor()))
    }

    /// What its maker said about it.
    fn info(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let about = py.detach(|| self.actor.about());
        let gone = || hooks::exception(py, "ActorDied", "its definition is gone", "");
        let about = about.map_err(|_| gone())?.ok_or_else(gone)?;
        session::value_of(py, self.actor.ray(), &about)
    }

    /// Ends it now; `no_restart` for good.
    fn kill(&self, py: Python<'_>, no_restart: bool) {
        py.detach(|| self.actor.kill(no_restart));
    }

    /// What submits calls of a method.
    #[pyo3(signature = (name, options, positional, bind, num_returns, stream_ahead=None))]
    #[allow(clippy::too_many_arguments, reason = "the package calls it by names")]
    fn method(
        slf: &Bound<'_, Self>,
        name: &str,
        options: &Bound<'_, PyDict>,
        positional: (usize, i64),
        bind: Option<Py<PyAny>>,
        num_returns: i64,
        stream_ahead: Option<u32>,
    ) -> PyResult<Caller> {
        let (py, this) = (slf.py(), slf.get());
        let group: Option<String> = item(options, "concurrency_group")?;
        let has_options = ["max_task_retries", "retry_errors", "timeout"].iter().try_fold(false, |any, name| {
            Ok::<bool, PyErr>(any || options.get_item(name)?.is_some_and(|value| !value.is_none()))
        })?;
        let asked = if has_options { Some(options_of(py, options, "resources")?) } else { None };
        let method = MethodWish { key: key(name), options: asked };
        this.actor.ray().name_callable(method.key, name);
        let shown: Option<String> = item(options, "name")?;
        let name = shown.unwrap_or_else(|| name.to_owned());
        let header = header(None, stream_ahead, group.as_deref())?;
        let prepared = Prepared {
            session: this.session,
            ray: this.actor.ray().clone(),
            target: Target::Method(slf.clone().unbind(), method),
            name,
            header,
            positional,
            bind,
            results: num_returns,
        };
        Ok(Caller { prepare: None, prepared: RwLock::new(Some(Arc::new(prepared))) })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let anchor = ObjectRef::of(py, self.actor.anchor().clone())?;
        let received = py.import("raylet._native")?.getattr("_received_actor")?;
        Ok((received, PyTuple::new(py, [anchor])?))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<ActorCore>().is_ok_and(|other| {
            other.get().actor.anchor().handle() == self.actor.anchor().handle() && other.get().session == self.session
        })
    }

    fn __hash__(&self) -> u64 {
        let Handle { slot, generation } = self.actor.anchor().handle();
        generation.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(slot)
    }
}

/// A handle that came inside a value: of the reference to its anchor.
#[pyfunction]
pub(crate) fn _received_actor(anchor: &Bound<'_, ObjectRef>) -> PyResult<ActorCore> {
    ActorCore::of_anchor(anchor.py(), anchor.get().live(anchor.py())?.clone())
}

/// Reserves bundles of resources; a reference that has a value when they are.
#[pyfunction]
pub(crate) fn placement_group(
    py: Python<'_>,
    bundles: Vec<BTreeMap<String, f64>>,
    strategy: &str,
    name: &str,
    is_detached: bool,
) -> PyResult<Py<ObjectRef>> {
    let ray = session::current(py)?;
    let unknown = || PyValueError::new_err(format!("{strategy:?} is no strategy of placement groups"));
    let strategy = Strategy::of_name(strategy).ok_or_else(unknown)?;
    let amounts = |bundle: BTreeMap<String, f64>| {
        bundle.into_iter().fold(Options::new(), |options, (name, amount)| match name.as_str() {
            "memory" => options.memory_bytes(amount as u64),
            _ => options.resource(name, amount),
        })
    };
    let bundles: Vec<Options> = bundles.into_iter().map(amounts).collect();
    let made = py.detach(|| ray.reserve(&bundles, strategy, name, is_detached));
    ObjectRef::of(py, made.map_err(|error| group_error(py, &error))?)
}

/// Gives a placement group's resources back and ends what runs in it.
#[pyfunction]
pub(crate) fn remove_placement_group(py: Python<'_>, group: &Bound<'_, ObjectRef>) -> PyResult<()> {
    let (ray, group) = (session::current(py)?, group.get().live(py)?.clone());
    py.detach(|| ray.unreserve(&group)).map_err(|error| group_error(py, &error))
}

/// What no group can be is a bad value; the rest is as with any call.
#[cold]
fn group_error(py: Python<'_>, error: &GroupError) -> PyErr {
    match error {
        GroupError::Submit(error) if !matches!(error, SubmitError::Refused { .. }) => submit_error(py, error),
        error => PyValueError::new_err(error.to_string()),
    }
}
