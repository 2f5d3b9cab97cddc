//! Models of spans, blocks and slots (A1-A4).

use super::{World, explore, explore_ends, start, start_mortal};
use crate::alloc::span::{Claim, End};
use crate::layout::chunk::{Back, Kind, SpanWord};
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use std::sync::Arc;

/// Slots 1 to 3, one chunk whose first block belongs to slot 1; client 1 owns it.
fn world(kind: Kind) -> Arc<World> {
    let world = World::new(4, 4, 1);
    world.sealed(1);
    world.give_block(1, 1, kind);
    Arc::new(world)
}

#[test]
fn the_last_free_against_the_owner_taking_a_span_back() {
    explore(Some(6), || {
        let world = world(Kind::Small);
        let freer = start(&world, |world| world.party(2).free_block(0, 1));
        let owner = world.party(1);
        let resting = world.tables.span_word(0);
        if let Some(active) = owner.activate(0, resting, Kind::Active) {
            world.reuse_block(1);
            owner.rest(0, active, Kind::Small);
        }
        freer.join().unwrap();
        assert_eq!(world.tables.span_word(0).kind, Kind::Free, "A3: an empty span at rest is given back");
    });
}

#[test]
fn the_last_free_against_the_owner_letting_a_span_rest() {
    explore(None, || {
        let world = world(Kind::Active);
        let active = world.tables.span_word(0);
        let freer = start(&world, |world| world.party(2).free_block(0, 1));
        world.party(1).rest(0, active, Kind::Small);
        freer.join().unwrap();
        assert_eq!(world.tables.span_word(0), active.next(Kind::Free, 1), "A3: given back once");
    });
}

#[test]
fn two_last_frees_give_a_span_back_once() {
    explore(Some(6), || {
        let world = world(Kind::Small);
        world.party(1).take_block(0, 1, 1, 2);
        let resting = world.tables.span_word(0);
        let other = start(&world, |world| world.party(2).free_block(64, 2));
        world.party(3).free_block(0, 1);
        other.join().unwrap();
        assert_eq!(world.tables.span_word(0), resting.next(Kind::Free, 1), "A3: given back once");
    });
}

/// Claims for good; gives the claim back in the end.
fn run_is(world: &World, claim: Claim) {
    for chunk in claim.first..claim.first + claim.chunks {
        assert_eq!(world.tables.span_of(chunk).map(|(first, _)| first), Some(claim.first), "A1: chunk {chunk}");
    }
}

fn two_claims(preemptions: Option<usize>, runs: [(u32, u32); 2], set_up: fn(&World)) {
    explore(preemptions, move || {
        let world = Arc::new(World::new(3, 1, 3));
        set_up(&world);
        let [one, two] = runs;
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.party(2).take_run(two.0, two.1))
        };
        let mine = world.party(1).take_run(one.0, one.1);
        let other = other.join().unwrap();
        let overlap = one.0 < two.0 + two.1 && two.0 < one.0 + one.1;
        assert!(!(overlap && mine.is_some() && other.is_some()), "A1: a chunk has one owner");
        for (claim, client) in [(mine, 1), (other, 2)] {
            if let Some(claim) = claim {
                run_is(&world, claim);
                world.party(client).give_back(claim);
            }
        }
        assert_eq!(world.tables.free_chunks(), 3, "A1: freeing is one store");
    });
}

#[test]
fn two_claims_of_overlapping_runs() {
    two_claims(None, [(0, 2), (1, 2)], |_| {});
}

#[test]
fn two_claims_over_bodies_that_were_left_behind() {
    two_claims(None, [(0, 2), (1, 1)], |world| {
        let claim = world.party(1).take_run(0, 3).unwrap();
        world.party(1).give_back(claim);
    });
    two_claims(None, [(0, 3), (2, 1)], |world| {
        let claim = world.party(1).take_run(1, 2).unwrap();
        world.party(1).give_back(claim);
    });
}

#[test]
fn two_searches_from_both_ends() {
    explore(Some(4), || {
        let world = Arc::new(World::new(3, 1, 3));
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.party(2).claim(2, End::Low))
        };
        let mine = world.party(1).claim(2, End::High);
        let other = other.join().unwrap();
        for claim in [mine, other].into_iter().flatten() {
            run_is(&world, claim);
        }
    });
}

#[test]
fn a_claim_against_the_end_of_a_span() {
    explore(None, || {
        let world = Arc::new(World::new(3, 2, 3));
        world.sealed(1);
        world.give_block(1, 1, Kind::Small);
        let claim = world.party(1).take_run(1, 2).unwrap();
        world.party(1).take_block(1, 0, 1, 1);
        world.party(1).publish(claim, Kind::Large);
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.party(2).take_run(2, 1))
        };
        world.party(1).free_block(crate::layout::CHUNK_BYTES, 1);
        let other = other.join().unwrap();
        if let Some(claim) = other {
            run_is(&world, claim);
        }
        assert_eq!(world.tables.span_of(1), None, "A3: the span of one block is free");
    });
}

#[test]
fn an_interrupted_free_repeated_against_the_owner_reusing_the_block() {
    explore_ends(None, |writes| {
        let world = world(Kind::Active);
        // The end may come right after: then, too, a sweeper does it all again.
        let free = |world: &World| world.party(2).free_block(0, 1);
        let again = |world: &World| world.party(3).free_block(0, 1);
        let killed = start_mortal(
            &world,
            writes,
            move |world| {
                free(world);
                again(world);
            },
            again,
        );
        let owner = world.party(1);
        let reused = owner.collect_word(0, 0) != 0;
        if reused {
            owner.take_block(0, 0, 1, 2);
        }
        let killed = killed.join().unwrap();
        let bits = &world.tables.chunk_bits[0];
        let back = Back::unpack(world.tables.back(0, 0).load(Ordering::SeqCst));
        let is_freed = bits.freed[0].load(Ordering::SeqCst) & 1 == 1;
        assert_eq!(back.slot, if reused { 2 } else { 1 });
        assert_eq!(is_freed, !reused, "A2: a block is freed once per taking");
        killed
    });
}

/// Slot 1 of slab 0 is dead in client 2's name; client 1 owns the slab.
fn slab_world() -> (Arc<World>, SpanWord, Snapshot) {
    let world = World::new(4, 4, 0);
    let active = SpanWord { kind: Kind::Active, owner: 1, generation: 1 };
    world.tables.slabs[0].word.store(active.pack(), Ordering::SeqCst);
    world.party(1).take_slot(1);
    let dead = Snapshot { state: State::Dead, decider: 2, generation: 0 };
    world.tables.entry(1).word.store(dead.pack(), Ordering::SeqCst);
    (Arc::new(world), active, dead)
}

#[test]
fn a_slot_is_handed_out_after_its_freer_is_done() {
    explore(None, || {
        let (world, _, dead) = slab_world();
        let freer = start(&world, move |world| world.party(2).free_slot(1, dead));
        let free = world.party(1).collect_slots(0, 0);
        if free & 0b10 != 0 {
            world.party(1).take_slot(1);
            let word = world.word(1);
            assert_eq!(word.state, State::Free, "A4");
            assert_eq!(world.tables.entry(1).holders.load(Ordering::Relaxed), 0);
            world.tables.entry(1).word.store(word.to(State::Writing, 1), Ordering::Release);
        }
        freer.join().unwrap();
        let taken = world.tables.slab_is_taken(0);
        assert_eq!(taken, free & 0b10 != 0, "A4: a slot is taken once");
    });
}

#[test]
fn a_slab_goes_from_hand_to_hand() {
    explore_ends(Some(4), |writes| {
        let (world, active, dead) = slab_world();
        let free = move |world: &World| world.party(2).free_slot(1, dead);
        let again = move |world: &World| {
            if world.word(1) == dead {
                world.party(2).free_slot(1, dead);
            }
            world.party(3).free_slab_if_empty(0);
        };
        let killed = start_mortal(&world, writes, free, again);
        world.party(1).rest_slab(0, active);
        let word = world.tables.slab_word(0);
        if word.kind == Kind::Free && world.party(1).turn_slab(0, word, Kind::Active).is_some() {
            world.party(1).begin_slab(0);
            let free = world.party(1).collect_slots(0, 0);
            assert!(free & 0b10 == 0 || world.word(1).state == State::Free, "A4");
        }
        let killed = killed.join().unwrap();
        let word = world.tables.slab_word(0);
        if word.kind == Kind::Active {
            assert_eq!(world.party(1).collect_slots(0, 0) & 0b1110, 0b1110, "A4: every slot comes back");
            world.party(1).rest_slab(0, word);
        }
        assert_eq!(world.tables.slab_word(0).kind, Kind::Free, "A3: an empty slab at rest is given back");
        killed
    });
}
