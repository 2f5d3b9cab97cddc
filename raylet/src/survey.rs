//! The store's own listings as the messages that carry them.
//!
//! The one thing to know: each function looks at everything, so it may take as long as the store is
//! full; the socket thread calls none of them itself (R2). This file must not decide anything.

use raylet_api::ObjectId;
use raylet_api::message::*;
use store::{HolderShare, LAYOUT_VERSION, ObjectState as Stored, Store};

/// How the store is.
pub(crate) fn status(store: &Store) -> StoreStatus {
    let (usage, geometry) = (store.usage(), store.geometry());
    let of_state = |state| usage.by_state.get(&state).copied().unwrap_or_default();
    let (spilled_object_count, spilled_bytes) = of_state(Stored::OnDisk);
    StoreStatus {
        capacity_bytes: usage.capacity_bytes,
        used_bytes: usage.used_bytes,
        unused_bytes: usage.unused_bytes,
        free_bytes: usage.free_bytes,
        resident_bytes: usage.resident_bytes,
        metadata_bytes: usage.metadata_bytes,
        spilled_bytes,
        object_count: usage.by_state.values().map(|(count, _)| count).sum(),
        spilled_object_count,
        slot_count: geometry.slots,
        client_count: usage.clients as u32,
        // Number 0 is nobody's.
        max_clients: geometry.clients as u32 - 1,
        swept_client_count: usage.swept_clients,
        swept_hold_count: usage.swept_holds,
        counters: counters(&usage),
    }
}

fn counters(usage: &store::Usage) -> std::collections::BTreeMap<String, u64> {
    let counters = [
        ("layout_version", u64::from(LAYOUT_VERSION)),
        ("objects_evicted", usage.evicted_objects),
        ("objects_restored", usage.restored_objects),
        ("objects_spilled", usage.spilled_objects),
    ];
    counters.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A page of the objects, in the order of their slots; the cursor is a slot.
pub(crate) fn objects(store: &Store, cursor: u64, count_max: u32) -> ObjectsReply {
    let Ok(first) = u32::try_from(cursor) else {
        return ObjectsReply::default();
    };
    let found = store.list_from(first, count_max as usize);
    let is_full = found.len() == count_max as usize;
    let last = found.last().filter(|_| is_full);
    ObjectsReply {
        next_cursor: last.map(|last| u64::from(last.handle.slot) + 1),
        objects: found.iter().map(object).collect(),
    }
}

fn object(found: &store::ObjectInfo) -> ObjectInfo {
    let holders = found.holders.iter().take(HOLDERS_COUNT_MAX);
    let total = |of: fn(&store::Holder) -> u32| found.holders.iter().map(of).map(u64::from).sum();
    ObjectInfo {
        id: ObjectId::from_bytes(*found.id.as_bytes()),
        bytes: found.size,
        state: state(found.state),
        age_ms: found.age.as_millis() as u64,
        listed_count: found.listed,
        reference_count: total(|holder| holder.references),
        pin_count: total(|holder| holder.pins),
        holders: holders.map(holder).collect(),
    }
}

fn holder(found: &store::Holder) -> Holder {
    Holder { client_index: found.client.into(), pid: found.pid, references: found.references, pins: found.pins }
}

fn state(found: Stored) -> ObjectState {
    match found {
        Stored::Promised => ObjectState::Promised,
        Stored::Writing => ObjectState::Writing,
        Stored::InMemory => ObjectState::InMemory,
        Stored::Spilling => ObjectState::Spilling,
        Stored::OnDisk => ObjectState::OnDisk,
        Stored::Ending => ObjectState::Ending,
        _ => ObjectState::Unknown,
    }
}

/// A page of the clients, in the order of their numbers; the cursor is a number.
pub(crate) fn clients(store: &Store, cursor: u64, count_max: u32) -> ClientsReply {
    let shares = store.holders();
    let found = store.clients();
    let mut rest = found.iter().filter(|client| u64::from(client.client) >= cursor);
    let page: Vec<_> = rest.by_ref().take(count_max as usize).collect();
    ClientsReply {
        clients: page.iter().map(|found| client(found, &shares)).collect(),
        next_cursor: rest.next().map(|next| next.client.into()),
    }
}

fn client(found: &store::ClientInfo, shares: &[HolderShare]) -> ClientInfo {
    let share = shares.iter().find(|share| share.client == found.client);
    ClientInfo {
        client_index: found.client.into(),
        pid: found.pid,
        label: found.label.clone(),
        age_ms: found.age.as_millis() as u64,
        parent: found.parent.map(u32::from),
        held_bytes: share.map_or(0, |share| share.held_bytes),
        pinned_bytes: share.map_or(0, |share| share.pinned_bytes),
        waiting_bytes: found.waiting_bytes,
        stopped: found.is_stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Config, Keeping};

    fn store() -> Store {
        let config = Config {
            capacity_bytes: 4 << 20,
            max_clients: 8,
            label: "tester".to_owned(),
            keeping: Keeping::Inline,
            ..Config::default()
        };
        Store::in_process(config).unwrap()
    }

    #[test]
    fn pages_hold_each_object_once() {
        let store = store();
        let kept: Vec<_> = (0..10).map(|_| store.put(b"value").unwrap()).collect();
        let (mut seen, mut cursor) = (Vec::new(), Some(0));
        while let Some(from) = cursor {
            let page = objects(&store, from, 4);
            assert!(page.objects.len() <= 4);
            seen.extend(page.objects.iter().map(|object| object.id));
            cursor = page.next_cursor;
        }
        let mut ids: Vec<_> = kept.iter().map(|kept| ObjectId::from_bytes(*kept.id().as_bytes())).collect();
        seen.sort();
        ids.sort();
        assert_eq!(seen, ids);
        assert_eq!(objects(&store, u64::MAX, 4), ObjectsReply::default());
    }

    #[test]
    fn who_holds_what_is_told_in_numbers() {
        let store = store();
        let object = store.put(&[7; 1000]).unwrap();
        let again = object.clone();
        let view = store.view(&object).unwrap();
        let page = objects(&store, 0, 9);
        let [info] = &page.objects[..] else { panic!("{page:?}") };
        assert_eq!((info.bytes, info.state), (1000, ObjectState::InMemory));
        assert_eq!((info.reference_count, info.pin_count), (2, 1));
        assert_eq!(info.holders[0].pid, std::process::id());
        let page = clients(&store, 0, 9);
        assert_eq!(page.clients.len(), 1);
        assert_eq!(page.clients[0].label, "tester");
        assert_eq!((page.clients[0].held_bytes, page.clients[0].pinned_bytes), (1000, 1000));
        drop((view, again));
        let status = status(&store);
        assert_eq!((status.object_count, status.client_count), (1, 1));
        assert_eq!(status.used_bytes + status.unused_bytes + status.free_bytes, 4 << 20);
    }
}
