//! Forks: a child is a client of its own before `fork` returns.

use crate::common::{MIB, PATIENCE, check_nothing_is_left, filled, kept, small, under, until};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use store::{CreateOptions, Keeping, Lifetime, Store};
use tests::Unboxed;
use tests::alone;
use tests::process::Child;
use tests::shared::SharedWords;
use tests::world::id_of;

alone!(a_child_holds_what_its_parent_held_before_fork_returns {
    let store = small(4 * MIB);
    let words = SharedWords::new(1);
    let object = store.put_with(&filled(1, 10_000), &under(id_of(1))).expect("there is room");
    let view = store.get(&object).expect("it is sealed");
    let parent = store.client();
    // Both processes let go of it, each of its own.
    let inherited = RefCell::new(Some((object, view)));
    let child = Child::fork(|| {
        assert_ne!(store.client().number, parent.number, "a client of its own");
        let info = store.list();
        let holds = |number: u16| info[0].holders.iter().find(|holder| holder.client == number).copied();
        let (mine, its) = (holds(store.client().number).expect("it holds"), holds(parent.number).expect("it holds"));
        assert_eq!((mine.pid, mine.references, mine.pins), (std::process::id(), 1, 1));
        assert_eq!((its.references, its.pins), (1, 1));
        words[0].store(1, Ordering::SeqCst);
        until("the parent has let go", || words[0].load(Ordering::SeqCst) == 2);
        let (object, view) = inherited.take().expect("the child has a copy of everything");
        assert!(*view == *filled(1, 10_000));
        drop(view);
        assert!(*store.view(&object).expect("it is held") == *filled(1, 10_000));
        drop(object);
        assert!(!store.contains(&id_of(1)), "the last one let go");
        0
    });
    until("the child has looked", || words[0].load(Ordering::SeqCst) == 1);
    drop(inherited.take());
    assert!(store.contains(&id_of(1)), "the child holds it");
    words[0].store(2, Ordering::SeqCst);
    child.succeed();
    check_nothing_is_left(&store);
});

alone!(what_a_child_holds_goes_with_it {
    let store = kept(16 * MIB);
    for killed in [false, true] {
        let words = SharedWords::new(1);
        let child = Child::fork(|| {
            let kept = store.put_with(&[1; 1000], &under(id_of(1))).expect("there is room");
            let view = store.get(&kept).expect("it is sealed");
            let writer = store.create(5000, &under(id_of(2))).expect("there is room");
            words[0].store(1, Ordering::SeqCst);
            until("the parent has looked", || words[0].load(Ordering::SeqCst) == 2);
            std::mem::forget((kept, view, writer));
            0
        });
        until("the child holds", || words[0].load(Ordering::SeqCst) == 1);
        let seen = store.lookup(&id_of(1)).expect("the child made it");
        if killed {
            child.kill();
        } else {
            words[0].store(2, Ordering::SeqCst);
            child.succeed();
        }
        until("the keeper sweeps it", || store.clients().len() == 1);
        assert_eq!(store.list().len(), 1, "only what the parent took itself: {:#?}", store.list());
        assert_eq!(*store.view(&seen).expect("its own reference keeps it"), [1; 1000]);
        drop(store.put_with(b"", &under(id_of(2))).expect("the id of what was never sealed is free"));
        drop(seen);
        check_nothing_is_left(&store);
    }
});

alone!(a_child_puts_and_its_parent_gets {
    let store = kept(16 * MIB);
    let answers: Vec<_> = (0..4).map(|index| store.promise(&id_of(index)).expect("there is a slot")).collect();
    let children: Vec<Child> = (0..4).map(|index| {
        let store = &store;
        Child::fork(move || {
            drop(store.put_with(&filled(index, 100_000), &under(id_of(index))).expect("there is room"));
            0
        })
    }).collect();
    let found = store.get_many(&answers, PATIENCE).expect("the children answer");
    assert!(found.iter().zip(0..).all(|(object, index)| **object == *filled(index, 100_000)));
    children.into_iter().for_each(Child::succeed);
    drop((found, answers));
    check_nothing_is_left(&store);
});

alone!(a_grandchild_holds_what_its_grandparent_held {
    let store = small(4 * MIB);
    let object = store.put_with(b"from the grandparent", &under(id_of(1))).expect("there is room");
    let child = Child::fork(|| {
        let mine = store.put_with(b"from the parent", &under(id_of(2))).expect("there is room");
        let grandchild = Child::fork(|| {
            assert_eq!(store.clients().len(), 3, "{:?}", store.clients());
            assert_eq!(&*store.view(&object).expect("it is held"), b"from the grandparent");
            assert_eq!(&*store.view(&mine).expect("it is held"), b"from the parent");
            let named = CreateOptions { lifetime: Lifetime::Named, ..under(id_of(3)) };
            drop(store.put_with(b"from the grandchild", &named).expect("there is room"));
            0
        });
        grandchild.succeed();
        assert_eq!(&*store.view_by_id(&id_of(3)).expect("it is named"), b"from the grandchild");
        0
    });
    child.succeed();
    assert_eq!(&*store.view_by_id(&id_of(3)).expect("it is named"), b"from the grandchild");
    assert!(store.delete(&id_of(3)));
    drop(object);
    check_nothing_is_left(&store);
});

alone!(a_parent_forks_while_its_threads_put_and_drop {
    let store = kept(16 * MIB);
    let held = store.put(&filled(9, 5000)).expect("there is room");
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut kept = Vec::new();
                let mut round = 0;
                while !is_done.load(Ordering::SeqCst) {
                    kept.push(store.put(&filled(round, round % 3000)).expect("there is room"));
                    kept.truncate(20);
                    let again = held.clone();
                    assert!(*store.view(&again).expect("it is held") == *filled(9, 5000));
                    round += 1;
                }
            });
        }
        for _ in 0..20 {
            let child = Child::fork(|| {
                assert!(*store.view(&held).expect("it is held") == *filled(9, 5000));
                let own = store.put(b"of the child").expect("there is room");
                assert_eq!(&*store.view(&own).expect("it is sealed"), b"of the child");
                0
            });
            child.succeed();
        }
        is_done.store(true, Ordering::SeqCst);
    });
    assert!(*store.view(&held).expect("it is held") == *filled(9, 5000));
    drop(held);
    check_nothing_is_left(&store);
});

alone!(a_child_cannot_seal_what_its_parent_writes_and_does_not_abort_it {
    let store = small(4 * MIB);
    let mut writer = store.create(6, &under(id_of(1))).expect("there is room");
    writer.copy_from_slice(b"parent");
    let inherited = RefCell::new(Some(writer));
    let child = Child::fork(|| {
        drop(inherited.take());
        assert!(!store.contains(&id_of(1)));
        0
    });
    child.succeed();
    store.reclaim();
    let object = inherited.take().expect("the parent's is the parent's").seal();
    assert_eq!(&*store.view(&object).expect("it is sealed"), b"parent");
    drop(object);
    check_nothing_is_left(&store);
});

/// What the child of a killed parent does: it goes on alone.
fn go_on_alone(store: &Store, words: &SharedWords, parent: Pid) {
    words[0].store(std::process::id().into(), Ordering::SeqCst);
    until("the parent is dead", || getppid() != parent);
    assert!(*store.view_by_id(&id_of(1)).expect("the child inherited it") == *filled(1, 5000));
    until("the dead parent can be swept", || {
        store.reclaim();
        store.clients().len() == 1
    });
    assert!(store.keep().expect("a thread can be started"), "nobody else keeps it");
    assert_eq!(store.list().len(), 1, "what only the parent held is gone: {:#?}", store.list());
    // Under the keeper's eyes, a child of its own comes and goes.
    Child::fork(|| {
        drop(store.put(b"of the grandchild").expect("there is room"));
        0
    })
    .succeed();
    until("the new keeper sweeps", || store.clients().len() == 1);
    drop(store.put(&filled(2, 8 * MIB)).expect("there is room"));
    store.settle(PATIENCE);
    store.rest();
    store.check_invariants();
    words[1].store(1, Ordering::SeqCst);
}

alone!(a_child_goes_on_when_its_parent_is_killed_and_keeps_the_store {
    // So that this process can wait for a grandchild whose parent is dead.
    set_child_subreaper(true).expect("every kernel can");
    let words = SharedWords::new(2);
    let parent = Child::fork(|| {
        let store = kept(16 * MIB);
        let object = store.put_with(&filled(1, 5000), &under(id_of(1))).expect("there is room");
        let me = nix::unistd::getpid();
        let child = Child::fork(|| {
            set_pdeathsig(None::<Signal>).expect("it may outlive its parent");
            // The net under it: nothing is left running when it hangs.
            nix::unistd::alarm::set(60);
            let _object = object;
            go_on_alone(&store, &words, me);
            0
        });
        let _only_mine = store.put(b"gone with the parent").expect("there is room");
        child.succeed();
        1
    });
    until("the grandchild stands", || words[0].load(Ordering::SeqCst) != 0);
    parent.kill();
    let grandchild = Pid::from_raw(words[0].load(Ordering::SeqCst) as i32);
    let status = waitpid(grandchild, None).expect("it is ours by now");
    assert_eq!(status, WaitStatus::Exited(grandchild, 0));
    assert_eq!(words[1].load(Ordering::SeqCst), 1);
});

alone!(a_fork_that_finds_no_free_number_says_so_and_harms_nobody {
    let config = store::Config { max_clients: 2, keeping: Keeping::Inline, ..crate::common::small_config(4 * MIB) };
    let store = Store::in_process(config).expect("a small store can be made");
    let object = store.put(b"the parent's").expect("there is room");
    Child::fork(|| {
        let error = store.put(b"the child's").unboxed().err();
        assert!(matches!(error, Some(store::CreateError::Forked)), "{error:?}");
        let again = store.put_with(b"", &under(id_of(1))).unboxed().err();
        assert!(matches!(again, Some(store::CreateError::Forked)), "{again:?}");
        // Nobody holds the parent's object in the child's name: it may read nothing.
        let read = store.view(&object).unboxed().err();
        assert!(matches!(read, Some(store::GetError::Forked)), "{read:?}");
        let read = store.view_by_id(&object.id()).unboxed().err();
        assert!(matches!(read, Some(store::GetError::Forked)), "{read:?}");
        0
    }).succeed();
    assert_eq!(&*store.view(&object).expect("it is held"), b"the parent's");
    drop(object);
    check_nothing_is_left(&store);
});
