//! The store as a client uses it: put, create, get, wait, delete.
//!
//! The one thing to know: nothing here decides over shared words; it calls the protocol
//! (`hold`, `index`, `list`, `alloc`) in the order that leaves each instant recoverable: first the
//! own cell, then the entry, then the block, then the index, then the seal.

use crate::alloc::window::Window;
use crate::detour::Copy;
use crate::error::{CreateError, GetError, LayoutError, OpenError};
use crate::hold::{Held, REFERENCE};
use crate::keeper::{Keeper, Keeping};
use crate::layout::entry::{FLAG_CACHED, FLAG_DELETED, FLAG_INDEXED, FLAG_NAMED, FLAG_PROMISED, FLAG_VALIDATED};
use crate::layout::{CLIENTS_MAX, Geometry};
use crate::make::LOOKS_MAX;
use crate::make::Producer;
use crate::members::ClientId;
use crate::object::{Encoding, Object, ObjectRef};
use crate::object_id::ObjectId;
use crate::spill_directory::SpillDirectory;
use crate::sweep_gate::{Gate, SweepGate};
use crate::sync::Ordering;
use crate::tables::{Handle, Party, Tables};
use crate::wait::Deadline;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store_shm::clock;
use store_shm::liveness::ProcessId;
use store_shm::map::ReadMap;
use store_shm::per_process::PerProcess;
use store_shm::segment::{Memfd, SegmentError};
use store_shm::turn::{Taken, Turn};

/// Threads of one process that put at the same instant without meeting.
const PRODUCERS: usize = 8;
/// References that one object's list may name.
pub const REFERENCES_MAX: usize = 1 << 24;

/// How a store is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of objects that fit into memory; rounded up to whole chunks of 64 KiB.
    pub capacity_bytes: u64,
    /// Processes that may be connected at once.
    pub max_clients: u64,
    /// What this client calls itself in errors and listings.
    pub label: String,
    /// Where referenced objects go when memory is full; `None`: nowhere, creates wait or fail.
    pub spill_directory: Option<PathBuf>,
    /// How long a create waits for room by default.
    pub create_timeout: Duration,
    /// Who sweeps, spills and warms.
    pub keeping: Keeping,
    /// The driver's task, in whose name this process derives ids, from number 1 on; `None`: a random
    /// one. What it forks derives in random ones. A worker's: [`Store::begin_task`].
    pub task: Option<[u8; 24]>,
    /// Asked by every path on which this process sweeps, for each client that ended, before its
    /// holds are given back and its number is given out again; `None`: always yes. Clients that join
    /// with [`Keeping::Daemon`] leave sweeping to the keeper while it lives, and so to its gate.
    pub gate: Option<Arc<dyn SweepGate>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capacity_bytes: 1 << 30,
            max_clients: 256,
            label: "store".to_owned(),
            spill_directory: None,
            create_timeout: Duration::from_secs(30),
            keeping: Keeping::Threads,
            task: None,
            gate: None,
        }
    }
}

/// The segments of a store, as they are handed to a process that joins.
#[derive(Debug)]
pub struct Segments {
    /// All tables, read-write.
    pub tables: OwnedFd,
    /// The data, writable: opened range by range for what a client owns.
    pub data: OwnedFd,
    /// The data, read-only: every view comes from here.
    pub data_read_only: OwnedFd,
}

/// How long an object lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Until nobody refers to it; goes to disk when memory is short, and is never dropped.
    #[default]
    Counted,
    /// Beyond its references, until it is deleted or memory is short.
    Cached,
    /// Until it is deleted.
    Named,
}

/// What to make; see [`Store::create`].
#[derive(Clone, Debug, Default)]
pub struct CreateOptions<'a> {
    /// The id to give it; `None` derives a fresh one.
    pub id: Option<ObjectId>,
    /// How its bytes are to be read.
    pub encoding: Encoding,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Objects that it refers to: they live as long as it does.
    pub references: &'a [ObjectRef],
    /// How long to wait for room; `None` takes the store's.
    pub timeout: Option<Duration>,
    /// Leave it out of the index: only handles name it, until [`Store::publish`].
    pub by_handle_only: bool,
    /// Compute a crc32 at seal (half the cost of a copy).
    pub checksum: bool,
}

/// A connection to a store; cheap to clone, one per process is enough.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What this process keeps for itself; a forked child starts with its own.
pub(crate) struct Local {
    pub(crate) producers: [Turn<Producer>; PRODUCERS],
    pub(crate) window: Window,
    pub(crate) keeper: Mutex<Option<Keeper>>,
    /// One thread of a process spills at a time: two would bear the same name in a word.
    pub(crate) spilling: Mutex<()>,
    /// What readers copied past a stopped spiller.
    pub(crate) detours: Mutex<Vec<Copy>>,
}

pub(crate) struct Inner {
    pub(crate) tables: Tables,
    /// Number and generation ([`ClientId::pack`]); 0: nobody.
    pub(crate) me: AtomicU32,
    pub(crate) gate: Option<Gate>,
    pub(crate) local: PerProcess<Local>,
    pub(crate) segment: Memfd,
    pub(crate) data: Memfd,
    pub(crate) create_timeout: Duration,
    pub(crate) keeping: Keeping,
    pub(crate) spin: crate::wait::Spin,
    pub(crate) fork: crate::fork::Forking,
}

impl Local {
    pub(crate) fn new(tables: &Tables, data: &Memfd, me: u16) -> Result<Local, SegmentError> {
        let seed = tables.header().seed.load(Ordering::Relaxed);
        let data = Memfd::from_fd(data.try_clone()?)?;
        Ok(Local {
            producers: std::array::from_fn(|_| Turn::new(Producer::new(seed, me))),
            window: Window::new(data, tables.chunk_count())?,
            keeper: Mutex::new(None),
            spilling: Mutex::new(()),
            detours: Mutex::default(),
        })
    }
}

/// Promises made for one id that find it taken each time: no race goes on for so long.
const PROMISES_MAX: u32 = 64;

impl Store {
    /// A store for this process, its threads, and what it forks. No daemon, nothing on any disk
    /// but spill files; it is gone with the last process that maps it.
    pub fn in_process(config: Config) -> Result<Store, OpenError> {
        let geometry = Geometry::for_capacity(config.capacity_bytes, config.max_clients.clamp(2, CLIENTS_MAX))?;
        Store::with_geometry(geometry, config)
    }

    pub(crate) fn with_geometry(geometry: Geometry, config: Config) -> Result<Store, OpenError> {
        let segment = Memfd::create("raylet-tables", geometry.offsets().total)?;
        let data = Memfd::create("raylet-data", geometry.capacity_bytes)?;
        let read_only = Memfd::from_fd(data.read_only()?)?;
        let view = ReadMap::map(std::os::fd::AsFd::as_fd(&read_only), geometry.capacity_bytes)?;
        let seed = RandomState::new().build_hasher().finish();
        let mut tables = Tables::format(&segment, geometry, seed, clock::coarse_ms(), view)?;
        if let Some(base) = &config.spill_directory {
            tables.files = Some(SpillDirectory::create(base, seed)?);
        }
        let client = tables.admit(ProcessId::current(), &config.label, None, 0)?;
        if config.keeping == Keeping::Threads {
            tables.header().keeper.store(u64::from(client.number) + 1, Ordering::SeqCst);
        }
        Store::join(tables, segment, data, client, config)
    }

    /// Joins a store whose keeper has admitted this process as `client`.
    pub fn attach(segments: Segments, client: ClientId, config: Config) -> Result<Store, OpenError> {
        let segment = Memfd::from_fd(segments.tables)?;
        let data = Memfd::from_fd(segments.data)?;
        let read_only = Memfd::from_fd(segments.data_read_only)?;
        let view = ReadMap::map(std::os::fd::AsFd::as_fd(&read_only), read_only.bytes())?;
        let mut tables = Tables::open(&segment, view)?;
        let expected_bytes = tables.geometry.capacity_bytes;
        if data.bytes() != expected_bytes {
            return Err(LayoutError::DataSize { bytes: data.bytes(), expected_bytes }.into());
        }
        // Made by whoever made the store, and gone once that has ended: never made again here.
        let seed = tables.header().seed.load(Ordering::Relaxed);
        tables.files = config.spill_directory.as_deref().map(|base| SpillDirectory::join(base, seed));
        Store::join(tables, segment, data, client, config)
    }

    fn join(tables: Tables, segment: Memfd, data: Memfd, client: ClientId, config: Config) -> Result<Store, OpenError> {
        tables.join(client, ProcessId::current())?;
        let local = Local::new(&tables, &data, client.number).inspect_err(|_| tables.leave(client.number))?;
        // Threads that put at the same instant as another mint under prefixes of their own.
        if let Some(task) = config.task
            && let Some(mut first) = local.producers[0].try_take()
        {
            first.begin_driver(task);
        }
        let inner = Arc::new(Inner {
            tables,
            me: AtomicU32::new(client.pack()),
            gate: config.gate.map(|asked| Gate { of: client, asked }),
            local: PerProcess::new(local),
            segment,
            data,
            create_timeout: config.create_timeout,
            keeping: config.keeping,
            spin: crate::wait::Spin::default(),
            fork: crate::fork::Forking::default(),
        });
        crate::fork::register(&inner);
        inner.tables.ring_keeper();
        inner.keep_if_mine()?;
        Ok(Store { inner })
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Store {
        Store { inner }
    }

    /// Descriptors for a process that is to join, and nothing else.
    pub fn segments(&self) -> Result<Segments, OpenError> {
        Ok(Segments {
            tables: self.inner.segment.try_clone()?,
            data: self.inner.data.try_clone()?,
            data_read_only: self.inner.data.read_only()?,
        })
    }

    /// Reserves a client number for `process`, which then attaches; the keeper watches it.
    pub fn admit(&self, process: ProcessId, label: &str) -> Result<ClientId, OpenError> {
        self.inner.tables.admit(process, label, None, self.inner.now_ms())
    }

    /// Takes an admission back that nobody has joined by; false where somebody has, or it is over.
    pub fn dismiss(&self, client: ClientId) -> bool {
        let dismissed = self.inner.tables.dismiss(client);
        self.inner.tables.ring_keeper();
        dismissed
    }

    /// This client's number.
    pub fn client(&self) -> ClientId {
        self.inner.client()
    }

    /// Sizes of the store's tables.
    pub fn geometry(&self) -> Geometry {
        self.inner.tables.geometry
    }

    /// An owned view of a sealed object; fails if the value does not stand yet.
    pub fn get(&self, object: &ObjectRef) -> Result<Object, Box<GetError>> {
        let view = self.inner.view(object.handle())?;
        Ok(Object::from_view(&self.inner, object.handle(), view))
    }

    /// Waits for the value, at most `timeout`.
    pub fn get_timeout(&self, object: &ObjectRef, timeout: Duration) -> Result<Object, Box<GetError>> {
        self.inner.wait_ready(object.handle(), Deadline::after(timeout))?;
        self.get(object)
    }

    /// The value of `id`: waits for somebody to seal it, at most `timeout`.
    pub fn get_by_id(&self, id: &ObjectId, timeout: Duration) -> Result<Object, Box<GetError>> {
        let deadline = Deadline::after(timeout);
        if let Some(object) = self.inner.spin_for(id)
            && let Ok(view) = self.inner.view(object)
        {
            return Ok(Object::from_view(&self.inner, object, view));
        }
        if timeout.is_zero() && !self.contains(id) {
            return Err(GetError::NotFound { id: *id }.into());
        }
        let object = self.promise(id).map_err(GetError::Promise)?;
        self.inner.wait_ready(object.handle(), deadline)?;
        self.get(&object)
    }

    /// The values of several objects, all of them, at most `timeout`.
    pub fn get_many(&self, objects: &[ObjectRef], timeout: Duration) -> Result<Vec<Object>, Box<GetError>> {
        let handles: Vec<Handle> = objects.iter().map(|object| object.handle()).collect();
        let deadline = Deadline::after(timeout);
        let ready = self.inner.wait_for(&handles, handles.len(), deadline)?;
        if let Some(missing) = ready.iter().position(|ready| !ready) {
            return Err(self.inner.not_sealed(handles[missing], deadline));
        }
        objects.iter().map(|object| self.get(object)).collect()
    }

    /// Waits until `count` of the objects have values, at most `timeout`; which ones have, in order.
    pub fn wait(&self, objects: &[ObjectRef], count: usize, timeout: Duration) -> Result<Vec<bool>, Box<GetError>> {
        let handles: Vec<Handle> = objects.iter().map(|object| object.handle()).collect();
        self.inner.wait_for(&handles, count.min(handles.len()), Deadline::after(timeout))
    }

    /// A reference to the object of this id, sealed or not; `None` when there is none.
    pub fn lookup(&self, id: &ObjectId) -> Option<ObjectRef> {
        for _ in 0..LOOKS_MAX {
            let handle = self.inner.tables.find(id)?;
            if self.inner.party().hold(handle, REFERENCE) != Held::Gone {
                return Some(ObjectRef::new(&self.inner, handle));
            }
        }
        // It lives by one look and not by the other, for ever: a stray store hit its word.
        None
    }

    /// A reference by handle, as another client of this store sent it; `None` when that object is
    /// gone.
    pub fn refer(&self, handle: Handle) -> Option<ObjectRef> {
        if !self.inner.tables.names_entry(handle.slot) {
            return None;
        }
        let held = self.inner.party().hold(handle, REFERENCE);
        (held != Held::Gone).then(|| ObjectRef::new(&self.inner, handle))
    }

    /// A reference to the object of this id, which somebody will make: an entry without a value,
    /// unless there is one.
    pub fn promise(&self, id: &ObjectId) -> Result<ObjectRef, Box<CreateError>> {
        for _ in 0..PROMISES_MAX {
            if let Some(object) = self.lookup(id) {
                return Ok(object);
            }
            let handle = self.inner.promised(Some(id), FLAG_INDEXED)?;
            if self.inner.party().enter(handle, id).is_ok() {
                return Ok(ObjectRef::new(&self.inner, handle));
            }
            self.inner.party().release(handle.slot, REFERENCE);
        }
        Err(Box::new(CreateError::DuplicateObject { id: *id }))
    }

    /// A reference to a new object without a value that only handles name: whoever is told its
    /// handle makes it with [`Store::create_for`]. Under a derived id unless one is given.
    pub fn promise_by_handle(&self, id: Option<&ObjectId>) -> Result<ObjectRef, Box<CreateError>> {
        let handle = self.inner.promised(id, FLAG_PROMISED)?;
        Ok(ObjectRef::new(&self.inner, handle))
    }

    /// Whether an object of this id has a value.
    pub fn contains(&self, id: &ObjectId) -> bool {
        let mut before = None;
        loop {
            let found = self.inner.tables.find(id);
            if found.is_some_and(|handle| self.inner.is_ready(handle)) {
                return true;
            }
            // An entry that ended during the walk may have hidden another of the same id.
            if found.is_none() || found == before {
                return false;
            }
            before = found;
        }
    }

    /// Has an object that only handles named found by its id. Nothing happens to one that was
    /// deleted. While another client publishes the same object, this returns at once.
    pub fn publish(&self, object: &ObjectRef) -> Result<(), Box<CreateError>> {
        let id = object.id();
        let stands = self.inner.party().publish_held(object.handle(), &id);
        if stands { Ok(()) } else { Err(CreateError::DuplicateObject { id }.into()) }
    }

    /// Forgets an id: it can be given again at once, and the object ends with its last hold.
    /// False when there is no such object.
    pub fn delete(&self, id: &ObjectId) -> bool {
        self.lookup(id).is_some_and(|object| self.delete_object(&object))
    }

    /// As [`Store::delete`], of an object one refers to.
    pub fn delete_object(&self, object: &ObjectRef) -> bool {
        let entry = self.inner.tables.entry(object.slot());
        let first = entry.flags.fetch_or(FLAG_DELETED, Ordering::SeqCst) & FLAG_DELETED == 0;
        entry.flags.fetch_and(!(FLAG_CACHED | FLAG_NAMED), Ordering::SeqCst);
        if entry.flags.load(Ordering::SeqCst) & FLAG_INDEXED != 0 {
            self.inner.party().unindex(object.slot());
        }
        first
    }

    /// Gives back what dead clients held, now and in this thread; how many clients were swept.
    ///
    /// With threads keeping the store this happens by itself; survivors without any call it when
    /// they like, and slow paths do. Whom the gate holds back is left for later; a client of a
    /// daemon that lives rings it and sweeps nobody.
    pub fn reclaim(&self) -> usize {
        self.inner.reclaim()
    }
}

impl Inner {
    #[inline(always)]
    pub(crate) fn party(&self) -> Party<'_> {
        Party { tables: &self.tables, me: self.me.load(Ordering::Relaxed) as u16 }
    }

    #[inline(always)]
    pub(crate) fn client(&self) -> ClientId {
        ClientId::unpack(self.me.load(Ordering::Relaxed))
    }

    /// Milliseconds since the store was made.
    #[inline]
    pub(crate) fn now_ms(&self) -> u32 {
        clock::coarse_ms().wrapping_sub(self.tables.header().epoch_ms.load(Ordering::Relaxed)) as u32
    }

    pub(crate) fn id_of(&self, slot: u32) -> ObjectId {
        ObjectId::from_words(self.tables.entry(slot).id_words())
    }

    pub(crate) fn encoding_of(&self, slot: u32) -> Encoding {
        Encoding::from_flags(self.tables.entry(slot).flags.load(Ordering::Relaxed))
    }

    pub(crate) fn size_of(&self, slot: u32) -> u64 {
        self.tables.entry(slot).size.load(Ordering::Relaxed)
    }

    pub(crate) fn refer_again(&self, handle: Handle) {
        let held = self.party().hold(handle, REFERENCE);
        assert!(held != Held::Gone, "H3: a referenced object ended: {handle:?}");
    }

    /// What a container lists, each with a fresh reference; the caller pins the container.
    pub(crate) fn references_of(&self, container: Handle) -> impl Iterator<Item = Handle> + '_ {
        (0..self.tables.children_of(container.slot)).filter_map(move |position| {
            let child = self.tables.list_item(container.slot, position)?;
            (self.party().hold(child, REFERENCE) != Held::Gone).then_some(child)
        })
    }

    /// A heap for this thread: the first that no other thread is using.
    #[inline]
    pub(crate) fn producer(&self) -> Taken<'_, Producer> {
        match self.local().producers[0].try_take() {
            Some(producer) => producer,
            None => self.another_producer(),
        }
    }

    #[cold]
    fn another_producer(&self) -> Taken<'_, Producer> {
        loop {
            if let Some(producer) = self.local().producers.iter().find_map(Turn::try_take) {
                return producer;
            }
            std::thread::yield_now();
        }
    }

    /// Lets the active spans of every heap rest, so that what is empty goes back.
    pub(crate) fn rest_heaps(&self) {
        let producers = self.local().producers.iter().filter_map(Turn::try_take);
        producers.for_each(|mut producer| producer.heap.rest_all(self.party()));
    }

    pub(crate) fn is_validated(&self, handle: Handle) -> bool {
        self.tables.entry(handle.slot).flags.load(Ordering::Acquire) & FLAG_VALIDATED != 0
    }

    pub(crate) fn mark_validated(&self, handle: Handle) {
        self.tables.entry(handle.slot).flags.fetch_or(FLAG_VALIDATED, Ordering::SeqCst);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_keeping();
        if self.me.load(Ordering::Relaxed) == 0 {
            return;
        }
        let party = self.party();
        self.rest_heaps();
        self.tables.leave(party.me);
        let is_last = self.tables.clients_in_use().all(|client| self.tables.client(client).is_dead());
        if let Some(directory) = self.tables.files.as_ref().filter(|_| is_last) {
            directory.remove();
        }
        self.tables.ring_keeper();
    }
}
