//! Looking inside, without stopping anyone.
//!
//! The one thing to know: everything here is read while others write, so a listing is true of each
//! object at some instant during the call, and of the whole only when the store is quiet.

use crate::alloc::{MEDIUM_GRANULE, SMALL_GRANULE};
use crate::error::HolderShare;
use crate::hold::{HOLDS, PIN};
use crate::layout::chunk::{Back, Kind};
use crate::layout::client::ClientState;
use crate::layout::entry::{FLAG_CACHED, FLAG_NAMED, IN_MEMORY, ON_DISK};
use crate::layout::{CHUNK_BYTES, GRANULES};
use crate::object::Encoding;
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
    /// The client that made it.
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
            creator: entry.creator.load(Ordering::Relaxed) as u16,
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
        let slots = self.inner.living_slots().filter(|&slot| slot >= first);
        slots.filter_map(|slot| self.inner.object_info(slot)).take(count).collect()
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
