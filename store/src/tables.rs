//! The tables of one store as this process sees them, and the party that works on them.
//!
//! The one thing to know: [`Party`] is a client's number beside the tables. Whatever it writes is
//! written in that client's name, so a sweeper finds it.

use crate::layout::chunk::{Backs, ChunkBits, SlotSlab};
use crate::layout::entry::Entry;
use crate::layout::{CELLS_PER_PAGE, GRANULES, Geometry};
use crate::sync::{Array, AtomicU32, AtomicU64, Ordering};

#[cfg(not(feature = "loom"))]
use crate::layout::{client::ClientRecord, header::Header};
#[cfg(not(feature = "loom"))]
use crate::spill_directory::SpillDirectory;
#[cfg(not(feature = "loom"))]
use store_shm::map::ReadMap;

/// Backs of one chunk. A model uses the first few granules; the rest would cost it dear.
const BACKS_PER_CHUNK: usize = if cfg!(feature = "loom") { 4 } else { GRANULES };

/// Every table, typed and bounds-checked.
pub(crate) struct Tables {
    pub(crate) geometry: Geometry,
    #[cfg(not(feature = "loom"))]
    pub(crate) header: Array<Header>,
    #[cfg(not(feature = "loom"))]
    pub(crate) clients: Array<ClientRecord>,
    pub(crate) touched: Array<AtomicU64>,
    pub(crate) entries: Array<Entry>,
    pub(crate) slabs: Array<SlotSlab>,
    pub(crate) chunk_words: Array<AtomicU64>,
    pub(crate) chunk_lengths: Array<AtomicU32>,
    pub(crate) chunk_bits: Array<ChunkBits>,
    pub(crate) chunk_backs: Array<Backs>,
    pub(crate) index: Array<AtomicU64>,
    pub(crate) cells: Array<AtomicU64>,
    /// The bytes of all objects, read-only.
    #[cfg(not(feature = "loom"))]
    pub(crate) data: ReadMap,
    /// Where spill files are, if anywhere.
    #[cfg(not(feature = "loom"))]
    pub(crate) files: Option<SpillDirectory>,
    /// What the containers of a model list, by slot.
    #[cfg(feature = "loom")]
    pub(crate) lists: Vec<Vec<Handle>>,
}

/// Names one object for as long as it lives: its slot, and which life of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Position in the table of entries.
    pub slot: u32,
    /// How often the slot was reused.
    pub generation: u64,
}

/// One client's hand on the tables.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) me: u16,
}

impl Tables {
    #[cfg(not(feature = "loom"))]
    pub(crate) fn header(&self) -> &Header {
        &self.header[0]
    }

    /// One more than the highest client number that was ever used.
    #[cfg(not(feature = "loom"))]
    pub(crate) fn clients_high(&self) -> usize {
        let high = self.header().clients_high.load(Ordering::Acquire);
        high.min(self.geometry.clients) as usize
    }

    #[cfg(feature = "loom")]
    pub(crate) fn clients_high(&self) -> usize {
        self.geometry.clients as usize
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    /// Whether `slot` can name an object at all; numbers read from shared lists are allegations.
    pub(crate) fn names_entry(&self, slot: u32) -> bool {
        slot != 0 && u64::from(slot) < self.geometry.slots
    }

    #[inline]
    pub(crate) fn cell(&self, client: u16, slot: u32) -> &AtomicU64 {
        &self.cells[client as usize * self.geometry.slots as usize + slot as usize]
    }

    #[inline(always)]
    fn touched_word(&self, client: u16, slot: u32) -> (&AtomicU64, u64) {
        let page = slot as u64 / CELLS_PER_PAGE;
        let words = self.geometry.touched_words() as usize;
        let word = &self.touched[client as usize * words + (page / 64) as usize];
        (word, 1 << (page % 64))
    }

    /// Whether `client` ever wrote to the page of its row on which `slot` lies.
    pub(crate) fn has_touched(&self, client: u16, slot: u32) -> bool {
        let (word, bit) = self.touched_word(client, slot);
        word.load(Ordering::SeqCst) & bit != 0
    }

    /// Before the first write to a page of a row, so that a sweeper looks at it.
    #[inline(always)]
    pub(crate) fn touch(&self, client: u16, slot: u32) {
        let (word, bit) = self.touched_word(client, slot);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    pub(crate) fn back(&self, chunk: u32, granule: usize) -> &Backs {
        &self.chunk_backs[chunk as usize * BACKS_PER_CHUNK + granule]
    }
}

#[cfg(not(feature = "loom"))]
mod mapped {
    use super::*;
    use crate::error::LayoutError;
    use crate::layout::{LAYOUT_VERSION, MAGIC};
    use std::sync::Arc;
    use store_shm::array::SharedArray;
    use store_shm::gate::GateError;
    use store_shm::map::SharedMap;
    use store_shm::segment::Memfd;

    impl Tables {
        /// Maps a fresh segment and writes its identity; the magic comes last.
        pub(crate) fn format(
            segment: &Memfd,
            geometry: Geometry,
            seed: u64,
            epoch_ms: u64,
            data: ReadMap,
        ) -> Result<Tables, LayoutError> {
            let map = Arc::new(SharedMap::map(segment)?);
            let header = SharedArray::<Header>::new(&map, 0, 1)?;
            header[0].version.store(LAYOUT_VERSION, Ordering::Relaxed);
            header[0].capacity_bytes.store(geometry.capacity_bytes, Ordering::Relaxed);
            header[0].slots.store(geometry.slots, Ordering::Relaxed);
            header[0].clients.store(geometry.clients, Ordering::Relaxed);
            header[0].buckets.store(geometry.buckets, Ordering::Relaxed);
            header[0].seed.store(seed, Ordering::Relaxed);
            header[0].epoch_ms.store(epoch_ms, Ordering::Relaxed);
            header[0].chunk_top_hint.store(geometry.chunks(), Ordering::Relaxed);
            let tables = Tables::over(&map, geometry, data)?;
            // Slot 0 names nothing: whoever takes the first slab finds its first entry taken.
            tables.header().magic.store(MAGIC, Ordering::Release);
            Ok(tables)
        }

        /// Maps a segment that somebody else formatted, believing nothing of it unchecked.
        pub(crate) fn open(segment: &Memfd, data: ReadMap) -> Result<Tables, LayoutError> {
            if segment.bytes() < size_of::<Header>() as u64 {
                return Err(LayoutError::TooSmall { bytes: segment.bytes(), needed_bytes: size_of::<Header>() as u64 });
            }
            let map = Arc::new(SharedMap::map(segment)?);
            let header = SharedArray::<Header>::new(&map, 0, 1)?;
            let magic = header[0].magic.load(Ordering::Acquire);
            if magic != MAGIC {
                return Err(LayoutError::Magic { found: magic, expected: MAGIC });
            }
            let version = header[0].version.load(Ordering::Relaxed);
            if version != LAYOUT_VERSION {
                return Err(LayoutError::Version { found: version, expected: LAYOUT_VERSION });
            }
            let geometry = Geometry {
                capacity_bytes: header[0].capacity_bytes.load(Ordering::Relaxed),
                slots: header[0].slots.load(Ordering::Relaxed),
                clients: header[0].clients.load(Ordering::Relaxed),
                buckets: header[0].buckets.load(Ordering::Relaxed),
            };
            geometry.check()?;
            let needed_bytes = geometry.offsets().total;
            if segment.bytes() < needed_bytes {
                return Err(LayoutError::TooSmall { bytes: segment.bytes(), needed_bytes });
            }
            if data.bytes() != geometry.capacity_bytes {
                return Err(LayoutError::DataSize { bytes: data.bytes(), expected_bytes: geometry.capacity_bytes });
            }
            Ok(Tables::over(&map, geometry, data)?)
        }

        fn over(map: &Arc<SharedMap>, geometry: Geometry, data: ReadMap) -> Result<Tables, GateError> {
            let at = geometry.offsets();
            let chunks = geometry.chunks();
            Ok(Tables {
                geometry,
                header: SharedArray::new(map, 0, 1)?,
                clients: SharedArray::new(map, at.clients, geometry.clients)?,
                touched: SharedArray::new(map, at.touched, geometry.clients * geometry.touched_words())?,
                entries: SharedArray::new(map, at.entries, geometry.slots)?,
                slabs: SharedArray::new(map, at.slabs, geometry.slots / crate::layout::SLAB_SLOTS)?,
                chunk_words: SharedArray::new(map, at.chunk_words, chunks)?,
                chunk_lengths: SharedArray::new(map, at.chunk_lengths, chunks)?,
                chunk_bits: SharedArray::new(map, at.chunk_bits, chunks)?,
                chunk_backs: SharedArray::new(map, at.chunk_backs, chunks * GRANULES as u64)?,
                index: SharedArray::new(map, at.index, geometry.buckets)?,
                cells: SharedArray::new(map, at.rows, geometry.clients * geometry.slots)?,
                data,
                files: None,
            })
        }
    }
}

#[cfg(feature = "loom")]
impl Tables {
    /// Tables in plain memory, just large enough for a model.
    pub(crate) fn for_model(clients: u64, slots: u64, chunks: u64) -> Tables {
        let geometry = Geometry { capacity_bytes: chunks * crate::layout::CHUNK_BYTES, slots, clients, buckets: 1 };
        let longs = |count: u64| (0..count).map(|_| AtomicU64::new(0)).collect();
        let shorts = |count: u64| (0..count).map(|_| AtomicU32::new(0)).collect();
        Tables {
            geometry,
            touched: longs(clients * geometry.touched_words()),
            entries: (0..slots).map(|_| Entry::new()).collect(),
            slabs: (0..slots.div_ceil(crate::layout::SLAB_SLOTS)).map(|_| SlotSlab::new()).collect(),
            chunk_words: longs(chunks),
            chunk_lengths: shorts(chunks),
            chunk_bits: (0..chunks).map(|_| ChunkBits::new()).collect(),
            chunk_backs: shorts(chunks * BACKS_PER_CHUNK as u64),
            index: longs(1),
            cells: longs(clients * slots),
            lists: vec![Vec::new(); slots as usize],
        }
    }
}
