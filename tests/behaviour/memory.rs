//! Where memory goes and that it comes back.

use crate::common::{KIB, MIB, check_nothing_is_left, fill, kept, small};
use std::sync::atomic::Ordering;
use store::{CreateOptions, ObjectRef, Store, Usage};
use tests::alone;
use tests::chance::Chance;
use tests::process::Child;
use tests::shared::SharedWords;

const MANY: u64 = 1_000_000;
const SMALL_BYTES: u64 = 64;
const LARGE: u64 = 2 * MANY * SMALL_BYTES;

fn check_sum(usage: &Usage) {
    let sum = usage.used_bytes + usage.unused_bytes + usage.free_bytes;
    assert_eq!(sum, usage.capacity_bytes, "used + unused + free = capacity: {usage:?}");
}

fn put_small(store: &Store, number: u64) -> ObjectRef {
    let mut bytes = [0; SMALL_BYTES as usize];
    fill(number, &mut bytes);
    let by_handle = CreateOptions { by_handle_only: true, ..CreateOptions::default() };
    store.put_with(&bytes, &by_handle).expect("half of the store is free")
}

fn check_small(store: &Store, number: u64, object: &ObjectRef) {
    let mut bytes = [0; SMALL_BYTES as usize];
    fill(number, &mut bytes);
    assert!(*store.view(object).expect("it is sealed") == bytes, "object {number} holds other bytes");
}

#[test]
fn a_million_small_objects_half_of_them_freed_leave_room_for_a_large_one() {
    let mut chance = Chance::new(Chance::seed_or(3));
    let store = small(LARGE);
    let mut objects: Vec<(u64, ObjectRef)> = (0..MANY).map(|number| (number, put_small(&store, number))).collect();
    let usage = store.usage();
    check_sum(&usage);
    assert_eq!(usage.used_bytes, MANY * SMALL_BYTES, "half of the capacity is used: {usage:?}");
    objects.retain(|_| chance.below(2) == 0);
    let usage = store.usage();
    check_sum(&usage);
    assert_eq!(usage.used_bytes, objects.len() as u64 * SMALL_BYTES, "{usage:?}");
    let large = store.create(LARGE * 2 / 5, &CreateOptions::default()).expect("there are 75 % free").seal();
    objects.iter().step_by(97).for_each(|(number, object)| check_small(&store, *number, object));
    // What was freed between the others is used again at once: there is no room anywhere else.
    let rest = store.create(LARGE / 10 - MIB, &CreateOptions::default()).expect("there are 35 % free").seal();
    let again: Vec<ObjectRef> = (0..MANY / 3).map(|number| put_small(&store, number)).collect();
    check_sum(&store.usage());
    objects.iter().step_by(101).for_each(|(number, object)| check_small(&store, *number, object));
    drop((objects, again, large, rest));
    check_nothing_is_left(&store);
}

#[test]
fn used_is_the_bytes_of_living_objects_and_nothing_else() {
    let store = small(16 * MIB);
    let mut expected = 0;
    let mut objects = Vec::new();
    for (size, block) in [
        (1, 64),
        (64, 64),
        (65, 128),
        (16 * KIB, 16 * KIB),
        (16 * KIB + 1, 20 * KIB),
        (MIB, MIB),
        (MIB + 1, MIB + 64 * KIB),
    ] {
        objects.push(store.create(size, &CreateOptions::default()).expect("there is room").seal());
        expected += block;
        let usage = store.usage();
        assert_eq!(usage.used_bytes, expected, "after an object of {size} bytes: {usage:?}");
        check_sum(&usage);
    }
    let by_state: Vec<(u64, u64)> = store.usage().by_state.into_values().collect();
    assert_eq!(by_state, [(7, objects.iter().map(ObjectRef::size).sum())]);
    drop(objects);
    assert_eq!(store.usage().used_bytes, 0);
    check_nothing_is_left(&store);
}

#[test]
fn freed_memory_is_used_again_at_once() {
    let store = small(4 * MIB);
    for size in [1, 100, 5000, 100 * KIB, MIB, 3 * MIB] {
        for round in 0..50 {
            let object = store.create(size, &CreateOptions::default());
            drop(object.unwrap_or_else(|error| panic!("{size} bytes in round {round}: {error}")).seal());
        }
    }
    check_nothing_is_left(&store);
}

#[test]
fn memory_of_one_size_serves_every_other_size_once_it_is_free() {
    let store = small(4 * MIB);
    for size in [64, 3 * MIB, 1000, 200 * KIB, 64, 4 * MIB, 20 * KIB] {
        let mut objects = Vec::new();
        while let Ok(writer) = store.create(size, &CreateOptions { by_handle_only: true, ..CreateOptions::default() }) {
            objects.push(writer.seal());
        }
        let bytes: u64 = objects.iter().map(ObjectRef::size).sum();
        assert!(bytes * 4 >= 3 * MIB, "{bytes} bytes in objects of {size}: {:?}", store.usage());
    }
    check_nothing_is_left(&store);
}

alone!(a_client_without_objects_strands_at_most_one_chunk {
    let store = kept(16 * MIB);
    let words = SharedWords::new(1);
    let child = Child::fork(|| {
        let sizes = [10, 1000, 10_000, 100_000, 2_000_000];
        let objects: Vec<ObjectRef> = (0..10)
            .flat_map(|_| sizes.map(|size| store.put(&vec![1; size / 2]).expect("there is room")))
            .collect();
        drop(objects);
        words[0].store(1, Ordering::SeqCst);
        crate::common::until("the parent has looked", || words[0].load(Ordering::SeqCst) == 2);
        0
    });
    crate::common::until("the child has let go", || words[0].load(Ordering::SeqCst) == 1);
    store.settle(crate::common::PATIENCE);
    let usage = store.usage();
    check_sum(&usage);
    assert_eq!(usage.used_bytes, 0, "{usage:?}");
    assert!(usage.unused_bytes <= 64 * KIB, "{usage:?}");
    words[0].store(2, Ordering::SeqCst);
    child.succeed();
    check_nothing_is_left(&store);
});
