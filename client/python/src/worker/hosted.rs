//! Calls that an actor hosts itself: on threads of a pool, or in event loops.
//!
//! The one thing to know: whoever has a [`HostedCall`] ends it, once. A loop finds its calls in a
//! [`CallInbox`], whose descriptor it watches, and reads their arguments there; so the thread that claims
//! calls never waits for the interpreter, nor the loop for it. From the claim on a call can be cancelled:
//! by its first result it is known here. This file must not know what a call runs.

use super::*;
use nix::sys::eventfd::{EfdFlags, EventFd};
use raylet_client::binding::Handed;
use std::os::fd::{AsFd, AsRawFd};

/// The calls that are not over, by their first result; nothing where this process hosts none.
static HOSTED: Mutex<Option<HashMap<Handle, Known>>> = Mutex::new(None);

/// A call that may be cancelled.
enum Known {
    /// It waits in an inbox.
    Waiting {
        is_cancelled: bool,
    },
    Taken(Py<HostedCall>),
}

/// This process hosts calls from now on.
pub(super) fn begin() {
    *lock(&HOSTED) = Some(HashMap::new());
}

pub(super) fn is_hosting() -> bool {
    lock(&HOSTED).is_some()
}

/// Cancels a call of the hosting actor that this process is, if it is under way.
pub(super) fn cancel(py: Python<'_>, result: Handle) {
    let call = match lock(&HOSTED).as_mut().and_then(|calls| calls.get_mut(&result)) {
        Some(Known::Waiting { is_cancelled }) => {
            *is_cancelled = true;
            None
        }
        Some(Known::Taken(call)) => Some(call.clone_ref(py)),
        None => None,
    };
    if let Some(call) = call {
        call.get().cancel(py);
    }
}

fn register(py: Python<'_>, result: Option<Handle>, call: &Py<HostedCall>) {
    let (Some(result), Some(calls)) = (result, &mut *lock(&HOSTED)) else { return };
    let before = calls.insert(result, Known::Taken(call.clone_ref(py)));
    let is_cancelled = matches!(before, Some(Known::Waiting { is_cancelled: true }));
    call.get().is_cancelled.store(is_cancelled, Ordering::SeqCst);
}

fn forget(result: Option<Handle>) {
    let gone = result.and_then(|result| lock(&HOSTED).as_mut()?.remove(&result));
    // A call may be dropped with it, which may take the lock.
    drop(gone);
}

/// Calls that wait for an event loop. Its descriptor can be read while there are any.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct CallInbox {
    calls: Mutex<Vec<Handed>>,
    bell: EventFd,
}

impl CallInbox {
    /// Puts calls in, in order. Whoever finds it empty rings.
    pub(super) fn put(&self, calls: Vec<Handed>) {
        if calls.is_empty() {
            return;
        }
        if let Some(known) = &mut *lock(&HOSTED) {
            let waiting = |result| (result, Known::Waiting { is_cancelled: false });
            known.extend(calls.iter().filter_map(|call| call.running().result).map(waiting));
        }
        let was_empty = {
            let mut inside = lock(&self.calls);
            let was_empty = inside.is_empty();
            inside.extend(calls);
            was_empty
        };
        if was_empty {
            // It holds one ring and more.
            let _ = self.bell.write(1);
        }
    }
}

#[pymethods]
impl CallInbox {
    #[new]
    fn new() -> PyResult<CallInbox> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let bell = bell.map_err(std::io::Error::from)?;
        Ok(CallInbox { calls: Mutex::new(Vec::new()), bell })
    }

    /// What an event loop watches.
    fn fileno(&self) -> i32 {
        self.bell.as_fd().as_raw_fd()
    }

    /// The calls that wait, in order.
    fn take(&self, py: Python<'_>) -> Vec<Py<HostedCall>> {
        // Quiet before it is emptied: what comes between the two rings again. There may have been no ring.
        let _ = self.bell.read();
        let calls = std::mem::take(&mut *lock(&self.calls));
        calls.into_iter().filter_map(|call| HostedCall::of(py, call)).collect()
    }
}

/// A call of a hosting actor: whoever has it ends it, once.
#[pyclass(frozen, module = "raylet._native")]
pub(crate) struct HostedCall {
    handed: Mutex<Option<Handed>>,
    result: Option<Handle>,
    #[pyo3(get)]
    name: &'static str,
    #[pyo3(get)]
    args: Py<PyTuple>,
    #[pyo3(get)]
    kwargs: Option<Py<PyDict>>,
    #[pyo3(get)]
    group: Option<String>,
    #[pyo3(get)]
    is_stream: bool,
    #[pyo3(get)]
    num_returns: usize,
    #[pyo3(get)]
    attempt: u32,
    ahead: Option<u32>,
    is_cancelled: AtomicBool,
    on_cancel: Mutex<Option<Py<PyAny>>>,
}

impl HostedCall {
    /// A call whose arguments can be read, which somebody may cancel from now on; another one ends here.
    pub(super) fn of(py: Python<'_>, handed: Handed) -> Option<Py<HostedCall>> {
        let result = handed.running().result;
        let made = match HostedCall::read(py, &handed) {
            Ok(call) => Py::new(py, call),
            Err(error) => Err(error),
        };
        match made {
            Ok(call) => {
                *lock(&call.get().handed) = Some(handed);
                register(py, result, &call);
                Some(call)
            }
            Err(error) => {
                forget(result);
                let error = described(py, &error, handed.name(), None);
                handed.finish(|_, _| Err(error));
                None
            }
        }
    }

    /// What a call says; itself it is put in later.
    fn read(py: Python<'_>, handed: &Handed) -> PyResult<HostedCall> {
        let running = handed.running();
        let unreadable = || PyRuntimeError::new_err("the call does not begin as calls do");
        let (header, arguments) = Header::read(running.arguments).ok_or_else(unreadable)?;
        let (args, kwargs) = arguments_of(py, arguments, &running)?;
        Ok(HostedCall {
            handed: Mutex::new(None),
            result: running.result,
            name: handed.name(),
            args: args.unbind(),
            kwargs: kwargs.map(Bound::unbind),
            group: header.group.map(str::to_owned),
            is_stream: running.is_stream,
            num_returns: running.results,
            attempt: running.attempt,
            ahead: header.ahead,
            is_cancelled: AtomicBool::new(false),
            on_cancel: Mutex::new(None),
        })
    }

    fn cancel(&self, py: Python<'_>) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        let callback = lock(&self.on_cancel).take();
        if let Some(error) = callback.and_then(|callback| callback.call0(py).err()) {
            error.write_unraisable(py, None);
        }
    }

    fn take(&self) -> PyResult<Handed> {
        lock(&self.handed).take().ok_or_else(|| PyRuntimeError::new_err("the call is over"))
    }

    fn current(&self) -> Current {
        Current { key: binding::key(self.name), name: self.name, attempt: self.attempt, result: self.result }
    }

    /// Ends it; true where it is to run again.
    fn end(
        &self,
        handed: Handed,
        produce: impl FnOnce(&Running<'_>, &mut dyn Results) -> Result<(), TaskError>,
    ) -> bool {
        let again = handed.finish(produce);
        let is_again = again.is_some();
        match again {
            Some(again) => *lock(&self.handed) = Some(again),
            None => forget(self.result),
        }
        is_again
    }
}

#[pymethods]
impl HostedCall {
    /// Runs a function with the call's arguments, in its name, and ends it; true where it is to run again.
    fn invoke(&self, py: Python<'_>, function: &Bound<'_, PyAny>, actor: &Bound<'_, PyAny>) -> PyResult<bool> {
        let returned =
            self.within(|| function.call(self.args.bind(py), self.kwargs.as_ref().map(|kwargs| kwargs.bind(py))))?;
        match returned {
            Ok(returned) => self.done(py, &returned, Some(actor)),
            Err(error) => {
                let handed = self.take()?;
                let error = described(py, &error, self.name, Some(actor));
                Ok(self.end(handed, |_, _| Err(error)))
            }
        }
    }

    /// Ends it by what was returned.
    #[pyo3(signature = (value, actor=None))]
    fn done(&self, py: Python<'_>, value: &Bound<'_, PyAny>, actor: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let handed = self.take()?;
        let pushed = self.is_stream && value.is_none();
        Ok(self.end(handed, |running, results| match pushed {
            true => Ok(()),
            false => hand_over(py, value, self.name, actor, running, self.ahead, results),
        }))
    }

    /// Ends it by an exception.
    #[pyo3(signature = (exception, actor=None))]
    fn failed(&self, py: Python<'_>, exception: &Bound<'_, PyAny>, actor: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let handed = self.take()?;
        let error = described(py, &PyErr::from_value(exception.clone()), self.name, actor);
        Ok(self.end(handed, |_, _| Err(error)))
    }

    /// The next item of a stream; false where nobody reads on.
    fn push(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut handed = self.take()?;
        let encoded = codec::encode_as(py, value, Place::Result);
        let pushed = encoded.and_then(|encoded| {
            encoded.with_form(py, |form| handed.push(form, 0)).map_err(|error| codec::refused(&error))
        });
        *lock(&self.handed) = Some(handed);
        pushed
    }

    /// Whether the next item of a stream may be pushed, or is to wait for the reader first.
    fn has_room(&self) -> PyResult<bool> {
        match &mut *lock(&self.handed) {
            Some(handed) => Ok(handed.has_room(self.ahead.unwrap_or(0))),
            None => Err(PyRuntimeError::new_err("the call is over")),
        }
    }

    /// Whether somebody has cancelled it.
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// Has something called when somebody cancels it; at once where somebody has.
    fn set_on_cancel(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        *lock(&self.on_cancel) = Some(callback);
        if self.is_cancelled() {
            self.cancel(py);
        }
        Ok(())
    }

    /// As `context()` says it of this call.
    fn context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let before = CURRENT.replace(Some(self.current()));
        let told = context(py);
        CURRENT.set(before);
        let told = told?;
        if let Some(object) = self.result.and_then(|result| session::found()?.store().refer(result)) {
            told.set_item("task_id", PyBytes::new(py, &object.id().task()))?;
        }
        Ok(told)
    }
}

impl HostedCall {
    fn within<R>(&self, body: impl FnOnce() -> R) -> PyResult<R> {
        let _turn = Turn::begin(self.current(), false);
        let frame = lock(&self.handed).as_ref().map(Handed::scope);
        let frame = frame.ok_or_else(|| PyRuntimeError::new_err("the call is over"))?;
        Ok(frame.within(body))
    }
}
