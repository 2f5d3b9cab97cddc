//! Asked before a dead client is swept: drivers and workers wait here until their queues are in order.
//!
//! The one thing to know: a claim in a queue names its claimer by the number that the sweep gives out
//! again, and a record's objects are held by whoever submitted it. So the scheduler deals with both
//! first, and only then lets go. This file must not deal with anything itself: it is asked by the
//! store's own threads.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::{ClientId, SweepGate};
use tokio::sync::mpsc;

/// Clients that the scheduler knows, and whether they are dead.
pub(crate) struct Gate {
    watched: Mutex<BTreeMap<(u16, u16), bool>>,
    dead: mpsc::UnboundedSender<ClientId>,
}

impl Gate {
    /// A gate, and where the dead are told of, each once.
    pub(crate) fn new() -> (Gate, mpsc::UnboundedReceiver<ClientId>) {
        let (dead, told) = mpsc::unbounded_channel();
        (Gate { watched: Mutex::default(), dead }, told)
    }

    /// Admits a client that is to be kept from being swept: nobody is asked about it in between.
    pub(crate) fn admit<E>(&self, admit: impl FnOnce() -> Result<ClientId, E>) -> Result<ClientId, E> {
        let mut watched = self.watched();
        let client = admit()?;
        watched.insert(key(client), false);
        Ok(client)
    }

    /// The client may be swept, whether or not it is dead yet.
    pub(crate) fn let_go(&self, client: ClientId) {
        self.watched().remove(&key(client));
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<(u16, u16), bool>> {
        // Each change of it is one step, so it is whole even after a panic.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SweepGate for Gate {
    fn may_sweep(&self, client: ClientId) -> bool {
        let mut watched = self.watched();
        let Some(is_dead) = watched.get_mut(&key(client)) else { return true };
        let is_news = !std::mem::replace(is_dead, true);
        // Where nobody listens any more the raylet is ending, and nobody claims.
        is_news && self.dead.send(client).is_err()
    }
}

fn key(client: ClientId) -> (u16, u16) {
    (client.number, client.generation)
}

/// Which job each worker is for, for whoever greets it.
#[derive(Debug, Default)]
pub(crate) struct WorkerJobs(Mutex<BTreeMap<u64, u32>>);

impl WorkerJobs {
    /// The number of a worker's job; 0 where nobody knows the worker.
    pub(crate) fn of(&self, worker: u64) -> u32 {
        self.jobs().get(&worker).copied().unwrap_or(0)
    }

    pub(crate) fn note(&self, worker: u64, job: u32) {
        self.jobs().insert(worker, job);
    }

    pub(crate) fn forget(&self, worker: u64) {
        self.jobs().remove(&worker);
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watched_are_told_of_once_and_swept_when_let_go() {
        let (gate, mut told) = Gate::new();
        let client = |number| ClientId { number, generation: 1 };
        assert!(gate.may_sweep(client(2)), "nobody watches it");
        assert_eq!(gate.admit(|| Ok::<_, ()>(client(3))), Ok(client(3)));
        assert!(!gate.may_sweep(client(3)) && !gate.may_sweep(client(3)));
        assert_eq!((told.try_recv(), told.try_recv().is_err()), (Ok(client(3)), true));
        assert!(gate.may_sweep(ClientId { generation: 2, ..client(3) }), "another life of the number");
        gate.let_go(client(3));
        assert!(gate.may_sweep(client(3)));
    }
}
