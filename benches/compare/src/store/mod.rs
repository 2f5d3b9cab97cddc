//! The bench of the store: its table, and the store's side of every work.
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
pub mod work;

use store::{Config, Store};

use crate::child::unpinned;
use crate::error::BenchError;
use crate::peers::{futex, iceoryx2, limits, lmdb, multiprocessing, plasma, ray};
use crate::plan::{Made, Peer, Setting, Work};
use crate::raw::LmdbMap;
use crate::run::{Bench, Boxed, no_such_peer};
use crate::store::work::{FEW_LIVE, LARGE_BYTES, LARGE_PLACES, MEDIUM_PLACES, MIB, StoreWork, TABLE_ALLOWANCE_NS};

pub use role::role;

impl Work for StoreWork {
    fn ours(self, setting: Setting, bench: &Bench) -> Made {
        ours(self, setting, bench).map(Some)
    }

    fn peer(self, peer: Peer, bench: &Bench) -> Made {
        match peer {
            Peer::RmwPair => limits::rmw_pair(bench),
            Peer::Memcpy => limits::memcpy(self, bench),
            Peer::Faults => limits::faults(bench),
            Peer::PointerChase => limits::pointer_chase(bench),
            Peer::Futex => futex::back_to_back(bench),
            Peer::Plasma => plasma::contender(self, bench),
            Peer::PlasmaHeld => plasma::held(bench),
            Peer::Ray => ray::objects(self, bench),
            Peer::Lmdb => lmdb::contender(self, LmdbMap::ReadOnly, bench),
            Peer::LmdbWritemap => lmdb::contender(self, LmdbMap::Writable, bench),
            Peer::Multiprocessing => multiprocessing::contender(bench),
            Peer::Iceoryx2 => iceoryx2::publish_subscribe::contender(bench),
            Peer::Allowance => Ok(Some(Box::new(|| Ok(vec![TABLE_ALLOWANCE_NS])))),
            _ => no_such_peer(self, peer),
        }
    }
}

fn ours(work: StoreWork, setting: Setting, bench: &Bench) -> Result<Boxed, BenchError> {
    let live = match setting {
        Setting::Measured => small::many(bench),
        Setting::Baseline => FEW_LIVE,
    };
    match work {
        StoreWork::GetByHandleHot => small::get_by_handle(bench),
        StoreWork::GetByIdHot => small::get_by_id(bench),
        StoreWork::PutSmall => small::put(false, FEW_LIVE, bench),
        StoreWork::PutSmallByHandle => small::put(true, FEW_LIVE, bench),
        StoreWork::PutMediumWarm => large::put_warm(MIB, MEDIUM_PLACES, 512, bench),
        StoreWork::PutLargeWarm => large::put_warm(LARGE_BYTES, LARGE_PLACES, 8, bench),
        StoreWork::PutLargeUntouched => large::put_untouched(bench),
        StoreWork::PutLargeSustained => large::put_sustained(bench),
        StoreWork::GetTable => large::get_table(bench),
        StoreWork::FirstFullRead => large::full_read(setting),
        StoreWork::TwoReaders => pair::readers(setting, bench),
        StoreWork::PutWithMany => small::put(false, live, bench),
        StoreWork::HotSubsetWithMany => small::hot_subset(live, bench),
        StoreWork::RandomGetWithMany => small::random_get(bench),
        StoreWork::SealToGetHot => pair::ping_pong_hot(bench),
        StoreWork::SealToGetAsleep => pair::ping_pong_asleep(bench),
        StoreWork::MetadataPerObject => small::metadata(bench),
        StoreWork::DeadClientHolds => crash::time_to_sweep(bench),
        StoreWork::SweepManyHolds => crash::sweep_rate(bench),
    }
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
