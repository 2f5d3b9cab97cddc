//! To disk and back.

use store::{GetError, Object, ObjectRef};
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, check_content, content, id_of, look, put};

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

/// Gives an object whose file is lost its value again, from a twin; survivors look, and do the same.
#[derive(Default)]
struct Remake {
    object: Option<ObjectRef>,
    twin: Option<Object>,
}

impl Remake {
    /// Whoever is killed in the middle leaves it lost, and others can do the same.
    fn remake(&self, world: &World) {
        let (object, twin) = (self.object.as_ref().expect("prepared"), self.twin.as_ref().expect("prepared"));
        world.store.restore_from(object, twin).expect("the twin is right");
        check_content(&id_of(MOVED), &world.store.view(object).expect("it is there again"));
    }
}

impl Operation for Remake {
    fn prepare(&mut self, world: &World) {
        let object = put(&world.store, id_of(MOVED), 100).expect("there is room");
        let twin = world.store.put(&content(&id_of(MOVED), 100)).expect("there is room");
        assert!(world.store.spill_now(&object).expect("the disk has room"), "nobody views it");
        world.lose_files();
        (self.twin, self.object) = (Some(world.store.get(&twin).expect("it is sealed")), Some(object));
    }

    fn run(&mut self, world: &World) {
        self.remake(world);
    }

    fn beside(&mut self, world: &World) {
        let object = self.object.as_ref().expect("prepared");
        match world.store.view(object) {
            Ok(view) => check_content(&id_of(MOVED), &view),
            Err(error) => assert!(matches!(*error, GetError::Restore { .. }), "{error}"),
        }
    }

    fn after(&mut self, world: &World) {
        self.remake(world);
        let object = self.object.as_ref().expect("prepared");
        assert!(world.store.spill_now(object).expect("the disk has room"), "nobody views it");
        check_content(&id_of(MOVED), &world.store.view(object).expect("its file is a new one"));
    }

    fn clean(&mut self, _: &World) {
        (self.object, self.twin) = (None, None);
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

alone!(remake {
    drive("remake", World::with_disk(4 * MIB), Remake::default(), FILES);
});

alone!(free_on_disk {
    drive("free on disk", World::with_disk(4 * MIB), FreeOnDisk::default(), FILES);
});
