//! All that the rim has to do.
//!
//! The one thing to know: effects are carried out in order, and each may be done late: the core
//! counts a worker as killed when it is told that it died. This file must not decide anything.

use crate::ids::{ActorId, DriverId, EnvId, GroupId, JobId, QueueId, TaskId, WorkerId};
use crate::resources::{BadResources, GpuShare, Resources};
use serde::{Deserialize, Serialize};

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Request {
    /// A call through the raylet.
    Task(TaskId),
    /// A queue that wants workers.
    Queue(QueueId),
    /// An actor to create.
    Actor(ActorId),
    /// A group to reserve.
    Group(GroupId),
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The number is taken.
    #[error("this number is in use already")]
    DuplicateId,
    /// The queue was of another class, job or caller.
    #[error("the queue is known with another class, job or caller")]
    OtherQueue,
    /// No such job, or it is over.
    #[error("{job} is over or never was")]
    JobOver {
        /// The job.
        job: JobId,
    },
    /// The worker that asks is dead or about to be.
    #[error("{worker}, who asks, is gone")]
    CallerGone {
        /// The worker.
        worker: WorkerId,
    },
    /// No such group, bundle, or it is being removed.
    #[error("{group} has no such bundle or is removed")]
    NoSuchBundle {
        /// The group.
        group: GroupId,
    },
    /// A group of nothing.
    #[error("a placement group without bundles")]
    NoBundles,
    /// A demand that cannot mean anything.
    #[error(transparent)]
    BadResources(BadResources),
    /// A limit of the configuration.
    #[error("{live} are there already, the limit is {limit}")]
    TooMany {
        /// How many there are.
        live: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The name belongs to another.
    #[error("the name is taken by {by}")]
    NameTaken {
        /// Who has it.
        by: ActorId,
    },
    /// Every worker is blocked or an actor, and there may be no more of them.
    #[error("all {workers} workers are blocked ({blocked}) or actors ({actors}); the limit is {limit}")]
    WorkerCapReached {
        /// Workers there are.
        workers: u32,
        /// Of them blocked.
        blocked: u32,
        /// Of them actors.
        actors: u32,
        /// The limit.
        limit: u32,
    },
    /// Workers of this environment die before they are ready.
    #[error("{failures} workers of {env} in a row died before they were ready")]
    WorkersDoNotStart {
        /// The environment.
        env: EnvId,
        /// How many.
        failures: u32,
    },
    /// Its zygote dies again and again, or cannot be started.
    #[error("the zygote of {env} does not stay alive: {deaths} deaths in a row")]
    ZygoteDoesNotStart {
        /// The environment.
        env: EnvId,
        /// How many deaths; 0 if it could not even be started.
        deaths: u32,
    },
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskEnd {
    /// The worker sealed the results.
    Finished,
    /// The worker sealed the error.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its workers died, the last attempt too.
    WorkerCrashed {
        /// Attempts in all.
        attempts: u32,
    },
    /// Its job is over.
    JobOver,
    /// Its submitter is gone and nobody refers to the result.
    CallerGone,
    /// Its placement group was removed.
    GroupRemoved {
        /// The group.
        group: GroupId,
    },
    /// It cannot run.
    Refused(Refusal),
}

/// Why an actor is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeathCause {
    /// Its worker died, and it has no restart left.
    WorkerDied {
        /// How often it was restarted.
        restarts: u32,
    },
    /// Its constructor failed.
    CreationFailed,
    /// Somebody killed it.
    Killed,
    /// It ended itself.
    Exited,
    /// Nobody has a handle any more.
    HandlesGone,
    /// Its job is over.
    JobOver,
    /// Its placement group was removed.
    GroupRemoved {
        /// The group.
        group: GroupId,
    },
    /// It cannot be created.
    Refused(Refusal),
}

/// Why a worker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillReason {
    /// Nobody needs it.
    Idle,
    /// It was not ready in time.
    NotReady,
    /// It ran as many calls as it may.
    CallsDone,
    /// A worker of another environment is needed, and there may be no more.
    RoomNeeded,
    /// What it runs was cancelled by force.
    Cancelled,
    /// Its actor is dead or to be restarted.
    Actor,
    /// The job it works for is over.
    JobOver,
    /// The placement group it runs in was removed.
    GroupRemoved,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Tell the driver its job.
    JobStarted {
        /// Its connection.
        driver: DriverId,
        /// Its job.
        job: JobId,
    },
    /// Nothing of the job is left.
    JobEnded {
        /// The job.
        job: JobId,
    },
    /// Tell the asker that its request was not even queued.
    Refuse {
        /// Who asked.
        request: Request,
        /// Why not.
        refusal: Refusal,
    },
    /// Tell the asker that the machine is too small; the request waits all the same.
    Infeasible {
        /// Who asked.
        request: Request,
        /// For how much.
        wanted: Resources,
        /// How much there is.
        capacity: Resources,
    },
    /// Tell the asker that nothing that has to end by itself holds what its request waits for.
    Stuck {
        /// Who asked.
        request: Request,
        /// For how much.
        wanted: Resources,
        /// How much is free.
        free: Resources,
        /// How much there is.
        capacity: Resources,
    },
    /// Send the task to the worker.
    RunTask {
        /// The task.
        task: TaskId,
        /// The worker.
        worker: WorkerId,
        /// Which attempt, from 1.
        attempt: u32,
        /// Its GPUs.
        gpus: Vec<GpuShare>,
    },
    /// Interrupt the worker if it still runs the task.
    InterruptTask {
        /// The task.
        task: TaskId,
        /// The worker.
        worker: WorkerId,
    },
    /// The task is over; seal the error unless it finished or failed by itself.
    TaskEnded {
        /// The task.
        task: TaskId,
        /// How.
        end: TaskEnd,
    },
    /// The worker may claim records of the queue.
    Grant {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
        /// Its GPUs.
        gpus: Vec<GpuShare>,
    },
    /// The worker is to let go of the queue after the record that it runs.
    Withdraw {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
    },
    /// A leased worker is dead: queue again, or fail, what it had claimed.
    LeaseLost {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
    },
    /// Nobody serves the queue any more, ever: fail what is in it.
    QueueEnded {
        /// The queue.
        queue: QueueId,
        /// How its records end.
        end: TaskEnd,
    },
    /// Start the environment's zygote.
    StartZygote {
        /// The environment.
        env: EnvId,
    },
    /// Let the zygote fork.
    StartWorker {
        /// What the worker is called.
        worker: WorkerId,
        /// Of which environment.
        env: EnvId,
    },
    /// End the worker, and everything in its process group.
    KillWorker {
        /// The worker.
        worker: WorkerId,
        /// Why.
        reason: KillReason,
    },
    /// Send the constructor to the worker.
    RunActor {
        /// The actor.
        actor: ActorId,
        /// The worker.
        worker: WorkerId,
        /// How often it was restarted.
        restarts: u32,
        /// Its GPUs.
        gpus: Vec<GpuShare>,
    },
    /// The actor takes calls.
    ActorAlive {
        /// The actor.
        actor: ActorId,
        /// Its worker.
        worker: WorkerId,
    },
    /// The actor's worker died; it will come back.
    ActorRestarting {
        /// The actor.
        actor: ActorId,
        /// How often it was restarted, this time included.
        restarts: u32,
    },
    /// Let the actor end after the calls that are queued.
    EndActor {
        /// The actor.
        actor: ActorId,
        /// Its worker.
        worker: WorkerId,
    },
    /// The actor takes no calls, ever.
    ActorDead {
        /// The actor.
        actor: ActorId,
        /// Why.
        cause: DeathCause,
    },
    /// The name belongs to an actor, and the asker wants that one.
    ActorExists {
        /// What was to be created.
        actor: ActorId,
        /// What there is.
        existing: ActorId,
    },
    /// The group's bundles are reserved.
    GroupReady {
        /// The group.
        group: GroupId,
    },
    /// The group is gone and its resources are back.
    GroupRemoved {
        /// The group.
        group: GroupId,
    },
}
