//! Models of holds: pins, last releases, rescues, sweeps (H1-H6, R1).

use super::{World, explore, explore_ends, start, start_mortal};
use crate::hold::{Held, PIN, REFERENCE};
use crate::layout::chunk::Kind;
use crate::layout::entry::FLAG_CACHED;
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use crate::tables::Handle;
use std::sync::Arc;

const OBJECT: Handle = Handle { slot: 1, generation: 0 };

/// A sealed object with a block of client 2's chunk; clients 1 to 4 exist.
fn world() -> Arc<World> {
    let world = World::new(5, 2, 1);
    world.sealed(1);
    world.give_block(1, 2, Kind::Active);
    Arc::new(world)
}

/// Takes a pin, looks at the bytes if that was in time, lets go.
fn read(world: &World, me: u16) {
    match world.party(me).hold(OBJECT, PIN) {
        Held::Value => {
            world.read_bytes();
            world.party(me).release(1, PIN);
        }
        Held::Gone => {}
        Held::NoValue => panic!("a sealed object has a value"),
    }
}

#[test]
fn a_pin_against_the_last_release() {
    explore(Some(4), || {
        let world = world();
        world.give(2, 1, REFERENCE);
        let reader = start(&world, |world| read(world, 1));
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        reader.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn a_pin_of_a_known_class_against_the_last_release() {
    explore(Some(4), || {
        let world = world();
        // Client 1 held it once: its class is known, its cell is empty.
        world.give(1, 1, 0);
        world.give(2, 1, REFERENCE);
        let reader = start(&world, |world| read(world, 1));
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        reader.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn a_pin_of_a_reference_against_the_release_of_others() {
    explore(Some(4), || {
        let world = world();
        world.give(1, 1, REFERENCE);
        world.give(2, 1, REFERENCE);
        let reader = start(&world, |world| {
            let party = world.party(1);
            let seen = party.pin_referenced(OBJECT.slot, OBJECT.generation);
            assert!(seen.is_ok() || party.settle(OBJECT, PIN) == Held::Value);
            party.release(1, REFERENCE);
            world.read_bytes();
            party.release(1, PIN);
        });
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        reader.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn two_last_releases() {
    explore(Some(4), || {
        let world = world();
        world.give(1, 1, REFERENCE);
        world.give(2, 1, PIN);
        let other = start(&world, |world| {
            world.party(1).release(1, REFERENCE);
        });
        world.read_bytes();
        world.party(2).release(1, PIN);
        world.reuse_block(2);
        other.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn two_last_releases_against_a_pin() {
    explore(Some(3), || {
        let world = world();
        world.give(1, 1, REFERENCE);
        world.give(2, 1, REFERENCE);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        let reader = start(&world, |world| read(world, 3));
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        other.join().unwrap();
        reader.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn a_hold_that_came_in_time_saves_the_object() {
    explore(None, || {
        let world = world();
        world.give(2, 1, REFERENCE);
        let saver = start(&world, |world| {
            if world.party(1).hold(OBJECT, REFERENCE) == Held::Value {
                assert!(world.word(1).lives() && world.word(1).generation == 0, "a held object lives");
            }
        });
        world.party(2).release(1, REFERENCE);
        saver.join().unwrap();
        if world.cell(1, 1) == 0 {
            return world.assert_ended(1);
        }
        assert_eq!(world.word(1).state, State::Sealed, "H3: a held object is not left condemned");
        world.party(1).release(1, REFERENCE);
        world.assert_ended(1);
    });
}

#[test]
fn two_releases_in_one_client() {
    explore(None, || {
        let world = world();
        world.give(2, 1, 2 * PIN);
        let other = start(&world, |world| {
            world.read_bytes();
            world.party(2).release(1, PIN);
        });
        world.party(2).release(1, PIN);
        other.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn a_hold_and_a_release_in_one_client() {
    explore(Some(4), || {
        let world = world();
        world.give(2, 1, REFERENCE);
        let other = start(&world, |world| read(world, 2));
        world.party(2).release(1, REFERENCE);
        other.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn two_threads_of_one_client_against_another() {
    explore(Some(3), || {
        let world = world();
        world.give(2, 1, REFERENCE);
        world.give(1, 1, REFERENCE);
        let other = start(&world, |world| read(world, 2));
        let foreign = start(&world, |world| world.party(1).release(1, REFERENCE));
        world.party(2).release(1, REFERENCE);
        other.join().unwrap();
        foreign.join().unwrap();
        world.assert_ended(1);
    });
}

#[test]
fn a_stopped_releaser_holds_nobody_up() {
    explore_ends(Some(3), |writes| {
        let world = world();
        world.give(1, 1, REFERENCE);
        world.give(2, 1, REFERENCE);
        let stopped = start_mortal(&world, writes, |world| world.party(1).release(1, REFERENCE), |_| {});
        world.party(2).release(1, REFERENCE);
        let stopped = stopped.join().unwrap();
        if stopped && world.word(1).state != State::Free {
            // Its cell names the slot (H1): it holds the object, or was just about to decide.
            let keeps = world.cell(1, 1) != 0;
            let is_its = world.word(1).state == State::Dead && world.word(1).decider == 1;
            assert!(keeps || is_its, "H2: only what a stopped client holds or ends itself waits: {:?}", world.word(1));
        }
        world.sweep(3, 1);
        world.assert_ended(1);
        stopped
    });
}

#[test]
fn a_killed_releaser_is_swept_while_others_release() {
    explore_ends(Some(2), |writes| {
        let world = world();
        world.give(1, 1, REFERENCE);
        world.give(2, 1, REFERENCE);
        let killed =
            start_mortal(&world, writes, |world| world.party(1).release(1, REFERENCE), |world| world.sweep(3, 1));
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        killed
    });
}

#[test]
fn a_killed_releaser_is_swept_while_others_pin() {
    explore_ends(Some(2), |writes| {
        let world = world();
        world.give(1, 1, REFERENCE);
        let killed =
            start_mortal(&world, writes, |world| world.party(1).release(1, REFERENCE), |world| world.sweep(3, 1));
        read(&world, 2);
        world.reuse_block(2);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        killed
    });
}

#[test]
fn a_killed_reader_is_swept_while_others_release() {
    explore_ends(Some(2), |writes| {
        let world = world();
        world.give(2, 1, REFERENCE);
        let killed = start_mortal(&world, writes, |world| read(world, 1), |world| world.sweep(3, 1));
        world.party(2).release(1, REFERENCE);
        world.reuse_block(2);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        killed
    });
}

#[test]
fn a_killed_sweeper_is_swept() {
    for first in 0..12 {
        explore_ends(Some(2), move |writes| {
            let world = world();
            world.give(1, 1, REFERENCE);
            world.give(2, 1, REFERENCE);
            let killed = start_mortal(&world, first, |world| world.party(1).release(1, REFERENCE), |_| {});
            world.party(2).release(1, REFERENCE);
            killed.join().unwrap();
            let swept = start_mortal(&world, writes, |world| world.sweep(3, 1), |_| {});
            read(&world, 2);
            let ended = swept.join().unwrap();
            // R3: the sweeper of a sweeper finds what both left.
            world.sweep(4, 1);
            world.sweep(4, 3);
            world.assert_ended(1);
            ended || writes == 0
        });
    }
}

#[test]
fn an_eviction_against_a_pin() {
    explore(Some(5), || {
        let world = world();
        world.tables.entry(1).flags.store(FLAG_CACHED, Ordering::SeqCst);
        let reader = start(&world, |world| read(world, 1));
        let mut work = Vec::new();
        let evicted = world.party(2).claim_decision(1) && world.party(2).decide(1, true, &mut work);
        world.reuse_block(2);
        reader.join().unwrap();
        if evicted {
            return world.assert_ended(1);
        }
        assert_eq!(world.word(1), Snapshot { state: State::Sealed, decider: 0, generation: 0 });
        world.assert_no_cells(1);
    });
}

#[test]
fn a_promise_is_kept_or_forsaken() {
    explore(Some(4), || {
        let world = world();
        let promised = Snapshot { state: State::Promised, decider: 0, generation: 0 };
        world.tables.entry(1).location.store(0, Ordering::SeqCst);
        world.tables.entry(1).word.store(promised.pack(), Ordering::SeqCst);
        world.give(1, 1, REFERENCE);
        let waiter = start(&world, |world| world.party(1).release(1, REFERENCE));
        // As a creator does: a hold first, then the word; again where a releaser was in between.
        let party = world.party(2);
        while party.hold(OBJECT, REFERENCE) == Held::NoValue {
            let word = &world.tables.entry(1).word;
            let writing = promised.to(State::Writing, 2);
            let taken = word.compare_exchange(promised.pack(), writing, Ordering::SeqCst, Ordering::SeqCst);
            if taken.is_ok() {
                word.swap(Snapshot::sealed(0), Ordering::SeqCst);
            }
            party.release(1, REFERENCE);
            if taken.is_ok() {
                break;
            }
        }
        waiter.join().unwrap();
        world.assert_ended(1);
    });
}
