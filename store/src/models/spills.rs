//! Models of the way to disk and back (P2, P3).

use super::{World, explore, explore_ends, start, start_mortal};
use crate::hold::{Held, PIN, REFERENCE};
use crate::layout::chunk::Kind;
use crate::layout::entry::{IN_MEMORY, ON_DISK};
use crate::state::State;
use crate::sync::Ordering;
use crate::tables::Handle;
use std::sync::Arc;

const OBJECT: Handle = Handle { slot: 1, generation: 0 };

/// A sealed object in client 1's chunk; the spiller, client 1, refers to it.
fn world() -> Arc<World> {
    let world = World::new(4, 2, 1);
    world.sealed(1);
    world.give_block(1, 1, Kind::Active);
    world.give(1, 1, REFERENCE);
    Arc::new(world)
}

fn spill(world: &World) -> bool {
    let party = world.party(1);
    if !party.begin_spill(OBJECT) {
        return false;
    }
    world.read_bytes();
    let moved = party.end_spill(OBJECT);
    world.reuse_block(1);
    moved
}

/// Reads where the bytes are in memory; true where they are on disk.
fn read(world: &World, me: u16) -> bool {
    assert_eq!(world.party(me).hold(OBJECT, PIN), Held::Value, "P3: a referenced object lives");
    let state = world.word(1).state;
    let location = world.tables.entry(1).location.load(Ordering::SeqCst);
    let is_in_memory = location & IN_MEMORY != 0 && state != State::Unloading;
    if is_in_memory {
        world.read_bytes();
    }
    world.party(me).release(1, PIN);
    !is_in_memory
}

fn assert_whole(world: &World, moved: bool) {
    assert_eq!(world.word(1).state, State::Sealed, "P2: it ends in memory or on disk");
    let location = world.tables.entry(1).location.load(Ordering::SeqCst);
    assert_eq!(location, if moved { ON_DISK } else { IN_MEMORY });
}

#[test]
fn a_spill_against_a_pin() {
    explore(Some(6), || {
        let world = world();
        let reader = start(&world, |world| {
            read(world, 2);
        });
        let moved = spill(&world);
        reader.join().unwrap();
        assert_whole(&world, moved);
        world.party(1).release(1, REFERENCE);
        world.assert_ended(1);
    });
}

#[test]
fn a_spill_against_a_pin_of_a_reference() {
    explore(Some(6), || {
        let world = world();
        world.give(2, 1, REFERENCE);
        let reader = start(&world, |world| {
            let party = world.party(2);
            if party.pin_referenced(OBJECT.slot, OBJECT.generation).is_err() {
                party.settle(OBJECT, PIN);
            } else if world.tables.entry(1).location.load(Ordering::Acquire) & IN_MEMORY != 0 {
                world.read_bytes();
            }
            party.release(1, PIN);
            party.release(1, REFERENCE);
        });
        let moved = spill(&world);
        reader.join().unwrap();
        assert_whole(&world, moved);
        world.party(1).release(1, REFERENCE);
        world.assert_ended(1);
    });
}

#[test]
fn a_killed_spiller_against_a_pin() {
    explore_ends(Some(3), |writes| {
        let world = world();
        world.give(2, 1, REFERENCE);
        let killed = start_mortal(
            &world,
            writes,
            |world| {
                spill(world);
            },
            |world| world.sweep(3, 1),
        );
        read(&world, 2);
        let killed = killed.join().unwrap();
        let moved = world.tables.entry(1).location.load(Ordering::SeqCst) == ON_DISK;
        assert_whole(&world, moved);
        world.party(2).release(1, REFERENCE);
        if !killed {
            world.party(1).release(1, REFERENCE);
        }
        world.assert_ended(1);
        killed
    });
}

#[test]
fn a_killed_spiller_against_the_last_release() {
    explore_ends(Some(2), |writes| {
        let world = world();
        world.give(2, 1, REFERENCE);
        let work = |world: &World| {
            spill(world);
            world.party(1).release(1, REFERENCE);
        };
        let killed = start_mortal(&world, writes, work, |world| world.sweep(3, 1));
        world.party(2).release(1, REFERENCE);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        killed
    });
}

#[test]
fn of_two_restored_blocks_one_wins() {
    explore(None, || {
        let world = world();
        world.tables.entry(1).location.store(ON_DISK, Ordering::SeqCst);
        let other = start(&world, |world| {
            world.party(2).offer(1, 64);
        });
        let mine = world.party(1).offer(1, 128);
        other.join().unwrap();
        let expected = IN_MEMORY | if mine { 128 } else { 64 };
        assert_eq!(world.tables.entry(1).location.load(Ordering::SeqCst), expected, "P2: one offer wins");
    });
}
