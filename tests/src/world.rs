//! A store with objects in it that nothing may harm, and the work that survivors go on doing.
//!
//! The one thing to know: the content of an object follows from its id and length, so whoever finds
//! one can tell whether it is right. It must not know what a victim does.

use crate::Unboxed;
use std::time::Duration;
use store::{Config, CreateError, CreateOptions, GetError, Keeping, ObjectId, ObjectRef, Store};
use tempfile::TempDir;

/// Bytes of the neighbours of each kind.
const NEIGHBOURS: [u64; 6] = [100, 0, 100, 64, 3000, 100];
/// The id of the object that survivors make and end all the time.
const OWN: u64 = 900_001;

/// The id of the number `index` among those that a test gives out.
pub fn id_of(index: u64) -> ObjectId {
    let mut task = [7; 24];
    task[..8].copy_from_slice(&index.to_le_bytes());
    ObjectId::of_task(task, index as u32)
}

/// What an object of this id and length says.
pub fn content(id: &ObjectId, bytes: u64) -> Vec<u8> {
    let seed = id.as_bytes().iter().fold(bytes, |mixed, &byte| mixed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut chance = crate::chance::Chance::new(seed);
    let mut content = vec![0; bytes as usize];
    for words in content.chunks_mut(8) {
        words.copy_from_slice(&chance.next_u64().to_le_bytes()[..words.len()]);
    }
    content
}

/// Whether these bytes are those of an object of that id.
///
/// # Panics
///
/// If they are not.
pub fn check_content(id: &ObjectId, found: &[u8]) {
    assert!(found == content(id, found.len() as u64), "{id} holds other bytes than were put ({} of them)", found.len());
}

/// Options that never wait.
pub fn at_once(id: ObjectId) -> CreateOptions<'static> {
    CreateOptions { id: Some(id), timeout: Some(Duration::ZERO), ..CreateOptions::default() }
}

/// Puts the object of that id.
pub fn put(store: &Store, id: ObjectId, bytes: u64) -> Result<ObjectRef, CreateError> {
    store.put_with(&content(&id, bytes), &at_once(id)).unboxed()
}

/// Looks at an object by id as a survivor may at any instant: what it finds, if anything, is right.
///
/// # Panics
///
/// If it finds something wrong.
pub fn look(store: &Store, id: &ObjectId) -> bool {
    match store.view_by_id(id).unboxed() {
        Ok(view) => check_content(id, &view),
        Err(GetError::NotFound { .. } | GetError::NotSealed { .. }) => return false,
        Err(error) => panic!("a look at {id} failed: {error}"),
    }
    true
}

/// Puts as a survivor may at any instant: it succeeds, or somebody else has the id. The object is
/// let go again.
///
/// # Panics
///
/// If it fails otherwise.
pub fn try_put(store: &Store, id: ObjectId, bytes: u64) -> bool {
    match put(store, id, bytes) {
        Ok(object) => check_content(&id, &store.view(&object).expect("a sealed object can be viewed")),
        Err(CreateError::DuplicateObject { .. }) => return false,
        Err(error) => panic!("a put of {id} failed: {error}"),
    }
    true
}

/// An object that the test keeps all the time.
#[derive(Debug)]
pub struct Neighbour {
    /// Its id.
    pub id: ObjectId,
    /// The reference that keeps it.
    pub object: ObjectRef,
}

/// What a store looks like while nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calm {
    used_bytes: u64,
    objects: usize,
}

/// A store, its neighbours, and its spill directory.
pub struct World {
    /// The store.
    pub store: Store,
    /// Objects that nothing may harm.
    pub neighbours: Vec<Neighbour>,
    calm: Calm,
    files: Option<TempDir>,
}

impl World {
    /// A world in a store of that capacity, without threads and without a disk.
    pub fn new(capacity_bytes: u64) -> World {
        World::over(capacity_bytes, None)
    }

    /// A world that spills into a directory of its own.
    pub fn with_disk(capacity_bytes: u64) -> World {
        let files = tempfile::tempdir().expect("a test has a directory for temporary files");
        World::over(capacity_bytes, Some(files))
    }

    /// Removes all that was moved to disk, as a failing disk would.
    pub fn lose_files(&self) {
        let lost = self.files.iter().flat_map(|files| std::fs::read_dir(files.path()).expect("it is there"));
        for directory in lost.map(|entry| entry.expect("it is readable").path()) {
            for file in std::fs::read_dir(directory).expect("it is there") {
                std::fs::remove_file(file.expect("it is readable").path()).expect("the file is ours");
            }
        }
    }

    fn over(capacity_bytes: u64, files: Option<TempDir>) -> World {
        let config = Config {
            capacity_bytes,
            max_clients: 16,
            label: "crash test".to_owned(),
            spill_directory: files.as_ref().map(|files| files.path().to_path_buf()),
            create_timeout: Duration::ZERO,
            keeping: Keeping::Inline,
            ..Config::default()
        };
        let store = Store::in_process(config).expect("a small store can be made");
        let neighbour = |(index, bytes): (usize, u64)| {
            let id = id_of(800_000 + index as u64);
            Neighbour { id, object: put(&store, id, bytes).expect("an empty store has room") }
        };
        let neighbours: Vec<Neighbour> = NEIGHBOURS.into_iter().enumerate().map(neighbour).collect();
        let mut world = World { store, neighbours, calm: Calm { used_bytes: 0, objects: 0 }, files };
        world.work();
        world.calm = world.now();
        world
    }

    fn now(&self) -> Calm {
        Calm { used_bytes: self.store.usage().used_bytes, objects: self.store.list().len() }
    }

    /// What survivors do at any instant: find what there is, make and end what is theirs.
    pub fn work(&self) {
        for neighbour in &self.neighbours {
            check_content(&neighbour.id, &self.store.view(&neighbour.object).expect("a neighbour can be viewed"));
            check_content(
                &neighbour.id,
                &self.store.view_by_id(&neighbour.id).expect("a neighbour is found by its id"),
            );
            let again = self.store.refer(neighbour.object.handle()).expect("a neighbour is found by its handle");
            assert_eq!(again.id(), neighbour.id, "a handle names another object");
        }
        assert!(try_put(&self.store, id_of(OWN), 100), "the survivors' own id is taken");
        assert!(!self.store.contains(&id_of(OWN)), "a freed object is found");
        let by_handle = CreateOptions { by_handle_only: true, ..at_once(id_of(OWN)) };
        let object = self.store.put_with(&content(&id_of(OWN), 40), &by_handle).expect("there is room");
        check_content(&id_of(OWN), &self.store.view(&object).expect("a sealed object can be viewed"));
        self.work_with_containers(object);
    }

    /// Lists the neighbours that victims list too.
    fn work_with_containers(&self, own: ObjectRef) {
        let references = [self.neighbours[0].object.clone(), self.neighbours[2].object.clone(), own];
        let options = CreateOptions { references: &references, ..at_once(id_of(OWN + 1)) };
        let container = self.store.put_with(b"", &options).expect("there is room");
        let found = self.store.get(&container).expect("a sealed object can be got").references();
        assert_eq!(found.len(), references.len(), "a container lists other objects than were given");
        assert!(found.iter().all(|child| references.iter().any(|given| given.handle() == child.handle())), "{found:?}");
    }

    /// Sweeps everybody but the test itself, once they have ended.
    pub fn bury(&self) {
        self.store.reclaim();
        // A victim's own children end by themselves, a little later.
        while self.store.clients().len() > 1 || self.store.unswept_clients() > 0 {
            std::thread::yield_now();
            self.store.reclaim();
        }
    }

    /// What must hold while nothing is under way.
    pub fn check_calm(&self) {
        self.store.check_invariants();
        assert_eq!(self.now(), self.calm, "used bytes and objects are not what they were: {:#?}", self.store.list());
    }

    /// Ends every object and checks that nothing is left of anything.
    pub fn finish(self) {
        let World { store, neighbours, files, .. } = self;
        drop(neighbours);
        check_empty(&store);
        drop(store);
        if let Some(files) = files {
            let left = std::fs::read_dir(files.path()).expect("the spill directory is still there").count();
            assert_eq!(left, 0, "spill files are left");
        }
    }
}

/// Checks that a store nobody has objects in has given back every byte and every slot.
pub fn check_empty(store: &Store) {
    store.reclaim();
    store.rest();
    store.check_invariants();
    let usage = store.usage();
    assert_eq!(usage.used_bytes, 0, "bytes are left: {:#?}", store.list());
    assert_eq!(usage.free_bytes, usage.capacity_bytes, "memory is left with nobody: {usage:?}");
    assert!(store.list().is_empty(), "objects are left: {:#?}", store.list());
    check_every_slot_is_free(store);
}

fn check_every_slot_is_free(store: &Store) {
    let options = CreateOptions { by_handle_only: true, timeout: Some(Duration::ZERO), ..CreateOptions::default() };
    let mut all = Vec::new();
    let full = loop {
        match store.put_with(b"", &options) {
            Ok(object) => all.push(object),
            Err(error) => break error,
        }
    };
    assert!(matches!(*full, CreateError::TooManyObjects { .. }), "{full}");
    // Slot 0 names nothing.
    assert_eq!(all.len() as u64, store.geometry().slots - 1, "slots are left with nobody");
    drop(all);
    store.rest();
}
