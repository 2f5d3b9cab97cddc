//! A full store: who waits, who does not, and what the error says.

use crate::common::{KIB, MIB, PATIENCE, check_nothing_is_left, kept, small, until};
use nix::sys::signal::Signal;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use store::{CreateError, CreateOptions, HolderShare, ObjectRef, Store};
use tests::Unboxed;
use tests::alone;
use tests::process::Child;
use tests::shared::SharedWords;

fn within(timeout: Duration) -> CreateOptions<'static> {
    CreateOptions { timeout: Some(timeout), ..CreateOptions::default() }
}

fn create(store: &Store, bytes: u64, timeout: Duration) -> Result<ObjectRef, CreateError> {
    store.create(bytes, &within(timeout)).unboxed().map(|writer| writer.seal())
}

/// A child that holds an object of so many bytes (with a view of it, if asked) until `words[0]` is 2.
fn holder<'a>(store: &'a Store, words: &'a SharedWords, bytes: u64, with_view: bool) -> Child {
    let child = Child::fork(move || {
        let object = create(store, bytes, Duration::ZERO).expect("there is room");
        let view = with_view.then(|| store.get(&object).expect("it is sealed"));
        words[0].store(1, Ordering::SeqCst);
        until("the parent has seen enough", || words[0].load(Ordering::SeqCst) == 2);
        drop(view);
        drop(object);
        // Still there, so that it is the free that helps and not the end of the process.
        until("the parent is done", || words[0].load(Ordering::SeqCst) == 3);
        0
    });
    until("the child holds its object", || words[0].load(Ordering::SeqCst) == 1);
    child
}

alone!(a_create_waits_until_another_process_frees {
    let store = kept(16 * MIB);
    let words = SharedWords::new(1);
    let child = holder(&store, &words, 12 * MIB, false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| create(&store, 8 * MIB, PATIENCE));
        let me = store.client().number;
        let wanted = || store.clients().iter().find(|info| info.client == me).map(|info| info.waiting_bytes);
        until("the create waits", || wanted() == Some(8 * MIB));
        words[0].store(2, Ordering::SeqCst);
        let object = waiting.join().expect("a create does not panic").expect("the child has freed");
        assert_eq!(object.size(), 8 * MIB);
    });
    words[0].store(3, Ordering::SeqCst);
    child.succeed();
    check_nothing_is_left(&store);
});

alone!(a_create_waits_until_another_process_ends {
    let store = kept(16 * MIB);
    let words = SharedWords::new(1);
    let child = holder(&store, &words, 12 * MIB, true);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| create(&store, 8 * MIB, PATIENCE));
        let me = store.client().number;
        let wanted = || store.clients().iter().find(|info| info.client == me).map(|info| info.waiting_bytes);
        until("the create waits", || wanted() == Some(8 * MIB));
        child.kill();
        let object = waiting.join().expect("a create does not panic").expect("the child has ended");
        assert_eq!(object.size(), 8 * MIB);
    });
    check_nothing_is_left(&store);
});

fn shares(error: Option<CreateError>, requested: u64, at_least: Duration) -> Vec<HolderShare> {
    match error {
        Some(CreateError::OutOfMemory { requested_bytes, free_bytes, capacity_bytes, waited, holders }) => {
            assert_eq!((requested_bytes, capacity_bytes), (requested, 16 * MIB));
            assert!(
                free_bytes <= 4 * MIB && waited >= at_least && waited < PATIENCE,
                "{free_bytes} free after {waited:?}"
            );
            holders
        }
        other => panic!("no such error: {other:?}"),
    }
}

alone!(a_create_that_waited_in_vain_names_who_holds_how_much {
    let store = kept(16 * MIB);
    let words = SharedWords::new(1);
    let mine = create(&store, MIB, Duration::ZERO).expect("there is room");
    let child = holder(&store, &words, 12 * MIB, true);
    let timeout = Duration::from_millis(60);
    let error = create(&store, 8 * MIB, timeout).err();
    let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
    let holders = shares(error, 8 * MIB, timeout);
    let pid = child.pid().as_raw() as u32;
    let [first, second] = &holders[..] else { panic!("two hold something: {holders:?}") };
    // The child inherited a reference to what its parent had.
    assert_eq!((first.pid, first.held_bytes, first.pinned_bytes), (pid, 13 * MIB, 12 * MIB));
    assert_eq!((first.label.as_str(), first.is_stopped), ("behaviour", false));
    assert_eq!((second.pid, second.held_bytes, second.pinned_bytes), (std::process::id(), MIB, 0));
    for part in [&pid.to_string(), "behaviour", &(13 * MIB).to_string(), &(12 * MIB).to_string()] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    child.signal(Signal::SIGSTOP);
    let stopped = || store.clients().iter().any(|info| info.pid == pid && info.is_stopped);
    until("the child is stopped", stopped);
    let holders = shares(create(&store, 8 * MIB, Duration::ZERO).err(), 8 * MIB, Duration::ZERO);
    assert!(holders[0].is_stopped && holders[0].pid == pid, "{holders:?}");
    child.signal(Signal::SIGCONT);
    words[0].store(3, Ordering::SeqCst);
    child.kill();
    drop(mine);
    check_nothing_is_left(&store);
});

#[test]
fn a_create_fails_at_once_when_only_its_caller_could_make_room() {
    let store = kept(16 * MIB);
    let mine = create(&store, 12 * MIB, Duration::ZERO).expect("there is room");
    let start = Instant::now();
    let error = create(&store, 8 * MIB, Duration::from_secs(3600)).err();
    assert!(start.elapsed() < PATIENCE, "it waited {:?}", start.elapsed());
    let holders = shares(error, 8 * MIB, Duration::ZERO);
    assert_eq!(holders.len(), 1);
    assert_eq!((holders[0].pid, holders[0].held_bytes), (std::process::id(), 12 * MIB));
    drop(mine);
    check_nothing_is_left(&store);
}

#[test]
fn a_failed_create_leaves_nothing_and_gives_its_id_back() {
    let store = small(4 * MIB);
    let mine = create(&store, 3 * MIB, Duration::ZERO).expect("there is room");
    let options = CreateOptions { id: Some(tests::world::id_of(1)), ..within(Duration::ZERO) };
    for _ in 0..100 {
        assert!(store.create(2 * MIB, &options).is_err());
    }
    assert_eq!(store.list().len(), 1);
    drop(store.create(64 * KIB, &options).expect("the id is free").seal());
    drop(mine);
    check_nothing_is_left(&store);
}
