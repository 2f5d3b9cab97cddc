//! Making objects: put, create, seal, abort.
//!
//! The one thing to know: the order of steps. First the own cell, then the entry, then the block,
//! then the list, then the index, then the seal: whoever finds one of them after this client died
//! finds everything before it.
//!
//! What is rare hands back at most two words: a result that lives in memory is written in parts and
//! read whole, and the load waits for the stores.

use crate::alloc::heap::Heap;
use crate::copy::copy;
use crate::error::CreateError;
use crate::hold::{Held, PIN, REFERENCE};
use crate::layout::entry::{FLAG_CACHED, FLAG_CHECKSUM, FLAG_INDEXED, FLAG_NAMED, IN_MEMORY};
use crate::list::ITEM_BYTES;
use crate::object::{Object, ObjectRef, Unsealed};
use crate::object_id::ObjectId;
use crate::publish::{PUBLISHED, UNPUBLISHED};
use crate::state::{Snapshot, State};
use crate::store::{CreateOptions, Inner, Lifetime, REFERENCES_MAX, Store};
use crate::sync::Ordering;
use crate::tables::{Handle, Party};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// Everything a put needs that is not shared: room, and ids.
pub(crate) struct Producer {
    pub(crate) heap: Heap,
    task: [u8; 24],
    index: u32,
    random: RandomState,
    chance: u64,
}

/// Numbers of what a task puts have this bit; those of its results, which its caller numbers, not.
const OF_A_PUT: u32 = 1 << 31;

/// An object that is being written: reachable by nobody, or under its id as *not sealed yet*.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) handle: Handle,
    offset: u64,
    size: u64,
}

impl Producer {
    pub(crate) fn new(seed: u64, me: u16) -> Producer {
        let random = RandomState::new();
        // With the client: what one process forks begins with the same hashers.
        let chance = random.hash_one((seed, me, std::process::id()));
        let mut producer = Producer { heap: Heap::default(), task: [0; 24], index: 0, random, chance };
        producer.next_task(seed, me);
        producer
    }

    /// Derives in the name of the driver's `task` from now on: it puts, and nobody runs it again.
    pub(crate) fn begin_driver(&mut self, task: [u8; 24]) {
        (self.task, self.index) = (task, 0);
    }

    /// Derives in the name of `task` from now on.
    pub(crate) fn begin_task(&mut self, task: [u8; 24]) {
        self.task = task;
        self.start_anywhere();
    }

    /// Goes on from a number that no other attempt at the same task came by, as far as chance goes.
    fn start_anywhere(&mut self) {
        // A Weyl sequence from a random start, multiplied and folded.
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let wide = u128::from(self.chance) * 0xD6E8_FEB8_6659_FD93;
        self.index = OF_A_PUT | (wide >> 64) as u32 ^ wide as u32;
    }

    /// A fresh prefix for 2^32 ids: random in its task part, the store's seed in its actor part.
    fn next_task(&mut self, seed: u64, me: u16) {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(
            seed ^ u64::from(std::process::id()) ^ u64::from_ne_bytes(self.task[..8].try_into().expect("8 of 24")),
        );
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

/// Looks at an id after which it cannot be that its objects come and go: a stray store broke one.
pub(crate) const LOOKS_MAX: u32 = 1 << 14;

impl Store {
    /// Copies `bytes` into a new object under a derived id.
    pub fn put(&self, bytes: &[u8]) -> Result<ObjectRef, Box<CreateError>> {
        self.put_with(bytes, &CreateOptions::default())
    }

    /// Copies `bytes` into a new object.
    pub fn put_with(&self, bytes: &[u8], options: &CreateOptions) -> Result<ObjectRef, Box<CreateError>> {
        let inner = &self.inner;
        if options.id.is_some() {
            let draft = inner.draft(bytes.len() as u64, options)?;
            copy(bytes, inner.unsealed(draft).bytes_mut());
            inner.finish(draft, options.checksum);
            return Ok(ObjectRef::new(inner, draft.handle));
        }
        let draft = self.put_unfound(bytes, options)?;
        if !options.by_handle_only && !inner.enter_fresh(draft.handle) {
            return self.put_elsewhere(draft, bytes, options);
        }
        inner.want_warm_after(draft);
        Ok(ObjectRef::new(inner, draft.handle))
    }

    /// A sealed object that is in no index yet: under a fresh id nobody can wait for it.
    #[inline(always)]
    fn put_unfound(&self, bytes: &[u8], options: &CreateOptions) -> Result<Draft, Box<CreateError>> {
        let inner = &self.inner;
        let draft = inner.begin(bytes.len() as u64, options)?;
        copy(bytes, inner.unsealed(draft).bytes_mut());
        inner.before_seal(draft, options.checksum, !options.references.is_empty());
        inner.seal_unfound(draft.handle);
        Ok(draft)
    }

    /// The derived id has been given already, by an earlier attempt at the task or by somebody who
    /// chose it: the object ends, and is put once more under an id from elsewhere.
    #[cold]
    fn put_elsewhere(
        &self,
        draft: Draft,
        bytes: &[u8],
        options: &CreateOptions,
    ) -> Result<ObjectRef, Box<CreateError>> {
        let inner = &self.inner;
        inner.not_entered(draft.handle);
        inner.producer().start_anywhere();
        let draft = self.put_unfound(bytes, options)?;
        if !inner.enter_fresh(draft.handle) {
            return Err(inner.not_entered(draft.handle));
        }
        Ok(ObjectRef::new(inner, draft.handle))
    }

    /// Has what this process puts from now on derive ids in the name of `task`: `task`, then a number
    /// from 2^31 on, below which its results are numbered.
    ///
    /// Ids stay unique where a task runs again, here or elsewhere: each call starts at a random number,
    /// and a put that finds its id taken takes another. Any thread may call this at any instant; the
    /// last call wins, and a thread that puts while another is putting derives in the name of a
    /// random task. So with several tasks at once in one process an id says which process put the
    /// object, and not for certain which task.
    pub fn begin_task(&self, task: [u8; 24]) {
        self.inner.begin_task(task);
    }

    /// A new object of `size` bytes to write in place; unless it is sealed, nothing of it remains.
    pub fn create(&self, size: u64, options: &CreateOptions) -> Result<ObjectWriter, Box<CreateError>> {
        let draft = self.inner.draft(size, options)?;
        Ok(self.writer(draft, options))
    }

    /// The object that somebody promised, by its handle, to write in place; `None` where nobody
    /// refers to it any more.
    ///
    /// Fails with [`CreateError::DuplicateObject`] where it has a value or another writes it: the
    /// first seal wins. The promise decides whether it is found by its id.
    pub fn create_for(
        &self,
        promise: Handle,
        size: u64,
        options: &CreateOptions,
    ) -> Result<Option<ObjectWriter>, Box<CreateError>> {
        let draft = self.inner.draft_for(promise, size, options)?;
        Ok(draft.map(|draft| self.writer(draft, options)))
    }

    /// Copies `bytes` into the object that somebody promised; otherwise as [`Store::create_for`].
    pub fn put_for(
        &self,
        promise: Handle,
        bytes: &[u8],
        options: &CreateOptions,
    ) -> Result<Option<ObjectRef>, Box<CreateError>> {
        let inner = &self.inner;
        let Some(draft) = inner.draft_for(promise, bytes.len() as u64, options)? else { return Ok(None) };
        copy(bytes, inner.unsealed(draft).bytes_mut());
        inner.finish(draft, options.checksum);
        Ok(Some(ObjectRef::new(inner, draft.handle)))
    }

    fn writer(&self, draft: Draft, options: &CreateOptions) -> ObjectWriter {
        let unsealed = self.inner.unsealed(draft);
        let (references, checksum) = (options.references.to_vec(), options.checksum);
        let open = Some(Arc::clone(&self.inner));
        ObjectWriter { open, draft, unsealed, _references: references, checksum }
    }
}

impl Inner {
    fn begin_task(&self, task: [u8; 24]) {
        let first = &self.local().producers[0];
        loop {
            // Whoever has it is in the middle of a put.
            match first.try_take() {
                Some(mut producer) => return producer.begin_task(task),
                None => std::thread::yield_now(),
            }
        }
    }

    /// Enters a sealed object under the fresh id it was given.
    #[inline]
    fn enter_fresh(&self, handle: Handle) -> bool {
        self.party().enter(handle, &self.id_of(handle.slot)).is_ok()
    }

    /// Everything before the bytes: entry, memory, list, index. (Errors are boxed in here: they are
    /// rare and large.)
    pub(crate) fn draft(&self, size: u64, options: &CreateOptions) -> Result<Draft, Box<CreateError>> {
        for _ in 0..LOOKS_MAX {
            if let Some(id) = &options.id
                && let Some(found) = self.tables.find(id)
            {
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
        // What has the id can be neither held nor replaced: a stray store hit its word.
        let id = options.id.expect("only an id that is found, or taken, makes a second round");
        Err(Box::new(CreateError::DuplicateObject { id }))
    }

    /// A draft in an entry of its own. Only two words come back from what it calls: a result that
    /// lives in memory is written in parts and read whole, and that waits (12 ns of 45 here).
    #[inline(always)]
    fn begin(&self, size: u64, options: &CreateOptions) -> Result<Draft, Box<CreateError>> {
        let party = self.party();
        if party.is_nobody() || size > self.tables.geometry.capacity_bytes {
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
        let offset = self.place(handle, size, block, options)?;
        Ok(Draft { handle, offset, size })
    }

    /// Says where a draft lies, if it has its block and needs no list; else gets it what it needs.
    #[inline(always)]
    fn place(
        &self,
        handle: Handle,
        size: u64,
        block: Option<u64>,
        options: &CreateOptions,
    ) -> Result<u64, Box<CreateError>> {
        match block {
            Some(offset) if options.references.is_empty() => {
                self.tables.entry(handle.slot).location.store(IN_MEMORY | offset, Ordering::Release);
                Ok(offset)
            }
            block => self.furnish(handle, size, block, options),
        }
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
    fn furnish(
        &self,
        handle: Handle,
        size: u64,
        block: Option<u64>,
        options: &CreateOptions,
    ) -> Result<u64, Box<CreateError>> {
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
        furnished.inspect_err(|_| self.abort(handle))
    }

    /// Makes a fresh slot this client's: cell first, so that a sweeper finds it.
    #[inline(always)]
    fn fill_entry(&self, slot: u32, id: &ObjectId, size: u64, flags: u32, state: State) -> u64 {
        let party = self.party();
        debug_assert!(self.tables.has_touched(party.me, slot), "A5: the cell of slot {slot} lies on an unnoted page");
        self.tables.cell(party.me, slot).fetch_add(REFERENCE, Ordering::SeqCst);
        let entry = self.tables.entry(slot);
        let now = self.now_ms();
        let (words, index) = id.words();
        // What is zero in a free entry stays so: location, list, children, waiters.
        debug_assert!(entry.location.load(Ordering::Relaxed) == 0, "A4: slot {slot} was not cleared");
        entry.size.store(size, Ordering::Relaxed);
        entry.holders.store(1 << (party.me % 64), Ordering::Relaxed);
        entry.listed.store(0, Ordering::Relaxed);
        entry.flags.store(flags, Ordering::Relaxed);
        entry.id.iter().zip(words).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        entry.id_index.store(index, Ordering::Relaxed);
        entry.made_ms.store(now, Ordering::Relaxed);
        entry.used_ms.store(now, Ordering::Relaxed);
        entry.creator.store(self.client().pack(), Ordering::Relaxed);
        // An earlier life's mark; whoever walked there then sees another generation.
        entry.next.store(0, Ordering::Relaxed);
        let publisher = if flags & FLAG_INDEXED != 0 { PUBLISHED } else { UNPUBLISHED };
        entry.publisher.store(publisher, Ordering::Relaxed);
        let free = Snapshot::unpack(entry.word.load(Ordering::Relaxed));
        debug_assert!(free.state == State::Free, "A4: slot {slot} handed out while {free:?}");
        let decider = if state == State::Writing { party.me } else { 0 };
        entry.word.store(free.to(state, decider), Ordering::Release);
        free.generation
    }

    /// An entry without a value that this client refers to; under a derived id where none is given.
    pub(crate) fn promised(&self, id: Option<&ObjectId>, flags: u32) -> Result<Handle, Box<CreateError>> {
        let party = self.party();
        if party.is_nobody() {
            return Err(self.refusal(0));
        }
        let mut producer = self.producer();
        let id = &id.copied().unwrap_or_else(|| producer.next_id(party));
        let slot = producer.heap.slot(party);
        drop(producer);
        let slot = match slot {
            Some(slot) => slot,
            None => self.slot_after_sweep()?,
        };
        let generation = self.fill_entry(slot, id, 0, flags, State::Promised);
        Ok(Handle { slot, generation })
    }

    /// As [`Inner::adopt`], of a promise that may be in no index. `None`: its life is over.
    #[inline(always)]
    fn draft_for(
        &self,
        promise: Handle,
        size: u64,
        options: &CreateOptions,
    ) -> Result<Option<Draft>, Box<CreateError>> {
        for _ in 0..LOOKS_MAX {
            if !self.is_live(promise) {
                return Ok(None);
            }
            let id = self.id_of(promise.slot);
            if self.is_ready(promise) {
                return Err(Box::new(CreateError::DuplicateObject { id }));
            }
            if let Some(draft) = self.adopt(promise, &id, size, options)? {
                return Ok(Some(draft));
            }
        }
        Err(Box::new(CreateError::DuplicateObject { id: self.id_of(promise.slot) }))
    }

    /// Makes somebody's promise this client's to write. `None`: the object ended meanwhile.
    #[inline(always)]
    fn adopt(
        &self,
        found: Handle,
        id: &ObjectId,
        size: u64,
        options: &CreateOptions,
    ) -> Result<Option<Draft>, Box<CreateError>> {
        let party = self.party();
        if party.is_nobody() || size > self.tables.geometry.capacity_bytes {
            return Err(self.refusal(size));
        }
        match party.hold(found, REFERENCE) {
            Held::Gone => return Ok(None),
            Held::Value => return self.not_to_adopt(found, id),
            Held::NoValue => {}
        }
        let entry = self.tables.entry(found.slot);
        let promised = Snapshot { state: State::Promised, decider: 0, generation: found.generation };
        let writing = promised.to(State::Writing, party.me);
        if entry.word.compare_exchange(promised.pack(), writing, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return self.not_adopted(found, id);
        }
        entry.size.store(size, Ordering::Relaxed);
        let flags = flags_of(options) & !FLAG_INDEXED;
        if flags != 0 {
            // Added, not stored: a deleter may set its flag meanwhile.
            entry.flags.fetch_or(flags, Ordering::SeqCst);
        }
        let now_ms = self.now_ms();
        entry.made_ms.store(now_ms, Ordering::Relaxed);
        // Its turn to move to disk comes by its value's age, not by the promise's.
        entry.used_ms.store(now_ms, Ordering::Relaxed);
        let block = self.producer().heap.small_block(party, size, found.slot);
        let offset = self.place(found, size, block, options)?;
        Ok(Some(Draft { handle: found, offset, size }))
    }

    /// It has a value: an error, unless it was held by us alone; then it has just ended.
    #[cold]
    fn not_to_adopt(&self, found: Handle, id: &ObjectId) -> Result<Option<Draft>, Box<CreateError>> {
        self.party().release(found.slot, REFERENCE);
        let stands = self.tables.find(id) == Some(found);
        if stands { Err(Box::new(CreateError::DuplicateObject { id: *id })) } else { Ok(None) }
    }

    /// Its word changed: an error, if somebody living writes it now.
    #[cold]
    fn not_adopted(&self, found: Handle, id: &ObjectId) -> Result<Option<Draft>, Box<CreateError>> {
        let party = self.party();
        let is_writing =
            Snapshot::unpack(self.tables.entry(found.slot).word.load(Ordering::SeqCst)).state == State::Writing;
        let is_taken = is_writing && !party.undo_dead_write(found.slot);
        party.release(found.slot, REFERENCE);
        if is_taken { Err(Box::new(CreateError::DuplicateObject { id: *id })) } else { Ok(None) }
    }

    /// Writes the list of references; what it names is counted at seal.
    fn write_list(&self, slot: u32, options: &CreateOptions) -> Result<(), Box<CreateError>> {
        let mut handles: Vec<Handle> = options.references.iter().map(|child| child.handle()).collect();
        handles.sort_unstable_by_key(|handle| handle.slot);
        handles.dedup();
        if handles.len() > REFERENCES_MAX {
            return Err(CreateError::TooManyReferences { count: handles.len(), limit: REFERENCES_MAX }.into());
        }
        if options.references.iter().any(|child| !std::ptr::eq(&*child.inner, self)) {
            return Err(CreateError::ForeignReference { count: options.references.len() }.into());
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

    /// Everything after the bytes, of an object that others may know.
    #[inline]
    fn finish(self: &Arc<Self>, draft: Draft, checksum: bool) {
        let entry = self.tables.entry(draft.handle.slot);
        let has_list = entry.children.load(Ordering::Relaxed) != 0;
        // Only now: should this writer end, the promise is still known for whose it is.
        entry.creator.store(self.client().pack(), Ordering::Relaxed);
        self.before_seal(draft, checksum, has_list);
        // Always with the bell: its id may be deleted by now, and somebody waits by reference.
        self.seal_found(draft.handle);
        self.want_warm_after(draft);
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
        self.tables.entry(handle.slot).flags.fetch_and(!(FLAG_CACHED | FLAG_NAMED), Ordering::SeqCst);
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

/// An object being written in place. Dropped unsealed, it is aborted.
pub struct ObjectWriter {
    /// `None` once it is sealed: then the reference has it.
    open: Option<Arc<Inner>>,
    draft: Draft,
    unsealed: Unsealed,
    /// Counted at seal, so held until then (L3).
    _references: Vec<ObjectRef>,
    checksum: bool,
}

impl ObjectWriter {
    /// The id the object will have.
    pub fn id(&self) -> ObjectId {
        self.inner().id_of(self.draft.handle.slot)
    }

    fn inner(&self) -> &Arc<Inner> {
        self.open.as_ref().expect("only `seal` takes it, and the writer with it")
    }

    /// Slot and generation of the entry that the object will have.
    pub fn handle(&self) -> Handle {
        self.draft.handle
    }

    /// Makes the object exist, whole, with what was written.
    ///
    /// # Panics
    ///
    /// In a child that inherited the writer: the object is its parent's.
    pub fn seal(mut self) -> ObjectRef {
        let inner = self.inner();
        let word = Snapshot::unpack(inner.tables.entry(self.draft.handle.slot).word.load(Ordering::SeqCst));
        assert!(word.decider == inner.party().me, "H4: a forked child cannot seal its parent's object");
        let inner = self.open.take().expect("it was there a moment ago");
        inner.finish(self.draft, self.checksum);
        ObjectRef::owning(inner, self.draft.handle)
    }

    /// As [`ObjectWriter::seal`], with a pin that is there before anybody could move the bytes to disk.
    pub(crate) fn seal_pinned(self) -> (ObjectRef, Object) {
        let (inner, draft) = (Arc::clone(self.inner()), self.draft);
        let held = inner.party().hold(draft.handle, PIN);
        debug_assert!(held == Held::NoValue, "H3: {held:?} of an object that is being written");
        let reference = self.seal();
        (reference, Object::pinned(&inner, draft.handle, draft.offset, draft.size))
    }

    /// The store, and where in its data the bytes are.
    pub(crate) fn place(&self) -> (&Arc<Inner>, u64) {
        (self.inner(), self.draft.offset)
    }

    /// Makes the object not exist; the same as dropping the writer.
    pub fn abort(self) {}

    /// The store knows that these bytes are valid in their encoding: readers need not check.
    pub(crate) fn mark_validated(&self) {
        self.inner().mark_validated(self.draft.handle);
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
        if let Some(inner) = &self.open {
            inner.abort(self.draft.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Keeping};

    #[test]
    fn a_put_whose_derived_id_is_taken_takes_another() {
        let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
        let store = Store::in_process(config).expect("a small store");
        store.begin_task([7; 24]);
        let first = store.put(b"first").expect("there is room");
        store.inner.producer().index = first.id().index() - 1;
        let second = store.put(b"second").expect("an id is found");
        assert_eq!((first.id().task(), second.id().task()), ([7; 24], [7; 24]));
        assert_ne!(first.id(), second.id());
        store.inner.producer().index = first.id().index() - 1;
        let third = store.create(5, &CreateOptions::default()).expect("an id is found").seal();
        assert!(![first.id(), second.id()].contains(&third.id()));
        assert_eq!(&*store.view_by_id(&second.id()).expect("it is sealed"), b"second");
        drop((first, second, third));
        store.check_invariants();
        assert!(store.list().is_empty());
    }
}
