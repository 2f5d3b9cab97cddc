//! Models of lists: counts that change exactly once, whoever ends half-way (L1-L3).

use super::{World, explore, explore_ends, start, start_mortal};
use crate::hold::{Held, REFERENCE};
use crate::list::listed_count;
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use crate::tables::Handle;
use std::sync::Arc;

/// Slots 1 and 2 are containers that clients 1 and 2 write; both list slot 3, and hold it.
fn world() -> World {
    let mut world = World::new(5, 4, 0);
    let child = Handle { slot: 3, generation: 0 };
    for container in [1, 2] {
        world.tables.lists[container as usize] = vec![child];
    }
    world.sealed(3);
    for client in [1, 2] {
        let slot = u32::from(client);
        let writing = Snapshot { state: State::Writing, decider: client, generation: 0 };
        world.tables.entry(slot).word.store(writing.pack(), Ordering::SeqCst);
        world.party(client).begin_list(slot);
        world.tables.entry(slot).children.store(1, Ordering::SeqCst);
        world.give(client, slot, REFERENCE);
        world.give(client, 3, REFERENCE);
    }
    world
}

fn seal(world: &World, client: u16) {
    world.party(client).list_children(u32::from(client));
    world.tables.entry(u32::from(client)).word.swap(Snapshot::sealed(0), Ordering::SeqCst);
}

fn assert_listed(world: &World, times: u64) {
    assert_eq!(world.tables.entry(3).listed.load(Ordering::SeqCst), times << 40, "L1: counted once, no tag left");
}

#[test]
fn two_containers_list_one_child() {
    explore(None, || {
        let world = Arc::new(world());
        let other = start(&world, |world| seal(world, 1));
        seal(&world, 2);
        other.join().unwrap();
        assert_listed(&world, 2);
        for container in [1, 2] {
            assert_eq!(world.tables.entry(container).cursor.load(Ordering::SeqCst) & 0xFFFF_FFFF, 1, "L2");
        }
    });
}

#[test]
fn one_container_lists_while_another_lets_go() {
    explore(Some(4), || {
        let world = Arc::new(world());
        seal(&world, 1);
        world.party(1).release(3, REFERENCE);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        seal(&world, 2);
        other.join().unwrap();
        world.assert_ended(1);
        assert_listed(&world, 1);
        world.party(2).release(3, REFERENCE);
        assert_eq!(world.word(3).state, State::Sealed, "a listed object lives");
        world.party(2).release(2, REFERENCE);
        world.assert_ended(2);
        world.assert_ended(3);
    });
}

#[test]
fn a_helper_that_slept_does_not_move_a_later_attempt() {
    explore(Some(3), || {
        let world = Arc::new(world());
        let helper = start(&world, |world| seal(world, 2));
        seal(&world, 1);
        world.party(1).release(1, REFERENCE);
        world.assert_ended(1);
        // The slot's next life lists the same child again.
        let writing = Snapshot { state: State::Writing, decider: 1, generation: 1 };
        world.tables.entry(1).word.store(writing.pack(), Ordering::SeqCst);
        world.party(1).begin_list(1);
        world.tables.entry(1).children.store(1, Ordering::SeqCst);
        let counted = |world: &World| world.tables.entry(1).cursor.load(Ordering::SeqCst) & 0xFFFF_FFFF;
        helper.join().unwrap();
        assert_eq!(counted(&world), 0, "L2: nothing of this attempt is counted yet");
        world.party(1).list_children(1);
        assert_eq!(counted(&world), 1, "L2");
        assert_listed(&world, 2);
    });
}

#[test]
fn two_containers_let_go_of_one_child() {
    explore(Some(3), || {
        let world = Arc::new(world());
        seal(&world, 1);
        seal(&world, 2);
        world.party(1).release(3, REFERENCE);
        world.party(2).release(3, REFERENCE);
        assert_eq!(listed_count(world.tables.entry(3)), 2);
        let other = start(&world, |world| world.party(1).release(1, REFERENCE));
        world.party(2).release(2, REFERENCE);
        other.join().unwrap();
        (1..4).for_each(|slot| world.assert_ended(slot));
    });
}

#[test]
fn a_writer_killed_while_it_lists() {
    explore_ends(Some(3), |writes| {
        let world = Arc::new(world());
        let killed = start_mortal(&world, writes, |world| seal(world, 1), |world| world.sweep(3, 1));
        seal(&world, 2);
        let killed = killed.join().unwrap();
        if killed {
            // Unsealed, it is a promise that nobody waits for: the sweep ends it.
            world.assert_ended(1);
            assert_listed(&world, 1);
        }
        killed
    });
}

#[test]
fn a_writer_stopped_while_it_lists_holds_nobody_up() {
    explore_ends(Some(3), |writes| {
        let world = Arc::new(world());
        let stopped = start_mortal(&world, writes, |world| seal(world, 1), |_| {});
        seal(&world, 2);
        world.party(2).release(3, REFERENCE);
        world.party(2).release(2, REFERENCE);
        let stopped = stopped.join().unwrap();
        world.assert_ended(2);
        world.sweep(3, 1);
        world.assert_ended(3);
        stopped
    });
}

#[test]
fn a_client_killed_while_it_ends_a_container() {
    explore_ends(Some(2), |writes| {
        let world = Arc::new(world());
        seal(&world, 1);
        let work = |world: &World| {
            world.party(1).release(3, REFERENCE);
            world.party(1).release(1, REFERENCE);
        };
        let killed = start_mortal(&world, writes, work, |world| world.sweep(3, 1));
        seal(&world, 2);
        world.party(2).release(3, REFERENCE);
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        assert_listed(&world, 1);
        world.party(2).release(2, REFERENCE);
        world.assert_ended(2);
        world.assert_ended(3);
        killed
    });
}

#[test]
fn a_child_is_swept_before_the_container_that_was_letting_go_of_it() {
    explore_ends(Some(2), |writes| {
        // The child has the lower slot, so its cell is swept first.
        let mut world = World::new(5, 4, 0);
        world.tables.lists[2] = vec![Handle { slot: 1, generation: 0 }];
        world.sealed(1);
        let writing = Snapshot { state: State::Writing, decider: 1, generation: 0 };
        world.tables.entry(2).word.store(writing.pack(), Ordering::SeqCst);
        world.party(1).begin_list(2);
        world.tables.entry(2).children.store(1, Ordering::SeqCst);
        world.give(1, 2, REFERENCE);
        world.party(1).list_children(2);
        world.tables.entry(2).word.store(Snapshot::sealed(0), Ordering::SeqCst);
        let world = Arc::new(world);
        let killed =
            start_mortal(&world, writes, |world| world.party(1).release(2, REFERENCE), |world| world.sweep(3, 1));
        // Somebody looks in between, as a reader that came by the child's handle.
        if world.party(2).hold(Handle { slot: 1, generation: 0 }, REFERENCE) != Held::Gone {
            world.party(2).release(1, REFERENCE);
        }
        if world.word(1) == (Snapshot { state: State::Free, decider: 0, generation: 1 }) {
            // The slot's next life begins; nobody lists it.
            world.tables.entry(1).listed.store(0, Ordering::SeqCst);
        }
        let killed = killed.join().unwrap();
        world.assert_ended(1);
        world.assert_ended(2);
        killed
    });
}

#[test]
fn the_sweeper_of_a_container_is_killed_too() {
    for first in 0..24 {
        explore_ends(Some(2), move |writes| {
            let world = Arc::new(world());
            seal(&world, 1);
            world.party(1).release(3, REFERENCE);
            let killed = start_mortal(&world, first, |world| world.party(1).release(1, REFERENCE), |_| {});
            killed.join().unwrap();
            let swept = start_mortal(&world, writes, |world| world.sweep(3, 1), |_| {});
            seal(&world, 2);
            let ended = swept.join().unwrap();
            world.sweep(4, 1);
            world.sweep(4, 3);
            world.assert_ended(1);
            assert_listed(&world, 1);
            ended || writes == 0
        });
    }
}
