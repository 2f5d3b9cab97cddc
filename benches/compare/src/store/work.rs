//! What is measured of the store, in which unit and against whom: one table.
//!
//! The one thing to know: the names are what a promise is looked up by, so a renamed row is a lost
//! promise. Sizes that ours and a peer must share stand here and nowhere else.

use crate::plan::{Peer, Unit, WorkPlan, plan};
use crate::run::SOURCE_BYTES;

/// Bytes of a small object.
pub const SMALL_BYTES: usize = 100;
/// One mebibyte.
pub const MIB: usize = 1 << 20;
/// Places a 1 MiB put rotates over: it keeps one less alive. 8 MiB do not fit into a core's own cache.
pub const MEDIUM_PLACES: usize = 8;
/// Places a 100 MiB put rotates over.
pub const LARGE_PLACES: usize = 4;
/// Bytes of a large object.
pub const LARGE_BYTES: usize = SOURCE_BYTES;
/// Objects beside which a hot get or a small put is measured where the row does not say a million.
pub const FEW_LIVE: usize = 1_000;
/// Objects of the crowded rows.
pub const MANY_LIVE: usize = 1_000_000;
/// Objects of the hot subset, drawn at random from all that are live.
pub const HOT_SUBSET: usize = 64;
/// Holds of the client that dies.
pub const DEAD_CLIENT_HOLDS: usize = 40_000;
/// The lines one random get by handle touches, one in each region: the entry with its state word, the
/// getter's own hold cell (eight to a line), the payload's first line.
pub const RANDOM_GET_REGIONS: [Region; 3] = [
    Region { lines: MANY_LIVE, stride_bytes: 64 },
    Region { lines: MANY_LIVE / 8, stride_bytes: 64 },
    Region { lines: MANY_LIVE, stride_bytes: 128 },
];
/// The table: int64 columns, record batches, rows of each batch; 1 GiB in all.
pub const TABLE_COLUMNS: usize = 8;
/// As above.
pub const TABLE_BATCHES: usize = 16;
/// As above.
pub const TABLE_BATCH_ROWS: usize = 1 << 20;
/// What a get of the table may take: 20 us and 300 ns for each column of each batch.
pub const TABLE_ALLOWANCE_NS: f64 = 20_000.0 + 300.0 * (TABLE_COLUMNS * TABLE_BATCHES) as f64;

/// Lines of one kind that gets of a million objects touch, laid out as ours are.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// How many of them.
    pub lines: usize,
    /// From one to the next.
    pub stride_bytes: usize,
}

/// One thing a contender does with objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreWork {
    /// Pin, read the payload's first line, release; the object is named by its handle.
    GetByHandleHot,
    /// The same through the index.
    GetByIdHot,
    /// A small object under an id, sealed and findable; freeing it is not timed.
    PutSmall,
    /// A small object that only its handle names.
    PutSmallByHandle,
    /// 1 MiB into memory that puts have used before.
    PutMediumWarm,
    /// 100 MiB into memory that puts have used before.
    PutLargeWarm,
    /// 100 MiB into memory no put has used, in a fresh store with its reserve filled.
    PutLargeUntouched,
    /// The same until the reserve is long gone.
    PutLargeSustained,
    /// Get, decode, read one line, release; of an Arrow table that was put once.
    GetTable,
    /// All bytes of that table summed by a process that has just mapped it; the peer "self" is its second pass.
    FirstFullRead,
    /// Pairs a second of two processes together; the peer is one alone.
    TwoReaders,
    /// A small put beside a million live objects; the peer has a thousand.
    PutWithMany,
    /// Hot gets by handle beside a million; the peer has a thousand.
    HotSubsetWithMany,
    /// Gets by handle in random order over a million.
    RandomGetWithMany,
    /// Half a ping-pong between two spinning processes.
    SealToGetHot,
    /// A whole ping-pong between two processes that sleep.
    SealToGetAsleep,
    /// Bytes of all tables divided by objects, with two clients.
    MetadataPerObject,
    /// From the kernel's word that a client died to its last hold gone.
    DeadClientHolds,
    /// The same of a million holds, as holds a second.
    SweepManyHolds,
}

/// Every row of the store's bench.
pub const STORE_WORKS: [WorkPlan<StoreWork>; 19] = [
    plan(
        StoreWork::GetByHandleHot,
        "get + release by handle hot",
        Unit::Nanoseconds,
        &[Peer::RmwPair, Peer::Plasma, Peer::PlasmaHeld],
    ),
    plan(
        StoreWork::GetByIdHot,
        "get + release by id hot",
        Unit::Nanoseconds,
        &[Peer::RmwPair, Peer::Plasma, Peer::PlasmaHeld, Peer::Lmdb, Peer::Ray],
    ),
    plan(
        StoreWork::PutSmall,
        "put 100 B",
        Unit::Nanoseconds,
        &[Peer::Plasma, Peer::Lmdb, Peer::LmdbWritemap, Peer::Multiprocessing, Peer::Ray],
    ),
    plan(StoreWork::PutSmallByHandle, "put 100 B by handle only", Unit::Nanoseconds, &[Peer::Lmdb, Peer::LmdbWritemap]),
    plan(StoreWork::PutMediumWarm, "put 1 MiB warm", Unit::GigabytesPerSecond, &[Peer::Memcpy]),
    plan(
        StoreWork::PutLargeWarm,
        "put 100 MiB warm",
        Unit::GigabytesPerSecond,
        &[Peer::Memcpy, Peer::Plasma, Peer::Ray],
    ),
    plan(StoreWork::PutLargeUntouched, "put 100 MiB untouched", Unit::GigabytesPerSecond, &[Peer::Faults]),
    plan(StoreWork::PutLargeSustained, "put 100 MiB sustained", Unit::GigabytesPerSecond, &[]),
    plan(StoreWork::GetTable, "get 1 GiB table", Unit::Nanoseconds, &[Peer::Plasma, Peer::Allowance]),
    plan(StoreWork::FirstFullRead, "first full read of 1 GiB", Unit::GigabytesPerSecond, &[Peer::Itself, Peer::Plasma]),
    plan(StoreWork::TwoReaders, "two readers one object", Unit::PerSecond, &[Peer::Itself]),
    plan(StoreWork::PutWithMany, "put with 1M live", Unit::Nanoseconds, &[Peer::Itself]),
    plan(StoreWork::HotSubsetWithMany, "hot subset with 1M live", Unit::Nanoseconds, &[Peer::Itself]),
    plan(StoreWork::RandomGetWithMany, "random get with 1M live", Unit::Nanoseconds, &[Peer::PointerChase]),
    plan(StoreWork::SealToGetHot, "seal to get hot", Unit::Nanoseconds, &[Peer::Iceoryx2]),
    plan(StoreWork::SealToGetAsleep, "seal to get asleep", Unit::Nanoseconds, &[Peer::Futex]),
    plan(StoreWork::MetadataPerObject, "metadata per object", Unit::Bytes, &[]),
    plan(StoreWork::DeadClientHolds, "40,000 holds of a dead client gone", Unit::Nanoseconds, &[]),
    plan(StoreWork::SweepManyHolds, "sweep of 1,000,000 holds", Unit::PerSecond, &[]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::check_names;

    #[test]
    fn names_are_unique_and_hold_no_comma_before_a_peer() {
        check_names(&STORE_WORKS);
    }

    #[test]
    fn the_table_is_one_gibibyte() {
        assert_eq!(TABLE_COLUMNS * TABLE_BATCHES * TABLE_BATCH_ROWS * 8, 1 << 30);
    }
}
