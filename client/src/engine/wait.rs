//! Get and wait: look, spin as long as it lately paid, then sleep in the store.
//!
//! The one thing to know: who waits moves things on meanwhile, as nobody else may: calls behind a full
//! ring, and tasks whose arguments have come, on whose arguments it sleeps as well. After a
//! millisecond, then two, four, it nudges its queues, in case that who was woken for them was stopped.
//! A worker tells the raylet before it sleeps. This file must not know what is waited for.

use super::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use store::{GetError, Object, ObjectRef as RawRef};

use raylet_api::work::{Blocked, Woken};

/// Looks before the first sleep, at most and at least.
const SPIN_MAX: u32 = 4096;
const SPIN_MIN: u32 = 16;
/// A sleep that was shorter than this would better have been a spin.
const SPIN_WORTH: Duration = Duration::from_micros(30);
/// Looks between two at tasks that wait for arguments.
const LOOKS_PER_EDGE: u32 = 4;
/// Looks between two at lanes.
const LOOKS_PER_PUMP: u32 = 64;
/// Objects that take about as long as one look at one.
const OBJECTS_PER_LOOK: usize = 16;
/// Objects of the edge that a spinning thread looks at each time.
const EDGE_LOOK: usize = 16;
/// Objects of the edge that a sleeper is woken by.
const EDGE_SLEEP: usize = 32;
/// Of a wait for more objects than this, the pump moves things on.
const WAIT_FEW: usize = 64;
/// How long the first and the longest sleep are after which queues are nudged.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);
/// The longest sleep while calls wait for room in a ring, which wakes nobody.
const PAUSE_FULL: Duration = Duration::from_micros(500);

/// How long this process spins: what paid lately, and nothing on one core.
pub(super) struct Spin {
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
    /// Longer next time, if it would have paid: else who once spins too briefly sleeps for ever after.
    fn slept(&self, time: Duration) {
        if time < SPIN_WORTH {
            let looks = self.looks.load(Ordering::Relaxed);
            self.looks.store((looks * 4).min(SPIN_MAX), Ordering::Relaxed);
        }
    }
}

/// Until when somebody waits.
#[derive(Clone, Copy)]
struct Limit {
    start: Instant,
    timeout: Option<Duration>,
}

impl Limit {
    fn new(timeout: Option<Duration>) -> Limit {
        Limit { start: Instant::now(), timeout }
    }

    /// What is left; nothing once it has passed, `Duration::MAX` where there is no limit.
    fn left(&self) -> Duration {
        self.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(self.start.elapsed()))
    }
}

/// A thread that sleeps for an object; the first one of a worker lends the CPU.
struct Asleep<'a>(&'a Shared);

impl<'a> Asleep<'a> {
    fn new(shared: &'a Shared) -> Asleep<'a> {
        if shared.is_worker && shared.blocked.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = shared.line.send(Blocked {});
        }
        Asleep(shared)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        if self.0.is_worker && self.0.blocked.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.0.line.send(Woken {});
        }
    }
}

impl Shared {
    #[inline]
    pub(super) fn get(self: &Arc<Self>, object: &RawRef, timeout: Option<Duration>) -> Result<Object, Box<GetError>> {
        if !object.is_ready() {
            self.wait_for_one(object, timeout)?;
        }
        self.store.get(object).or_else(|error| self.make_again(object, error, timeout))
    }

    pub(super) fn wait_for_one(
        self: &Arc<Self>,
        object: &RawRef,
        timeout: Option<Duration>,
    ) -> Result<(), Box<GetError>> {
        let is_ready = || object.is_ready();
        if timeout == Some(Duration::ZERO) {
            self.pump_all();
        } else if self.spin_until(1, is_ready) {
            return Ok(());
        }
        let limit = Limit::new(timeout);
        if self.sleep_until(&limit, is_ready, || (vec![object.clone()], 1))? {
            self.spin.slept(limit.start.elapsed());
            return Ok(());
        }
        let waited = limit.start.elapsed().max(timeout.unwrap_or_default());
        Err(Box::new(GetError::NotSealed { id: object.id(), waited, writer: None }))
    }

    pub(super) fn wait(
        self: &Arc<Self>,
        objects: &[RawRef],
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<bool>, Box<GetError>> {
        let count = count.min(objects.len());
        let mut ready = vec![false; objects.len()];
        let mut found = 0;
        let mut is_enough = || {
            for (object, ready) in objects.iter().zip(&mut ready) {
                if found < count && !*ready && object.is_ready() {
                    *ready = true;
                    found += 1;
                }
            }
            found >= count
        };
        if timeout == Some(Duration::ZERO) {
            self.pump_all();
        }
        let limit = Limit::new(timeout);
        if !self.spin_until(objects.len(), &mut is_enough) {
            let pending = || {
                let pending: Vec<RawRef> = objects.iter().filter(|object| !object.is_ready()).cloned().collect();
                let wanted = count.saturating_sub(objects.len() - pending.len());
                (pending, wanted)
            };
            if self.sleep_until(&limit, &mut is_enough, pending)? {
                self.spin.slept(limit.start.elapsed());
            }
        }
        // As many as there are by now, not just enough.
        Ok(objects.iter().zip(ready).map(|(object, ready)| ready || object.is_ready()).collect())
    }

    /// Looks at `count` objects, and moves things on between looks, for as long as it lately paid.
    #[inline]
    fn spin_until(self: &Arc<Self>, count: usize, mut is_done: impl FnMut() -> bool) -> bool {
        if is_done() {
            return true;
        }
        if !self.spin.is_allowed {
            self.pump_all();
            return is_done();
        }
        let looks = self.spin.looks.load(Ordering::Relaxed);
        let most = looks / (count / OBJECTS_PER_LOOK + 1) as u32;
        let mut look = 0;
        while look < most {
            std::hint::spin_loop();
            if is_done() {
                self.spin.looks.store((looks * 2).min(SPIN_MAX), Ordering::Relaxed);
                return true;
            }
            look += 1;
            if look % LOOKS_PER_EDGE == 0 && !self.frontier.is_empty() && self.pump_frontier(EDGE_LOOK) {
                look = 0;
            }
            if look % LOOKS_PER_PUMP == 0 {
                self.pump_lanes();
            }
        }
        self.spin.looks.store((looks / 2).max(SPIN_MIN), Ordering::Relaxed);
        false
    }

    /// Sleeps until `is_done`; false at the limit. `pending` gives the objects that it depends on, and
    /// how many of them have to be there.
    fn sleep_until(
        self: &Arc<Self>,
        limit: &Limit,
        mut is_done: impl FnMut() -> bool,
        pending: impl Fn() -> (Vec<RawRef>, usize),
    ) -> Result<bool, Box<GetError>> {
        if limit.left().is_zero() {
            return Ok(is_done());
        }
        if self.is_forked.load(Ordering::Relaxed) {
            let left = limit.left().min(Duration::from_secs(u32::MAX.into()));
            let (objects, wanted) = pending();
            self.store.wait(&objects, wanted, left)?;
            return Ok(is_done());
        }
        let _asleep = Asleep::new(self);
        let (mut pause, mut next_nudge) = (PAUSE_MIN, PAUSE_MIN);
        loop {
            self.pump_all();
            if is_done() {
                return Ok(true);
            }
            let left = limit.left();
            if left.is_zero() {
                return Ok(false);
            }
            self.sleep_once(pending(), pause.min(left))?;
            if is_done() {
                return Ok(true);
            }
            if self.line.is_gone() {
                return Err(Box::new(GetError::RayletGone));
            }
            if limit.start.elapsed() >= next_nudge {
                self.nudge();
                pause = (pause * 2).min(PAUSE_MAX);
                next_nudge = limit.start.elapsed() + pause;
            }
        }
    }

    /// One sleep, until something may have changed.
    fn sleep_once(
        &self,
        (mut objects, mut wanted): (Vec<RawRef>, usize),
        limit: Duration,
    ) -> Result<(), Box<GetError>> {
        if objects.len() > WAIT_FEW {
            return self.store.wait(&objects, wanted.max(1), limit).map(drop);
        }
        let _pumping = self.pump.hold_off();
        let edge = self.frontier.edge(EDGE_SLEEP);
        if !edge.is_empty() {
            objects.extend(edge);
            wanted = 1;
        }
        let is_full = self.has_backlog.load(Ordering::Relaxed);
        let limit = if is_full { limit.min(PAUSE_FULL) } else { limit };
        self.store.wait(&objects, wanted.max(1), limit).map(drop)
    }
}
