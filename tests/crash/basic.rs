//! Put, get, release, free.

use store::{CreateError, CreateOptions, ObjectRef};
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, at_once, check_content, content, id_of, look, put, try_put};

/// The object that victims make.
const MADE: u64 = 1;
const MIB: u64 = 1 << 20;

/// Makes an object; survivors make the same id.
struct Put {
    bytes: u64,
    by_handle_only: bool,
    made: Option<Result<ObjectRef, CreateError>>,
}

impl Operation for Put {
    fn run(&mut self, world: &World) {
        let id = id_of(MADE);
        let options = CreateOptions { by_handle_only: self.by_handle_only, ..at_once(id) };
        self.made = Some(world.store.create(self.bytes, &options).map(|mut writer| {
            let len = writer.len().min(16);
            writer[..len].copy_from_slice(&id.as_bytes()[..len]);
            writer.seal()
        }));
    }

    fn verify(&mut self, world: &World) {
        match self.made.take().expect("it ran") {
            Ok(object) => {
                let view = world.store.view(&object).expect("it is sealed");
                assert_eq!(view[..16], id_of(MADE).as_bytes()[..16]);
            }
            Err(CreateError::DuplicateObject { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn beside(&mut self, world: &World) {
        let id = id_of(MADE);
        if let Ok(view) = world.store.view_by_id(&id) {
            assert_eq!(view[..16], id.as_bytes()[..16]);
        }
    }
}

alone!(put_small {
    drive("put 100 B", World::new(4 * MIB), Put { bytes: 100, by_handle_only: false, made: None }, Plan::EVERY);
});
