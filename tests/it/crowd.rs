//! Thousands of processes that hold one object and end at once.
//!
//! The one thing to know: a child has its holds by the fork itself, so the children do nothing. It
//! must not measure: how long a sweep takes is a bench.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use store::{Config, Keeping, Store};
use tests::alone;
use tests::mixed::{check, said};
use tests::process::{Child, alarm, may_open};
use tests::world::id_of;

const CROWD: usize = 4096;

fn store() -> Store {
    let config = Config {
        capacity_bytes: 4 << 20,
        max_clients: 4352,
        label: "crowd".to_owned(),
        keeping: Keeping::Threads,
        ..Config::default()
    };
    Store::in_process(config).expect("a store for a crowd can be made")
}

fn wait_until_swept(store: &Store) {
    let start = Instant::now();
    while store.clients().len() > 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} clients are left", store.clients().len() - 1);
        std::thread::yield_now();
    }
}

alone!(an_object_survives_4096_holders_that_are_killed_at_once {
    alarm(120, 0);
    // A pipe to each that was just born, and a watch over each.
    if !may_open(2 * CROWD as u64 + 100) {
        return;
    }
    let store = store();
    let id = id_of(1);
    let object = store.put(&said(&id, 100)).expect("there is room");
    let crowd = Child::fork_many(CROWD, || loop {
        nix::unistd::pause();
    });
    let Some(crowd) = crowd else { return };
    let holders = &store.list()[0].holders;
    assert_eq!(holders.len(), CROWD + 1);
    assert!(holders.iter().all(|holder| holder.references == 1), "{holders:?}");
    crowd.iter().for_each(|child| child.signal(Signal::SIGKILL));
    crowd.into_iter().for_each(Child::kill);
    wait_until_swept(&store);
    let holders = &store.list()[0].holders;
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(holders[0].references, 1, "{holders:?}");
    check(&id, &store.view(&object).expect("it is kept"));
    drop(object);
    store.rest();
    store.check_invariants();
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.free_bytes), (0, usage.capacity_bytes), "{:#?}", store.list());
    alarm(0, 0);
});
