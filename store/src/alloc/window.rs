//! Writable memory: what this process has opened of the data, and which pages it has ready.
//!
//! The one thing to know: everybody maps the data read-only; only claimed chunks are opened for
//! writing, in a second mapping that children do not inherit. Pages are allocated here, before
//! anything is written, so that a full machine is an error and not a signal.

use crate::error::WindowError;
use crate::layout::CHUNK_BYTES;
use crate::tables::Tables;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use store_shm::gate::GateError;
use store_shm::map::WriteWindow;
use store_shm::segment::{Memfd, SegmentError};

/// This process' writable view of the chunks it owns.
pub(crate) struct Window {
    map: WriteWindow,
    data: Memfd,
    ready: Mutex<Ready>,
    warming: Arc<AtomicBool>,
    /// The lowest chunk that was warmed ahead, `u32::MAX` before there is one.
    warm_from: AtomicU32,
}

/// The right to warm memory; given back when dropped.
pub(crate) struct Warming(Arc<AtomicBool>);

impl Drop for Warming {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A bit for each chunk that is open, allocated and in this process' page tables.
struct Ready {
    words: Vec<u64>,
    punched: u64,
}

impl Ready {
    fn holes(&self, chunks: Range<u32>) -> Vec<Range<u32>> {
        let mut holes: Vec<Range<u32>> = Vec::new();
        for chunk in chunks {
            if self.words[chunk as usize / 64] >> (chunk % 64) & 1 == 1 {
                continue;
            }
            match holes.last_mut() {
                Some(last) if last.end == chunk => last.end += 1,
                _ => holes.push(chunk..chunk + 1),
            }
        }
        holes
    }
}

impl Window {
    pub(crate) fn new(data: Memfd, chunks: u32) -> Result<Window, SegmentError> {
        let map = WriteWindow::map(&data)?;
        let words = vec![0; (chunks as usize).div_ceil(64)];
        Ok(Window {
            map,
            data,
            ready: Mutex::new(Ready { words, punched: 0 }),
            warming: Arc::default(),
            warm_from: AtomicU32::new(u32::MAX),
        })
    }

    /// Opens chunks for writing and makes their pages present, where they are not yet.
    pub(crate) fn prepare(&self, tables: &Tables, first: u32, chunks: u32) -> Result<(), WindowError> {
        for hole in self.holes(tables, first..first + chunks) {
            let offset = u64::from(hole.start) * CHUNK_BYTES;
            let bytes = u64::from(hole.end - hole.start) * CHUNK_BYTES;
            self.map.open(offset, bytes)?;
            match self.map.populate(offset, bytes) {
                Err(SegmentError::Unsupported { .. }) => self.data.allocate(offset, bytes)?,
                other => other?,
            }
            self.mark(hole);
        }
        Ok(())
    }

    fn holes(&self, tables: &Tables, chunks: Range<u32>) -> Vec<Range<u32>> {
        let punched = tables.header().punched.load(Ordering::SeqCst);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.punched != punched {
            ready.punched = punched;
            ready.words.fill(0);
            self.warm_from.store(u32::MAX, Ordering::Relaxed);
        }
        ready.holes(chunks)
    }

    fn mark(&self, chunks: Range<u32>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            ready.words[chunk as usize / 64] |= 1 << (chunk % 64);
        }
    }

    /// Whether less than half of a reserve of `chunks` is ready below `chunk`.
    pub(crate) fn runs_short_below(&self, chunk: u32, chunks: u32) -> bool {
        let from = self.warm_from.load(Ordering::Relaxed);
        from != 0 && chunk < from.saturating_add(chunks / 2)
    }

    /// Everything from `chunk` to what was warm already is warm now.
    pub(crate) fn warmed_from(&self, chunk: u32) {
        self.warm_from.store(chunk, Ordering::Relaxed);
    }

    /// The right to warm memory, for one thread of the process at a time.
    pub(crate) fn begin_warming(&self) -> Option<Warming> {
        (!self.warming.swap(true, Ordering::SeqCst)).then(|| Warming(Arc::clone(&self.warming)))
    }

    pub(crate) fn is_warming(&self) -> bool {
        self.warming.load(Ordering::SeqCst)
    }

    /// Where bytes of an owned block are written.
    pub(crate) fn pointer(&self, offset: u64, bytes: u64) -> Result<NonNull<u8>, GateError> {
        self.map.pointer(offset, bytes)
    }

    /// Gives the pages of free chunks back to the kernel. The caller has claimed them.
    pub(crate) fn punch(&self, first: u32, chunks: u32) -> Result<(), SegmentError> {
        self.data.punch(u64::from(first) * CHUNK_BYTES, u64::from(chunks) * CHUNK_BYTES)
    }
}
