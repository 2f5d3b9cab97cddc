//! Scheduling classes and their numbers.
//!
//! The one thing to know: a class is numbered when it is first named, and forgotten by
//! [`Classes::retain`] some time after the last use of its number. This file must not know what uses
//! them.

use crate::event::ClassSpec;
use crate::ids::ClassId;
use crate::resources::Ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Fewer classes than this are never looked through.
const SWEEP_MIN: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) spec: Arc<ClassSpec>,
    /// What part of the machine one worker of it uses, in 1/10,000.
    pub(crate) share: u64,
    /// Whether the empty machine has room for one.
    pub(crate) fits_machine: bool,
}

#[derive(Debug)]
pub(crate) struct Classes {
    by_spec: BTreeMap<Arc<ClassSpec>, ClassId>,
    by_id: BTreeMap<ClassId, Class>,
    next: u32,
    sweep_at: usize,
}

impl Classes {
    pub(crate) fn new() -> Self {
        Self { by_spec: BTreeMap::new(), by_id: BTreeMap::new(), next: 0, sweep_at: SWEEP_MIN }
    }

    /// The number of a class, a new one if it was never named.
    pub(crate) fn intern(&mut self, spec: ClassSpec, machine: &Ledger) -> ClassId {
        if let Some(known) = self.by_spec.get(&spec) {
            return *known;
        }
        let id = ClassId(self.next);
        self.next += 1;
        let share = spec.demand.share_of(machine.capacity());
        let fits_machine = machine.could_fit(&spec.demand);
        let spec = Arc::new(spec);
        self.by_spec.insert(spec.clone(), id);
        self.by_id.insert(id, Class { spec, share, fits_machine });
        id
    }

    pub(crate) fn class(&self, id: ClassId) -> &Class {
        self.by_id.get(&id).expect("N5: a class in use is known")
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.by_id.iter().map(|(id, class)| (*id, class))
    }

    /// Whether it is time to look which are still in use.
    pub(crate) fn are_many(&self) -> bool {
        self.by_id.len() >= self.sweep_at
    }

    /// Forgets all but these. The next look comes when there are twice as many, so each costs O(1).
    pub(crate) fn retain(&mut self, used: &BTreeSet<ClassId>) {
        self.by_id.retain(|id, _| used.contains(id));
        self.by_spec.retain(|_, id| used.contains(id));
        self.sweep_at = SWEEP_MIN.max(2 * self.by_id.len());
    }
}
