//! How much of what: demands, capacities, and the ledger that grants are taken from.
//!
//! The one thing to know: a ledger refuses to *take* more than is free, always; only a worker that
//! wakes up may take its CPU back without asking ([`Ledger::take_back`]), and then more may run than
//! there is room for. This file must not know who takes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount of a resource in units of 1/10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Amount(pub u64);

impl Amount {
    /// One whole.
    pub const ONE: Self = Self(10_000);

    /// So many wholes.
    pub const fn whole(count: u32) -> Self {
        Self(count as u64 * Self::ONE.0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 as f64 / Self::ONE.0 as f64)
    }
}

/// The largest amount of one resource: sums of many stay far from overflowing.
const AMOUNT_MAX: u64 = 1 << 48;

/// A demand or a capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    /// Processors.
    pub cpu: Amount,
    /// Graphics processors. Less than one is a part of one; more than one must be whole.
    pub gpu: Amount,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Anything else by name; sorted, each name once, nothing zero.
    custom: Vec<(String, Amount)>,
}

/// A demand that cannot mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum BadResources {
    /// 1.5 GPUs: parts of two cards are not one card.
    #[error("{units}/10,000 GPUs: more than one GPU must be a whole number of them")]
    BrokenGpus {
        /// What was asked for.
        units: u64,
    },
    /// An amount that is no amount.
    #[error("{units} units of one resource, the limit is {limit}")]
    TooMuch {
        /// What was asked for.
        units: u64,
        /// The most that can be asked for.
        limit: u64,
    },
}

impl Resources {
    /// Only processors.
    pub fn cpus(cpu: Amount) -> Self {
        Self { cpu, ..Self::default() }
    }

    /// The same with so much of GPUs.
    #[must_use]
    pub fn with_gpus(mut self, gpu: Amount) -> Self {
        self.gpu = gpu;
        self
    }

    /// The same with so much memory.
    #[must_use]
    pub fn with_memory(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// The same with so much of a named resource; 0 removes it.
    #[must_use]
    pub fn with(mut self, name: &str, amount: Amount) -> Self {
        match self.custom.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
            Ok(at) => self.custom[at].1 = amount,
            Err(at) => self.custom.insert(at, (name.to_owned(), amount)),
        }
        self.custom.retain(|(_, amount)| amount.0 > 0);
        self
    }

    /// The named resources, sorted by name.
    pub fn custom(&self) -> &[(String, Amount)] {
        &self.custom
    }

    /// How much of a named resource.
    pub fn of(&self, name: &str) -> Amount {
        let found = self.custom.binary_search_by(|(known, _)| known.as_str().cmp(name));
        found.map_or(Amount(0), |at| self.custom[at].1)
    }

    /// Whether this can be asked for at all.
    pub fn validate(&self) -> Result<(), BadResources> {
        if self.gpu > Amount::ONE && !self.gpu.0.is_multiple_of(Amount::ONE.0) {
            return Err(BadResources::BrokenGpus { units: self.gpu.0 });
        }
        let custom = self.custom.iter().map(|(_, amount)| amount.0);
        let largest = custom.chain([self.cpu.0, self.gpu.0, self.memory_bytes]).max().unwrap_or(0);
        if largest > AMOUNT_MAX {
            return Err(BadResources::TooMuch { units: largest, limit: AMOUNT_MAX });
        }
        Ok(())
    }

    /// Whether each resource of `other` is there.
    pub fn covers(&self, other: &Self) -> bool {
        self.cpu >= other.cpu
            && self.gpu >= other.gpu
            && self.memory_bytes >= other.memory_bytes
            && other.custom.iter().all(|(name, amount)| self.of(name) >= *amount)
    }

    /// The larger of both, resource by resource.
    pub fn union(&self, other: &Self) -> Self {
        let mut union = Self {
            cpu: self.cpu.max(other.cpu),
            gpu: self.gpu.max(other.gpu),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            custom: self.custom.clone(),
        };
        for (name, amount) in &other.custom {
            let amount = union.of(name).max(*amount);
            union = union.with(name, amount);
        }
        union
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.cpu.0 += other.cpu.0;
        self.gpu.0 += other.gpu.0;
        self.memory_bytes += other.memory_bytes;
        for (name, amount) in &other.custom {
            let sum = self.of(name).0 + amount.0;
            *self = std::mem::take(self).with(name, Amount(sum));
        }
    }

    /// What remains; what is not there is not taken.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu.0 = self.cpu.0.saturating_sub(other.cpu.0);
        self.gpu.0 = self.gpu.0.saturating_sub(other.gpu.0);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        for (name, amount) in &other.custom {
            let rest = self.of(name).0.saturating_sub(amount.0);
            *self = std::mem::take(self).with(name, Amount(rest));
        }
    }

    /// What part of `capacity` this is at its scarcest resource, in 1/10,000, at least 1.
    pub(crate) fn share_of(&self, capacity: &Self) -> u64 {
        let part = |amount: u64, of: u64| (amount.min(of) * Amount::ONE.0).checked_div(of).unwrap_or(0);
        let custom = self.custom.iter().map(|(name, amount)| part(amount.0, capacity.of(name).0));
        let fixed = [
            part(self.cpu.0, capacity.cpu.0),
            part(self.gpu.0, capacity.gpu.0),
            part(self.memory_bytes, capacity.memory_bytes),
        ];
        custom.chain(fixed).max().unwrap_or(0).max(1)
    }
}

/// A part of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuShare {
    /// Which, as in `CUDA_VISIBLE_DEVICES`.
    pub index: u32,
    /// How much of it.
    pub amount: Amount,
}

/// The value of `CUDA_VISIBLE_DEVICES` for a grant.
pub fn cuda_visible_devices(gpus: &[GpuShare]) -> String {
    gpus.iter().map(|gpu| gpu.index.to_string()).collect::<Vec<_>>().join(",")
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GpuSlot {
    index: u32,
    capacity: Amount,
    taken: Amount,
}

impl GpuSlot {
    fn free(&self) -> Amount {
        Amount(self.capacity.0 - self.taken.0)
    }
}

/// What there is and what of it is taken: the machine's, or a bundle's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    capacity: Resources,
    taken: Resources,
    gpus: Vec<GpuSlot>,
}

impl Ledger {
    /// A whole machine's.
    pub(crate) fn machine(capacity: Resources) -> Self {
        let count = (capacity.gpu.0 / Amount::ONE.0) as u32;
        let gpus = (0..count).map(|index| GpuShare { index, amount: Amount::ONE }).collect::<Vec<_>>();
        Self::of(capacity, &gpus)
    }

    /// A bundle's, with these parts of GPUs.
    pub(crate) fn of(capacity: Resources, gpus: &[GpuShare]) -> Self {
        let slot = |gpu: &GpuShare| GpuSlot { index: gpu.index, capacity: gpu.amount, taken: Amount(0) };
        Self { capacity, taken: Resources::default(), gpus: gpus.iter().map(slot).collect() }
    }

    pub(crate) fn capacity(&self) -> &Resources {
        &self.capacity
    }

    pub(crate) fn taken(&self) -> &Resources {
        &self.taken
    }

    /// Whether so much is free now.
    pub(crate) fn fits(&self, demand: &Resources) -> bool {
        let room = |taken: u64, capacity: u64, wanted: u64| wanted == 0 || taken + wanted <= capacity;
        room(self.taken.cpu.0, self.capacity.cpu.0, demand.cpu.0)
            && room(self.taken.memory_bytes, self.capacity.memory_bytes, demand.memory_bytes)
            && demand
                .custom
                .iter()
                .all(|(name, amount)| room(self.taken.of(name).0, self.capacity.of(name).0, amount.0))
            && Self::gpus_fit(&self.gpus, demand.gpu, GpuSlot::free)
    }

    /// Whether so much would be free if nothing were taken.
    pub(crate) fn could_fit(&self, demand: &Resources) -> bool {
        self.capacity.covers(demand) && Self::gpus_fit(&self.gpus, demand.gpu, |slot| slot.capacity)
    }

    fn gpus_fit(gpus: &[GpuSlot], wanted: Amount, room: impl Fn(&GpuSlot) -> Amount) -> bool {
        let each = wanted.min(Amount::ONE);
        let count = wanted.0.div_ceil(Amount::ONE.0) as usize;
        count == 0 || gpus.iter().filter(|slot| room(slot) >= each).count() >= count
    }

    /// Takes what [`Self::fits`]: of GPUs the fullest that has room, so that whole ones stay whole.
    pub(crate) fn take(&mut self, demand: &Resources) -> Vec<GpuShare> {
        assert!(self.fits(demand), "N1: no grant takes what runs above capacity");
        self.taken.add(demand);
        let each = demand.gpu.min(Amount::ONE);
        let count = demand.gpu.0.div_ceil(Amount::ONE.0);
        (0..count).map(|_| self.take_gpu(each)).collect()
    }

    fn take_gpu(&mut self, amount: Amount) -> GpuShare {
        let with_room = self.gpus.iter_mut().filter(|slot| slot.free() >= amount);
        let slot = with_room.min_by_key(|slot| (slot.free(), slot.index)).expect("it fits");
        slot.taken.0 += amount.0;
        GpuShare { index: slot.index, amount }
    }

    /// Takes CPU whether or not it is free: for a worker that wakes.
    pub(crate) fn take_back(&mut self, cpu: Amount) {
        self.taken.cpu.0 += cpu.0;
    }

    /// Lends CPU: for a worker that sleeps.
    pub(crate) fn lend(&mut self, cpu: Amount) {
        assert!(self.taken.cpu >= cpu, "N1: what is lent was taken");
        self.taken.cpu.0 -= cpu.0;
    }

    /// Gives back what [`Self::take`] took.
    pub(crate) fn give_back(&mut self, amounts: &Resources, gpus: &[GpuShare]) {
        assert!(self.taken.covers(amounts), "N1: what is given back was taken");
        self.taken.subtract(amounts);
        for gpu in gpus {
            let slot = self.gpus.iter_mut().find(|slot| slot.index == gpu.index).expect("it was taken here");
            slot.taken.0 -= gpu.amount.0;
        }
    }

    /// Whether `demand` wants something that `other` does not find enough of.
    pub(crate) fn contends(&self, other: &Resources, demand: &Resources) -> bool {
        let short = |taken: u64, capacity: u64, wanted: u64| wanted > 0 && taken + wanted > capacity;
        let is_gpu_short = !Self::gpus_fit(&self.gpus, other.gpu, GpuSlot::free);
        (demand.cpu.0 > 0 && short(self.taken.cpu.0, self.capacity.cpu.0, other.cpu.0))
            || (demand.memory_bytes > 0
                && short(self.taken.memory_bytes, self.capacity.memory_bytes, other.memory_bytes))
            || (demand.gpu.0 > 0 && is_gpu_short)
            || demand
                .custom
                .iter()
                .any(|(name, _)| short(self.taken.of(name).0, self.capacity.of(name).0, other.of(name).0))
    }

    /// N1 of the ledger itself.
    pub(crate) fn check(&self) {
        assert!(self.taken.memory_bytes <= self.capacity.memory_bytes, "N1: memory");
        assert!(self.taken.gpu <= self.capacity.gpu, "N1: GPUs");
        for (name, amount) in &self.taken.custom {
            assert!(*amount <= self.capacity.of(name), "N1: {name}");
        }
        let by_slot = self.gpus.iter().map(|slot| slot.taken.0).sum::<u64>();
        assert_eq!(by_slot, self.taken.gpu.0, "N1: GPUs by index");
        assert!(self.gpus.iter().all(|slot| slot.taken <= slot.capacity), "N1: one GPU");
    }
}

/// What a worker (or a reserved bundle) holds of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) amounts: Resources,
    pub(crate) gpus: Vec<GpuShare>,
    /// Its CPU is lent out while it sleeps.
    pub(crate) is_lent: bool,
    /// It woke at least once, so its CPU may be above capacity.
    pub(crate) was_woken: bool,
}

impl Holding {
    pub(crate) fn new(amounts: Resources, gpus: Vec<GpuShare>) -> Self {
        Self { amounts, gpus, is_lent: false, was_woken: false }
    }

    /// What of it the ledger counts as taken now.
    pub(crate) fn give_back(self, ledger: &mut Ledger) {
        let mut amounts = self.amounts;
        if self.is_lent {
            amounts.cpu = Amount(0);
        }
        ledger.give_back(&amounts, &self.gpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(amount: u64) -> Resources {
        Resources { gpu: Amount(amount), ..Resources::default() }
    }

    #[test]
    fn fractions_share_one_gpu_and_whole_ones_stay_whole() {
        let mut ledger = Ledger::machine(gpus(20_000));
        let first = ledger.take(&gpus(4_000));
        let second = ledger.take(&gpus(5_000));
        assert_eq!((first[0].index, second[0].index), (0, 0));
        assert!(!ledger.fits(&gpus(20_000)));
        assert_eq!(cuda_visible_devices(&ledger.take(&gpus(10_000))), "1");
        assert!(!ledger.fits(&gpus(2_000)));
        ledger.give_back(&gpus(4_000), &first);
        assert!(ledger.fits(&gpus(5_000)));
        ledger.check();
    }

    #[test]
    fn broken_gpus_are_refused() {
        assert_eq!(gpus(15_000).validate(), Err(BadResources::BrokenGpus { units: 15_000 }));
        assert_eq!(gpus(5_000).validate(), Ok(()));
    }

    #[test]
    fn named_resources_add_and_subtract_exactly() {
        let mut sum = Resources::default().with("disk", Amount(3));
        sum.add(&Resources::default().with("disk", Amount(4)).with("ant", Amount(1)));
        assert_eq!(sum.custom(), [("ant".to_owned(), Amount(1)), ("disk".to_owned(), Amount(7))]);
        sum.subtract(&Resources::default().with("ant", Amount(1)));
        assert_eq!(sum, Resources::default().with("disk", Amount(7)));
    }

    #[test]
    fn a_woken_worker_may_run_above_capacity_but_nothing_is_granted_then() {
        let mut ledger = Ledger::machine(Resources::cpus(Amount::ONE));
        let one = Resources::cpus(Amount::ONE);
        ledger.take(&one);
        ledger.lend(Amount::ONE);
        ledger.take(&one);
        ledger.take_back(Amount::ONE);
        assert!(!ledger.fits(&Resources::cpus(Amount(1))));
        assert!(ledger.fits(&Resources::default()));
    }
}
