//! The sweep itself, and leaving.

use nix::sys::signal::Signal;
use std::sync::atomic::Ordering;
use store::{CreateOptions, Lifetime};
use tests::alone;
use tests::process::Child;
use tests::shared::SharedWords;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, at_once, content, id_of, look, put, try_put};

const MIB: u64 = 1 << 20;
const DEAD_HAD: std::ops::Range<u64> = 10..13;

/// Sweeps a client that died with objects, a container and a half-written object.
struct Sweep {
    is_ready: SharedWords,
}

/// What the third client does before it is killed.
fn hold_much(world: &World) {
    let mut objects: Vec<_> =
        DEAD_HAD.map(|index| put(&world.store, id_of(index), 100).expect("there is room")).collect();
    objects.push(world.neighbours[0].object.clone());
    let options = CreateOptions { references: &objects, ..at_once(id_of(1)) };
    std::mem::forget(world.store.put_with(&content(&id_of(1), 9), &options).expect("there is room"));
    let half = world.store.create(3000, &at_once(id_of(2))).expect("there is room");
    std::mem::forget(half);
    std::mem::forget(world.store.get(&world.neighbours[2].object).expect("a neighbour can be got"));
    let cached = CreateOptions { lifetime: Lifetime::Cached, ..at_once(id_of(3)) };
    drop(world.store.put_with(&content(&id_of(3), 10), &cached).expect("there is room"));
    std::mem::forget(objects);
}

impl Operation for Sweep {
    fn prepare(&mut self, world: &World) {
        self.is_ready[0].store(0, Ordering::SeqCst);
        let third = Child::fork(|| {
            hold_much(world);
            self.is_ready[0].store(1, Ordering::SeqCst);
            nix::sys::signal::raise(Signal::SIGKILL).expect("one may kill oneself");
            0
        });
        third.wait();
        assert_eq!(self.is_ready[0].load(Ordering::SeqCst), 1, "the third client did not come so far");
    }

    fn warm(&mut self, _: &World) {}

    fn run(&mut self, world: &World) {
        world.store.reclaim();
    }

    fn beside(&mut self, world: &World) {
        DEAD_HAD.for_each(|index| {
            let _ = look(&world.store, &id_of(index));
        });
        look(&world.store, &id_of(1));
        assert!(look(&world.store, &id_of(3)), "a cached object ended with its creator");
        world.store.reclaim();
    }

    fn after(&mut self, world: &World) {
        for index in DEAD_HAD.chain([1, 2]) {
            assert!(!look(&world.store, &id_of(index)), "what a dead client alone had is still there");
            assert!(try_put(&world.store, id_of(index), 20), "its id cannot be given again");
        }
    }

    fn clean(&mut self, world: &World) {
        assert!(world.store.delete(&id_of(3)), "a cached object ended with its creator");
    }
}

alone!(sweep {
    // Of each instruction the first two times and the last two: the first object of a row and the
    // last go other ways than those between.
    let plan = Plan { visits: 2, library_visits: 0 };
    drive("sweep", World::new(MIB), Sweep { is_ready: SharedWords::new(1) }, plan);
});
