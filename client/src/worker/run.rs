//! One call, from its record to its sealed results.
//!
//! The one thing to know: whatever happens, each result that somebody waits for ends up sealed: by the
//! value, by an error of the call, or by the error that stood in the place of an argument. A call
//! whose results nobody refers to runs all the same, for what it does besides. This file must not
//! know where records come from.

use super::results::{Outlet, seal_error};
use crate::binding::{self, Language, Running};
use crate::engine::scope::Scope;
use crate::engine::spec::{UnpackCallError, Unpacked, handle};
use crate::engine::start::worker_raylet;
use crate::remote::Raylet;
use crate::task::{self, Body, Frame, Function, Incoming, Results, TaskError, TaskErrorKind};
use crate::timeline;
use raylet_api::record::{RECORD_WORDS, Record};
use std::sync::Arc;
use store::{Encoding, GetError, Handle, Object, ObjectRef as RawRef, Store};
use tokio::runtime::{Builder, Runtime};

/// Runs calls of functions, on one thread.
pub(crate) struct Runner {
    ray: Raylet,
    /// The function of the last call, which is mostly that of the next.
    last: Option<&'static Function>,
    /// For async functions; made when the first one comes.
    runtime: Option<Runtime>,
}

impl Runner {
    /// `ray` is what the functions submit to.
    pub(crate) fn new(ray: &Raylet) -> Runner {
        Runner { ray: ray.clone(), last: None, runtime: None }
    }

    /// Runs a task's record; `attempt` counts the attempts before this one.
    pub(crate) fn run(&mut self, words: &[u64; RECORD_WORDS], attempt: u32) {
        let Some(call) = unpack(self.ray.store(), words) else { return };
        if attempt > 0 && is_done(self.ray.store(), &call) {
            return;
        }
        match self.function(call.record.key) {
            Some(function) => self.run_function(function, &call, attempt),
            None if let Some(language) = binding::language() => self.run_foreign(language, &call, attempt),
            None => seal_error(self.ray.store(), call.results.as_slice(), &unknown("function", call.record.key)),
        }
    }

    #[inline]
    fn function(&mut self, key: u64) -> Option<&'static Function> {
        if self.last.is_none_or(|last| last.key != key) {
            self.last = Some(task::function(key)?);
        }
        self.last
    }

    fn run_function(&mut self, function: &'static Function, call: &Unpacked, attempt: u32) {
        if matches!(function.body, Body::Async(_)) && self.runtime.is_none() {
            match runtime(function.name) {
                Ok(runtime) => self.runtime = Some(runtime),
                Err(error) => return seal_error(self.ray.store(), call.results.as_slice(), &error),
            }
        }
        attempts(self.ray.store(), function.name, call, attempt, |_, incoming, results| {
            self.execute(function, call, incoming, results)
        });
    }

    fn run_foreign(&self, language: &dyn Language, call: &Unpacked, attempt: u32) {
        let (ray, name) = (&self.ray, language.name(call.record.key));
        attempts(ray.store(), name, call, attempt, |attempt, _, results| {
            task::execute(name, frame(ray, call, None), || language.run(&running(ray, call, attempt), results))
        });
    }

    fn execute(
        &self,
        function: &Function,
        call: &Unpacked,
        incoming: Incoming<'_>,
        results: &mut dyn Results,
    ) -> Result<(), TaskError> {
        let (ray, name) = (&self.ray, function.name);
        let frame = frame(ray, call, None);
        match function.body {
            Body::Sync(body) => task::execute(name, frame, || body(ray, incoming, results)),
            Body::Async(body) => {
                let runtime = self.runtime.as_ref().expect("made before an async body is run");
                task::execute(name, frame, || runtime.block_on(body(ray, incoming, results)))
            }
        }
    }
}

/// Runs a call until it is not to be tried again, and seals its results.
pub(super) fn attempts(
    store: &Store,
    name: &str,
    call: &Unpacked,
    mut attempt: u32,
    mut body: impl FnMut(u32, Incoming<'_>, &mut dyn Results) -> Result<(), TaskError>,
) {
    let mut results = Outlet::new(store, call, attempt);
    loop {
        let span = Span::begin(call.record.key);
        let outcome =
            failed_argument(store, name, call).and_then(|()| body(attempt, incoming(name, call), &mut results));
        span.end();
        if !is_tried_again(&call.record, attempt, &outcome) || is_done(store, call) {
            if outcome.is_ok()
                && results.is_large()
                && let Some(ray) = worker_raylet()
            {
                ray.engine().keep_recipe(call);
            }
            return results.seal_all(name, outcome);
        }
        attempt += 1;
        results.begin_again();
    }
}

/// One attempt in the timeline, where one is kept.
pub(super) struct Span {
    key: u64,
    start_us: Option<u64>,
}

impl Span {
    #[inline]
    pub(super) fn begin(key: u64) -> Span {
        Span { key, start_us: timeline::is_on().then(timeline::now_us) }
    }

    #[inline]
    pub(super) fn end(self) {
        if let Some(start_us) = self.start_us {
            timeline::record(self.key, start_us, timeline::now_us());
        }
    }
}

/// Whether an outcome is an error of the application after which the call may run again.
pub(super) fn is_tried_again(record: &Record, attempt: u32, outcome: &Result<(), TaskError>) -> bool {
    let is_retried = |error: &TaskError| {
        matches!(error.kind(), TaskErrorKind::Returned | TaskErrorKind::Panicked) && !error.is_final()
    };
    // An argument's error would come again.
    let is_own = |error: &TaskError| error.passed().next().is_none();
    record.retries_errors
        && record.may_retry(attempt)
        && outcome.as_ref().is_err_and(|error| is_retried(error) && is_own(error))
}

/// The error that stands in an argument's place, if one does.
#[inline]
pub(super) fn failed_argument(store: &Store, name: &str, call: &Unpacked) -> Result<(), TaskError> {
    for object in &call.awaited {
        match store.get(object).or_else(|error| get_again(object, error)) {
            Ok(object) if object.encoding() == Encoding::Error => return Err(TaskError::from_bytes(&object).pass(name)),
            Ok(_) => {}
            Err(error) => return Err(unreadable(name, &error)),
        }
    }
    Ok(())
}

/// An argument whose value is lost may be made again.
#[cold]
fn get_again(object: &RawRef, error: Box<GetError>) -> Result<Object, Box<GetError>> {
    worker_raylet().map_or(Err(error), |ray| ray.engine().get(object, None))
}

fn unreadable(name: &str, error: &GetError) -> TaskError {
    TaskError::new(TaskErrorKind::Argument, name, error)
}

pub(super) fn incoming<'a>(name: &'a str, call: &'a Unpacked) -> Incoming<'a> {
    Incoming::new(name, call.arguments(), &call.awaited)
}

/// A call as another language sees it.
#[inline]
pub(super) fn running<'a>(ray: &'a Raylet, call: &'a Unpacked, attempt: u32) -> Running<'a> {
    Running {
        ray,
        key: call.record.key,
        arguments: call.arguments(),
        awaited: &call.awaited,
        results: usize::from(call.record.results),
        is_stream: call.record.is_stream,
        attempt,
        result: call.results.as_slice().first().copied(),
    }
}

/// What the thread runs, by which it submits; each attempt has its own.
pub(super) fn frame(ray: &Raylet, call: &Unpacked, actor: Option<Handle>) -> Frame {
    let scope = Scope::of_task(call.results.as_slice().first().copied());
    Frame { ray: ray.clone(), actors: actor.into_iter().collect(), task: Some(Arc::new(scope)) }
}

/// For async bodies; whoever runs one is inside it.
pub(super) fn runtime(name: &str) -> Result<Runtime, TaskError> {
    let made = Builder::new_current_thread().enable_all().build();
    made.map_err(|error| TaskError::new(TaskErrorKind::WorkerCrashed, name, &error))
}

/// What the words of a record ask for; `None` where nothing is left to be done for them.
#[inline]
pub(super) fn unpack(store: &Store, words: &[u64; RECORD_WORDS]) -> Option<Unpacked> {
    match Unpacked::of(store, words) {
        Ok(call) => call,
        Err(error) => {
            refuse(store, words, &error);
            None
        }
    }
}

#[cold]
fn refuse(store: &Store, words: &[u64; RECORD_WORDS], error: &UnpackCallError) {
    let error = TaskError::new(TaskErrorKind::Argument, "a call", error);
    eprintln!("raylet: {error}");
    // The result that the words name, if they are words of a record at all.
    let result = Record::unpack(words).ok().filter(|record| record.results > 0);
    seal_error(store, result.map(|record| handle(record.result)).as_slice(), &error);
}

/// Whether every result stands: an earlier attempt came so far, or somebody cancelled it.
pub(super) fn is_done(store: &Store, call: &Unpacked) -> bool {
    // Of a stream, its end: cells come and go.
    let deciding = if call.record.is_stream { 1 } else { usize::MAX };
    let mut results = call.results.as_slice().iter().take(deciding).peekable();
    let is_done = |promise: &Handle| store.refer(*promise).is_some_and(|object| object.is_ready());
    results.peek().is_some() && results.all(is_done)
}

/// No such thing in this executable.
pub(super) fn unknown(what: &str, key: u64) -> TaskError {
    let executable =
        std::env::current_exe().map_or_else(|_| "this executable".to_owned(), |path| path.display().to_string());
    let message = format!(
        "{executable} has no {what} with the key {key:#018x}: workers run the executable that the driver was \
         when it started, so start the driver again, or link the crate that has the {what}"
    );
    TaskError::new(TaskErrorKind::UnknownFunction, &format!("{what} {key:#018x}"), &message)
}
