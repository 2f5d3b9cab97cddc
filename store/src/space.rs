//! Room: what a create does when no span has any.
//!
//! The one thing to know: it never fails while something could still come back before its
//! deadline: it sweeps the dead where nobody else does, evicts cached objects, asks for referenced
//! ones to be spilled, and sleeps until a chunk comes back. It fails at once where only the caller
//! itself could make room, because it will not while it waits here.

use crate::alloc::MEDIUM_MAX;
use crate::alloc::heap::large_block;
use crate::error::{CreateError, HolderShare};
use crate::keeper::Keeping;
use crate::layout::CHUNK_BYTES;
use crate::layout::entry::FLAG_CACHED;
use crate::state::{Snapshot, State};
use crate::store::Inner;
use crate::sync::Ordering;
use crate::wait::Deadline;
use std::sync::PoisonError;
use std::time::Duration;

/// How long a sleeper for room lets pass before it looks for itself.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Holders that an error names.
const NAMED_HOLDERS: usize = 5;

impl Inner {
    /// A block for the object in `slot`, waiting for room as long as that can help.
    #[cold]
    pub(crate) fn block_or_wait(
        &self,
        bytes: u64,
        slot: u32,
        timeout: Option<Duration>,
    ) -> Result<u64, Box<CreateError>> {
        let deadline = Deadline::after(timeout.unwrap_or(self.create_timeout));
        let wanting = &self.tables.client(self.party().me).wanting_kib;
        let kib = bytes.div_ceil(1024).min(u64::from(u32::MAX)) as u32;
        let found = self.block_by(bytes, slot, deadline, || wanting.store(kib, Ordering::Relaxed));
        wanting.store(0, Ordering::Relaxed);
        found
    }

    fn block_by(
        &self,
        bytes: u64,
        slot: u32,
        deadline: Deadline,
        before_sleep: impl Fn(),
    ) -> Result<u64, Box<CreateError>> {
        let space = &self.tables.header().space;
        let mut is_first = true;
        loop {
            let seen = space.sequence();
            if let Some(offset) = self.try_block(bytes, slot)? {
                return Ok(offset);
            }
            if self.make_room(bytes) {
                continue;
            }
            let can_help = !is_first || self.could_come_back(bytes);
            let left = deadline.left().filter(|_| can_help);
            let Some(left) = left else { return Err(self.out_of_memory(bytes, deadline)) };
            is_first = false;
            before_sleep();
            self.tables.header().wanted_bytes.fetch_max(bytes, Ordering::SeqCst);
            self.tables.ring_keeper();
            let _ = space.sleep(seen, Some(left.min(LOOK_UP)));
            if self.is_keeper_gone() {
                return Err(CreateError::RayletGone.into());
            }
        }
    }

    fn try_block(&self, bytes: u64, slot: u32) -> Result<Option<u64>, Box<CreateError>> {
        let party = self.party();
        let window = &self.local().window;
        if bytes > MEDIUM_MAX {
            // Whole chunks concern no heap: no thread of this process is held up by a large claim.
            return large_block(party, window, bytes, slot).map_err(|error| CreateError::from(error).into());
        }
        self.producer().heap.block(party, window, bytes, slot).map_err(|error| CreateError::from(error).into())
    }

    /// What this thread can do for room by itself; true when something came back.
    fn make_room(&self, bytes: u64) -> bool {
        if self.keeping == Keeping::Inline && self.sweep_if_nobody_keeps() > 0 {
            return true;
        }
        // What rests empty goes back to everybody, for instance to a run of large size.
        let free_before = self.tables.free_chunks();
        self.rest_heaps();
        if self.tables.free_chunks() > free_before || self.evict(bytes) > 0 {
            return true;
        }
        self.keeping == Keeping::Inline && self.tables.files.is_some() && self.spill(bytes) > 0
    }

    /// Ends cached objects that nobody holds, the longest unused first, until `bytes` came back.
    pub(crate) fn evict(&self, bytes: u64) -> u64 {
        let party = self.party();
        let mut idle: Vec<(u32, u32)> = self
            .living_slots()
            .filter(|&slot| self.tables.entry(slot).flags.load(Ordering::Relaxed) & FLAG_CACHED != 0)
            .filter(|&slot| !party.is_held(slot))
            .map(|slot| (self.tables.entry(slot).used_ms.load(Ordering::Relaxed), slot))
            .collect();
        idle.sort_unstable();
        let mut came_back = 0;
        for (_, slot) in idle {
            if came_back >= bytes {
                break;
            }
            let size = self.size_of(slot);
            let mut work = Vec::new();
            if party.claim_decision(slot) && party.decide(slot, true, &mut work) {
                came_back += size.max(1);
                self.tables.header().evicted_objects.fetch_add(1, Ordering::Relaxed);
            }
            party.decide_all(work);
        }
        came_back
    }

    /// Slots of objects that live, as of now.
    pub(crate) fn living_slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.living_slots_from(0)
    }

    /// Those from `first` on; what lies before costs nothing.
    pub(crate) fn living_slots_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let slabs = self.tables.header().slabs_high.load(Ordering::SeqCst).min(self.tables.slabs.len() as u64);
        (first / crate::layout::SLAB_SLOTS as u32..slabs as u32)
            .flat_map(|slab| self.taken_in(slab))
            .filter(move |&slot| slot >= first)
            .filter(|&slot| Snapshot::unpack(self.tables.entry(slot).word.load(Ordering::SeqCst)).lives())
    }

    fn taken_in(&self, slab: u32) -> impl Iterator<Item = u32> + '_ {
        let shared = &self.tables.slabs[slab as usize];
        (0..shared.heads.len()).flat_map(move |word| {
            let mut taken = shared.heads[word].load(Ordering::SeqCst) & !shared.freed[word].load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = (taken != 0).then(|| taken.trailing_zeros())?;
                taken &= taken - 1;
                Some(slab * crate::layout::SLAB_SLOTS as u32 + word as u32 * 64 + bit)
            })
        })
    }

    /// Whether others, the spiller or the end of others could make room for `bytes`.
    fn could_come_back(&self, bytes: u64) -> bool {
        let mine_for_good: u64 =
            self.living_slots().filter(|&slot| self.only_we_keep(slot)).map(|slot| self.size_of(slot)).sum();
        self.tables.geometry.capacity_bytes.saturating_sub(mine_for_good) >= bytes
    }

    /// Whether this client alone keeps the bytes of an object in memory.
    fn only_we_keep(&self, slot: u32) -> bool {
        let entry = self.tables.entry(slot);
        let me = self.party().me;
        let mine = self.tables.cell(me, slot).load(Ordering::SeqCst) & crate::hold::HOLDS;
        let others = self.holders_of(slot).any(|(client, _)| client != me);
        let is_pinned = mine >= crate::hold::PIN;
        let stays = is_pinned || self.tables.files.is_none();
        let has_bytes = entry.location.load(Ordering::SeqCst) & crate::layout::entry::IN_MEMORY != 0;
        let state = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state;
        mine != 0 && !others && has_bytes && (stays || state == State::Writing)
    }

    fn out_of_memory(&self, requested_bytes: u64, deadline: Deadline) -> Box<CreateError> {
        Box::new(CreateError::OutOfMemory {
            requested_bytes,
            free_bytes: self.tables.free_chunks() * CHUNK_BYTES,
            capacity_bytes: self.tables.geometry.capacity_bytes,
            waited: deadline.waited(),
            holders: self.largest_holders(),
        })
    }

    fn largest_holders(&self) -> Vec<HolderShare> {
        let mut shares = self.holder_shares();
        shares.retain(|share| share.held_bytes > 0);
        shares.sort_unstable_by_key(|share| std::cmp::Reverse(share.held_bytes));
        shares.truncate(NAMED_HOLDERS);
        shares
    }

    /// A slot once the table of entries seemed full.
    #[cold]
    pub(crate) fn slot_after_sweep(&self) -> Result<u32, Box<CreateError>> {
        self.reclaim();
        self.evict(1);
        let slot = self.producer().heap.slot(self.party());
        slot.ok_or_else(|| CreateError::TooManyObjects { slots: self.tables.geometry.slots }.into())
    }

    /// Sweeps every dead client, here and now, or has the daemon do it.
    pub(crate) fn reclaim(&self) -> usize {
        self.forget_unborn();
        self.drop_detours();
        let swept = if self.leaves_sweeping() { self.have_swept() } else { self.sweep_all() };
        self.free_what_was_left_empty();
        swept
    }

    fn have_swept(&self) -> usize {
        self.tables.ring_keeper();
        0
    }

    fn sweep_all(&self) -> usize {
        let mut sweep = self.begin_sweep(self.tables.dead_clients());
        let swept = sweep.clients();
        while swept > 0 && !sweep.step(self.party()) {}
        swept
    }

    /// Spans and slabs whose last freer ended between its last bit and the CAS that frees them.
    fn free_what_was_left_empty(&self) {
        let party = self.party();
        (0..self.tables.chunk_count()).for_each(|chunk| party.free_if_empty(chunk));
        let slabs = self.tables.header().slabs_high.load(Ordering::SeqCst).min(self.tables.slabs.len() as u64);
        (0..slabs as u32).for_each(|slab| party.free_slab_if_empty(slab));
    }

    /// Sweeps where no keeper does; how many clients were swept.
    pub(crate) fn sweep_if_nobody_keeps(&self) -> usize {
        if self.is_kept_by_another() { 0 } else { self.reclaim() }
    }

    pub(crate) fn spilling(&self) -> std::sync::MutexGuard<'_, ()> {
        self.local().spilling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
