//! A sweeper goes on with what a dead client was deciding.
//!
//! The one thing to know: whatever the word of an entry says in the dead client's name is either
//! taken over (its name is replaced by the sweeper's in one CAS) or taken back, and only then is
//! the cell cleared. So a sweeper that ends half-way leaves its own cell, and its own name, behind.

use crate::hold::Work;
use crate::layout::entry::{FLAG_CACHED, FLAG_CHECKSUM, FLAG_ENCODING, FLAG_NAMED, FLAG_VALIDATED};
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, yield_now};
use crate::tables::Party;

/// Flags that a creator sets and a promise does not have.
const OF_A_VALUE: u32 = FLAG_ENCODING | FLAG_CACHED | FLAG_NAMED | FLAG_VALIDATED | FLAG_CHECKSUM;

/// Turns that another thread gets to end its decision; more, and a stray store wrote the flag.
const TURNS_MAX: u32 = 1 << 16;

impl Party<'_> {
    /// Takes over whatever the dead decided about a slot, clears its cell, decides anew.
    pub(crate) fn sweep_cell(&self, dead: u16, slot: u32, work: &mut Work) {
        // Another thread of this client may be deciding over the slot (H2): it ends without us.
        for _ in 0..TURNS_MAX {
            if self.claim_decision(slot) {
                break;
            }
            yield_now();
        }
        self.take_over(slot, dead, work);
        #[cfg(not(feature = "loom"))]
        self.finish_publishing(slot, dead);
        self.tables.cell(dead, slot).swap(0, Ordering::SeqCst);
        self.decide(slot, false, work);
        self.decide_all(std::mem::take(work));
    }

    /// Where the word names the dead as decider: goes on, or goes back, in this client's name.
    fn take_over(&self, slot: u32, dead: u16, work: &mut Work) {
        let entry = self.tables.entry(slot);
        loop {
            let word = entry.word.load(Ordering::SeqCst);
            let snapshot = Snapshot::unpack(word);
            if snapshot.decider != dead {
                return;
            }
            let next = match snapshot.state {
                State::Free | State::Promised | State::Sealed => return,
                State::Writing | State::Unloading | State::Dead => snapshot.to(snapshot.state, self.me),
                State::Condemned | State::Forsaken | State::Spilling => {
                    snapshot.rescued().expect("these states can be rescued")
                }
            };
            if entry.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                continue;
            }
            match snapshot.state {
                State::Writing => self.undo_write(slot, work),
                State::Unloading => self.finish_unload(slot),
                State::Dead => self.take_apart(slot, Snapshot::unpack(next), work),
                _ => {}
            }
            return;
        }
    }

    /// As [`Party::take_over`], of nothing but a write.
    pub(crate) fn undo_write_of(&self, slot: u32, dead: u16) {
        let word = &self.tables.entry(slot).word;
        let before = word.load(Ordering::SeqCst);
        let snapshot = Snapshot::unpack(before);
        let mine = snapshot.to(State::Writing, self.me);
        if snapshot.state == State::Writing
            && snapshot.decider == dead
            && word.compare_exchange(before, mine, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            let mut work = Work::new();
            self.undo_write(slot, &mut work);
            self.decide_all(work);
        }
    }

    /// From writing in this client's name back to promised: what was written is given back.
    /// Repeatable from any point.
    pub(crate) fn undo_write(&self, slot: u32, work: &mut Work) {
        let entry = self.tables.entry(slot);
        let snapshot = Snapshot::unpack(entry.word.load(Ordering::SeqCst));
        debug_assert!(snapshot.state == State::Writing && snapshot.decider == self.me, "H4: {snapshot:?}");
        self.unlist_children(slot, work);
        self.free_blocks(slot);
        entry.children.store(0, Ordering::SeqCst);
        entry.location.store(0, Ordering::SeqCst);
        entry.list.store(0, Ordering::SeqCst);
        // Nor is what it was to be: a promise lives as long as somebody holds it.
        entry.size.store(0, Ordering::SeqCst);
        entry.flags.fetch_and(!OF_A_VALUE, Ordering::SeqCst);
        entry.word.store(snapshot.to(State::Promised, 0), Ordering::SeqCst);
    }
}
