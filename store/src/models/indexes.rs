//! Models of the index: one bucket, entries that enter, leave and come back (I1-I3).

use super::{World, explore, explore_ends, start, start_mortal};
use crate::hold::{Held, REFERENCE};
use crate::layout::entry::FLAG_INDEXED;
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use crate::tables::Handle;
use std::sync::Arc;

fn id(index: u32) -> ObjectId {
    ObjectId::of_task([7; 24], index)
}

/// As the store fills an entry: all but the word, then the word.
fn fill(world: &World, slot: u32, index: u32) -> Handle {
    let entry = world.tables.entry(slot);
    let (words, index) = id(index).words();
    entry.flags.store(FLAG_INDEXED, Ordering::Relaxed);
    entry.id.iter().zip(words).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
    entry.id_index.store(index, Ordering::Relaxed);
    let free = Snapshot::unpack(entry.word.load(Ordering::Relaxed));
    entry.word.store(free.to(State::Sealed, 0), Ordering::Release);
    Handle { slot, generation: free.generation }
}

/// An entry in the index that `client` alone refers to.
fn entered(world: &World, slot: u32, index: u32, client: u16) -> Handle {
    let handle = fill(world, slot, index);
    world.give(client, slot, REFERENCE);
    world.party(client).enter(handle, &id(index)).unwrap();
    handle
}

#[test]
fn of_two_entries_of_one_id_one_enters() {
    explore(None, || {
        let world = Arc::new(World::new(3, 3, 0));
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                let handle = fill(&world, 1, 5);
                world.party(1).enter(handle, &id(5)).is_ok()
            })
        };
        let handle = fill(&world, 2, 5);
        let mine = world.party(2).enter(handle, &id(5)).is_ok();
        let other = other.join().unwrap();
        assert!(mine != other, "I1: one of two enters");
        let found = world.tables.find(&id(5)).unwrap();
        assert_eq!(found.slot, if mine { 2 } else { 1 });
    });
}

#[test]
fn one_enters_while_its_neighbour_leaves() {
    explore(Some(3), || {
        let world = Arc::new(World::new(3, 4, 0));
        entered(&world, 1, 1, 1);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        entered(&world, 2, 2, 2);
        other.join().unwrap();
        world.assert_ended(1);
        assert_eq!(world.tables.find(&id(1)), None);
        assert_eq!(world.tables.find(&id(2)), Some(Handle { slot: 2, generation: 0 }));
    });
}

/// Slot 2 leaves and comes back under another id, while its neighbour stays and `look` walks the bucket.
fn walks_while_a_neighbour_comes_back(preemptions: usize, look: fn(&World, Handle)) {
    explore(Some(preemptions), move || {
        let world = Arc::new(World::new(3, 4, 0));
        let stays = entered(&world, 1, 1, 1);
        entered(&world, 2, 2, 1);
        let other = start(&world, |world| {
            world.party(1).release(2, REFERENCE);
            // The same slot under another id.
            entered(world, 2, 3, 1);
        });
        look(&world, stays);
        other.join().unwrap();
    });
}

#[test]
fn one_is_found_while_its_neighbour_leaves_and_comes_back() {
    walks_while_a_neighbour_comes_back(2, |world, stays| {
        assert_eq!(world.tables.find(&id(1)), Some(stays), "I2: a walk never loses an entry that stays");
    });
}

#[test]
fn one_that_leaves_is_found_under_its_own_id() {
    walks_while_a_neighbour_comes_back(2, |world, _| {
        let found = world.tables.find(&id(2));
        assert!(found.is_none_or(|handle| handle.generation == 0), "a found entry has the id of its generation");
    });
}

#[test]
fn one_that_comes_back_is_found_under_its_new_id() {
    walks_while_a_neighbour_comes_back(2, |world, _| {
        // A life that ended during the walk may be named: whoever holds it finds that it is over.
        if let Some(found) = world.tables.find(&id(3)) {
            let held = world.party(2).hold(found, REFERENCE);
            assert_eq!(held == Held::Value, found.generation == 1, "I1: {found:?} is {held:?}");
        }
    });
}

#[test]
fn two_neighbours_leave() {
    // Two walks with several values to see at each load: two switches are more than 300,000 executions.
    explore(Some(1), || {
        let world = Arc::new(World::new(3, 4, 0));
        entered(&world, 1, 1, 1);
        entered(&world, 2, 2, 2);
        entered(&world, 3, 3, 2);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        world.party(2).release(2, REFERENCE);
        other.join().unwrap();
        world.assert_ended(1);
        world.assert_ended(2);
        assert_eq!(world.tables.find(&id(3)), Some(Handle { slot: 3, generation: 0 }));
        assert_eq!(world.tables.entry(3).next.load(Ordering::SeqCst), 0, "I3: nothing that ended is linked");
    });
}

#[test]
fn one_leaves_for_good_and_its_id_is_given_again() {
    explore(Some(3), || {
        let world = Arc::new(World::new(3, 4, 0));
        entered(&world, 1, 1, 1);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        let again = fill(&world, 2, 1);
        world.give(2, 2, REFERENCE);
        let entered = world.party(2).enter(again, &id(1));
        other.join().unwrap();
        world.assert_ended(1);
        let expected = entered.is_ok().then_some(again);
        assert_eq!(world.tables.find(&id(1)), expected);
    });
}

#[test]
fn a_client_killed_while_an_entry_leaves() {
    // Two walks again: two switches are more than 670,000 executions.
    explore_ends(Some(1), |writes| {
        let world = Arc::new(World::new(4, 4, 0));
        entered(&world, 1, 1, 1);
        entered(&world, 2, 2, 2);
        let killed =
            start_mortal(&world, writes, |world| world.party(1).release(1, REFERENCE), |world| world.sweep(3, 1));
        world.party(2).release(2, REFERENCE);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        world.assert_ended(2);
        assert_eq!(world.tables.index[0].load(Ordering::SeqCst), 0, "I3: the chain is empty");
        killed
    });
}

#[test]
fn a_walker_stopped_half_way_harms_nobody() {
    explore_ends(Some(2), |writes| {
        let world = Arc::new(World::new(4, 4, 0));
        entered(&world, 1, 1, 1);
        entered(&world, 2, 2, 2);
        let stopped = start_mortal(&world, writes, |world| world.party(1).unindex(1), |_| {});
        world.party(2).release(2, REFERENCE);
        let stopped = stopped.join().unwrap();
        world.assert_ended(2);
        world.party(1).release(1, REFERENCE);
        world.assert_ended(1);
        assert_eq!(world.tables.index[0].load(Ordering::SeqCst), 0, "I3: the chain is empty");
        stopped
    });
}
