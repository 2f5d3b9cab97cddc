//! How long objects live: counted, cached, named.

use crate::common::{KIB, MIB, check_nothing_is_left, small, under, until};
use store::{CreateError, CreateOptions, Lifetime, Store};
use tests::Unboxed;
use tests::world::{check_empty, id_of};

const QUARTER: u64 = MIB;

fn of(lifetime: Lifetime, index: u64) -> CreateOptions<'static> {
    CreateOptions { lifetime, ..under(id_of(index)) }
}

fn put(store: &Store, lifetime: Lifetime, index: u64) {
    let bytes = vec![index as u8; QUARTER as usize - 64];
    drop(store.put_with(&bytes, &of(lifetime, index)).expect("there is room"));
}

/// Lets the store's clock go on, which orders what is used by when.
fn let_time_pass(store: &Store) {
    let marker = store.put(b"").expect("there is room");
    let age = || store.list_from(marker.handle().slot, 1)[0].age;
    until("the store's clock goes on", || !age().is_zero());
}

#[test]
fn a_counted_object_ends_with_its_last_reference() {
    let store = small(4 * MIB);
    put(&store, Lifetime::Counted, 1);
    assert!(!store.contains(&id_of(1)));
    check_empty(&store);
}

#[test]
fn a_cached_object_outlives_its_references_until_it_is_deleted() {
    let store = small(4 * MIB);
    put(&store, Lifetime::Cached, 1);
    let again = store.lookup(&id_of(1)).expect("it is cached");
    assert_eq!(store.view(&again).expect("it is sealed")[0], 1);
    drop(again);
    assert!(store.contains(&id_of(1)));
    assert!(store.delete(&id_of(1)));
    check_empty(&store);
}

#[test]
fn cached_objects_go_in_the_order_of_their_last_use_when_room_is_needed() {
    let store = small(4 * MIB);
    for index in 0..4 {
        put(&store, Lifetime::Cached, index);
        let_time_pass(&store);
    }
    // The oldest is used once more, so the second oldest goes first.
    assert_eq!(store.view_by_id(&id_of(0)).expect("it is cached")[0], 0);
    let_time_pass(&store);
    put(&store, Lifetime::Cached, 4);
    let left: Vec<u64> = (0..5).filter(|&index| store.contains(&id_of(index))).collect();
    assert_eq!(left, [0, 2, 3, 4]);
    let_time_pass(&store);
    put(&store, Lifetime::Cached, 5);
    let left: Vec<u64> = (0..6).filter(|&index| store.contains(&id_of(index))).collect();
    assert_eq!(left, [0, 3, 4, 5]);
    assert_eq!(store.usage().evicted_objects, 2);
    assert_eq!((0..6).filter(|&index| store.delete(&id_of(index))).count(), 4);
    check_nothing_is_left(&store);
}

#[test]
fn a_cached_object_is_never_evicted_while_it_is_held() {
    let store = small(4 * MIB);
    (0..4).for_each(|index| put(&store, Lifetime::Cached, index));
    let held = store.lookup(&id_of(0)).expect("it is cached");
    let viewed = store.view_by_id(&id_of(1)).expect("it is cached");
    let listed = [store.lookup(&id_of(2)).expect("it is cached")];
    let container = CreateOptions { references: &listed, ..of(Lifetime::Named, 10) };
    // Its list takes a chunk, for which the one object that nobody holds has to go.
    drop(store.put_with(b"", &container).expect("the fourth can go"));
    drop(listed);
    assert!(!store.contains(&id_of(3)), "nobody held it");
    let full = store.put_with(&vec![0; 2 * MIB as usize], &under(id_of(9))).unboxed().err();
    assert!(matches!(full, Some(CreateError::OutOfMemory { .. })), "{full:?}");
    assert!((0..3).all(|index| store.contains(&id_of(index))), "an object that is held went");
    assert_eq!((viewed[0], store.view(&held).expect("it is held")[0]), (1, 0));
}

#[test]
fn a_named_object_lives_until_it_is_deleted_whatever_the_pressure() {
    let store = small(4 * MIB);
    put(&store, Lifetime::Named, 1);
    for _ in 0..20 {
        put(&store, Lifetime::Cached, 2);
        assert!(store.delete(&id_of(2)));
        let full = store.put(&vec![0; 4 * MIB as usize]).unboxed().err();
        assert!(matches!(full, Some(CreateError::OutOfMemory { .. })), "{full:?}");
    }
    assert_eq!(store.view_by_id(&id_of(1)).expect("it is named")[0], 1);
    assert!(store.delete(&id_of(1)));
    drop(store.put(&vec![0; 4 * MIB as usize]).expect("everything is free"));
    check_empty(&store);
}

#[test]
fn eviction_takes_no_more_than_is_needed() {
    let store = small(4 * MIB);
    let cached = |index: u64| store.put_with(&vec![1; 64 * KIB as usize], &of(Lifetime::Cached, index));
    let count = (0..).find(|&index| {
        drop(cached(index).expect("cached objects make room for each other"));
        store.usage().evicted_objects > 0
    });
    let count = count.expect("the store is full at some time");
    assert!(count >= 50, "only {count} of 64 KiB were in 4 MiB when the first had to go");
    assert!(store.usage().evicted_objects <= 2, "{:?}", store.usage());
}
