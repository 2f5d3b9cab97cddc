//! Large objects are mapped for their first reader, ahead of it.
//!
//! A page that is in memory but not yet in this process's page table costs its first reader a
//! fault, twice what summing the page costs. So the first get of a large object starts a thread that
//! maps it from its end, while the reader comes from its start.
//!
//! The one thing to know: this is a hint from end to end. The bits say which chunks were mapped
//! once; a wrong one costs some faults, or one walk over pages that are mapped already. This file
//! must not keep an object alive.

use crate::layout::CHUNK_BYTES;
use crate::layout::entry::IN_MEMORY;
use crate::state::Snapshot;
use crate::store::Inner;
use crate::tables::{Handle, Tables};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// From this size on a thread costs less than the faults.
const FROM_BYTES: u64 = 8 << 20;
/// Mapped in one system call: some tens of microseconds to a look whether it is still wanted.
const PIECE_CHUNKS: u64 = 16;

/// Which chunks this process has mapped for reading, as far as it knows.
pub(crate) struct ReadAhead {
    mapped: Box<[AtomicU64]>,
    /// Pages given back to the kernel, and so unmapped, when `mapped` was last right.
    punched: AtomicU64,
    is_under_way: AtomicBool,
}

impl ReadAhead {
    pub(crate) fn new(chunks: u32) -> ReadAhead {
        let words = (chunks as usize).div_ceil(64);
        ReadAhead {
            mapped: (0..words).map(|_| AtomicU64::new(0)).collect(),
            punched: AtomicU64::new(0),
            is_under_way: AtomicBool::new(false),
        }
    }

    fn is_mapped(&self, chunk: u64) -> bool {
        let word = self.mapped.get((chunk / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (chunk % 64) != 0)
    }

    fn note_mapped(&self, chunks: Range<u64>) {
        for chunk in chunks {
            if let Some(word) = self.mapped.get((chunk / 64) as usize) {
                word.fetch_or(1 << (chunk % 64), Ordering::Relaxed);
            }
        }
    }

    /// Forgets everything once pages were given back.
    fn notice_punches(&self, tables: &Tables) {
        let punched = tables.header().punched.load(Ordering::Relaxed);
        if self.punched.swap(punched, Ordering::Relaxed) != punched {
            self.mapped.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}

impl Inner {
    /// After a get of an object of so many bytes, which is pinned: has it mapped if that is worth a
    /// thread.
    #[inline]
    pub(crate) fn read_ahead(self: &Arc<Self>, handle: Handle, bytes: u64) {
        if bytes >= FROM_BYTES {
            self.start_reading_ahead(handle, bytes);
        }
    }

    #[cold]
    fn start_reading_ahead(self: &Arc<Self>, handle: Handle, bytes: u64) {
        let location = self.tables.entry(handle.slot).location.load(Ordering::Relaxed);
        if location & IN_MEMORY == 0 {
            return;
        }
        let ahead = &self.local().read_ahead;
        let offset = location & !IN_MEMORY;
        let chunks = offset / CHUNK_BYTES..(offset + bytes).div_ceil(CHUNK_BYTES);
        ahead.notice_punches(&self.tables);
        let is_known = ahead.is_mapped(chunks.start) && ahead.is_mapped(chunks.end - 1);
        if is_known || ahead.is_under_way.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(self);
        let started = thread::Builder::new().name("store-read".to_owned()).spawn(move || {
            let mut end = chunks.end;
            while let Some(inner) = inner.upgrade().filter(|inner| end > chunks.start && inner.is_readable(handle)) {
                let piece = end.saturating_sub(PIECE_CHUNKS).max(chunks.start)..end;
                end = if inner.map_ahead(piece.clone()) { piece.start } else { chunks.start };
            }
            if let Some(inner) = inner.upgrade() {
                inner.local().read_ahead.is_under_way.store(false, Ordering::Relaxed);
            }
        });
        if let Err(error) = started {
            tracing::debug!(%error, "no thread to map memory with");
            ahead.is_under_way.store(false, Ordering::Relaxed);
        }
    }

    fn is_readable(&self, handle: Handle) -> bool {
        self.tables.entry(handle.slot).word.load(Ordering::Relaxed) == Snapshot::sealed(handle.generation)
    }

    fn map_ahead(&self, chunks: Range<u64>) -> bool {
        let offset = chunks.start * CHUNK_BYTES;
        let mapped = self.tables.data.populate(offset, (chunks.end - chunks.start) * CHUNK_BYTES);
        if mapped.is_ok() {
            self.local().read_ahead.note_mapped(chunks);
        }
        mapped.is_ok()
    }
}
