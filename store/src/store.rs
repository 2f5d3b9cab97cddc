//! The store as a client uses it: put, create, get, wait, delete.
//!
//! The one thing to know: nothing here decides over shared words; it calls the protocol
//! (`hold`, `index`, `list`, `alloc`) in the order that leaves each instant recoverable: first the
//! own cell, then the entry, then the block, then the index, then the seal.

use crate::alloc::heap::Heap;
use crate::alloc::window::Window;
use crate::error::{CreateError, GetError, OpenError};
use crate::hold::{Held, PIN, REFERENCE, Unsettled};
use crate::keeper::{Keeper, Keeping};
use crate::layout::entry::{
    FLAG_CACHED, FLAG_CHECKSUM, FLAG_DELETED, FLAG_INDEXED, FLAG_NAMED, FLAG_VALIDATED, IN_MEMORY,
};
use crate::layout::{CLIENTS_MAX, Geometry};
use crate::list::ITEM_BYTES;
use crate::members::ClientId;
use crate::object::{Encoding, Object, ObjectRef, Unsealed, View};
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use crate::tables::{Handle, Party, Tables};
use crate::wait::Deadline;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store_shm::clock;
use store_shm::gate::GateError;
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
    /// The task in whose name this process derives ids, from number 1 on; `None`: a random one. What
    /// it forks derives in random ones.
    pub task: Option<[u8; 24]>,
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
    producers: [Turn<Producer>; PRODUCERS],
    pub(crate) window: Window,
    pub(crate) keeper: Mutex<Option<Keeper>>,
    /// One thread of a process spills at a time: two would bear the same name in a word.
    pub(crate) spilling: Mutex<()>,
}

/// Everything a put needs that is not shared: room, and ids.
pub(crate) struct Producer {
    pub(crate) heap: Heap,
    task: [u8; 24],
    index: u32,
    random: RandomState,
}

pub(crate) struct Inner {
    pub(crate) tables: Tables,
    pub(crate) me: AtomicU32,
    pub(crate) local: PerProcess<Local>,
    pub(crate) segment: Memfd,
    pub(crate) data: Memfd,
    pub(crate) create_timeout: Duration,
    pub(crate) keeping: Keeping,
    pub(crate) spin: crate::wait::Spin,
    pub(crate) fork: crate::fork::Forking,
}

/// An object that is being written: reachable by nobody, or under its id as *not sealed yet*.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) handle: Handle,
    offset: u64,
    size: u64,
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
        })
    }
}

/// Where a pinned value was found by the rare path.
struct Found {
    slot: u32,
    offset: u64,
}

impl Producer {
    pub(crate) fn new(seed: u64, me: u16) -> Producer {
        let mut producer = Producer { heap: Heap::default(), task: [0; 24], index: 0, random: RandomState::new() };
        producer.next_task(seed, me);
        producer
    }

    /// Derives in the name of `task` from now on.
    fn begin_task(&mut self, task: [u8; 24]) {
        (self.task, self.index) = (task, 0);
    }

    /// A fresh prefix for 2^32 ids: random in its task part, the store's seed in its actor part.
    fn next_task(&mut self, seed: u64, me: u16) {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(seed ^ u64::from(std::process::id()) ^ u64::from_ne_bytes(self.task[..8].try_into().expect("8 of 24")));
        self.task[..8].copy_from_slice(&hasher.finish().to_le_bytes());
        self.task[8..16].copy_from_slice(&seed.to_le_bytes());
        self.task[16..20].copy_from_slice(&u32::from(me).to_le_bytes());
        self.task[20..24].copy_from_slice(&1u32.to_le_bytes());
        self.index = 0;
    }

    #[inline]
    fn next_id(&mut self, party: Party) -> ObjectId {
        if self.index == u32::MAX {
            self.next_task(party.tables.header().seed.load(Ordering::Relaxed), party.me);
        }
        self.index += 1;
        ObjectId::of_task(self.task, self.index)
    }
}

impl Store {
    /// A store for this process, its threads, and what it forks. No daemon, nothing on any disk
    /// but spill files; it is gone with the last process that maps it.
    pub fn in_process(config: Config) -> Result<Store, OpenError> {
        let geometry = Geometry::for_capacity(config.capacity_bytes, config.max_clients.clamp(2, CLIENTS_MAX))?;
        let segment = Memfd::create("raylet-tables", geometry.offsets().total)?;
        let data = Memfd::create("raylet-data", geometry.capacity_bytes)?;
        let read_only = Memfd::from_fd(data.read_only()?)?;
        let view = ReadMap::map(std::os::fd::AsFd::as_fd(&read_only), geometry.capacity_bytes)?;
        let seed = RandomState::new().build_hasher().finish();
        let mut tables = Tables::format(&segment, geometry, seed, clock::coarse_ms(), view)?;
        tables.files = spill_directory(config.spill_directory.clone())?;
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
        // Made by whoever made the store, and gone once that has ended: never made again here.
        tables.files = config.spill_directory.clone();
        Store::join(tables, segment, data, client, config)
    }

    fn join(tables: Tables, segment: Memfd, data: Memfd, client: ClientId, config: Config) -> Result<Store, OpenError> {
        tables.join(client, ProcessId::current())?;
        let local = Local::new(&tables, &data, client.number).inspect_err(|_| tables.leave(client.number))?;
        // Threads that put at the same instant as another mint under prefixes of their own.
        if let Some(task) = config.task && let Some(mut first) = local.producers[0].try_take() {
            first.begin_task(task);
        }
        let inner = Arc::new(Inner {
            tables,
            me: AtomicU32::new(u32::from(client.number)),
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
        let number = self.inner.party().me;
        ClientId { number, generation: self.inner.tables.client(number).read().generation }
    }

    /// Sizes of the store's tables.
    pub fn geometry(&self) -> Geometry {
        self.inner.tables.geometry
    }

    /// Copies `bytes` into a new object under a derived id.
    pub fn put(&self, bytes: &[u8]) -> Result<ObjectRef, CreateError> {
        self.put_with(bytes, &CreateOptions::default())
    }

    /// Copies `bytes` into a new object.
    pub fn put_with(&self, bytes: &[u8], options: &CreateOptions) -> Result<ObjectRef, CreateError> {
        let inner = &self.inner;
        if options.id.is_some() {
            let draft = inner.draft(bytes.len() as u64, options).map_err(|error| *error)?;
            inner.unsealed(draft).bytes_mut().copy_from_slice(bytes);
            return Ok(self.finish(draft, options.checksum));
        }
        // Under a fresh id nobody can wait for it: sealed first, it enters the index whole.
        let draft = match inner.begin(bytes.len() as u64, options) {
            Ok(draft) => draft,
            Err(error) => return Err(*error),
        };
        inner.unsealed(draft).bytes_mut().copy_from_slice(bytes);
        inner.before_seal(draft, options.checksum, !options.references.is_empty());
        inner.seal_unfound(draft.handle);
        if !options.by_handle_only && !inner.enter_fresh(draft.handle) {
            return Err(*inner.not_entered(draft.handle));
        }
        inner.want_warm_after(draft);
        Ok(ObjectRef { inner: Arc::clone(inner), handle: draft.handle })
    }

    /// A new object of `size` bytes to write in place; unless it is sealed, nothing of it remains.
    pub fn create(&self, size: u64, options: &CreateOptions) -> Result<ObjectWriter, CreateError> {
        let draft = self.inner.draft(size, options).map_err(|error| *error)?;
        let unsealed = self.inner.unsealed(draft);
        Ok(ObjectWriter { store: self.clone(), draft, unsealed, checksum: options.checksum, is_open: true })
    }

    fn finish(&self, draft: Draft, checksum: bool) -> ObjectRef {
        let entry = self.inner.tables.entry(draft.handle.slot);
        let has_list = entry.children.load(Ordering::Relaxed) != 0;
        self.inner.before_seal(draft, checksum, has_list);
        if entry.flags.load(Ordering::Relaxed) & FLAG_INDEXED == 0 {
            self.inner.seal_unfound(draft.handle);
        } else {
            self.inner.seal_found(draft.handle);
        }
        self.inner.want_warm_after(draft);
        ObjectRef { inner: Arc::clone(&self.inner), handle: draft.handle }
    }

    /// A view of a sealed object, borrowed from the reference.
    ///
    /// Brings the bytes back from disk where they are there; fails if the value does not stand yet.
    #[inline]
    pub fn view<'a>(&'a self, object: &'a ObjectRef) -> Result<View<'a>, GetError> {
        let pinned = self.inner.party().pin_referenced(object.handle);
        self.inner.view_pinned(object.handle, pinned, || self.inner.find_offset(object.handle))
    }

    /// A view of the sealed object of this id, found through the index.
    #[inline]
    pub fn view_by_id(&self, id: &ObjectId) -> Result<View<'_>, GetError> {
        let Some(handle) = self.inner.tables.find(id) else {
            return Err(GetError::NotFound { id: *id });
        };
        let pinned = self.inner.party().hold_fast(handle, PIN);
        self.inner.view_pinned(handle, pinned, || self.inner.find_slowly(handle, id))
    }

    /// An owned view of a sealed object; fails if the value does not stand yet.
    pub fn get(&self, object: &ObjectRef) -> Result<Object, GetError> {
        let view = self.inner.view(object.handle)?;
        Ok(Object::from_view(&self.inner, object.handle, view))
    }

    /// Waits for the value, at most `timeout`.
    pub fn get_timeout(&self, object: &ObjectRef, timeout: Duration) -> Result<Object, GetError> {
        self.inner.wait_ready(object.handle, Deadline::after(timeout))?;
        self.get(object)
    }

    /// The value of `id`: waits for somebody to seal it, at most `timeout`.
    pub fn get_by_id(&self, id: &ObjectId, timeout: Duration) -> Result<Object, GetError> {
        let deadline = Deadline::after(timeout);
        if let Some(object) = self.inner.spin_for(id) {
            if let Ok(view) = self.inner.view(object) {
                return Ok(Object::from_view(&self.inner, object, view));
            }
        }
        if timeout.is_zero() && !self.contains(id) {
            return Err(GetError::NotFound { id: *id });
        }
        let object = self.promise(id).map_err(|error| GetError::Promise(Box::new(error)))?;
        self.inner.wait_ready(object.handle, deadline)?;
        self.get(&object)
    }

    /// The values of several objects, all of them, at most `timeout`.
    pub fn get_many(&self, objects: &[ObjectRef], timeout: Duration) -> Result<Vec<Object>, GetError> {
        let handles: Vec<Handle> = objects.iter().map(|object| object.handle).collect();
        let deadline = Deadline::after(timeout);
        let ready = self.inner.wait_for(&handles, handles.len(), deadline)?;
        if let Some(missing) = ready.iter().position(|ready| !ready) {
            return Err(self.inner.not_sealed(handles[missing], deadline));
        }
        objects.iter().map(|object| self.get(object)).collect()
    }

    /// Waits until `count` of the objects have values, at most `timeout`; which ones have, in order.
    pub fn wait(&self, objects: &[ObjectRef], count: usize, timeout: Duration) -> Result<Vec<bool>, GetError> {
        let handles: Vec<Handle> = objects.iter().map(|object| object.handle).collect();
        self.inner.wait_for(&handles, count.min(handles.len()), Deadline::after(timeout))
    }

    /// A reference to the object of this id, sealed or not; `None` when there is none.
    pub fn lookup(&self, id: &ObjectId) -> Option<ObjectRef> {
        loop {
            let handle = self.inner.tables.find(id)?;
            if self.inner.party().hold(handle, REFERENCE) != Held::Gone {
                return Some(ObjectRef { inner: Arc::clone(&self.inner), handle });
            }
        }
    }

    /// A reference by handle, as another client of this store sent it; `None` when that object is
    /// gone.
    pub fn refer(&self, handle: Handle) -> Option<ObjectRef> {
        if !self.inner.tables.names_entry(handle.slot) {
            return None;
        }
        let held = self.inner.party().hold(handle, REFERENCE);
        (held != Held::Gone).then(|| ObjectRef { inner: Arc::clone(&self.inner), handle })
    }

    /// A reference to the object of this id, which somebody will make: an entry without a value,
    /// unless there is one.
    pub fn promise(&self, id: &ObjectId) -> Result<ObjectRef, CreateError> {
        loop {
            if let Some(object) = self.lookup(id) {
                return Ok(object);
            }
            let handle = self.inner.promised(id)?;
            if self.inner.party().enter(handle, id).is_ok() {
                return Ok(ObjectRef { inner: Arc::clone(&self.inner), handle });
            }
            self.inner.party().release(handle.slot, REFERENCE);
        }
    }

    /// Whether an object of this id has a value.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.inner.tables.find(id).is_some_and(|handle| self.inner.is_ready(handle))
    }

    /// Enters an object that only handles named into the index.
    pub fn publish(&self, object: &ObjectRef) -> Result<(), CreateError> {
        let entry = self.inner.tables.entry(object.handle.slot);
        if entry.flags.fetch_or(FLAG_INDEXED, Ordering::SeqCst) & FLAG_INDEXED != 0 {
            return Ok(());
        }
        let id = object.id();
        self.inner.party().enter(object.handle, &id).map_err(|_| {
            entry.flags.fetch_and(!FLAG_INDEXED, Ordering::SeqCst);
            CreateError::DuplicateObject { id }
        })
    }

    /// Forgets an id: it can be given again at once, and the object ends with its last hold.
    /// False when there is no such object.
    pub fn delete(&self, id: &ObjectId) -> bool {
        self.lookup(id).is_some_and(|object| self.delete_object(&object))
    }

    /// As [`Store::delete`], of an object one refers to.
    pub fn delete_object(&self, object: &ObjectRef) -> bool {
        let entry = self.inner.tables.entry(object.handle.slot);
        let first = entry.flags.fetch_or(FLAG_DELETED, Ordering::SeqCst) & FLAG_DELETED == 0;
        entry.flags.fetch_and(!(FLAG_CACHED | FLAG_NAMED), Ordering::SeqCst);
        if entry.flags.load(Ordering::SeqCst) & FLAG_INDEXED != 0 {
            self.inner.party().unindex(object.handle.slot);
        }
        first
    }

    /// Gives back what dead clients held, now and in this thread; how many clients were swept.
    ///
    /// With threads keeping the store this happens by itself; survivors without any call it when
    /// they like, and slow paths do.
    pub fn reclaim(&self) -> usize {
        self.inner.reclaim()
    }
}

fn spill_directory(path: Option<PathBuf>) -> Result<Option<PathBuf>, OpenError> {
    if let Some(path) = &path {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| OpenError::SpillDirectory { path: path.clone(), source })?;
    }
    Ok(path)
}

impl Inner {
    #[inline(always)]
    pub(crate) fn party(&self) -> Party<'_> {
        Party { tables: &self.tables, me: self.me.load(Ordering::Relaxed) as u16 }
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
        let count = self.tables.entry(container.slot).children.load(Ordering::Acquire);
        (0..count).filter_map(move |position| {
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

    /// Enters a sealed object under the fresh id it was given.
    #[inline]
    fn enter_fresh(&self, handle: Handle) -> bool {
        self.party().enter(handle, &self.id_of(handle.slot)).is_ok()
    }

    /// Everything before the bytes: entry, memory, list, index. (Errors are boxed in here: they are
    /// rare and large.)
    pub(crate) fn draft(&self, size: u64, options: &CreateOptions) -> Result<Draft, Box<CreateError>> {
        loop {
            if let Some(id) = &options.id && let Some(found) = self.tables.find(id) {
                match self.adopt(found, id, size, options)? {
                    Some(draft) => return Ok(draft),
                    None => continue,
                }
            }
            let draft = self.begin(size, options)?;
            if options.by_handle_only || self.enter_fresh(draft.handle) {
                return Ok(draft);
            }
            self.abort(draft.handle);
        }
    }

    /// A draft in an entry of its own. Only two words come back from what it calls: a result that
    /// lives in memory is written in parts and read whole, and that waits (12 ns of 45 here).
    #[inline(always)]
    fn begin(&self, size: u64, options: &CreateOptions) -> Result<Draft, Box<CreateError>> {
        let party = self.party();
        if party.me == 0 || size > self.tables.geometry.capacity_bytes {
            return Err(self.refusal(size));
        }
        let mut producer = self.producer();
        let id = match options.id {
            Some(id) => id,
            None => producer.next_id(party),
        };
        let found = producer.heap.slot(party);
        let slot = match found {
            Some(slot) => slot,
            None => {
                drop(producer);
                let slot = self.slot_after_sweep()?;
                producer = self.producer();
                slot
            }
        };
        let generation = self.fill_entry(slot, &id, size, flags_of(options), State::Writing);
        let block = producer.heap.small_block(party, size, slot);
        drop(producer);
        let handle = Handle { slot, generation };
        let offset = match block {
            Some(offset) if options.references.is_empty() => {
                self.tables.entry(slot).location.store(IN_MEMORY | offset, Ordering::Release);
                offset
            }
            block => self.furnish(handle, size, block, options)?,
        };
        Ok(Draft { handle, offset, size })
    }

    #[cold]
    fn refusal(&self, requested_bytes: u64) -> Box<CreateError> {
        Box::new(match self.party().me {
            0 => CreateError::Forked,
            _ => CreateError::TooLarge { requested_bytes, capacity_bytes: self.tables.geometry.capacity_bytes },
        })
    }

    /// Gives a draft its block, if it has none yet, and its list; takes it back where that fails.
    #[cold]
    fn furnish(&self, handle: Handle, size: u64, block: Option<u64>, options: &CreateOptions) -> Result<u64, Box<CreateError>> {
        let slot = handle.slot;
        let furnished = match block {
            Some(offset) => Ok(offset),
            None if size == 0 => Ok(0),
            None => self.block_or_wait(size, slot, options.timeout),
        }
        .and_then(|offset| {
            self.tables.entry(slot).location.store(IN_MEMORY | offset, Ordering::Release);
            if !options.references.is_empty() {
                self.write_list(slot, options)?;
            }
            Ok(offset)
        });
        furnished.map_err(|error| {
            self.abort(handle);
            Box::new(error)
        })
    }

    /// Makes a fresh slot this client's: cell first, so that a sweeper finds it.
    #[inline]
    fn fill_entry(&self, slot: u32, id: &ObjectId, size: u64, flags: u32, state: State) -> u64 {
        let party = self.party();
        self.tables.touch(party.me, slot);
        self.tables.cell(party.me, slot).fetch_add(REFERENCE, Ordering::SeqCst);
        let entry = self.tables.entry(slot);
        let now = self.now_ms();
        let (words, index) = id.words();
        entry.location.store(0, Ordering::Relaxed);
        entry.size.store(size, Ordering::Relaxed);
        entry.holders.store(1 << (party.me % 64), Ordering::Relaxed);
        entry.waiters.store(0, Ordering::Relaxed);
        entry.listed.store(0, Ordering::Relaxed);
        entry.flags.store(flags, Ordering::Relaxed);
        entry.id.iter().zip(words).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        entry.id_index.store(index, Ordering::Relaxed);
        entry.children.store(0, Ordering::Relaxed);
        entry.list.store(0, Ordering::Relaxed);
        entry.made_ms.store(now, Ordering::Relaxed);
        entry.used_ms.store(now, Ordering::Relaxed);
        entry.creator.store(u32::from(party.me), Ordering::Relaxed);
        let free = Snapshot::unpack(entry.word.load(Ordering::Relaxed));
        debug_assert!(free.state == State::Free, "A4: slot {slot} handed out while {free:?}");
        let decider = if state == State::Writing { party.me } else { 0 };
        entry.word.store(free.to(state, decider), Ordering::Release);
        free.generation
    }

    /// An entry without a value that this client refers to.
    fn promised(&self, id: &ObjectId) -> Result<Handle, CreateError> {
        let slot = self.producer().heap.slot(self.party());
        let slot = match slot {
            Some(slot) => slot,
            None => self.slot_after_sweep()?,
        };
        let generation = self.fill_entry(slot, id, 0, FLAG_INDEXED, State::Promised);
        Ok(Handle { slot, generation })
    }

    /// Makes somebody's promise this client's to write. `None`: the object ended meanwhile.
    fn adopt(&self, found: Handle, id: &ObjectId, size: u64, options: &CreateOptions) -> Result<Option<Draft>, Box<CreateError>> {
        let party = self.party();
        if party.me == 0 || size > self.tables.geometry.capacity_bytes {
            return Err(self.refusal(size));
        }
        let duplicate = || Box::new(CreateError::DuplicateObject { id: *id });
        match party.hold(found, REFERENCE) {
            Held::Gone => return Ok(None),
            Held::Value => {
                party.release(found.slot, REFERENCE);
                // It may have been held by us alone: then it has just ended.
                let stands = self.tables.find(id) == Some(found);
                return if stands { Err(duplicate()) } else { Ok(None) };
            }
            Held::NoValue => {}
        }
        let entry = self.tables.entry(found.slot);
        let promised = Snapshot { state: State::Promised, decider: 0, generation: found.generation };
        let writing = promised.to(State::Writing, party.me);
        if entry.word.compare_exchange(promised.pack(), writing, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            let is_writing = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state == State::Writing;
            party.release(found.slot, REFERENCE);
            return if is_writing && self.reclaim() == 0 { Err(duplicate()) } else { Ok(None) };
        }
        entry.size.store(size, Ordering::Relaxed);
        entry.flags.store(flags_of(options) | FLAG_INDEXED, Ordering::Release);
        entry.made_ms.store(self.now_ms(), Ordering::Relaxed);
        entry.creator.store(u32::from(party.me), Ordering::Relaxed);
        let offset = self.furnish(found, size, None, options)?;
        Ok(Some(Draft { handle: found, offset, size }))
    }

    /// Writes the list of references; what it names is counted at seal.
    fn write_list(&self, slot: u32, options: &CreateOptions) -> Result<(), CreateError> {
        let mut handles: Vec<Handle> = options.references.iter().map(|child| child.handle).collect();
        handles.sort_unstable_by_key(|handle| handle.slot);
        handles.dedup();
        if handles.len() > REFERENCES_MAX {
            return Err(CreateError::TooManyReferences { count: handles.len(), limit: REFERENCES_MAX });
        }
        if options.references.iter().any(|child| !std::ptr::eq(&*child.inner, self)) {
            return Err(CreateError::ForeignReference { count: options.references.len() });
        }
        let bytes = handles.len() as u64 * ITEM_BYTES;
        let offset = self.block_or_wait(bytes, slot, options.timeout)?;
        let entry = self.tables.entry(slot);
        entry.list.store(IN_MEMORY | offset, Ordering::Release);
        let mut list = self.unsealed_at(offset, bytes);
        for (item, handle) in list.bytes_mut().chunks_exact_mut(ITEM_BYTES as usize).zip(&handles) {
            item[..8].copy_from_slice(&u64::from(handle.slot).to_le_bytes());
            item[8..].copy_from_slice(&handle.generation.to_le_bytes());
        }
        self.party().begin_list(slot);
        entry.children.store(handles.len() as u32, Ordering::Release);
        Ok(())
    }

    #[inline]
    pub(crate) fn unsealed(&self, draft: Draft) -> Unsealed {
        self.unsealed_at(draft.offset, draft.size)
    }

    pub(crate) fn unsealed_at(&self, offset: u64, bytes: u64) -> Unsealed {
        Unsealed::over(&self.local().window, offset, bytes).expect("the heap hands out blocks inside the data")
    }

    /// What is left to do once the bytes stand: the checksum, and counting what is listed.
    #[inline]
    fn before_seal(&self, draft: Draft, checksum: bool, has_list: bool) {
        if checksum {
            let entry = self.tables.entry(draft.handle.slot);
            entry.checksum.store(crc32fast::hash(self.unsealed(draft).bytes()), Ordering::Relaxed);
            entry.flags.fetch_or(FLAG_CHECKSUM, Ordering::SeqCst);
        }
        if has_list {
            self.party().list_children(draft.handle.slot);
        }
    }

    /// The instant at which an object exists that nobody could find, and so wait for, until now.
    #[inline]
    fn seal_unfound(&self, handle: Handle) {
        // Release: pairs with the load in `hold`.
        self.tables.entry(handle.slot).word.store(Snapshot::sealed(handle.generation), Ordering::Release);
    }

    /// The instant at which an object exists that others may wait for.
    fn seal_found(&self, handle: Handle) {
        let entry = self.tables.entry(handle.slot);
        // SeqCst, then fence: pairs with the waiter that sets its bit and then reads the word.
        entry.word.swap(Snapshot::sealed(handle.generation), Ordering::SeqCst);
        crate::sync::fence_after_rmw();
        if entry.waiters.load(Ordering::SeqCst) != 0 {
            self.ring_waiters(handle.slot);
        }
    }

    /// Somebody chose the very id that was derived for a sealed object: it ends.
    #[cold]
    fn not_entered(&self, handle: Handle) -> Box<CreateError> {
        let id = self.id_of(handle.slot);
        self.party().release(handle.slot, REFERENCE);
        Box::new(CreateError::DuplicateObject { id })
    }

    /// A large put: its successors are to find warm memory.
    #[inline]
    fn want_warm_after(self: &Arc<Self>, draft: Draft) {
        if draft.size >= crate::keeper::WARM_FROM_BYTES {
            self.want_warm(draft.offset);
        }
    }

    pub(crate) fn abort(&self, handle: Handle) {
        let party = self.party();
        let word = Snapshot::unpack(self.tables.entry(handle.slot).word.load(Ordering::SeqCst));
        if word.decider != party.me || word.state != State::Writing {
            // A child drops the writer that it inherited: the object is its parent's.
            party.release(handle.slot, REFERENCE);
            return;
        }
        let mut work = Vec::new();
        party.undo_write(handle.slot, &mut work);
        party.decide_all(work);
        party.release(handle.slot, REFERENCE);
    }

    #[inline(always)]
    pub(crate) fn view(&self, handle: Handle) -> Result<View<'_>, GetError> {
        self.view_pinned(handle, self.party().hold_fast(handle, PIN), || self.find_offset(handle))
    }

    /// A view by a pin that was just taken.
    ///
    /// The rare path hands back two words instead of a view: a result that lives in memory costs
    /// more here than the two atomics (measured: 9.2 against 6.1 ns).
    #[inline(always)]
    fn view_pinned(
        &self,
        handle: Handle,
        pinned: Result<u64, Unsettled>,
        otherwise: impl FnOnce() -> Result<Found, Box<GetError>>,
    ) -> Result<View<'_>, GetError> {
        let location = self.tables.entry(handle.slot).location.load(Ordering::Acquire);
        let (slot, seen, offset) = match pinned {
            Ok(seen) if location & IN_MEMORY != 0 => (handle.slot, seen, location & !IN_MEMORY),
            _ => match otherwise() {
                Ok(found) => (found.slot, PIN, found.offset),
                Err(error) => return Err(*error),
            },
        };
        match View::over(self, slot, seen, offset, self.tables.entry(slot).size.load(Ordering::Relaxed)) {
            Some(view) => Ok(view),
            None => Err(*self.outside(slot, offset)),
        }
    }

    /// By id, when the first look was not enough: the entry may be gone and another in its place.
    #[cold]
    fn find_slowly(&self, first: Handle, id: &ObjectId) -> Result<Found, Box<GetError>> {
        let mut handle = first;
        loop {
            match self.find_offset(handle) {
                Err(error) if matches!(*error, GetError::NotFound { .. }) => {}
                other => return other,
            }
            handle = match self.tables.find(id) {
                Some(now) if now != handle => now,
                _ => return Err(Box::new(GetError::NotFound { id: *id })),
            };
            let _ = self.party().hold_fast(handle, PIN);
        }
    }

    /// The tables say that an object lies where there is no data.
    #[cold]
    fn outside(&self, slot: u32, offset: u64) -> Box<GetError> {
        self.party().release(slot, PIN);
        let bytes = self.size_of(slot);
        let source = GateError::OutOfBounds { offset, bytes, limit: self.tables.geometry.capacity_bytes };
        Box::new(GetError::Corrupt { id: self.id_of(slot), source })
    }

    /// The pin is in the cell; everything else is still open. Fails without the pin.
    #[cold]
    fn find_offset(&self, handle: Handle) -> Result<Found, Box<GetError>> {
        let party = self.party();
        let id = self.id_of(handle.slot);
        match party.settle(handle, PIN) {
            Held::Gone => return Err(Box::new(GetError::NotFound { id })),
            Held::NoValue => {
                party.release(handle.slot, PIN);
                return Err(Box::new(self.not_sealed(handle, Deadline::after(Duration::ZERO))));
            }
            Held::Value => {}
        }
        self.tables.entry(handle.slot).used_ms.store(self.now_ms(), Ordering::Relaxed);
        match self.bring_to_memory(handle) {
            Ok(offset) => Ok(Found { slot: handle.slot, offset }),
            Err(error) => {
                party.release(handle.slot, PIN);
                Err(Box::new(error))
            }
        }
    }

    pub(crate) fn is_validated(&self, handle: Handle) -> bool {
        self.tables.entry(handle.slot).flags.load(Ordering::Acquire) & FLAG_VALIDATED != 0
    }

    pub(crate) fn mark_validated(&self, handle: Handle) {
        self.tables.entry(handle.slot).flags.fetch_or(FLAG_VALIDATED, Ordering::SeqCst);
    }
}

fn flags_of(options: &CreateOptions) -> u32 {
    let lifetime = match options.lifetime {
        Lifetime::Counted => 0,
        Lifetime::Cached => FLAG_CACHED,
        Lifetime::Named => FLAG_NAMED,
    };
    let indexed = if options.by_handle_only { 0 } else { FLAG_INDEXED };
    options.encoding as u32 | lifetime | indexed
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
        self.tables.ring_keeper();
    }
}

/// An object being written in place. Dropped unsealed, it is aborted.
pub struct ObjectWriter {
    store: Store,
    draft: Draft,
    unsealed: Unsealed,
    checksum: bool,
    is_open: bool,
}

impl ObjectWriter {
    /// The id the object will have.
    pub fn id(&self) -> ObjectId {
        self.store.inner.id_of(self.draft.handle.slot)
    }

    /// Makes the object exist, whole, with what was written.
    ///
    /// # Panics
    ///
    /// In a child that inherited the writer: the object is its parent's.
    pub fn seal(mut self) -> ObjectRef {
        let entry = self.store.inner.tables.entry(self.draft.handle.slot);
        let word = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        assert!(word.decider == self.store.inner.party().me, "H4: a forked child cannot seal its parent's object");
        self.is_open = false;
        self.store.finish(self.draft, self.checksum)
    }

    /// Makes the object not exist; the same as dropping the writer.
    pub fn abort(self) {}

    /// The store knows that these bytes are valid in their encoding: readers need not check.
    pub(crate) fn mark_validated(&self) {
        self.store.inner.mark_validated(self.draft.handle);
    }
}

impl std::ops::Deref for ObjectWriter {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.unsealed.bytes()
    }
}

impl std::ops::DerefMut for ObjectWriter {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.unsealed.bytes_mut()
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if self.is_open {
            self.store.inner.abort(self.draft.handle);
        }
    }
}
