//! Actors: placed, alive, restarted, dead.
//!
//! The one thing to know: calls go by without the raylet; here an actor is a worker that is not
//! given back. What must be free to place it (`class.demand`) is not what it then holds (`running`).
//! This file must not choose when it is placed: its creation stands in a lane like a task.
//!
//! ```text
//!  CreateActor -> Waiting -> Ready --dispatch--> Creating --ActorReady--> Alive
//!                              ^                    |                       |
//!                              +---- worker died, restarts left ------------+---> Dead, with a cause
//! ```

use crate::arguments::Waiter;
use crate::effect::{DeathCause, Effect, KillReason, Refusal, Request};
use crate::event::{ActorName, ActorSpec};
use crate::ids::{ActorId, ClassId, JobId, WorkerId};
use crate::jobs::{Item, Turn};
use crate::node::Node;
use crate::resources::Resources;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActorState {
    Waiting,
    Ready(Turn),
    Creating(WorkerId),
    Alive(WorkerId),
    Dead(DeathCause),
}

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) job: JobId,
    pub(crate) class: ClassId,
    pub(crate) running: Resources,
    pub(crate) restarts_max: i32,
    pub(crate) restarts: u32,
    pub(crate) name: Option<ActorName>,
    pub(crate) is_detached: bool,
    /// Nobody has a handle: it ends after the calls that are queued.
    pub(crate) is_ending: bool,
    pub(crate) state: ActorState,
}

impl Actor {
    fn may_restart(&self) -> bool {
        self.restarts_max < 0 || i64::from(self.restarts) < i64::from(self.restarts_max)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Actors {
    pub(crate) all: BTreeMap<ActorId, Actor>,
    pub(crate) names: BTreeMap<ActorName, ActorId>,
    /// In the order of their deaths; the oldest are forgotten.
    pub(crate) dead: VecDeque<ActorId>,
}

impl Actors {
    fn live(&self) -> usize {
        self.all.len() - self.dead.len()
    }
}

impl Node {
    /// The actor of this name.
    pub fn actor_named(&self, name: &ActorName) -> Option<ActorId> {
        self.actors.names.get(name).copied()
    }

    pub(crate) fn on_create_actor(&mut self, spec: ActorSpec, effects: &mut Vec<Effect>) {
        let taken = spec.name.as_ref().and_then(|name| self.actor_named(name));
        if let Some(existing) = taken.filter(|_| spec.get_if_exists) {
            effects.push(Effect::ActorExists { actor: spec.actor, existing });
        } else if let Err(refusal) = self.admit_actor(&spec, taken) {
            effects.push(Effect::Refuse { request: Request::Actor(spec.actor), refusal });
        } else {
            self.add_actor(spec, effects);
        }
    }

    fn admit_actor(&self, spec: &ActorSpec, taken: Option<ActorId>) -> Result<(), Refusal> {
        if let Some(by) = taken {
            return Err(Refusal::NameTaken { by });
        }
        if self.actors.all.contains_key(&spec.actor) {
            return Err(Refusal::DuplicateId);
        }
        Self::below(self.actors.live(), self.config.actors_max)?;
        spec.running.validate().map_err(Refusal::BadResources)?;
        self.admit(spec.job, spec.caller, &spec.class)
    }

    fn add_actor(&mut self, spec: ActorSpec, effects: &mut Vec<Effect>) {
        let mut class = spec.class;
        class.demand = class.demand.union(&spec.running);
        let class = self.classes.intern(class, &self.ledger);
        let actor = Actor {
            job: spec.job,
            class,
            running: spec.running,
            restarts_max: spec.restarts_max,
            restarts: 0,
            name: spec.name,
            is_detached: spec.is_detached,
            is_ending: false,
            state: ActorState::Waiting,
        };
        if let Some(name) = &actor.name {
            self.actors.names.insert(name.clone(), spec.actor);
        }
        self.actors.all.insert(spec.actor, actor);
        self.part_added(spec.job);
        match spec.waits_for.is_empty() {
            true => self.actor_ready_to_place(spec.actor, effects),
            false => self.arguments.wait(Waiter::Actor(spec.actor), &spec.waits_for),
        }
    }

    pub(crate) fn actor_ready_to_place(&mut self, id: ActorId, effects: &mut Vec<Effect>) {
        let actor = &self.actors.all[&id];
        let (job, class, is_first) = (actor.job, actor.class, actor.restarts == 0);
        let turn = self.stand_in_line(job, class, None, Item::Actor(id));
        self.set_state(id, ActorState::Ready(turn));
        if is_first {
            self.report_infeasible(Request::Actor(id), class, effects);
        }
    }

    fn set_state(&mut self, id: ActorId, state: ActorState) {
        self.actors.all.get_mut(&id).expect("its caller looked it up").state = state;
    }

    /// The actor's turn has come; `worker` holds what it needs.
    pub(crate) fn run_actor(&mut self, id: ActorId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let gpus = self.pool.worker(worker).gpus();
        self.set_state(id, ActorState::Creating(worker));
        let restarts = self.actors.all[&id].restarts;
        effects.push(Effect::RunActor { actor: id, worker, restarts, gpus });
    }

    pub(crate) fn on_actor_ready(&mut self, id: ActorId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get_mut(&id) else { return };
        if actor.state != ActorState::Creating(worker) {
            return;
        }
        actor.state = ActorState::Alive(worker);
        let is_ending = actor.is_ending;
        effects.push(Effect::ActorAlive { actor: id, worker });
        if is_ending {
            effects.push(Effect::EndActor { actor: id, worker });
        }
    }

    pub(crate) fn on_actor_failed(&mut self, id: ActorId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let actor = self.actors.all.get(&id);
        if actor.is_some_and(|actor| actor.state == ActorState::Creating(worker)) {
            self.end_actor(id, DeathCause::CreationFailed, KillReason::Actor, effects);
        }
    }

    pub(crate) fn on_actor_exited(&mut self, id: ActorId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get(&id) else { return };
        if matches!(actor.state, ActorState::Creating(by) | ActorState::Alive(by) if by == worker) {
            let cause = if actor.is_ending { DeathCause::HandlesGone } else { DeathCause::Exited };
            self.end_actor(id, cause, KillReason::Actor, effects);
        }
    }

    pub(crate) fn on_actor_handles_gone(&mut self, id: ActorId, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get_mut(&id) else { return };
        if actor.is_detached || std::mem::replace(&mut actor.is_ending, true) {
            return;
        }
        if let ActorState::Alive(worker) = actor.state {
            effects.push(Effect::EndActor { actor: id, worker });
        }
    }

    pub(crate) fn on_kill_actor(&mut self, id: ActorId, no_restart: bool, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get(&id) else { return };
        match actor.state {
            ActorState::Creating(worker) | ActorState::Alive(worker) if !no_restart && actor.may_restart() => {
                self.kill(worker, KillReason::Actor, effects);
            }
            ActorState::Dead(_) => {}
            ActorState::Waiting | ActorState::Ready(_) if !no_restart => {}
            ActorState::Waiting | ActorState::Ready(_) | ActorState::Creating(_) | ActorState::Alive(_) => {
                self.end_actor(id, DeathCause::Killed, KillReason::Actor, effects);
            }
        }
    }

    pub(crate) fn actor_lost_worker(&mut self, id: ActorId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get_mut(&id) else { return };
        let had = matches!(actor.state, ActorState::Creating(by) | ActorState::Alive(by) if by == worker);
        if !had {
            return;
        }
        if !actor.may_restart() || actor.is_ending {
            let cause = match actor.is_ending {
                true => DeathCause::HandlesGone,
                false => DeathCause::WorkerDied { restarts: actor.restarts },
            };
            self.end_actor(id, cause, KillReason::Actor, effects);
            return;
        }
        actor.restarts += 1;
        effects.push(Effect::ActorRestarting { actor: id, restarts: actor.restarts });
        self.actor_ready_to_place(id, effects);
    }

    /// The actor is dead from now on, whatever its worker still does; its name is free.
    pub(crate) fn end_actor(&mut self, id: ActorId, cause: DeathCause, reason: KillReason, effects: &mut Vec<Effect>) {
        let Some(actor) = self.actors.all.get_mut(&id) else { return };
        let (job, class) = (actor.job, actor.class);
        let before = std::mem::replace(&mut actor.state, ActorState::Dead(cause));
        if let Some(name) = &actor.name {
            self.actors.names.remove(name);
        }
        match before {
            ActorState::Waiting => self.arguments.forget(Waiter::Actor(id)),
            ActorState::Ready(turn) => self.leave_line(job, class, turn),
            ActorState::Creating(worker) | ActorState::Alive(worker) => self.kill_if_there(worker, reason, effects),
            ActorState::Dead(_) => unreachable!("N7: an actor dies once"),
        }
        self.bury(id);
        effects.push(Effect::ActorDead { actor: id, cause });
        self.part_gone(job, effects);
    }

    fn kill_if_there(&mut self, worker: WorkerId, reason: KillReason, effects: &mut Vec<Effect>) {
        if self.pool.workers.contains_key(&worker) {
            self.kill(worker, reason, effects);
        }
    }

    fn bury(&mut self, id: ActorId) {
        self.actors.dead.push_back(id);
        if self.actors.dead.len() > self.config.dead_actors_max {
            let oldest = self.actors.dead.pop_front().expect("there is one");
            self.actors.all.remove(&oldest);
        }
    }

    pub(crate) fn end_actors_of(
        &mut self,
        is_over: impl Fn(&Actor) -> bool,
        cause: DeathCause,
        reason: KillReason,
        effects: &mut Vec<Effect>,
    ) {
        let is_live = |actor: &Actor| !matches!(actor.state, ActorState::Dead(_));
        let over = self.actors.all.iter().filter(|(_, actor)| is_live(actor) && is_over(actor));
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_actor(id, cause, reason, effects);
        }
    }
}
