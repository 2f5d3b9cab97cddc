//! Put, get, release, free.

use store::{CreateError, CreateOptions, Lifetime, ObjectRef};
use tests::Unboxed;
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, at_once, check_content, content, id_of, look, put, try_put};

/// The object that victims make.
const MADE: u64 = 1;
const MIB: u64 = 1 << 20;

/// Copies an object of 100 bytes in; survivors put the same id.
#[derive(Default)]
struct Put {
    options: CreateOptions<'static>,
    is_warm: bool,
    made: Option<Result<ObjectRef, CreateError>>,
}

impl Operation for Put {
    fn prepare(&mut self, _: &World) {
        self.options = CreateOptions { by_handle_only: self.options.by_handle_only, ..at_once(id_of(MADE)) };
    }

    fn warm(&mut self, world: &World) {
        if self.is_warm {
            world.work();
        }
    }

    fn run(&mut self, world: &World) {
        self.made = Some(world.store.put_with(&content(&id_of(MADE), 100), &self.options).unboxed());
    }

    fn verify(&mut self, world: &World) {
        match self.made.take().expect("it ran") {
            Ok(object) => check_content(&id_of(MADE), &world.store.view(&object).expect("it is sealed")),
            Err(CreateError::DuplicateObject { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MADE));
        try_put(&world.store, id_of(MADE), 100);
        look(&world.store, &id_of(MADE));
    }

    fn after(&mut self, world: &World) {
        assert!(!look(&world.store, &id_of(MADE)), "what a dead client alone had is still there");
        assert!(try_put(&world.store, id_of(MADE), 100), "its id cannot be given again");
    }
}

/// Makes an object in place, with little in it, and seals or aborts it.
struct Create {
    bytes: u64,
    seals: bool,
}

impl Operation for Create {
    fn run(&mut self, world: &World) {
        match world.store.create(self.bytes, &at_once(id_of(MADE))).unboxed() {
            Ok(mut writer) => {
                writer[..16].copy_from_slice(&id_of(MADE).as_bytes()[..16]);
                if self.seals {
                    drop(writer.seal());
                }
            }
            Err(CreateError::DuplicateObject { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn beside(&mut self, world: &World) {
        if let Ok(view) = world.store.view_by_id(&id_of(MADE)) {
            assert_eq!(view[..16], id_of(MADE).as_bytes()[..16]);
        }
        match world.store.create(self.bytes, &at_once(id_of(MADE))).unboxed() {
            Ok(writer) => writer.abort(),
            Err(CreateError::DuplicateObject { .. } | CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn after(&mut self, world: &World) {
        assert!(!world.store.contains(&id_of(MADE)), "what a dead client alone had is still there");
        world.store.create(self.bytes, &at_once(id_of(MADE))).expect("memory came back").abort();
    }
}

/// How a reader gets at an object.
enum Read {
    Handle,
    Id,
    Reference,
    Owned,
}

/// Reads an object that the test keeps.
struct Get {
    how: Read,
    object: Option<ObjectRef>,
}

impl Get {
    fn new(how: Read) -> Get {
        Get { how, object: None }
    }
}

impl Operation for Get {
    fn prepare(&mut self, world: &World) {
        self.object = Some(put(&world.store, id_of(MADE), 100).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        let (store, object, id) = (&world.store, self.object.as_ref().expect("prepared"), id_of(MADE));
        match self.how {
            Read::Handle => check_content(&id, &store.view(object).expect("it is kept")),
            Read::Id => check_content(&id, &store.view_by_id(&id).expect("it is kept")),
            Read::Reference => drop(store.lookup(&id).expect("it is kept").clone()),
            Read::Owned => check_content(&id, &store.get(object).expect("it is kept").into_bytes()),
        }
    }

    fn beside(&mut self, world: &World) {
        assert!(look(&world.store, &id_of(MADE)), "an object that is held is not found");
    }

    fn after(&mut self, world: &World) {
        self.beside(world);
    }

    fn clean(&mut self, _: &World) {
        self.object = None;
    }
}

/// Lets go of an object that nobody else holds.
#[derive(Default)]
struct LastRelease {
    object: Option<ObjectRef>,
    bytes: u64,
}

impl Operation for LastRelease {
    fn prepare(&mut self, world: &World) {
        self.object = Some(put(&world.store, id_of(MADE), self.bytes).expect("there is room"));
    }

    fn hand_over(&mut self, _: &World) {
        self.object = None;
    }

    fn run(&mut self, _: &World) {
        self.object = None;
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MADE));
        // A second holder that comes at this instant either is too late or keeps it.
        if let Some(object) = world.store.lookup(&id_of(MADE)) {
            check_content(&id_of(MADE), &world.store.view(&object).expect("a reference keeps the value"));
        }
        try_put(&world.store, id_of(MADE), 64);
    }

    fn after(&mut self, world: &World) {
        assert!(!look(&world.store, &id_of(MADE)), "an object that nobody holds is still there");
        assert!(try_put(&world.store, id_of(MADE), 64), "its id cannot be given again");
    }
}

/// Puts and frees, several times, so that slots and blocks are used again.
struct PutAndFree;

impl Operation for PutAndFree {
    fn run(&mut self, world: &World) {
        (0..3).for_each(|_| {
            let _ = try_put(&world.store, id_of(MADE), 100);
        });
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MADE));
        try_put(&world.store, id_of(MADE), 30);
    }

    fn after(&mut self, world: &World) {
        assert!(try_put(&world.store, id_of(MADE), 100), "its id cannot be given again");
    }
}

/// A create that has to fail: no room, and no time to wait for it.
struct TooLarge;

impl Operation for TooLarge {
    fn run(&mut self, world: &World) {
        let full = world.store.create(world.store.geometry().capacity_bytes, &at_once(id_of(MADE))).unboxed().err();
        assert!(
            matches!(full, Some(CreateError::OutOfMemory { .. } | CreateError::DuplicateObject { .. })),
            "{full:?}"
        );
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MADE));
        try_put(&world.store, id_of(MADE), 30);
    }

    fn after(&mut self, world: &World) {
        assert!(try_put(&world.store, id_of(MADE), 100), "its id cannot be given again");
    }
}

/// A create of an id that is taken.
struct Duplicate;

impl Operation for Duplicate {
    fn run(&mut self, world: &World) {
        let id = world.neighbours[0].id;
        let taken = put(&world.store, id, 100).err();
        assert!(matches!(taken, Some(CreateError::DuplicateObject { id: which }) if which == id), "{taken:?}");
    }
}

/// Deletes an object that others hold; it goes on living under no id.
#[derive(Default)]
struct Delete {
    object: Option<ObjectRef>,
}

impl Operation for Delete {
    fn prepare(&mut self, world: &World) {
        let options = CreateOptions { lifetime: Lifetime::Named, ..at_once(id_of(MADE)) };
        self.object = Some(world.store.put_with(&content(&id_of(MADE), 100), &options).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        world.store.delete(&id_of(MADE));
    }

    fn beside(&mut self, world: &World) {
        let object = self.object.as_ref().expect("prepared");
        check_content(&id_of(MADE), &world.store.view(object).expect("a reference keeps the value"));
        look(&world.store, &id_of(MADE));
        try_put(&world.store, id_of(MADE), 64);
    }

    fn after(&mut self, world: &World) {
        self.beside(world);
        world.store.delete_object(self.object.as_ref().expect("prepared"));
        assert!(!world.store.contains(&id_of(MADE)), "a deleted id is found");
        assert!(try_put(&world.store, id_of(MADE), 100), "a deleted id cannot be given again");
    }

    fn clean(&mut self, _: &World) {
        self.object = None;
    }
}

/// Enters into the index what only a handle named.
#[derive(Default)]
struct Publish {
    object: Option<ObjectRef>,
}

impl Operation for Publish {
    fn prepare(&mut self, world: &World) {
        let options = CreateOptions { by_handle_only: true, ..at_once(id_of(MADE)) };
        self.object = Some(world.store.put_with(&content(&id_of(MADE), 100), &options).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        let published = world.store.publish(self.object.as_ref().expect("prepared")).unboxed();
        assert!(matches!(published, Ok(()) | Err(CreateError::DuplicateObject { .. })), "{published:?}");
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(MADE));
        let published = world.store.publish(self.object.as_ref().expect("prepared")).unboxed();
        assert!(matches!(published, Ok(()) | Err(CreateError::DuplicateObject { .. })), "{published:?}");
    }

    fn after(&mut self, world: &World) {
        let published = world.store.publish(self.object.as_ref().expect("prepared"));
        assert!(published.is_ok(), "{published:?}");
        assert!(look(&world.store, &id_of(MADE)), "a published object is not found");
    }

    fn clean(&mut self, _: &World) {
        self.object = None;
    }
}

/// Ends cached objects because it needs their room. They say little: their bytes are not the point.
struct Evict;

impl Evict {
    const CACHED: std::ops::Range<u64> = 10..13;

    fn cache(world: &World, index: u64) {
        let options = CreateOptions { lifetime: Lifetime::Cached, ..at_once(id_of(index)) };
        let mut writer = match world.store.create(300_000, &options).unboxed() {
            Ok(writer) => writer,
            Err(CreateError::DuplicateObject { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        writer[..16].copy_from_slice(&id_of(index).as_bytes()[..16]);
        drop(writer.seal());
    }
}

impl Operation for Evict {
    fn prepare(&mut self, world: &World) {
        Evict::CACHED.for_each(|index| Evict::cache(world, index));
    }

    fn run(&mut self, world: &World) {
        match world.store.create(MIB / 2, &at_once(id_of(MADE))).unboxed() {
            Ok(writer) => drop(writer.seal()),
            Err(CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn beside(&mut self, world: &World) {
        for index in Evict::CACHED {
            if let Ok(view) = world.store.view_by_id(&id_of(index)) {
                assert_eq!(view[..16], id_of(index).as_bytes()[..16]);
            }
        }
    }

    fn clean(&mut self, world: &World) {
        Evict::CACHED.for_each(|index| {
            let _ = world.store.delete(&id_of(index));
        });
    }
}

alone!(put_by_id {
    drive("put 100 B", World::new(4 * MIB), Put { is_warm: true, ..Put::default() }, Plan::EVERY);
});

alone!(put_by_handle {
    let options = CreateOptions { by_handle_only: true, ..CreateOptions::default() };
    drive("put 100 B by handle", World::new(4 * MIB), Put { is_warm: true, options, made: None }, Plan::EVERY);
});

alone!(first_put_of_a_process {
    // What libraries do half of the time clears memory of the process' own.
    let plan = Plan { visits: 6, library_visits: 1 };
    drive("first put of a process", World::new(4 * MIB), Put::default(), plan);
});

alone!(create_medium {
    drive("create 64 KiB", World::new(4 * MIB), Create { bytes: 64 << 10, seals: true }, Plan::EVERY);
});

alone!(create_large {
    drive("create 2 MiB", World::new(8 * MIB), Create { bytes: 2 * MIB, seals: true }, Plan::ONCE);
});

alone!(create_and_abort {
    drive("create 1000 B, abort", World::new(4 * MIB), Create { bytes: 1000, seals: false }, Plan::EVERY);
});

alone!(get_by_handle {
    drive("view by handle, release", World::new(4 * MIB), Get::new(Read::Handle), Plan::EVERY);
});

alone!(get_by_id {
    drive("view by id, release", World::new(4 * MIB), Get::new(Read::Id), Plan::EVERY);
});

alone!(refer_and_release {
    drive("look up, clone, release", World::new(4 * MIB), Get::new(Read::Reference), Plan::EVERY);
});

alone!(get_owned {
    drive("get as bytes, release", World::new(4 * MIB), Get::new(Read::Owned), Plan::EVERY);
});

alone!(last_release {
    drive("last release: free", World::new(4 * MIB), LastRelease { bytes: 100, object: None }, Plan::EVERY);
});

alone!(last_release_of_a_large_object {
    drive("last release of 1 MiB", World::new(4 * MIB), LastRelease { bytes: MIB, object: None }, Plan::EVERY);
});

alone!(put_and_free {
    drive("put and free, three times", World::new(4 * MIB), PutAndFree, Plan::LOOPS);
});

alone!(create_without_room {
    drive("create without room", World::new(MIB), TooLarge, Plan::ONCE);
});

alone!(create_of_a_taken_id {
    drive("create of a taken id", World::new(4 * MIB), Duplicate, Plan::EVERY);
});

alone!(delete {
    drive("delete", World::new(4 * MIB), Delete::default(), Plan::EVERY);
});

alone!(publish {
    drive("publish", World::new(4 * MIB), Publish::default(), Plan::EVERY);
});

alone!(evict {
    drive("evict", World::new(MIB), Evict, Plan::ONCE);
});
