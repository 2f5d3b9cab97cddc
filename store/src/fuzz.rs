//! Stray stores: scribbles over the tables of a small store, then works on in it.
//!
//! The one thing to know: whatever the tables say, every operation ends, and ends in a result; what
//! it finds need not make sense. Each input begins with the same tables, so a seed repeats it. It
//! must not be linked by anything that ships.

use crate::alloc::heap::Heap;
use crate::arrow::fuzz::Mutator;
use crate::hold::{DECIDING, REFERENCE};
use crate::keeper::Keeping;
use crate::layout::entry::{Entry, IN_MEMORY};
use crate::layout::{CHUNK_BYTES, Geometry};
use crate::list::ITEM_BYTES;
use crate::make::ObjectWriter;
use crate::object::{Encoding, Object, ObjectRef};
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::store::{Config, CreateOptions, Lifetime, Store};
use crate::sync::{AtomicU64, Ordering};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use store_shm::array::SharedArray;
use store_shm::liveness::ProcessId;
use store_shm::map::SharedMap;
use store_shm::segment::Memfd;

/// Values that offsets, counts and numbers get wrong.
const INTERESTING: [u64; 12] = [0, 1, 2, 63, 255, 256, 1 << 24, 1 << 31, u32::MAX as u64, 1 << 48, 1 << 63, u64::MAX];
/// Ids that the store knows, and a few more.
const IDS: u32 = 12;
/// How much of a value is put back; only records and lists are read for what they say.
const VALUE_FRONT_BYTES: u64 = 512;

/// Who hears what the operations of an input came to.
pub trait Outcomes {
    /// An operation ended, and not in an error.
    fn ended(&mut self, operation: &'static str);
    /// An operation ended in an error.
    fn failed(&mut self, operation: &'static str, error: &dyn Error);
}

/// Nobody listens.
impl Outcomes for () {
    fn ended(&mut self, _: &'static str) {}

    fn failed(&mut self, _: &'static str, _: &dyn Error) {}
}

/// Two clients of one small store, and how its tables were before anything went wrong.
pub struct Scribbler {
    words: SharedArray<AtomicU64>,
    image: Vec<u64>,
    data: SharedArray<AtomicU64>,
    /// The data that the tables name: a stray store may let it be handed out again.
    named: Vec<(usize, u64)>,
    /// Words that say something.
    telling: Vec<u32>,
    actor: Store,
    other: Store,
    references: Vec<ObjectRef>,
    /// What keeps the tables as they are: views and objects that are being written.
    _kept: (Vec<ObjectRef>, Vec<Object>, Vec<ObjectWriter>),
}

fn id_of(index: u32) -> ObjectId {
    ObjectId::of_task([9; 24], index)
}

fn options(index: u32) -> CreateOptions<'static> {
    CreateOptions { id: Some(id_of(index)), ..CreateOptions::default() }
}

fn stores() -> (Store, Store) {
    let geometry = Geometry { capacity_bytes: 8 * CHUNK_BYTES, slots: 1024, clients: 4, buckets: 16 };
    let config = Config {
        label: "fuzz".to_owned(),
        create_timeout: Duration::ZERO,
        keeping: Keeping::Inline,
        ..Config::default()
    };
    let other = Store::with_geometry(geometry, config.clone()).expect("a small store can be made");
    let client = other.admit(ProcessId::current(), "actor").expect("a row is free");
    let segments = other.segments().expect("descriptors can be duplicated");
    let actor = Store::attach(segments, client, config).expect("it was admitted");
    (other, actor)
}

/// All of the data as words.
fn data_words(store: &Store) -> SharedArray<AtomicU64> {
    let segments = store.segments().expect("descriptors can be duplicated");
    let data = Memfd::from_fd(segments.data).expect("it is the data");
    let map = Arc::new(SharedMap::map(&data).expect("the data can be mapped"));
    SharedArray::new(&map, 0, store.inner.tables.geometry.capacity_bytes / 8).expect("all of it")
}

/// The words of the values (the front of each is enough) and lists of all objects.
fn named_words(store: &Store, data: &SharedArray<AtomicU64>) -> Vec<(usize, u64)> {
    let tables = &store.inner.tables;
    let entries = (1..tables.geometry.slots as u32).map(|slot| tables.entry(slot));
    let blocks = entries.flat_map(|entry| {
        let size = entry.size.load(Ordering::Relaxed).min(VALUE_FRONT_BYTES);
        let list_bytes = u64::from(entry.children.load(Ordering::Relaxed)) * ITEM_BYTES;
        [(entry.location.load(Ordering::Relaxed), size), (entry.list.load(Ordering::Relaxed), list_bytes)]
    });
    let blocks = blocks.filter(|&(place, _)| place & IN_MEMORY != 0);
    let words = blocks.flat_map(|(place, bytes)| {
        let first = ((place & !IN_MEMORY) / 8) as usize;
        first..first + bytes.div_ceil(8) as usize
    });
    words.map(|at| (at, data[at].load(Ordering::Relaxed))).collect()
}

impl Default for Scribbler {
    fn default() -> Scribbler {
        Scribbler::new()
    }
}

impl Scribbler {
    /// A store with something of everything in it.
    pub fn new() -> Scribbler {
        let (other, actor) = stores();
        let put = |store: &Store, bytes: &[u8], options: &CreateOptions| {
            store.put_with(bytes, options).expect("there is room")
        };
        let mut kept: Vec<ObjectRef> = (0..4).map(|index| put(&other, &[index as u8; 100], &options(index))).collect();
        kept.push(put(&other, b"", &options(4)));
        kept.push(put(&other, b"a container", &CreateOptions { references: &kept[..2], ..options(5) }));
        drop(put(&other, &[6; 300], &CreateOptions { lifetime: Lifetime::Cached, ..options(6) }));
        kept.push(other.promise(&id_of(7)).expect("there are slots"));
        kept.push(put(
            &other,
            &[8; 20_000],
            &CreateOptions { by_handle_only: true, encoding: Encoding::Pickle, ..options(8) },
        ));
        other.bind("fuzz", "name", &kept[2]).expect("the name is free");
        let mut references: Vec<ObjectRef> = kept.iter().filter_map(|object| actor.refer(object.handle())).collect();
        references.push(put(&actor, b"mine", &CreateOptions { references: &references[..3], ..options(9) }));
        let views = vec![actor.get(&references[1]).expect("it stands"), other.get(&kept[3]).expect("it stands")];
        let writers = [&actor, &other].map(|store| store.create(64, &CreateOptions::default()).expect("there is room"));
        other.rest();
        actor.rest();
        let map = Arc::new(SharedMap::map(&actor.inner.segment).expect("the tables can be mapped"));
        let count = actor.inner.tables.geometry.offsets().total / 8;
        let words = SharedArray::<AtomicU64>::new(&map, 0, count).expect("all of it");
        let image: Vec<u64> = words.iter().map(|word| word.load(Ordering::SeqCst)).collect();
        let telling = (0..count as u32).filter(|&at| image[at as usize] != 0).collect();
        let data = data_words(&other);
        let named = named_words(&other, &data);
        Scribbler { words, image, data, named, telling, actor, other, references, _kept: (kept, views, writers.into()) }
    }

    /// One input: a few stray stores, a few operations, and everything back as it was.
    pub fn noted_input(&mut self, random: &mut Mutator, outcomes: &mut impl Outcomes) {
        for _ in 0..1 + random.random().trailing_ones().min(6) {
            self.scribble(random);
        }
        for _ in 0..1 + random.below(4) {
            self.operate(random, outcomes);
        }
        self.put_back();
    }

    fn put_back(&self) {
        // Most words are as they were: sixteen at a time are one branch.
        for (words, before) in self.words.chunks(16).zip(self.image.chunks(16)) {
            let differences = words.iter().zip(before).map(|(word, before)| word.load(Ordering::Relaxed) ^ before);
            if differences.fold(0, |all, difference| all | difference) != 0 {
                words.iter().zip(before).for_each(|(word, &before)| word.store(before, Ordering::Relaxed));
            }
        }
        for store in [&self.actor, &self.other] {
            store.inner.producer().heap = Heap::default();
        }
        for &(at, before) in &self.named {
            if self.data[at].load(Ordering::Relaxed) != before {
                self.data[at].store(before, Ordering::Relaxed);
            }
        }
    }

    fn scribble(&self, random: &mut Mutator) {
        let at = match random.below(8) {
            0 => random.below(self.words.len()),
            _ => self.telling[random.below(self.telling.len())] as usize,
        };
        let before = self.words[at].load(Ordering::Relaxed);
        let after = match random.below(8) {
            0..=2 => before ^ 1 << random.below(64),
            3 => INTERESTING[random.below(INTERESTING.len())],
            4 => self.image[self.telling[random.below(self.telling.len())] as usize],
            5 => before.wrapping_add(random.below(9) as u64).wrapping_sub(4),
            6 => before & !0xFFFF_FFFF | INTERESTING[random.below(INTERESTING.len())] & 0xFFFF_FFFF,
            _ => random.random(),
        };
        self.words[at].store(self.without_patience(at, after), Ordering::Relaxed);
    }

    /// A spiller in the middle of two stores is waited for, for seconds: that is no input.
    fn without_patience(&self, at: usize, word: u64) -> u64 {
        let first = self.actor.inner.tables.geometry.offsets().entries as usize / 8;
        let is_entry_word = at >= first && (at - first).is_multiple_of(size_of::<Entry>() / 8);
        let snapshot = Snapshot::unpack(word);
        if is_entry_word && snapshot.state == State::Unloading {
            snapshot.to(State::Dead, snapshot.decider)
        } else {
            word
        }
    }

    fn reference(&self, random: &mut Mutator) -> &ObjectRef {
        &self.references[random.below(self.references.len())]
    }

    /// A sweeper gives every decision of its own client time to end, thousands of turns of it. That
    /// there is none is found out now and then; each time would be most of what a run does.
    fn without_waiting(&self, random: &mut Mutator) {
        if random.below(256) == 0 {
            return;
        }
        let tables = &self.actor.inner.tables;
        for slot in 0..tables.geometry.slots as u32 {
            let cell = tables.cell(self.actor.client().number, slot);
            let before = cell.load(Ordering::Relaxed);
            if before & DECIDING != 0 {
                cell.store(before & !DECIDING, Ordering::Relaxed);
            }
        }
    }

    fn operate(&self, random: &mut Mutator, outcomes: &mut impl Outcomes) {
        let store = &self.actor;
        let id = id_of(random.below(IDS as usize) as u32);
        match random.below(20) {
            0..=1 => noted(outcomes, "view by id", store.view_by_id(&id).map(|view| look(&view))),
            2..=4 => self.read(random, outcomes),
            5 => counted(outcomes, "list", (store.list(), store.usage())),
            6 => self.put(random, "put", &CreateOptions::default(), outcomes),
            7..=8 => {
                self.put(random, "put an id", &CreateOptions { id: Some(id), ..CreateOptions::default() }, outcomes)
            }
            9 => {
                let from = random.below(self.references.len());
                let options = CreateOptions { references: &self.references[from..], ..CreateOptions::default() };
                self.put(random, "put a container", &options, outcomes);
            }
            10..=12 => {
                store.inner.party().release(self.reference(random).handle().slot, REFERENCE);
                outcomes.ended("release");
            }
            13 => counted(outcomes, "evict", store.inner.evict(1000)),
            14..=15 => {
                store.inner.tables.leave(self.other.client().number);
                self.without_waiting(random);
                counted(outcomes, "sweep", store.reclaim());
            }
            16 => {
                noted(outcomes, "promise", store.promise(&id));
                noted(outcomes, "get by id", store.get_by_id(&id, Duration::ZERO));
            }
            17 => counted(outcomes, "delete", (store.delete(&id), store.delete_object(self.reference(random)))),
            18 => {
                noted(outcomes, "publish", store.publish(self.reference(random)));
                counted(outcomes, "lookup", (store.lookup(&id), store.contains(&id)));
            }
            _ => {
                noted(outcomes, "named", store.named("fuzz", "name"));
                counted(outcomes, "unbind", (store.unbind("fuzz", "name"), store.names("fuzz")));
            }
        }
    }

    fn read(&self, random: &mut Mutator, outcomes: &mut impl Outcomes) {
        let object = self.reference(random);
        noted(outcomes, "view", self.actor.view(object).map(|view| look(&view)));
        noted(outcomes, "get", self.actor.get(object).map(|object| object.references()));
    }

    fn put(
        &self,
        random: &mut Mutator,
        operation: &'static str,
        options: &CreateOptions,
        outcomes: &mut impl Outcomes,
    ) {
        let bytes = [0, 100, 5000, 40_000, 100_000][random.below(5)];
        noted(outcomes, operation, self.actor.put_with(&vec![7; bytes], options));
    }
}

fn noted<T, E: Error>(outcomes: &mut impl Outcomes, operation: &'static str, result: Result<T, E>) {
    match result {
        Ok(_) => outcomes.ended(operation),
        Err(error) => outcomes.failed(operation, &error),
    }
}

fn counted<T>(outcomes: &mut impl Outcomes, operation: &'static str, _: T) {
    outcomes.ended(operation);
}

fn look(bytes: &[u8]) {
    std::hint::black_box((bytes.first(), bytes.last()));
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        self.put_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_others_wrote_over_is_no_panic() {
        let scribbler = Scribbler::new();
        let store = &scribbler.actor;
        let references = &scribbler.references[..2];
        let writer =
            store.create(64, &CreateOptions { references, ..CreateOptions::default() }).expect("there is room");
        let entries = (1..store.inner.tables.geometry.slots as u32).map(|slot| store.inner.tables.entry(slot));
        let lists = entries.map(|entry| entry.list.load(Ordering::SeqCst)).filter(|list| list & IN_MEMORY != 0);
        for list in lists {
            let first = ((list & !IN_MEMORY) / 8) as usize;
            (first..first + 4).for_each(|at| scribbler.data[at].store(0x0707_0707_0707_0707, Ordering::SeqCst));
        }
        drop(writer.seal());
        scribbler.put_back();
    }

    /// Puts a word of an entry into every state that a stray store can give it.
    fn with_every_word(slot: u32, check: impl Fn(&Scribbler, Snapshot)) {
        let scribbler = Scribbler::new();
        let word = &scribbler.actor.inner.tables.entry(slot).word;
        let before = Snapshot::unpack(word.load(Ordering::SeqCst));
        // `Unloading` is waited for.
        for state in State::ALL.into_iter().filter(|&state| state != State::Unloading) {
            for decider in [0, scribbler.actor.client().number, scribbler.other.client().number, 3, u16::MAX] {
                let snapshot = Snapshot { state, decider, ..before };
                word.store(snapshot.pack(), Ordering::SeqCst);
                check(&scribbler, snapshot);
                scribbler.put_back();
            }
        }
    }

    #[test]
    fn an_id_whose_entry_is_broken_is_an_error_and_no_endless_search() {
        for index in [0, 7] {
            let slot = Scribbler::new().actor.lookup(&id_of(index)).expect("it stands").handle().slot;
            with_every_word(slot, |scribbler, snapshot| {
                let store = &scribbler.actor;
                let put = store.put_with(b"x", &options(index));
                assert!(put.is_err() || store.contains(&id_of(index)), "{snapshot:?}");
                drop((store.promise(&id_of(index)), store.lookup(&id_of(index))));
            });
        }
    }

    #[test]
    fn without_a_stray_store_everything_works_each_time() {
        let scribbler = Scribbler::new();
        for round in 0..4 {
            for bytes in [0, 100, 40_000] {
                scribbler
                    .actor
                    .put(&vec![1; bytes])
                    .unwrap_or_else(|error| panic!("round {round}, {bytes} bytes: {error}"));
            }
            assert!(scribbler.actor.named("fuzz", "name").expect("it was bound").is_some());
            scribbler.put_back();
        }
    }
}
