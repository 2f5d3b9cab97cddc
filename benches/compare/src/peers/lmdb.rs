//! LMDB through `heed`, its files on tmpfs.
//!
//! Setting: never synced; the map is read-only, LMDB's default and the protection that our views
//! have, or writable, which saves LMDB its system calls and is a row of its own. A get is a read transaction of its own (the
//! thread keeps its reader slot, as LMDB does by default), a put a write transaction with its
//! commit. Keys are 28 bytes with a counter at the end, so inserts append: LMDB's best case.

use std::hint::black_box;

use heed::types::Bytes;
use heed::{Database, Env, WithTls};
use tempfile::TempDir;

use crate::error::BenchError;
use crate::plan::Peer;
use crate::raw::{LmdbMap, open_lmdb};
use crate::run::{Bench, Boxed, no_such_peer};
use crate::scratch;
use crate::stats::{OPERATIONS_PER_BATCH, read_first_line, time_batches, time_each};
use crate::store::work::{FEW_LIVE, SMALL_BYTES, StoreWork};

const KEY_BYTES: usize = 28;
const MAP_BYTES: usize = 1 << 30;

struct Lmdb {
    env: Env<WithTls>,
    objects: Database<Bytes, Bytes>,
    payload: [u8; SMALL_BYTES],
    next: u64,
    // Removed after the environment is closed.
    _directory: TempDir,
}

/// LMDB for a work.
pub fn contender(work: StoreWork, map: LmdbMap, bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let mut lmdb = Lmdb::open(map, bench)?;
    let batches = bench.effort.count(1_000);
    let puts = bench.effort.count(5_000);
    match work {
        StoreWork::GetByIdHot => Ok(Some(Box::new(move || lmdb.gets(batches)))),
        StoreWork::PutSmall | StoreWork::PutSmallByHandle => Ok(Some(Box::new(move || lmdb.puts(puts)))),
        _ => no_such_peer(work, Peer::Lmdb),
    }
}

fn key(counter: u64) -> [u8; KEY_BYTES] {
    let mut key = [0xA5; KEY_BYTES];
    key[KEY_BYTES - 8..].copy_from_slice(&counter.to_be_bytes());
    key
}

impl Lmdb {
    /// A fresh environment that holds a few objects.
    fn open(map: LmdbMap, bench: &Bench) -> Result<Self, BenchError> {
        let directory = scratch::in_shared_memory()?;
        let env = open_lmdb(directory.path(), MAP_BYTES, map)?;
        let mut transaction = env.write_txn()?;
        let objects = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        let payload = bench.source()[..SMALL_BYTES].try_into().expect("the source is longer");
        let mut lmdb = Self { env, objects, payload, next: 0, _directory: directory };
        (0..FEW_LIVE).try_for_each(|_| lmdb.put())?;
        Ok(lmdb)
    }

    fn put(&mut self) -> Result<(), heed::Error> {
        let mut transaction = self.env.write_txn()?;
        self.objects.put(&mut transaction, &key(self.next), &self.payload)?;
        transaction.commit()?;
        self.next += 1;
        Ok(())
    }

    /// Gets of one object among a few, its first line read.
    fn gets(&self, batches: usize) -> Result<Vec<f64>, BenchError> {
        let wanted = key(FEW_LIVE as u64 / 2);
        let (mut missing, mut read) = (0, 0_u64);
        let samples = time_batches(batches, OPERATIONS_PER_BATCH, || match self.first_line(&wanted) {
            Some(line) => read = read.wrapping_add(line),
            None => missing += 1,
        });
        black_box(read);
        if missing > 0 {
            return Err(BenchError::WrongBytes { expected: 0, found: missing });
        }
        Ok(samples)
    }

    fn first_line(&self, key: &[u8]) -> Option<u64> {
        let transaction = self.env.read_txn().ok()?;
        let bytes = self.objects.get(&transaction, key).ok()??;
        Some(read_first_line(bytes))
    }

    /// Puts, each under a new key; those of this round are removed again untimed.
    fn puts(&mut self, count: usize) -> Result<Vec<f64>, BenchError> {
        let first = self.next;
        let samples = time_each(count, || self.put())?;
        let mut transaction = self.env.write_txn()?;
        for counter in first..self.next {
            self.objects.delete(&mut transaction, &key(counter))?;
        }
        transaction.commit()?;
        Ok(samples)
    }
}
