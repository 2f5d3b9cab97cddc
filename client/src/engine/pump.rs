//! Who moves things on: whoever submits or waits, and where nobody does, a thread.
//!
//! The one thing to know: the thread exists only while something is left to do: tasks that wait for
//! arguments, calls behind a full ring, specs to let go of, actors' queues to close, wakers, deadlines.
//! It looks only where nobody else has since its last look, so a program that gets its results itself
//! is not disturbed. It sleeps in the store, on a promise of its own besides, by whose seal it is woken
//! for news. This file must not know what is moved.

use super::lane::{Lane, Left};
use super::{Shared, lock};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::{CreateOptions, Handle, ObjectRef as RawRef, Store};

/// How long the thread stays without anything to do.
const LINGER: Duration = Duration::from_millis(50);
/// Between two looks of the thread at what wakes nobody.
const PAUSE_MIN: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(16);
/// How long it sleeps on objects at most.
const SLEEP_MAX: Duration = Duration::from_millis(64);
/// Objects that it sleeps on at most; where there are more, it looks again soon.
const WATCHED_MAX: usize = 256;
/// Objects of the edge that one look of a thread with nothing better to do takes.
const EDGE_ALL: usize = 4096;

/// See the head of the file.
#[derive(Default)]
pub(super) struct Pump {
    state: Mutex<State>,
    news: Condvar,
    is_running: AtomicBool,
    /// Looks by others than the thread.
    looks: AtomicU64,
    /// Threads that wait and move things on themselves.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    is_closing: bool,
    thread: Option<JoinHandle<()>>,
    wakers: Vec<(RawRef, Waker)>,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    /// What the thread sleeps on while it sleeps in the store.
    interrupt: Option<RawRef>,
}

/// Until when a call may take.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    at: Instant,
    timeout: Duration,
    slot: u32,
    generation: u64,
}

/// Somebody who waits, and moves things on.
pub(super) struct HoldOff<'a>(&'a Pump);

impl Drop for HoldOff<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pump {
    pub(super) fn hold_off(&self) -> HoldOff<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        HoldOff(self)
    }
}

impl State {
    /// Has the thread look, wherever it sleeps.
    fn wake(&mut self, store: &Store, news: &Condvar) {
        if let Some(interrupt) = self.interrupt.take() {
            let _ = store.put_for(interrupt.handle(), b"", &CreateOptions::default());
        }
        news.notify_all();
    }
}

impl Shared {
    /// Whether tasks wait for arguments, or a lane for somebody.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        !self.frontier.is_empty() || self.has_lanes_left.load(Ordering::Relaxed)
    }

    /// Looks at a bounded part of the edge; whether a task went on its way.
    pub(super) fn pump_frontier(self: &Arc<Self>, edge: usize) -> bool {
        self.pump.looks.fetch_add(1, Ordering::Relaxed);
        self.move_tasks_on(edge)
    }

    /// Reaps, and fills rings from their backlogs.
    #[inline]
    pub(super) fn pump_lanes(self: &Arc<Self>) {
        if self.has_lanes_left.load(Ordering::Relaxed) {
            self.pump.looks.fetch_add(1, Ordering::Relaxed);
            self.move_lanes_on(false);
        }
    }

    /// Moves on all that can.
    pub(super) fn pump_all(self: &Arc<Self>) {
        if self.has_work() && !self.is_forked.load(Ordering::Relaxed) {
            self.pump_frontier(EDGE_ALL);
            self.pump_lanes();
        }
    }

    fn move_tasks_on(self: &Arc<Self>, edge: usize) -> bool {
        if self.frontier.is_empty() {
            return false;
        }
        let released = self.frontier.look(edge);
        let has_released = !released.is_empty();
        for waiting in released {
            self.submit_to(&waiting.lane, waiting.call);
        }
        has_released
    }

    fn move_lanes_on(self: &Arc<Self>, is_late: bool) {
        // First, so that whoever leaves something from here on is not forgotten.
        self.has_lanes_left.store(false, Ordering::SeqCst);
        let (mut most, mut ended) = (Left::Nothing, Vec::new());
        for lane in self.lanes().iter() {
            match lane.pump(is_late, &self.line) {
                Ok(left) => most = most.max(left),
                Err(calls) => ended.push((lane.clone(), calls)),
            }
        }
        self.has_backlog.store(most == Left::Backlog, Ordering::Relaxed);
        if most != Left::Nothing {
            self.has_lanes_left.store(true, Ordering::SeqCst);
        }
        ended.into_iter().for_each(|(lane, calls)| self.fail_ended(&lane, calls));
    }

    /// For who has waited for a while.
    pub(super) fn nudge(self: &Arc<Self>) {
        let nudge = |lane: &Arc<Lane>| lane.nudge(&self.line).err().map(|calls| (lane.clone(), calls));
        let ended: Vec<_> = self.lanes().iter().filter_map(nudge).collect();
        ended.into_iter().for_each(|(lane, calls)| self.fail_ended(&lane, calls));
    }

    /// Some lane is to be looked after.
    #[inline]
    pub(super) fn lanes_left(self: &Arc<Self>) {
        // Whoever took the word back has looked at the lane before this thread left something there, and
        // then this thread sees that; so where it stands, somebody is going to look.
        if self.has_lanes_left.load(Ordering::Relaxed) && self.pump.is_running.load(Ordering::Relaxed) {
            return;
        }
        self.has_lanes_left.store(true, Ordering::SeqCst);
        self.ensure_pump();
    }

    /// Has the thread run, for something that was left.
    #[inline]
    pub(super) fn ensure_pump(self: &Arc<Self>) {
        // Pairs with the fence of the thread that ends: one of the two sees the other.
        fence(Ordering::SeqCst);
        if !self.pump.is_running.load(Ordering::Relaxed) {
            self.start_pump();
        }
    }

    #[cold]
    fn start_pump(self: &Arc<Self>) {
        let mut state = lock(&self.pump.state);
        if state.is_closing || self.pump.is_running.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("raylet-pump".to_owned());
        let pump = move || {
            // A signal is the program's, and is to wake a thread of its own.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            shared.run_pump();
        };
        match thread.spawn(pump) {
            // The one before has ended, or is about to.
            Ok(thread) => state.thread = Some(thread),
            // Then whoever submits or waits next does it.
            Err(_) => self.pump.is_running.store(false, Ordering::SeqCst),
        }
    }

    /// Ends the thread, and waits for that.
    pub(super) fn close_pump(&self) {
        let thread = {
            let mut state = lock(&self.pump.state);
            state.is_closing = true;
            state.wake(&self.store, &self.pump.news);
            state.wakers.clear();
            state.thread.take()
        };
        // A waker may be what drops the last handle.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic of a waker on it has been reported.
            let _ = thread.join();
        }
    }

    /// Has `waker` woken once the object is there; false where the raylet is gone, so that it never is.
    pub(super) fn wake_when_ready(self: &Arc<Self>, object: &RawRef, waker: &Waker) -> bool {
        if object.is_ready() {
            waker.wake_by_ref();
            return true;
        }
        if self.line.is_gone() || self.is_forked.load(Ordering::Relaxed) {
            return false;
        }
        {
            let mut state = lock(&self.pump.state);
            let handle = object.handle();
            let is_known = |known: &(RawRef, Waker)| known.0.handle() == handle && known.1.will_wake(waker);
            if !state.wakers.iter().any(is_known) {
                state.wakers.push((object.clone(), waker.clone()));
                state.wake(&self.store, &self.pump.news);
            }
        }
        self.ensure_pump();
        true
    }

    /// The raylet is gone: everybody looks.
    pub(super) fn raylet_is_gone(&self) {
        let wakers = {
            let mut state = lock(&self.pump.state);
            state.wake(&self.store, &self.pump.news);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(super) fn add_deadline(self: &Arc<Self>, timeout: Duration, result: Handle) {
        // A time too far away for the clock never comes.
        let Some(at) = Instant::now().checked_add(timeout) else { return };
        let deadline = Deadline { at, timeout, slot: result.slot, generation: result.generation };
        {
            let mut state = lock(&self.pump.state);
            let is_next = state.deadlines.peek().is_none_or(|Reverse(next)| deadline < *next);
            state.deadlines.push(Reverse(deadline));
            if is_next {
                state.wake(&self.store, &self.pump.news);
            }
        }
        self.ensure_pump();
    }

    fn run_pump(self: &Arc<Self>) {
        let mut pause = PAUSE_MIN;
        let (mut seen, mut idle_since) = (self.pump.looks.load(Ordering::Relaxed), None);
        loop {
            self.serve();
            let looks = self.pump.looks.load(Ordering::Relaxed);
            let is_mine = looks == seen && self.pump.waiting.load(Ordering::Relaxed) == 0;
            seen = looks;
            if is_mine && self.has_work() {
                if self.move_tasks_on(EDGE_ALL) {
                    pause = PAUSE_MIN;
                }
                self.move_lanes_on(true);
            }
            self.close_released();
            if self.has_anything() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= LINGER && self.may_end() {
                return;
            }
            if !self.sleep(is_mine, pause) {
                self.pump.is_running.store(false, Ordering::SeqCst);
                return;
            }
            let is_full = self.has_backlog.load(Ordering::Relaxed);
            pause = if is_full { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        }
    }

    /// Whether the thread has a reason to be.
    fn has_anything(&self) -> bool {
        let state = lock(&self.pump.state);
        let is_listened_for = !state.wakers.is_empty() || !state.deadlines.is_empty();
        drop(state);
        is_listened_for || self.has_work() || self.actors.has_released()
    }

    /// Says that the thread ends, unless something has come up.
    fn may_end(&self) -> bool {
        self.pump.is_running.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Where something has and another thread was started for it, that one goes on.
        !self.has_anything() || self.pump.is_running.swap(true, Ordering::SeqCst)
    }

    /// Wakes who waits for what is there, and ends what is late.
    fn serve(self: &Arc<Self>) {
        let (mut ready, mut late) = (Vec::new(), Vec::new());
        {
            let mut state = lock(&self.pump.state);
            let mut at = 0;
            while at < state.wakers.len() {
                match state.wakers[at].0.is_ready() {
                    true => ready.push(state.wakers.swap_remove(at)),
                    false => at += 1,
                }
            }
            while state.deadlines.peek().is_some_and(|Reverse(next)| next.at <= Instant::now()) {
                late.extend(state.deadlines.pop());
            }
        }
        ready.into_iter().for_each(|(_, waker)| waker.wake());
        for Reverse(Deadline { timeout, slot, generation, .. }) in late {
            let result = Handle { slot, generation };
            // Nobody wants it any more, or it is there.
            if self.store.refer(result).is_some_and(|object| !object.is_ready()) {
                self.expire(result, timeout);
            }
        }
    }

    /// Sleeps until there may be news; false when the engine is dropped.
    fn sleep(&self, is_mine: bool, pause: Duration) -> bool {
        let mut state = lock(&self.pump.state);
        if state.is_closing {
            return false;
        }
        let mut watched: Vec<RawRef> =
            state.wakers.iter().take(WATCHED_MAX).map(|(object, _)| object.clone()).collect();
        if is_mine {
            watched.extend(self.frontier.edge(WATCHED_MAX));
        }
        let limit = self.sleep_limit(&state, is_mine, watched.len(), pause);
        if watched.is_empty() || self.line.is_gone() {
            let slept = self.pump.news.wait_timeout(state, limit);
            drop(slept.unwrap_or_else(PoisonError::into_inner));
            return true;
        }
        let limit = match self.store.promise_by_handle(None) {
            Ok(interrupt) => {
                watched.push(interrupt.clone());
                state.interrupt = Some(interrupt);
                limit
            }
            // No entry is left for it: no news reaches the thread in its sleep.
            Err(_) => limit.min(PAUSE_MIN),
        };
        drop(state);
        // A raylet that is gone shows on the line.
        let _ = self.store.wait(&watched, 1, limit);
        lock(&self.pump.state).interrupt = None;
        true
    }

    fn sleep_limit(&self, state: &State, is_mine: bool, watched: usize, pause: Duration) -> Duration {
        let wakes_nobody = self.has_lanes_left.load(Ordering::Relaxed) || self.actors.has_released();
        let is_cut = watched >= WATCHED_MAX;
        let is_others = !is_mine && self.has_work();
        let limit = match wakes_nobody || is_cut || is_others {
            true => pause,
            false if watched == 0 => LINGER,
            false => SLEEP_MAX,
        };
        let next = state.deadlines.peek().map(|Reverse(next)| next.at.saturating_duration_since(Instant::now()));
        limit.min(next.unwrap_or(limit))
    }
}
