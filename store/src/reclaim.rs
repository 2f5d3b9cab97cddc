//! Giving back what the dead held.
//!
//! The one thing to know: a sweep is a client's own work in the sweeper's name. It takes over what
//! the dead decided, clears its cells one by one, and lets the ordinary last-release test end what
//! nobody else holds. It may end at any instruction: the cells that are left, and the sweeper's own
//! `deciding` flags, tell the next sweeper where to go on.
//!
//! Invariants:
//!
//! - **R1** Only a process whose end the kernel has confirmed, or that left, is swept: nobody swept
//!   ever goes on.
//! - **R2** A dead client's number is given out again only after its row, its spans and its slabs
//!   are clear.
//! - **R3** Of several sweepers, the one that the record names works; a dead sweeper is replaced.
//!   The name holds for one life of the swept and one of the sweeper, so neither a number given out
//!   again is swept by mistake, nor a dead client left to a stranger with its sweeper's number.
//! - **R4** Where the sweeping process has a gate ([`crate::SweepGate`]), a life of a number is swept
//!   only after the gate said so of that life. Who gives out claims by client number (records of a
//!   queue, leases) must be done with a dead client's before it says so: from then on the number is
//!   given out again, and an old claim would pass for the newcomer's.

use crate::hold::{HOLDS, Work};
use crate::layout::CELLS_PER_PAGE;
use crate::layout::chunk::{Back, Kind, NOBODY, SpanWord};
use crate::layout::client::{ClientState, Identity};
use crate::layout::entry::IN_MEMORY;
use crate::members::ClientId;
use crate::state::{Snapshot, State};
use crate::sync::{Ordering, yield_now};
use crate::tables::{Party, Tables};
use std::time::{Duration, Instant};

/// How long a sweep works before it looks up.
pub(crate) const SLICE: Duration = Duration::from_millis(1);
/// How long who makes an object waits for another's sweep of its dead writer: rows of 100,000 objects
/// are swept in less. A stopped sweeper costs its survivors no more than that.
const OTHERS_TIME: Duration = Duration::from_millis(10);

/// A sweep under way, of all clients found dead at once: first everybody's holds, then memory.
pub(crate) struct Sweep {
    dead: Vec<u16>,
    row: usize,
    word: usize,
    is_memory_done: bool,
    /// Holds given back so far.
    pub(crate) holds: u64,
}

impl Sweep {
    /// Claims the right to sweep those of `dead` that nobody living sweeps (R1, R3). Only for who
    /// asked the gate about each: see [`crate::store::Inner::begin_sweep`].
    pub(crate) fn begin(party: Party, dead: &[ClientId]) -> Sweep {
        let claimed = dead.iter().filter(|&&client| party.may_sweep(client));
        let dead = claimed.map(|client| client.number).collect();
        Sweep { dead, row: 0, word: 0, is_memory_done: false, holds: 0 }
    }

    /// Works for about one slice; true when everything is given back.
    pub(crate) fn step(&mut self, party: Party) -> bool {
        let until = Instant::now() + SLICE;
        while let Some(&client) = self.dead.get(self.row) {
            if self.sweep_row(party, client, until) {
                return false;
            }
            (self.row, self.word) = (self.row + 1, 0);
        }
        if !self.is_memory_done {
            self.is_memory_done = true;
            party.reclaim_memory(&self.dead);
            let header = party.tables.header();
            header.swept_clients.fetch_add(self.dead.len() as u64, Ordering::Relaxed);
            header.swept_holds.fetch_add(self.holds, Ordering::Relaxed);
            self.dead.iter().for_each(|&client| party.tables.release_number(client));
        }
        true
    }

    /// Clears one row, page by page; true when time was up first.
    fn sweep_row(&mut self, party: Party, client: u16, until: Instant) -> bool {
        let words = party.tables.geometry.touched_words() as usize;
        while self.word < words {
            let touched = &party.tables.touched[client as usize * words + self.word];
            let mut pages = touched.load(Ordering::SeqCst);
            while pages != 0 {
                let bit = pages.trailing_zeros() as u64;
                pages &= pages - 1;
                let first = (self.word as u64 * 64 + bit) * CELLS_PER_PAGE;
                self.holds += party.sweep_page(client, first);
                touched.fetch_and(!(1 << bit), Ordering::SeqCst);
                if Instant::now() >= until {
                    return true;
                }
            }
            self.word += 1;
        }
        false
    }

    /// How many clients are swept.
    pub(crate) fn clients(&self) -> usize {
        self.dead.len()
    }
}

impl Tables {
    /// Clients in use whose process has ended, or that left.
    pub(crate) fn dead_clients(&self) -> Vec<ClientId> {
        self.clients_in_use().filter_map(|number| self.ended(number)).collect()
    }

    /// The number may be given out again (R2).
    fn release_number(&self, client: u16) {
        let record = self.client(client);
        record.doorbell.reset();
        record.wanting_kib.store(0, Ordering::Relaxed);
        record.puts.store(0, Ordering::Relaxed);
        record.put_bytes.store(0, Ordering::Relaxed);
        let keeper = u64::from(client) + 1;
        let _ = self.header().keeper.compare_exchange(keeper, 0, Ordering::SeqCst, Ordering::SeqCst);
        let sweeper = record.sweeper.load(Ordering::SeqCst);
        let free = Identity { state: ClientState::Free, pid: 0, start_low: 0, generation: record.read().generation };
        record.identity.store(free.pack(), Ordering::SeqCst);
        // Last: until here nobody else claims this life, and none that comes is this one (R3).
        let _ = record.sweeper.compare_exchange(sweeper, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl Party<'_> {
    /// Names this client as the sweeper of a dead one, in place of nobody or of a dead sweeper.
    fn may_sweep(&self, client: ClientId) -> bool {
        let ClientId { number, generation: swept } = client;
        if number == self.me || self.tables.ended(number) != Some(client) {
            return false;
        }
        let record = self.tables.client(number);
        let before = record.sweeper.load(Ordering::SeqCst);
        let mine = self.sweeper_word(swept);
        if self.is_swept_by(before, swept)
            || record.sweeper.compare_exchange(before, mine, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return false;
        }
        // Another may have swept this life to its end between our two looks.
        let now = record.read();
        let is_still_there = now.state != ClientState::Free && now.generation == swept;
        if !is_still_there {
            let _ = record.sweeper.compare_exchange(mine, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        is_still_there
    }

    /// Takes back what a dead client was writing in a slot before its sweep comes there, which a gate
    /// may hold up: who makes the same object need not wait. The caller holds the object. False where
    /// the writer lives, or is being swept for long; else the word has changed.
    pub(crate) fn undo_dead_write(&self, slot: u32) -> bool {
        let word = &self.tables.entry(slot).word;
        let until = Instant::now() + OTHERS_TIME;
        loop {
            let before = word.load(Ordering::SeqCst);
            let snapshot = Snapshot::unpack(before);
            if snapshot.state != State::Writing {
                return true;
            }
            let Some(dead) = self.tables.ended(snapshot.decider) else {
                return word.load(Ordering::SeqCst) != before;
            };
            if self.may_sweep(dead) {
                self.undo_one_write(slot, dead);
                return true;
            }
            // Somebody sweeps it, and comes to this slot, unless it is stopped there.
            if Instant::now() >= until {
                return false;
            }
            yield_now();
        }
    }

    /// The part of a sweep that concerns one write, by its named sweeper: while this client is that,
    /// the dead one's number has no other life (R3). The rest is left to another.
    fn undo_one_write(&self, slot: u32, dead: ClientId) {
        self.undo_write_of(slot, dead.number);
        let mine = self.sweeper_word(dead.generation);
        let sweeper = &self.tables.client(dead.number).sweeper;
        let _ = sweeper.compare_exchange(mine, 0, Ordering::SeqCst, Ordering::SeqCst);
        // Who came to sweep it meanwhile went away again.
        self.tables.ring_keeper();
    }

    fn sweeper_word(&self, swept: u16) -> u64 {
        let generation = self.tables.client(self.me).read().generation;
        u64::from(swept) << 32 | u64::from(generation) << 16 | u64::from(self.me)
    }

    /// Whether a sweeper's word names a living client, and that life of the swept.
    fn is_swept_by(&self, word: u64, swept: u16) -> bool {
        let (sweeper, generation) = (word as u16, (word >> 16) as u16);
        if sweeper == 0 || u64::from(sweeper) >= self.tables.geometry.clients || (word >> 32) as u16 != swept {
            return false;
        }
        let record = self.tables.client(sweeper);
        let lives = record.read().state != ClientState::Free && !record.is_dead();
        lives && record.read().generation == generation
    }

    /// Clears the cells of one page; returns how many held something.
    fn sweep_page(&self, dead: u16, first: u64) -> u64 {
        let mut work = Work::new();
        let end = (first + CELLS_PER_PAGE).min(self.tables.geometry.slots);
        let mut holds = 0;
        for slot in first..end {
            let cell = self.tables.cell(dead, slot as u32).load(Ordering::SeqCst);
            if cell != 0 {
                holds += u64::from(cell & HOLDS != 0);
                self.sweep_cell(dead, slot as u32, &mut work);
            }
        }
        holds
    }

    /// The spans and slabs that the dead owned, in one pass over both tables.
    fn reclaim_memory(&self, dead: &[u16]) {
        if dead.is_empty() {
            return;
        }
        let mut is_dead = vec![false; usize::from(u16::MAX) + 1];
        dead.iter().for_each(|&client| is_dead[usize::from(client)] = true);
        for chunk in 0..self.tables.chunk_count() {
            let word = self.tables.span_word(chunk);
            let is_span = !matches!(word.kind, Kind::Free | Kind::Body);
            if is_span && is_dead.get(word.owner as usize) == Some(&true) {
                self.reclaim_span(chunk, word);
            }
        }
        let slabs = self.tables.header().slabs_high.load(Ordering::SeqCst).min(self.tables.slabs.len() as u64);
        for slab in 0..slabs as u32 {
            let word = self.tables.slab_word(slab);
            if word.kind != Kind::Free && is_dead.get(word.owner as usize) == Some(&true) {
                self.reclaim_slab(slab, word);
            }
        }
    }

    fn reclaim_span(&self, first: u32, word: SpanWord) {
        let (mine, at_rest) = match word.kind {
            Kind::Active | Kind::Small => (Kind::Active, Kind::Small),
            Kind::Filling | Kind::Medium => (Kind::Filling, Kind::Medium),
            // Claimed, so that nobody frees a large span between here and its rest.
            Kind::Claimed | Kind::Large => (Kind::Claimed, Kind::Large),
            Kind::Free | Kind::Body => return,
        };
        let Some(taken) = self.activate(first, word, mine) else { return };
        if word.kind == Kind::Claimed {
            self.clear_claim(first);
        }
        self.free_what_nobody_names(first, mine);
        self.rest(first, SpanWord { owner: NOBODY, ..taken }, at_rest);
    }

    /// A claim whose bits may still be those of an earlier life of the chunk.
    fn clear_claim(&self, first: u32) {
        for heads in &self.tables.chunk_bits[first as usize].heads {
            heads.store(0, Ordering::SeqCst);
        }
    }

    /// Marks as freed every block whose entry does not name it: it was handed out and never used.
    fn free_what_nobody_names(&self, first: u32, kind: Kind) {
        let bits = &self.tables.chunk_bits[first as usize];
        for word in 0..bits.heads.len() {
            let mut taken = bits.heads[word].load(Ordering::SeqCst) & !bits.freed[word].load(Ordering::SeqCst);
            while taken != 0 {
                let bit = taken.trailing_zeros();
                taken &= taken - 1;
                let granule = word * 64 + bit as usize;
                if !self.block_is_named(first, granule, kind) {
                    bits.freed[word].fetch_or(1 << bit, Ordering::SeqCst);
                }
            }
        }
    }

    pub(crate) fn block_is_named(&self, first: u32, granule: usize, kind: Kind) -> bool {
        let back = Back::unpack(self.tables.back(first, granule).load(Ordering::SeqCst));
        if !self.tables.names_entry(back.slot) {
            return false;
        }
        let entry = self.tables.entry(back.slot);
        let here = IN_MEMORY | self.tables.block_offset(first, granule, kind);
        let state = Snapshot::unpack(entry.word.load(Ordering::SeqCst)).state;
        let is_value = entry.location.load(Ordering::SeqCst) == here && entry.size.load(Ordering::SeqCst) != 0;
        state != State::Free && (is_value || entry.list.load(Ordering::SeqCst) == here)
    }

    fn reclaim_slab(&self, slab: u32, word: SpanWord) {
        let Some(taken) = self.turn_slab(slab, word, Kind::Active) else { return };
        self.free_unused_slots(slab);
        self.rest_slab(slab, SpanWord { owner: NOBODY, ..taken });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Keeping, Store};
    use store_shm::liveness::ProcessId;

    fn store() -> Store {
        let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
        Store::in_process(config).expect("a small store")
    }

    /// A client whose process the kernel does not know.
    fn dead(store: &Store) -> ClientId {
        let nobody = ProcessId { pid: (1 << 22) - 1, start_ticks: 1 };
        store.admit(nobody, "dead").expect("there are numbers")
    }

    fn living(store: &Store) -> ClientId {
        let client = store.admit(ProcessId::current(), "living").expect("there are numbers");
        store.inner.tables.join(client, ProcessId::current()).expect("it was just admitted");
        client
    }

    #[test]
    fn one_sweeper_at_a_time_sweeps_a_dead_client() {
        let store = store();
        let (dead, living_client) = (dead(&store), living(&store));
        let party = store.inner.party();
        let other = Party { tables: party.tables, me: living_client.number };
        assert!(!party.may_sweep(living_client), "R1: it lives");
        assert!(other.may_sweep(dead));
        assert!(!party.may_sweep(dead) && !other.may_sweep(dead), "R3");
        party.tables.release_number(dead.number);
        assert!(!party.may_sweep(dead), "R1: nobody has the number");
    }

    #[test]
    fn a_sweepers_successor_in_its_number_is_not_taken_for_it() {
        let store = store();
        let (dead, sweeper) = (dead(&store), living(&store));
        let party = store.inner.party();
        assert!(Party { tables: party.tables, me: sweeper.number }.may_sweep(dead));
        // The sweeper ends in the middle of it, is swept itself, and its number has a new owner.
        party.tables.leave(sweeper.number);
        let mut sweep = Sweep::begin(party, &[sweeper]);
        while !sweep.step(party) {}
        let successor = living(&store);
        assert_eq!(successor.number, sweeper.number);
        assert!(party.may_sweep(dead), "R3");
    }

    #[test]
    fn what_a_dead_client_was_writing_is_taken_back_before_its_sweep() {
        let store = store();
        let (dead, living) = (dead(&store), living(&store));
        let promise = store.promise_by_handle(None).expect("there is room");
        let (slot, party) = (promise.handle().slot, store.inner.party());
        let writing = |by: ClientId| {
            let word = &party.tables.entry(slot).word;
            let now = Snapshot::unpack(word.load(Ordering::SeqCst));
            word.store(now.to(State::Writing, by.number), Ordering::SeqCst);
        };
        writing(living);
        assert!(store.put_for(promise.handle(), b"no", &Default::default()).is_err(), "R1: its writer lives");
        writing(dead);
        let other = Party { tables: party.tables, me: living.number };
        assert!(other.may_sweep(dead));
        assert!(store.put_for(promise.handle(), b"no", &Default::default()).is_err(), "R3: another sweeps it");
        party.tables.leave(living.number);
        let put = store.put_for(promise.handle(), b"yes", &Default::default());
        assert!(matches!(put, Ok(Some(_))), "{put:?}");
        assert_eq!(&*store.view(&promise).expect("it is sealed"), b"yes");
        assert_eq!(store.unswept_clients(), 2, "nobody was swept");
        assert_eq!(store.reclaim(), 2, "R3: it is left to a sweeper");
    }

    #[test]
    fn an_admission_is_dismissed_once_and_only_before_it_is_used() {
        let store = store();
        let (joined, unused) = (living(&store), store.admit(ProcessId::current(), "unused").expect("a number"));
        assert!(!store.dismiss(joined) && store.dismiss(unused) && !store.dismiss(unused));
        assert!(store.inner.tables.join(unused, ProcessId::current()).is_err());
        assert_eq!(store.reclaim(), 1);
        let again = store.admit(ProcessId::current(), "again").expect("a number");
        assert_eq!((again.number, again.generation), (unused.number, unused.generation + 1));
    }
}
