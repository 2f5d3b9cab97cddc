//! Asking before the dead are swept: for a process that gives out claims by client number.
//!
//! The one thing to know: a store can only give back holds. Whoever keeps more under a client's
//! number (the records of a queue that it claimed or submitted, a lease) settles that first, and says
//! *not yet* until then. The gate is asked about one life of a number, with no lock held.
//!
//! It must not decide who is dead: that is the kernel's word (R1). Nor may it do the work that it
//! waits for: it answers.

use crate::keeper::Keeping;
use crate::members::ClientId;
use crate::reclaim::Sweep;
use crate::store::{Inner, Store};
use std::fmt;
use std::sync::Arc;

/// Whether a client that ended may be swept; see [`crate::Config::gate`].
///
/// Asked by several threads, about every client that ended or left: workers, drivers, children that
/// clients forked, and numbers that were given out and never used. It is asked again at least once a
/// second while it says no, and may be after it said yes; a yes is for good.
///
/// It has to answer at once, from memory: it is asked on the thread that sweeps, and in a put that
/// finds no slot. It must not own the [`Store`] that asks it, which would then never end.
pub trait SweepGate: Send + Sync {
    /// Whether what others keep under that client's number is settled: then its holds are given back
    /// and the number is given out again.
    fn may_sweep(&self, client: ClientId) -> bool;
}

impl fmt::Debug for dyn SweepGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SweepGate")
    }
}

/// A gate and the client that has it: a forked child has a copy whose answers mean nothing.
pub(crate) struct Gate {
    pub(crate) of: ClientId,
    pub(crate) asked: Arc<dyn SweepGate>,
}

impl Inner {
    /// Claims those of `ended` that may be swept, as far as nobody living sweeps them (R3, R4).
    pub(crate) fn begin_sweep(&self, mut ended: Vec<ClientId>) -> Sweep {
        ended.retain(|&client| self.passes_the_gate(client));
        Sweep::begin(self.party(), &ended)
    }

    fn passes_the_gate(&self, client: ClientId) -> bool {
        match &self.gate {
            None => true,
            Some(gate) if gate.of == self.client() => gate.asked.may_sweep(client),
            // With the process that has the gate ends whatever it keeps.
            Some(gate) => self.tables.has_ended(gate.of),
        }
    }

    /// Whether this client leaves sweeping to a daemon that lives: it may have a gate.
    pub(crate) fn leaves_sweeping(&self) -> bool {
        let is_another = self.tables.keeper() != Some(self.party().me);
        self.keeping == Keeping::Daemon && is_another && self.is_kept_by_another()
    }
}

impl Store {
    /// Has the keeper ask its gate again about everybody it was told not to sweep; returns at once.
    pub fn sweep_again(&self) {
        self.inner.tables.ring_keeper();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};
    use store_shm::liveness::ProcessId;

    /// Says what it is told to, and remembers whom it was asked about.
    #[derive(Default)]
    struct Told {
        yes: AtomicBool,
        asked: Mutex<Vec<ClientId>>,
        count: AtomicUsize,
    }

    impl SweepGate for Told {
        fn may_sweep(&self, client: ClientId) -> bool {
            self.asked.lock().expect("nobody panics with it").push(client);
            self.count.fetch_add(1, Ordering::SeqCst);
            self.yes.load(Ordering::SeqCst)
        }
    }

    fn gated(keeping: Keeping) -> (Store, Arc<Told>) {
        let told = Arc::new(Told::default());
        let gate: Arc<dyn SweepGate> = told.clone();
        let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping, gate: Some(gate), ..Config::default() };
        (Store::in_process(config).expect("a small store"), told)
    }

    /// A client whose process the kernel does not know.
    fn dead(store: &Store) -> ClientId {
        let nobody = ProcessId { pid: (1 << 22) - 1, start_ticks: 1 };
        store.admit(nobody, "dead").expect("there are numbers")
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn nobody_is_swept_before_the_gate_says_so() {
        let (store, told) = gated(Keeping::Inline);
        let ended = dead(&store);
        assert_eq!(store.reclaim(), 0, "R4");
        let next = store.admit(ProcessId::current(), "next").expect("there are numbers");
        assert_ne!(next.number, ended.number, "R4: the number of a client that is not swept was given out");
        told.yes.store(true, Ordering::SeqCst);
        assert_eq!(store.reclaim(), 1);
        assert_eq!(*told.asked.lock().expect("nobody panicked"), [ended, ended]);
        let again = dead(&store);
        assert_eq!((again.number, again.generation), (ended.number, ended.generation + 1));
    }

    #[test]
    fn the_keeper_asks_again_when_it_is_told_to() {
        let (store, told) = gated(Keeping::Threads);
        dead(&store);
        store.sweep_again();
        until("the gate is asked", || told.count.load(Ordering::SeqCst) > 0);
        assert_eq!(store.unswept_clients(), 1, "R4");
        told.yes.store(true, Ordering::SeqCst);
        store.sweep_again();
        until("it is swept", || store.unswept_clients() == 0);
    }

    #[test]
    fn a_yes_is_for_one_life_of_a_number() {
        let (store, _) = gated(Keeping::Inline);
        let ended = dead(&store);
        let earlier = ClientId { generation: ended.generation.wrapping_sub(1), ..ended };
        assert_eq!(Sweep::begin(store.inner.party(), &[earlier]).clients(), 0, "R4: another life was swept");
        assert_eq!(Sweep::begin(store.inner.party(), &[ended]).clients(), 1);
    }

    #[test]
    fn clients_of_a_daemon_leave_the_dead_to_it() {
        let (store, told) = gated(Keeping::Threads);
        let client = store.admit(ProcessId::current(), "client").expect("there are numbers");
        let config = Config { keeping: Keeping::Daemon, ..Config::default() };
        let other = Store::attach(store.segments().expect("descriptors"), client, config).expect("it is admitted");
        dead(&store);
        assert_eq!(other.reclaim(), 0, "R4: swept behind the keeper's back");
        told.yes.store(true, Ordering::SeqCst);
        other.reclaim();
        until("the keeper, rung, sweeps it", || store.unswept_clients() == 0);
        store.stop_keeping();
        dead(&store);
        assert_eq!(other.reclaim(), 1, "nobody keeps the store");
    }
}
