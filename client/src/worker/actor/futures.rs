//! The host of a class with async methods: all its calls on one thread, many under way at once.
//!
//! The one thing to know: one loop claims calls, gets the state for each (alone for `&mut self`, which
//! keeps it until the method is over, also while it waits) and polls it; what is not done at once goes
//! on beside the loop. So calls begin in the order in which they were claimed. While nothing can be
//! claimed a thread sleeps on the bell for the loop, which waits for that and for whatever its calls
//! wait for. A plain method blocks the loop, as a blocking `get` does. This file must not know queues.

use super::callers::{Call, Callers, Ring};
use super::{Stage, State};
use crate::actor::{Method, MethodBody};
use crate::task::{self, Frame, TaskError, TaskErrorKind, TaskFuture};
use crate::worker::results::{Outlet, seal_error};
use crate::worker::run::{Span, failed_argument, frame, incoming, is_tried_again, runtime};
use crate::worker::spin::Spin;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;
use store_shm::queue::Announced;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore};
use tokio::task::LocalSet;

/// Runs calls until the actor is to end; the state ends with it.
pub(super) fn serve(stage: Stage, callers: Callers<'_>, state: State) {
    let name = stage.class.name;
    let made = runtime(name).and_then(|runtime| Ok((runtime, Watch::start(callers.ring(), name)?)));
    match made {
        Ok((runtime, watch)) => {
            let local = LocalSet::new();
            local.block_on(&runtime, Host::new(stage, callers, watch).run(state));
        }
        Err(error) => eprintln!("raylet: an actor cannot be hosted: {error}"),
    }
}

struct Host<'a> {
    stage: Rc<Stage>,
    callers: Callers<'a>,
    watch: Watch,
    /// Of calls under way.
    room: Arc<Semaphore>,
    spin: Spin,
}

impl<'a> Host<'a> {
    fn new(stage: Stage, callers: Callers<'a>, watch: Watch) -> Host<'a> {
        let room = Arc::new(Semaphore::new(stage.concurrency_max as usize));
        Host { stage: Rc::new(stage), callers, watch, room, spin: Spin::new() }
    }

    async fn run(mut self, state: State) {
        let state = Arc::new(RwLock::new(state));
        while let Some(permit) = self.permit().await
            && let Some(call) = self.next().await
        {
            match self.stage.method(call.call.record.key) {
                Ok(method) => self.begin(method, call, &state, permit).await,
                Err(error) => {
                    seal_error(self.stage.seat.ray.store(), call.call.results.as_slice(), &error);
                    call.finish();
                }
            }
        }
        // What is under way ends before the state does.
        let _ = self.room.acquire_many(self.stage.concurrency_max).await;
    }

    /// Room for one more call; never `None`, as nobody closes the semaphore.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().acquire_owned().await.ok()
    }

    async fn begin(
        &self,
        method: &'static Method,
        call: Call,
        state: &Arc<RwLock<State>>,
        permit: OwnedSemaphorePermit,
    ) {
        let held = match method.body {
            MethodBody::Exclusive(_) | MethodBody::ExclusiveAsync(_) => Held::Alone(state.clone().write_owned().await),
            MethodBody::Shared(_) | MethodBody::SharedAsync(_) => Held::Shared(state.clone().read_owned().await),
        };
        let mut running = Box::pin(run(self.stage.clone(), method, call, held, permit));
        // Most are done at once, and need no task of their own.
        let is_done = poll_fn(|context| Poll::Ready(running.as_mut().poll(context).is_ready())).await;
        if !is_done {
            tokio::task::spawn_local(running);
        }
    }

    /// The next call, as soon as there is one; `None` at the end.
    async fn next(&mut self) -> Option<Call> {
        loop {
            if let Some(call) = self.callers.next() {
                return Some(call);
            }
            if self.callers.is_over() {
                return None;
            }
            // One permit is the loop's own.
            let is_alone = self.room.available_permits() + 1 >= self.stage.concurrency_max as usize;
            let callers = &mut self.callers;
            if let Some(call) = is_alone.then(|| self.spin.until(|| callers.next())).flatten() {
                return Some(call);
            }
            self.watch.arm();
            if let Some(call) = self.callers.next() {
                return Some(call);
            }
            if !self.callers.is_over() && !self.callers.has_news() {
                let asleep = Instant::now();
                self.watch.rung().await;
                self.spin.woke_after(asleep.elapsed());
            }
        }
    }
}

/// How a call has the state.
enum Held {
    Alone(OwnedRwLockWriteGuard<State>),
    Shared(OwnedRwLockReadGuard<State>),
}

/// One call, to its sealed results.
async fn run(stage: Rc<Stage>, method: &'static Method, call: Call, mut held: Held, _room: OwnedSemaphorePermit) {
    let (store, name) = (stage.seat.ray.store(), method.name);
    let mut attempt = call.attempt();
    let mut results = Outlet::new(store, &call.call, attempt);
    loop {
        let span = Span::begin(method.key);
        let outcome = match failed_argument(store, name, &call.call) {
            Ok(()) => execute(&stage, method, &call, &mut held, &mut results).await,
            Err(error) => Err(error),
        };
        span.end();
        if !is_tried_again(&call.call.record, attempt, &outcome) {
            results.seal_all(name, outcome);
            break;
        }
        attempt += 1;
        results.begin_again();
    }
    call.finish();
}

async fn execute(
    stage: &Stage,
    method: &Method,
    call: &Call,
    held: &mut Held,
    results: &mut Outlet<'_>,
) -> Result<(), TaskError> {
    let (ray, name) = (&stage.seat.ray, method.name);
    let (frame, incoming) = (frame(ray, &call.call, Some(stage.anchor)), incoming(name, &call.call));
    match (method.body, held) {
        (MethodBody::Exclusive(body), Held::Alone(state)) => {
            task::execute(name, frame, || body(&mut ***state, ray, incoming, results))
        }
        (MethodBody::ExclusiveAsync(body), Held::Alone(state)) => {
            Executing { name, frame, body: body(&mut ***state, ray, incoming, results) }.await
        }
        (MethodBody::Shared(body), Held::Shared(state)) => {
            task::execute(name, frame, || body(&***state, ray, incoming, results))
        }
        (MethodBody::SharedAsync(body), Held::Shared(state)) => {
            Executing { name, frame, body: body(&***state, ray, incoming, results) }.await
        }
        (_, _) => unreachable!("the state is held as the method needs it"),
    }
}

/// An async body as a task of its name, whenever it is polled.
struct Executing<'a> {
    name: &'a str,
    frame: Frame,
    body: TaskFuture<'a>,
}

impl Future for Executing<'_> {
    type Output = Result<(), TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut polled = Poll::Pending;
        let outcome = task::execute(this.name, this.frame.clone(), || {
            polled = this.body.as_mut().poll(context);
            Ok(())
        });
        match outcome {
            Ok(()) => polled,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// A thread that sleeps on the bell for the loop.
struct Watch {
    shared: Arc<Shared>,
    ring: &'static Ring,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    inside: Mutex<Inside>,
    changed: Condvar,
    rung: Notify,
}

#[derive(Default)]
struct Inside {
    /// Announced by the loop, for the thread to sleep with.
    announced: Option<Announced<'static>>,
    /// The thread has an announcement, or is about to take one.
    is_armed: bool,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing panics while it is held.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps whenever the loop says so, and tells it of each ring.
    fn watch(&self) {
        loop {
            let is_idle = |inside: &mut Inside| inside.announced.is_none() && !inside.is_over;
            let inside = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
            let (announced, is_over) = take(inside);
            if is_over {
                return;
            }
            if let Some(announced) = announced {
                // However it ended: the loop looks again.
                let _ = announced.sleep(None);
            }
            self.lock().is_armed = false;
            self.rung.notify_one();
        }
    }
}

fn take(mut inside: MutexGuard<'_, Inside>) -> (Option<Announced<'static>>, bool) {
    (inside.announced.take(), inside.is_over)
}

impl Watch {
    /// An actor's process has one bell to its end, so what the thread sleeps on is never given back.
    fn start(ring: &Ring, name: &str) -> Result<Watch, TaskError> {
        let (shared, ring) = (Arc::<Shared>::default(), &*Box::leak(Box::new(ring.clone())));
        let thread = Builder::new().name("raylet-bell".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.watch()
        });
        let thread = thread.map_err(|error| TaskError::new(TaskErrorKind::WorkerCrashed, name, &error))?;
        Ok(Watch { shared, ring, thread: Some(thread) })
    }

    /// From now on a ring is heard. Look for calls after this.
    fn arm(&self) {
        let mut inside = self.shared.lock();
        if !std::mem::replace(&mut inside.is_armed, true) {
            inside.announced = Some(self.ring.bell().announce());
            self.shared.changed.notify_one();
        }
    }

    /// Waits for a ring after [`Watch::arm`], or one that was heard before.
    async fn rung(&self) {
        self.shared.rung.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        self.ring.bell().wake_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}
