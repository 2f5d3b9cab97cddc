//! Promises: an entry without a value, and whoever gives it one.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use store::{CreateError, CreateOptions, ObjectRef};
use tests::Unboxed;
use tests::alone;
use tests::process::Child;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, check_content, content, id_of, look, put, try_put};

const PROMISED: u64 = 1;
const MIB: u64 = 1 << 20;

/// Names an object before there is one, then makes it.
#[derive(Default)]
struct PromiseAndPut {
    made: Option<ObjectRef>,
}

impl Operation for PromiseAndPut {
    fn run(&mut self, world: &World) {
        let promise = world.store.promise(&id_of(PROMISED)).expect("there is room");
        match put(&world.store, id_of(PROMISED), 100) {
            Ok(object) => self.made = Some(object),
            Err(CreateError::DuplicateObject { .. }) => self.made = Some(promise),
            Err(error) => panic!("{error}"),
        }
    }

    fn verify(&mut self, world: &World) {
        let made = self.made.take().expect("it ran");
        check_content(&id_of(PROMISED), &world.store.view(&made).expect("it is sealed"));
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(PROMISED));
        drop(world.store.promise(&id_of(PROMISED)).expect("there is room"));
    }

    fn after(&mut self, world: &World) {
        assert!(world.store.lookup(&id_of(PROMISED)).is_none(), "a promise that nobody holds is still there");
        assert!(try_put(&world.store, id_of(PROMISED), 100), "its id cannot be given again");
    }
}

/// Makes what the test has promised; survivors do the same.
#[derive(Default)]
struct Adopt {
    promise: Option<ObjectRef>,
}

impl Operation for Adopt {
    fn prepare(&mut self, world: &World) {
        self.promise = Some(world.store.promise(&id_of(PROMISED)).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        try_put(&world.store, id_of(PROMISED), 100);
    }

    fn beside(&mut self, world: &World) {
        look(&world.store, &id_of(PROMISED));
        let promise = self.promise.as_ref().expect("prepared");
        assert_eq!(promise.is_ready(), world.store.view(promise).is_ok(), "a value that stands cannot be viewed");
        try_put(&world.store, id_of(PROMISED), 100);
    }

    fn after(&mut self, world: &World) {
        let promise = self.promise.as_ref().expect("prepared");
        if !promise.is_ready() {
            assert!(try_put(&world.store, id_of(PROMISED), 100), "a promise whose writer died cannot be kept");
        }
        check_content(&id_of(PROMISED), &world.store.view(promise).expect("the value stands"));
    }

    fn clean(&mut self, _: &World) {
        self.promise = None;
    }
}

/// Lets go of a promise that nobody else holds.
#[derive(Default)]
struct Forsake {
    promise: Option<ObjectRef>,
}

impl Operation for Forsake {
    fn prepare(&mut self, world: &World) {
        self.promise = Some(world.store.promise(&id_of(PROMISED)).expect("there is room"));
    }

    fn hand_over(&mut self, _: &World) {
        self.promise = None;
    }

    fn run(&mut self, _: &World) {
        self.promise = None;
    }

    fn beside(&mut self, world: &World) {
        try_put(&world.store, id_of(PROMISED), 100);
        look(&world.store, &id_of(PROMISED));
    }

    fn after(&mut self, world: &World) {
        assert!(world.store.lookup(&id_of(PROMISED)).is_none(), "a promise that nobody holds is still there");
        assert!(try_put(&world.store, id_of(PROMISED), 100), "its id cannot be given again");
    }
}

alone!(promise_and_put {
    drive("promise, put", World::new(4 * MIB), PromiseAndPut::default(), Plan::EVERY);
});

alone!(adopt_a_promise {
    drive("put what was promised", World::new(4 * MIB), Adopt::default(), Plan::EVERY);
});

alone!(forsake_a_promise {
    drive("last release of a promise", World::new(4 * MIB), Forsake::default(), Plan::EVERY);
});

/// Makes what the test has promised by handle; survivors do the same. First seal wins.
#[derive(Default)]
struct Fulfil {
    promise: Option<ObjectRef>,
}

/// One attempt; whether its value stands now.
fn fulfil(world: &World, promise: &ObjectRef) -> bool {
    let bytes = content(&promise.id(), 100);
    match world.store.put_for(promise.handle(), &bytes, &CreateOptions::default()).unboxed() {
        Ok(made) => made.is_some(),
        Err(CreateError::DuplicateObject { .. } | CreateError::OutOfMemory { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

impl Operation for Fulfil {
    fn prepare(&mut self, world: &World) {
        self.promise = Some(world.store.promise_by_handle(None).expect("there is room"));
    }

    fn run(&mut self, world: &World) {
        fulfil(world, self.promise.as_ref().expect("prepared"));
    }

    fn beside(&mut self, world: &World) {
        let promise = self.promise.as_ref().expect("prepared");
        assert_eq!(promise.is_ready(), world.store.view(promise).is_ok(), "a value that stands cannot be viewed");
        fulfil(world, promise);
    }

    fn after(&mut self, world: &World) {
        let promise = self.promise.as_ref().expect("prepared");
        if !promise.is_ready() {
            assert!(fulfil(world, promise), "a promise whose writer died cannot be kept");
        }
        check_content(&promise.id(), &world.store.view(promise).expect("the value stands"));
        assert!(world.store.lookup(&promise.id()).is_none(), "only handles name it");
    }

    fn clean(&mut self, _: &World) {
        self.promise = None;
    }
}

alone!(fulfil_a_promise_by_handle {
    drive("put for a promise by handle", World::new(4 * MIB), Fulfil::default(), Plan::EVERY);
});

/// As [`Fulfil`], where a client that nobody has swept yet died while it was writing.
#[derive(Default)]
struct FulfilAfterADeath {
    of_anybody: Fulfil,
}

impl Operation for FulfilAfterADeath {
    fn prepare(&mut self, world: &World) {
        self.of_anybody.prepare(world);
        let promise = self.of_anybody.promise.as_ref().expect("prepared");
        let writer = Child::fork(|| {
            let references = [world.neighbours[0].object.clone()];
            let options = CreateOptions { references: &references, ..CreateOptions::default() };
            std::mem::forget(world.store.create_for(promise.handle(), 300, &options).expect("there is room"));
            nix::sys::signal::raise(Signal::SIGKILL).expect("one may kill oneself");
            0
        });
        let ended = writer.wait();
        assert!(
            matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            "the writer did not come so far: {ended:?}"
        );
    }

    fn run(&mut self, world: &World) {
        self.of_anybody.run(world);
    }

    fn beside(&mut self, world: &World) {
        self.of_anybody.beside(world);
    }

    fn after(&mut self, world: &World) {
        self.of_anybody.after(world);
    }

    fn clean(&mut self, world: &World) {
        self.of_anybody.clean(world);
    }
}

alone!(fulfil_what_the_dead_were_writing {
    let plan = Plan { visits: 2, library_visits: 0 };
    drive("put for a promise of a dead writer", World::new(4 * MIB), FulfilAfterADeath::default(), plan);
});
