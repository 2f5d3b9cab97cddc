//! Who the store is held against, one file each.
//!
//! The one thing to know: a peer runs in the fastest setting we found for it, and its file says which.

use crate::error::BenchError;
use crate::raw::LmdbMap;
use crate::run::{Bench, Boxed, no_such_peer};
use crate::work::{Peer, TABLE_ALLOWANCE_NS, Work};

pub mod iceoryx2;
pub mod limits;
pub mod lmdb;
pub mod multiprocessing;
pub mod plasma;
pub mod ray;

/// The peer, ready for its first round.
pub fn contender(work: Work, peer: Peer, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    match peer {
        Peer::RmwPair => limits::rmw_pair(bench),
        Peer::Memcpy => limits::memcpy(work, bench),
        Peer::Faults => limits::faults(bench),
        Peer::PointerChase => limits::pointer_chase(bench),
        Peer::Futex => limits::futex(bench),
        Peer::Plasma => plasma::contender(work, bench),
        Peer::PlasmaHeld => plasma::held(bench),
        Peer::Ray => ray::contender(work, bench),
        Peer::Lmdb => lmdb::contender(work, LmdbMap::ReadOnly, bench),
        Peer::LmdbWritemap => lmdb::contender(work, LmdbMap::Writable, bench),
        Peer::Multiprocessing => multiprocessing::contender(bench),
        Peer::Iceoryx2 => iceoryx2::contender(bench),
        Peer::Allowance => Ok(Some(Box::new(|| Ok(vec![TABLE_ALLOWANCE_NS])))),
        Peer::Itself => no_such_peer(work, peer),
    }
}
