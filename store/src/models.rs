//! Loom explores the protocol: every interleaving, every reordering the memory model allows.
//!
//! The one thing to know: the functions called here are the ones that ship; a model only sets words
//! up and says what must hold in the end. A client that ends does so before its write number `n`
//! ([`ends_after`]), and each such model is run for every `n` that any interleaving reaches.
//!
//! A process that is stopped is one that ends and is not swept until everybody else is done; one
//! that is killed is swept at any time after.

mod holds;
mod indexes;
mod lists;
mod memory;
mod spills;

pub(crate) use store_shm::modelled::ends_after;

use crate::layout::chunk::{Kind, SpanWord};
use crate::layout::entry::IN_MEMORY;
use crate::state::{Snapshot, State};
use crate::sync::Ordering;
use crate::tables::{Handle, Party, Tables};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Explores every interleaving with at most `preemptions` switches away from a thread that could
/// go on; `None` has no limit.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        model();
    });
    eprintln!("{}: {} executions", std::thread::current().name().unwrap_or_default(), executions.load(Relaxed));
}

/// Explores a model once for each write before which its client can end. The model says whether
/// the client got there.
pub(crate) fn explore_ends(preemptions: Option<usize>, model: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let model = Arc::new(model);
    for writes in 0.. {
        let reached = Arc::new(AtomicBool::new(false));
        let (model, seen) = (Arc::clone(&model), Arc::clone(&reached));
        explore(preemptions, move || {
            if model(writes) {
                seen.store(true, Relaxed);
            }
        });
        if !reached.load(Relaxed) {
            assert!(writes > 0, "the model makes no write");
            return;
        }
    }
}

/// Tables that the threads of a model share, with bytes for the block at offset 0.
pub(crate) struct World {
    pub(crate) tables: Tables,
    /// Stands for the bytes of the first block: loom finds readers that race with a writer.
    bytes: UnsafeCell<u64>,
}

impl World {
    pub(crate) fn new(clients: u64, slots: u64, chunks: u64) -> World {
        World { tables: Tables::for_model(clients, slots, chunks), bytes: UnsafeCell::new(0) }
    }

    pub(crate) fn party(&self, me: u16) -> Party<'_> {
        Party { tables: &self.tables, me }
    }

    /// A sealed object in `slot`, generation 0, that nobody holds yet.
    pub(crate) fn sealed(&self, slot: u32) -> Handle {
        self.tables.entry(slot).word.store(Snapshot::sealed(0), Ordering::SeqCst);
        Handle { slot, generation: 0 }
    }

    /// The first granule of chunk 0 belongs to the object in `slot`; `owner` hands out of the chunk.
    pub(crate) fn give_block(&self, slot: u32, owner: u16, kind: Kind) {
        let word = SpanWord { kind, owner: u32::from(owner), generation: 1 };
        self.tables.chunk_words[0].store(word.pack(), Ordering::SeqCst);
        self.tables.chunk_lengths[0].store(1, Ordering::SeqCst);
        self.party(owner).take_block(0, 0, 1, slot);
        self.tables.entry(slot).size.store(8, Ordering::SeqCst);
        self.tables.entry(slot).location.store(IN_MEMORY, Ordering::SeqCst);
    }

    /// `client` has `units` in its cell, settled.
    pub(crate) fn give(&self, client: u16, slot: u32, units: u64) {
        self.tables.touch(client, slot);
        self.tables.cell(client, slot).fetch_add(units, Ordering::SeqCst);
        self.tables.entry(slot).holders.fetch_or(1 << client, Ordering::SeqCst);
    }

    pub(crate) fn read_bytes(&self) {
        // Loom panics if a write could overlap: that is what is explored.
        self.bytes.with(|_| {});
    }

    pub(crate) fn write_bytes(&self) {
        self.bytes.with_mut(|_| {});
    }

    /// The owner of chunk 0 takes back what was freed, and writes something else there.
    pub(crate) fn reuse_block(&self, owner: u16) {
        if self.party(owner).collect_word(0, 0) != 0 {
            self.write_bytes();
        }
    }

    pub(crate) fn word(&self, slot: u32) -> Snapshot {
        Snapshot::unpack(self.tables.entry(slot).word.load(Ordering::SeqCst))
    }

    pub(crate) fn cell(&self, client: u16, slot: u32) -> u64 {
        self.tables.cell(client, slot).load(Ordering::SeqCst)
    }

    /// As the sweep of a row does.
    pub(crate) fn sweep(&self, sweeper: u16, dead: u16) {
        for slot in 1..self.tables.geometry.slots as u32 {
            if self.cell(dead, slot) != 0 {
                self.party(sweeper).sweep_cell(dead, slot, &mut Vec::new());
            }
        }
    }

    /// The object of generation 0 ended, exactly once, and nothing of it remains in any cell.
    pub(crate) fn assert_ended(&self, slot: u32) {
        let ended = Snapshot { state: State::Free, decider: 0, generation: 1 };
        assert_eq!(self.word(slot), ended, "an object that nobody holds has ended once");
        self.assert_no_cells(slot);
    }

    pub(crate) fn assert_no_cells(&self, slot: u32) {
        for client in 0..self.tables.geometry.clients as u16 {
            assert_eq!(self.cell(client, slot), 0, "client {client} has nothing left of slot {slot}");
        }
    }
}

/// Starts a thread that works on the world.
pub(crate) fn start(world: &Arc<World>, work: impl FnOnce(&World) + 'static) -> loom::thread::JoinHandle<()> {
    let world = Arc::clone(world);
    loom::thread::spawn(move || work(&world))
}

/// Starts a thread that may end before its time; whether it did is what joining it gives.
pub(crate) fn start_mortal(
    world: &Arc<World>,
    writes: u32,
    work: impl FnOnce(&World) + 'static,
    afterwards: impl FnOnce(&World) + 'static,
) -> loom::thread::JoinHandle<bool> {
    let world = Arc::clone(world);
    loom::thread::spawn(move || {
        let ended = ends_after(writes, || work(&world));
        if ended {
            afterwards(&world);
        }
        ended
    })
}
