//! Placement groups: bundles reserved all at once.
//!
//! The one thing to know: a ready group's bundles are ledgers of their own, and the machine's ledger
//! counts them as taken whether or not anything runs in them. A group that is removed keeps them
//! until the last worker in it is really gone. This file must not choose when a group is reserved:
//! it stands in a lane like a task.

use crate::actors::Actor;
use crate::effect::{DeathCause, Effect, KillReason, Refusal, Request, TaskEnd};
use crate::event::{ClassSpec, GroupSpec, Placement, StillWanted, Strategy};
use crate::ids::{ClassId, EnvId, FunctionGroup, GroupId, JobId};
use crate::jobs::{Item, Turn};
use crate::node::{Account, Node};
use crate::resources::{Amount, GpuShare, Ledger, Resources};
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) ledger: Ledger,
    pub(crate) gpus: Vec<GpuShare>,
    /// Workers that hold something of it, if only nothing.
    pub(crate) workers: u32,
}

#[derive(Debug)]
pub(crate) enum GroupState {
    Pending(Turn),
    Ready(Vec<Bundle>),
    /// Ready once; what runs in it is being killed.
    Removing(Vec<Bundle>),
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) job: JobId,
    pub(crate) bundles: Vec<Resources>,
    pub(crate) strategy: Strategy,
    pub(crate) is_detached: bool,
    pub(crate) class: ClassId,
    pub(crate) state: GroupState,
}

impl Group {
    pub(crate) fn reserved(&self) -> &[Bundle] {
        match &self.state {
            GroupState::Pending(_) => &[],
            GroupState::Ready(bundles) | GroupState::Removing(bundles) => bundles,
        }
    }

    fn reserved_mut(&mut self) -> &mut [Bundle] {
        match &mut self.state {
            GroupState::Pending(_) => &mut [],
            GroupState::Ready(bundles) | GroupState::Removing(bundles) => bundles,
        }
    }

    /// The only strategy that one machine may be too few for.
    pub(crate) fn fits_one_machine(&self) -> bool {
        match self.strategy {
            Strategy::Pack | Strategy::Spread | Strategy::StrictPack => true,
            Strategy::StrictSpread => self.bundles.len() <= 1,
        }
    }
}

/// Takes all bundles, or nothing.
pub(crate) fn reserve(machine: &Ledger, bundles: &[Resources]) -> Option<(Ledger, Vec<Bundle>)> {
    let mut ledger = machine.clone();
    let mut reserved = Vec::with_capacity(bundles.len());
    for bundle in bundles {
        if !ledger.fits(bundle) {
            return None;
        }
        let gpus = ledger.take(bundle);
        reserved.push(Bundle { ledger: Ledger::of(bundle.clone(), &gpus), gpus, workers: 0 });
    }
    Some((ledger, reserved))
}

impl Node {
    pub(crate) fn on_create_group(&mut self, spec: GroupSpec, effects: &mut Vec<Effect>) {
        let mut sum = Resources::default();
        spec.bundles.iter().for_each(|bundle| sum.add(bundle));
        // What all bundles need together; its GPUs may be parts of several cards.
        let class = ClassSpec {
            function_group: FunctionGroup(spec.bundles.len() as u64),
            demand: sum,
            env: EnvId(u32::MAX),
            placement: Placement::Machine,
            calls_max: 0,
        };
        match self.admit_group(&spec, &class) {
            Ok(()) => self.add_group(spec, class, effects),
            Err(refusal) => effects.push(Effect::Refuse { request: Request::Group(spec.group), refusal }),
        }
    }

    fn admit_group(&self, spec: &GroupSpec, class: &ClassSpec) -> Result<(), Refusal> {
        if self.groups.contains_key(&spec.group) {
            return Err(Refusal::DuplicateId);
        }
        if spec.bundles.is_empty() {
            return Err(Refusal::NoBundles);
        }
        Self::below(self.groups.len(), self.config.groups_max)?;
        for bundle in &spec.bundles {
            bundle.validate().map_err(Refusal::BadResources)?;
        }
        self.admit_caller(spec.job, spec.caller)?;
        // Of the sum only the size is of interest: 1.5 GPUs are fine if they are 1 and 0.5.
        class.demand.clone().with_gpus(Amount(0)).validate().map_err(Refusal::BadResources)
    }

    fn add_group(&mut self, spec: GroupSpec, class: ClassSpec, effects: &mut Vec<Effect>) {
        let class = self.classes.intern(class, &self.ledger);
        let turn = self.stand_in_line(spec.job, class, None, Item::Group(spec.group));
        let state = GroupState::Pending(turn);
        let (job, bundles) = (spec.job, spec.bundles);
        let group = Group { job, bundles, strategy: spec.strategy, is_detached: spec.is_detached, class, state };
        let is_feasible = self.is_group_feasible(&group);
        self.groups.insert(spec.group, group);
        self.part_added(job);
        if !is_feasible {
            let wanted = self.classes.class(class).spec.demand.clone();
            let capacity = self.ledger.capacity().clone();
            effects.push(Effect::Infeasible { request: Request::Group(spec.group), wanted, capacity });
            self.leave_line(job, class, turn);
        }
    }

    fn is_group_feasible(&self, group: &Group) -> bool {
        let empty = Ledger::machine(self.ledger.capacity().clone());
        group.fits_one_machine() && reserve(&empty, &group.bundles).is_some()
    }

    /// The group's turn has come, and everything is there.
    pub(crate) fn group_reserved(
        &mut self,
        id: GroupId,
        ledger: Ledger,
        bundles: Vec<Bundle>,
        effects: &mut Vec<Effect>,
    ) {
        self.ledger = ledger;
        self.groups.get_mut(&id).expect("N8: a group in line is known").state = GroupState::Ready(bundles);
        effects.push(Effect::GroupReady { group: id });
    }

    pub(crate) fn on_remove_group(&mut self, id: GroupId, effects: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (job, class) = (group.job, group.class);
        match std::mem::replace(&mut group.state, GroupState::Removing(Vec::new())) {
            GroupState::Pending(turn) => {
                let lane = self.jobs.get(&job).and_then(|job| job.lanes.get(&class));
                if lane.is_some_and(|lane| lane.items.contains_key(&turn)) {
                    self.leave_line(job, class, turn);
                }
            }
            GroupState::Ready(bundles) => group.state = GroupState::Removing(bundles),
            GroupState::Removing(bundles) => {
                group.state = GroupState::Removing(bundles);
                return;
            }
        }
        self.end_in_group(id, effects);
        self.are_groups_emptied = true;
    }

    /// Ends all that waits for the group or runs in it.
    fn end_in_group(&mut self, id: GroupId, effects: &mut Vec<Effect>) {
        let is_inside = |placement| matches!(placement, Placement::Group { group, .. } if group == id);
        let inside = self.classes.iter().filter(|(_, class)| is_inside(class.spec.placement));
        let inside = inside.map(|(class, _)| class).collect::<BTreeSet<_>>();
        if inside.is_empty() {
            return;
        }
        let (end, reason) = (TaskEnd::GroupRemoved { group: id }, Some(KillReason::GroupRemoved));
        let nobody = StillWanted::default();
        self.end_tasks_of(|task| inside.contains(&task.class), &nobody, end, reason, effects);
        self.end_queues_of(|queue| inside.contains(&queue.class), &nobody, end, reason, effects);
        let cause = DeathCause::GroupRemoved { group: id };
        let is_inside = |actor: &Actor| inside.contains(&actor.class);
        self.end_actors_of(is_inside, cause, KillReason::GroupRemoved, effects);
    }

    pub(crate) fn bundle_entered(&mut self, account: Account) {
        if let Account::Bundle(group, index) = account {
            self.bundle_mut(group, index).workers += 1;
        }
    }

    pub(crate) fn bundle_left(&mut self, account: Account) {
        if let Account::Bundle(group, index) = account {
            let bundle = self.bundle_mut(group, index);
            bundle.workers -= 1;
            self.are_groups_emptied |= bundle.workers == 0;
        }
    }

    pub(crate) fn bundle_mut(&mut self, group: GroupId, index: u32) -> &mut Bundle {
        let group = self.groups.get_mut(&group).expect("N8: a group with workers is known");
        &mut group.reserved_mut()[index as usize]
    }

    /// Gives back what removed groups had, once nothing runs in them.
    pub(crate) fn groups_emptied(&mut self, effects: &mut Vec<Effect>) {
        let is_over = |group: &Group| matches!(&group.state, GroupState::Removing(bundles) if bundles.iter().all(|bundle| bundle.workers == 0));
        let over = self.groups.iter().filter(|(_, group)| is_over(group)).map(|(id, _)| *id);
        for id in over.collect::<Vec<_>>() {
            let group = self.groups.remove(&id).expect("it was just listed");
            for (bundle, reserved) in group.bundles.iter().zip(group.reserved()) {
                self.ledger.give_back(bundle, &reserved.gpus);
            }
            effects.push(Effect::GroupRemoved { group: id });
            self.part_gone(group.job, effects);
        }
        self.are_groups_emptied = false;
    }
}
