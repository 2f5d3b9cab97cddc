//! References inside objects: what a container lists lives as long as it does.

use crate::common::{MIB, check_nothing_is_left, small, under};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use store::{CreateError, CreateOptions, ObjectRef, Store};
use tests::Unboxed;
use tests::world::{check_empty, id_of};

const MANY: usize = 100_000;

fn listing(references: &[ObjectRef]) -> CreateOptions<'_> {
    CreateOptions { references, ..CreateOptions::default() }
}

#[test]
fn a_container_keeps_what_it_lists_and_lets_it_go_with_itself() {
    let store = small(4 * MIB);
    let child = store.put_with(b"child", &under(id_of(1))).expect("there is room");
    let container = store.put_with(b"container", &listing(&[child])).expect("there is room");
    assert!(store.contains(&id_of(1)), "the container lists it");
    let listed = store.get(&container).expect("it is sealed").references();
    assert_eq!(listed.len(), 1);
    drop(container);
    assert_eq!(&*store.view(&listed[0]).expect("a reference of its own keeps it"), b"child");
    drop(listed);
    assert!(!store.contains(&id_of(1)));
    check_empty(&store);
}

#[test]
fn containers_of_containers_keep_everything_below() {
    let store = small(4 * MIB);
    let leaf = store.put_with(b"leaf", &under(id_of(1))).expect("there is room");
    let middle = store.put_with(b"middle", &listing(&[leaf])).expect("there is room");
    let one = store.put_with(b"one", &listing(std::slice::from_ref(&middle))).expect("there is room");
    let other = store.put_with(b"other", &listing(&[middle])).expect("there is room");
    drop(one);
    assert!(store.contains(&id_of(1)), "the other container still lists the middle");
    drop(other);
    assert!(!store.contains(&id_of(1)));
    check_empty(&store);
}

#[test]
fn a_reference_given_twice_is_listed_once() {
    let store = small(4 * MIB);
    let child = store.put_with(b"child", &under(id_of(1))).expect("there is room");
    let twice = vec![child.clone(), child.clone(), child.clone()];
    drop(child);
    let container = store.put_with(b"", &listing(&twice)).expect("there is room");
    drop(twice);
    assert_eq!(store.get(&container).expect("it is sealed").references().len(), 1);
    drop(container);
    check_empty(&store);
}

#[test]
fn references_into_another_store_are_refused() {
    let (store, other) = (small(4 * MIB), small(4 * MIB));
    let mine = store.put(b"mine").expect("there is room");
    let foreign = other.put(b"foreign").expect("there is room");
    let error = store.put_with(b"", &listing(&[mine, foreign])).unboxed().err();
    assert!(matches!(error, Some(CreateError::ForeignReference { count: 2 })), "{error:?}");
    check_empty(&store);
    check_empty(&other);
}

#[test]
fn an_aborted_container_lets_go_of_what_it_was_to_list() {
    let store = small(4 * MIB);
    let child = store.put_with(b"child", &under(id_of(1))).expect("there is room");
    let references = [child];
    let writer = store.create(100, &listing(&references)).expect("there is room");
    drop(references);
    drop(writer);
    assert!(!store.contains(&id_of(1)));
    check_empty(&store);
}

#[test]
fn a_container_may_list_a_hundred_thousand_objects() {
    let store = small(32 * MIB);
    let children: Vec<ObjectRef> =
        (0..MANY).map(|n| store.put(&(n as u64).to_le_bytes()).expect("there is room")).collect();
    let container = store.put_with(b"container", &listing(&children)).expect("there is room");
    drop(children);
    let listed = store.get(&container).expect("it is sealed").references();
    assert_eq!(listed.len(), MANY);
    let mut numbers: Vec<u64> = listed
        .iter()
        .map(|child| u64::from_le_bytes(store.view(child).expect("it is kept")[..].try_into().expect("8 bytes")))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..MANY as u64), "the list names other objects");
    drop(listed);
    assert_eq!(store.list().len(), MANY + 1);
    drop(container);
    check_nothing_is_left(&store);
}

/// A chain of containers, each listing the one before; the last one keeps all.
fn chain(store: &Store, length: usize) -> ObjectRef {
    let mut last = store.put(b"end").expect("there is room");
    for _ in 1..length {
        last = store.put_with(b"link", &listing(&[last])).expect("there is room");
    }
    last
}

#[test]
fn a_chain_of_a_hundred_thousand_containers_ends_on_a_small_stack_while_others_put() {
    let store = small(32 * MIB);
    let last = chain(&store, MANY);
    assert_eq!(store.list().len(), MANY);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, is_done) = (&store, &is_done);
        let small_stack = thread::Builder::new().stack_size(64 << 10);
        let freeing = small_stack.spawn_scoped(scope, move || {
            drop(last);
            is_done.store(true, Ordering::SeqCst);
        });
        scope.spawn(move || {
            let mut puts = 0u64;
            while !is_done.load(Ordering::SeqCst) || puts == 0 {
                let object = store.put(&puts.to_le_bytes()).expect("there is room");
                assert_eq!(*store.view(&object).expect("it is sealed"), puts.to_le_bytes());
                puts += 1;
            }
            println!("{puts} puts while the chain ended");
        });
        freeing.expect("a thread with a small stack starts").join().expect("nothing recurses");
    });
    check_nothing_is_left(&store);
}
