//! What goes over the control line as the core says it, and back.
//!
//! The one thing to know: the core names environments, queues, actors and groups by small numbers, a
//! client names groups and actors by objects; only what needs no table is translated here. This file
//! must not decide anything.

use raylet_api::record::{ObjectKey, Record, Spec};
use raylet_api::{Demand, RefusalCode};
use raylet_core::effect::Refusal;
use raylet_core::event::Strategy;
use raylet_core::ids;
use raylet_core::resources::{Amount, GpuShare, Resources};
use store::{Handle, Store};

/// As the store names it.
pub(crate) fn handle(key: ObjectKey) -> Handle {
    Handle { slot: key.slot, generation: key.generation }
}

/// As a record names it.
pub(crate) fn key(handle: Handle) -> ObjectKey {
    ObjectKey { slot: handle.slot, generation: handle.generation }
}

/// As the core names it.
pub(crate) fn core_key(key: ObjectKey) -> ids::ObjectKey {
    ids::ObjectKey { slot: key.slot, generation: key.generation }
}

/// A demand as the core counts it; whether it can be met is the core's to say.
pub(crate) fn resources(demand: &Demand) -> Resources {
    let mut resources = Resources::default();
    for (name, &amount) in demand {
        match name.as_str() {
            "CPU" => resources.cpu = Amount(amount),
            "GPU" => resources.gpu = Amount(amount),
            "memory" => resources.memory_bytes = amount,
            name => resources = resources.with(name, Amount(amount)),
        }
    }
    resources
}

/// Resources for people: `2 CPU, 1 GPU`.
pub(crate) fn show(resources: &Resources) -> String {
    let fixed = [("CPU", resources.cpu), ("GPU", resources.gpu)];
    let fixed = fixed.into_iter().filter(|(_, amount)| amount.0 > 0).map(|(name, amount)| format!("{amount} {name}"));
    let memory =
        Some(resources.memory_bytes).filter(|&bytes| bytes > 0).map(|bytes| format!("{bytes} bytes of memory"));
    let custom = resources.custom().iter().map(|(name, amount)| format!("{amount} {name}"));
    let parts: Vec<String> = fixed.chain(memory).chain(custom).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// The value of `CUDA_VISIBLE_DEVICES`; absent where no GPU was asked for.
pub(crate) fn gpus(shares: &[GpuShare], names: &[String]) -> Option<String> {
    let name = |share: &GpuShare| names.get(share.index as usize).cloned().unwrap_or_else(|| share.index.to_string());
    (!shares.is_empty()).then(|| shares.iter().map(name).collect::<Vec<_>>().join(","))
}

/// A strategy by its name; an unknown one packs.
pub(crate) fn strategy(name: &str) -> Strategy {
    match name {
        "SPREAD" => Strategy::Spread,
        "STRICT_PACK" => Strategy::StrictPack,
        "STRICT_SPREAD" => Strategy::StrictSpread,
        _ => Strategy::Pack,
    }
}

/// A refusal for programs.
pub(crate) fn code(refusal: &Refusal) -> RefusalCode {
    match refusal {
        Refusal::NameTaken { .. } => RefusalCode::NameTaken,
        Refusal::NoSuchBundle { .. } => RefusalCode::NoSuchGroup,
        Refusal::BadResources(_) | Refusal::NoBundles => RefusalCode::BadDemand,
        Refusal::TooMany { .. } | Refusal::WorkerCapReached { .. } => RefusalCode::TooMany,
        Refusal::JobOver { .. } | Refusal::CallerGone { .. } => RefusalCode::JobOver,
        _ => RefusalCode::Other,
    }
}

/// The objects that a call makes. Those behind the first stand in its spec; where that is gone, nobody
/// can make them any more.
pub(crate) fn results(store: &Store, record: &Record) -> Vec<ObjectKey> {
    let mut results: Vec<ObjectKey> = Some(record.result).filter(|_| record.results > 0).into_iter().collect();
    if let (2.., raylet_api::record::Body::Spec(spec)) = (record.results, record.body) {
        let spec = store.refer(handle(spec)).and_then(|spec| store.get(&spec).ok());
        let more = spec.and_then(|bytes| Spec::unpack(&bytes).ok().map(|spec| spec.more_results));
        results.extend(more.unwrap_or_default());
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_become_amounts_and_text() {
        let demand = [("CPU", 5_000), ("memory", 77), ("tape", 20_000), ("GPU", 0)];
        let demand: Demand = demand.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
        let found = resources(&demand);
        assert_eq!((found.cpu, found.memory_bytes, found.of("tape")), (Amount(5_000), 77, Amount::whole(2)));
        assert_eq!(show(&found), "0.5 CPU, 77 bytes of memory, 2 tape");
        assert_eq!(show(&Resources::default()), "nothing");
    }

    #[test]
    fn gpus_are_named_as_the_machine_names_them() {
        let share = |index| GpuShare { index, amount: Amount::ONE };
        assert_eq!(gpus(&[], &[]), None);
        assert_eq!(gpus(&[share(1), share(2)], &["4".to_owned(), "GPU-7".to_owned()]).as_deref(), Some("GPU-7,2"));
    }
}
