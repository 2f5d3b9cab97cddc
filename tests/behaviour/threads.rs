//! Many threads of one process at the same objects.

use crate::common::{MIB, check_nothing_is_left, filled, kept, under};
use std::sync::Barrier;
use std::thread;
use store::{CreateError, GetError, ObjectRef, Store};
use tests::Unboxed;
use tests::chance::Chance;
use tests::world::{check_content, content, id_of};

const THREADS: u64 = 8;
const ROUNDS: u64 = 3000;
/// Ids that all threads put, look at and delete.
const SHARED_IDS: u64 = 16;

/// One thread's work: its own objects, and ids that everybody makes and ends.
fn work(store: &Store, common: &ObjectRef, mut chance: Chance) {
    let mut own: Vec<(u64, ObjectRef)> = Vec::new();
    for round in 0..ROUNDS {
        let id = id_of(chance.below(SHARED_IDS));
        match chance.below(8) {
            0 | 1 => {
                let object = store.put(&filled(round, round % 5000)).expect("there is room");
                own.push((round, object));
            }
            2 if !own.is_empty() => drop(own.swap_remove(chance.below(own.len() as u64) as usize)),
            3 => match store.put_with(&content(&id, 300), &under(id)).unboxed() {
                Ok(object) => own.push((u64::MAX, object)),
                Err(CreateError::DuplicateObject { .. }) => {}
                Err(error) => panic!("a put of a shared id: {error}"),
            },
            4 => match store.view_by_id(&id).unboxed() {
                Ok(view) => check_content(&id, &view),
                Err(GetError::NotFound { .. } | GetError::NotSealed { .. }) => {}
                Err(error) => panic!("a look at a shared id: {error}"),
            },
            5 => _ = store.delete(&id),
            6 => {
                let again = common.clone();
                assert_eq!(store.get(&again).expect("it is sealed").len(), 1000);
            }
            _ => {
                let Some((seed, object)) = own.last() else { continue };
                let view = store.view(object).expect("it is sealed");
                assert!(*seed == u64::MAX || *view == *filled(*seed, seed % 5000), "an own object holds other bytes");
            }
        }
        own.truncate(50);
    }
}

#[test]
fn eight_threads_use_the_same_and_their_own_objects() {
    let seed = Chance::seed_or(11);
    println!("seed {seed}");
    let store = kept(64 * MIB);
    let common = store.put(&[7; 1000]).expect("there is room");
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (store, common) = (&store, &common);
            scope.spawn(move || work(store, common, Chance::new(seed ^ number << 32)));
        }
    });
    assert_eq!(store.list().len(), 1, "{:#?}", store.list());
    drop(common);
    check_nothing_is_left(&store);
}

#[test]
fn of_eight_threads_that_make_the_same_id_exactly_one_does() {
    let store = kept(16 * MIB);
    let barrier = Barrier::new(THREADS as usize);
    for round in 0..500 {
        let made: Vec<Option<ObjectRef>> = thread::scope(|scope| {
            let make = |number: u64| {
                barrier.wait();
                match store.put_with(&number.to_le_bytes(), &under(id_of(round))).unboxed() {
                    Ok(object) => {
                        assert_eq!(*store.view(&object).expect("it is sealed"), number.to_le_bytes());
                        Some(object)
                    }
                    Err(CreateError::DuplicateObject { id }) if id == id_of(round) => None,
                    Err(error) => panic!("{error}"),
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || make(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a put does not panic")).collect()
        });
        assert_eq!(made.iter().flatten().count(), 1, "round {round}");
    }
    check_nothing_is_left(&store);
}

#[test]
fn one_object_is_cloned_viewed_and_dropped_by_all_threads_until_it_ends() {
    let store = kept(16 * MIB);
    for round in 0..300u64 {
        let object = store.put_with(&round.to_le_bytes(), &under(id_of(1))).expect("the id is free again");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let (store, mine) = (&store, object.clone());
                scope.spawn(move || {
                    let owned = store.get(&mine).expect("it is sealed");
                    drop(mine);
                    assert_eq!(*owned, round.to_le_bytes());
                });
            }
            drop(object);
        });
        assert!(!store.contains(&id_of(1)), "round {round}");
    }
    check_nothing_is_left(&store);
}
