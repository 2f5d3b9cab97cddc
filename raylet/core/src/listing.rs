//! What there is, for people and programs that look inside.
//!
//! The one thing to know: rows are plain copies, in order of their numbers. This file must not
//! change anything.

use crate::actors::ActorState;
use crate::effect::DeathCause;
use crate::event::{ActorName, ClassSpec, Strategy};
use crate::groups::GroupState;
use crate::ids::{ActorId, Caller, DriverId, EnvId, GroupId, JobId, QueueId, TaskId, WorkerId};
use crate::leases::QueueState;
use crate::node::Node;
use crate::pool::{Phase, Worker};
use crate::resources::{GpuShare, Resources};
use crate::tasks::TaskState;
use serde::{Deserialize, Serialize};

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Arguments are not sealed yet.
    PendingArgsAvail,
    /// Its turn has not come.
    PendingNodeAssignment,
    /// A worker has it.
    Running,
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its number.
    pub task: TaskId,
    /// Whose.
    pub job: JobId,
    /// Who submitted it.
    pub caller: Caller,
    /// Where it is.
    pub status: TaskStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// Who runs it.
    pub worker: Option<WorkerId>,
    /// Its class.
    pub class: ClassSpec,
}

/// Where an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActorStatus {
    /// Arguments are not sealed yet.
    DependenciesUnready,
    /// It was never alive so far.
    PendingCreation,
    /// It takes calls.
    Alive,
    /// It was alive and will be again.
    Restarting,
    /// It takes no calls, ever.
    Dead,
}

/// An actor, for a while also a dead one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorRow {
    /// Its number.
    pub actor: ActorId,
    /// Whose.
    pub job: JobId,
    /// Its name.
    pub name: Option<ActorName>,
    /// It outlives its job.
    pub is_detached: bool,
    /// Where it is.
    pub status: ActorStatus,
    /// Why it is dead.
    pub cause: Option<DeathCause>,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its worker.
    pub worker: Option<WorkerId>,
    /// What it holds while it lives.
    pub running: Resources,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerStatus {
    /// Its fork is under way.
    Starting,
    /// Nothing.
    Idle,
    /// A task of the raylet's.
    Task(TaskId),
    /// Records of a queue.
    Leased(QueueId),
    /// It is an actor.
    Actor(ActorId),
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: WorkerId,
    /// Of which environment.
    pub env: EnvId,
    /// What it does.
    pub status: WorkerStatus,
    /// It sleeps in `get`.
    pub is_blocked: bool,
    /// It was asked for its life.
    pub is_stopping: bool,
    /// Calls it has run, as far as reported.
    pub calls: u32,
    /// What it holds; its CPU is lent out while it is blocked.
    pub holds: Resources,
    /// GPUs of it.
    pub gpus: Vec<GpuShare>,
}

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupStatus {
    /// Not reserved yet.
    Pending,
    /// Reserved.
    Created,
    /// What runs in it is being ended.
    Removed,
}

/// A placement group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its number.
    pub group: GroupId,
    /// Whose.
    pub job: JobId,
    /// Where it is.
    pub status: GroupStatus,
    /// How the bundles lie to each other.
    pub strategy: Strategy,
    /// What is reserved.
    pub bundles: Vec<Resources>,
    /// What of each bundle is in use.
    pub used: Vec<Resources>,
}

/// Where a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum QueueStatus {
    /// Its caller lives.
    Open,
    /// Its caller is gone; others want what is in it.
    Orphan,
    /// Its workers are to let go.
    Closed,
}

/// A direct caller's queue and the workers leased to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Its number.
    pub queue: QueueId,
    /// Whose.
    pub job: JobId,
    /// Who submits into it.
    pub caller: Caller,
    /// Where it is.
    pub status: QueueStatus,
    /// Workers its caller wants.
    pub wanted: u32,
    /// Records in it, when last heard of.
    pub backlog: u32,
    /// Workers it has, those included that are to let go.
    pub leases: Vec<WorkerId>,
    /// Its class.
    pub class: ClassSpec,
}

/// A job that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its number.
    pub job: JobId,
    /// Its driver.
    pub driver: DriverId,
    /// The driver is gone, something of it goes on.
    pub has_left: bool,
    /// Tasks, live actors, groups and queues.
    pub parts: u32,
}

/// How much there is, and how much of it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// All there is.
    pub capacity: Resources,
    /// In use or reserved; its CPU may be above the capacity while woken workers run.
    pub taken: Resources,
    /// Tasks accepted so far.
    pub tasks_submitted: u64,
    /// Tasks that ended so far.
    pub tasks_ended: u64,
}

impl Node {
    /// All tasks that have not ended.
    pub fn tasks(&self) -> impl Iterator<Item = TaskRow> {
        self.tasks_from(TaskId(0))
    }

    /// The tasks from this number on, so that a page costs as much as it shows.
    pub fn tasks_from(&self, first: TaskId) -> impl Iterator<Item = TaskRow> {
        self.tasks.range(first..).map(|(id, task)| {
            let (status, worker) = match task.state {
                TaskState::Waiting => (TaskStatus::PendingArgsAvail, None),
                TaskState::Ready => (TaskStatus::PendingNodeAssignment, None),
                TaskState::Running(worker) => (TaskStatus::Running, Some(worker)),
            };
            let class = (*self.classes.class(task.class).spec).clone();
            TaskRow { task: *id, job: task.job, caller: task.caller, status, attempts: task.attempts, worker, class }
        })
    }

    /// All actors, the last dead ones included.
    pub fn actors(&self) -> impl Iterator<Item = ActorRow> {
        self.actors_from(ActorId(0))
    }

    /// The actors from this number on.
    pub fn actors_from(&self, first: ActorId) -> impl Iterator<Item = ActorRow> {
        self.actors.all.range(first..).map(|(id, actor)| {
            let is_new = actor.restarts == 0;
            let coming = if is_new { ActorStatus::PendingCreation } else { ActorStatus::Restarting };
            let (status, worker, cause) = match actor.state {
                ActorState::Waiting => (ActorStatus::DependenciesUnready, None, None),
                ActorState::Ready(_) => (coming, None, None),
                ActorState::Creating(worker) => (coming, Some(worker), None),
                ActorState::Alive(worker) => (ActorStatus::Alive, Some(worker), None),
                ActorState::Dead(cause) => (ActorStatus::Dead, None, Some(cause)),
            };
            ActorRow {
                actor: *id,
                job: actor.job,
                name: actor.name.clone(),
                is_detached: actor.is_detached,
                status,
                cause,
                restarts: actor.restarts,
                worker,
                running: actor.running.clone(),
            }
        })
    }

    /// All workers.
    pub fn workers(&self) -> impl Iterator<Item = WorkerRow> {
        self.pool.workers.iter().map(|(id, worker)| WorkerRow {
            worker: *id,
            env: worker.env,
            status: worker_status(worker),
            is_blocked: worker.is_blocked,
            is_stopping: worker.is_stopping,
            calls: worker.calls,
            holds: worker.held.as_ref().map(|(_, holding)| holding.amounts.clone()).unwrap_or_default(),
            gpus: worker.gpus(),
        })
    }

    /// All placement groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupRow> {
        self.groups.iter().map(|(id, group)| GroupRow {
            group: *id,
            job: group.job,
            status: match group.state {
                GroupState::Pending(_) => GroupStatus::Pending,
                GroupState::Ready(_) => GroupStatus::Created,
                GroupState::Removing(_) => GroupStatus::Removed,
            },
            strategy: group.strategy,
            bundles: group.bundles.clone(),
            used: group.reserved().iter().map(|bundle| bundle.ledger.taken().clone()).collect(),
        })
    }

    /// All queues with their leases.
    pub fn queues(&self) -> impl Iterator<Item = QueueRow> {
        self.queues_from(QueueId(0))
    }

    /// The queues from this number on.
    pub fn queues_from(&self, first: QueueId) -> impl Iterator<Item = QueueRow> {
        self.queues.range(first..).map(|(id, queue)| QueueRow {
            queue: *id,
            job: queue.job,
            caller: queue.caller,
            status: match queue.state {
                QueueState::Open => QueueStatus::Open,
                QueueState::Orphan => QueueStatus::Orphan,
                QueueState::Closed => QueueStatus::Closed,
            },
            wanted: queue.wanted,
            backlog: queue.backlog,
            leases: queue.leases.iter().copied().collect(),
            class: (*self.classes.class(queue.class).spec).clone(),
        })
    }

    /// All jobs that are not over.
    pub fn jobs(&self) -> impl Iterator<Item = JobRow> {
        self.jobs.iter().map(|(id, job)| JobRow {
            job: *id,
            driver: job.driver,
            has_left: job.has_left,
            parts: job.parts,
        })
    }

    /// The machine's resources.
    pub fn resources(&self) -> ResourceRow {
        ResourceRow {
            capacity: self.ledger.capacity().clone(),
            taken: self.ledger.taken().clone(),
            tasks_submitted: self.submitted,
            tasks_ended: self.ended,
        }
    }
}

fn worker_status(worker: &Worker) -> WorkerStatus {
    match worker.phase {
        Phase::Starting => WorkerStatus::Starting,
        Phase::Idle { .. } => WorkerStatus::Idle,
        Phase::Task(task) => WorkerStatus::Task(task),
        Phase::Leased(lease) => WorkerStatus::Leased(lease.queue),
        Phase::Actor(actor) => WorkerStatus::Actor(actor),
    }
}
