//! Stray stores: scribbles over the tables of a small store, then works on in it.
//!
//! The one thing to know: whatever the tables say, every operation ends, and ends in a result; what
//! it finds need not make sense. Each input begins with the same tables, so a seed repeats it. It
//! must not be linked by anything that ships.

use crate::alloc::heap::Heap;
use crate::arrow::fuzz::Mutator;
use crate::hold::REFERENCE;
use crate::layout::entry::Entry;
use crate::layout::{CHUNK_BYTES, Geometry};
use crate::object::{Encoding, Object, ObjectRef};
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::make::ObjectWriter;
use crate::store::{Config, CreateOptions, Lifetime, Store};
use crate::sync::{AtomicU64, Ordering};
use crate::keeper::Keeping;
use std::sync::Arc;
use std::time::Duration;
use store_shm::array::SharedArray;
use store_shm::liveness::ProcessId;
use store_shm::map::SharedMap;

/// Values that offsets, counts and numbers get wrong.
const INTERESTING: [u64; 12] =
    [0, 1, 2, 63, 255, 256, 1 << 24, 1 << 31, u32::MAX as u64, 1 << 48, 1 << 63, u64::MAX];
/// Ids that the store knows, and a few more.
const IDS: u32 = 12;

/// Two clients of one small store, and how its tables were before anything went wrong.
pub struct Scribbler {
    words: SharedArray<AtomicU64>,
    image: Vec<u64>,
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
    let config =
        Config { label: "fuzz".to_owned(), create_timeout: Duration::ZERO, keeping: Keeping::Inline, ..Config::default() };
    let other = Store::with_geometry(geometry, config.clone()).expect("a small store can be made");
    let client = other.admit(ProcessId::current(), "actor").expect("a row is free");
    let segments = other.segments().expect("descriptors can be duplicated");
    let actor = Store::attach(segments, client, config).expect("it was admitted");
    (other, actor)
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
        let put = |store: &Store, bytes: &[u8], options: &CreateOptions| store.put_with(bytes, options).expect("there is room");
        let mut kept: Vec<ObjectRef> = (0..4).map(|index| put(&other, &[index as u8; 100], &options(index))).collect();
        kept.push(put(&other, b"", &options(4)));
        kept.push(put(&other, b"a container", &CreateOptions { references: &kept[..2], ..options(5) }));
        drop(put(&other, &[6; 300], &CreateOptions { lifetime: Lifetime::Cached, ..options(6) }));
        kept.push(other.promise(&id_of(7)).expect("there are slots"));
        kept.push(put(&other, &[8; 20_000], &CreateOptions { by_handle_only: true, encoding: Encoding::Pickle, ..options(8) }));
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
        Scribbler { words, image, telling, actor, other, references, _kept: (kept, views, writers.into()) }
    }

    /// One input: a few stray stores, a few operations, and everything back as it was.
    pub fn input(&mut self, random: &mut Mutator) {
        for _ in 0..1 + random.random().trailing_ones().min(6) {
            self.scribble(random);
        }
        for _ in 0..1 + random.below(4) {
            self.operate(random);
        }
        self.put_back();
    }

    fn put_back(&self) {
        for (word, &before) in self.words.iter().zip(&self.image) {
            if word.load(Ordering::Relaxed) != before {
                word.store(before, Ordering::Relaxed);
            }
        }
        for store in [&self.actor, &self.other] {
            store.inner.producer().heap = Heap::default();
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
        if is_entry_word && snapshot.state == State::Unloading { snapshot.to(State::Dead, snapshot.decider) } else { word }
    }

    fn reference(&self, random: &mut Mutator) -> &ObjectRef {
        &self.references[random.below(self.references.len())]
    }

    fn operate(&self, random: &mut Mutator) {
        let store = &self.actor;
        let id = id_of(random.below(IDS as usize) as u32);
        match random.below(20) {
            0..=1 => read(store, &id),
            2..=4 => look(store, self.reference(random)),
            5 => drop((store.list(), store.usage())),
            6 => self.put(random, &CreateOptions::default()),
            7..=8 => self.put(random, &CreateOptions { id: Some(id), ..CreateOptions::default() }),
            9 => {
                let from = random.below(self.references.len());
                self.put(random, &CreateOptions { references: &self.references[from..], ..CreateOptions::default() });
            }
            10..=12 => store.inner.party().release(self.reference(random).handle().slot, REFERENCE),
            13 => drop(store.inner.evict(1000)),
            14..=15 => {
                store.inner.tables.leave(self.other.client().number);
                store.reclaim();
            }
            16 => drop((store.promise(&id), store.get_by_id(&id, Duration::ZERO))),
            17 => drop((store.delete(&id), store.delete_object(self.reference(random)))),
            18 => drop((store.publish(self.reference(random)), store.lookup(&id), store.contains(&id))),
            _ => drop((store.named("fuzz", "name"), store.unbind("fuzz", "name"), store.names("fuzz"))),
        }
    }

    fn put(&self, random: &mut Mutator, options: &CreateOptions) {
        let bytes = [0, 100, 5000, 40_000, 100_000][random.below(5)];
        let references = options.references.len();
        drop((self.actor.put_with(&vec![7; bytes], options), references));
    }
}

fn read(store: &Store, id: &ObjectId) {
    if let Ok(view) = store.view_by_id(id) {
        std::hint::black_box((view.first(), view.last()));
    }
}

fn look(store: &Store, object: &ObjectRef) {
    if let Ok(view) = store.view(object) {
        std::hint::black_box((view.first(), view.last()));
    }
    if let Ok(object) = store.get(object) {
        drop(object.references());
    }
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        self.put_back();
    }
}
