//! Waiting for values: a bit in the entry, one bell for each client.
//!
//! The one thing to know: a waiter sets its class' bit in the entry, then looks at the word; a
//! sealer changes the word, then looks at the bits. One of the two sees the other. The bits are
//! bounded and never cleared by waiters: a bell rung in vain costs its owner one look.

use crate::error::GetError;
use crate::object_id::ObjectId;
use crate::state::{Snapshot, State};
use crate::store::Inner;
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::Handle;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

/// How long a sleeper lets pass before it asks whether the keeper of the store still lives.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Looks at a word before the first sleep, at most: some ten microseconds.
const SPIN_MAX: u32 = 4096;
const SPIN_MIN: u32 = 16;

/// Until when a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline { start: Instant::now(), timeout }
    }

    pub(crate) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// What is left; `None` once it has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.left_after(self.waited())
    }

    fn left_after(&self, waited: Duration) -> Option<Duration> {
        self.timeout.checked_sub(waited).filter(|left| !left.is_zero())
    }
}

/// How long this process spins before it sleeps: what paid lately, and nothing on one core.
pub(crate) struct Spin {
    looks: AtomicU32,
    is_allowed: bool,
}

impl Default for Spin {
    fn default() -> Spin {
        let is_allowed = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Spin { looks: AtomicU32::new(SPIN_MAX), is_allowed }
    }
}

impl Spin {
    /// Looks until `found` finds something, at most as often as lately paid.
    fn until<T>(&self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = found() {
            return Some(found);
        }
        if !self.is_allowed {
            return None;
        }
        let looks = self.looks.load(Ordering::Relaxed);
        for _ in 0..looks {
            std::hint::spin_loop();
            if let Some(found) = found() {
                self.looks.store((looks * 2).min(SPIN_MAX), Ordering::Relaxed);
                return Some(found);
            }
        }
        self.looks.store((looks / 2).max(SPIN_MIN), Ordering::Relaxed);
        None
    }
}

impl Inner {
    /// Whether the value of an object this client holds stands (in memory or on disk).
    #[inline]
    pub(crate) fn is_ready(&self, handle: Handle) -> bool {
        let snapshot = Snapshot::unpack(self.tables.entry(handle.slot).word.load(Ordering::SeqCst));
        let has_value = matches!(snapshot.state, State::Sealed | State::Condemned | State::Spilling | State::Unloading);
        has_value && snapshot.generation == handle.generation
    }

    /// The sealed object of `id`, if it turns up while it pays to look.
    pub(crate) fn spin_for(&self, id: &ObjectId) -> Option<Handle> {
        self.spin.until(|| self.tables.find(id).filter(|&handle| self.is_ready(handle)))
    }

    pub(crate) fn wait_ready(&self, handle: Handle, deadline: Deadline) -> Result<(), Box<GetError>> {
        if self.is_ready(handle) {
            return Ok(());
        }
        match self.wait_for(&[handle], 1, deadline)?[0] {
            true => Ok(()),
            false => Err(self.not_sealed(handle, deadline)),
        }
    }

    pub(crate) fn not_sealed(&self, handle: Handle, deadline: Deadline) -> Box<GetError> {
        let word = Snapshot::unpack(self.tables.entry(handle.slot).word.load(Ordering::SeqCst));
        let busy = matches!(word.state, State::Writing | State::Unloading)
            && u64::from(word.decider) < self.tables.geometry.clients;
        Box::new(GetError::NotSealed {
            id: self.id_of(handle.slot),
            waited: deadline.waited(),
            writer: busy.then(|| self.tables.client(word.decider).read().pid),
        })
    }

    /// Waits until `count` of these objects, all of which this client holds, have values.
    pub(crate) fn wait_for(
        &self,
        handles: &[Handle],
        count: usize,
        deadline: Deadline,
    ) -> Result<Vec<bool>, Box<GetError>> {
        let mut waiting = Waiting { ready: vec![false; handles.len()], count: 0 };
        let enough = self.spin.until(|| waiting.look(self, handles, count).then_some(()));
        if enough.is_some() || deadline.left().is_none() {
            return Ok(waiting.ready);
        }
        for (handle, ready) in handles.iter().zip(&waiting.ready) {
            if !ready {
                self.wait_at(*handle);
            }
        }
        let bell = &self.tables.client(self.party().me).doorbell;
        let mut look_up_at = LOOK_UP;
        loop {
            let seen = bell.sequence();
            if waiting.look(self, handles, count) {
                return Ok(waiting.ready);
            }
            let waited = deadline.waited();
            let Some(left) = deadline.left_after(waited) else { return Ok(waiting.ready) };
            // By time, not by sleeps: a waiter that is rung all the time has to notice too, and one
            // that is rung once does not pay for it.
            if waited >= look_up_at {
                self.look_after_the_keeper()?;
                look_up_at = waited + LOOK_UP;
            }
            let _ = bell.sleep(seen, Some(left.min(LOOK_UP)));
        }
    }

    /// Asks to be rung when the object is sealed.
    pub(crate) fn wait_at(&self, handle: Handle) {
        let class = 1 << (self.party().me % 64);
        // SeqCst and fence: pairs with the swap and the load in `seal`.
        self.tables.entry(handle.slot).waiters.fetch_or(class, Ordering::SeqCst);
        fence_after_rmw();
    }

    /// Rings everybody who may wait for the object.
    #[cold]
    pub(crate) fn ring_waiters(&self, slot: u32) {
        self.party().ring_waiters(slot);
    }

    /// Where a daemon keeps the store: fails once it has ended. Where survivors do: sweeps.
    fn look_after_the_keeper(&self) -> Result<(), Box<GetError>> {
        if self.is_keeper_gone() {
            return Err(GetError::RayletGone.into());
        }
        self.sweep_if_nobody_keeps();
        Ok(())
    }
}

impl crate::tables::Party<'_> {
    pub(crate) fn ring_waiters(&self, slot: u32) {
        let mut classes = self.tables.entry(slot).waiters.swap(0, Ordering::SeqCst);
        let high = self.tables.clients_high();
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            for client in (class..high).step_by(64) {
                self.tables.client(client as u16).doorbell.ring();
            }
        }
    }
}

/// What is known of the objects of one wait; a value that stands once stands for good.
struct Waiting {
    ready: Vec<bool>,
    count: usize,
}

impl Waiting {
    /// Looks at what was not ready yet; true once `wanted` are.
    fn look(&mut self, inner: &Inner, handles: &[Handle], wanted: usize) -> bool {
        for (handle, ready) in handles.iter().zip(&mut self.ready) {
            if !*ready && inner.is_ready(*handle) {
                *ready = true;
                self.count += 1;
            }
        }
        self.count >= wanted
    }
}
