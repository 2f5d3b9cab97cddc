//! The host of a class without async methods: threads that take the lead by turns.
//!
//! The one thing to know: one thread at a time leads. It claims the next call, gets the actor's state
//! for it (alone for `&mut self`, with others for `&self`), and only then lets the next thread lead: so
//! calls begin in the order in which they were claimed, and one that needs the state alone is not
//! overtaken. With one call at a time the one thread always leads. This file must not know queues.

use super::callers::{Call, Callers};
use super::{Stage, State};
use crate::actor::{Method, MethodBody};
use crate::task::{self, Incoming, Results, TaskError};
use crate::worker::results::seal_error;
use crate::worker::run::{attempts, frame};
use crate::worker::spin::Spin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{Builder, Scope};
use std::time::Instant;

struct Host<'a> {
    stage: &'a Stage,
    state: RwLock<State>,
    lead: Mutex<Lead<'a>>,
    /// Threads that wait for the lead.
    followers: AtomicU32,
}

/// Who claims calls, and looks for a while before it sleeps.
pub(super) struct Lead<'a> {
    callers: Callers<'a>,
    spin: Spin,
    threads: u32,
    /// Looks for a while before it sleeps.
    is_spinning: bool,
    is_over: bool,
}

/// Runs calls until the actor is to end; the state ends with it.
pub(super) fn serve(stage: &Stage, callers: Callers<'_>, state: State) {
    let lead = Mutex::new(Lead::new(callers));
    let host = Host { stage, state: RwLock::new(state), lead, followers: AtomicU32::new(0) };
    std::thread::scope(|scope| host.work(scope));
}

impl<'a> Host<'a> {
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut last = None;
        while let Some((lead, call)) = self.take_lead() {
            let found = last.filter(|method: &&Method| method.key == call.call.record.key);
            match found.map_or_else(|| self.stage.method(call.call.record.key), Ok) {
                Ok(method) => {
                    last = Some(method);
                    self.run(lead, scope, method, &call);
                }
                Err(error) => seal_error(self.stage.seat.ray.store(), call.call.results.as_slice(), &error),
            }
            call.finish();
        }
    }

    /// Waits for the lead, and with it for a call; `None` at the end.
    fn take_lead(&self) -> Option<(MutexGuard<'_, Lead<'a>>, Call)> {
        self.followers.fetch_add(1, Ordering::Relaxed);
        // Nothing unwinds with the lock held: user code runs behind `execute`.
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        self.followers.fetch_sub(1, Ordering::Relaxed);
        let call = lead.next()?;
        Some((lead, call))
    }

    fn run<'scope>(
        &'scope self,
        lead: MutexGuard<'_, Lead<'a>>,
        scope: &'scope Scope<'scope, '_>,
        method: &Method,
        call: &Call,
    ) {
        let ray = &self.stage.seat.ray;
        match method.body {
            MethodBody::Exclusive(body) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                self.pass_lead(lead, scope);
                self.attempt(method, call, |incoming, results| body(&mut **state, ray, incoming, results));
            }
            MethodBody::Shared(body) => {
                let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                self.pass_lead(lead, scope);
                self.attempt(method, call, |incoming, results| body(&**state, ray, incoming, results));
            }
            // A class with such a method has another host.
            MethodBody::ExclusiveAsync(_) | MethodBody::SharedAsync(_) => {}
        }
    }

    fn attempt(
        &self,
        method: &Method,
        call: &Call,
        mut body: impl FnMut(Incoming<'_>, &mut dyn Results) -> Result<(), TaskError>,
    ) {
        let ray = &self.stage.seat.ray;
        attempts(ray.store(), method.name, &call.call, call.attempt(), |_, incoming, results| {
            let frame = frame(ray, &call.call, Some(self.stage.anchor));
            task::execute(method.name, frame, || body(incoming, results))
        });
    }

    /// Lets the next thread lead; there is one, if one more call may run.
    fn pass_lead<'scope>(&'scope self, mut lead: MutexGuard<'_, Lead<'a>>, scope: &'scope Scope<'scope, '_>) {
        let is_lonely = self.followers.load(Ordering::Relaxed) == 0;
        if !is_lonely || lead.threads >= self.stage.concurrency_max {
            return;
        }
        let thread = Builder::new().name("raylet-actor".to_owned());
        // Without another thread, calls run one after the other.
        if thread.spawn_scoped(scope, || self.work(scope)).is_ok() {
            lead.threads += 1;
        }
    }
}

impl<'a> Lead<'a> {
    pub(super) fn new(callers: Callers<'a>) -> Lead<'a> {
        Lead { callers, spin: Spin::new(), threads: 1, is_spinning: true, is_over: false }
    }

    /// Leaves the processor to the threads that run what it claims.
    pub(super) fn of_host(callers: Callers<'a>) -> Lead<'a> {
        Lead { is_spinning: false, ..Lead::new(callers) }
    }

    /// The next call, as soon as there is one; `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Call> {
        while !self.is_over {
            if let Some(call) = self.callers.next() {
                return Some(call);
            }
            if self.callers.is_over() {
                self.is_over = true;
            } else if let Some(call) = self.wait() {
                return Some(call);
            }
        }
        None
    }

    /// The next call, if there is one now.
    pub(super) fn try_next(&mut self) -> Option<Call> {
        if self.is_over { None } else { self.callers.next() }
    }

    /// Looks for a while, then sleeps once.
    #[cold]
    fn wait(&mut self) -> Option<Call> {
        let callers = &mut self.callers;
        if self.is_spinning
            && let Some(call) = self.spin.until(|| callers.next())
        {
            return Some(call);
        }
        let ring = callers.ring().clone();
        let announced = ring.bell().announce();
        if let Some(call) = callers.next() {
            return Some(call);
        }
        if callers.is_over() || callers.has_news() {
            return None;
        }
        let asleep = Instant::now();
        // However it ended: the next turn looks again.
        let _ = announced.sleep(None);
        let call = callers.next()?;
        self.spin.woke_after(asleep.elapsed());
        Some(call)
    }
}
