//! All that can happen, as the rim tells it.
//!
//! The one thing to know: events may be late or wrong (a worker that reports after it was killed, a
//! client that invents ids); one that does not fit the state is ignored or refused, never believed.
//! This file must not say what follows.

use crate::ids::{
    ActorId, Caller, DriverId, EnvId, FunctionGroup, GroupId, JobId, ObjectKey, QueueId, TaskId, WorkerId,
};
use crate::resources::Resources;
use serde::{Deserialize, Serialize};

/// Where something runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Placement {
    /// Anywhere on the machine.
    #[default]
    Machine,
    /// In what a group reserved.
    Group {
        /// The group.
        group: GroupId,
        /// Which of its bundles; any if absent.
        bundle: Option<u32>,
    },
}

/// A scheduling class: what may run on the same lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassSpec {
    /// The functions.
    pub function_group: FunctionGroup,
    /// What each worker needs while it runs one.
    pub demand: Resources,
    /// What workers it runs on.
    pub env: EnvId,
    /// Where.
    pub placement: Placement,
    /// After how many calls a worker ends; 0 is never.
    pub calls_max: u32,
}

impl ClassSpec {
    /// Whether its functions change the workers that they run on, which therefore run nothing else before
    /// or after. A function that counts its calls has a group by its key, but leaves nothing behind.
    pub fn has_own_workers(&self) -> bool {
        self.calls_max == 0 && self.function_group.0 & FunctionGroup::OWN_WORKERS != 0
    }
}

/// A call through the raylet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its number, never used before.
    pub task: TaskId,
    /// Whose work it is.
    pub job: JobId,
    /// Who submits it.
    pub caller: Caller,
    /// Its class.
    pub class: ClassSpec,
    /// Retries after the first attempt; -1 for ever.
    pub retries_max: i32,
    /// Arguments that are not sealed yet, each once.
    pub waits_for: Vec<ObjectKey>,
}

/// An actor to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSpec {
    /// Its number, never used before.
    pub actor: ActorId,
    /// Whose work it is.
    pub job: JobId,
    /// Who creates it.
    pub caller: Caller,
    /// The class its creation is scheduled in; `demand` is what must be free to place it.
    pub class: ClassSpec,
    /// What it holds for its life.
    pub running: Resources,
    /// Restarts; -1 for ever.
    pub restarts_max: i32,
    /// Its name, with the namespace.
    pub name: Option<ActorName>,
    /// If the name is taken, the caller wants that actor.
    pub get_if_exists: bool,
    /// It outlives its handles and its job.
    pub is_detached: bool,
    /// Arguments that are not sealed yet, each once.
    pub waits_for: Vec<ObjectKey>,
}

/// A name in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorName {
    /// Names in different namespaces have nothing to do with each other.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// How a group's bundles lie to each other. On one machine only the last is special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Close together if possible.
    Pack,
    /// Apart if possible.
    Spread,
    /// All on one machine.
    StrictPack,
    /// Each on a machine of its own: with more than one bundle infeasible here.
    StrictSpread,
}

/// A placement group to reserve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its number, never used before.
    pub group: GroupId,
    /// Whose work it is.
    pub job: JobId,
    /// Who creates it.
    pub caller: Caller,
    /// What to reserve, all or nothing.
    pub bundles: Vec<Resources>,
    /// How the bundles lie to each other.
    pub strategy: Strategy,
    /// It outlives its job.
    pub is_detached: bool,
}

/// A queue whose owner wants workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The queue.
    pub queue: QueueId,
    /// Whose work it is.
    pub job: JobId,
    /// Who submits into the queue.
    pub caller: Caller,
    /// The queue's class. Said again it must be the same.
    pub class: ClassSpec,
    /// Workers wanted at once, those it has included; blocked ones do not count.
    pub wanted: u32,
    /// Records that wait in the queue.
    pub backlog: u32,
}

/// What somebody who is gone submitted and others refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillWanted {
    /// Tasks that run on.
    pub tasks: Vec<TaskId>,
    /// Queues with records that run on.
    pub queues: Vec<QueueId>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A driver said hello; its workers will be of `env`.
    DriverJoined {
        /// Its connection.
        driver: DriverId,
        /// Where its workers come from, forked ahead of demand.
        env: EnvId,
    },
    /// A driver left or died.
    DriverLeft {
        /// Its job.
        job: JobId,
        /// What of its work others refer to.
        wanted: StillWanted,
    },
    /// A call through the raylet.
    Submit(TaskSpec),
    /// An object was sealed (or failed, which is sealed too).
    ArgumentReady {
        /// Which.
        object: ObjectKey,
    },
    /// A worker has sealed a task's results.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// Who ran it.
        worker: WorkerId,
    },
    /// A task ended in an application error.
    TaskFailed {
        /// The task.
        task: TaskId,
        /// Who ran it.
        worker: WorkerId,
        /// Whether the error is of those that are tried again.
        retry: bool,
    },
    /// Somebody wants a task not to run.
    Cancel {
        /// The task.
        task: TaskId,
        /// Kill the worker if it runs.
        force: bool,
    },
    /// A caller wants workers for its queue; said again whenever its wish changes.
    LeaseWanted(LeaseRequest),
    /// A leased worker found its queue empty.
    LeaseIdle {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
    },
    /// A leased worker has work again.
    LeaseBusy {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
    },
    /// A leased worker has let go of the queue, asked or by itself.
    LeaseReturned {
        /// The worker.
        worker: WorkerId,
        /// The queue.
        queue: QueueId,
        /// How many records it ran.
        calls: u32,
        /// Records that wait in the queue.
        backlog: u32,
    },
    /// A queue's owner needs it no more.
    QueueClosed {
        /// The queue.
        queue: QueueId,
    },
    /// A worker is ready.
    WorkerStarted {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's end is confirmed by the kernel, or it could not be forked.
    WorkerDied {
        /// The worker.
        worker: WorkerId,
        /// What of its submissions others refer to.
        wanted: StillWanted,
    },
    /// A worker sleeps in `get`.
    WorkerBlocked {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker woke up and runs.
    WorkerWoken {
        /// The worker.
        worker: WorkerId,
    },
    /// A zygote is ready to fork.
    ZygoteStarted {
        /// Its environment.
        env: EnvId,
    },
    /// A zygote died. Forks that were under way are reported as workers that died.
    ZygoteDied {
        /// Its environment.
        env: EnvId,
    },
    /// A zygote cannot be started at all.
    ZygoteFailed {
        /// Its environment.
        env: EnvId,
    },
    /// An actor is wanted.
    CreateActor(ActorSpec),
    /// An actor's constructor returned.
    ActorReady {
        /// The actor.
        actor: ActorId,
        /// Its worker.
        worker: WorkerId,
    },
    /// An actor's constructor failed with an application error.
    ActorFailed {
        /// The actor.
        actor: ActorId,
        /// Its worker.
        worker: WorkerId,
    },
    /// An actor ended itself, or ended because it was asked to after its last call.
    ActorExited {
        /// The actor.
        actor: ActorId,
        /// Its worker.
        worker: WorkerId,
    },
    /// Nobody has a handle of the actor any more.
    ActorHandlesGone {
        /// The actor.
        actor: ActorId,
    },
    /// Somebody wants the actor dead.
    KillActor {
        /// The actor.
        actor: ActorId,
        /// For good.
        no_restart: bool,
    },
    /// A placement group is wanted.
    CreateGroup(GroupSpec),
    /// A placement group is to go, and with it what runs in it.
    RemoveGroup {
        /// The group.
        group: GroupId,
    },
    /// Nothing but time passed.
    Tick,
}
