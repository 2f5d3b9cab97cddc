//! Who keeps house: sweeps the dead, evicts and spills, has memory warm.
//!
//! The one thing to know: nothing on the hot path needs a keeper. A store has at most one; the
//! header names it. It is the raylet, or the process that made the store, or, once that has ended,
//! whichever survivor first needs one.
//!
//! Two threads: one sleeps on the process descriptors of all clients and sweeps, one sleeps on the
//! keeper's bell and does the rest. They hold the store weakly and end with it.

use crate::error::OpenError;
use crate::layout::CHUNK_BYTES;
use crate::layout::client::ClientState;
use crate::members::ClientId;
use crate::store::{Inner, Store};
use crate::sync::Ordering;
use crate::tables::Tables;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use store_shm::futex::WaitOutcome;
use store_shm::liveness::{ProcessId, Watch};

/// Who sweeps, spills and warms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// Threads of this process, if it made the store or the one that did has ended.
    #[default]
    Threads,
    /// Nobody: slow paths and [`Store::reclaim`] do it in the caller's thread.
    Inline,
    /// A daemon that this client is connected to.
    Daemon,
}

/// Memory kept warm at most, and its share of the capacity.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
const RESERVE_SHARE: u64 = 10;
/// From this size on a put asks for warm memory.
pub(crate) const WARM_FROM_BYTES: u64 = 1 << 20;
/// Idle time after which free memory goes back to the kernel.
const IDLE_MS: u32 = 30_000;
/// How often a keeper that is not rung looks up.
const ROUND: Duration = Duration::from_secs(1);
/// And one that found nothing to do for a while: an idle store's keeper sleeps.
const ROUND_MAX: Duration = Duration::from_secs(8);
/// Warmed in one go, so that a put that needs the same pages does not wait long.
const WARM_PIECE_CHUNKS: u32 = 128;
const STOP: u64 = u64::MAX;

/// The threads that keep a store, from the process that runs them.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    wake: EventFd,
    epoll: Epoll,
    watched: Mutex<HashMap<u16, Watched>>,
}

struct Watched {
    process: ProcessId,
    _watch: Watch,
}

impl Shared {
    fn new() -> std::io::Result<Shared> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_value_and_flags(0, nix::sys::eventfd::EfdFlags::EFD_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Shared { stop: AtomicBool::new(false), wake, epoll, watched: Mutex::default() })
    }

    /// Watches clients that are not watched yet; returns those that are dead already.
    fn watch_all(&self, tables: &Tables, me: u16) -> Vec<u16> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|&number, _| tables.client(number).read().state != ClientState::Free);
        let mut dead = Vec::new();
        for number in tables.clients_in_use().filter(|&number| number != me) {
            let record = tables.client(number);
            let process = record.process();
            if watched.get(&number).is_some_and(|watched| watched.process == process) {
                if record.read().state == ClientState::Leaving {
                    dead.push(number);
                }
                continue;
            }
            match Watch::open(process) {
                Some(watch) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, u64::from(number));
                    // Too many descriptors: the client is found by the rounds instead.
                    if self.epoll.add(&watch, event).is_ok() {
                        watched.insert(number, Watched { process, _watch: watch });
                    }
                }
                None if record.is_dead() => dead.push(number),
                None => {}
            }
            if record.read().state == ClientState::Leaving {
                dead.push(number);
            }
        }
        dead
    }
}

impl Shared {
    fn forget(&self, dead: &[u16]) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for number in dead {
            watched.remove(number);
        }
    }
}

/// Sleeps on the clients' process descriptors; sweeps whoever ended.
fn watch(inner: &Weak<Inner>, shared: &Shared) {
    let mut events = [EpollEvent::empty(); 256];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(count) = shared.epoll.wait(&mut events, EpollTimeout::NONE) else { continue };
        let Some(inner) = inner.upgrade() else { return };
        let ended = events[..count].iter().map(EpollEvent::data).filter(|&number| number != STOP);
        let ended: Vec<u16> = ended.map(|number| number as u16).collect();
        // Watched anew if it is still there in a while: an event comes once, and whoever sweeps it
        // now may die over it.
        shared.forget(&ended);
        inner.sweep(&ended);
    }
}

/// Sleeps on the keeper's bell; does everything but sweeping the freshly dead.
fn keep(inner: &Weak<Inner>, shared: &Shared) {
    let (mut idle, mut round) = (Idle::default(), ROUND);
    while !shared.stop.load(Ordering::SeqCst) {
        let Some(inner) = inner.upgrade() else { return };
        let header = inner.tables.header.clone();
        let seen = header[0].chores.sequence();
        inner.forget_unborn();
        let dead = shared.watch_all(&inner.tables, inner.party().me);
        inner.sweep(&dead);
        inner.free_wanted();
        idle.round(&inner);
        // Asleep it must not hold the store: the last user's drop ends it, and rings this bell.
        drop(inner);
        if !shared.stop.load(Ordering::SeqCst) {
            let outcome = header[0].chores.sleep(seen, Some(round));
            let is_idle = dead.is_empty() && outcome == WaitOutcome::TimedOut;
            round = if is_idle { (2 * round).min(ROUND_MAX) } else { ROUND };
        }
    }
}

/// Gives free memory back to the kernel after a while without large puts.
#[derive(Default)]
struct Idle {
    given_back_for: u64,
}

impl Idle {
    fn round(&mut self, inner: &Inner) {
        let last = inner.tables.header().warm_wanted.load(Ordering::Relaxed);
        let idle_ms = inner.now_ms().wrapping_sub(last as u32);
        if last == self.given_back_for || idle_ms < IDLE_MS {
            return;
        }
        self.given_back_for = last;
        inner.give_pages_back();
    }
}

impl Inner {
    /// Starts the keeper's threads if this process is the keeper and asks for threads.
    pub(crate) fn keep_if_mine(self: &Arc<Self>) -> Result<(), OpenError> {
        let is_mine = self.tables.keeper() == Some(self.party().me);
        let mut keeper = self.local().keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keeping != Keeping::Threads || !is_mine || keeper.is_some() {
            return Ok(());
        }
        let shared = Arc::new(Shared::new().map_err(OpenError::Thread)?);
        let spawn = |name: &str, body: fn(&Weak<Inner>, &Shared)| {
            let (inner, shared) = (Arc::downgrade(self), Arc::clone(&shared));
            thread::Builder::new().name(name.to_owned()).spawn(move || body(&inner, &shared)).map_err(OpenError::Thread)
        };
        let threads = vec![spawn("store-watch", watch)?, spawn("store-keep", keep)?];
        *keeper = Some(Keeper { shared, threads });
        Ok(())
    }

    /// Ends the keeper's threads, if this process runs them.
    pub(crate) fn stop_keeping(&self) {
        let keeper = self.local().keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keeper) = keeper else { return };
        keeper.shared.stop.store(true, Ordering::SeqCst);
        let _ = keeper.shared.wake.write(1);
        self.tables.header().chores.ring();
        for thread in keeper.threads {
            // The last holder of the store may be one of these threads itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
        let mine = u64::from(self.party().me) + 1;
        let _ = self.tables.header().keeper.compare_exchange(mine, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether the daemon that this client needs has ended.
    pub(crate) fn is_keeper_gone(&self) -> bool {
        self.keeping == Keeping::Daemon && !self.is_kept_by_another()
    }

    /// Whether a living process other than an inline one sweeps, spills and warms.
    pub(crate) fn is_kept_by_another(&self) -> bool {
        let Some(keeper) = self.tables.keeper() else { return false };
        let record = self.tables.client(keeper);
        keeper == self.party().me || record.read().state == ClientState::Alive && !record.is_dead()
    }

    /// Sweeps those of these clients that have ended and that the gate lets through.
    fn sweep(&self, numbers: &[u16]) {
        let ended: Vec<ClientId> = numbers.iter().filter_map(|&number| self.tables.ended(number)).collect();
        let mut sweep = self.begin_sweep(ended);
        if sweep.clients() == 0 {
            return;
        }
        while !sweep.step(self.party()) {
            thread::yield_now();
        }
        if let Some(directory) = &self.tables.files {
            let _ = crate::spill_file::sweep_temporaries(directory.path());
        }
    }

    /// Makes the room that sleepers ask for.
    fn free_wanted(&self) {
        let wanted = self.tables.header().wanted_bytes.swap(0, Ordering::SeqCst);
        if wanted == 0 {
            return;
        }
        let mut came_back = self.evict(wanted);
        if came_back < wanted && self.tables.files.is_some() {
            came_back += self.spill(wanted - came_back);
        }
        if came_back > 0 {
            self.tables.header().space.ring();
        }
    }

    /// After a large put: has the next ones find their pages ready. Returns at once.
    pub(crate) fn want_warm(self: &Arc<Self>, below: u64) {
        let header = self.tables.header();
        header.warm_wanted.store(u64::from(self.now_ms().max(1)), Ordering::Relaxed);
        let below = (below / CHUNK_BYTES) as u32;
        let window = &self.local().window;
        if !window.runs_short_below(below, self.reserve_chunks()) {
            return;
        }
        let Some(turn) = window.begin_warming() else { return };
        let inner = Arc::clone(self);
        let started = thread::Builder::new().name("store-warm".to_owned()).spawn(move || {
            inner.warm_below(below);
            drop(turn);
        });
        if let Err(error) = started {
            tracing::debug!(%error, "no thread to warm memory with");
        }
    }

    /// Bytes of free memory that are kept ready.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        (self.tables.geometry.capacity_bytes / RESERVE_SHARE).min(RESERVE_BYTES_MAX)
    }

    /// Opens and populates the free chunks that the next large puts will take.
    fn warm_below(&self, below: u32) {
        let mut left = self.reserve_chunks();
        let mut at = below.min(self.tables.chunk_count());
        while left > 0 && at > 0 {
            let piece = self.free_run_below(at, left.min(WARM_PIECE_CHUNKS));
            if piece.is_empty() {
                at -= 1;
                continue;
            }
            let chunks = piece.end - piece.start;
            if self.local().window.prepare(&self.tables, piece.start, chunks).is_err() {
                return;
            }
            left -= chunks;
            at = piece.start;
        }
        self.local().window.warmed_from(at);
    }

    fn reserve_chunks(&self) -> u32 {
        (self.reserve_bytes() / CHUNK_BYTES) as u32
    }

    fn free_run_below(&self, end: u32, most: u32) -> Range<u32> {
        let mut start = end;
        while start > 0 && end - start < most && self.tables.span_of(start - 1).is_none() {
            start -= 1;
        }
        start..end
    }

    /// Claims what is free, run by run, and lets the kernel have its pages.
    fn give_pages_back(&self) {
        let party = self.party();
        let mut at = self.tables.chunk_count();
        while at > 0 {
            let run = self.free_run_below(at, WARM_PIECE_CHUNKS);
            at = run.start.min(at - 1);
            if run.is_empty() {
                continue;
            }
            if let Some(claim) = party.take_run(run.start, run.end - run.start) {
                let punched = self.local().window.punch(claim.first, claim.chunks);
                self.tables.header().punched.fetch_add(1, Ordering::SeqCst);
                party.give_back(claim);
                if punched.is_err() {
                    return;
                }
            }
        }
    }
}

impl Store {
    /// Makes this client the one that keeps the store, with threads; false where another does.
    pub fn keep(&self) -> Result<bool, OpenError> {
        let mine = u64::from(self.inner.party().me) + 1;
        let keeper = &self.inner.tables.header().keeper;
        let before = keeper.load(Ordering::SeqCst);
        if before != mine && self.inner.is_kept_by_another() {
            return Ok(false);
        }
        if keeper.compare_exchange(before, mine, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Ok(false);
        }
        self.inner.keep_if_mine()?;
        Ok(true)
    }

    /// Ends the threads by which this process keeps the store, if it does: from then on nobody
    /// keeps it, and clients that wait for the daemon hear that it is gone.
    pub fn stop_keeping(&self) {
        self.inner.stop_keeping();
    }

    /// Bytes of free memory that are kept ready once somebody makes large objects.
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.reserve_bytes()
    }

    /// Returns once no thread of this process prepares memory: for benches and tests.
    pub fn settle(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        while self.inner.local.get().window.is_warming() {
            if Instant::now() >= until {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}
