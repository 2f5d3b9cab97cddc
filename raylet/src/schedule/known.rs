//! Questions about what there is: the scheduler's tables as `listing` reads them, and the timeline.
//!
//! The one thing to know: a question is answered between two events, at once, from what is known then.
//! This file must not change what is scheduled.

use super::leases::Serves;
use super::line::LineId;
use super::listing::{self, ActorKey, ActorQueue, GroupKey, Known, Member, Question};
use super::{Scheduler, Who};
use raylet_api::inside::{Events, Timeline};
use raylet_api::message::{Error, ErrorCode, Message};
use raylet_api::record::RECORD_WORDS;
use raylet_core::Node;
use raylet_core::ids::{ActorId, DriverId, EnvId, GroupId, QueueId, TaskId, WorkerId};
use std::collections::BTreeMap;
use store::Store;
use store_shm::queue::Queue;

impl Scheduler {
    pub(super) fn on_question(&mut self, question: Question) {
        let answer = match &question.what {
            Message::Timeline(asked) => self.timeline_page(asked),
            what => listing::answer(what, self).unwrap_or_else(|| no_question(what)),
        };
        // Who asked may be gone.
        let _ = question.reply.send(answer);
    }

    fn timeline_page(&mut self, asked: &Timeline) -> Message {
        if asked.collect {
            let lines: Vec<LineId> = self.peers.keys().copied().filter(|line| self.can_tell(*line)).collect();
            if let Some(question) = self.timeline.ask(lines.iter().copied()) {
                lines.into_iter().for_each(|line| self.send(line, question));
            }
        }
        self.timeline.page(asked, |key| self.names.get(&key).map(String::as_str)).into()
    }

    /// Whether something can have run there, and somebody listens: a worker does once it is ready.
    fn can_tell(&self, line: LineId) -> bool {
        let Some(peer) = self.peers.get(&line).filter(|peer| !peer.is_closed) else { return false };
        match peer.who {
            Who::Driver(_) => true,
            Who::Worker(worker) => self.workers.get(&worker).is_some_and(|row| row.is_ready),
        }
    }

    pub(super) fn on_events(&mut self, line: LineId, events: Events) {
        if let Some(peer) = self.peers.get(&line) {
            self.timeline.heard(line, peer.pid, events);
        }
    }
}

fn no_question(what: &Message) -> Message {
    Error::new(ErrorCode::UnexpectedMessage, format!("nobody answers {}", what.name()), &[]).into()
}

impl Known for Scheduler {
    fn node(&self) -> &Node {
        &self.node
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn function(&self, key: u64) -> Option<&str> {
        self.names.get(&key).map(String::as_str)
    }

    fn record(&self, task: TaskId) -> Option<&[u64; RECORD_WORDS]> {
        self.calls.get(&task).map(|call| &call.words)
    }

    fn worker(&self, worker: WorkerId) -> Option<Member> {
        let process = self.workers.get(&worker)?.process?;
        Some(Member { pid: process.pid, client: self.client_of(worker).map(|client| client.number) })
    }

    fn driver(&self, driver: DriverId) -> Option<Member> {
        let peer = self.peers.get(&self.drivers.get(&EnvId(driver.0))?.line)?;
        Some(Member { pid: peer.pid, client: Some(peer.client.number) })
    }

    fn actor(&self, actor: ActorId) -> Option<ActorKey> {
        self.actors.get(&actor).map(|row| ActorKey { anchor: row.anchor, key: row.class })
    }

    fn group(&self, group: GroupId) -> Option<GroupKey<'_>> {
        self.groups.get(&group).map(|row| GroupKey { group: row.key, name: &row.name })
    }

    fn queue(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.get(&queue.0).map(|row| &row.queue)
    }

    fn actor_queues(&self, from: u64) -> impl Iterator<Item = ActorQueue<'_>> {
        self.queues.range(from..).filter_map(|(&number, row)| {
            let Serves::Actor(actor) = row.serves else { return None };
            Some(ActorQueue { number, actor, job: row.job, caller: row.caller, queue: &row.queue })
        })
    }

    fn workers_max(&self) -> u64 {
        u64::from(self.workers_max)
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let (counters, logs) = (&self.counters, self.logs.counts());
        let counters = [
            ("actor_restarts", counters.actor_restarts),
            ("log_lines", logs.written),
            ("log_lines_dropped", logs.dropped),
            ("task_retries", counters.task_retries),
            ("worker_deaths", counters.worker_deaths),
            ("worker_starts", counters.worker_starts),
            ("zygote_deaths", counters.zygote_deaths),
        ];
        counters.map(|(name, value)| (name.to_owned(), value)).into()
    }
}
