//! Clients killed at random instants while a gate holds their sweep up.
//!
//! The one thing to know: the keeper's threads find every death by themselves and ask the gate; what
//! the dead held must stay until it says yes, and be gone a moment later. It must not know when the
//! keeper looks.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{ClientId, Config, CreateOptions, Keeping, ObjectRef, Store, SweepGate};
use store_shm::liveness::ProcessId;
use tests::alone;
use tests::chance::Chance;
use tests::mixed::said;
use tests::process::Child;
use tests::shared::SharedWords;
use tests::world::{check_empty, id_of};

const MIB: u64 = 1 << 20;
const ROUNDS: u64 = 40;
/// Objects that a victim has of its own, and promises.
const OBJECTS: u64 = 12;
/// Far longer than anything here takes: who waits that long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// What "a moment" is at most, on a machine that does other things too.
const MOMENT: Duration = Duration::from_secs(5);

/// Lets those through that it was told of; remembers whom it was asked about.
#[derive(Default)]
struct Settled {
    clients: Mutex<HashSet<ClientId>>,
    asked: Mutex<HashSet<ClientId>>,
}

impl SweepGate for Settled {
    fn may_sweep(&self, client: ClientId) -> bool {
        locked(&self.asked).insert(client);
        locked(&self.clients).contains(&client)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience, "{what} did not happen in {patience:?}");
        std::thread::yield_now();
    }
}

/// What a victim does until it is killed: objects of its own, a promise, and a write that never ends.
fn hold_until_killed(store: &Store, promise: &ObjectRef, word: &std::sync::atomic::AtomicU64) -> i32 {
    let mut kept = Vec::new();
    let put = |index| {
        store.put_with(&said(&id_of(index), 100), &CreateOptions { id: Some(id_of(index)), ..Default::default() })
    };
    kept.extend((1..=OBJECTS).map(|index| put(index).expect("there is room")));
    let own = store.promise_by_handle(None).expect("there is room");
    let writing = store.create_for(promise.handle(), 64, &CreateOptions::default()).expect("it is promised");
    let me = store.client();
    word.store(1 << 32 | u64::from(me.generation) << 16 | u64::from(me.number), Ordering::SeqCst);
    loop {
        kept.push(store.put(b"more").expect("there is room"));
        if kept.len() > 200 {
            kept.truncate(OBJECTS as usize);
        }
        std::hint::black_box((&own, &writing));
    }
}

fn holds_of(store: &Store, client: ClientId) -> usize {
    store.list().iter().filter(|info| info.holders.iter().any(|holder| holder.client == client.number)).count()
}

/// One victim: killed, held back by the gate, let through.
fn round(store: &Store, gate: &Settled, words: &SharedWords, chance: &mut Chance) {
    words[0].store(0, Ordering::SeqCst);
    let promise = store.promise_by_handle(None).expect("there is room");
    let child = Child::fork(|| hold_until_killed(store, &promise, &words[0]));
    until("the victim holds what it should", PATIENCE, || words[0].load(Ordering::SeqCst) != 0);
    let word = words[0].load(Ordering::SeqCst);
    let victim = ClientId { number: word as u16, generation: (word >> 16) as u16 };
    (0..chance.below(2000)).for_each(|_| std::hint::spin_loop());
    child.kill();
    // Found by whoever looks first: the keeper's threads, or a sweep in this one.
    match chance.below(3) {
        0 => store.sweep_again(),
        1 => assert_eq!(store.reclaim(), 0, "R4"),
        _ => {}
    }
    until("the gate is asked", PATIENCE, || locked(&gate.asked).contains(&victim));
    (0..chance.below(3)).for_each(|_| assert_eq!(store.reclaim(), 0, "R4"));
    assert!(holds_of(store, victim) > OBJECTS as usize, "R4: holds were given back");
    assert_eq!(store.promises_of(victim).len(), 1, "the promise that the victim made");
    assert!(!store.holders_besides(store.promises_of(victim)[0], victim));
    let next = store.admit(ProcessId::current(), "next").expect("there are numbers");
    assert_ne!(next.number, victim.number, "R4: the number was given out again");
    assert!(store.dismiss(next));
    let value = store.put_for(promise.handle(), b"of another", &CreateOptions::default()).expect("its writer is dead");
    assert_eq!(&*store.view(&value.expect("it is wanted")).expect("it is sealed"), b"of another");

    locked(&gate.clients).extend([victim, next]);
    store.sweep_again();
    until("the sweep of whom the gate lets through", MOMENT, || store.unswept_clients() == 0);
    assert_eq!(holds_of(store, victim), 0);
    drop(promise);
    store.check_invariants();
    assert!(store.list().is_empty(), "{:#?}", store.list());
}

alone!(the_killed_are_swept_when_the_gate_says_so_and_not_before {
    let seed = Chance::seed_or(23);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let (gate, words) = (Arc::new(Settled::default()), SharedWords::new(1));
    let config = Config {
        capacity_bytes: 8 * MIB,
        max_clients: 8,
        label: "gate".to_owned(),
        create_timeout: Duration::ZERO,
        keeping: Keeping::Threads,
        gate: Some(gate.clone()),
        ..Config::default()
    };
    let store = Store::in_process(config).expect("a small store can be made");
    (0..ROUNDS).for_each(|_| round(&store, &gate, &words, &mut chance));
    check_empty(&store);
});
