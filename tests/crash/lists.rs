//! Containers: references inside objects.

use store::{CreateOptions, ObjectRef};
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, at_once, check_content, id_of, look, put, try_put};

const CONTAINER: u64 = 1;
const CHILDREN: std::ops::Range<u64> = 10..13;
const MIB: u64 = 1 << 20;

fn list(world: &World, id: u64, children: &[ObjectRef]) -> Option<ObjectRef> {
    let options = CreateOptions { references: children, ..at_once(id_of(id)) };
    world.store.put_with(id_of(id).as_bytes(), &options).ok()
}

fn children(world: &World) -> Vec<ObjectRef> {
    CHILDREN.map(|index| put(&world.store, id_of(index), 50).expect("there is room")).collect()
}

fn look_at_children(world: &World) {
    for index in CHILDREN {
        look(&world.store, &id_of(index));
        if let Some(child) = world.store.lookup(&id_of(index)) {
            check_content(&id_of(index), &world.store.view(&child).expect("a reference keeps the value"));
        }
    }
}

/// Makes a container of three neighbours, which survivors list too.
struct Make;

impl Operation for Make {
    fn run(&mut self, world: &World) {
        let references = [0, 2, 4].map(|at: usize| world.neighbours[at].object.clone());
        list(world, CONTAINER, &references);
    }

    fn beside(&mut self, world: &World) {
        let references = [2, 3, 4].map(|at: usize| world.neighbours[at].object.clone());
        list(world, CONTAINER + 1, &references).expect("nobody else makes this id");
        list(world, CONTAINER, &references);
    }

    fn after(&mut self, world: &World) {
        let references = [0, 3].map(|at: usize| world.neighbours[at].object.clone());
        assert!(list(world, CONTAINER, &references).is_some(), "its id cannot be given again");
        check_nobody_lists_the_neighbours(world);
    }
}

fn check_nobody_lists_the_neighbours(world: &World) {
    let listed: u64 = world.store.list().iter().map(|object| object.listed).sum();
    assert_eq!(listed, 0, "L3: an object counts containers that are gone: {:#?}", world.store.list());
}

/// Reads a container and what it lists.
#[derive(Default)]
struct Read {
    container: Option<ObjectRef>,
}

impl Operation for Read {
    fn prepare(&mut self, world: &World) {
        self.container = list(world, CONTAINER, &children(world));
    }

    fn run(&mut self, world: &World) {
        let object = world.store.get(self.container.as_ref().expect("prepared")).expect("it is kept");
        assert_eq!(object.references().len(), 3);
    }

    fn beside(&mut self, world: &World) {
        look_at_children(world);
    }

    fn after(&mut self, world: &World) {
        assert!(CHILDREN.into_iter().all(|index| look(&world.store, &id_of(index))), "a listed object ended");
    }

    fn clean(&mut self, world: &World) {
        self.container = None;
        check_nobody_lists_the_neighbours(world);
    }
}

/// Lets go of a container that alone keeps what it lists.
#[derive(Default)]
struct Free {
    container: Option<ObjectRef>,
}

impl Operation for Free {
    fn prepare(&mut self, world: &World) {
        self.container = list(world, CONTAINER, &children(world));
    }

    fn hand_over(&mut self, _: &World) {
        self.container = None;
    }

    fn run(&mut self, _: &World) {
        self.container = None;
    }

    fn beside(&mut self, world: &World) {
        look_at_children(world);
        if let Some(container) = world.store.lookup(&id_of(CONTAINER)) {
            let found = world.store.get(&container).expect("a reference keeps the value").references();
            assert_eq!(found.len(), 3, "a container that lives lost a child");
        }
    }

    fn after(&mut self, world: &World) {
        assert!(!look(&world.store, &id_of(CONTAINER)), "an object that nobody holds is still there");
        for index in CHILDREN {
            assert!(!look(&world.store, &id_of(index)), "what only a freed container listed is still there");
            assert!(try_put(&world.store, id_of(index), 20), "its id cannot be given again");
        }
    }
}

/// Frees a container in which another container is listed, and that one lists an object.
#[derive(Default)]
struct FreeNested {
    outer: Option<ObjectRef>,
}

impl Operation for FreeNested {
    fn prepare(&mut self, world: &World) {
        let inner = list(world, CONTAINER, &children(world)[..1]).expect("there is room");
        let both = [inner, world.neighbours[1].object.clone()];
        self.outer = list(world, CONTAINER + 1, &both);
    }

    fn hand_over(&mut self, _: &World) {
        self.outer = None;
    }

    fn run(&mut self, _: &World) {
        self.outer = None;
    }

    fn beside(&mut self, world: &World) {
        look_at_children(world);
    }

    fn after(&mut self, world: &World) {
        for index in [CONTAINER, CONTAINER + 1, CHILDREN.start] {
            assert!(!look(&world.store, &id_of(index)), "an object that nobody holds is still there");
        }
        check_nobody_lists_the_neighbours(world);
    }
}

alone!(make_a_container {
    drive("put a container of three", World::new(4 * MIB), Make, Plan::EVERY);
});

alone!(read_a_container {
    drive("get a container of three", World::new(4 * MIB), Read::default(), Plan::EVERY);
});

alone!(free_a_container {
    drive("free a container of three", World::new(4 * MIB), Free::default(), Plan::EVERY);
});

alone!(free_nested_containers {
    drive("free nested containers", World::new(4 * MIB), FreeNested::default(), Plan::EVERY);
});
