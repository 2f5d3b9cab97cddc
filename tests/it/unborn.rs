//! A child that is killed inside `fork`, before the store's own handler has run in it.
//!
//! The one thing to know: handlers of a child run in the order of their registration, so one that is
//! registered before any store is made ends the child while its row still bears its parent's name. It
//! must stay off until the store is there.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use store::{Config, Keeping, Store};
use tests::alone;
use tests::process::Child;

static DIES: AtomicBool = AtomicBool::new(false);

extern "C" fn die_where_asked_to() {
    if DIES.load(Ordering::SeqCst) {
        // SAFETY: a signal to oneself touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

alone!(a_child_that_dies_before_it_joins_leaves_nothing {
    // SAFETY: the handler reads an atomic and raises a signal.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(die_where_asked_to)) }, 0);
    let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
    let store = Store::in_process(config).expect("a small store can be made");
    let object = store.put(b"held by the unborn too").expect("there is room");
    // More often than there are rows.
    for round in 0..20 {
        DIES.store(true, Ordering::SeqCst);
        Child::fork(|| 0).kill();
        DIES.store(false, Ordering::SeqCst);
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
