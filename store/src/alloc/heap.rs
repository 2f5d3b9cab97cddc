//! A client's private heap: hands out slots and blocks of what the client owns.
//!
//! The one thing to know: everything in here can be thrown away at any instant. The shared bits
//! and backs alone say what is taken; this is a cache of where room is.
//!
//! Small blocks are bumped through the free runs of one active chunk, so a put touches no shared
//! word to get its memory. When the chunk is used up the heap looks, in this order, at what came
//! back to it, at its resting chunks in rotation, at a fresh chunk, and at last at every chunk that
//! it or a dead client owns.

use super::span::{Claim, End};
use super::window::Window;
use super::{MEDIUM_CHUNKS, MEDIUM_GRANULE, MEDIUM_MAX, SMALL_GRANULE, SMALL_MAX};
use crate::error::WindowError;
use crate::layout::chunk::{Back, Kind, NOBODY, SpanWord};
use crate::layout::{CHUNK_BYTES, GRANULES, SLAB_SLOTS};
use crate::sync::Ordering;
use crate::tables::Party;
use std::collections::VecDeque;

/// Resting spans or slabs looked at before a fresh one is claimed.
const ROTATION: usize = 8;
/// A span is worth going back to once an eighth of it came back.
const WORTHWHILE_SHARE: u32 = 8;

/// What one client knows about its own spans and slabs.
#[derive(Default)]
pub(crate) struct Heap {
    small: Option<Active>,
    resting_small: VecDeque<u32>,
    resting_medium: VecDeque<u32>,
    slab: Option<ActiveSlab>,
    resting_slabs: VecDeque<u32>,
}

/// A span out of which blocks are handed: free granules, and the run being used up.
struct Active {
    first: u32,
    word: SpanWord,
    granules: usize,
    free: [u64; GRANULES / 64],
    at: usize,
    end: usize,
}

struct ActiveSlab {
    slab: u32,
    word: SpanWord,
    free: [u64; 4],
}

impl Active {
    fn new(first: u32, word: SpanWord, granules: usize) -> Active {
        Active { first, word, granules, free: [0; GRANULES / 64], at: 0, end: 0 }
    }

    /// A block of `count` granules in a row, from the current run on.
    #[inline(always)]
    fn take(&mut self, count: usize) -> Option<usize> {
        while self.end - self.at < count {
            self.next_run()?;
        }
        let granule = self.at;
        self.at += count;
        Some(granule)
    }

    #[cold]
    fn next_run(&mut self) -> Option<()> {
        let start = self.find(self.end, true)?;
        let end = self.find(start, false).unwrap_or(self.granules);
        (self.at, self.end) = (start, end);
        Some(())
    }

    /// The first granule from `from` on that is free, or taken.
    fn find(&self, from: usize, free: bool) -> Option<usize> {
        let mut at = from;
        while at < self.granules {
            let word = if free { self.free[at / 64] } else { !self.free[at / 64] };
            let rest = word >> (at % 64);
            if rest != 0 {
                let found = at + rest.trailing_zeros() as usize;
                return (found < self.granules).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Takes back what others freed and starts over; returns how many granules are free.
    fn collect(&mut self, party: Party) -> u32 {
        let heads = &party.tables.chunk_bits[self.first as usize].heads;
        for word in 0..self.granules.div_ceil(64) {
            party.collect_word(self.first, word);
        }
        self.free = [u64::MAX; GRANULES / 64];
        for (word, heads) in heads.iter().enumerate() {
            let mut left = heads.load(Ordering::Relaxed);
            while left != 0 {
                let granule = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let back = Back::unpack(party.tables.back(self.first, granule).load(Ordering::Relaxed));
                self.occupy(granule, back.granules as usize);
            }
        }
        (self.at, self.end) = (0, 0);
        let total: u32 = self.free.iter().map(|word| word.count_ones()).sum();
        total.saturating_sub((GRANULES - self.granules) as u32)
    }

    fn occupy(&mut self, granule: usize, count: usize) {
        let end = (granule + count).min(GRANULES);
        let mut at = granule;
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            self.free[at / 64] &= !((u64::MAX >> (64 - bits)) << (at % 64));
            at += bits;
        }
    }
}

impl Heap {
    /// A free slot, taken in this client's name, or `None` when the table of entries is full.
    #[inline]
    pub(crate) fn slot(&mut self, party: Party) -> Option<u32> {
        if let Some(slot) = self.slab.as_mut().and_then(|slab| slab.take(party)) {
            return Some(slot);
        }
        self.slot_from_elsewhere(party)
    }

    #[cold]
    fn slot_from_elsewhere(&mut self, party: Party) -> Option<u32> {
        if let Some(mut slab) = self.slab.take() {
            if slab.collect(party) >= SLAB_SLOTS as u32 / WORTHWHILE_SHARE {
                return self.slab.insert(slab).take(party);
            }
            slab.rest(party);
            self.resting_slabs.push_back(slab.slab);
        }
        let slab = self
            .resting_slab(party, ROTATION, SLAB_SLOTS as u32 / WORTHWHILE_SHARE)
            .or_else(|| ActiveSlab::claim(party))
            .or_else(|| self.resting_slab(party, usize::MAX, 1))
            .or_else(|| ActiveSlab::adopt(party))?;
        self.slab.insert(slab).take(party)
    }

    /// The first of `tries` resting slabs that has `wanted` free slots.
    fn resting_slab(&mut self, party: Party, tries: usize, wanted: u32) -> Option<ActiveSlab> {
        for _ in 0..tries.min(self.resting_slabs.len()) {
            let slab = self.resting_slabs.pop_front()?;
            let word = party.tables.slab_word(slab);
            if word.kind != Kind::Small || word.owner != u32::from(party.me) {
                continue;
            }
            if room_in_slab(party, slab) >= wanted
                && let Some(mut active) = ActiveSlab::activate(party, slab, word)
            {
                // Slot 0, and slots whose freer has its last step before it, only look free (A4).
                if active.free != [0; 4] {
                    return Some(active);
                }
                active.rest(party);
            }
            self.resting_slabs.push_back(slab);
        }
        None
    }

    /// A small block from the current run, if it has room: no more than a bump and three stores.
    #[inline(always)]
    pub(crate) fn small_block(&mut self, party: Party, bytes: u64, slot: u32) -> Option<u64> {
        if bytes == 0 || bytes > SMALL_MAX {
            return None;
        }
        let count = bytes.div_ceil(SMALL_GRANULE) as usize;
        let active = self.small.as_mut()?;
        let granule = active.take(count)?;
        Some(active.hand_out(party, granule, count, slot, SMALL_GRANULE))
    }

    /// A block of up to 1 MiB for the object in `slot`: its offset, or `None` when no span has room.
    pub(crate) fn block(
        &mut self,
        party: Party,
        window: &Window,
        bytes: u64,
        slot: u32,
    ) -> Result<Option<u64>, WindowError> {
        debug_assert!(bytes > 0 && bytes <= MEDIUM_MAX, "{bytes} bytes are no block of a heap");
        if let Some(offset) = self.small_block(party, bytes, slot) {
            return Ok(Some(offset));
        }
        if bytes <= SMALL_MAX {
            self.small_from_elsewhere(party, window, bytes.div_ceil(SMALL_GRANULE) as usize, slot)
        } else {
            self.medium(party, window, bytes.div_ceil(MEDIUM_GRANULE) as usize, slot)
        }
    }

    #[cold]
    fn small_from_elsewhere(
        &mut self,
        party: Party,
        window: &Window,
        count: usize,
        slot: u32,
    ) -> Result<Option<u64>, WindowError> {
        if let Some(mut active) = self.small.take() {
            if active.collect(party) >= GRANULES as u32 / WORTHWHILE_SHARE
                && let Some(granule) = active.take(count)
            {
                let active = self.small.insert(active);
                return Ok(Some(active.hand_out(party, granule, count, slot, SMALL_GRANULE)));
            }
            party.rest(active.first, active.word, Kind::Small);
            self.resting_small.push_back(active.first);
        }
        let found = match resting(&mut self.resting_small, party, Kind::Small, ROTATION, count, true) {
            Some(found) => Some(found),
            None => match fresh_small(party, window)? {
                Some(mut active) => active.take(count).map(|granule| (active, granule)),
                None => resting(&mut self.resting_small, party, Kind::Small, usize::MAX, count, false)
                    .or_else(|| adopt_small(party, window, count)),
            },
        };
        Ok(found
            .map(|(active, granule)| self.small.insert(active).hand_out(party, granule, count, slot, SMALL_GRANULE)))
    }

    /// A block of a medium span; the span rests again before this returns, so that whoever frees
    /// its last block can give it back.
    fn medium(&mut self, party: Party, window: &Window, count: usize, slot: u32) -> Result<Option<u64>, WindowError> {
        let queue = &mut self.resting_medium;
        let found = match resting(queue, party, Kind::Medium, ROTATION, count, false) {
            Some(found) => Some(found),
            None => match fresh_medium(party, window, count)? {
                Some(mut active) => active.take(count).map(|granule| (active, granule)),
                None => resting(queue, party, Kind::Medium, usize::MAX, count, false),
            },
        };
        Ok(found.map(|(active, granule)| {
            let offset = active.hand_out(party, granule, count, slot, MEDIUM_GRANULE);
            party.rest(active.first, active.word, Kind::Medium);
            self.resting_medium.push_front(active.first);
            offset
        }))
    }

    /// Lets everything rest, so that whatever is empty goes back: for a client without objects,
    /// and before somebody is told that memory is full.
    pub(crate) fn rest_all(&mut self, party: Party) {
        if let Some(mut active) = self.small.take() {
            active.collect(party);
            party.rest(active.first, active.word, Kind::Small);
            self.resting_small.push_back(active.first);
        }
        if let Some(mut slab) = self.slab.take() {
            slab.collect(party);
            slab.rest(party);
            self.resting_slabs.push_back(slab.slab);
        }
    }
}

/// Slots that nobody has, by the bits: those that came back and those never handed out.
fn room_in_slab(party: Party, slab: u32) -> u32 {
    let shared = &party.tables.slabs[slab as usize];
    let bits = shared.heads.iter().zip(&shared.freed);
    let taken: u32 =
        bits.map(|(heads, freed)| (heads.load(Ordering::Relaxed) & !freed.load(Ordering::Relaxed)).count_ones()).sum();
    (SLAB_SLOTS as u32).saturating_sub(taken)
}

/// A block of whole chunks, claimed for one object: its offset, or `None` when no run is that long.
pub(crate) fn large_block(party: Party, window: &Window, bytes: u64, slot: u32) -> Result<Option<u64>, WindowError> {
    let chunks = bytes.div_ceil(CHUNK_BYTES) as u32;
    let Some(claim) = party.claim(chunks, End::High) else { return Ok(None) };
    prepared(party, window, claim)?;
    party.take_block(claim.first, 0, 1, slot);
    party.publish(claim, Kind::Large);
    Ok(Some(u64::from(claim.first) * CHUNK_BYTES))
}

impl Active {
    #[inline]
    fn hand_out(&self, party: Party, granule: usize, count: usize, slot: u32, granule_bytes: u64) -> u64 {
        party.take_block(self.first, granule, count as u32, slot);
        u64::from(self.first) * CHUNK_BYTES + granule as u64 * granule_bytes
    }
}

/// Activates the first of `tries` resting spans that has `count` granules in a row.
fn resting(
    queue: &mut VecDeque<u32>,
    party: Party,
    kind: Kind,
    tries: usize,
    count: usize,
    only_worthwhile: bool,
) -> Option<(Active, usize)> {
    let filling = if kind == Kind::Small { Kind::Active } else { Kind::Filling };
    for _ in 0..tries.min(queue.len()) {
        let first = queue.pop_front()?;
        let word = party.tables.span_word(first);
        if word.kind != kind || word.owner != u32::from(party.me) {
            // It came back whole and is anybody's.
            continue;
        }
        if !only_worthwhile || is_worthwhile(party, first) {
            let Some(word) = party.activate(first, word, filling) else { continue };
            let mut active = Active::new(first, word, granules_of(party, first, kind));
            active.collect(party);
            if let Some(granule) = active.take(count) {
                return Some((active, granule));
            }
            party.rest(first, word, kind);
        }
        queue.push_back(first);
    }
    None
}

fn is_worthwhile(party: Party, first: u32) -> bool {
    let bits = &party.tables.chunk_bits[first as usize];
    let count = |words: &[crate::sync::AtomicU64]| -> u32 {
        words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    };
    count(&bits.freed) * WORTHWHILE_SHARE >= count(&bits.heads).max(1)
}

fn granules_of(party: Party, first: u32, kind: Kind) -> usize {
    if kind == Kind::Small {
        return GRANULES;
    }
    let bytes = u64::from(party.tables.span_chunks(first)) * CHUNK_BYTES;
    ((bytes / MEDIUM_GRANULE) as usize).min(GRANULES)
}

/// Makes a claim writable and backed by pages, or gives it back.
fn prepared(party: Party, window: &Window, claim: Claim) -> Result<(), WindowError> {
    let ready = window.prepare(party.tables, claim.first, claim.chunks);
    if ready.is_err() {
        party.give_back(claim);
    }
    ready
}

fn fresh_small(party: Party, window: &Window) -> Result<Option<Active>, WindowError> {
    let Some(claim) = party.claim(1, End::Low) else { return Ok(None) };
    prepared(party, window, claim)?;
    let word = party.publish(claim, Kind::Active);
    let mut active = Active::new(claim.first, word, GRANULES);
    active.free = [u64::MAX; GRANULES / 64];
    Ok(Some(active))
}

/// A whole span where there is room for one, else one that is just long enough.
fn fresh_medium(party: Party, window: &Window, count: usize) -> Result<Option<Active>, WindowError> {
    let least = (count as u64 * MEDIUM_GRANULE).div_ceil(CHUNK_BYTES) as u32;
    let usual = MEDIUM_CHUNKS.min(party.tables.chunk_count() / 64).max(least);
    let Some(claim) = party.claim(usual, End::High).or_else(|| party.claim(least, End::High)) else {
        return Ok(None);
    };
    prepared(party, window, claim)?;
    let word = party.publish(claim, Kind::Filling);
    let mut active = Active::new(claim.first, word, granules_of(party, claim.first, Kind::Medium));
    active.free = [u64::MAX; GRANULES / 64];
    Ok(Some(active))
}

/// A small span that a dead client left behind with room in it.
fn adopt_small(party: Party, window: &Window, count: usize) -> Option<(Active, usize)> {
    for chunk in 0..party.tables.chunk_count() {
        let word = party.tables.span_word(chunk);
        if word.kind != Kind::Small || word.owner != NOBODY {
            continue;
        }
        let Some(word) = party.activate(chunk, word, Kind::Active) else { continue };
        let mut active = Active::new(chunk, word, GRANULES);
        active.collect(party);
        if window.prepare(party.tables, chunk, 1).is_ok()
            && let Some(granule) = active.take(count)
        {
            return Some((active, granule));
        }
        party.rest(chunk, SpanWord { owner: NOBODY, ..word }, Kind::Small);
    }
    None
}

impl ActiveSlab {
    #[inline]
    fn take(&mut self, party: Party) -> Option<u32> {
        let word = self.free.iter().position(|&free| free != 0)?;
        let bit = self.free[word].trailing_zeros();
        self.free[word] &= self.free[word] - 1;
        let slot = self.slab * SLAB_SLOTS as u32 + word as u32 * 64 + bit;
        party.take_slot(slot);
        Some(slot)
    }

    fn collect(&mut self, party: Party) -> u32 {
        for (word, free) in self.free.iter_mut().enumerate() {
            *free = party.collect_slots(self.slab, word);
        }
        self.free.iter().map(|free| free.count_ones()).sum()
    }

    /// A slab that this client has just made active: all its cells lie on one page (A5).
    fn of(party: Party, slab: u32, word: SpanWord) -> ActiveSlab {
        party.tables.touch(party.me, slab * SLAB_SLOTS as u32);
        let mut active = ActiveSlab { slab, word, free: [0; 4] };
        active.collect(party);
        active
    }

    fn activate(party: Party, slab: u32, word: SpanWord) -> Option<ActiveSlab> {
        let word = party.turn_slab(slab, word, Kind::Active)?;
        Some(ActiveSlab::of(party, slab, word))
    }

    /// Claims a free slab; its slots whose last freer has not finished yet count as taken.
    fn claim(party: Party) -> Option<ActiveSlab> {
        let header = party.tables.header();
        let total = party.tables.slabs.len() as u32;
        let hint = header.slab_hint.load(Ordering::Relaxed) as u32;
        for slab in (hint.min(total)..total).chain(0..hint.min(total)) {
            let word = party.tables.slab_word(slab);
            if word.kind != Kind::Free {
                continue;
            }
            let Some(word) = party.turn_slab(slab, word, Kind::Active) else { continue };
            header.slab_hint.store(u64::from(slab) + 1, Ordering::Relaxed);
            header.slabs_high.fetch_max(u64::from(slab) + 1, Ordering::Relaxed);
            party.begin_slab(slab);
            return Some(ActiveSlab::of(party, slab, word));
        }
        None
    }

    fn adopt(party: Party) -> Option<ActiveSlab> {
        (0..party.tables.slabs.len() as u32).find_map(|slab| {
            let word = party.tables.slab_word(slab);
            let orphan = word.kind == Kind::Small && word.owner == NOBODY;
            let active = if orphan { ActiveSlab::activate(party, slab, word) } else { None }?;
            if active.free.iter().any(|&free| free != 0) {
                return Some(active);
            }
            party.rest_slab(slab, SpanWord { owner: NOBODY, ..active.word });
            None
        })
    }

    fn rest(&mut self, party: Party) {
        party.rest_slab(self.slab, self.word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(free: &[(usize, usize)]) -> Active {
        let mut active = Active::new(0, SpanWord { kind: Kind::Active, owner: 0, generation: 0 }, GRANULES);
        for &(start, end) in free {
            (start..end).for_each(|granule| active.free[granule / 64] |= 1 << (granule % 64));
        }
        active
    }

    #[test]
    fn blocks_are_bumped_through_free_runs() {
        let mut span = active(&[(3, 5), (60, 70), (1000, 1024)]);
        assert_eq!(span.take(2), Some(3));
        assert_eq!(span.take(4), Some(60));
        assert_eq!(span.take(6), Some(64));
        assert_eq!(span.take(24), Some(1000));
        assert_eq!(span.take(1), None);
    }

    #[test]
    fn a_run_that_is_too_short_is_passed_over() {
        let mut span = active(&[(0, 10), (100, 400)]);
        assert_eq!(span.take(256), Some(100));
        assert_eq!(span.take(45), None);
    }
}
