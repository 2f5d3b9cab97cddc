//! The host of an actor of another language.
//!
//! The one thing to know: the thread that claims calls is the one that made the actor. A plain actor
//! runs them there, one by one; one that hosts its calls itself is handed each as a [`Handed`], in
//! order, and ends it from whichever thread it likes. Retries of errors, streams and the sealing of results are
//! here either way. This file must not know how calls are claimed.

use super::callers::{Call, Callers};
use super::threads::Lead;
use crate::binding::{Resident, Running};
use crate::remote::Raylet;
use crate::stream::Writer;
use crate::task::{self, Frame, Results, TaskError};
use crate::value::Form;
use crate::worker::Seat;
use crate::worker::results::{Outlet, seal_error};
use crate::worker::run::{attempts, failed_argument, frame, is_tried_again, running};
use std::fmt;
use store::{CreateError, Handle};

/// Calls that are handed over at once.
const BATCH_COUNT_MAX: usize = 256;

/// Runs calls, or hands them over, until the actor is to end.
pub(super) fn serve(seat: &Seat, anchor: Handle, callers: Callers<'_>, resident: &dyn Resident) {
    let mut lead = if resident.is_host() { Lead::of_host(callers) } else { Lead::new(callers) };
    while let Some(call) = lead.next() {
        match resident.is_host() {
            true => hand_over(seat, anchor, resident, call, &mut lead),
            false => run(seat, anchor, resident, call),
        }
    }
    resident.finish();
}

/// Hands over a call and those that are there by now, at once: the host's threads run meanwhile.
fn hand_over(seat: &Seat, anchor: Handle, resident: &dyn Resident, call: Call, lead: &mut Lead<'_>) {
    let calls = std::iter::once(call).chain(std::iter::from_fn(|| lead.try_next())).take(BATCH_COUNT_MAX);
    let handed: Vec<Handed> = calls.filter_map(|call| readable(seat, anchor, resident, call)).collect();
    resident.take(handed);
}

fn run(seat: &Seat, anchor: Handle, resident: &dyn Resident, call: Call) {
    let (ray, name) = (&seat.ray, resident.name(call.call.record.key));
    attempts(ray.store(), name, &call.call, call.attempt(), |attempt, _, results| {
        let frame = frame(ray, &call.call, Some(anchor));
        task::execute(name, frame, || resident.call(&running(ray, &call.call, attempt), results))
    });
    call.finish();
}

/// A call whose arguments have values; of another the results get their error.
fn readable(seat: &Seat, anchor: Handle, resident: &dyn Resident, call: Call) -> Option<Handed> {
    let name = resident.name(call.call.record.key);
    let attempt = call.attempt();
    match failed_argument(seat.ray.store(), name, &call.call) {
        Ok(()) => Some(Handed::new(seat, anchor, name, call, attempt)),
        Err(error) => {
            Outlet::new(seat.ray.store(), &call.call, attempt).seal_all(name, Err(error));
            call.finish();
            None
        }
    }
}

/// A call that was taken over. Dropped without an end, its results say that it was given up.
pub struct Handed {
    ray: Raylet,
    anchor: Handle,
    name: &'static str,
    attempt: u32,
    /// `None` only within its end.
    call: Option<Call>,
    /// Of a call that streams, once an item was pushed.
    stream: Option<Writer>,
}

impl Handed {
    fn new(seat: &Seat, anchor: Handle, name: &'static str, call: Call, attempt: u32) -> Handed {
        Handed { ray: seat.ray.clone(), anchor, name, attempt, call: Some(call), stream: None }
    }

    fn call(&self) -> &Call {
        self.call.as_ref().expect("it is taken in its end only")
    }

    /// What it asks for.
    pub fn running(&self) -> Running<'_> {
        running(&self.ray, &self.call().call, self.attempt)
    }

    /// What people call its method.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// In whose name its code runs.
    pub fn scope(&self) -> CallScope {
        CallScope(frame(&self.ray, &self.call().call, Some(self.anchor)))
    }

    /// Whether the next item of a stream, which may be so many items ahead of its reader, would not wait.
    pub fn has_room(&mut self, ahead: u32) -> bool {
        self.writer().is_none_or(|writer| writer.has_room(ahead))
    }

    /// The next item of a stream; false where nobody reads on.
    pub fn push(&mut self, form: &Form<'_>, ahead: u32) -> Result<bool, Box<CreateError>> {
        match self.writer() {
            Some(writer) => writer.push(form, ahead),
            None => Ok(false),
        }
    }

    fn writer(&mut self) -> Option<&mut Writer> {
        let call = &self.call.as_ref()?.call;
        let &[end, first] = call.results.as_slice() else { return None };
        if !call.record.is_stream {
            return None;
        }
        Some(self.stream.get_or_insert_with(|| Writer::new(self.ray.store(), [end, first], self.attempt)))
    }

    /// Ends the call by what `produce` hands over or says; the call again where it is to be tried again.
    pub fn finish(
        mut self,
        produce: impl FnOnce(&Running<'_>, &mut dyn Results) -> Result<(), TaskError>,
    ) -> Option<Handed> {
        // A stream's items came one by one.
        self.writer();
        let call = self.call.take()?;
        let mut outlet = match self.stream.take() {
            Some(writer) => Outlet::Stream(writer),
            None => Outlet::new(self.ray.store(), &call.call, self.attempt),
        };
        let outcome = produce(&running(&self.ray, &call.call, self.attempt), &mut outlet);
        if is_tried_again(&call.call.record, self.attempt, &outcome) {
            outlet.begin_again();
            if let Outlet::Stream(writer) = outlet {
                self.stream = Some(writer);
            }
            self.attempt += 1;
            self.call = Some(call);
            return Some(self);
        }
        outlet.seal_all(self.name, outcome);
        call.finish();
        None
    }
}

/// In whose name code runs: what it submits is the call's.
#[derive(Clone, Debug)]
pub struct CallScope(Frame);

impl CallScope {
    /// Runs code in the call's name.
    pub fn within<R>(self, body: impl FnOnce() -> R) -> R {
        task::within(self.0, body)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let given_up = task::TaskErrorKind::ActorDied;
            let error = TaskError::new(given_up, self.name, &"the actor gave the call up");
            seal_error(self.ray.store(), call.call.results.as_slice(), &error);
            call.finish();
        }
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").field("name", &self.name).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
