//! Names in namespaces: a name keeps what it names alive, across processes.

use crate::common::{MIB, check_nothing_is_left, small};
use store::{NameError, ObjectRef, Store};
use tests::alone;
use tests::process::Child;
use tests::world::check_empty;

fn bytes_of(store: &Store, namespace: &str, name: &str) -> Option<Vec<u8>> {
    let object: Option<ObjectRef> = store.named(namespace, name).expect("no name collides");
    object.map(|object| store.view(&object).expect("it is sealed").to_vec())
}

#[test]
fn a_name_keeps_what_it_names_until_it_is_dropped() {
    let store = small(4 * MIB);
    let object = store.put(b"named").expect("there is room");
    let id = object.id();
    store.bind("space", "name", &object).expect("the name is free");
    drop(object);
    assert!(store.contains(&id), "the name keeps it");
    assert_eq!(bytes_of(&store, "space", "name").as_deref(), Some(&b"named"[..]));
    assert!(store.unbind("space", "name"));
    assert!(!store.unbind("space", "name"));
    assert!(!store.contains(&id), "nobody keeps it any more");
    assert_eq!(bytes_of(&store, "space", "name"), None);
    check_empty(&store);
}

#[test]
fn a_name_is_given_once_in_each_namespace() {
    let store = small(4 * MIB);
    let first = store.put(b"first").expect("there is room");
    let second = store.put(b"second").expect("there is room");
    store.bind("a", "name", &first).expect("the name is free");
    let taken = store.bind("a", "name", &second).err();
    assert!(
        matches!(&taken, Some(NameError::Taken { namespace, name }) if namespace == "a" && name == "name"),
        "{taken:?}"
    );
    store.bind("b", "name", &second).expect("another namespace");
    assert_eq!(bytes_of(&store, "a", "name").as_deref(), Some(&b"first"[..]));
    assert_eq!(bytes_of(&store, "b", "name").as_deref(), Some(&b"second"[..]));
    assert!(store.unbind("a", "name"));
    store.bind("a", "name", &second).expect("the name is free again");
    assert_eq!(bytes_of(&store, "a", "name").as_deref(), Some(&b"second"[..]));
    assert!(store.unbind("a", "name") && store.unbind("b", "name"));
    drop((first, second));
    check_empty(&store);
}

#[test]
fn names_are_listed_by_namespace() {
    let store = small(4 * MIB);
    let object = store.put(b"").expect("there is room");
    for name in ["", "b", "a", "with/slash", "ä"] {
        store.bind("one", name, &object).expect("the name is free");
    }
    store.bind("two", "c", &object).expect("the name is free");
    assert_eq!(store.names("one"), ["", "a", "b", "with/slash", "ä"]);
    assert_eq!(store.names("two"), ["c"]);
    assert!(store.names("three").is_empty());
    assert!(store.unbind("one", "b"));
    assert_eq!(store.names("one"), ["", "a", "with/slash", "ä"]);
}

alone!(a_name_outlives_the_process_that_gave_it {
    let store = small(4 * MIB);
    Child::fork(|| {
        let object = store.put(b"left behind").expect("there is room");
        store.bind("space", "name", &object).expect("the name is free");
        0
    }).succeed();
    store.reclaim();
    assert_eq!(bytes_of(&store, "space", "name").as_deref(), Some(&b"left behind"[..]));
    assert!(store.unbind("space", "name"));
    check_nothing_is_left(&store);
});
