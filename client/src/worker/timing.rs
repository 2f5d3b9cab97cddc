//! What a call costs a worker, with a submitter of the test's own; it asserts no time.
//!
//! The one thing to know: numbers mean something in release alone, on an idle machine with two cores:
//! `cargo test --release -p raylet-client --lib worker::timing -- --nocapture`. In other builds it runs
//! tiny, to see that it still does. This file must not know how a worker works.

use super::tests::*;
use crate::actor::Actor;
use raylet_api::message::Message;
use raylet_api::record::{Kind, Record};
use raylet_api::work::LeaseReturned;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::time::Instant;
use store_shm::queue::{Payload, Submitter};

const ROUNDS: u32 = if cfg!(debug_assertions) { 2_000 } else { 500_000 };
const RUNS: usize = 5;
/// Calls under way at once; the ring has room for them.
const IN_FLIGHT: usize = 60;

/// Promise, submit, wait for the value, let go: all that a caller has to do.
fn round_trips(ground: &Ground, submitter: &mut Submitter, words: Payload) -> f64 {
    let mut record = Record::unpack(&words).unwrap();
    let store = ground.ray.store();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..ROUNDS {
                let promise = store.promise_by_handle(None).unwrap();
                record.result = crate::engine::spec::object_key(promise.handle());
                submitter.try_submit(&record.pack()).unwrap();
                while !promise.is_ready() {
                    spin_loop();
                }
                submitter.reap(|_, _| {}).unwrap();
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[0]
}

/// The same with as many calls under way as fit, of each of which the results live on for a while.
fn in_flight(ground: &Ground, submitter: &mut Submitter, words: Payload) -> f64 {
    let mut record = Record::unpack(&words).unwrap();
    let store = ground.ray.store();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let (mut promises, mut submitted) = (VecDeque::new(), 0);
            while submitted < ROUNDS || !promises.is_empty() {
                while submitted < ROUNDS && promises.len() < IN_FLIGHT {
                    let promise = store.promise_by_handle(None).unwrap();
                    record.result = crate::engine::spec::object_key(promise.handle());
                    submitter.try_submit(&record.pack()).unwrap();
                    promises.push_back(promise);
                    submitted += 1;
                }
                submitter.reap(|_, _| promises.pop_front().into_iter().for_each(drop)).unwrap();
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[0]
}

#[test]
fn what_a_call_costs() {
    let ground = ground();
    let (_sent, words) = ground.packed(ground.head(function("double"), Kind::Task), &ground.number(3), 1);
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    ground.grant(0);
    eprintln!("task, hot: {:.0} ns", round_trips(&ground, &mut submitter, words));
    eprintln!("tasks in flight: {:.0} ns each", in_flight(&ground, &mut submitter, words));
    ground.withdraw();
    while !matches!(ground.hear(), Message::LeaseReturned(LeaseReturned { .. })) {}
    ground.end(worker);
}

#[test]
fn what_a_call_of_an_actor_costs() {
    let _alone = alone();
    let actors = [
        ("plain", Ledger::class().key, method::<Ledger>("look")),
        ("async", Room::class().key, method::<Room>("peek")),
    ];
    for (name, class, method) in actors {
        let ground = ground();
        let worker = ground.worker();
        ground.run_actor(class, &ground.arguments(|_, _| {}), 0);
        assert!(matches!(ground.hear(), Message::ActorReady(_)));
        let (_sent, words) = ground.packed(ground.head(method, Kind::Call), &ground.number(3), 1);
        let mut submitter = ground.submitter(0);
        eprintln!("{name} call, hot: {:.0} ns", round_trips(&ground, &mut submitter, words));
        end_actor(&ground, worker);
    }
}
