//! Processes that do everything a store offers, killed and stopped at random instants.
//!
//! The one thing to know: what an object says follows from its id and length, so whoever gets one
//! can tell whether it is right, whichever process made it and whatever became of that process. It
//! must not repeat the tests that kill at every instruction: here the instant is chance's.

use crate::Unboxed;
use crate::chance::Chance;
use crate::process::{Child, alarm};
use crate::shared::SharedWords;
use crate::world::{check_empty, id_of};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use store::{
    Config, CreateError, CreateOptions, GetError, Handle, Keeping, Lifetime, NameError, Object, ObjectId, ObjectRef,
    Store,
};
use tempfile::TempDir;

/// Ids that every process makes, gets and deletes.
const IDS: u64 = 96;
/// Ids of containers begin here.
const CONTAINERS: u64 = 1_000;
/// Ids that only handles name, until they are published.
const BY_HANDLE: u64 = 2_000;
/// Ids of large objects.
const LARGE: u64 = 3_000;
const LARGE_IDS: u64 = 24;
const LARGE_BYTES: u64 = 2 << 20;
const NAMES: u64 = 8;
/// Handles that processes leave for each other.
const MAILBOXES: u64 = 16;
/// Objects that a process keeps at once.
const KEPT: usize = 12;
/// Where survivors' own object is.
const OWN: u64 = 9_000;
/// Who takes that long hangs.
const PATIENCE_SECONDS: u32 = 90;

/// How much is done to whom.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where chance begins.
    pub seed: u64,
    /// Processes at work at a time.
    pub processes: usize,
    /// Kills to do.
    pub kills: u64,
    /// Stops to do.
    pub stops: u64,
    /// Size of the store; less than what the processes keep, so that it spills.
    pub capacity_bytes: u64,
}

/// What was done, and what was left when it was over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Processes killed, some of them while they were stopped.
    pub kills: u64,
    /// Processes stopped and continued or killed later.
    pub stops: u64,
    /// Operations that the processes finished.
    pub operations: u64,
    /// Objects that went to disk, and that came back.
    pub spilled: (u64, u64),
    /// Clients that were swept.
    pub swept: u64,
    /// How long it took.
    pub seconds: f64,
    /// Descriptors of this process that were not there before.
    pub descriptors_left: usize,
    /// Files in /dev/shm that were not there before.
    pub files_left: usize,
    /// Mappings of the store's segments in this process.
    pub mappings_left: usize,
    /// Entries of the spill directory.
    pub spill_files_left: usize,
}

/// Does what the plan says and checks that nothing is left but what the outcome counts.
///
/// # Panics
///
/// When a process finds something wrong, or survivors are held up, or the store is not empty.
pub fn run(plan: Plan, mut progress: impl FnMut(u64, u64)) -> Outcome {
    let before = Surroundings::now();
    let start = Instant::now();
    let files = tempfile::tempdir().expect("a test has a directory for temporary files");
    let mut herd = Herd::new(plan, &files);
    while herd.kills < plan.kills || herd.stops < plan.stops {
        alarm(PATIENCE_SECONDS, herd.kills);
        herd.act();
        if (herd.kills + herd.stops).is_multiple_of(1000) {
            progress(herd.kills, herd.stops);
        }
    }
    let mut outcome = herd.finish();
    outcome.seconds = start.elapsed().as_secs_f64();
    let after = Surroundings::after_the_keeper(&before);
    outcome.descriptors_left = after.descriptors.difference(&before.descriptors).count();
    outcome.files_left = after.shared_files.difference(&before.shared_files).count();
    outcome.mappings_left = segment_mappings();
    outcome.spill_files_left = std::fs::read_dir(files.path()).expect("the directory is the test's").count();
    alarm(0, 0);
    outcome
}

/// What a process has around it that a store could leave something in.
struct Surroundings {
    descriptors: BTreeSet<PathBuf>,
    shared_files: BTreeSet<PathBuf>,
}

impl Surroundings {
    fn now() -> Surroundings {
        Surroundings { descriptors: listed("/proc/self/fd"), shared_files: listed("/dev/shm") }
    }

    /// The store's last user may be one of its own threads, which ends it a moment later.
    fn after_the_keeper(before: &Surroundings) -> Surroundings {
        let start = Instant::now();
        loop {
            let now = Surroundings::now();
            let is_over = segment_mappings() == 0 && now.descriptors.is_subset(&before.descriptors);
            if is_over || start.elapsed() > Duration::from_secs(5) {
                return now;
            }
            thread::yield_now();
        }
    }
}

fn listed(directory: &str) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// How many mappings of a store's segments this process has.
pub fn segment_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process can read its own maps");
    maps.lines().filter(|line| line.contains("memfd:raylet-")).count()
}

/// Descriptors that this process has open.
pub fn open_descriptors() -> usize {
    listed("/proc/self/fd").len()
}

/// The processes and who drives them.
struct Herd {
    store: Store,
    chance: Chance,
    seed: u64,
    /// Operations of each place, then the mailboxes, then whether it is over.
    words: SharedWords,
    places: Vec<Place>,
    started: u64,
    kills: u64,
    stops: u64,
}

struct Place {
    child: Child,
    is_stopped: bool,
}

impl Herd {
    fn new(plan: Plan, files: &TempDir) -> Herd {
        let config = Config {
            capacity_bytes: plan.capacity_bytes,
            max_clients: 256,
            label: "soak".to_owned(),
            spill_directory: Some(files.path().to_path_buf()),
            create_timeout: Duration::from_millis(20),
            keeping: Keeping::Threads,
            ..Config::default()
        };
        let store = Store::in_process(config).expect("a store of that size can be made");
        let words = SharedWords::new(plan.processes + 2 * MAILBOXES as usize + 1);
        let chance = Chance::new(plan.seed);
        let mut herd =
            Herd { store, chance, seed: plan.seed, words, places: Vec::new(), started: 0, kills: 0, stops: 0 };
        for place in 0..plan.processes {
            let child = herd.start(place, plan.processes);
            herd.places.push(Place { child, is_stopped: false });
        }
        herd
    }

    fn start(&mut self, place: usize, processes: usize) -> Child {
        self.started += 1;
        let chance = Chance::new(self.seed ^ self.started << 32);
        Child::fork(|| {
            let mut worker = Worker {
                store: &self.store,
                chance,
                kept: Vec::new(),
                views: Vec::new(),
                words: &self.words,
                processes,
            };
            worker.work(place)
        })
    }

    /// One kill, stop or continuation, of one process, after a random while.
    fn act(&mut self) {
        // Not a wait for anything: where in its work a process is hit is to be chance.
        thread::park_timeout(Duration::from_micros(self.chance.below(3_000)));
        let at = self.chance.below(self.places.len() as u64) as usize;
        match (self.places[at].is_stopped, self.chance.below(2)) {
            (true, 0) => self.go_on(at),
            (true, _) => self.kill(at),
            (false, _) if self.stops <= self.kills && self.stopped() < self.places.len() / 2 => self.stop(at),
            (false, _) => self.kill(at),
        }
        self.live(at as u64);
    }

    fn stopped(&self) -> usize {
        self.places.iter().filter(|place| place.is_stopped).count()
    }

    fn stop(&mut self, at: usize) {
        self.places[at].child.signal(Signal::SIGSTOP);
        self.places[at].is_stopped = true;
        self.stops += 1;
    }

    fn go_on(&mut self, at: usize) {
        self.places[at].child.signal(Signal::SIGCONT);
        self.places[at].is_stopped = false;
    }

    fn kill(&mut self, at: usize) {
        let next = self.start(at, self.places.len());
        let place = std::mem::replace(&mut self.places[at], Place { child: next, is_stopped: false });
        place.child.signal(Signal::SIGKILL);
        let status = place.child.wait();
        let seed = self.seed;
        assert!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            "seed {seed}: a process ended by itself: {status:?}"
        );
        self.kills += 1;
    }

    /// The one that keeps the store works with it like everybody else, whoever is stopped.
    fn live(&self, at: u64) {
        let id = id_of(OWN + at);
        let bytes = said(&id, 200);
        let object = self.store.put_with(
            &bytes,
            &CreateOptions { id: Some(id), timeout: Some(Duration::ZERO), ..CreateOptions::default() },
        );
        match object.unboxed() {
            Ok(object) => check(&id, &self.store.view(&object).expect("what one has just sealed can be viewed")),
            Err(CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("seed {}: the survivor's put failed: {error}", self.seed),
        }
    }

    fn finish(self) -> Outcome {
        let Herd { store, words, places, kills, stops, seed, .. } = self;
        let count = places.len();
        words[words.len() - 1].store(1, Ordering::SeqCst);
        for place in places {
            alarm(PATIENCE_SECONDS, kills);
            place.child.signal(Signal::SIGCONT);
            let status = place.child.wait();
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "seed {seed}: a process ended with {status:?}");
        }
        delete_everything(&store);
        let usage = store.usage();
        assert_eq!(store.clients().len(), 1, "seed {seed}: clients are left: {:#?}", store.clients());
        check_empty(&store);
        let operations = words[..count].iter().map(|word| word.load(Ordering::SeqCst)).sum();
        let spilled = (usage.spilled_objects, usage.restored_objects);
        Outcome { kills, stops, operations, spilled, swept: usage.swept_clients, ..Outcome::default() }
    }
}

/// Forgets every id and name that processes gave, once the dead are swept.
fn delete_everything(store: &Store) {
    while store.unswept_clients() > 0 || store.clients().len() > 1 {
        store.reclaim();
    }
    for name in 0..NAMES {
        store.unbind("soak", &name.to_string());
    }
    for first in [0, CONTAINERS, BY_HANDLE, LARGE] {
        for index in first..first + IDS.max(LARGE_IDS) {
            store.delete(&id_of(index));
        }
    }
    // Cached ones that only handles name: they stay until memory is short.
    for object in store.list().iter().filter_map(|info| store.refer(info.handle)) {
        store.delete_object(&object);
    }
    while !store.settle(Duration::from_secs(1)) {}
}

/// Cheap enough for megabytes: a word for each eight bytes, from the id and where it stands.
fn word_of(seed: u64, at: u64) -> [u8; 8] {
    (seed ^ at).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn seed_of(id: &ObjectId, bytes: u64) -> u64 {
    id.as_bytes().iter().fold(bytes, |mixed, &byte| mixed.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn say(id: &ObjectId, bytes: &mut [u8]) {
    let seed = seed_of(id, bytes.len() as u64);
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&word_of(seed, at as u64)[..chunk.len()]);
    }
}

/// What an object of this id and length says.
pub fn said(id: &ObjectId, bytes: u64) -> Vec<u8> {
    let mut said = vec![0; bytes as usize];
    say(id, &mut said);
    said
}

/// Whether these bytes are those of an object of that id.
///
/// # Panics
///
/// If they are not.
pub fn check(id: &ObjectId, found: &[u8]) {
    let seed = seed_of(id, found.len() as u64);
    let is_right = found.chunks(8).enumerate().all(|(at, chunk)| *chunk == word_of(seed, at as u64)[..chunk.len()]);
    assert!(is_right, "{id} holds other bytes than were put ({} of them)", found.len());
}

/// One process and what it keeps.
struct Worker<'a> {
    store: &'a Store,
    chance: Chance,
    kept: Vec<ObjectRef>,
    views: Vec<Object>,
    words: &'a SharedWords,
    processes: usize,
}

impl Worker<'_> {
    fn work(&mut self, place: usize) -> i32 {
        while self.words[self.words.len() - 1].load(Ordering::Relaxed) == 0 {
            self.step();
            self.words[place].fetch_add(1, Ordering::Relaxed);
        }
        self.kept.clear();
        self.views.clear();
        0
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..16 => self.put(),
            16..24 => self.put_by_handle(),
            24..34 => self.create(),
            34..54 => self.get(),
            54..60 => self.clone_one(),
            60..72 => self.let_go(),
            72..78 => self.contain(),
            78..84 => self.open_container(),
            84..88 => self.promise(),
            88..92 => self.delete(),
            92..95 => self.name(),
            95..97 => self.large(),
            _ => self.take_from_a_mailbox(),
        }
    }

    fn any_id(&mut self) -> ObjectId {
        id_of(self.chance.below(IDS))
    }

    /// Mostly small, sometimes medium, sometimes nothing at all.
    fn any_size(&mut self) -> u64 {
        match self.chance.below(10) {
            0 => 0,
            1..8 => self.chance.below(400),
            8 => 2_000 + self.chance.below(6_000),
            _ => 60_000 + self.chance.below(140_000),
        }
    }

    fn any_lifetime(&mut self) -> Lifetime {
        if self.chance.below(6) == 0 { Lifetime::Cached } else { Lifetime::Counted }
    }

    fn options(&mut self, id: ObjectId) -> CreateOptions<'static> {
        let timeout = Duration::from_millis(self.chance.below(8));
        CreateOptions {
            id: Some(id),
            lifetime: self.any_lifetime(),
            timeout: Some(timeout),
            ..CreateOptions::default()
        }
    }

    fn keep(&mut self, object: ObjectRef) {
        if self.kept.len() < KEPT {
            self.kept.push(object);
        } else {
            let at = self.chance.below(KEPT as u64) as usize;
            self.kept[at] = object;
        }
    }

    fn made(&mut self, made: Result<ObjectRef, Box<CreateError>>) {
        match made.unboxed() {
            Ok(object) => self.keep(object),
            Err(CreateError::DuplicateObject { .. } | CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("an object could not be made: {error}"),
        }
    }

    fn put(&mut self) {
        let (id, size) = (self.any_id(), self.any_size());
        let options = self.options(id);
        let made = self.store.put_with(&said(&id, size), &options);
        self.made(made);
    }

    fn put_by_handle(&mut self) {
        let id = id_of(BY_HANDLE + self.chance.below(IDS));
        let size = self.any_size();
        let options = CreateOptions { by_handle_only: true, ..self.options(id) };
        let Ok(object) = self.store.put_with(&said(&id, size), &options) else { return };
        if self.chance.below(4) == 0 {
            let published = self.store.publish(&object).unboxed();
            assert!(matches!(published, Ok(()) | Err(CreateError::DuplicateObject { .. })), "{published:?}");
        }
        self.leave_in_a_mailbox(object.handle());
        self.keep(object);
    }

    fn mailbox(&mut self) -> usize {
        self.processes + 2 * self.chance.below(MAILBOXES) as usize
    }

    /// Two words that are not written at once: a torn handle is one more that may name nothing.
    fn leave_in_a_mailbox(&mut self, handle: Handle) {
        let at = self.mailbox();
        self.words[at].store(u64::from(handle.slot), Ordering::SeqCst);
        self.words[at + 1].store(handle.generation, Ordering::SeqCst);
    }

    fn take_from_a_mailbox(&mut self) {
        let at = self.mailbox();
        let slot = self.words[at].load(Ordering::SeqCst) as u32;
        let handle = Handle { slot, generation: self.words[at + 1].load(Ordering::SeqCst) };
        let Some(object) = self.store.refer(handle) else { return };
        assert_eq!(object.handle(), handle, "a handle names another object");
        self.look_at(&object);
        self.keep(object);
    }

    fn create(&mut self) {
        let (id, size) = (self.any_id(), self.any_size());
        let options = self.options(id);
        match self.store.create(size, &options).unboxed() {
            Ok(mut writer) => {
                say(&id, &mut writer);
                match self.chance.below(4) {
                    0 => writer.abort(),
                    1 => drop(writer),
                    _ => self.keep(writer.seal()),
                }
            }
            Err(CreateError::DuplicateObject { .. } | CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("{id} could not be created: {error}"),
        }
    }

    /// Looks at the value, if there is one and room for it; true then. Names say something else.
    fn look_at(&self, object: &ObjectRef) -> bool {
        let id = object.id();
        match self.store.view(object) {
            Ok(view) => check(&id, &view),
            Err(error) => {
                excuse(&id, &error);
                return false;
            }
        }
        true
    }

    fn get(&mut self) {
        let id = self.any_id();
        match self.chance.below(3) {
            0 => match self.store.view_by_id(&id) {
                Ok(view) => check(&id, &view),
                Err(error) => excuse(&id, &error),
            },
            1 => self.get_owned(&id),
            _ => {
                let Some(object) = self.store.lookup(&id) else { return };
                assert_eq!(object.id(), id, "an id names another object");
                self.look_at(&object);
                self.keep(object);
            }
        }
    }

    fn get_owned(&mut self, id: &ObjectId) {
        match self.store.get_by_id(id, Duration::ZERO) {
            Ok(object) => {
                check(id, &object);
                if self.views.len() < 3 { self.views.push(object) } else { self.views.clear() }
            }
            Err(error) => excuse(id, &error),
        }
    }

    fn clone_one(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let object = self.chance.pick(&self.kept).clone();
        self.look_at(&object);
        self.keep(object);
    }

    fn let_go(&mut self) {
        for view in self.views.drain(..) {
            check(&view.id(), &view);
        }
        if !self.kept.is_empty() {
            let at = self.chance.below(self.kept.len() as u64) as usize;
            let object = self.kept.swap_remove(at);
            self.look_at(&object);
        }
    }

    /// A container of three different objects.
    fn contain(&mut self) {
        let mut listed: Vec<ObjectRef> = Vec::new();
        for object in &self.kept {
            let is_new = listed.iter().all(|other| other.handle() != object.handle());
            // One level only: an object in a container of an equal id would keep itself.
            let is_plain = self.store.get(object).is_ok_and(|found| found.references().is_empty());
            if is_new && is_plain && listed.len() < 3 {
                listed.push(object.clone());
            }
        }
        if listed.len() < 3 {
            return;
        }
        let id = id_of(CONTAINERS + self.chance.below(IDS));
        let size = self.chance.below(100);
        let options = CreateOptions { references: &listed, ..self.options(id) };
        let made = self.store.put_with(&said(&id, size), &options);
        self.made(made);
    }

    fn open_container(&mut self) {
        let id = id_of(CONTAINERS + self.chance.below(IDS));
        let container = match self.store.get_by_id(&id, Duration::ZERO) {
            Ok(container) => container,
            Err(error) => return excuse(&id, &error),
        };
        check(&id, &container);
        let listed = container.references();
        assert_eq!(listed.len(), 3, "a container lists other objects than were given");
        drop(container);
        for object in listed {
            self.look_at(&object);
            self.keep(object);
        }
    }

    fn promise(&mut self) {
        let id = self.any_id();
        let object = match self.store.promise(&id).unboxed() {
            Ok(object) => object,
            Err(CreateError::OutOfMemory { .. }) => return,
            Err(error) => panic!("{id} could not be promised: {error}"),
        };
        let timeout = Duration::from_millis(self.chance.below(3));
        let ready = self.store.wait(std::slice::from_ref(&object), 1, timeout).expect("nobody's end fails a wait");
        if ready[0] {
            self.look_at(&object);
        }
        self.keep(object);
    }

    fn delete(&mut self) {
        let index = self.chance.below(IDS);
        let first = *self.chance.pick(&[0, CONTAINERS, BY_HANDLE]);
        self.store.delete(&id_of(first + index));
    }

    fn name(&mut self) {
        let name = self.chance.below(NAMES).to_string();
        match self.chance.below(3) {
            0 if !self.kept.is_empty() => {
                let object = self.chance.pick(&self.kept).clone();
                match self.store.bind("soak", &name, &object) {
                    Ok(()) | Err(NameError::Taken { .. }) => {}
                    Err(NameError::Create(error)) if matches!(*error, CreateError::OutOfMemory { .. }) => {}
                    Err(error) => panic!("a name could not be bound: {error}"),
                }
            }
            1 => {
                self.store.unbind("soak", &name);
            }
            _ => match self.store.named("soak", &name) {
                Ok(Some(object)) => {
                    self.look_at(&object);
                }
                Ok(None) => {}
                Err(NameError::Get(error)) => excuse(&id_of(0), &error),
                Err(error) => panic!("a name could not be looked up: {error}"),
            },
        }
    }

    /// More of these than fit into memory are kept, so that some move to disk and back.
    fn large(&mut self) {
        let id = id_of(LARGE + self.chance.below(LARGE_IDS));
        if let Some(object) = self.store.lookup(&id) {
            self.look_at(&object);
            return self.keep(object);
        }
        let options = self.options(id);
        match self.store.create(LARGE_BYTES, &options).unboxed() {
            Ok(mut writer) => {
                say(&id, &mut writer);
                self.keep(writer.seal());
            }
            Err(CreateError::DuplicateObject { .. } | CreateError::OutOfMemory { .. }) => {}
            Err(error) => panic!("{id} could not be created: {error}"),
        }
    }
}

/// What a get may answer at any instant although nothing is wrong.
///
/// # Panics
///
/// For everything else.
fn excuse(id: &ObjectId, error: &GetError) {
    match error {
        GetError::NotFound { .. } | GetError::NotSealed { .. } | GetError::NoRoom { .. } => {}
        GetError::Promise(error) if matches!(**error, CreateError::OutOfMemory { .. }) => {}
        error => panic!("a get of {id} failed: {error}"),
    }
}
