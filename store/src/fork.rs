//! A forked child becomes a client of its own, before `fork` returns.
//!
//! The one thing to know: the parent reserves a number and copies its holds into that row before
//! the fork, so nothing the child inherits is ever unheld. If the parent ends first, the row is
//! swept with it, and the child finds that it is nobody: it may read nothing and make nothing. If the
//! child ends before it has joined, nobody knows its process: the end of a pipe tells the parent,
//! which takes the row back.

use crate::hold::{DECIDING, HOLDS};
use crate::layout::CELLS_PER_PAGE;
use crate::members::ClientId;
use crate::store::{Inner, Local};
use crate::sync::{Ordering, fence_after_rmw};
use crate::tables::Party;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use store_shm::fork::AtFork;
use store_shm::liveness::ProcessId;
use store_shm::segment::SegmentError;

/// The number reserved for the child of a fork under way; 0 between forks.
#[derive(Default)]
pub(crate) struct Forking {
    child: AtomicU32,
    /// What `Inner::local` holds is the parent's.
    is_stale: AtomicBool,
    starting: Mutex<()>,
    /// Between forks nothing. Locked by the handlers only, which take turns.
    pipe: Mutex<Option<(OwnedFd, OwnedFd)>>,
    unborn: Mutex<Vec<Unborn>>,
    /// A thread of the parent had `unborn` when this process was forked: it is locked for good.
    is_blind: AtomicBool,
}

/// A child that may not have joined yet, and a pipe that hangs up once it has, or has ended.
struct Unborn {
    client: ClientId,
    pipe: OwnedFd,
}

impl Unborn {
    fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        let answered = poll(&mut polled, PollTimeout::ZERO);
        answered.is_ok() && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

/// Has the store follow every fork of this process.
pub(crate) fn register(inner: &Arc<Inner>) {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    store_shm::fork::register(weak);
}

impl AtFork for Inner {
    fn before_fork(&self) {
        let party = self.party();
        if party.is_nobody() {
            return;
        }
        self.forget_unborn();
        let label = self.tables.client(party.me).label_text();
        let Ok(child) = self.tables.admit(ProcessId::current(), &label, Some(party.me), self.now_ms()) else {
            // No row is free: the child will be nobody.
            return;
        };
        party.copy_row(child.number);
        self.fork.child.store(child.pack(), Ordering::SeqCst);
        // Without descriptors to spare, a child that dies unborn is swept with this process.
        *self.pipe() = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).ok();
    }

    fn after_fork_in_parent(&self) {
        let client = ClientId::unpack(self.fork.child.swap(0, Ordering::SeqCst));
        if let (Some((pipe, _)), Some(mut unborn)) = (self.pipe().take(), self.unborn()) {
            unborn.push(Unborn { client, pipe });
        }
    }

    fn after_fork_in_child(&self) {
        let child = ClientId::unpack(self.fork.child.swap(0, Ordering::SeqCst));
        let joined = child.number != 0 && self.tables.join(child, ProcessId::current()).is_ok();
        let me = if joined { child } else { ClientId::NOBODY };
        self.me.store(me.pack(), Ordering::SeqCst);
        // No mapping may be made in here: what is this process' own is made when first needed.
        self.fork.is_stale.store(true, Ordering::SeqCst);
        // Only now: the parent takes the row of a child that hung up before it joined.
        drop(self.pipe().take());
        match self.fork.unborn.try_lock() {
            Ok(mut of_the_parent) => of_the_parent.clear(),
            Err(_) => self.fork.is_blind.store(true, Ordering::SeqCst),
        }
        self.tables.ring_keeper();
    }
}

impl Inner {
    fn pipe(&self) -> MutexGuard<'_, Option<(OwnedFd, OwnedFd)>> {
        self.fork.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unborn(&self) -> Option<MutexGuard<'_, Vec<Unborn>>> {
        let is_blind = self.fork.is_blind.load(Ordering::SeqCst);
        (!is_blind).then(|| self.fork.unborn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives up the rows of children that ended before they joined, or whose fork failed.
    pub(crate) fn forget_unborn(&self) {
        let Some(mut unborn) = self.unborn() else { return };
        unborn.retain(|child| {
            let is_over = child.has_hung_up();
            if is_over {
                // False, and nothing is done, where it joined first.
                self.tables.dismiss(child.client);
            }
            !is_over
        });
    }

    /// What is this process' own: heap, window, keeper.
    #[inline]
    pub(crate) fn local(&self) -> &Local {
        if self.fork.is_stale.load(Ordering::Relaxed) {
            self.start_over();
        }
        self.local.get()
    }

    /// In a child, before it first makes something: its own heap, window and (absent) keeper.
    #[cold]
    fn start_over(&self) {
        // A child's other threads, if it has some by now, wait for the first to be done.
        let _one = self.fork.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.fork.is_stale.load(Ordering::SeqCst) {
            return;
        }
        match self.new_local() {
            Ok(local) => self.local.replace_in_child(local),
            // Without a window of its own it can read, and every put says that it was forked.
            Err(error) => tracing::warn!(%error, "a forked child could not map the store for writing"),
        }
        self.fork.is_stale.store(false, Ordering::SeqCst);
    }

    fn new_local(&self) -> Result<Local, SegmentError> {
        Local::new(&self.tables, &self.data, self.party().me)
    }
}

impl Party<'_> {
    /// Gives `child` every hold that this client has.
    fn copy_row(&self, child: u16) {
        let words = self.tables.geometry.touched_words() as usize;
        for word in 0..words {
            let mut pages = self.tables.touched[usize::from(self.me) * words + word].load(Ordering::SeqCst);
            while pages != 0 {
                let page = word as u64 * 64 + u64::from(pages.trailing_zeros());
                pages &= pages - 1;
                let first = page * CELLS_PER_PAGE;
                let end = (first + CELLS_PER_PAGE).min(self.tables.geometry.slots);
                (first..end).for_each(|slot| self.copy_cell(child, slot as u32));
            }
        }
    }

    fn copy_cell(&self, child: u16, slot: u32) {
        let mine = self.tables.cell(self.me, slot);
        let holds = mine.load(Ordering::SeqCst) & HOLDS;
        if holds == 0 {
            return;
        }
        self.tables.touch(child, slot);
        let theirs = self.tables.cell(child, slot);
        theirs.store(holds, Ordering::SeqCst);
        self.tables.entry(slot).holders.fetch_or(1 << (child % 64), Ordering::SeqCst);
        fence_after_rmw();
        if mine.load(Ordering::SeqCst) & HOLDS == 0 {
            // Another thread let go meanwhile: the copy was the last hold, or holds what came next.
            theirs.store(DECIDING, Ordering::SeqCst);
            let child = Party { tables: self.tables, me: child };
            child.decide_all(vec![slot]);
        }
    }
}
