//! Calls through the raylet: from submission to their one end.
//!
//! The one thing to know: a task waits for arguments, stands in its lane, or runs on one worker, and
//! leaves this table with exactly one [`Effect::TaskEnded`]. A retry keeps its turn, so it goes
//! before what became ready later. This file must not choose who runs next.
//!
//! ```text
//!  Submit --> Waiting --ArgumentReady--> Ready --dispatch--> Running --> ended
//!                                          ^                    |
//!                                          +--- died, retry ----+
//! ```

use crate::arguments::Waiter;
use crate::effect::{Effect, KillReason, Refusal, Request, TaskEnd};
use crate::event::{StillWanted, TaskSpec};
use crate::ids::{Caller, ClassId, JobId, ObjectKey, TaskId, WorkerId};
use crate::jobs::{Item, Turn};
use crate::node::Node;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    Waiting,
    Ready,
    Running(WorkerId),
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: JobId,
    pub(crate) caller: Caller,
    pub(crate) class: ClassId,
    pub(crate) retries_max: i32,
    pub(crate) attempts: u32,
    pub(crate) turn: Option<Turn>,
    pub(crate) state: TaskState,
    /// How it ends if the attempt under way does not finish it.
    pub(crate) doom: Option<Box<TaskEnd>>,
}

impl Task {
    fn new(spec: &TaskSpec, class: ClassId) -> Self {
        Self {
            job: spec.job,
            caller: spec.caller,
            class,
            retries_max: spec.retries_max,
            attempts: 0,
            turn: None,
            state: TaskState::Waiting,
            doom: None,
        }
    }

    fn may_retry(&self) -> bool {
        self.retries_max < 0 || i64::from(self.attempts) <= i64::from(self.retries_max)
    }
}

impl Node {
    pub(crate) fn on_submit(&mut self, spec: TaskSpec, effects: &mut Vec<Effect>) {
        if let Err(refusal) = self.admit_task(&spec) {
            effects.push(Effect::Refuse { request: Request::Task(spec.task), refusal });
            return;
        }
        let class = self.classes.intern(spec.class.clone(), &self.ledger);
        self.tasks.insert(spec.task, Task::new(&spec, class));
        self.submitted += 1;
        self.part_added(spec.job);
        self.caller_submitted(spec.caller);
        if spec.waits_for.is_empty() {
            self.task_ready(spec.task, effects);
        } else {
            self.arguments.wait(Waiter::Task(spec.task), &spec.waits_for);
        }
    }

    fn admit_task(&self, spec: &TaskSpec) -> Result<(), Refusal> {
        if self.tasks.contains_key(&spec.task) {
            return Err(Refusal::DuplicateId);
        }
        Self::below(self.tasks.len(), self.config.tasks_max)?;
        self.admit(spec.job, spec.caller, &spec.class)
    }

    pub(crate) fn on_argument_ready(&mut self, object: ObjectKey, effects: &mut Vec<Effect>) {
        for waiter in self.arguments.ready(object) {
            match waiter {
                Waiter::Task(task) => self.task_ready(task, effects),
                Waiter::Actor(actor) => self.actor_ready_to_place(actor, effects),
            }
        }
    }

    fn task_ready(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let task = self.tasks.get_mut(&id).expect("N4: a task that is made ready is known");
        task.state = TaskState::Ready;
        let (job, class, turn, attempts) = (task.job, task.class, task.turn, task.attempts);
        let turn = self.stand_in_line(job, class, turn, Item::Task(id));
        self.tasks.get_mut(&id).expect("it was there").turn = Some(turn);
        if attempts == 0 {
            self.report_infeasible(Request::Task(id), class, effects);
        }
    }

    /// The task's turn has come; `worker` holds what it needs.
    pub(crate) fn run_task(&mut self, id: TaskId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let gpus = self.pool.worker(worker).gpus();
        let task = self.tasks.get_mut(&id).expect("N4: a task in line is known");
        task.state = TaskState::Running(worker);
        task.attempts += 1;
        effects.push(Effect::RunTask { task: id, worker, attempt: task.attempts, gpus });
    }

    pub(crate) fn on_task_finished(&mut self, id: TaskId, worker: WorkerId, effects: &mut Vec<Effect>) {
        if self.runs(id, worker) {
            self.release_worker(worker, 1, effects);
            self.end_task(id, TaskEnd::Finished, effects);
        }
    }

    pub(crate) fn on_task_failed(&mut self, id: TaskId, worker: WorkerId, retry: bool, effects: &mut Vec<Effect>) {
        if self.runs(id, worker) {
            self.release_worker(worker, 1, effects);
            self.attempt_over(id, retry, TaskEnd::Failed, effects);
        }
    }

    pub(crate) fn task_lost_worker(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let attempts = self.tasks.get(&id).expect("N2: a worker's task is known").attempts;
        self.attempt_over(id, true, TaskEnd::WorkerCrashed { attempts }, effects);
    }

    fn attempt_over(&mut self, id: TaskId, retry: bool, end: TaskEnd, effects: &mut Vec<Effect>) {
        let task = self.tasks.get_mut(&id).expect("N2: a worker's task is known");
        match task.doom.take() {
            Some(doom) => self.end_task(id, *doom, effects),
            None if retry && task.may_retry() => self.task_ready(id, effects),
            None => self.end_task(id, end, effects),
        }
    }

    fn runs(&self, id: TaskId, worker: WorkerId) -> bool {
        self.tasks.get(&id).is_some_and(|task| task.state == TaskState::Running(worker))
    }

    pub(crate) fn on_cancel(&mut self, id: TaskId, force: bool, effects: &mut Vec<Effect>) {
        let kill = force.then_some(KillReason::Cancelled);
        self.doom_task(id, TaskEnd::Cancelled, kill, effects);
    }

    /// Ends a task: at once if no worker has it, else when its worker reports or dies.
    pub(crate) fn doom_task(&mut self, id: TaskId, end: TaskEnd, kill: Option<KillReason>, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let TaskState::Running(worker) = task.state else {
            self.end_task(id, end, effects);
            return;
        };
        let is_first = task.doom.is_none();
        task.doom.get_or_insert(Box::new(end));
        match kill {
            Some(reason) => self.kill(worker, reason, effects),
            None if is_first => effects.push(Effect::InterruptTask { task: id, worker }),
            None => {}
        }
    }

    pub(crate) fn end_tasks_of(
        &mut self,
        is_over: impl Fn(&Task) -> bool,
        wanted: &StillWanted,
        end: TaskEnd,
        kill: Option<KillReason>,
        effects: &mut Vec<Effect>,
    ) {
        let wanted = wanted.tasks.iter().copied().collect::<BTreeSet<_>>();
        let over = self.tasks.iter().filter(|(_, task)| is_over(task)).map(|(id, _)| *id);
        let over = over.filter(|id| !wanted.contains(id)).collect::<Vec<_>>();
        for id in over {
            self.doom_task(id, end, kill, effects);
        }
    }

    /// The task leaves the table.
    fn end_task(&mut self, id: TaskId, end: TaskEnd, effects: &mut Vec<Effect>) {
        let task = self.tasks.remove(&id).expect("N4: a task ends once");
        match task.state {
            TaskState::Waiting => self.arguments.forget(Waiter::Task(id)),
            TaskState::Ready => self.leave_line(task.job, task.class, task.turn.expect("N3: it stands in line")),
            TaskState::Running(_) => {}
        }
        self.ended += 1;
        self.caller_served(task.caller);
        effects.push(Effect::TaskEnded { task: id, end });
        self.part_gone(task.job, effects);
    }
}
