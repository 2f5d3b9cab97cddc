//! The messages by which people and programs look inside: rows of tasks, actors, workers, placement
//! groups, numbers of the whole, and the timeline.
//!
//! The one thing to know: everything is a copy of what was so at about one moment, in pages, and
//! nothing stops meanwhile, so a row may be gone when it is read. Amounts of resources are in
//! 1/10,000 on the wire and whole numbers with a point in JSON. This file must not decide what a row
//! says.

use crate::ids::{ObjectId, TaskId};
use crate::work::Demand;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// Bytes of a name in a row that are kept.
pub const NAME_BYTES_MAX: usize = 100;
/// Spans of one message at most.
pub const SPANS_COUNT_MAX: usize = 4096;

/// Where a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum TaskState {
    /// Arguments have no value yet.
    PendingArgsAvail,
    /// Its turn has not come.
    PendingNodeAssignment,
    /// In its caller's queue: the next worker or the actor that looks there has it.
    Queued,
    /// A worker has it.
    Running,
    /// A state this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Transport {
    /// Through the raylet.
    Raylet,
    /// Through shared memory, to a leased worker or an actor.
    Direct,
    /// A way this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Asks for a page of the tasks and calls that have not ended. Those that a caller keeps to itself,
/// because its queue is full or their arguments have no value yet, are the caller's secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListTasks {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`](crate::PAGE_COUNT_MAX).
    pub count_max: u32,
}

/// A page of the tasks; one may be empty although another follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TasksReply {
    /// The tasks of the page.
    pub tasks: Vec<TaskInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// One task, or one call of an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskInfo {
    /// Its id; absent where nobody wants its result.
    pub task: Option<TaskId>,
    /// What is called.
    pub name: String,
    /// Where it is.
    pub state: TaskState,
    /// Which way it goes.
    pub transport: Transport,
    /// The number of its job.
    pub job: u32,
    /// The raylet's number of the actor, where it is a call.
    pub actor: Option<u64>,
    /// Attempts begun.
    pub attempts: u32,
    /// The raylet's number of the worker that has it.
    pub worker: Option<u64>,
    /// That worker's process.
    pub pid: Option<u32>,
    /// The process of who submitted it.
    pub caller_pid: Option<u32>,
    /// What a worker needs for it.
    #[serde(serialize_with = "amounts")]
    pub demand: Demand,
}

/// Where an actor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum ActorState {
    /// Arguments of its constructor have no value yet.
    DependenciesUnready,
    /// It was never alive so far.
    PendingCreation,
    /// It takes calls.
    Alive,
    /// It was alive and will be again.
    Restarting,
    /// It takes no calls, ever.
    Dead,
    /// A state this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Asks for a page of the actors, the last dead ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListActors {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`](crate::PAGE_COUNT_MAX).
    pub count_max: u32,
}

/// A page of the actors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorsReply {
    /// The actors of the page.
    pub actors: Vec<ActorInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// One actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorInfo {
    /// The raylet's number of it.
    pub actor: u64,
    /// The object that stands for it; absent where that is gone.
    pub id: Option<ObjectId>,
    /// What it is.
    pub class: String,
    /// What it is called.
    pub name: Option<String>,
    /// Where that name means it.
    pub namespace: Option<String>,
    /// Where it is.
    pub state: ActorState,
    /// The number of its job.
    pub job: u32,
    /// It outlives its handles and its job.
    pub is_detached: bool,
    /// How often it was restarted.
    pub restart_count: u32,
    /// The raylet's number of its worker.
    pub worker: Option<u64>,
    /// That worker's process.
    pub pid: Option<u32>,
    /// Why it is dead, for people.
    pub death_cause: Option<String>,
    /// What it holds while it lives.
    #[serde(serialize_with = "amounts")]
    pub demand: Demand,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum WorkerState {
    /// Its fork is under way.
    Starting,
    /// Nothing.
    Idle,
    /// A task through the raylet.
    Task,
    /// Records of a caller's queue.
    Leased,
    /// It is an actor.
    Actor,
    /// A state this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Asks for a page of the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListWorkers {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`](crate::PAGE_COUNT_MAX).
    pub count_max: u32,
}

/// A page of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkersReply {
    /// The workers of the page.
    pub workers: Vec<WorkerInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerInfo {
    /// The raylet's number of it.
    pub worker: u64,
    /// Its process; absent while its fork is under way.
    pub pid: Option<u32>,
    /// Its row in the client table.
    pub client_index: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// The name of what it runs or is, where that is known.
    pub runs: Option<String>,
    /// The raylet's number of the actor that it is.
    pub actor: Option<u64>,
    /// It sleeps until an object has a value, and has lent its CPU.
    pub is_blocked: bool,
    /// It was asked for its life.
    pub is_stopping: bool,
    /// Calls it has run, as far as it has said.
    pub call_count: u32,
    /// The environment it was forked in.
    pub environment: u32,
    /// What it holds.
    #[serde(serialize_with = "amounts")]
    pub demand: Demand,
    /// Its GPUs, as `CUDA_VISIBLE_DEVICES` has them.
    pub gpus: Vec<u32>,
}

/// Where a placement group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum GroupState {
    /// Not reserved yet.
    Pending,
    /// Reserved.
    Created,
    /// What runs in it is being ended.
    Removed,
    /// A state this reader does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Asks for a page of the placement groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListGroups {
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`PAGE_COUNT_MAX`](crate::PAGE_COUNT_MAX).
    pub count_max: u32,
}

/// A page of the placement groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupsReply {
    /// The groups of the page.
    pub groups: Vec<GroupInfo>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
}

/// Bundles listed for one group at most; the count beside the list is of all.
pub const BUNDLES_COUNT_MAX: usize = 32;

/// One placement group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupInfo {
    /// The raylet's number of it.
    pub group: u64,
    /// The object that is sealed when it is ready; absent where that is gone.
    pub id: Option<ObjectId>,
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub state: GroupState,
    /// `PACK`, `SPREAD`, `STRICT_PACK` or `STRICT_SPREAD`.
    pub strategy: String,
    /// The number of its job.
    pub job: u32,
    /// How many bundles it has.
    pub bundle_count: u32,
    /// What the first [`BUNDLES_COUNT_MAX`] reserve.
    #[serde(serialize_with = "lists_of_amounts")]
    pub bundles: Vec<Demand>,
    /// What of each of these is in use.
    #[serde(serialize_with = "lists_of_amounts")]
    pub used: Vec<Demand>,
}

/// Asks for the numbers of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {}

/// The numbers of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SummaryReply {
    /// All there is.
    #[serde(serialize_with = "amounts")]
    pub capacity: Demand,
    /// In use or reserved; its CPU may be above the capacity while workers that slept run again.
    #[serde(serialize_with = "amounts")]
    pub used: Demand,
    /// Tasks through the raylet that have been accepted.
    pub submitted_task_count: u64,
    /// Of these, the ones that have ended.
    pub ended_task_count: u64,
    /// Of those that have not, the ones that a worker has.
    pub running_task_count: u64,
    /// Records of the direct transport that nobody has claimed yet.
    pub queued_record_count: u64,
    /// Records of the direct transport that somebody works on.
    pub claimed_record_count: u64,
    /// Workers by what they do.
    pub workers: BTreeMap<WorkerState, u64>,
    /// Workers that sleep until an object has a value.
    pub blocked_worker_count: u64,
    /// Workers there may be.
    pub worker_count_max: u64,
    /// Actors by where they are.
    pub actors: BTreeMap<ActorState, u64>,
    /// Placement groups by where they are.
    pub groups: BTreeMap<GroupState, u64>,
    /// Jobs that are not over.
    pub jobs: Vec<JobInfo>,
    /// Whatever else the raylet counts, by name.
    pub counters: BTreeMap<String, u64>,
}

/// One job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobInfo {
    /// Its number.
    pub job: u32,
    /// Its driver's process.
    pub pid: Option<u32>,
    /// The driver is gone, and something of it goes on.
    pub has_left: bool,
    /// Tasks, live actors, placement groups and queues of it.
    pub part_count: u32,
}

/// Asks for a page of what ran when. Nothing is kept unless the raylet was told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeline {
    /// First ask every worker and driver for what the raylet has not heard yet; the answer does not
    /// wait for theirs.
    pub collect: bool,
    /// 0, or `next_cursor` of the page before.
    pub cursor: u64,
    /// How many at most; the raylet gives no more than [`SPANS_COUNT_MAX`].
    pub count_max: u32,
}

/// A page of what ran when, in the order in which the raylet heard of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimelineReply {
    /// The raylet was started to keep any.
    pub is_on: bool,
    /// What ran.
    pub slices: Vec<Slice>,
    /// Where the next page begins; absent after the last.
    pub next_cursor: Option<u64>,
    /// Who was asked and has not answered yet.
    pub outstanding_count: u32,
    /// Slices that are lost, for there were too many.
    pub dropped_count: u64,
}

/// Something that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// What.
    pub name: String,
    /// A program said so itself, by a profile event.
    pub is_profile: bool,
    /// Where.
    pub pid: u32,
    /// On which thread there, counted from 0.
    pub thread: u32,
    /// When, in microseconds of the machine's monotonic clock.
    pub start_us: u64,
    /// Until when.
    pub end_us: u64,
}

/// The raylet asks a worker or driver for what ran there. Answer: [`Events`], once or several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GiveEvents {
    /// The raylet's number, from 1.
    pub request: u64,
}

/// What ran in a process since it last said so. No answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// The number that this answers; 0 where nobody asked.
    pub request: u64,
    /// What ran, at most [`SPANS_COUNT_MAX`].
    pub spans: Vec<Span>,
    /// Spans that were dropped before these, for there were too many.
    pub dropped_count: u64,
    /// Nothing more follows for this request.
    pub is_last: bool,
}

/// Something that ran in the process that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// The key of the function, class or method; 0 where it has a name.
    pub key: u64,
    /// The name of a profile event, [`NAME_BYTES_MAX`] bytes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On which thread, counted from 0.
    pub thread: u32,
    /// When, in microseconds of the machine's monotonic clock.
    pub start_us: u64,
    /// Until when.
    pub end_us: u64,
}

/// A text as far as a row keeps it, cut between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.expect("every text has a boundary at 0")]
}

/// Units of one whole.
const WHOLE: f64 = 10_000.0;

/// An amount for people; memory is counted in whole bytes already.
pub fn in_wholes(name: &str, amount: u64) -> f64 {
    if name == "memory" { amount as f64 } else { amount as f64 / WHOLE }
}

/// Units on the wire, wholes in JSON.
fn amounts<S: Serializer>(demand: &Demand, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return demand.serialize(serializer);
    }
    let mut map = serializer.serialize_map(Some(demand.len()))?;
    for (name, &amount) in demand {
        map.serialize_entry(name, &in_wholes(name, amount))?;
    }
    map.end()
}

fn lists_of_amounts<S: Serializer>(demands: &[Demand], serializer: S) -> Result<S::Ok, S::Error> {
    struct Amounts<'a>(&'a Demand);
    impl Serialize for Amounts<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            amounts(self.0, serializer)
        }
    }
    let mut list = serializer.serialize_seq(Some(demands.len()))?;
    demands.iter().try_for_each(|demand| list.serialize_element(&Amounts(demand)))?;
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_units_on_the_wire_and_wholes_in_json() {
        let demand: Demand = [("CPU".to_owned(), 15_000), ("memory".to_owned(), 4096)].into();
        let row = GroupInfo { bundles: vec![demand.clone()], ..GroupInfo::default() };
        let back: GroupInfo = rmp_serde::from_slice(&rmp_serde::to_vec_named(&row).unwrap()).unwrap();
        assert_eq!(back, row);
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["bundles"], serde_json::json!([{ "CPU": 1.5, "memory": 4096.0 }]));
        let row = TaskInfo { demand, ..TaskInfo::default() };
        assert_eq!(serde_json::to_value(&row).unwrap()["demand"]["CPU"], 1.5);
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("a\u{e9}", 2), "a");
        assert_eq!(cut("", 9), "");
    }

    #[test]
    fn states_of_later_versions_are_unknown() {
        let bytes = rmp_serde::to_vec("DREAMING").unwrap();
        assert_eq!(rmp_serde::from_slice::<WorkerState>(&bytes).unwrap(), WorkerState::Unknown);
        assert_eq!(serde_json::to_string(&TaskState::PendingArgsAvail).unwrap(), "\"PENDING_ARGS_AVAIL\"");
    }
}
