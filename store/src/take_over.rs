//! A sweeper goes on with what a dead client was deciding.
//!
//! The one thing to know: whatever the word of an entry says in the dead client's name is either
//! taken over (its name is replaced by the sweeper's in one CAS) or taken back, and only then is
//! the cell cleared. So a sweeper that ends half-way leaves its own cell, and its own name, behind.

use crate::hold::Work;
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, yield_now};
use crate::tables::Party;

impl Party<'_> {
    /// Takes over whatever the dead decided about a slot, clears its cell, decides anew.
    pub(crate) fn sweep_cell(&self, dead: u16, slot: u32, work: &mut Work) {
        // Another thread of this client may be deciding over the slot (H2): it ends without us.
        while !self.claim_decision(slot) {
            yield_now();
        }
        self.take_over(slot, dead, work);
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
        entry.word.store(snapshot.to(State::Promised, 0), Ordering::SeqCst);
    }
}
