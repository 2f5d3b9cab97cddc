//! The life of one object: create, write in place, seal, get, delete, free.

use crate::common::{MIB, check_nothing_is_left, filled, small, under};
use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};
use store::{CreateError, CreateOptions, Encoding, GetError, Lifetime, ObjectId, ObjectRef, ObjectState, Store};
use tests::Unboxed;
use tests::alone;
use tests::process::Child;
use tests::world::{check_empty, id_of};

#[test]
fn what_is_written_in_place_can_be_read_once_it_is_sealed() {
    let store = small(4 * MIB);
    let mut writer = store.create(5, &under(id_of(1))).expect("there is room");
    writer.copy_from_slice(b"place");
    assert_eq!(writer.id(), id_of(1));
    assert!(!store.contains(&id_of(1)), "an unsealed object has no value");
    let early = store.view_by_id(&id_of(1)).unboxed().map(|view| view.len());
    let me = std::process::id();
    assert!(
        matches!(early, Err(GetError::NotSealed { id, writer: Some(pid), .. }) if id == id_of(1) && pid == me),
        "{early:?}"
    );
    let object = writer.seal();
    assert!(store.contains(&id_of(1)) && object.is_ready());
    assert_eq!(&*store.view(&object).expect("it is sealed"), b"place");
    assert_eq!(&*store.view_by_id(&id_of(1)).expect("it is sealed"), b"place");
    let owned = store.get(&object).expect("it is sealed");
    drop(object);
    assert_eq!(&*owned, b"place", "a view keeps the object by itself");
    drop(owned);
    check_empty(&store);
}

#[test]
fn an_aborted_object_leaves_nothing_and_its_id_is_free() {
    let store = small(4 * MIB);
    for abort in [true, false] {
        let writer = store.create(MIB, &under(id_of(1))).expect("there is room");
        if abort {
            writer.abort()
        } else {
            drop(writer)
        }
        assert!(!store.contains(&id_of(1)));
        assert!(matches!(store.view_by_id(&id_of(1)).unboxed().err(), Some(GetError::NotFound { .. })));
    }
    store.put_with(b"again", &under(id_of(1))).expect("the id is free");
    check_empty(&store);
}

#[test]
fn many_objects_are_got_at_once_or_the_missing_one_is_named() {
    let store = small(4 * MIB);
    let mut objects: Vec<_> = (0..100u32).map(|n| store.put(&n.to_le_bytes()).expect("there is room")).collect();
    let all = store.get_many(&objects, Duration::ZERO).expect("all are sealed");
    assert!(all.iter().zip(0u32..).all(|(object, n)| **object == n.to_le_bytes()));
    objects.insert(50, store.promise(&id_of(7)).expect("there is a slot"));
    let missing = store.get_many(&objects, Duration::ZERO).unboxed().err();
    assert!(matches!(missing, Some(GetError::NotSealed { id, writer: None, .. }) if id == id_of(7)), "{missing:?}");
}

#[test]
fn a_get_that_may_not_wait_does_not() {
    let store = small(4 * MIB);
    let start = Instant::now();
    let absent = store.get_by_id(&id_of(1), Duration::ZERO).unboxed().err();
    assert!(matches!(absent, Some(GetError::NotFound { id }) if id == id_of(1)), "{absent:?}");
    let promised = store.promise(&id_of(1)).expect("there is a slot");
    assert!(matches!(store.get(&promised).unboxed().err(), Some(GetError::NotSealed { .. })));
    assert!(matches!(store.get_timeout(&promised, Duration::ZERO).unboxed().err(), Some(GetError::NotSealed { .. })));
    assert!(start.elapsed() < Duration::from_secs(5), "it waited {:?}", start.elapsed());
    drop(promised);
    check_empty(&store);
}

#[test]
fn a_deleted_object_stays_with_its_readers_and_its_id_is_free_at_once() {
    let store = small(4 * MIB);
    let first = store.put_with(b"first", &under(id_of(1))).expect("there is room");
    let view = store.view(&first).expect("it is sealed");
    assert!(store.delete(&id_of(1)));
    assert!(!store.contains(&id_of(1)));
    assert!(!store.delete(&id_of(1)), "there is nothing to delete any more");
    let second = store.put_with(b"second", &under(id_of(1))).expect("the id is free");
    assert_eq!(&*view, b"first");
    assert_eq!(&*store.view_by_id(&id_of(1)).expect("it is sealed"), b"second");
    assert_eq!(&*store.view(&first).expect("the reference names the object, not the id"), b"first");
    drop(view);
    drop((first, second));
    check_empty(&store);
}

#[test]
fn the_last_release_frees_an_object() {
    let store = small(4 * MIB);
    let object = store.put_with(&[1; 5000], &under(id_of(1))).expect("there is room");
    let other = object.clone();
    let view = store.get(&object).expect("it is sealed");
    drop(object);
    drop(other);
    assert!(store.contains(&id_of(1)), "a view keeps it");
    drop(view);
    assert!(!store.contains(&id_of(1)));
    check_empty(&store);
}

#[test]
fn an_id_is_given_once() {
    let store = small(4 * MIB);
    let writer = store.create(3, &under(id_of(1))).expect("there is room");
    let twice = store.create(3, &under(id_of(1))).unboxed().err();
    assert!(matches!(twice, Some(CreateError::DuplicateObject { id }) if id == id_of(1)), "{twice:?}");
    let object = writer.seal();
    let twice = store.put_with(b"other", &under(id_of(1))).unboxed().err();
    assert!(matches!(twice, Some(CreateError::DuplicateObject { id }) if id == id_of(1)), "{twice:?}");
    assert_eq!(store.view(&object).expect("it is sealed").len(), 3, "the first one stands");
    drop(object);
    check_empty(&store);
}

#[test]
fn objects_named_by_handle_only_are_published_under_their_id_later() {
    let store = small(4 * MIB);
    let hidden = CreateOptions { by_handle_only: true, ..under(id_of(1)) };
    let object = store.put_with(b"hidden", &hidden).expect("there is room");
    assert!(!store.contains(&id_of(1)));
    assert!(store.refer(object.handle()).is_some());
    let rival = store.put_with(b"rival", &hidden).expect("hidden ones do not collide");
    store.publish(&object).expect("the id is free");
    store.publish(&object).expect("it is published already");
    assert!(store.contains(&id_of(1)));
    let taken = store.publish(&rival).unboxed().err();
    assert!(matches!(taken, Some(CreateError::DuplicateObject { id }) if id == id_of(1)), "{taken:?}");
    assert_eq!(&*store.view_by_id(&id_of(1)).expect("it is sealed"), b"hidden");
    drop((object, rival));
    check_empty(&store);
}

#[test]
fn a_listing_says_what_there_is_and_who_holds_it() {
    let store = small(4 * MIB);
    let options = CreateOptions { encoding: Encoding::Pickle, lifetime: Lifetime::Cached, ..under(id_of(1)) };
    let object = store.put_with(&[7; 321], &options).expect("there is room");
    let view = store.view(&object).expect("it is sealed");
    let writer = store.create(9, &under(id_of(2))).expect("there is room");
    let promise = store.promise(&id_of(3)).expect("there is a slot");
    let list = store.list();
    assert_eq!(list.len(), 3);
    let of = |id: ObjectId| list.iter().find(|info| info.id == id).expect("it is listed");
    let first = of(id_of(1));
    assert_eq!((first.state, first.size, first.encoding), (ObjectState::InMemory, 321, Encoding::Pickle));
    assert_eq!((first.lifetime, first.handle, first.listed), (Lifetime::Cached, object.handle(), 0));
    assert_eq!(first.creator, store.client().number);
    let [holder] = first.holders[..] else { panic!("one client holds it: {first:?}") };
    assert_eq!((holder.pid, holder.references, holder.pins), (std::process::id(), 1, 1));
    assert_eq!(of(id_of(2)).state, ObjectState::Writing);
    assert_eq!(of(id_of(3)).state, ObjectState::Promised);
    drop(view);
    drop((writer, promise, object));
    assert!(store.delete(&id_of(1)));
    check_empty(&store);
}

#[test]
fn objects_of_no_bytes_take_no_bytes() {
    let store = small(4 * MIB);
    let empty = store.put_with(b"", &under(id_of(1))).expect("there is room");
    let others: Vec<_> = (0..1000).map(|_| store.put(b"").expect("there is room")).collect();
    assert!(store.view(&empty).expect("it is sealed").is_empty());
    assert!(store.view_by_id(&id_of(1)).expect("it is sealed").is_empty());
    assert_eq!(store.create(0, &under(id_of(2))).expect("there is room").seal().size(), 0);
    assert_eq!(store.usage().used_bytes, 0);
    assert_eq!(others.iter().map(|object| object.id()).collect::<HashSet<_>>().len(), 1000);
    drop((empty, others));
    check_empty(&store);
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let store = small(4 * MIB);
    let patient = CreateOptions { timeout: Some(Duration::from_secs(3600)), ..CreateOptions::default() };
    for size in [4 * MIB + 1, u64::MAX / 2, u64::MAX] {
        for options in [&patient, &CreateOptions { id: Some(id_of(1)), ..patient.clone() }] {
            let error = store.create(size, options).unboxed().err();
            let expected = 4 * MIB;
            assert!(
                matches!(error, Some(CreateError::TooLarge { requested_bytes, capacity_bytes })
                    if requested_bytes == size && capacity_bytes == expected),
                "{error:?}"
            );
        }
    }
    check_empty(&store);
}

#[test]
fn an_object_may_take_the_whole_store() {
    let store = small(4 * MIB);
    for round in 0..3 {
        drop(store.put(&[round; 100]).expect("there is room"));
        let bytes = filled(u64::from(round), 4 * MIB);
        let object = store.put(&bytes).expect("the whole store is free");
        assert!(*store.view(&object).expect("it is sealed") == *bytes);
        let full = store.put(b"one more").unboxed().err();
        assert!(matches!(full, Some(CreateError::OutOfMemory { free_bytes: 0, .. })), "{full:?}");
    }
    check_empty(&store);
}

const IDS_EACH: usize = 2000;

/// Objects without a value of their own, whose ids are those that `store` derives here and now.
#[test]
fn puts_of_a_task_have_its_name_and_ids_that_no_other_attempt_gave() {
    const PUTS: usize = 300;
    let store = small(4 * MIB);
    let task = [5; 24];
    let mut kept = Vec::new();
    for _attempt in 0..8 {
        store.begin_task(task);
        kept.extend((0..PUTS).map(|_| store.put(b"of a task").expect("there is room")));
        let result = ObjectId::of_task(task, 1);
        let promise = store.promise_by_handle(Some(&result)).expect("there is room");
        kept.extend(store.put_for(promise.handle(), b"result", &CreateOptions::default()).expect("it is promised"));
        assert!(kept.iter().rev().take(PUTS + 1).all(|object| object.id().task() == task));
    }
    let puts: Vec<ObjectId> = kept.iter().map(ObjectRef::id).filter(|id| id.index() != 1).collect();
    assert!(puts.iter().all(|id| id.index() >= 1 << 31), "a number that a result may have");
    assert_eq!(puts.iter().collect::<HashSet<_>>().len(), 8 * PUTS, "an id was derived twice");
    drop(kept);
    check_empty(&store);
}

fn derived_ids(store: &Store) -> Vec<ObjectId> {
    let objects: Vec<_> = (0..IDS_EACH).map(|_| store.put(b"").expect("there is room")).collect();
    objects.iter().map(|object| object.id()).collect()
}

alone!(derived_ids_differ_among_threads_and_forked_children {
    let store = small(16 * MIB);
    let child = |number: u64| {
        let store = store.clone();
        Child::fork(move || {
            let bytes: Vec<u8> = derived_ids(&store).iter().flat_map(|id| *id.as_bytes()).collect();
            let named = CreateOptions { lifetime: Lifetime::Named, ..under(id_of(number)) };
            drop(store.put_with(&bytes, &named).expect("there is room"));
            0
        })
    };
    let children: Vec<Child> = (0..3).map(child).collect();
    let mut ids: Vec<ObjectId> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| derived_ids(&store))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread that only puts")).collect()
    });
    children.into_iter().for_each(Child::succeed);
    for number in 0..3 {
        let found = store.get_by_id(&id_of(number), Duration::ZERO).expect("a named object outlives its maker");
        ids.extend(found.chunks_exact(ObjectId::BYTES).map(|id| ObjectId::new(id.try_into().expect("28 bytes"))));
        assert!(store.delete(&id_of(number)));
    }
    assert_eq!(ids.len(), 11 * IDS_EACH);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an id was derived twice");
    check_nothing_is_left(&store);
});

#[test]
fn a_promise_by_handle_is_kept_by_whoever_knows_the_handle() {
    let store = small(4 * MIB);
    let promise = store.promise_by_handle(Some(&id_of(1))).expect("there is room");
    assert_eq!(promise.id(), id_of(1));
    assert!(!promise.is_ready() && store.lookup(&id_of(1)).is_none(), "only its handle names it");
    let listed = [store.put(b"listed").expect("there is room")];
    let options = CreateOptions { encoding: Encoding::MessagePack, references: &listed, ..under(id_of(2)) };
    let mut writer = store.create_for(promise.handle(), 3, &options).expect("there is room").expect("it is wanted");
    let twice = store.put_for(promise.handle(), b"no", &options).unboxed().err();
    assert!(matches!(twice, Some(CreateError::DuplicateObject { id }) if id == id_of(1)), "{twice:?}");
    writer.copy_from_slice(b"yes");
    drop(writer.seal());
    let late = store.put_for(promise.handle(), b"late", &options).unboxed().err();
    assert!(matches!(late, Some(CreateError::DuplicateObject { id }) if id == id_of(1)), "{late:?}");
    let value = store.get(&promise).expect("it is sealed");
    assert_eq!((&*value, value.encoding(), value.references().len()), (&b"yes"[..], Encoding::MessagePack, 1));
    assert!(store.lookup(&id_of(1)).is_none() && store.lookup(&id_of(2)).is_none());
    store.publish(&promise).expect("the id is free");
    assert_eq!(store.lookup(&id_of(1)).map(|found| found.handle()), Some(promise.handle()));
    let handle = promise.handle();
    drop((promise, value));
    assert!(store.put_for(handle, b"unwanted", &options).expect("that is no error").is_none());
    drop(listed);
    check_empty(&store);
}

#[test]
fn an_abandoned_write_leaves_the_promise_to_the_next() {
    let store = small(4 * MIB);
    let promise = store.promise_by_handle(None).expect("there is room");
    let options = CreateOptions::default();
    drop(store.create_for(promise.handle(), 100_000, &options).expect("there is room").expect("it is wanted"));
    assert!(!promise.is_ready());
    assert!(store.put_for(promise.handle(), b"second", &options).expect("there is room").is_some());
    assert_eq!(&*store.view(&promise).expect("it is sealed"), b"second");
    drop(promise);
    check_empty(&store);
}
