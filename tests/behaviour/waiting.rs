//! Waiting for values that other processes make.

use crate::common::{MIB, PATIENCE, check_nothing_is_left, kept, small, under, until};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use store::{GetError, ObjectRef, Store};
use tests::Unboxed;
use tests::alone;
use tests::chance::Chance;
use tests::process::Child;
use tests::shared::SharedWords;
use tests::world::id_of;

const MANY: u64 = 10_000;

/// Whether the object of number `index` has been promised to somebody.
fn is_promised(store: &Store, index: u64) -> bool {
    store.lookup(&id_of(index)).is_some()
}

alone!(a_get_waits_for_what_another_process_seals {
    let store = kept(16 * MIB);
    let child = Child::fork(|| {
        let found = store.get_by_id(&id_of(1), PATIENCE).expect("the parent seals it");
        assert_eq!(&*found, b"from the parent");
        drop(store.put_with(b"from the child", &under(id_of(2))).expect("there is room"));
        0
    });
    let answer = store.promise(&id_of(2)).expect("there is a slot");
    until("the child waits", || is_promised(&store, 1));
    let given = store.put_with(b"from the parent", &under(id_of(1))).expect("there is room");
    let found = store.get_timeout(&answer, PATIENCE).expect("the child seals it");
    assert_eq!(&*found, b"from the child");
    child.succeed();
    drop((answer, given, found));
    check_nothing_is_left(&store);
});

alone!(a_get_that_waits_in_vain_says_for_how_long_and_for_whom {
    let store = kept(16 * MIB);
    let timeout = Duration::from_millis(40);
    let nobody = store.get_by_id(&id_of(1), timeout).unboxed().err();
    assert!(matches!(nobody, Some(GetError::NotSealed { id, waited, writer: None }) if id == id_of(1) && waited >= timeout), "{nobody:?}");
    let words = SharedWords::new(1);
    let child = Child::fork(|| {
        let writer = store.create(10, &under(id_of(1))).expect("there is room");
        words[0].store(1, Ordering::SeqCst);
        until("the parent is done", || words[0].load(Ordering::SeqCst) == 2);
        drop(writer);
        0
    });
    until("the child writes", || words[0].load(Ordering::SeqCst) == 1);
    let late = store.get_by_id(&id_of(1), timeout).unboxed().err();
    let pid = child.pid().as_raw() as u32;
    assert!(matches!(late, Some(GetError::NotSealed { waited, writer: Some(found), .. }) if waited >= timeout && found == pid), "{late:?}");
    words[0].store(2, Ordering::SeqCst);
    child.succeed();
    check_nothing_is_left(&store);
});

fn promises(store: &Store) -> Vec<ObjectRef> {
    (0..MANY).map(|index| store.promise(&id_of(index)).expect("there is a slot")).collect()
}

/// All numbers below [`MANY`], in the order of a seed.
fn shuffled(seed: u64) -> Vec<u64> {
    let mut chance = Chance::new(seed);
    let mut order: Vec<u64> = (0..MANY).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, chance.below(at as u64 + 1) as usize);
    }
    order
}

alone!(any_number_of_ten_thousand_objects_is_waited_for_at_once {
    let seed = Chance::seed_or(5);
    println!("seed {seed}");
    let store = kept(16 * MIB);
    let objects = promises(&store);
    let words = SharedWords::new(1);
    let child = Child::fork(|| {
        for (sealed, index) in shuffled(seed).into_iter().enumerate() {
            // As far as the parent has asked, and not one further.
            until("the parent asks", || words[0].load(Ordering::SeqCst) > sealed as u64);
            drop(store.put_with(&index.to_le_bytes(), &under(id_of(index))).expect("there is room"));
        }
        0
    });
    assert_eq!(store.wait(&objects, MANY as usize, Duration::ZERO).expect("nobody died").iter().filter(|&&is| is).count(), 0);
    for count in [1, 2, 100, MANY / 2, MANY - 1, MANY] {
        words[0].store(count, Ordering::SeqCst);
        let ready = store.wait(&objects, count as usize, PATIENCE).expect("nobody died");
        assert_eq!(ready.len(), objects.len());
        assert_eq!(ready.iter().filter(|&&is| is).count() as u64, count, "exactly so many were sealed");
        assert!(ready.iter().zip(&objects).all(|(&is, object)| is == object.is_ready()), "which ones is wrong");
        let more = store.wait(&objects, MANY as usize, Duration::ZERO).expect("nobody died");
        assert_eq!(more, ready, "a wait that may not wait tells the same");
    }
    child.succeed();
    let all = store.get_many(&objects, Duration::ZERO).expect("all are sealed");
    assert!(all.iter().zip(0u64..).all(|(object, index)| **object == index.to_le_bytes()));
    drop((all, objects));
    check_nothing_is_left(&store);
});

#[test]
fn a_wait_ends_with_its_time_and_tells_what_there_is() {
    let store = small(4 * MIB);
    let there = store.put(b"there").expect("there is room");
    let objects = [store.promise(&id_of(1)).expect("there is a slot"), there];
    let timeout = Duration::from_millis(30);
    let start = Instant::now();
    assert_eq!(store.wait(&objects, 2, timeout).expect("nobody died"), [false, true]);
    assert!(start.elapsed() >= timeout);
    assert_eq!(store.wait(&objects, 1, PATIENCE).expect("nobody died"), [false, true]);
    assert!(start.elapsed() < PATIENCE);
    assert!(store.wait(&[], 3, PATIENCE).expect("nobody died").is_empty(), "nothing is waited for at once");
}

#[test]
fn threads_of_one_process_wait_for_each_other() {
    let store = kept(16 * MIB);
    thread::scope(|scope| {
        for index in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let found = store.get_by_id(&id_of(index), PATIENCE).expect("the next thread seals it");
                assert_eq!(*found, index.to_le_bytes());
            });
            scope.spawn(move || {
                until("somebody waits", || is_promised(store, index));
                drop(store.put_with(&index.to_le_bytes(), &under(id_of(index))).expect("there is room"));
            });
        }
    });
    check_nothing_is_left(&store);
}
