//! A child that is killed inside `fork`, before the store's own handler has run in it.
//!
//! The one thing to know: handlers of a child run in the order of their registration, so one that is
//! registered before the store's, which is when the program is loaded, meets the child while its row
//! still bears its parent's name. It must do nothing where no test asks it to.

#![allow(unsafe_code)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use store::{Config, Keeping, Store};
use tests::alone;
use tests::process::Child;
use tests::shared::SharedWords;

/// What a child does before it joins; one word of a test's, or nothing.
static ASKED: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
const NOTHING: u64 = 0;
const DIE: u64 = 1;
/// Says `WAITING` and waits until it is told `NOTHING`.
const WAIT: u64 = 2;
const WAITING: u64 = 3;

/// Before the functions without a number, one of which registers the store's handlers.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static REGISTER_FIRST: extern "C" fn() = register;

extern "C" fn register() {
    // SAFETY: the handler reads atomics, and raises a signal or waits.
    let errno = unsafe { libc::pthread_atfork(None, None, Some(do_what_is_asked)) };
    assert!(errno == 0, "it fails only without memory");
}

extern "C" fn do_what_is_asked() {
    // SAFETY: null, or a word of `ask`, which no test gives back.
    let Some(word) = (unsafe { ASKED.load(Ordering::SeqCst).as_ref() }) else { return };
    match word.load(Ordering::SeqCst) {
        // SAFETY: a signal to oneself touches no memory.
        DIE => drop(unsafe { libc::raise(libc::SIGKILL) }),
        WAIT => {
            word.store(WAITING, Ordering::SeqCst);
            while word.load(Ordering::SeqCst) != NOTHING {
                std::thread::yield_now();
            }
        }
        _ => {}
    }
}

/// The word that children obey from now on.
fn ask() -> &'static AtomicU64 {
    let words: &'static SharedWords = Box::leak(Box::new(SharedWords::new(1)));
    ASKED.store(std::ptr::from_ref(&words[0]).cast_mut(), Ordering::SeqCst);
    &words[0]
}

fn store() -> Store {
    let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
    Store::in_process(config).expect("a small store can be made")
}

alone!(a_child_that_dies_before_it_joins_leaves_nothing {
    let (store, asked) = (store(), ask());
    let object = store.put(b"held by the unborn too").expect("there is room");
    // More often than there are rows.
    for round in 0..20 {
        asked.store(DIE, Ordering::SeqCst);
        Child::fork(|| 0).kill();
        asked.store(NOTHING, Ordering::SeqCst);
        assert_eq!(store.reclaim(), 1, "round {round}: the row of a child that never joined is kept");
        assert_eq!(store.list()[0].holders.len(), 1, "round {round}: its holds are kept");
    }
    Child::fork(|| i32::from(store.client().number == 0)).succeed();
    drop(object);
    store.reclaim();
    store.rest();
    store.check_invariants();
    assert_eq!(store.usage().used_bytes, 0, "{:#?}", store.list());
});

alone!(a_child_that_has_not_joined_lives_though_no_descriptor_is_left_to_look_with {
    let (store, asked) = (store(), ask());
    let object = store.put(b"held by the unborn too").expect("there is room");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a process may read its own limits");
    asked.store(WAIT, Ordering::SeqCst);
    setrlimit(Resource::RLIMIT_NOFILE, 0, most).expect("a process may lower its own limits");
    let child = Child::fork(|| i32::from(store.client().number == 0));
    while asked.load(Ordering::SeqCst) != WAITING {
        std::thread::yield_now();
    }
    assert_eq!(store.clients().len(), 1, "it has joined already");
    assert_eq!(store.reclaim(), 0, "a living child was swept");
    assert_eq!(store.list()[0].holders.len(), 2, "a living child lost its holds");
    asked.store(NOTHING, Ordering::SeqCst);
    child.succeed();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("and raise them again");
    store.reclaim();
    assert_eq!(store.list()[0].holders.len(), 1, "its holds are kept");
    drop(object);
});
