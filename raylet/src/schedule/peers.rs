//! Drivers and workers: who they are, and which message goes to which file.
//!
//! The one thing to know: a number in a message is an allegation. A queue, task or actor is looked up
//! together with who asks; what does not fit is ignored, as a peer may be late or wrong. This file must
//! not do what messages ask for.

use super::deaths::id;
use super::envs::Env;
use super::line::{LineId, Outbound};
use super::words::{infeasible, stuck};
use super::{Input, Scheduler};
use crate::pool::Exit;
use raylet_api::message::{Error, ErrorCode, Message};
use raylet_api::record::{ObjectKey, Record};
use raylet_api::{Notice, ProgramWish, Want};
use raylet_core::effect::Request;
use raylet_core::event::Event;
use raylet_core::ids::{ActorId, Caller, DriverId, EnvId, JobId, QueueId, WorkerId};
use raylet_core::resources::Resources;
use std::collections::BTreeSet;
use std::fs::File;
use store::ClientId;
use store_shm::ProcessId;

/// A driver or worker that has said hello.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) line: LineId,
    pub(crate) client: ClientId,
    pub(crate) pid: u32,
    /// The number that it is told as its job's.
    pub(crate) job: u32,
    pub(crate) want: Want,
    /// A worker's number, as it says.
    pub(crate) worker: Option<u64>,
    /// What a driver's workers are started from.
    pub(crate) program: ProgramWish,
    /// The executable that a driver runs.
    pub(crate) executable: Option<File>,
    pub(crate) out: Outbound,
}

/// Who is at the other end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Driver(EnvId),
    Worker(WorkerId),
}

/// The other end of a line.
pub(super) struct Peer {
    pub(super) who: Who,
    pub(super) client: ClientId,
    pub(super) pid: u32,
    pub(super) out: Outbound,
    /// The store says so.
    pub(super) is_dead: bool,
    /// Nothing more comes from it.
    pub(super) is_closed: bool,
    /// Queues that it submits into.
    pub(super) queues: BTreeSet<u64>,
}

/// A driver that is not buried.
pub(super) struct Driver {
    pub(super) line: LineId,
    pub(super) job: Option<JobId>,
    /// Lines of its workers that it did not read, since the last that it was sent.
    pub(super) dropped_lines: u64,
}

/// A worker, from the wish for its fork until it is buried.
pub(super) struct WorkerRow {
    pub(super) env: EnvId,
    pub(super) line: Option<LineId>,
    pub(super) process: Option<ProcessId>,
    pub(super) exit: Option<Exit>,
    pub(super) is_ready: bool,
    /// It is killed for not being ready in time.
    pub(super) is_late: bool,
    /// Its process and group are gone, or never were.
    pub(super) is_gone: bool,
    /// Queues that it may claim from.
    pub(super) serves: BTreeSet<u64>,
    pub(super) actor: Option<ActorId>,
    /// The key of what it runs, or ran last.
    pub(super) runs: Option<u64>,
    /// What it says that its lines are to be labelled with, where it says so itself.
    pub(super) label: Option<String>,
    /// Tasks that it is killed for, with all that they submitted: their first results.
    pub(super) cancelled: Vec<ObjectKey>,
    /// The first result of the task that it is killed for, which is not tried again.
    pub(super) killed_for: Option<ObjectKey>,
}

impl WorkerRow {
    pub(super) fn new(env: EnvId) -> WorkerRow {
        WorkerRow {
            env,
            line: None,
            process: None,
            exit: None,
            is_ready: false,
            is_late: false,
            is_gone: false,
            serves: BTreeSet::new(),
            actor: None,
            runs: None,
            label: None,
            cancelled: Vec::new(),
            killed_for: None,
        }
    }
}

impl Scheduler {
    pub(super) fn on_input(&mut self, input: Input) {
        match input {
            Input::Joined(joined) => self.on_joined(*joined),
            Input::Said { line, message } => self.on_message(line, *message),
            Input::Closed { line, has_never_joined } => self.on_closed(line, has_never_joined),
            Input::Question(question) => self.on_question(*question),
        }
    }

    fn on_joined(&mut self, joined: Joined) {
        match (joined.want, joined.worker) {
            (Want::Driver, _) => self.driver_joined(joined),
            (_, worker) => self.worker_joined(joined, WorkerId(worker.unwrap_or(u64::MAX))),
        }
    }

    fn driver_joined(&mut self, joined: Joined) {
        let env = EnvId(self.next_env);
        self.next_env += 1;
        let Joined { line, client, pid, job: number, program, executable, out, .. } = joined;
        self.envs.insert(env, Env::new(number, &program, executable));
        self.drivers.insert(env, Driver { line, job: None, dropped_lines: 0 });
        self.add_peer(line, Who::Driver(env), client, pid, out);
        self.step(Event::DriverJoined { driver: DriverId(env.0), env });
    }

    pub(super) fn job_started(&mut self, env: EnvId, job: JobId) {
        self.jobs.insert(job, env);
        if let Some(driver) = self.drivers.get_mut(&env) {
            driver.job = Some(job);
        }
    }

    fn worker_joined(&mut self, joined: Joined, worker: WorkerId) {
        let Joined { line, client, pid, out, .. } = joined;
        let is_it = |row: &&mut WorkerRow| {
            row.line.is_none() && !row.is_gone && row.process.is_none_or(|process| process.pid == pid)
        };
        match self.workers.get_mut(&worker).filter(is_it) {
            Some(row) => {
                row.line = Some(line);
                self.add_peer(line, Who::Worker(worker), client, pid, out);
            }
            None => {
                let text = format!("process {pid} says that it is worker {}, which it is not", worker.0);
                out.send(Error::new(ErrorCode::UnexpectedMessage, text, &[("worker", worker.0)]));
                self.early_dead.remove(&id(client));
                self.gate.let_go(client);
                self.store.sweep_again();
            }
        }
    }

    fn add_peer(&mut self, line: LineId, who: Who, client: ClientId, pid: u32, out: Outbound) {
        let (is_closed, queues) = (false, BTreeSet::new());
        let is_dead = self.early_dead.remove(&id(client));
        if is_dead {
            out.drain();
        }
        self.peers.insert(line, Peer { who, client, pid, out, is_dead, is_closed, queues });
    }

    pub(super) fn who(&self, line: LineId) -> Option<Who> {
        self.peers.get(&line).map(|peer| peer.who)
    }

    /// In whose name a line's end asks: job, caller, and where its workers come from.
    pub(super) fn asker(&self, line: LineId) -> Option<(JobId, Caller, EnvId)> {
        let (env, caller) = match self.who(line)? {
            Who::Driver(env) => (env, Caller::Driver),
            Who::Worker(worker) => (self.workers.get(&worker)?.env, Caller::Worker(worker)),
        };
        let job = self.jobs.iter().find(|(_, of)| **of == env).map(|(job, _)| *job)?;
        Some((job, caller, env))
    }

    /// The store's client that a worker is.
    pub(super) fn client_of(&self, worker: WorkerId) -> Option<ClientId> {
        let line = self.workers.get(&worker)?.line?;
        Some(self.peers.get(&line)?.client)
    }

    pub(super) fn send(&self, line: LineId, message: impl Into<Message>) {
        if let Some(peer) = self.peers.get(&line) {
            peer.out.send(message);
        }
    }

    pub(super) fn send_worker(&self, worker: WorkerId, message: impl Into<Message>) {
        if let Some(line) = self.workers.get(&worker).and_then(|row| row.line) {
            self.send(line, message);
        }
    }

    fn on_message(&mut self, line: LineId, message: Message) {
        if !self.peers.contains_key(&line) {
            return;
        }
        match message {
            Message::Events(events) => self.on_events(line, events),
            Message::OpenQueue(wish) => self.on_open_queue(line, &wish),
            Message::OpenActorQueue(wish) => self.on_open_actor_queue(line, &wish),
            Message::WantWorkers(wish) => self.on_want_workers(line, &wish),
            Message::CloseQueue(wish) => self.on_close_queue(line, &wish),
            Message::SubmitTask(task) => self.on_submit(line, task),
            Message::CancelTask(wish) => self.on_cancel(line, &wish),
            Message::KeepRecipe(said) => self.on_keep_recipe(line, said),
            Message::RemakeObject(wish) => self.on_remake(line, &wish),
            Message::CreateActor(wish) => self.on_create_actor(line, wish),
            Message::ReleasedActor(said) => self.look_at_handles(said.anchor),
            Message::KillActor(wish) => self.on_kill_actor(&wish),
            Message::FindActor(wish) => self.on_find_actor(line, wish),
            Message::AskActor(wish) => self.on_ask_actor(line, &wish),
            Message::CreateGroup(wish) => self.on_create_group(line, wish),
            Message::RemoveGroup(wish) => self.on_remove_group(&wish),
            Message::NameFunctions(said) => self.names.extend(said.names),
            message => self.on_worker_message(line, message),
        }
    }

    fn on_worker_message(&mut self, line: LineId, message: Message) {
        match message {
            Message::WorkerReady(_) => self.on_worker_ready(line),
            Message::Blocked(_) => self.on_worker(line, |worker| Event::WorkerBlocked { worker }),
            Message::Woken(_) => self.on_worker(line, |worker| Event::WorkerWoken { worker }),
            Message::LeaseIdle(said) => self.on_lease_idle(line, said.queue),
            Message::LeaseBusy(said) => self.on_lease_busy(line, said.queue),
            Message::LeaseReturned(said) => self.on_lease_returned(line, &said),
            Message::TaskDone(said) => self.on_task_done(line, &said),
            Message::QueueDropped(said) => self.on_queue_dropped(line, said.queue),
            Message::ActorReady(_) => self.on_actor_ready(line),
            Message::ActorFailed(said) => self.on_actor_failed(line, &said.error),
            Message::ActorExited(_) => self.on_actor_exited(line),
            other => self.send(line, crate::connection::unexpected(&other)),
        }
    }

    fn on_worker(&mut self, line: LineId, event: impl Fn(WorkerId) -> Event) {
        if let Some(Who::Worker(worker)) = self.who(line) {
            self.step(event(worker));
        }
    }

    fn on_worker_ready(&mut self, line: LineId) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        if let Some(row) = self.workers.get_mut(&worker) {
            row.is_ready = true;
        }
        self.step(Event::WorkerStarted { worker });
    }

    /// Tells the user that a request waits for a larger machine.
    pub(super) fn infeasible(&mut self, request: Request, wanted: &Resources, capacity: &Resources) {
        if let Some((line, what)) = self.asker_of(request) {
            self.notify(line, infeasible(&what, wanted, capacity));
        }
    }

    /// Tells the user that a request waits for what may never be given back.
    pub(super) fn stuck(&mut self, request: Request, wanted: &Resources, free: &Resources, capacity: &Resources) {
        if let Some((line, what)) = self.asker_of(request) {
            self.notify(line, stuck(&what, wanted, free, capacity));
        }
    }

    fn notify(&mut self, line: LineId, text: String) {
        tracing::info!(text, "to a user");
        self.send(line, Notice { text });
    }

    /// Who is to be told about a request, and what it is called.
    fn asker_of(&self, request: Request) -> Option<(LineId, String)> {
        match request {
            Request::Task(task) => {
                let call = self.calls.get(&task)?;
                Some((self.line_of_job(call.job)?, self.name_of(call.record.key)))
            }
            Request::Queue(QueueId(queue)) => {
                let row = self.queues.get(&queue)?;
                let first = row.queue.queued().find_map(|entry| Record::unpack(&entry.payload).ok());
                let name = first.map_or_else(|| "a task".to_owned(), |record| self.name_of(record.key));
                Some((self.line_of_job(row.job)?, name))
            }
            Request::Actor(actor) => {
                let row = self.actors.get(&actor)?;
                Some((self.line_of_job(row.job)?, format!("an actor of {}", self.name_of(row.class))))
            }
            Request::Group(group) => {
                let row = self.groups.get(&group)?;
                let name = if row.name.is_empty() {
                    "a placement group".to_owned()
                } else {
                    format!("the placement group {:?}", row.name)
                };
                Some((row.asker()?, name))
            }
        }
    }

    fn line_of_job(&self, job: JobId) -> Option<LineId> {
        Some(self.drivers.get(self.jobs.get(&job)?)?.line)
    }
}
