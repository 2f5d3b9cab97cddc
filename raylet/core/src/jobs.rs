//! Jobs, and the lanes in which each job's requests wait.
//!
//! The one thing to know: a *lane* is one job's requests of one class. In it, everything that goes
//! through the raylet stands in one line (*items*, by turn), and each direct caller's queue stands
//! beside that line. A *stream* is either. This file must not choose between lanes: dispatch does.

use crate::effect::{DeathCause, Effect, KillReason, TaskEnd};
use crate::event::StillWanted;
use crate::fair::Share;
use crate::ids::{ActorId, Caller, ClassId, DriverId, EnvId, GroupId, JobId, QueueId, TaskId};
use crate::node::Node;
use std::collections::{BTreeMap, BTreeSet};

/// The order in which requests became ready. A retry keeps its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(pub(crate) u64);

/// What stands in a lane's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Task(TaskId),
    Actor(ActorId),
    Group(GroupId),
}

/// Which stream of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Items,
    Queue(QueueId),
}

/// One stream of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stream {
    pub(crate) job: JobId,
    pub(crate) class: ClassId,
    pub(crate) source: Source,
}

#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) share: Share,
    /// Where the last grant to one of its streams was.
    pub(crate) floor: u64,
    pub(crate) items: BTreeMap<Turn, Item>,
    pub(crate) items_share: Share,
    pub(crate) queues: BTreeSet<QueueId>,
    /// Workers whose use is charged here.
    pub(crate) charged: u32,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.queues.is_empty() && self.charged == 0
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) driver: DriverId,
    pub(crate) env: EnvId,
    pub(crate) has_left: bool,
    pub(crate) share: Share,
    /// Where the last grant to one of its lanes was.
    pub(crate) floor: u64,
    pub(crate) lanes: BTreeMap<ClassId, Lane>,
    /// Tasks, live actors, groups and queues of the job.
    pub(crate) parts: u32,
}

impl Node {
    pub(crate) fn on_driver_joined(&mut self, driver: DriverId, env: EnvId, effects: &mut Vec<Effect>) {
        let id = JobId(self.next_job);
        self.next_job += 1;
        let job =
            Job { driver, env, has_left: false, share: Share::default(), floor: 0, lanes: BTreeMap::new(), parts: 0 };
        self.jobs.insert(id, job);
        self.pool.env_mut(env).drivers += 1;
        effects.push(Effect::JobStarted { driver, job: id });
    }

    pub(crate) fn on_driver_left(&mut self, id: JobId, wanted: &StillWanted, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.has_left) else { return };
        job.has_left = true;
        let env = job.env;
        self.pool.env_mut(env).drivers -= 1;
        self.end_tasks_of(|task| task.job == id, wanted, TaskEnd::JobOver, Some(KillReason::JobOver), effects);
        self.end_queues_of(|queue| queue.job == id, wanted, TaskEnd::JobOver, Some(KillReason::JobOver), effects);
        let is_over = |actor: &crate::actors::Actor| actor.job == id && !actor.is_detached;
        self.end_actors_of(is_over, DeathCause::JobOver, KillReason::JobOver, effects);
        let groups = self.groups.iter().filter(|(_, group)| group.job == id && !group.is_detached);
        for group in groups.map(|(group, _)| *group).collect::<Vec<_>>() {
            self.on_remove_group(group, effects);
        }
        self.tidy_job(id, effects);
    }

    /// Ends or adopts what a dead worker submitted.
    pub(crate) fn end_submissions(&mut self, caller: Caller, wanted: &StillWanted, effects: &mut Vec<Effect>) {
        self.end_tasks_of(|task| task.caller == caller, wanted, TaskEnd::CallerGone, None, effects);
        self.end_queues_of(|queue| queue.caller == caller, wanted, TaskEnd::CallerGone, None, effects);
    }

    pub(crate) fn lane_mut(&mut self, job: JobId, class: ClassId) -> &mut Lane {
        self.jobs.get_mut(&job).expect("N5: a job with parts is known").lanes.entry(class).or_default()
    }

    /// Puts a request at the end of its lane, or where it stood before.
    pub(crate) fn stand_in_line(&mut self, job: JobId, class: ClassId, turn: Option<Turn>, item: Item) -> Turn {
        let turn = turn.unwrap_or(Turn(self.next_turn));
        self.next_turn = self.next_turn.max(turn.0 + 1);
        let before = self.lane_mut(job, class).items.insert(turn, item);
        assert!(before.is_none(), "N3: a turn belongs to one request");
        turn
    }

    pub(crate) fn leave_line(&mut self, job: JobId, class: ClassId, turn: Turn) {
        let left = self.lane_mut(job, class).items.remove(&turn);
        assert!(left.is_some(), "N3: what stands in line is in its lane");
        self.tidy_lane(job, class);
    }

    pub(crate) fn tidy_lane(&mut self, job: JobId, class: ClassId) {
        let Some(job) = self.jobs.get_mut(&job) else { return };
        if job.lanes.get(&class).is_some_and(Lane::is_empty) {
            job.lanes.remove(&class);
        }
    }

    pub(crate) fn part_added(&mut self, job: JobId) {
        self.jobs.get_mut(&job).expect("N5: admitted for a known job").parts += 1;
    }

    pub(crate) fn part_gone(&mut self, id: JobId, effects: &mut Vec<Effect>) {
        self.jobs.get_mut(&id).expect("N5: a job with parts is known").parts -= 1;
        self.tidy_job(id, effects);
    }

    pub(crate) fn tidy_job(&mut self, id: JobId, effects: &mut Vec<Effect>) {
        let is_over = |job: &Job| job.has_left && job.parts == 0 && job.lanes.is_empty();
        if self.jobs.get(&id).is_some_and(is_over) {
            self.jobs.remove(&id);
            effects.push(Effect::JobEnded { job: id });
        }
    }

    /// Does something to each of the three shares that a stream's use counts for.
    pub(crate) fn each_share(&mut self, stream: Stream, mut change: impl FnMut(&mut Share)) {
        let job = self.jobs.get_mut(&stream.job).expect("N5: a charged job is known");
        let lane = job.lanes.get_mut(&stream.class).expect("N5: a charged lane is known");
        change(&mut job.share);
        change(&mut lane.share);
        match stream.source {
            Source::Items => change(&mut lane.items_share),
            Source::Queue(queue) => {
                change(&mut self.queues.get_mut(&queue).expect("N5: a charged queue is known").share);
            }
        }
    }
}
