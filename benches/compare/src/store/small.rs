//! Small objects: gets by handle and by id, puts, a thousand and a million of them alive.
//!
//! The one thing to know: the objects of a crowd are all alive and all referred to by the harness
//! while anything here is timed. A closure takes only the fields it names: what has to live as long
//! is used through a method.

use std::hint::black_box;

use store::{CreateOptions, GetError, ObjectRef, Store, View};

use super::new_store;
use super::talk::Partner;
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::stats::{OPERATIONS_PER_BATCH, read_first_line, time_batches, time_batches_of_makings};
use crate::store::work::{FEW_LIVE, HOT_SUBSET, MANY_LIVE, SMALL_BYTES};

/// As large as a store is by default.
const CAPACITY_BYTES: u64 = 1 << 30;

/// A store and small objects in it.
pub(super) struct Crowd {
    pub(super) store: Store,
    pub(super) objects: Vec<ObjectRef>,
}

impl Crowd {
    /// `count` objects under ids.
    pub(super) fn new(count: usize, bench: &Bench) -> Result<Self, BenchError> {
        let store = new_store(CAPACITY_BYTES)?;
        let source = bench.source();
        let objects: Result<Vec<_>, _> = (0..count).map(|_| store.put(&source[..SMALL_BYTES])).collect();
        let objects = objects.map_err(BenchError::store("put"))?;
        Ok(Self { store, objects })
    }

    fn time_puts(&self, by_handle_only: bool, source: &[u8], batches: usize) -> Result<Vec<f64>, BenchError> {
        let options = CreateOptions { by_handle_only, ..CreateOptions::default() };
        let put = || self.store.put_with(source, &options);
        let samples = time_batches_of_makings(batches, OPERATIONS_PER_BATCH, put);
        samples.map_err(BenchError::store("put"))
    }

    /// In an order that has nothing to do with where they lie; the same in each run.
    fn shuffle(&mut self) {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for index in (1..self.objects.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            self.objects.swap(index, (state % (index as u64 + 1)) as usize);
        }
    }
}

/// How many the crowded rows have.
pub(super) fn many(bench: &Bench) -> usize {
    bench.effort.count(MANY_LIVE)
}

/// Times gets, the first line read and the view let go within each.
fn time_gets<'a>(
    batches: usize,
    mut get: impl FnMut() -> Result<View<'a>, Box<GetError>>,
) -> Result<Vec<f64>, BenchError> {
    let (mut read, mut failed) = (0_u64, None);
    let samples = time_batches(batches, OPERATIONS_PER_BATCH, || match get() {
        Ok(view) => read = read.wrapping_add(read_first_line(&view)),
        Err(error) => failed = Some(error),
    });
    black_box(read);
    failed.map_or(Ok(samples), |error| Err(BenchError::store("get")(error)))
}

/// Gets of one object among a few, by handle.
pub(super) fn get_by_handle(bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(FEW_LIVE, bench)?;
    let batches = bench.effort.count(4_000);
    Ok(Box::new(move || {
        let wanted = &crowd.objects[FEW_LIVE / 2];
        time_gets(batches, || crowd.store.view(wanted))
    }))
}

/// Gets of one object among a few, by id.
pub(super) fn get_by_id(bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(FEW_LIVE, bench)?;
    let batches = bench.effort.count(4_000);
    Ok(Box::new(move || {
        let wanted = crowd.objects[FEW_LIVE / 2].id();
        time_gets(batches, || crowd.store.view_by_id(&wanted))
    }))
}

/// Puts beside `live` objects; what a batch put ends between two batches.
pub(super) fn put(by_handle_only: bool, live: usize, bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(live, bench)?;
    let source = bench.source();
    let batches = bench.effort.count(1_000);
    Ok(Box::new(move || crowd.time_puts(by_handle_only, &source[..SMALL_BYTES], batches)))
}

/// Gets in turn of a few among `live`, which lie anywhere.
pub(super) fn hot_subset(live: usize, bench: &Bench) -> Result<Boxed, BenchError> {
    let mut crowd = Crowd::new(live, bench)?;
    crowd.shuffle();
    let batches = bench.effort.count(4_000);
    Ok(Box::new(move || {
        let mut hot = crowd.objects.iter().take(HOT_SUBSET).cycle();
        let mut next = || hot.next().expect("a cycle never ends");
        time_gets(batches, || crowd.store.view(next()))
    }))
}

/// Gets of all of a million, each once, in random order; the next round goes on where this one ended.
pub(super) fn random_get(bench: &Bench) -> Result<Boxed, BenchError> {
    let mut crowd = Crowd::new(many(bench), bench)?;
    crowd.shuffle();
    let batches = bench.effort.count(4_000);
    let mut at = 0;
    Ok(Box::new(move || {
        let objects = &crowd.objects;
        time_gets(batches, || {
            at = if at + 1 < objects.len() { at + 1 } else { 0 };
            crowd.store.view(&objects[at])
        })
    }))
}

/// Bytes of all tables by objects, where another process refers to all of them too.
pub(super) fn metadata(bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(many(bench), bench)?;
    let mut partner = Partner::start("hold", &crowd.store)?;
    partner.talk.tell_objects(&crowd.objects)?;
    partner.talk.hear::<1>()?;
    let bytes = crowd.store.usage().metadata_bytes as f64 / crowd.objects.len() as f64;
    // Nothing here changes any more, so it is counted once.
    drop(partner);
    Ok(Box::new(move || Ok(vec![bytes])))
}
