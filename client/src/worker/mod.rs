//! What a forked worker does: joins its raylet, says that it is ready, and runs what it is given.
//!
//! The one thing to know: one thread does the worker's work and is told what by messages: serve a
//! lease ([`lease`]: records of a queue, directly), run one task (its record came over the line), or
//! become an actor for good ([`actor`]). The thread that reads the line only puts messages into the
//! [`inbox::Inbox`], so a call that runs for hours holds nobody up. A worker ends with its raylet, by
//! its leash. This file must not know what a call is.

pub(crate) mod actor;
mod environment;
pub(crate) mod inbox;
mod lease;
mod results;
mod run;
mod spin;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing;

use crate::engine::line::Line;
use crate::engine::segment::Segment;
use crate::error::ConnectError;
use crate::remote::Raylet;
use crate::{ConnectOptions, engine, timeline};
use environment::Environment;
use inbox::Inbox;
use lease::Lease;
use raylet_api::message::Message;
use raylet_api::work::{Grant, LeaseReturned, RunActor, RunTask, TaskDone, WorkerReady};
use raylet_api::zygote::WorkerSpec;
pub(crate) use results::seal_error;
use run::Runner;
use spin::Spin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the raylet may take to let a worker in; longer than it is ever stopped on purpose.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of a request for events that nobody made.
const UNASKED: u64 = 0;
/// How long the last words of a worker may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole life of a worker that has a raylet, on the calling thread.
pub fn work(spec: &WorkerSpec) -> Result<(), ConnectError> {
    run(spec)
}

/// See [`work`].
pub(crate) fn run(spec: &WorkerSpec) -> Result<(), ConnectError> {
    let Some(directory) = &spec.directory else { return Ok(()) };
    let options = ConnectOptions { label: spec.label.clone(), timeout: JOIN_TIMEOUT, ..ConnectOptions::at(directory) };
    let inbox = Arc::<Inbox>::default();
    let (put, line) = (inbox.clone(), Arc::<OnceLock<Arc<Line>>>::default());
    let answers = line.clone();
    let on_message = move |message| match (message, answers.get()) {
        (Message::GiveEvents(asked), Some(line)) => give_events(line, asked.request),
        (message, _) => put.put(message),
    };
    // The end of the raylet is this process' end, by its leash.
    let seat = engine::join_as_worker(&options, spec.worker, Box::new(on_message), Box::new(|| {}))?;
    let _ = line.set(seat.line.clone());
    if seat.has_timeline {
        timeline::turn_on();
    }
    let seat = Seat { ray: seat.ray, segment: seat.segment, line: seat.line };
    Worker::new(seat.clone(), inbox).work();
    seat.line.flush(FLUSH_TIMEOUT);
    Ok(())
}

/// Sends what ran when; a worker is ended without being asked once more.
fn give_events(line: &Line, request: u64) {
    for events in timeline::take(request) {
        let _ = line.send(events);
    }
}

/// A worker that is in.
#[derive(Clone)]
pub(crate) struct Seat {
    /// What its calls submit to.
    pub(crate) ray: Raylet,
    pub(crate) segment: Segment,
    pub(crate) line: Arc<Line>,
}

impl Seat {
    /// Says something to the raylet. Where that has ended, so has this process, soon.
    pub(crate) fn say(&self, message: impl Into<Message>) {
        let _ = self.line.send(message);
    }

    /// By which number a sweeper knows this process.
    pub(crate) fn me(&self) -> u16 {
        self.ray.store().client().number
    }
}

/// What a worker works with.
struct Worker {
    seat: Seat,
    inbox: Arc<Inbox>,
    runner: Runner,
    spin: Spin,
    environment: Environment,
}

impl Worker {
    fn new(seat: Seat, inbox: Arc<Inbox>) -> Worker {
        let runner = Runner::new(&seat.ray);
        Worker { seat, inbox, runner, spin: Spin::new(), environment: Environment::default() }
    }

    /// Does what the raylet says, until it has been an actor or is to end.
    fn work(&mut self) {
        self.seat.say(WorkerReady {});
        loop {
            match self.inbox.wait() {
                Message::Grant(grant) => self.serve(&grant),
                Message::RunTask(task) => self.run(&task),
                Message::RunActor(actor) => return self.become_actor(&actor),
                Message::EndWorker(_) => return,
                // Late: a lease that has been returned, a task that is done.
                _ => {}
            }
        }
    }

    fn serve(&mut self, grant: &Grant) {
        let Worker { seat, inbox, runner, spin, environment } = self;
        environment.show_gpus(grant.gpus.as_deref());
        let queue = match seat.segment.queue(grant.offset) {
            Ok(queue) => queue,
            Err(error) => {
                eprintln!("raylet: queue {} cannot be served: {error}", grant.queue);
                return seat.say(LeaseReturned { queue: grant.queue, calls: 0, has_queued: false });
            }
        };
        let say = |message: Message| {
            let is_pause = matches!(message, Message::LeaseIdle(_) | Message::LeaseReturned(_));
            if is_pause && timeline::has_any() {
                give_events(&seat.line, UNASKED);
            }
            seat.say(message);
        };
        Lease::new(grant, &queue, seat.me(), inbox, spin, &say)
            .serve(|claimed| runner.run(&claimed.payload, u32::from(claimed.attempt())));
    }

    fn run(&mut self, task: &RunTask) {
        self.environment.show_gpus(task.gpus.as_deref());
        self.runner.run(&task.words, task.attempt.saturating_sub(1));
        self.seat.say(TaskDone { task: task.task, retry: false });
        if timeline::has_many() {
            give_events(&self.seat.line, UNASKED);
        }
    }

    fn become_actor(&mut self, actor: &RunActor) {
        self.environment.show_gpus(actor.gpus.as_deref());
        actor::host(&self.seat, &self.inbox, actor);
    }
}
