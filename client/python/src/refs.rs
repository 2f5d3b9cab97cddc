//! References to objects as Python sees them, and how they travel inside values.
//!
//! The one thing to know: while a value is pickled, the references met are collected, its object lists
//! them before it is sealed, and in the pickle stands only which entry it is; while a value is read that
//! list is at hand. So a reference never travels without a holder. A program that pickles one by itself
//! gets a form that names the object, which this process then keeps to the end of its session. This file
//! must not know how values are laid out, nor wait for any.

use crate::hooks;
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyGenericAlias, PyTuple, PyType};
use raylet_client::binding;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use store::{Encoding, Handle, ObjectId, ObjectRef as RawRef};

const ID_BYTES: usize = ObjectId::BYTES;
const NIL: [u8; ID_BYTES] = [0xff; ID_BYTES];
/// Of a task's id, which the object's begins with, and of the job's in it.
const TASK: std::ops::Range<usize> = 0..24;
const JOB: std::ops::Range<usize> = 20..24;
/// No object of the store has it: the handle of an id alone.
const NOWHERE: (u32, u64) = (u32::MAX, 0);

/// A reference to a value that stands, or will: hashable, comparable, and good for pickling.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct ObjectRef {
    target: Target,
    /// The number of the session that it is of.
    session: u64,
    /// It is the one that a call returned, and nobody has looked what became of it.
    is_unread: AtomicBool,
}

enum Target {
    /// Counted: the object lives as long as this does.
    Live(RawRef),
    /// An id alone: of nothing, or of an object that nobody here knows.
    Named(Box<[u8; ID_BYTES]>),
}

impl ObjectRef {
    /// A reference that Python owns from now on.
    #[inline]
    pub(crate) fn of(py: Python<'_>, object: RawRef) -> PyResult<Py<ObjectRef>> {
        Py::new(py, ObjectRef::live_one(object))
    }

    #[inline]
    fn live_one(object: RawRef) -> ObjectRef {
        let (session, is_unread) = (crate::session::number(), AtomicBool::new(false));
        ObjectRef { target: Target::Live(object), session, is_unread }
    }

    /// The reference that a call returns: an error that nobody reads is reported.
    #[inline]
    pub(crate) fn of_result(py: Python<'_>, object: RawRef) -> PyResult<Py<ObjectRef>> {
        let made = ObjectRef::live_one(object);
        made.is_unread.store(true, Ordering::Relaxed);
        Py::new(py, made)
    }

    fn named(id: [u8; ID_BYTES]) -> ObjectRef {
        let (session, is_unread) = (crate::session::number(), AtomicBool::new(false));
        ObjectRef { target: Target::Named(Box::new(id)), session, is_unread }
    }

    /// The object, where this is more than an id.
    #[inline]
    pub(crate) fn object(&self) -> Option<&RawRef> {
        match &self.target {
            Target::Live(object) => Some(object),
            Target::Named(_) => None,
        }
    }

    /// The object; of an id alone the error that it is lost, as `get` raises it.
    #[inline]
    pub(crate) fn live(&self, py: Python<'_>) -> PyResult<&RawRef> {
        self.is_unread.store(false, Ordering::Relaxed);
        if self.session != crate::session::number() {
            return Err(crate::hooks::exception(py, "Shutdown", "the reference is of an earlier session", &self.hex()));
        }
        self.object().ok_or_else(|| self.lost(py))
    }

    #[cold]
    fn lost(&self, py: Python<'_>) -> PyErr {
        let id = self.hex();
        hooks::exception(py, "ObjectLost", &format!("nobody in this session knows object {id}"), &id)
    }

    /// Whether it is of the session that there is.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.session == crate::session::number()
    }

    /// Whether there is a value, or an error.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.object().is_none_or(RawRef::is_ready)
    }

    /// The 28 bytes of the id.
    pub(crate) fn id_bytes(&self) -> [u8; ID_BYTES] {
        match &self.target {
            Target::Live(object) => *object.id().as_bytes(),
            Target::Named(id) => **id,
        }
    }

    /// What an id names in this session: the object while somebody has it, else the id.
    fn find(id: [u8; ID_BYTES]) -> ObjectRef {
        let session = crate::session::found();
        let found = session.and_then(|ray| ray.store().search(&ObjectId::new(id)));
        found.map_or_else(|| ObjectRef::named(id), ObjectRef::live_one)
    }
}

impl Drop for ObjectRef {
    fn drop(&mut self) {
        if let (true, Target::Live(object)) = (self.is_unread.load(Ordering::Relaxed), &self.target)
            && self.session == crate::session::number()
            && object.is_ready()
            && object.encoding() == Encoding::Error
        {
            crate::session::report_unread(object.clone());
        }
    }
}

fn id_of(bytes: &[u8]) -> PyResult<[u8; ID_BYTES]> {
    let message = || format!("ID string needs to have length {ID_BYTES}, got {}", bytes.len());
    bytes.try_into().map_err(|_| PyValueError::new_err(message()))
}

#[pymethods]
impl ObjectRef {
    /// Of an id; what follows it in Ray's own constructor says nothing here.
    #[new]
    #[pyo3(signature = (id, *_ignored, **_ignored_too))]
    fn new(
        id: &[u8],
        _ignored: &Bound<'_, PyTuple>,
        _ignored_too: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<ObjectRef> {
        Ok(ObjectRef::find(id_of(id)?))
    }

    #[classmethod]
    fn from_binary(_class: &Bound<'_, PyType>, id: &[u8]) -> PyResult<ObjectRef> {
        Ok(ObjectRef::find(id_of(id)?))
    }

    #[classmethod]
    fn from_hex(class: &Bound<'_, PyType>, text: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
        let id = class.py().get_type::<PyBytes>().call_method1(intern!(class.py(), "fromhex"), (text,))?;
        Ok(ObjectRef::find(id_of(id.cast::<PyBytes>()?.as_bytes())?))
    }

    #[classmethod]
    fn from_random(class: &Bound<'_, PyType>) -> PyResult<ObjectRef> {
        let random = class.py().import("os")?.call_method1("urandom", (ID_BYTES,))?;
        Ok(ObjectRef::named(id_of(random.cast::<PyBytes>()?.as_bytes())?))
    }

    #[classmethod]
    fn nil(_class: &Bound<'_, PyType>) -> ObjectRef {
        ObjectRef::named(NIL)
    }

    #[classmethod]
    fn size(_class: &Bound<'_, PyType>) -> usize {
        ID_BYTES
    }

    fn is_nil(&self) -> bool {
        self.id_bytes() == NIL
    }

    fn binary<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id_bytes())
    }

    fn hex(&self) -> String {
        self.id_bytes().iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(|half| DIGITS[usize::from(half)]).collect()
    }

    fn task_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id_bytes()[TASK])
    }

    fn job_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id_bytes()[JOB])
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.id_bytes().hash(&mut hasher);
        hasher.finish()
    }

    fn __eq__(&self, other: &ObjectRef) -> bool {
        self.id_bytes() == other.id_bytes()
    }

    fn __repr__(&self) -> String {
        format!("ObjectRef({})", self.hex())
    }

    /// As an entry of the list of the object that is being made; outside of one, by name.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let native = py.import(intern!(py, "raylet._native"))?;
        self.is_unread.store(false, Ordering::Relaxed);
        if let Some(position) = self.object().and_then(collect) {
            return Ok((native.getattr(intern!(py, "_received"))?, (position,).into_pyobject(py)?));
        }
        let session = crate::session::name();
        let ((slot, generation), id) = (self.keep(py)?, self.binary(py));
        Ok((native.getattr(intern!(py, "_out_of_band"))?, (slot, generation, id, session).into_pyobject(py)?))
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyGenericAlias>> {
        PyGenericAlias::new(class.py(), class, item)
    }

    fn future<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        hooks::hook(slf.py(), "ref_future")?.call1((&slf,))
    }

    fn __await__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        hooks::hook(slf.py(), "ref_await")?.call1((&slf,))
    }

    #[pyo3(signature = (_internal = false))]
    fn as_future<'py>(slf: Bound<'py, Self>, _internal: bool) -> PyResult<Bound<'py, PyAny>> {
        hooks::hook(slf.py(), "ref_as_future")?.call1((&slf,))
    }

    fn _on_completed<'py>(slf: Bound<'py, Self>, callback: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        hooks::hook(slf.py(), "ref_on_completed")?.call1((&slf, callback))
    }

    /// Everything here is owned by the store.
    fn owner_address<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, b"")
    }

    /// Where references are made is not recorded.
    fn call_site<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, b"")
    }
}

const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// What programs pickled by themselves: kept to the end of the session, as nobody knows who reads it.
static KEPT: Mutex<Option<HashMap<ObjectId, RawRef>>> = Mutex::new(None);

impl ObjectRef {
    /// Keeps the object for whoever reads its name; where it is.
    fn keep(&self, py: Python<'_>) -> PyResult<(u32, u64)> {
        let Some(object) = self.object().filter(|_| self.is_current()) else { return Ok(NOWHERE) };
        let Handle { slot, generation } = object.handle();
        let is_first = {
            let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = kept.is_none();
            kept.get_or_insert_default().entry(object.id()).or_insert_with(|| object.clone());
            is_first
        };
        if is_first {
            let message = c"an ObjectRef was pickled by itself: as nobody can tell who reads the bytes, this process \
                keeps the object until the session ends. Put, pass or return what holds the reference instead.";
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), message, 1)?;
        }
        Ok((slot, generation))
    }
}

/// Lets go of what was pickled by hand; a session that ends calls it.
pub(crate) fn forget_kept() {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(kept);
}

/// What a value that is read may name: where each reference is in the object's list, and the list.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) positions: Vec<u32>,
    pub(crate) listed: Vec<RawRef>,
}

thread_local! {
    /// What the value that is being written names so far.
    static SENT: RefCell<Option<Vec<RawRef>>> = const { RefCell::new(None) };
    /// What the value that is being read may name.
    static RECEIVED: RefCell<Option<Received>> = const { RefCell::new(None) };
}

/// Runs `write`, and gives the references that it met.
pub(crate) fn sending<R>(write: impl FnOnce() -> R) -> (R, Vec<RawRef>) {
    binding::gathered(&SENT, write)
}

/// Runs `read`, for which these are the references of its object.
pub(crate) fn receiving<R>(received: Received, read: impl FnOnce() -> R) -> R {
    binding::within(&RECEIVED, received, read)
}

/// Adds `object` to what the value that this thread writes names; which entry it is. `None`: no value is
/// being written.
pub(crate) fn collect(object: &RawRef) -> Option<usize> {
    SENT.with_borrow_mut(|sent| {
        let list = sent.as_mut()?;
        list.push(object.clone());
        Some(list.len() - 1)
    })
}

/// The object of an entry of the value that this thread reads; `None` where it has no such entry.
pub(crate) fn received(index: usize) -> Option<RawRef> {
    RECEIVED.with_borrow(|received| {
        let received = received.as_ref()?;
        received.listed.get(*received.positions.get(index)? as usize).cloned()
    })
}

#[pyfunction]
fn _received(py: Python<'_>, index: usize) -> PyResult<Py<ObjectRef>> {
    let missing = || PyValueError::new_err("the value names a reference that its object does not list");
    ObjectRef::of(py, received(index).ok_or_else(missing)?)
}

/// A reference that was pickled by hand: the object while it lives in this session, else its id.
#[pyfunction]
fn _out_of_band(slot: u32, generation: u64, id: &[u8], session: &str) -> PyResult<ObjectRef> {
    let id = id_of(id)?;
    // Another session has other objects of the same ids.
    let ours = crate::session::found().filter(|_| crate::session::name() == session);
    let found = ours.and_then(|ray| ray.store().refer(Handle { slot, generation }));
    let same = found.filter(|object| *object.id().as_bytes() == id);
    Ok(same.map_or_else(|| ObjectRef::named(id), ObjectRef::live_one))
}

/// Adds the class and what pickles of it call.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ObjectRef>()?;
    module.add_function(wrap_pyfunction!(_received, module)?)?;
    module.add_function(wrap_pyfunction!(_out_of_band, module)?)
}
