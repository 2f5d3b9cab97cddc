//! Placement groups: asked for, ready, removed.
//!
//! The one thing to know: a group is named by a promise, which is sealed when its bundles are reserved,
//! so whoever waits for it waits as for any object. This file must not reserve anything.

use super::Scheduler;
use super::line::LineId;
use super::translate::{self, code, handle};
use super::words::refused;
use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_api::record::ObjectKey;
use raylet_api::{CreateGroup, Done, Refused, RemoveGroup};
use raylet_core::effect::Refusal;
use raylet_core::event::{Event, GroupSpec};
use raylet_core::ids::GroupId;
use std::time::Duration;
use store::{CreateOptions, Encoding, ObjectRef};

/// What a group's promise becomes: MessagePack's nil, a value of the unit type.
const NIL: &[u8] = &[0xc0];

/// A placement group that is not removed.
pub(super) struct GroupRow {
    pub(super) key: ObjectKey,
    pub(super) name: String,
    /// Who asked for it and has no answer yet, under which number.
    asked: Option<(LineId, u64)>,
    is_ready: bool,
    /// So that the group has its name while it lives.
    _promise: Option<ObjectRef>,
}

impl GroupRow {
    /// Who asked for it, until that has its answer.
    pub(super) fn asker(&self) -> Option<LineId> {
        self.asked.map(|(line, _)| line)
    }
}

impl Scheduler {
    pub(super) fn on_create_group(&mut self, line: LineId, wish: CreateGroup) {
        let request = wish.request;
        let Some((job, caller, _)) = self.asker(line) else { return };
        let group = GroupId(self.next_group);
        self.next_group += 1;
        let promise = self.store.refer(handle(wish.group));
        let (key, name, asked) = (wish.group, wish.name, Some((line, request)));
        let row = GroupRow { key, name, asked, is_ready: false, _promise: promise };
        self.groups.insert(group, row);
        self.group_keys.insert(wish.group, group);
        let bundles = wish.bundles.iter().map(translate::resources).collect();
        let (strategy, is_detached) = (translate::strategy(&wish.strategy), wish.is_detached);
        self.step(Event::CreateGroup(GroupSpec { group, job, caller, bundles, strategy, is_detached }));
        if self.groups.get_mut(&group).is_some_and(|row| row.asked.take().is_some()) {
            self.send(line, Done { request });
        }
    }

    pub(super) fn on_remove_group(&mut self, wish: &RemoveGroup) {
        // What is being removed takes nobody in.
        if let Some(group) = self.group_keys.remove(&wish.group) {
            self.step(Event::RemoveGroup { group });
        }
    }

    pub(super) fn group_refused(&mut self, group: GroupId, refusal: &Refusal) {
        let Some(row) = self.forget_group(group) else { return };
        if let Some((line, request)) = row.asked {
            self.send(line, Refused { request, code: code(refusal), text: refused(refusal, None) });
        }
    }

    pub(super) fn group_ready(&mut self, group: GroupId) {
        let Some(row) = self.groups.get_mut(&group) else { return };
        row.is_ready = true;
        let key = row.key;
        let options = CreateOptions {
            encoding: Encoding::MessagePack,
            timeout: Some(Duration::ZERO),
            ..CreateOptions::default()
        };
        if let Err(error) = self.store.put_for(handle(key), NIL, &options) {
            tracing::warn!(%error, "a placement group is ready and cannot say so yet");
            self.unsaid_groups.insert(group);
        }
    }

    /// Says what found no room in the store once more.
    pub(super) fn say_groups_again(&mut self) {
        std::mem::take(&mut self.unsaid_groups).into_iter().for_each(|group| self.group_ready(group));
    }

    pub(super) fn group_removed(&mut self, group: GroupId) {
        let Some(row) = self.forget_group(group) else { return };
        if !row.is_ready {
            let failure = Failure::new(TaskErrorKind::Refused, &row.name, "the placement group was removed");
            self.seal(&[row.key], &failure);
        }
    }

    fn forget_group(&mut self, group: GroupId) -> Option<GroupRow> {
        let row = self.groups.remove(&group)?;
        self.group_keys.remove(&row.key);
        Some(row)
    }
}
