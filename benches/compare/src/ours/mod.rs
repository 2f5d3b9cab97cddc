//! The store's side of every work.
//!
//! The one thing to know: nothing here may be easier than what the peers of the same work do: the
//! same source, as many places, the payload's first line read in every get. It must not reach into
//! the store: what a user cannot call is not measured.

mod crash;
mod large;
mod pair;
mod role;
mod small;
mod talk;

use store::{Config, Store};

use crate::child::unpinned;
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::work::{FEW_LIVE, LARGE_BYTES, LARGE_PLACES, MEDIUM_PLACES, MIB, Work};

pub use role::role;

/// Which of ours a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What the row is about.
    Measured,
    /// What the row's peer "self" is: the same in the easier setting.
    Baseline,
}

/// Ours for a work; none where the store cannot do it yet.
pub fn contender(work: Work, setting: Setting, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let live = match setting {
        Setting::Measured => small::many(bench),
        Setting::Baseline => FEW_LIVE,
    };
    let made = match work {
        Work::GetByHandleHot => small::get_by_handle(bench),
        Work::GetByIdHot => small::get_by_id(bench),
        Work::PutSmall => small::put(false, FEW_LIVE, bench),
        Work::PutSmallByHandle => small::put(true, FEW_LIVE, bench),
        Work::PutMediumWarm => large::put_warm(MIB, MEDIUM_PLACES, 512, bench),
        Work::PutLargeWarm => large::put_warm(LARGE_BYTES, LARGE_PLACES, 8, bench),
        Work::PutLargeUntouched => large::put_untouched(bench),
        Work::PutLargeSustained => large::put_sustained(bench),
        Work::GetTable => large::get_table(bench),
        Work::FirstFullRead => large::full_read(setting),
        Work::TwoReaders => pair::readers(setting, bench),
        Work::PutWithMany => small::put(false, live, bench),
        Work::HotSubsetWithMany => small::hot_subset(live, bench),
        Work::RandomGetWithMany => small::random_get(bench),
        Work::SealToGetHot => pair::ping_pong_hot(bench),
        Work::SealToGetAsleep => pair::ping_pong_asleep(bench),
        Work::MetadataPerObject => small::metadata(bench),
        Work::DeadClientHolds => crash::time_to_sweep(bench),
        Work::SweepManyHolds => crash::sweep_rate(bench),
    };
    made.map(Some)
}

/// A store that this process keeps, as a raylet would; its threads run where they like.
fn new_store(capacity_bytes: u64) -> Result<Store, BenchError> {
    unpinned(|| pinned_store(capacity_bytes))
}

/// The same made by a process that has one core to itself: it sleeps where others would spin first.
fn pinned_store(capacity_bytes: u64) -> Result<Store, BenchError> {
    let config = Config { capacity_bytes, label: "bench".to_owned(), ..Config::default() };
    Store::in_process(config).map_err(BenchError::store("a store"))
}
