//! Holds: who keeps an object, and how the last one to let go ends it.
//!
//! A cell per client and slot: `pins 32 | deciding 1 | recheck 1 | references 30`. Only that
//! client writes it (and its sweeper, once the client is dead).
//!
//! The one thing to know: taking a hold is an add to the own cell, a full fence, and a look at the
//! entry's word. Ending an object is a CAS of the word to *condemned*, a full fence, and a look at
//! everybody's cells. Whichever comes first is seen by the other.
//!
//! Invariants:
//!
//! - **H1** A cell never goes from its last hold to zero: it goes to `deciding`, and stays there
//!   until the decision stands. So the sweeper of a client that died in between finds the slot.
//! - **H2** Of one client, one thread at a time decides over a slot: the one that set `deciding`.
//!   A thread that lets go meanwhile sets `recheck` and leaves.
//! - **H3** Who reads cells to decide has made its own release, or its condemnation, visible before.
//! - **H4** A word is freed only by the client it names as decider.
//! - **H5** A release never takes more than the cell holds.
//! - **H6** While a cell holds a settled reference, its page is touched and its class known.

use crate::layout::entry::{Entry, FLAG_CACHED, FLAG_FILE, FLAG_INDEXED, FLAG_NAMED, IN_MEMORY};
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::{Handle, Party};

/// One reference, in a cell.
pub(crate) const REFERENCE: u64 = 1;
/// One pin, in a cell.
pub(crate) const PIN: u64 = 1 << 32;
/// The client decides over the slot (H1, H2).
pub(crate) const DECIDING: u64 = 1 << 31;
/// Somebody let go while a decision was under way (H2).
pub(crate) const RECHECK: u64 = 1 << 30;
/// Everything in a cell that keeps an object.
pub(crate) const HOLDS: u64 = !(DECIDING | RECHECK);
const REFERENCES: u64 = RECHECK - 1;
const PINS: u64 = !(PIN - 1);
/// Half of what a cell can count: far more handles than fit into memory.
const REFERENCES_MAX: u64 = RECHECK / 2;

/// What a hold was taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The value stands, in memory or on disk.
    Value,
    /// Nobody has sealed it yet.
    NoValue,
    /// That life of the slot is over; no hold was kept.
    Gone,
}

/// A hold was added to the cell, and the entry needs a closer look.
#[derive(Debug)]
pub(crate) struct Unsettled;

/// Slots over which this client has to decide next; each has `deciding` set in its cell.
pub(crate) type Work = Vec<u32>;

impl Party<'_> {
    /// A forked child that was refused a number of its own: it holds nothing, whatever it inherited.
    #[inline(always)]
    pub(crate) fn is_nobody(&self) -> bool {
        self.me == 0
    }

    fn class(&self) -> u64 {
        1 << (self.me % 64)
    }

    /// Takes a hold; `Ok` only on the common path: the value stands and the class is known.
    ///
    /// `Err` says nothing yet: the caller goes on with [`Party::settle`]. `Ok` has the cell as this
    /// call left it, for [`Party::let_go_seen`].
    #[inline(always)]
    pub(crate) fn hold_fast(&self, handle: Handle, unit: u64) -> Result<u64, Unsettled> {
        if self.is_nobody() {
            return Err(Unsettled);
        }
        let cell = self.tables.cell(self.me, handle.slot);
        self.tables.touch(self.me, handle.slot);
        // SeqCst, then fence, then loads: pairs with the CAS and the loads in `condemn` (H3).
        let before = cell.fetch_add(unit, Ordering::SeqCst);
        fence_after_rmw();
        debug_assert!(before & REFERENCES < REFERENCES_MAX, "H1: {before:#x} counts too many");
        let entry = self.tables.entry(handle.slot);
        let known = entry.holders.load(Ordering::SeqCst) & self.class() != 0;
        let stands = entry.word.load(Ordering::SeqCst) == Snapshot::sealed(handle.generation);
        if known && stands { Ok(before + unit) } else { Err(Unsettled) }
    }

    /// Takes a pin of an object that this client refers to: page and class are known (H6). Of the
    /// generation the low bits are enough: it cannot change.
    #[inline(always)]
    pub(crate) fn pin_referenced(&self, slot: u32, generation_tag: u64) -> Result<u64, Unsettled> {
        if self.is_nobody() {
            return Err(Unsettled);
        }
        let cell = self.tables.cell(self.me, slot);
        let before = cell.fetch_add(PIN, Ordering::SeqCst);
        fence_after_rmw();
        debug_assert!(before & REFERENCES != 0, "H6: slot {slot} is not referenced");
        let word = self.tables.entry(slot).word.load(Ordering::SeqCst);
        if Snapshot::is_sealed_as(word, generation_tag) { Ok(before + PIN) } else { Err(Unsettled) }
    }

    /// Takes a hold of `handle`, or finds that its life is over.
    #[inline]
    pub(crate) fn hold(&self, handle: Handle, unit: u64) -> Held {
        if self.hold_fast(handle, unit).is_ok() { Held::Value } else { self.settle(handle, unit) }
    }

    /// Makes a hold that is already in the cell good, or takes it back.
    #[cold]
    pub(crate) fn settle(&self, handle: Handle, unit: u64) -> Held {
        if self.is_nobody() {
            return Held::Gone;
        }
        let entry = self.tables.entry(handle.slot);
        entry.holders.fetch_or(self.class(), Ordering::SeqCst);
        fence_after_rmw();
        loop {
            let word = entry.word.load(Ordering::SeqCst);
            let snapshot = Snapshot::unpack(word);
            if snapshot.generation != handle.generation || !snapshot.lives() {
                self.release(handle.slot, unit);
                return Held::Gone;
            }
            match snapshot.rescued() {
                // Came in time: whoever condemned it or was writing it out loses its next CAS.
                Some(saved) => {
                    let _ = entry.word.compare_exchange(word, saved, Ordering::SeqCst, Ordering::SeqCst);
                }
                None if matches!(snapshot.state, State::Promised | State::Writing) => return Held::NoValue,
                None => return Held::Value,
            }
        }
    }

    /// Takes away one hold; true when it was the last and this thread has to decide (H1, H2).
    #[inline(always)]
    pub(crate) fn let_go(&self, slot: u32, unit: u64) -> bool {
        self.let_go_seen(slot, unit, self.tables.cell(self.me, slot).load(Ordering::Relaxed))
    }

    /// As [`Party::let_go`], with a guess what the cell holds: right unless another thread of this
    /// client used the object meanwhile, and then only slower.
    #[inline(always)]
    pub(crate) fn let_go_seen(&self, slot: u32, unit: u64, mut before: u64) -> bool {
        let cell = self.tables.cell(self.me, slot);
        loop {
            // H5: a child forked from several threads may drop a hold that was taken while it was made.
            if before & if unit == PIN { PINS } else { REFERENCES } == 0 {
                return false;
            }
            let mut after = before - unit;
            let last = after & HOLDS == 0;
            if last {
                after |= if before & DECIDING == 0 { DECIDING } else { RECHECK };
            }
            // Release: what was read through the hold happens before the bytes are reused.
            match cell.compare_exchange(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return last && before & DECIDING == 0,
                Err(now) => before = now,
            }
        }
    }

    /// Lets go, and ends whatever nobody holds any more.
    #[inline]
    pub(crate) fn release(&self, slot: u32, unit: u64) {
        if self.let_go(slot, unit) {
            self.end_hold(slot);
        }
    }

    /// After the last hold of this client: decides over the slot and what its end sets free.
    #[cold]
    pub(crate) fn end_hold(&self, slot: u32) {
        let mut work = Work::new();
        self.decide(slot, false, &mut work);
        self.decide_all(work);
    }

    /// Sets `deciding` without having held; false where another thread of this client decides
    /// already and will look again.
    pub(crate) fn claim_decision(&self, slot: u32) -> bool {
        self.tables.touch(self.me, slot);
        let cell = self.tables.cell(self.me, slot);
        let mut before = cell.load(Ordering::Relaxed);
        loop {
            let after = before | if before & DECIDING == 0 { DECIDING } else { RECHECK };
            match cell.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return before & DECIDING == 0,
                Err(now) => before = now,
            }
        }
    }

    /// Decides over every slot in `work` and over what their ends set free, without recursion.
    #[cold]
    pub(crate) fn decide_all(&self, mut work: Work) {
        while let Some(slot) = work.pop() {
            self.decide(slot, false, &mut work);
        }
    }

    /// Decides over a slot whose cell says `deciding`: ends it if nobody holds it. `evict` ends a
    /// cached object too. True when this call ended an object.
    pub(crate) fn decide(&self, slot: u32, evict: bool, work: &mut Work) -> bool {
        let mut ended = false;
        loop {
            fence_after_rmw();
            if let Some(snapshot) = self.condemn(slot, evict) {
                self.take_apart(slot, snapshot, work);
                ended = true;
            }
            if self.stand_down(slot) {
                return ended;
            }
        }
    }

    /// Clears `deciding`; false when somebody let go meanwhile and the slot needs another look.
    pub(crate) fn stand_down(&self, slot: u32) -> bool {
        let cell = self.tables.cell(self.me, slot);
        let mut before = cell.load(Ordering::Relaxed);
        loop {
            let again = before & RECHECK != 0 && before & HOLDS == 0;
            let after = before & if again { !RECHECK } else { HOLDS };
            match cell.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return !again,
                Err(now) => before = now,
            }
        }
    }

    /// From unheld to dead in this client's name, or `None` where it lives on or others decide.
    fn condemn(&self, slot: u32, evict: bool) -> Option<Snapshot> {
        let entry = self.tables.entry(slot);
        let mut word = entry.word.load(Ordering::SeqCst);
        loop {
            let snapshot = Snapshot::unpack(word);
            let condemned = snapshot.condemned(self.me)?;
            if self.outlives_its_holds(entry, evict) || self.is_shared(entry) && self.is_held(slot) {
                self.rescue(entry, word, snapshot);
                #[cfg(not(feature = "loom"))]
                self.note_use(entry);
                return None;
            }
            if let Err(now) = entry.word.compare_exchange(word, condemned, Ordering::SeqCst, Ordering::SeqCst) {
                word = now;
                continue;
            }
            fence_after_rmw();
            if self.is_held(slot) {
                // Whoever holds it decides when it lets go; if it already rescued it, this fails.
                let saved = Snapshot::unpack(condemned).rescued().expect("a condemned word can be rescued");
                let _ = entry.word.compare_exchange(condemned, saved, Ordering::SeqCst, Ordering::SeqCst);
                return None;
            }
            let dead = snapshot.to(State::Dead, self.me);
            // A lost CAS: a holder came in time, or another last releaser took the decision over.
            let won = entry.word.compare_exchange(condemned, dead, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            return won.then(|| Snapshot::unpack(dead));
        }
    }

    /// Undoes a condemnation that somebody left behind although the object is held.
    fn rescue(&self, entry: &Entry, word: u64, snapshot: Snapshot) {
        let left_over = matches!(snapshot.state, State::Condemned | State::Forsaken);
        if let Some(saved) = snapshot.rescued().filter(|_| left_over) {
            let _ = entry.word.compare_exchange(word, saved, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Whether anybody but this client's class ever held it, or a container lists it: then a look
    /// may spare the condemnation.
    fn is_shared(&self, entry: &Entry) -> bool {
        entry.holders.load(Ordering::SeqCst) & !self.class() != 0 || crate::list::listed_count(entry) > 0
    }

    /// The last release of a cached object is its last use, by which room is made.
    #[cfg(not(feature = "loom"))]
    fn note_use(&self, entry: &Entry) {
        if entry.flags.load(Ordering::Relaxed) & FLAG_CACHED != 0 {
            let epoch_ms = self.tables.header().epoch_ms.load(Ordering::Relaxed);
            let now_ms = store_shm::clock::coarse_ms().wrapping_sub(epoch_ms) as u32;
            entry.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn outlives_its_holds(&self, entry: &Entry, evict: bool) -> bool {
        let flags = entry.flags.load(Ordering::SeqCst);
        flags & FLAG_NAMED != 0 || flags & FLAG_CACHED != 0 && !evict
    }

    /// Whether a container lists it or any cell of any client holds it.
    pub(crate) fn is_held(&self, slot: u32) -> bool {
        self.any_cell(slot, HOLDS, |_| true) || crate::list::listed_count(self.tables.entry(slot)) > 0
    }

    /// Whether any client has a live view of the bytes.
    pub(crate) fn is_pinned(&self, slot: u32) -> bool {
        self.any_cell(slot, PINS, |_| true)
    }

    /// Whether anybody but the client of that number holds a slot, or a container lists it.
    pub(crate) fn is_held_besides(&self, slot: u32, client: u16) -> bool {
        self.any_cell(slot, HOLDS, |other| other != client) || crate::list::listed_count(self.tables.entry(slot)) > 0
    }

    /// Whether the cell of any of those clients has a bit of the mask.
    #[inline]
    fn any_cell(&self, slot: u32, mask: u64, is_meant: impl Fn(u16) -> bool) -> bool {
        let high = self.tables.clients_high();
        let mut classes = self.tables.entry(slot).holders.load(Ordering::SeqCst);
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            let mut clients = (class..high).step_by(64).map(|client| client as u16);
            // A page that was never touched is not read: reading it would allocate it.
            if clients.any(|client| {
                is_meant(client)
                    && self.tables.has_touched(client, slot)
                    && self.tables.cell(client, slot).load(Ordering::SeqCst) & mask != 0
            }) {
                return true;
            }
        }
        false
    }

    /// Takes a dead object apart and gives its slot back. Repeatable from any point: every step
    /// finds out whether it was done.
    pub(crate) fn take_apart(&self, slot: u32, dead: Snapshot, work: &mut Work) {
        debug_assert!(dead.state == State::Dead && dead.decider == self.me, "H4: {dead:?} is not mine");
        let entry = self.tables.entry(slot);
        if entry.flags.load(Ordering::SeqCst) & FLAG_INDEXED != 0 {
            self.unindex(slot);
        }
        self.finish_listing(slot);
        self.unlist_children(slot, work);
        self.free_blocks(slot);
        #[cfg(not(feature = "loom"))]
        if entry.flags.load(Ordering::SeqCst) & FLAG_FILE != 0 {
            self.forget_file(Handle { slot, generation: dead.generation });
        }
        self.free_slot(slot, dead);
    }

    /// Gives the bytes of the value and of its list of references back to their spans.
    pub(crate) fn free_blocks(&self, slot: u32) {
        let entry = self.tables.entry(slot);
        let location = entry.location.load(Ordering::SeqCst);
        if location & IN_MEMORY != 0 && entry.size.load(Ordering::Relaxed) != 0 {
            self.free_block(location & !IN_MEMORY, slot);
        }
        let list = entry.list.load(Ordering::SeqCst);
        if list & IN_MEMORY != 0 {
            self.free_block(list & !IN_MEMORY, slot);
        }
    }
}
