//! The invariants, looked at from outside of what keeps them.
//!
//! The one thing to know: everything that the node keeps twice, to be quick, is counted here once
//! more from its source. This file must not be needed: it only runs in tests.

use crate::actors::ActorState;
use crate::groups::GroupState;
use crate::ids::WorkerId;
use crate::jobs::{Item, Source, Stream};
use crate::node::{Account, Node};
use crate::pool::Phase;
use crate::resources::{Amount, Ledger, Resources};
use crate::tasks::TaskState;

impl Node {
    /// Asserts N1 to N9 of the crate's documentation.
    ///
    /// # Panics
    ///
    /// If one does not hold; the message begins with its number.
    pub fn check(&mut self) {
        self.check_machine();
        self.check_bundles();
        self.check_workers();
        self.check_lines();
        self.check_tasks();
        self.check_shares();
        self.check_actors();
        assert!(self.pool.workers.len() <= self.config.workers_max as usize, "N6: more workers than the cap");
        assert!(!self.is_somebody_overlooked(), "N9: somebody waits for what is free");
    }

    fn check_machine(&self) {
        let mut reserved = Resources::default();
        for group in self.groups.values().filter(|group| !group.reserved().is_empty()) {
            group.bundles.iter().for_each(|bundle| reserved.add(bundle));
        }
        self.check_ledger(Account::Machine, &self.ledger, reserved);
    }

    fn check_bundles(&self) {
        for (id, group) in &self.groups {
            for (at, bundle) in group.reserved().iter().enumerate() {
                let account = Account::Bundle(*id, at as u32);
                self.check_ledger(account, &bundle.ledger, Resources::default());
                let held = self.pool.workers.values().filter_map(|worker| worker.held.as_ref());
                let inside = held.filter(|(of, _)| *of == account).count();
                assert_eq!(inside, bundle.workers as usize, "N8: workers in a bundle");
            }
        }
    }

    /// N1: what is taken is what is held, and what was never woken fits.
    fn check_ledger(&self, account: Account, ledger: &Ledger, reserved: Resources) {
        ledger.check();
        let mut taken = reserved;
        let mut woken = 0;
        for (of, holding) in self.pool.workers.values().filter_map(|worker| worker.held.as_ref()) {
            if *of != account {
                continue;
            }
            taken.add(&holding.amounts);
            if holding.is_lent {
                taken.cpu.0 -= holding.amounts.cpu.0;
            } else if holding.was_woken {
                woken += holding.amounts.cpu.0;
            }
        }
        assert_eq!(&taken, ledger.taken(), "N1: taken is what is held");
        assert!(Amount(taken.cpu.0 - woken) <= ledger.capacity().cpu, "N1: grants above capacity");
    }

    /// N2: each worker in exactly one place, and that place knows it.
    fn check_workers(&self) {
        let mut idle = 0;
        let mut starting = 0;
        let mut leased = 0;
        let mut idle_leases = 0;
        for (id, worker) in &self.pool.workers {
            let is_busy = matches!(worker.phase, Phase::Task(_) | Phase::Leased(_) | Phase::Actor(_));
            assert_eq!(worker.held.is_some(), is_busy, "N2: who is busy holds something");
            match worker.phase {
                Phase::Starting => starting += 1,
                Phase::Idle { since } => {
                    let is_listed = self.pool.envs[&worker.env].idle.contains(&(since, *id));
                    assert_eq!(is_listed, !worker.is_stopping, "N2: idle workers are listed");
                    idle += usize::from(is_listed);
                }
                Phase::Task(task) => {
                    assert_eq!(self.tasks[&task].state, TaskState::Running(*id), "N2: a task knows its worker");
                }
                Phase::Leased(lease) => {
                    assert!(self.queues[&lease.queue].leases.contains(id), "N2: a queue knows its worker");
                    leased += 1;
                    idle_leases += usize::from(lease.idle_since.is_some());
                }
                Phase::Actor(actor) => self.check_actor_worker(*id, actor, worker.is_stopping),
            }
        }
        assert_eq!(idle, self.pool.envs.values().map(|env| env.idle.len()).sum::<usize>(), "N2: idle");
        assert_eq!(starting, self.pool.envs.values().map(|env| env.starting).sum::<u32>(), "N2: starting");
        let is_starting = |id| self.pool.workers.get(id).is_some_and(|worker| worker.phase == Phase::Starting);
        assert!(self.pool.starting.iter().all(|(_, id)| is_starting(id)), "N2: starting workers are listed");
        assert_eq!(leased, self.queues.values().map(|queue| queue.leases.len()).sum::<usize>(), "N2: leased");
        assert_eq!(idle_leases, self.pool.idle_leases.len(), "N2: idle leases");
    }

    fn check_actor_worker(&self, id: WorkerId, actor: crate::ids::ActorId, is_stopping: bool) {
        let state = self.actors.all.get(&actor).map(|actor| actor.state);
        let is_its = matches!(state, Some(ActorState::Creating(by) | ActorState::Alive(by)) if by == id);
        assert!(is_its || is_stopping, "N2: an actor's worker is the actor's, or on its way out");
    }

    /// N3: a line holds what is ready, each under its turn.
    fn check_lines(&self) {
        let mut items = 0;
        for (id, job) in &self.jobs {
            for (class, lane) in &job.lanes {
                for (turn, item) in &lane.items {
                    items += 1;
                    let (is_ready, owner) = match item {
                        Item::Task(task) => {
                            let task = &self.tasks[task];
                            (task.state == TaskState::Ready && task.turn == Some(*turn), (task.job, task.class))
                        }
                        Item::Actor(actor) => {
                            let actor = &self.actors.all[actor];
                            (actor.state == ActorState::Ready(*turn), (actor.job, actor.class))
                        }
                        Item::Group(group) => {
                            let group = &self.groups[group];
                            (matches!(group.state, GroupState::Pending(at) if at == *turn), (group.job, group.class))
                        }
                    };
                    assert!(is_ready && owner == (*id, *class), "N3: what stands in line is ready");
                }
            }
        }
        let tasks = self.tasks.values().filter(|task| task.state == TaskState::Ready).count();
        let actors = self.actors.all.values().filter(|actor| matches!(actor.state, ActorState::Ready(_))).count();
        let groups = self.groups.values().filter(|group| matches!(group.state, GroupState::Pending(_))).count();
        assert!(tasks + actors <= items && items <= tasks + actors + groups, "N3: what is ready stands in line");
    }

    /// N4: no task is lost.
    fn check_tasks(&self) {
        assert_eq!(self.submitted, self.ended + self.tasks.len() as u64, "N4: each task ends once");
        let mut running = 0;
        let mut waiting = 0;
        for (id, task) in &self.tasks {
            match task.state {
                TaskState::Waiting => {
                    waiting += 1;
                    let missing = self.arguments.missing(crate::arguments::Waiter::Task(*id));
                    assert!(missing > 0, "N4: a waiting task waits for something");
                }
                TaskState::Ready => {}
                TaskState::Running(_) => running += 1,
            }
        }
        let busy = self.pool.workers.values().filter(|worker| matches!(worker.phase, Phase::Task(_))).count();
        assert_eq!(running, busy, "N4: a running task has a worker");
        let actors = self.actors.all.values().filter(|actor| actor.state == ActorState::Waiting).count();
        assert_eq!(waiting + actors, self.arguments.waiting(), "N4: who waits is known");
    }

    /// N5: counts and rates are what they count.
    fn check_shares(&self) {
        let mut parts = self.tasks.len() + self.queues.len() + self.groups.len();
        parts += self.actors.all.len() - self.actors.dead.len();
        let counted = self.jobs.values().map(|job| job.parts as usize).sum::<usize>();
        assert_eq!(parts, counted, "N5: parts of jobs");
        self.check_rates();
        for queue in self.queues.values() {
            let workers = queue.leases.iter().map(|worker| self.pool.worker(*worker));
            let serving = workers.filter(|worker| worker.is_serving()).count();
            assert_eq!(serving, queue.serving as usize, "N5: a queue's serving workers");
        }
    }

    /// N5: what is charged a microsecond is what runs.
    fn check_rates(&self) {
        let running = self.pool.workers.values().filter(|worker| !worker.is_blocked);
        let running = running.filter_map(|worker| worker.charge).collect::<Vec<_>>();
        let rate = |is_of: &dyn Fn(&Stream) -> bool| {
            running.iter().filter(|(stream, _)| is_of(stream)).map(|(_, rate)| rate).sum::<u64>()
        };
        for (id, job) in &self.jobs {
            assert_eq!(rate(&|stream| stream.job == *id), job.share.rate(), "N5: a job's rate");
            for (class, lane) in &job.lanes {
                if lane.charged == 0 {
                    assert_eq!((lane.share.rate(), lane.items_share.rate()), (0, 0), "N5: an idle lane's rate");
                    continue;
                }
                let is_of = |stream: &Stream| stream.job == *id && stream.class == *class;
                assert_eq!(rate(&is_of), lane.share.rate(), "N5: a lane's rate");
                let is_item = |stream: &Stream| is_of(stream) && stream.source == Source::Items;
                assert_eq!(rate(&is_item), lane.items_share.rate(), "N5: a line's rate");
            }
        }
        let charged = self.pool.workers.values().filter(|worker| worker.charge.is_some()).count();
        let lanes = self.jobs.values().flat_map(|job| job.lanes.values());
        assert_eq!(charged, lanes.map(|lane| lane.charged as usize).sum::<usize>(), "N5: charged workers");
    }

    /// N7: names belong to the living, and the dead are counted.
    fn check_actors(&self) {
        let mut named = 0;
        let mut dead = 0;
        for (id, actor) in &self.actors.all {
            let is_dead = matches!(actor.state, ActorState::Dead(_));
            dead += usize::from(is_dead);
            if let Some(name) = actor.name.as_ref().filter(|_| !is_dead) {
                named += 1;
                assert_eq!(self.actors.names.get(name), Some(id), "N7: a name belongs to its actor");
            }
            if let ActorState::Creating(worker) | ActorState::Alive(worker) = actor.state {
                assert_eq!(self.pool.worker(worker).phase, Phase::Actor(*id), "N7: a live actor has a worker");
            }
        }
        assert_eq!(named, self.actors.names.len(), "N7: names of the living only");
        assert_eq!(dead, self.actors.dead.len(), "N7: the dead are listed");
    }
}
