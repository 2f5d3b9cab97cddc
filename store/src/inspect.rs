//! Looking inside, without stopping anyone.
//!
//! The one thing to know: everything here is read while others write, so a listing is true of each
//! object at some instant during the call, and of the whole only when the store is quiet.

use crate::alloc::{MEDIUM_GRANULE, SMALL_GRANULE};
use crate::error::HolderShare;
use crate::hold::{HOLDS, PIN};
use crate::layout::chunk::{Back, Kind};
use crate::layout::client::ClientState;
use crate::layout::entry::{FLAG_CACHED, FLAG_NAMED, FLAG_PROMISED, IN_MEMORY, ON_DISK};
use crate::layout::{CHUNK_BYTES, GRANULES};
use crate::members::ClientId;
use crate::object::{Encoding, ObjectRef};
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::store::{Inner, Lifetime, Store};
use crate::sync::Ordering;
use crate::tables::Handle;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where an object is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ObjectState {
    /// Named, and nobody has made it yet.
    Promised,
    /// Being written.
    Writing,
    /// Its value lies in memory.
    InMemory,
    /// Its value is being copied to disk, and still lies in memory.
    Spilling,
    /// Its value lies on disk.
    OnDisk,
    /// Being taken apart.
    Ending,
}

/// What one client holds of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Client number.
    pub client: u16,
    /// Its process.
    pub pid: u32,
    /// How many references it has.
    pub references: u32,
    /// How many live views it has.
    pub pins: u32,
}

/// One object, as it was at some instant during the listing.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its id.
    pub id: ObjectId,
    /// Its slot and generation.
    pub handle: Handle,
    /// Where in its life it is.
    pub state: ObjectState,
    /// Bytes of its value.
    pub size: u64,
    /// How they are to be read.
    pub encoding: Encoding,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// How many containers list it.
    pub listed: u64,
    /// How many objects it lists.
    pub references: u32,
    /// The client that made it, or makes it; of a promise, the one that promised it.
    pub creator: u16,
    /// How long ago.
    pub age: Duration,
    /// Who holds it.
    pub holders: Vec<Holder>,
}

/// One connected client.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Its number.
    pub client: u16,
    /// Its process.
    pub pid: u32,
    /// What it calls itself.
    pub label: String,
    /// How long it has been connected.
    pub age: Duration,
    /// The client that forked it.
    pub parent: Option<u16>,
    /// Bytes it waits for room for; 0 when it does not.
    pub waiting_bytes: u64,
    /// Its process is stopped.
    pub is_stopped: bool,
}

/// How the store's memory is used. `used + unused + free = capacity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Bytes of blocks that objects (and their lists) have, rounded up to granules.
    pub used_bytes: u64,
    /// Bytes that clients own and no object has.
    pub unused_bytes: u64,
    /// Bytes nobody owns.
    pub free_bytes: u64,
    /// Bytes of the data segment that have pages.
    pub resident_bytes: u64,
    /// Bytes of all tables that have pages.
    pub metadata_bytes: u64,
    /// Objects and bytes of their values, by state.
    pub by_state: BTreeMap<ObjectState, (u64, u64)>,
    /// Clients connected.
    pub clients: u64,
    /// Objects moved to disk since the store was made.
    pub spilled_objects: u64,
    /// Objects brought back.
    pub restored_objects: u64,
    /// Cached objects ended for room.
    pub evicted_objects: u64,
    /// Dead clients swept.
    pub swept_clients: u64,
    /// Holds given back by sweeps.
    pub swept_holds: u64,
}

impl Inner {
    /// Who holds a slot, with the cell.
    pub(crate) fn holders_of(&self, slot: u32) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.tables.clients_in_use().filter_map(move |client| {
            if !self.tables.has_touched(client, slot) {
                return None;
            }
            let holds = self.tables.cell(client, slot).load(Ordering::SeqCst) & HOLDS;
            (holds != 0).then_some((client, holds))
        })
    }

    fn holders(&self, slot: u32) -> Vec<Holder> {
        let holder = |(client, holds): (u16, u64)| Holder {
            client,
            pid: self.tables.client(client).read().pid,
            references: holds as u32,
            pins: (holds / PIN) as u32,
        };
        self.holders_of(slot).map(holder).collect()
    }

    /// What each client keeps in memory, in bytes of values: neither what is on disk counts nor what
    /// has no block yet.
    pub(crate) fn holder_shares(&self) -> Vec<HolderShare> {
        let mut shares: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        for slot in self.living_slots() {
            let in_memory = self.tables.entry(slot).location.load(Ordering::SeqCst) & IN_MEMORY != 0;
            let size = if in_memory { self.size_of(slot) } else { 0 };
            for (client, holds) in self.holders_of(slot) {
                let share = shares.entry(client).or_default();
                share.0 += size;
                share.1 += if holds >= PIN { size } else { 0 };
            }
        }
        let share = |(client, (held_bytes, pinned_bytes))| {
            let record = self.tables.client(client);
            let pid = record.read().pid;
            HolderShare {
                client,
                pid,
                label: record.label_text(),
                held_bytes,
                pinned_bytes,
                is_stopped: is_stopped(pid),
            }
        };
        shares.into_iter().map(share).collect()
    }

    fn object_info(&self, slot: u32) -> Option<ObjectInfo> {
        let entry = self.tables.entry(slot);
        let before = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        let location = entry.location.load(Ordering::SeqCst);
        let flags = entry.flags.load(Ordering::SeqCst);
        let age_ms = self.now_ms().wrapping_sub(entry.made_ms.load(Ordering::Relaxed));
        let info = ObjectInfo {
            id: self.id_of(slot),
            handle: Handle { slot, generation: before.generation },
            state: object_state(before.state, location)?,
            size: self.size_of(slot),
            encoding: Encoding::from_flags(flags),
            lifetime: lifetime(flags),
            listed: crate::list::listed_count(entry),
            references: entry.children.load(Ordering::SeqCst),
            creator: match before.state {
                State::Writing => before.decider,
                _ => ClientId::unpack(entry.creator.load(Ordering::Relaxed)).number,
            },
            age: Duration::from_millis(u64::from(age_ms)),
            holders: self.holders(slot),
        };
        let after = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        (after.generation == before.generation).then_some(info)
    }

    /// Bytes of blocks in one span that are taken, by its own bits.
    fn taken_bytes(&self, first: u32) -> u64 {
        let kind = self.tables.span_word(first).kind;
        let granule_bytes = match kind {
            Kind::Large => {
                return if self.tables.span_is_taken(first) {
                    u64::from(self.tables.span_chunks(first)) * CHUNK_BYTES
                } else {
                    0
                };
            }
            Kind::Medium | Kind::Filling => MEDIUM_GRANULE,
            _ => SMALL_GRANULE,
        };
        let bits = &self.tables.chunk_bits[first as usize];
        (0..GRANULES)
            .filter(|granule| {
                let (word, bit) = (granule / 64, 1 << (granule % 64));
                bits.heads[word].load(Ordering::SeqCst) & !bits.freed[word].load(Ordering::SeqCst) & bit != 0
            })
            .map(|granule| {
                u64::from(Back::unpack(self.tables.back(first, granule).load(Ordering::SeqCst)).granules)
                    * granule_bytes
            })
            .sum()
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.tally();
        self.add_memory(&mut usage);
        self.living_slots().for_each(|slot| self.add_object(slot, &mut usage));
        usage
    }

    fn add_object(&self, slot: u32, usage: &mut Usage) {
        let entry = self.tables.entry(slot);
        let state = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state;
        if let Some(state) = object_state(state, entry.location.load(Ordering::SeqCst)) {
            let of_state = usage.by_state.entry(state).or_default();
            *of_state = (of_state.0 + 1, of_state.1 + self.size_of(slot));
        }
    }

    /// What costs nothing to know.
    fn tally(&self) -> Usage {
        let header = self.tables.header();
        Usage {
            capacity_bytes: self.tables.geometry.capacity_bytes,
            resident_bytes: self.data.allocated_bytes().unwrap_or(0),
            metadata_bytes: self.segment.allocated_bytes().unwrap_or(0),
            clients: self.tables.clients_in_use().count() as u64,
            spilled_objects: header.spilled_objects.load(Ordering::Relaxed),
            restored_objects: header.restored_objects.load(Ordering::Relaxed),
            evicted_objects: header.evicted_objects.load(Ordering::Relaxed),
            swept_clients: header.swept_clients.load(Ordering::Relaxed),
            swept_holds: header.swept_holds.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }

    fn add_memory(&self, usage: &mut Usage) {
        for chunk in 0..self.tables.chunk_count() {
            match self.tables.span_of(chunk) {
                None => usage.free_bytes += CHUNK_BYTES,
                Some((first, _)) if first == chunk => {
                    let span = u64::from(self.tables.span_chunks(first)) * CHUNK_BYTES;
                    let used = self.taken_bytes(first);
                    usage.used_bytes += used;
                    usage.unused_bytes += span.saturating_sub(used);
                }
                Some(_) => {}
            }
        }
    }
}

impl Inner {
    pub(crate) fn is_live(&self, handle: Handle) -> bool {
        if !self.tables.names_entry(handle.slot) {
            return false;
        }
        let word = Snapshot::unpack(self.tables.entry(handle.slot).word.load(Ordering::SeqCst));
        word.generation == handle.generation && word.lives()
    }

    fn is_held_besides(&self, handle: Handle, client: ClientId) -> bool {
        // Of another life of its number nobody is left out.
        let besides = if self.tables.is_swept(client) { 0 } else { client.number };
        self.is_live(handle) && self.party().is_held_besides(handle.slot, besides) && self.is_live(handle)
    }

    /// The object of a slot, if it is a promise of that client which nobody living is keeping.
    fn open_promise(&self, slot: u32, client: ClientId) -> Option<Handle> {
        let entry = self.tables.entry(slot);
        let word = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        let is_open = match word.state {
            State::Promised | State::Forsaken => true,
            State::Writing => self.tables.ended(word.decider).is_some(),
            State::Free | State::Dead | State::Sealed | State::Condemned | State::Spilling | State::Unloading => false,
        };
        let is_theirs = entry.flags.load(Ordering::SeqCst) & FLAG_PROMISED != 0
            && entry.creator.load(Ordering::SeqCst) == client.pack();
        let handle = Handle { slot, generation: word.generation };
        // Its creator is read in between: it is that of this life of the slot.
        (is_open && is_theirs && self.is_live(handle)).then_some(handle)
    }
}

fn object_state(state: State, location: u64) -> Option<ObjectState> {
    match state {
        State::Free => None,
        State::Promised | State::Forsaken => Some(ObjectState::Promised),
        State::Writing => Some(ObjectState::Writing),
        State::Sealed | State::Condemned if location & ON_DISK != 0 && location & IN_MEMORY == 0 => {
            Some(ObjectState::OnDisk)
        }
        State::Sealed | State::Condemned => Some(ObjectState::InMemory),
        State::Spilling | State::Unloading => Some(ObjectState::Spilling),
        State::Dead => Some(ObjectState::Ending),
    }
}

fn lifetime(flags: u32) -> Lifetime {
    if flags & FLAG_NAMED != 0 {
        Lifetime::Named
    } else if flags & FLAG_CACHED != 0 {
        Lifetime::Cached
    } else {
        Lifetime::Counted
    }
}

/// Whether a process is stopped, as /proc says; a process that cannot be looked at is not.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('T' | 't'))
}

impl Store {
    /// Every living object, with who holds it, since when.
    pub fn list(&self) -> Vec<ObjectInfo> {
        self.list_from(0, usize::MAX)
    }

    /// At most `count` of the living objects, those with the lowest slots from `first` on.
    pub fn list_from(&self, first: u32, count: usize) -> Vec<ObjectInfo> {
        let slots = self.inner.living_slots_from(first);
        slots.filter_map(|slot| self.inner.object_info(slot)).take(count).collect()
    }

    /// A reference to an object of this id, also to one that is known by its handle only: those are in no
    /// index, so this looks at every entry where [`Store::lookup`] finds nothing. `None` when there is none.
    pub fn search(&self, id: &ObjectId) -> Option<ObjectRef> {
        let of_slot = |slot: u32| {
            let generation = Snapshot::unpack(self.inner.tables.entry(slot).word.load(Ordering::SeqCst)).generation;
            // Only what is held stays what it is.
            self.refer(Handle { slot, generation }).filter(|object| object.id() == *id)
        };
        let theirs = |slot: &u32| self.inner.id_of(*slot) == *id;
        self.lookup(id).or_else(|| self.inner.living_slots_from(0).filter(theirs).find_map(of_slot))
    }

    /// Everyone who is connected.
    pub fn clients(&self) -> Vec<ClientInfo> {
        let info = |client: u16| {
            let record = self.inner.tables.client(client);
            let identity = record.read();
            let age_ms = self.inner.now_ms().wrapping_sub(record.joined_ms.load(Ordering::Relaxed));
            (identity.state == ClientState::Alive).then(|| ClientInfo {
                client,
                pid: identity.pid,
                label: record.label_text(),
                age: Duration::from_millis(u64::from(age_ms)),
                parent: record.parent.load(Ordering::Relaxed).checked_sub(1).map(|parent| parent as u16),
                waiting_bytes: u64::from(record.wanting_kib.load(Ordering::Relaxed)) * 1024,
                is_stopped: is_stopped(identity.pid),
            })
        };
        self.inner.tables.clients_in_use().filter_map(info).collect()
    }

    /// Whether the object, sealed or promised, still lives under that generation of its slot. One
    /// load: it may end before this returns, unless somebody holds it.
    pub fn is_live(&self, handle: Handle) -> bool {
        self.inner.is_live(handle)
    }

    /// Whether anybody but that client holds the object, or a container lists it; not when it is gone.
    ///
    /// What the client has in its row counts as its own until it is swept, dead or not; a child that
    /// it forked is another client. As of some instant during the call: while anybody holds the
    /// object, others may find it by its handle.
    pub fn holders_besides(&self, handle: Handle, client: ClientId) -> bool {
        self.inner.is_held_besides(handle, client)
    }

    /// What that client promised by handle ([`Store::promise_by_handle`]) and nobody has sealed: a
    /// promise that a living client is writing right now is not among them. Those that nobody else
    /// wants are; see [`Store::holders_besides`].
    ///
    /// Looks at every object: for who cleans up after a death. Promises by id are not among them:
    /// whoever has the value keeps those.
    pub fn promises_of(&self, client: ClientId) -> Vec<Handle> {
        self.inner.living_slots().filter_map(|slot| self.inner.open_promise(slot, client)).collect()
    }

    /// Who keeps how much.
    pub fn holders(&self) -> Vec<HolderShare> {
        self.inner.holder_shares()
    }

    /// How the memory is used: looks at every chunk and every object.
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }

    /// The counters of [`Store::usage`] and nothing that would have to be added up: `used_bytes`,
    /// `unused_bytes`, `free_bytes` and `by_state` are empty.
    pub fn tally(&self) -> Usage {
        self.inner.tally()
    }

    /// Checks everything that must hold while nobody else works; for tests.
    ///
    /// # Panics
    ///
    /// When an invariant is broken, with its number.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) {
        crate::testing::check_invariants(&self.inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, CreateOptions, Keeping};
    use store_shm::liveness::ProcessId;

    fn small() -> Store {
        let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
        Store::in_process(config).expect("a small store")
    }

    fn joined(store: &Store) -> Store {
        let client = store.admit(ProcessId::current(), "another").expect("there are numbers");
        let config = Config { keeping: Keeping::Inline, ..Config::default() };
        Store::attach(store.segments().expect("descriptors"), client, config).expect("it is admitted")
    }

    fn promise(store: &Store) -> ObjectRef {
        store.promise_by_handle(None).expect("there is room")
    }

    #[test]
    fn what_is_known_by_handle_only_is_found_by_a_search() {
        let store = small();
        let id = ObjectId::new([7; 28]);
        let by_handle = CreateOptions { by_handle_only: true, id: Some(id), ..CreateOptions::default() };
        let object = store.put_with(b"value", &by_handle).unwrap();
        assert!(store.lookup(&id).is_none());
        let found = joined(&store).search(&id).expect("it lives");
        assert_eq!(found.handle(), object.handle());
        drop((object, found));
        assert!(store.search(&id).is_none(), "it is gone");
        let indexed = store.put_with(b"value", &CreateOptions { id: Some(id), ..CreateOptions::default() }).unwrap();
        assert_eq!(store.search(&id).map(|found| found.handle()), Some(indexed.handle()));
    }

    #[test]
    fn pages_of_a_listing_begin_where_they_are_told_to() {
        let store = small();
        let kept: Vec<ObjectRef> = (0..600).map(|_| promise(&store)).collect();
        let all: Vec<u32> = store.list().iter().map(|info| info.handle.slot).collect();
        assert_eq!(all.len(), kept.len());
        for at in [0, 1, 254, 255, 256, 257, 599] {
            let page: Vec<u32> = store.list_from(all[at], 2).iter().map(|info| info.handle.slot).collect();
            assert_eq!(page, all[at..all.len().min(at + 2)]);
        }
        assert!(store.list_from(u32::MAX, 1).is_empty());
    }

    #[test]
    fn an_object_lives_under_its_generation_only() {
        let store = small();
        let object = promise(&store);
        let handle = object.handle();
        assert!(store.is_live(handle));
        drop(store.put_for(handle, b"value", &CreateOptions::default()).expect("there is room"));
        assert!(store.is_live(handle));
        assert!(!store.is_live(Handle { generation: handle.generation + 1, ..handle }));
        drop(object);
        assert!(!store.is_live(handle) && !store.is_live(Handle { slot: u32::MAX, generation: 0 }));
    }

    #[test]
    fn who_else_holds_an_object_is_everybody_but_the_one_named() {
        let store = small();
        let other = joined(&store);
        let (me, them) = (store.client(), other.client());
        let object = promise(&store);
        let besides = |client| store.holders_besides(object.handle(), client);
        assert!(!besides(me) && besides(them));
        let earlier = ClientId { generation: me.generation.wrapping_sub(1), ..me };
        assert!(besides(earlier), "another life of the number was taken for this one");
        let theirs = other.refer(object.handle()).expect("it lives");
        assert!(besides(me) && besides(them));
        drop(theirs);
        let references = [object.clone()];
        let list = store.put_with(b"", &CreateOptions { references: &references, ..CreateOptions::default() });
        assert!(besides(me), "a container lists it");
        drop(list.expect("there is room"));
        assert!(!besides(me));
        let handle = object.handle();
        drop((references, object));
        assert!(!store.holders_besides(handle, them), "it is gone");
    }

    #[test]
    fn an_abandoned_promise_is_its_makers_until_it_is_sealed() {
        let store = small();
        let (maker, writer) = (joined(&store), joined(&store));
        let client = maker.client();
        let promised: Vec<Handle> = (0..3).map(|_| std::mem::ManuallyDrop::new(promise(&maker)).handle()).collect();
        std::mem::forget(maker.promise(&ObjectId::new([9; 28])).expect("there is room"));
        assert_eq!(store.promises_of(client), promised, "and none by id");
        assert!(store.promises_of(store.client()).is_empty());
        let options = CreateOptions::default();
        store.put_for(promised[0], b"sealed", &options).expect("there is room");
        let writing = writer.create_for(promised[1], 9, &options).expect("there is room");
        assert_eq!(store.promises_of(client), promised[2..], "a living client writes the other");
        maker.abandon();
        std::mem::forget(writing);
        writer.abandon();
        assert_eq!(store.promises_of(client), promised[1..], "its writer ended");
        let kept: Vec<ObjectRef> = promised.iter().filter_map(|&handle| store.refer(handle)).collect();
        assert_eq!((kept.len(), store.reclaim()), (3, 2));
        assert_eq!(store.promises_of(client), promised[1..], "both ended");
        let next = joined(&store);
        assert_eq!(next.client().number, client.number);
        assert!(store.promises_of(next.client()).is_empty(), "another life of the number");
    }
}
