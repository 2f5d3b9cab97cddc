//! What a store with a global lock and undo logs got wrong, one test for each defect.
//!
//! The one thing to know: the store that put clients to work on shared metadata directly (Lightning,
//! PVLDB 2021) is the one this store learned most from, and these are the defects found by reading
//! it. Nothing here may look at how this store avoids them.

use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Config, CreateError, CreateOptions, GetError, Keeping, Lifetime, ObjectId, ObjectRef, Store};
use store_shm::liveness::ProcessId;
use tests::Unboxed;
use tests::alone;
use tests::chance::Chance;
use tests::mixed::{check, said};
use tests::process::{Child, alarm};
use tests::reuse::child_with_pid;
use tests::shared::SharedWords;
use tests::world::id_of;

const MIB: u64 = 1 << 20;
/// Far longer than anything here takes: who waits that long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn store_of(capacity_bytes: u64) -> Store {
    let config = Config {
        capacity_bytes,
        max_clients: 64,
        label: "it".to_owned(),
        create_timeout: Duration::ZERO,
        keeping: Keeping::Inline,
        ..Config::default()
    };
    Store::in_process(config).expect("a small store can be made")
}

fn under(id: ObjectId) -> CreateOptions<'static> {
    CreateOptions { id: Some(id), ..CreateOptions::default() }
}

fn put(store: &Store, index: u64, bytes: u64) -> ObjectRef {
    let id = id_of(index);
    store.put_with(&said(&id, bytes), &under(id)).expect("there is room")
}

/// References to an object, of all clients together.
fn references(store: &Store, id: &ObjectId) -> u32 {
    let info = store.list().into_iter().find(|info| info.id == *id).expect("there is such an object");
    info.holders.iter().map(|holder| holder.references).sum()
}

fn look(store: &Store, object: &ObjectRef) {
    check(&object.id(), &store.view(object).expect("a reference keeps the value"));
}

/// Lets others run until the word says at least that.
fn await_word(word: &AtomicU64, at_least: u64) {
    let start = Instant::now();
    while word.load(Ordering::SeqCst) < at_least {
        assert!(start.elapsed() < PATIENCE, "another process did not come so far in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// For a child that is to be killed or stopped: it never goes on.
fn stay() -> ! {
    loop {
        nix::unistd::pause();
    }
}

fn check_nothing_is_left(store: &Store) {
    store.reclaim();
    store.rest();
    store.check_invariants();
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.free_bytes), (0, usage.capacity_bytes), "{:#?}", store.list());
    assert!(store.list().is_empty(), "objects are left: {:#?}", store.list());
}

/// What a client does all the time in these tests, until it is killed or stopped.
fn put_and_end_for_ever(store: &Store, first: u64, done: &AtomicU64) -> ! {
    loop {
        for index in first..first + 8 {
            let id = id_of(index);
            match store.put_with(&said(&id, 100), &under(id)).unboxed() {
                Ok(object) => look(store, &object),
                Err(CreateError::DuplicateObject { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    }
}

alone!(what_others_saw_is_never_rolled_back {
    let store = store_of(8 * MIB);
    let words = SharedWords::new(1);
    let mut chance = Chance::new(Chance::seed_or(1));
    for _ in 0..50 {
        words[0].store(0, Ordering::SeqCst);
        let child = Child::fork(|| {
            let _shown = put(&store, 1, 100);
            words[0].store(1, Ordering::SeqCst);
            put_and_end_for_ever(&store, 10, &words[0]);
        });
        await_word(&words[0], 1);
        let seen = store.lookup(&id_of(1)).expect("it was sealed before it was told");
        look(&store, &seen);
        await_word(&words[0], 2 + chance.below(60));
        child.kill();
        store.reclaim();
        look(&store, &seen);
        assert_eq!(store.lookup(&id_of(1)).expect("it is still there").handle(), seen.handle());
        assert_eq!(references(&store, &id_of(1)), 1, "another's count was rolled back or leaked");
        drop(seen);
        check_nothing_is_left(&store);
    }
});

alone!(many_gets_and_a_crash_leak_no_reference {
    let store = store_of(8 * MIB);
    let words = SharedWords::new(1);
    let object = put(&store, 1, 1000);
    let child = Child::fork(|| {
        let references: Vec<ObjectRef> = (0..1000).map(|_| store.lookup(&id_of(1)).expect("it is kept")).collect();
        let views: Vec<_> = references.iter().map(|object| store.get(object).expect("it is kept")).collect();
        words[0].store(views.len() as u64, Ordering::SeqCst);
        stay()
    });
    await_word(&words[0], 1000);
    let info = &store.list()[0];
    assert!(info.holders.iter().any(|holder| holder.references >= 1000 && holder.pins == 1000), "{info:?}");
    child.kill();
    assert_eq!(store.reclaim(), 1);
    let holders = &store.list()[0].holders;
    assert_eq!((references(&store, &id_of(1)), holders.len()), (1, 1), "{holders:?}");
    drop(object);
    check_nothing_is_left(&store);
});

alone!(delete_under_a_reader_is_safe {
    let store = store_of(4 * MIB);
    let words = SharedWords::new(2);
    let object = put(&store, 1, 100_000);
    let reader = |dies: bool| {
        let (store, words, object) = (&store, &words, &object);
        Child::fork(move || {
            let view = store.view(object).expect("it is kept");
            words[0].fetch_add(1, Ordering::SeqCst);
            await_word(&words[1], 1);
            check(&id_of(1), &view);
            words[0].fetch_add(1, Ordering::SeqCst);
            if dies { stay() }
            0
        })
    };
    let (lives, dies) = (reader(false), reader(true));
    await_word(&words[0], 2);
    assert!(store.delete(&id_of(1)), "there is such an object");
    drop(object);
    assert!(!store.contains(&id_of(1)), "a deleted id is found");
    // Everything else is overwritten.
    let others: Vec<ObjectRef> = (2..).map_while(|index| {
        let id = id_of(index);
        store.put_with(&said(&id, 100_000), &under(id)).ok()
    }).collect();
    assert!(others.len() > 20, "the store took {} objects", others.len());
    words[1].store(1, Ordering::SeqCst);
    lives.succeed();
    await_word(&words[0], 4);
    dies.kill();
    others.iter().for_each(|object| look(&store, object));
    drop(others);
    check_nothing_is_left(&store);
});

alone!(a_dead_waiter_disturbs_nobody {
    let store = store_of(4 * MIB);
    let words = SharedWords::new(1);
    let waiter = || Child::fork(|| {
        let object = store.promise(&id_of(1)).expect("there is a slot");
        words[0].fetch_add(1, Ordering::SeqCst);
        let ready = store.wait(std::slice::from_ref(&object), 1, PATIENCE).expect("nobody's end fails a wait");
        assert!(ready[0], "the waiter was not woken");
        look(&store, &object);
        0
    });
    let (first, dead, last) = (waiter(), waiter(), waiter());
    await_word(&words[0], 3);
    dead.kill();
    // Sealed before the dead one is swept, and again with the sweep behind it.
    let object = put(&store, 1, 100);
    first.succeed();
    last.succeed();
    store.reclaim();
    assert_eq!(store.unswept_clients(), 0);
    look(&store, &object);
    drop(object);
    check_nothing_is_left(&store);
});

/// A client at work is hit at fifty random instants; whoever lives does everything at once.
fn nobody_is_held_up(hit: Signal) {
    let store = store_of(8 * MIB);
    let words = SharedWords::new(1);
    let mut chance = Chance::new(Chance::seed_or(1));
    for round in 0..50 {
        words[0].store(0, Ordering::SeqCst);
        let child = Child::fork(|| put_and_end_for_ever(&store, 10, &words[0]));
        await_word(&words[0], 1 + chance.below(60));
        (0..chance.below(2000)).for_each(|_| std::hint::spin_loop());
        child.signal(hit);
        alarm(10, round);
        // The ids it is at may be its own for now; everything else is done, unswept and without waiting.
        for index in 10..18 {
            match store.put_with(&said(&id_of(index), 100), &under(id_of(index))).unboxed() {
                Ok(object) => look(&store, &object),
                Err(CreateError::DuplicateObject { .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
            match store.view_by_id(&id_of(index)).unboxed() {
                Ok(view) => check(&id_of(index), &view),
                Err(GetError::NotFound { .. } | GetError::NotSealed { .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        let own = put(&store, 100, 100);
        let large = put(&store, 101, MIB);
        look(&store, &own);
        look(&store, &large);
        assert!(store.delete(&id_of(100)), "round {round}");
        alarm(0, 0);
        drop((own, large));
        child.kill();
        check_nothing_is_left(&store);
    }
}

alone!(a_killed_client_holds_nobody_up {
    nobody_is_held_up(Signal::SIGKILL);
});

alone!(a_stopped_client_holds_nobody_up {
    nobody_is_held_up(Signal::SIGSTOP);
});

alone!(objects_outlive_their_creator {
    let store = store_of(4 * MIB);
    let words = SharedWords::new(1);
    let creator = |first: u64| {
        let (store, words) = (&store, &words);
        move || {
            let _counted = put(store, first, 100);
            let named = CreateOptions { lifetime: Lifetime::Named, ..under(id_of(first + 1)) };
            drop(store.put_with(&said(&id_of(first + 1), 200), &named).expect("there is room"));
            words[0].store(first, Ordering::SeqCst);
            await_word(&words[0], first + 1);
            if first == 20 { stay() }
            0
        }
    };
    for first in [10, 20] {
        let child = Child::fork(creator(first));
        await_word(&words[0], first);
        let kept = store.lookup(&id_of(first)).expect("its creator has it");
        words[0].store(first + 1, Ordering::SeqCst);
        if first == 20 { child.kill() } else { child.succeed() }
        assert_eq!(store.reclaim(), 1);
        look(&store, &kept);
        look(&store, &store.lookup(&id_of(first + 1)).expect("a named object waits to be deleted"));
        assert!(store.delete(&id_of(first + 1)));
    }
    check_nothing_is_left(&store);
});

alone!(a_full_store_is_a_typed_error {
    let store = store_of(2 * MIB);
    let words = SharedWords::new(1);
    let holder = Child::fork(|| {
        let _all: Vec<ObjectRef> = (0..).map_while(|_| store.put(&[7; 100_000]).ok()).collect();
        words[0].store(1, Ordering::SeqCst);
        stay()
    });
    await_word(&words[0], 1);
    match store.put(&[7; 200_000]).unboxed().map(|object| object.id()) {
        Err(CreateError::OutOfMemory { requested_bytes, capacity_bytes, holders, .. }) => {
            assert_eq!((requested_bytes, capacity_bytes), (200_000, 2 * MIB));
            let most = &holders[0];
            assert_eq!(most.pid, holder.pid().as_raw() as u32, "{holders:?}");
            assert!(most.held_bytes > MIB, "{holders:?}");
        }
        other => panic!("a full store answered {other:?}"),
    }
    let never = store.create(4 * MIB, &CreateOptions::default()).unboxed().err();
    assert!(matches!(never, Some(CreateError::TooLarge { requested_bytes, .. }) if requested_bytes == 4 * MIB), "{never:?}");
    holder.kill();
    drop(store.put(&[7; 200_000]).expect("what the dead held came back"));
    check_nothing_is_left(&store);
});

alone!(more_than_100_000_live_objects {
    let store = store_of(64 * MIB);
    let all: Vec<ObjectRef> = (0..150_000).map(|index| put(&store, index, 100)).collect();
    Child::fork(|| {
        (0..150_000).for_each(|index| check(&id_of(index), &store.view_by_id(&id_of(index)).expect("it is kept")));
        0
    })
    .succeed();
    all.iter().for_each(|object| look(&store, object));
    assert_eq!(store.list().len(), 150_000);
    drop(all);
    check_nothing_is_left(&store);
});

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

alone!(objects_larger_than_1_gib {
    let (bytes, available) = ((1 << 30) + MIB + 1, available_bytes());
    if available < 4 << 30 {
        eprintln!("skipped: {available} bytes of memory are available, a large object needs some to spare");
        return;
    }
    let store = store_of(bytes + 64 * MIB);
    let mut writer = store.create(bytes, &under(id_of(1))).expect("there is room");
    let marks = [0, (1 << 30) - 1, 1 << 30, bytes as usize - 1];
    marks.iter().for_each(|&at| writer[at] = 1 + (at % 251) as u8);
    let object = writer.seal();
    Child::fork(|| {
        let view = store.view(&object).expect("it is kept");
        assert_eq!(view.len() as u64, bytes);
        assert!(marks.iter().all(|&at| view[at] == 1 + (at % 251) as u8), "other bytes than were written");
        0
    })
    .succeed();
    drop(object);
    check_nothing_is_left(&store);
});

alone!(fork_is_safe {
    let store = store_of(4 * MIB);
    let words = SharedWords::new(1);
    let object = put(&store, 1, 100);
    let view = store.get(&object).expect("it is kept");
    let mine = store.client();
    let child = Child::fork(|| {
        let child = store.client();
        assert!(child.number != mine.number, "a child has its parent's number");
        Child::fork(|| {
            assert!(store.client().number != child.number, "a grandchild has its parent's number");
            look(&store, &object);
            look(&store, &put(&store, 3, 100));
            0
        })
        .succeed();
        let own = put(&store, 2, 100);
        words[0].store(1, Ordering::SeqCst);
        await_word(&words[0], 2);
        // The parent has let go: these are the child's own holds.
        look(&store, &object);
        check(&id_of(1), &view);
        look(&store, &own);
        0
    });
    await_word(&words[0], 1);
    drop((object, view));
    assert!(store.contains(&id_of(1)), "the child's hold is not its own");
    look(&store, &store.lookup(&id_of(2)).expect("what a child made is there for all"));
    words[0].store(2, Ordering::SeqCst);
    child.succeed();
    assert_eq!(store.reclaim(), 2);
    check_nothing_is_left(&store);
});

/// Files of a process that it could write something to: descriptors of files, shared mappings of them.
fn files_of(pid: &str) -> BTreeSet<PathBuf> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process may look at its children");
    let open = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process may look at its children");
    let shared = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|access| access.ends_with('s')));
    let mapped = shared.filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    open.chain(mapped).filter(|path| path.is_absolute() && !is_memory(path)).collect()
}

/// Memory without a name in any directory.
fn is_memory(path: &std::path::Path) -> bool {
    let path = path.to_string_lossy();
    ["/memfd:", "/dev/zero (deleted)", "/proc/"].iter().any(|prefix| path.starts_with(prefix))
}

fn named_files() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

alone!(nothing_is_logged_to_files {
    let (files, named) = (files_of("self"), named_files());
    let store = store_of(4 * MIB);
    let words = SharedWords::new(1);
    let child = Child::fork(|| put_and_end_for_ever(&store, 10, &words[0]));
    await_word(&words[0], 100);
    for pid in ["self".to_owned(), child.pid().to_string()] {
        let new: Vec<_> = files_of(&pid).difference(&files).cloned().collect();
        assert!(new.is_empty(), "process {pid} has files: {new:?}");
    }
    child.kill();
    check_nothing_is_left(&store);
    drop(store);
    let new: Vec<_> = named_files().difference(&named).cloned().collect();
    assert!(new.is_empty(), "files are left: {new:?}");
});

alone!(another_process_id_cannot_be_mistaken {
    let store = store_of(4 * MIB);
    let words = SharedWords::new(1);
    let client = Child::fork(|| {
        let _object = put(&store, 1, 100);
        words[0].store(1, Ordering::SeqCst);
        stay()
    });
    await_word(&words[0], 1);
    let before = ProcessId::of(client.pid().as_raw() as u32).expect("the child runs");
    // Nobody sweeps before the number belongs to somebody else, who started later.
    let pid = client.pid();
    client.kill();
    match child_with_pid(pid) {
        Ok(other) => {
            let now = ProcessId::of(pid.as_raw() as u32).expect("the other one runs");
            assert!(now.start_ticks != before.start_ticks, "both started in one tick: {now:?}");
            assert_eq!(store.unswept_clients(), 1, "another process passes for a dead client");
            assert_eq!(store.reclaim(), 1);
            drop(other);
        }
        Err(error) => {
            eprintln!("a process id cannot be chosen here ({error}): an admission of another start time instead");
            store.reclaim();
            let other = ProcessId { start_ticks: before.start_ticks + 1, ..ProcessId::current() };
            store.admit(other, "somebody else").expect("there is a row");
            assert_eq!(store.reclaim(), 1, "another process passes for a dead client");
        }
    }
    assert!(!store.contains(&id_of(1)), "what the dead held is still there");
    check_nothing_is_left(&store);
});
