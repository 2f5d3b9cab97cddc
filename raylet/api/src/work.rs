//! The messages about work: queues, workers, actors, placement groups.
//!
//! The one thing to know: they go over the *control line*, the connection that a driver or worker
//! said `Hello` on and keeps for its life. Nothing that happens per task goes here on the direct
//! transport; a task through the raylet is one message each way. Whoever asks numbers its
//! `request`s, and the answer carries the number; answers may come in any order. This file must not
//! hold what two ends make of them.

use crate::record::{ObjectKey, RECORD_WORDS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much of each resource, in 1/10,000: `CPU`, `GPU`, `memory` (whole bytes), or a custom name.
pub type Demand = BTreeMap<String, u64>;

/// Where something is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BundleWish {
    /// The placement group: the object that is sealed when it is ready.
    pub group: ObjectKey,
    /// Which bundle; any if absent.
    pub bundle: Option<u32>,
}

/// What may share workers: a scheduling class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassWish {
    /// 0 where any function will do; a function's key where it wants workers of its own.
    pub group: u64,
    /// What a worker needs while it runs one.
    pub demand: Demand,
    /// After how many calls a worker ends; 0 is never.
    pub calls_max: u32,
    /// Where; the machine if absent.
    pub placement: Option<BundleWish>,
}

/// What workers are started from; what is absent is the driver's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramWish {
    /// The executable; absent: the one that the driver's process runs.
    pub executable: Option<String>,
    /// What it is given besides its name.
    pub arguments: Vec<String>,
    /// All its variables; absent: the raylet's.
    pub environment: Option<BTreeMap<String, String>>,
    /// Where it works; absent: where the raylet does.
    pub directory: Option<String>,
}

/// The segment of queues, whose descriptor rides behind the others on `Welcome`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSegment {
    /// Its bytes; sparse.
    pub bytes: u64,
    /// How many bells lie at its beginning.
    pub bells: u64,
}

/// Asks for a queue of a class. Answer: [`QueueOpened`] or [`Refused`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenQueue {
    /// The asker's number.
    pub request: u64,
    /// What runs from it.
    pub class: ClassWish,
}

/// Asks for a queue to an actor; it may not be alive yet. Answer: [`QueueOpened`] or [`Refused`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenActorQueue {
    /// The asker's number.
    pub request: u64,
    /// The actor.
    pub anchor: ObjectKey,
}

/// A queue is there, and the asker alone submits into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueOpened {
    /// The asker's number.
    pub request: u64,
    /// The queue's number, never used again.
    pub queue: u64,
    /// Where it lies in the segment.
    pub offset: u64,
}

/// Says how many workers a queue could use; said again when that changes. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WantWorkers {
    /// The queue.
    pub queue: u64,
    /// Workers at once, those it has included.
    pub wanted: u32,
    /// Records that wait.
    pub backlog: u32,
}

/// Nobody serves a queue any more, ever, and what was in it has failed. No answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueEnded {
    /// The queue.
    pub queue: u64,
    /// Why, as the bytes of an error object: for what is submitted into it all the same.
    pub error: Vec<u8>,
}

/// The asker submits into the queue no more; what is in it still runs. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloseQueue {
    /// The queue.
    pub queue: u64,
}

/// A call through the raylet. No answer: what is wrong is sealed into its results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubmitTask {
    /// Its class.
    pub class: ClassWish,
    /// Objects that have to have a value first, each once.
    pub waits_for: Vec<ObjectKey>,
    /// The task record.
    pub words: [u64; RECORD_WORDS],
}

/// Somebody wants a call not to run, or not to go on. The asker has dealt with what is still queued
/// with itself. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelTask {
    /// Its first result.
    pub result: ObjectKey,
    /// Kill the worker if it runs.
    pub force: bool,
    /// What it submitted, too.
    pub recursive: bool,
    /// Not it, but what the asker has submitted through the raylet while it ran it: the asker was
    /// interrupted, and nothing more of it comes.
    pub only_children: bool,
}

/// A worker is about to sleep until an object has a value, and lends its CPU. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {}

/// It runs again. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {}

/// Asks for an actor. Answer: [`ActorCreated`] or [`Refused`]; it is answered when it stands in line,
/// not when it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateActor {
    /// The asker's number.
    pub request: u64,
    /// The object that stands for it.
    pub anchor: ObjectKey,
    /// What has to be free to place it.
    pub class: ClassWish,
    /// What it holds for its life.
    pub running: Demand,
    /// Restarts; -1 without end.
    pub restarts_max: i32,
    /// Calls at once.
    pub concurrency_max: u32,
    /// Its name.
    pub name: Option<String>,
    /// Names of different namespaces have nothing to do with each other.
    pub namespace: String,
    /// If the name is taken, that actor will do.
    pub get_if_exists: bool,
    /// It outlives its handles and its job.
    pub is_detached: bool,
    /// Objects that have to have a value first, each once.
    pub waits_for: Vec<ObjectKey>,
    /// The record of its constructor.
    pub words: [u64; RECORD_WORDS],
}

/// The actor stands in line, or is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorCreated {
    /// The asker's number.
    pub request: u64,
    /// The actor; another than was asked for where that had the name.
    pub anchor: ObjectKey,
}

/// The asker has let go of its last handle; others may have some. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReleasedActor {
    /// The actor.
    pub anchor: ObjectKey,
}

/// Somebody wants an actor dead. No answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KillActor {
    /// The actor.
    pub anchor: ObjectKey,
    /// For good.
    pub no_restart: bool,
}

/// Asks for the living actor of a name. Answer: [`ActorFound`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindActor {
    /// The asker's number.
    pub request: u64,
    /// The name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The actor of a name, or of an anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorFound {
    /// The asker's number.
    pub request: u64,
    /// Absent where there is none, or none that lives.
    pub anchor: Option<ObjectKey>,
    /// Why it is dead, as the bytes of an error object.
    pub death: Option<Vec<u8>>,
}

/// Asks how an actor is, whose queue takes nothing more. Answer: [`ActorFound`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskActor {
    /// The asker's number.
    pub request: u64,
    /// The actor.
    pub anchor: ObjectKey,
}

/// Asks for a placement group. Answer: [`Done`] or [`Refused`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateGroup {
    /// The asker's number.
    pub request: u64,
    /// A promise that stands for it, sealed when it is ready.
    pub group: ObjectKey,
    /// What to reserve, all or nothing.
    pub bundles: Vec<Demand>,
    /// `PACK`, `SPREAD`, `STRICT_PACK` or `STRICT_SPREAD`.
    pub strategy: String,
    /// What listings call it.
    pub name: String,
    /// It outlives its job.
    pub is_detached: bool,
}

/// A placement group is to go, and with it what runs in it. What is said behind it finds the group gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveGroup {
    /// The group.
    pub group: ObjectKey,
}

/// What was asked is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// The asker's number.
    pub request: u64,
}

/// What was asked is not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The asker's number.
    pub request: u64,
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people.
    pub text: String,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The name belongs to another actor.
    NameTaken,
    /// There is no such actor, and nothing is known of one.
    NoSuchActor,
    /// There is no such placement group, or it has no such bundle.
    NoSuchGroup,
    /// A demand that cannot mean anything.
    BadDemand,
    /// A limit of the raylet.
    TooMany,
    /// The asker's job is over.
    JobOver,
    /// A code this reader does not know.
    #[default]
    #[serde(other)]
    Other,
}

/// Names of what the asker's executable can run, for listings. No answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameFunctions {
    /// Key and name of each.
    pub names: Vec<(u64, String)>,
}

/// A worker has joined and listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReady {}

/// The worker may claim records of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// The queue.
    pub queue: u64,
    /// Where it lies.
    pub offset: u64,
    /// Its GPUs, as `CUDA_VISIBLE_DEVICES` has them; absent where it asked for none.
    pub gpus: Option<String>,
    /// After so many records the worker lets go by itself; 0 is never.
    pub calls_max: u32,
}

/// The worker is to let go of a queue after the record that it runs. Answer: [`LeaseReturned`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Withdraw {
    /// The queue.
    pub queue: u64,
}

/// A leased worker has found its queue empty for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseIdle {
    /// The queue.
    pub queue: u64,
}

/// It has work again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseBusy {
    /// The queue.
    pub queue: u64,
}

/// A leased worker has let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseReturned {
    /// The queue.
    pub queue: u64,
    /// Records it ran.
    pub calls: u32,
    /// Whether records waited when it looked last, which was after it had let go.
    pub has_queued: bool,
}

/// A task through the raylet. Answer: [`TaskDone`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunTask {
    /// The raylet's number of it.
    pub task: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The task record.
    pub words: [u64; RECORD_WORDS],
    /// As in [`Grant`].
    pub gpus: Option<String>,
}

/// The results of a task stand, or are to be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskDone {
    /// The raylet's number of it.
    pub task: u64,
    /// It ended in an error that is tried again if that is allowed, and nothing is sealed yet.
    pub retry: bool,
}

/// How the results of a task that ran can be made again, should they be lost. A worker says it before it
/// seals them, where one is large. No answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepRecipe {
    /// The task record.
    pub words: [u64; RECORD_WORDS],
    /// The bytes of its spec; none where the record has all.
    pub spec: Vec<u8>,
    /// Its arguments that are objects, in order.
    pub arguments: Vec<RecipeArgument>,
}

/// An argument in a [`KeepRecipe`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeArgument {
    /// The object.
    pub object: ObjectKey,
    /// Encoding and bytes of a small value that lists nothing; a large one is to have a recipe itself.
    pub value: Option<(u8, Vec<u8>)>,
}

/// The value of an object is lost: it is to be made again, as a promise of the asker's. No answer: the
/// promise gets a value, or the error that tells why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemakeObject {
    /// The object.
    pub lost: ObjectKey,
    /// The promise.
    pub fresh: ObjectKey,
}

/// Somebody wants a task not to go on: it may look, and from then on can submit nothing where its
/// children are to end with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterruptTask {
    /// Its first result.
    pub result: ObjectKey,
    /// What it submitted is to be cancelled, too. Answer: a [`CancelTask`] of its children.
    pub recursive: bool,
}

/// The worker becomes an actor. Answer: [`ActorReady`] or [`ActorFailed`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunActor {
    /// The object that stands for it.
    pub anchor: ObjectKey,
    /// How often it was restarted.
    pub restarts: u32,
    /// The record of its constructor.
    pub words: [u64; RECORD_WORDS],
    /// Calls at once.
    pub concurrency_max: u32,
    /// What all its callers ring.
    pub bell: u32,
    /// Queues of its callers so far: number and offset.
    pub queues: Vec<(u64, u64)>,
    /// As in [`Grant`].
    pub gpus: Option<String>,
}

/// An actor has one more caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeQueue {
    /// The queue.
    pub queue: u64,
    /// Where it lies.
    pub offset: u64,
}

/// An actor has one caller less; nothing is left in the queue. Answer: [`QueueDropped`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DropQueue {
    /// The queue.
    pub queue: u64,
}

/// The worker looks at the queue no more, so its place can be given out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueDropped {
    /// The queue.
    pub queue: u64,
}

/// The constructor returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReady {}

/// The constructor failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorFailed {
    /// Why, as the bytes of an error object.
    pub error: Vec<u8>,
}

/// The worker is to end by itself: an actor after the calls that are queued, another one at once. Answer of an
/// actor: [`ActorExited`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndWorker {}

/// The actor has ended, by itself or because it was asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorExited {}

/// Lines that workers of the driver's job wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLines {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Lines that were dropped before these, because the driver did not read.
    pub dropped_count: u64,
}

/// A line that a worker wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// What it ran then: a function's or an actor's name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// To standard error rather than output.
    pub is_error: bool,
    /// Without the end of the line.
    pub text: String,
}

/// Something that the driver's user should know, such as a request that this machine cannot meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// A sentence.
    pub text: String,
}
