//! A thread for what other threads have to tell the interpreter: callbacks, lines of workers.
//!
//! The one thing to know: whoever wakes or hears may hold locks that a thread with the interpreter waits
//! for, so nobody but this thread waits for the interpreter. It takes what has come meanwhile along. This
//! file must not know what it is told.

use crate::hooks::hook;
use pyo3::prelude::*;
use raylet_api::work::LogLines;
use raylet_client::binding::{Printed, Printer};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// Something to do with the interpreter.
type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// How long the end of a session waits for what is still to be said.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// To the thread, with the process that it is of: what that forks has no such thread.
static THREAD: Mutex<Option<(u32, Sender<Job>)>> = Mutex::new(None);

/// Does something with the interpreter, soon; nothing where that ends.
pub(crate) fn run(job: impl FnOnce(Python<'_>) + Send + 'static) {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if thread.as_ref().is_none_or(|(owner, _)| *owner != pid) {
        let (sender, receiver) = channel();
        // Without the thread nobody is called back, and waiters look again by themselves.
        let started = Builder::new().name("raylet-backstage".to_owned()).spawn(move || serve(&receiver));
        *thread = started.ok().map(|_| (pid, sender));
    }
    if let Some((_, sender)) = &*thread {
        let _ = sender.send(Box::new(job));
    }
}

/// Lets the thread do what it has been given so far.
pub(crate) fn settle(py: Python<'_>) {
    let is_there = THREAD.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    if is_there {
        let (done, is_done) = channel();
        run(move |_| _ = done.send(()));
        let _ = py.detach(move || is_done.recv_timeout(SETTLE_TIME));
    }
}

fn serve(jobs: &Receiver<Job>) {
    // A signal is to wake the interpreter's main thread.
    let _ = nix::sys::signal::SigSet::all().thread_block();
    while let Ok(job) = jobs.recv() {
        let attached = Python::try_attach(|py| {
            job(py);
            jobs.try_iter().for_each(|job| job(py));
        });
        if attached.is_none() {
            return;
        }
    }
}

/// Calls something without arguments.
pub(crate) fn call(callback: Py<PyAny>) {
    run(move |py| {
        if let Err(error) = callback.call0(py) {
            error.write_unraisable(py, None);
        }
    });
}

/// Prints by the package.
pub(crate) fn printer() -> Printer {
    Printer::of(|printed| match printed {
        Printed::Lines(lines) => print(lines_of(lines)),
        Printed::Notice(text) => print(vec![("raylet".to_owned(), 0, true, text.to_owned())]),
    })
}

/// Who wrote it, whether as an error, and what.
type Line = (String, u32, bool, String);

fn lines_of(lines: &LogLines) -> Vec<Line> {
    let dropped = (lines.dropped_count > 0).then(|| {
        let text = format!("{} lines of workers were dropped", lines.dropped_count);
        ("raylet".to_owned(), 0, true, text)
    });
    let written = lines.lines.iter().map(|line| (line.name.clone(), line.pid, line.is_error, line.text.clone()));
    dropped.into_iter().chain(written).collect()
}

fn print(lines: Vec<Line>) {
    run(move |py| {
        let printed = hook(py, "print_logs").and_then(|hook| hook.call1((lines,)));
        if let Err(error) = printed {
            error.write_unraisable(py, None);
        }
    });
}
