//! To disk and back.

use store::ObjectRef;
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, check_content, id_of, look, put};

const MOVED: u64 = 1;
const MIB: u64 = 1 << 20;

/// Writes an object to disk and takes it out of memory; survivors read it meanwhile.
#[derive(Default)]
struct Spill {
    object: Option<ObjectRef>,
}

impl Operation for Spill {
    fn prepare(&mut self, world: &World) {
        self.object = Some(put(&world.store, id_of(MOVED), 100).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        world.store.spill_now(self.object.as_ref().expect("prepared")).expect("the disk has room");
    }

    fn beside(&mut self, world: &World) {
        let object = self.object.as_ref().expect("prepared");
        // The few stores in which the spiller alone can go on: who reads then is told who it is.
        if world.store.is_unloading(object) {
            return;
        }
        check_content(&id_of(MOVED), &world.store.view(object).expect("a reference keeps the value"));
        assert!(look(&world.store, &id_of(MOVED)), "an object that is held is not found");
    }

    fn after(&mut self, world: &World) {
        self.beside(world);
        world.store.spill_now(self.object.as_ref().expect("prepared")).expect("the disk has room");
        world.store.check_invariants();
        self.beside(world);
    }

    fn clean(&mut self, _: &World) {
        self.object = None;
    }
}

/// Reads an object that is on disk; survivors read it meanwhile.
#[derive(Default)]
struct Restore {
    object: Option<ObjectRef>,
}

impl Operation for Restore {
    fn prepare(&mut self, world: &World) {
        let object = put(&world.store, id_of(MOVED), 100).expect("there is room");
        assert!(world.store.spill_now(&object).expect("the disk has room"), "nobody views it");
        self.object = Some(object);
    }

    fn run(&mut self, world: &World) {
        let view = world.store.view(self.object.as_ref().expect("prepared")).expect("it is on disk");
        check_content(&id_of(MOVED), &view);
    }

    fn beside(&mut self, world: &World) {
        let object = self.object.as_ref().expect("prepared");
        check_content(&id_of(MOVED), &world.store.view(object).expect("a reference keeps the value"));
        assert!(look(&world.store, &id_of(MOVED)), "an object that is held is not found");
    }

    fn after(&mut self, world: &World) {
        self.beside(world);
    }

    fn clean(&mut self, _: &World) {
        self.object = None;
    }
}

/// Frees an object that is on disk.
#[derive(Default)]
struct FreeOnDisk {
    object: Option<ObjectRef>,
}

impl Operation for FreeOnDisk {
    fn prepare(&mut self, world: &World) {
        let object = put(&world.store, id_of(MOVED), 100).expect("there is room");
        assert!(world.store.spill_now(&object).expect("the disk has room"), "nobody views it");
        self.object = Some(object);
    }

    fn hand_over(&mut self, _: &World) {
        self.object = None;
    }

    fn run(&mut self, _: &World) {
        self.object = None;
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MOVED));
    }

    fn after(&mut self, world: &World) {
        assert!(!look(&world.store, &id_of(MOVED)), "an object that nobody holds is still there");
    }
}

/// Frees and removes files in libraries and kernel; what is stepped there touches no shared word.
const FILES: Plan = Plan { visits: 4, library_visits: 1 };

alone!(spill {
    drive("spill", World::with_disk(4 * MIB), Spill::default(), FILES);
});

alone!(restore {
    drive("restore", World::with_disk(4 * MIB), Restore::default(), FILES);
});

alone!(free_on_disk {
    drive("free on disk", World::with_disk(4 * MIB), FreeOnDisk::default(), FILES);
});
