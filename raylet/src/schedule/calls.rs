//! Tasks through the raylet: taken in, handed to workers, ended.
//!
//! The one thing to know: what a task needs is held here from the moment it is taken in to its end, so
//! it depends on nobody; its results are not, so that nobody makes what nobody wants. Whoever runs it
//! seals them; what nobody ran, or nobody finished, gets its error here. This file must not choose who
//! runs what.

use super::leases::job_over;
use super::line::LineId;
use super::translate::{self, core_key, handle};
use super::words::task_failure;
use super::{Scheduler, Who};
use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_api::record::{Body, ObjectKey, RECORD_WORDS, Record};
use raylet_api::{CancelTask, InterruptTask, RunTask, SubmitTask, TaskDone};
use raylet_core::effect::{Refusal, TaskEnd};
use raylet_core::event::{ClassSpec, Event, TaskSpec};
use raylet_core::ids::{Caller, JobId, TaskId, WorkerId};
use raylet_core::resources::GpuShare;
use store::ObjectRef;
use store_shm::queue::Cancel;

/// A task that has not ended.
pub(super) struct Call {
    pub(super) words: [u64; RECORD_WORDS],
    pub(super) record: Record,
    /// Who submitted it.
    pub(super) line: LineId,
    pub(super) job: JobId,
    /// Its spec and what it waits for.
    _holds: Vec<ObjectRef>,
    /// Who has it.
    pub(super) worker: Option<WorkerId>,
    /// Attempts so far.
    pub(super) attempts: u32,
    /// How its last worker ended.
    pub(super) how: Option<String>,
    /// Whoever runs it when it is cancelled is to cancel what it submitted, too.
    ends_children: bool,
}

impl Scheduler {
    pub(super) fn on_submit(&mut self, line: LineId, task: SubmitTask) {
        let record = match Record::unpack(&task.words) {
            Ok(record) => record,
            Err(error) => return tracing::warn!(%error, line, "a task was dropped"),
        };
        let asked = self.asker(line).ok_or_else(job_over);
        let asked = asked.and_then(|(job, caller, env)| Ok((job, caller, self.class_of(&task.class, env)?)));
        let (job, caller, class) = match asked {
            Ok(asked) => asked,
            Err((_, text)) => {
                let failure = Failure::new(TaskErrorKind::Refused, self.name_of(record.key), text);
                return self.seal_record(&record, &failure);
            }
        };
        let Some(holds) = self.hold_all(&record, &task.waits_for) else { return self.lost(&record) };
        self.take_in(line, (job, caller, class), record, holds, &task.waits_for);
    }

    /// A call that is well said, with all that it needs.
    pub(super) fn take_in(
        &mut self,
        line: LineId,
        (job, caller, class): (JobId, Caller, ClassSpec),
        record: Record,
        holds: Vec<ObjectRef>,
        waits_for: &[ObjectKey],
    ) {
        let id = TaskId(self.next_call);
        self.next_call += 1;
        self.by_result.insert(record.result, id);
        let waits_for = self.await_all(waits_for);
        let (worker, attempts, how) = (None, 0, None);
        let words = record.pack();
        let call = Call { words, record, line, job, _holds: holds, worker, attempts, how, ends_children: false };
        self.calls.insert(id, call);
        let retries_max = i32::from(record.retries);
        self.step(Event::Submit(TaskSpec { task: id, job, caller, class, retries_max, waits_for }));
    }

    /// References to all that a call needs; `None` where something of it is gone.
    pub(super) fn hold_all(&self, record: &Record, waits_for: &[ObjectKey]) -> Option<Vec<ObjectRef>> {
        let spec = match record.body {
            Body::Spec(spec) => Some(spec),
            Body::Inline { .. } => None,
        };
        spec.iter().chain(waits_for).map(|&key| self.store.refer(handle(key))).collect()
    }

    /// Its arguments are gone: its submitter let go of them too early, or died.
    pub(super) fn lost(&mut self, record: &Record) {
        let text = "its arguments are gone: whoever submitted it is dead, or has let go of them";
        let failure = Failure::new(TaskErrorKind::ObjectLost, self.name_of(record.key), text);
        self.seal_record(record, &failure);
    }

    /// Those of these objects that have no value yet; they are watched from now on.
    pub(super) fn await_all(&mut self, objects: &[ObjectKey]) -> Vec<raylet_core::ids::ObjectKey> {
        let missing: Vec<ObjectKey> = objects.iter().copied().filter(|&object| !self.is_settled(object)).collect();
        self.awaited.add(&missing);
        missing.into_iter().map(core_key).collect()
    }

    pub(super) fn run_task(&mut self, id: TaskId, worker: WorkerId, attempt: u32, shares: &[GpuShare]) {
        let gpus = translate::gpus(shares, &self.gpu_names);
        let Some(call) = self.calls.get_mut(&id) else { return };
        (call.worker, call.attempts) = (Some(worker), attempt);
        let (words, key) = (call.words, call.record.key);
        if let Some(row) = self.workers.get_mut(&worker) {
            row.runs = Some(key);
        }
        self.counters.task_retries += u64::from(attempt > 1);
        self.send_worker(worker, RunTask { task: id.0, attempt, words, gpus });
    }

    pub(super) fn on_task_done(&mut self, line: LineId, said: &TaskDone) {
        let Some(Who::Worker(worker)) = self.who(line) else { return };
        let task = TaskId(said.task);
        self.step(match said.retry {
            true => Event::TaskFailed { task, worker, retry: true },
            false => Event::TaskFinished { task, worker },
        });
    }

    pub(super) fn interrupt_task(&mut self, id: TaskId, worker: WorkerId) {
        let Some(call) = self.calls.get(&id) else { return };
        let (result, recursive) = (call.record.result, call.ends_children);
        self.send_worker(worker, InterruptTask { result, recursive });
    }

    /// The one end of a task: its results stand, or get their error.
    pub(super) fn task_ended(&mut self, id: TaskId, end: &TaskEnd) {
        let Some(call) = self.calls.remove(&id) else { return };
        if self.by_result.get(&call.record.result) == Some(&id) {
            self.by_result.remove(&call.record.result);
        }
        let is_done = matches!(end, TaskEnd::Finished | TaskEnd::Failed) && self.is_settled(call.record.result);
        if !is_done {
            let how = call.how.clone().or_else(|| self.trouble_of_job(call.job));
            let failure = task_failure(&self.name_of(call.record.key), end, how.as_deref());
            self.seal_record(&call.record, &failure);
        }
    }

    pub(super) fn task_refused(&mut self, id: TaskId, refusal: &Refusal) {
        self.task_ended(id, &TaskEnd::Refused(*refusal));
    }

    pub(super) fn on_cancel(&mut self, line: LineId, wish: &CancelTask) {
        match wish.only_children {
            true => self.cancel_calls_of(line, wish.result, false),
            false => self.cancel(Some(line), wish.result, wish.force, wish.recursive),
        }
    }

    /// Ends the call of this result, wherever it is, but for what is queued with the asker itself.
    fn cancel(&mut self, asker: Option<LineId>, result: ObjectKey, force: bool, recursive: bool) {
        if let Some(&task) = self.by_result.get(&result) {
            return self.cancel_call(task, force, recursive);
        }
        match self.claimer_of(result) {
            Some((worker, is_call)) => {
                let is_killed = force && !is_call;
                if recursive {
                    self.cancel_children_at(worker, result, is_killed);
                }
                if let (true, Some(row)) = (is_killed, self.workers.get_mut(&worker)) {
                    row.killed_for = Some(result);
                }
                match is_killed {
                    true => self.pool.kill_worker(worker.0),
                    false => self.send_worker(worker, InterruptTask { result, recursive }),
                }
            }
            None => self.cancel_queued(asker, result),
        }
    }

    fn cancel_call(&mut self, task: TaskId, force: bool, recursive: bool) {
        let Some(call) = self.calls.get_mut(&task) else { return };
        call.ends_children = recursive;
        if let (Some(worker), result, true) = (call.worker, call.record.result, recursive) {
            self.cancel_children_at(worker, result, force);
        }
        self.step(Event::Cancel { task, force });
    }

    /// Cancels what a worker has submitted for a task that runs there, as far as it can be seen from here.
    /// The worker sees to the rest when it is told; where it is killed, the rest shows once it is dead.
    fn cancel_children_at(&mut self, worker: WorkerId, parent: ObjectKey, is_killed: bool) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        if is_killed {
            row.cancelled.push(parent);
        }
        if let Some(line) = row.line {
            self.cancel_children(line, parent, is_killed);
        }
    }

    /// Cancels what a line's end submitted for a task.
    pub(super) fn cancel_children(&mut self, line: LineId, parent: ObjectKey, force: bool) {
        self.cancel_calls_of(line, parent, force);
        let queues = self.queues.values().filter(|row| row.line == line);
        let records = queues.flat_map(|row| {
            let lookers = row.lookers.iter().filter_map(|&worker| self.client_of(worker));
            let claimed = lookers.flat_map(|client| row.queue.claimed_by(client.number));
            let children = row.queue.queued().chain(claimed).filter_map(|entry| {
                let record = Record::unpack(&entry.payload).ok().filter(|record| record.parent == parent.mark())?;
                Some((record, entry.word.position))
            });
            children.map(|(record, position)| (row.queue.cancel(position) != Cancel::Cancelled, record))
        });
        let children: Vec<(bool, Record)> = records.collect();
        for (is_begun, record) in children {
            self.seal_cancelled(&record);
            if is_begun && record.results > 0 {
                self.cancel(None, record.result, force, true);
            }
        }
    }

    /// Cancels what a line's end submitted here for a task.
    fn cancel_calls_of(&mut self, line: LineId, parent: ObjectKey, force: bool) {
        let mark = parent.mark();
        let is_child = |call: &Call| call.line == line && call.record.parent == mark;
        let children = self.calls.iter().filter(|(_, call)| is_child(call));
        for (task, record) in children.map(|(&task, call)| (task, call.record)).collect::<Vec<_>>() {
            // At once: what runs may yet end with a value.
            self.seal_cancelled(&record);
            self.cancel_call(task, force, true);
        }
    }

    fn seal_cancelled(&mut self, record: &Record) {
        let failure = task_failure(&self.name_of(record.key), &TaskEnd::Cancelled, None);
        self.seal_record(record, &failure);
    }

    /// Who works on the record of this result, and whether it is an actor.
    fn claimer_of(&self, result: ObjectKey) -> Option<(WorkerId, bool)> {
        self.workers.iter().find_map(|(&worker, row)| {
            let client = self.peers.get(&row.line?)?.client;
            let queues = row.serves.iter().filter_map(|number| self.queues.get(number));
            let found = queues.filter(|queue| {
                let mut claimed = queue.queue.claimed_by(client.number);
                claimed.any(|entry| Record::unpack(&entry.payload).is_ok_and(|record| record.result == result))
            });
            found.map(|queue| (worker, queue.actor().is_some())).next()
        })
    }

    /// In another's queue: what is queued with the asker itself it has dealt with.
    fn cancel_queued(&mut self, asker: Option<LineId>, result: ObjectKey) {
        let others = self.queues.values().filter(|row| Some(row.line) != asker);
        let found = others.flat_map(|row| {
            let queued = row.queue.queued();
            queued.filter_map(move |entry| {
                let record = Record::unpack(&entry.payload).ok().filter(|record| record.result == result)?;
                Some((&row.queue, entry.word.position, record))
            })
        });
        let cancelled = found.map(|(queue, position, record)| (queue.cancel(position), record)).next();
        if let Some((Cancel::Cancelled, record)) = cancelled {
            self.seal_cancelled(&record);
        }
    }
}
