//! An actor in its worker: made by its constructor, then host of the calls of all its callers.
//!
//! The one thing to know: one process is one actor, and it claims from the queues of all callers by
//! turns ([`callers`]). A class whose methods are all plain runs them on threads ([`threads`]), one
//! unless more calls may run at once; a class with an async method runs all of them on one thread
//! ([`futures`]), where they give way to each other while they wait. Either way calls of one caller
//! begin in the order they were submitted, `&mut self` methods run alone, and a method that panics
//! fails that call and nothing else. This file must not know how calls are claimed.

mod callers;
mod foreign;
mod futures;
mod threads;

use super::Seat;
use super::inbox::Inbox;
use super::run::{failed_argument, frame, incoming, running, unknown, unpack};
use crate::actor::{Class, Method, MethodBody, State};
use crate::binding::{self, Language, Resident};
use crate::engine::spec::Unpacked;
use crate::engine::spec::handle;
use crate::task::{self, TaskError, TaskErrorKind};
use crate::value::Form;
use callers::{Callers, Ring};
pub use foreign::{CallScope, Handed};
use raylet_api::work::{ActorExited, ActorFailed, ActorReady, RunActor};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use store::Handle;

/// Calls at once of a class with async methods, where nobody says otherwise.
const ASYNC_CALLS_MAX: u32 = 1000;

/// The actor that this process is.
static HERE: Mutex<Option<Arc<Here>>> = Mutex::new(None);

/// Its anchor, from before its constructor on: a process becomes an actor once.
static ANCHOR: OnceLock<Handle> = OnceLock::new();

/// What an actor's methods can ask of its host.
struct Here {
    is_leaving: AtomicBool,
    ring: Ring,
}

impl Here {
    /// Whether the actor wants to end itself.
    #[inline]
    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::SeqCst)
    }
}

/// Has the actor of this process end after the calls that run; false where this is none.
pub(crate) fn exit() -> bool {
    let here = HERE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(here) = &here {
        here.is_leaving.store(true, Ordering::SeqCst);
        here.ring.bell().wake_all();
    }
    here.is_some()
}

/// The anchor of the actor that this process is.
pub(crate) fn here() -> Option<Handle> {
    ANCHOR.get().copied()
}

fn set_here(here: Option<Arc<Here>>) {
    *HERE.lock().unwrap_or_else(PoisonError::into_inner) = here;
}

/// What a host needs besides its calls.
struct Stage {
    seat: Seat,
    class: &'static Class,
    anchor: Handle,
    concurrency_max: u32,
}

impl Stage {
    fn method(&self, key: u64) -> Result<&'static Method, TaskError> {
        let method = self.class.methods.iter().find(|method| method.key == key);
        method.ok_or_else(|| unknown("method", key))
    }
}

/// The life of an actor, from its constructor to its end.
pub(super) fn host(seat: &Seat, inbox: &Inbox, run: &RunActor) {
    let _ = ANCHOR.set(handle(run.anchor));
    match create(seat, run) {
        Ok(Made::Rust(class, state)) => host_rust(seat, inbox, run, class, state),
        Ok(Made::Foreign(resident)) => open(seat, inbox, run, |callers| {
            foreign::serve(seat, handle(run.anchor), callers, &*resident);
        }),
        Err(error) => seat.say(ActorFailed { error: bytes(&error) }),
    }
}

fn host_rust(seat: &Seat, inbox: &Inbox, run: &RunActor, class: &'static Class, state: State) {
    let is_async = |method: &Method| matches!(method.body, MethodBody::SharedAsync(_) | MethodBody::ExclusiveAsync(_));
    let has_async = class.methods.iter().any(is_async);
    let concurrency_max = match run.concurrency_max {
        0 if has_async => ASYNC_CALLS_MAX,
        said => said.max(1),
    };
    let stage = Stage { seat: seat.clone(), class, anchor: handle(run.anchor), concurrency_max };
    open(seat, inbox, run, |callers| match has_async {
        true => futures::serve(stage, callers, state),
        false => threads::serve(&stage, callers, state),
    });
}

/// Lets callers in, until `serve` returns.
fn open(seat: &Seat, inbox: &Inbox, run: &RunActor, serve: impl FnOnce(Callers<'_>)) {
    let (is_leaving, ring) = (AtomicBool::new(false), Ring::of(&seat.segment, run.bell));
    let here = Arc::new(Here { is_leaving, ring });
    set_here(Some(here.clone()));
    let callers = Callers::new(seat, inbox, here, run);
    seat.say(ActorReady {});
    serve(callers);
    set_here(None);
    inbox.listen_here();
    // What it wrote last is to be heard.
    let _ = std::io::stdout().flush();
    seat.say(ActorExited {});
}

/// As an error object has it.
fn bytes(error: &TaskError) -> Vec<u8> {
    match error.form() {
        Form::Bytes { bytes, .. } => bytes.into_owned(),
        Form::Written { .. } | Form::Table { .. } => unreachable!("an error has bytes"),
    }
}

/// What a constructor made.
enum Made {
    Rust(&'static Class, State),
    Foreign(Box<dyn Resident>),
}

/// What the constructor makes, or why there is nothing.
fn create(seat: &Seat, run: &RunActor) -> Result<Made, TaskError> {
    let call = unpack(seat.ray.store(), &run.words);
    let gone = || TaskError::new(TaskErrorKind::ActorDied, "an actor", &"the arguments of its constructor are gone");
    let call = call.ok_or_else(gone)?;
    match (crate::actor::class(call.record.key), binding::language()) {
        (Some(class), _) => create_rust(seat, class, &call),
        (None, Some(language)) => create_foreign(seat, language, &call, run.restarts),
        (None, None) => Err(unknown("actor class", call.record.key)),
    }
}

fn create_foreign(seat: &Seat, language: &dyn Language, call: &Unpacked, restarts: u32) -> Result<Made, TaskError> {
    let name = language.name(call.record.key);
    failed_argument(seat.ray.store(), name, call)?;
    let mut made = None;
    task::execute(name, frame(&seat.ray, call, None), || {
        made = Some(language.create(&running(&seat.ray, call, restarts))?);
        Ok(())
    })?;
    let nothing = || TaskError::new(TaskErrorKind::ActorDied, name, &"its constructor made nothing");
    made.map(Made::Foreign).ok_or_else(nothing)
}

fn create_rust(seat: &Seat, class: &'static Class, call: &Unpacked) -> Result<Made, TaskError> {
    failed_argument(seat.ray.store(), class.name, call).map_err(|error| died_of(class, &error))?;
    let mut state = None;
    let outcome = task::execute(class.name, frame(&seat.ray, call, None), || {
        state = Some((class.create)(&seat.ray, incoming(class.name, call))?);
        Ok(())
    });
    outcome.map_err(|error| died_of(class, &error))?;
    state.map(|state| Made::Rust(class, state)).ok_or_else(|| died_of(class, &"its constructor made nothing"))
}

fn died_of(class: &Class, why: &dyn std::fmt::Display) -> TaskError {
    TaskError::new(TaskErrorKind::ActorDied, class.name, why)
}
