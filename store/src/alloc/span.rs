//! Spans of chunks: claimed by CAS, freed block by block, given back by one CAS.
//!
//! Invariants:
//!
//! - **A1** A chunk's word names who may write its bits and lengths. Every change of kind of a
//!   span's first word is one CAS that also moves its generation.
//! - **A2** A block is taken exactly while its bit is in `heads` and not in `freed`. The bit joins
//!   `freed` once per taking: only by the client that the block's entry names as decider, and only
//!   while the block's back still names that entry's slot.
//! - **A3** Nobody hands out blocks of a small, medium or large span, so one whose blocks all came
//!   back stays empty until the CAS that frees it, or that its owner activates it with.
//!
//! The one thing to know: freeing a span of any length is one CAS of its first word, because the
//! others count as its body only while that word says so.

use super::{MEDIUM_GRANULE, SMALL_GRANULE};
use crate::layout::CHUNK_BYTES;
use crate::layout::chunk::{Back, ChunkBits, Kind, NOBODY, SpanWord};
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::{Party, Tables};

/// A run of chunks this client has claimed: kind claimed, nobody else touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) first: u32,
    pub(crate) chunks: u32,
    pub(crate) word: SpanWord,
}

/// From which end of the data a run is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Small spans gather at the bottom ...
    Low,
    /// ... and large ones at the top, so that small survivors do not cut the room for large ones.
    High,
}

impl Tables {
    pub(crate) fn chunk_count(&self) -> u32 {
        self.chunk_words.len() as u32
    }

    pub(crate) fn span_word(&self, chunk: u32) -> SpanWord {
        SpanWord::unpack(self.chunk_words[chunk as usize].load(Ordering::SeqCst))
    }

    pub(crate) fn span_chunks(&self, first: u32) -> u32 {
        self.chunk_lengths[first as usize].load(Ordering::SeqCst)
    }

    /// The first chunk of the span that `chunk` is part of, or `None` when it is free.
    pub(crate) fn span_of(&self, chunk: u32) -> Option<(u32, SpanWord)> {
        let word = self.span_word(chunk);
        match word.kind {
            Kind::Free => None,
            Kind::Body => {
                let first = word.owner;
                if first >= chunk {
                    return None;
                }
                let head = self.span_word(first);
                let is_span = !matches!(head.kind, Kind::Free | Kind::Body);
                (is_span && chunk < first.saturating_add(self.span_chunks(first))).then_some((first, head))
            }
            _ => Some((chunk, word)),
        }
    }

    /// Chunks that nobody owns.
    pub(crate) fn free_chunks(&self) -> u64 {
        (0..self.chunk_count()).filter(|&chunk| self.span_of(chunk).is_none()).count() as u64
    }

    fn granule_bytes(kind: Kind) -> u64 {
        match kind {
            Kind::Medium | Kind::Filling => MEDIUM_GRANULE,
            _ => SMALL_GRANULE,
        }
    }

    /// The span and granule at which the block at `offset` begins.
    fn block_at(&self, offset: u64) -> Option<(u32, SpanWord, usize)> {
        let chunk = u32::try_from(offset / CHUNK_BYTES).ok().filter(|&chunk| chunk < self.chunk_count())?;
        let (first, word) = self.span_of(chunk)?;
        let within = offset - u64::from(first) * CHUNK_BYTES;
        let granule = within / Tables::granule_bytes(word.kind);
        (granule < crate::layout::GRANULES as u64).then_some((first, word, granule as usize))
    }

    /// Where the block at `granule` of a span begins, in bytes of the data segment.
    pub(crate) fn block_offset(&self, first: u32, granule: usize, kind: Kind) -> u64 {
        u64::from(first) * CHUNK_BYTES + granule as u64 * Tables::granule_bytes(kind)
    }

    /// Whether any block of the span is taken.
    pub(crate) fn span_is_taken(&self, first: u32) -> bool {
        let bits = &self.chunk_bits[first as usize];
        bits.heads
            .iter()
            .zip(&bits.freed)
            .any(|(heads, freed)| heads.load(Ordering::SeqCst) & !freed.load(Ordering::SeqCst) != 0)
    }
}

impl Party<'_> {
    /// Claims `chunks` free chunks in a row, or finds that there is no such run.
    pub(crate) fn claim(&self, chunks: u32, end: End) -> Option<Claim> {
        match end {
            End::Low => self.claim_low(chunks),
            End::High => self.claim_high(chunks),
        }
    }

    fn claim_low(&self, chunks: u32) -> Option<Claim> {
        let hint = self.chunk_hint().min(self.tables.chunk_count());
        let mut at = hint;
        let mut run = 0;
        let mut wrapped = hint == 0;
        loop {
            if at >= self.tables.chunk_count() {
                if wrapped {
                    return None;
                }
                (at, run, wrapped) = (0, 0, true);
            }
            match self.tables.span_of(at) {
                None => run += 1,
                Some((first, _)) => {
                    run = 0;
                    at = at.max(first.saturating_add(self.tables.span_chunks(first).max(1) - 1));
                }
            }
            at = at.saturating_add(1);
            if run == chunks {
                match self.take_run(at - chunks, chunks) {
                    Some(claim) => {
                        self.set_chunk_hint(at);
                        return Some(claim);
                    }
                    None => run = 0,
                }
            }
        }
    }

    fn claim_high(&self, chunks: u32) -> Option<Claim> {
        let top = self.chunk_top_hint().min(self.tables.chunk_count());
        self.claim_below(top, chunks).or_else(|| self.claim_below(self.tables.chunk_count(), chunks))
    }

    /// The highest run that ends at or below `top`.
    fn claim_below(&self, top: u32, chunks: u32) -> Option<Claim> {
        let mut at = top;
        let mut run = 0;
        while at > 0 {
            at -= 1;
            match self.tables.span_of(at) {
                None => run += 1,
                // Nothing of that span is free: go on below its first chunk.
                Some((first, _)) => {
                    run = 0;
                    at = first.min(at);
                }
            }
            if run == chunks {
                if let Some(claim) = self.take_run(at, chunks) {
                    self.set_chunk_top_hint(at);
                    return Some(claim);
                }
                run = 0;
            }
        }
        None
    }

    /// Claims exactly this run; gives up at the first chunk somebody else was quicker with.
    pub(crate) fn take_run(&self, first: u32, chunks: u32) -> Option<Claim> {
        let claim = self.take_first(first, chunks)?;
        for chunk in first + 1..first + chunks {
            if !self.take_body(chunk, first) {
                // The bodies claimed so far are free again as soon as the first chunk is.
                self.give_back(claim);
                return None;
            }
        }
        self.clear_bits(first);
        Some(claim)
    }

    fn take_first(&self, first: u32, chunks: u32) -> Option<Claim> {
        let word = &self.tables.chunk_words[first as usize];
        let before = word.load(Ordering::SeqCst);
        if self.tables.span_of(first).is_some() {
            return None;
        }
        let claimed = SpanWord::unpack(before).next(Kind::Claimed, u32::from(self.me));
        word.compare_exchange(before, claimed.pack(), Ordering::SeqCst, Ordering::SeqCst).ok()?;
        // Before the bodies: from here on a stale body that names this chunk counts as taken for
        // everybody but this client.
        self.tables.chunk_lengths[first as usize].store(chunks, Ordering::SeqCst);
        Some(Claim { first, chunks, word: claimed })
    }

    fn take_body(&self, chunk: u32, first: u32) -> bool {
        let word = &self.tables.chunk_words[chunk as usize];
        let before = word.load(Ordering::SeqCst);
        let snapshot = SpanWord::unpack(before);
        let stale_mine = snapshot.kind == Kind::Body && snapshot.owner == first;
        if !stale_mine && self.tables.span_of(chunk).is_some() {
            return false;
        }
        let body = snapshot.next(Kind::Body, first);
        word.compare_exchange(before, body.pack(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn clear_bits(&self, first: u32) {
        let bits = &self.tables.chunk_bits[first as usize];
        for word in bits.heads.iter().chain(&bits.freed) {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Frees a claim nothing was handed out of.
    pub(crate) fn give_back(&self, claim: Claim) {
        let freed = claim.word.next(Kind::Free, u32::from(self.me));
        self.tables.chunk_words[claim.first as usize].store(freed.pack(), Ordering::SeqCst);
        self.chunks_came_back(claim.first, claim.chunks);
    }

    /// Publishes a claim as another kind: from now on blocks of it may come back.
    pub(crate) fn publish(&self, claim: Claim, kind: Kind) -> SpanWord {
        let word = claim.word.same(kind);
        self.tables.chunk_words[claim.first as usize].store(word.pack(), Ordering::SeqCst);
        word
    }

    /// Takes a span nobody hands out of back into this client's own hands (A1); `None` when it was
    /// freed or taken meanwhile.
    pub(crate) fn activate(&self, first: u32, from: SpanWord, kind: Kind) -> Option<SpanWord> {
        let active = from.next(kind, u32::from(self.me));
        self.tables.chunk_words[first as usize]
            .compare_exchange(from.pack(), active.pack(), Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| active)
    }

    /// Lets a span rest: its owner hands nothing more out of it until it activates it again.
    pub(crate) fn rest(&self, first: u32, active: SpanWord, kind: Kind) {
        // A swap: the fence in `free_if_empty` is free behind a read-modify-write.
        self.tables.chunk_words[first as usize].swap(active.same(kind).pack(), Ordering::SeqCst);
        self.free_if_empty(first);
    }

    /// Marks a block as taken: back first, so that whoever sees the bit can check whose it is (A2).
    pub(crate) fn take_block(&self, first: u32, granule: usize, granules: u32, slot: u32) {
        self.tables.back(first, granule).store(Back { slot, granules }.pack(), Ordering::Relaxed);
        let heads = &self.tables.chunk_bits[first as usize].heads[granule / 64];
        heads.store(heads.load(Ordering::Relaxed) | 1 << (granule % 64), Ordering::Release);
    }

    /// Takes back into the owner's hands what others freed in one word of bits; returns the bits.
    pub(crate) fn collect_word(&self, first: u32, word: usize) -> u64 {
        let ChunkBits { heads, freed } = &self.tables.chunk_bits[first as usize];
        let came_back = freed[word].load(Ordering::Acquire) & heads[word].load(Ordering::Relaxed);
        if came_back == 0 {
            return 0;
        }
        let mut left = came_back;
        while left != 0 {
            let granule = word * 64 + left.trailing_zeros() as usize;
            left &= left - 1;
            // Before the bit goes: who repeats an interrupted free then finds it done (A2).
            self.tables.back(first, granule).store(Back::NONE, Ordering::SeqCst);
        }
        heads[word].store(heads[word].load(Ordering::Relaxed) & !came_back, Ordering::SeqCst);
        freed[word].fetch_and(!came_back, Ordering::SeqCst);
        came_back
    }

    /// Gives a block back. Repeatable: a second call, by whoever goes on for a dead client, finds
    /// the bit set, or the back gone.
    pub(crate) fn free_block(&self, offset: u64, slot: u32) {
        let Some((first, _, granule)) = self.tables.block_at(offset) else { return };
        let freed = &self.tables.chunk_bits[first as usize].freed[granule / 64];
        let bit = 1 << (granule % 64);
        // The bit is read before the back: its owner clears them in the other order (A2).
        if freed.load(Ordering::SeqCst) & bit == 0 {
            let back = self.tables.back(first, granule).load(Ordering::SeqCst);
            if back == Back::NONE || Back::unpack(back).slot != slot {
                return;
            }
            freed.fetch_or(bit, Ordering::SeqCst);
        }
        self.free_if_empty(first);
    }

    /// Frees a resting span whose blocks all came back: one CAS, by whoever sees it (A3).
    pub(crate) fn free_if_empty(&self, first: u32) {
        // A last freer sees that the span rests, or whoever lets it rest sees the last bit.
        fence_after_rmw();
        let word = self.tables.span_word(first);
        if !matches!(word.kind, Kind::Small | Kind::Medium | Kind::Large) || self.tables.span_is_taken(first) {
            return;
        }
        let chunks = self.tables.span_chunks(first);
        let owner = if word.owner == NOBODY { u32::from(self.me) } else { word.owner };
        let freed = word.next(Kind::Free, owner);
        let chunk = &self.tables.chunk_words[first as usize];
        if chunk.compare_exchange(word.pack(), freed.pack(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.chunks_came_back(first, chunks);
        }
    }
}

#[cfg(not(feature = "loom"))]
impl Party<'_> {
    fn chunk_hint(&self) -> u32 {
        self.tables.header().chunk_hint.load(Ordering::Relaxed) as u32
    }

    fn set_chunk_hint(&self, at: u32) {
        self.tables.header().chunk_hint.store(u64::from(at), Ordering::Relaxed);
    }

    fn chunk_top_hint(&self) -> u32 {
        self.tables.header().chunk_top_hint.load(Ordering::Relaxed) as u32
    }

    fn set_chunk_top_hint(&self, at: u32) {
        self.tables.header().chunk_top_hint.store(u64::from(at), Ordering::Relaxed);
    }

    /// Moves the hints and wakes whoever waits for memory.
    fn chunks_came_back(&self, first: u32, chunks: u32) {
        let header = self.tables.header();
        header.chunk_hint.fetch_min(u64::from(first), Ordering::Relaxed);
        header.chunk_top_hint.fetch_max(u64::from(first) + u64::from(chunks), Ordering::Relaxed);
        if header.space.sleepers() > 0 {
            header.space.ring();
        }
    }
}

#[cfg(feature = "loom")]
impl Party<'_> {
    fn chunk_hint(&self) -> u32 {
        0
    }

    fn set_chunk_hint(&self, _at: u32) {}

    fn chunk_top_hint(&self) -> u32 {
        self.tables.chunk_count()
    }

    fn set_chunk_top_hint(&self, _at: u32) {}

    fn chunks_came_back(&self, _first: u32, _chunks: u32) {}
}
