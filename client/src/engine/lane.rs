//! One queue that this process submits into: its ring, what waits for room in it, and who serves it.
//!
//! The one thing to know: a call is in the ring or in the backlog behind it, in the order it came, and
//! its spec is held until the ring gives the record back. Nobody wakes a caller for that, so whoever
//! submits, waits or pumps reaps. The raylet is asked for workers when there are none, or far fewer
//! than calls; what it grants shows in the queue itself.
//!
//! Waking a worker costs more than a short call, and on few processors takes the caller's. So where
//! calls are over quickly and a worker is awake, which looks again before it sleeps, nobody is woken
//! for a queue that is empty in a moment; whoever looks after the lane next sees to it that it was so.
//! This file must not know what calls await.

use super::line::Line;
use super::spec::{Unpacked, handle, object_key};
use raylet_api::record::{Body, ObjectKey, Record, parent_of};
use raylet_api::work::{CloseQueue, WantWorkers};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use store::{Handle, ObjectRef as RawRef, Store};
use store_shm::queue::{Broken, Cancel, Payload, Position, Queue, Service, Submitter};

/// Workers that one queue asks for at most; the raylet gives fewer where there are fewer resources.
const WORKERS_WANTED_MAX: u64 = 64;
/// Calls in the ring up to which it is reaped at once where that decides whether to ask for workers.
const IN_FLIGHT_FEW: u64 = 64;
/// Submissions after which the ring is reaped, and the pace measured: so many cache misses overlap.
const REAP_AFTER: u32 = 32;
/// Calls that are over more often than once in this time are short ones: nanoseconds.
const QUICK_NS: u64 = 20_000;
/// How long a queue of short calls may take to be empty without another worker being woken for it, and
/// without the raylet being asked for one.
const DRAIN_NS: u64 = 200_000;
const DRAIN_LONG_NS: u64 = 1_000_000;
/// Submissions after which a wish that stands is looked at again, and how old it is then.
const WISH_LOOK_AFTER: u32 = 256;
const WISH_AGE: Duration = Duration::from_millis(100);
/// Calls in one piece of a backlog.
const PIECE_CALLS: usize = 512;

/// A call that is packed, with what it holds.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) words: Payload,
    pub(crate) spec: Option<RawRef>,
}

impl Call {
    /// Its results, in order; none of a call whose words are no record.
    pub(crate) fn results(&self, store: &Store) -> Vec<Handle> {
        results_of(store, &self.words)
    }

    fn makes(&self, store: &Store, result: Handle) -> bool {
        makes(store, &self.words, result)
    }
}

/// The results of a record whose spec somebody holds.
fn results_of(store: &Store, words: &Payload) -> Vec<Handle> {
    let unpacked = Unpacked::of(store, words).ok().flatten();
    unpacked.map(|unpacked| unpacked.results.as_slice().to_vec()).unwrap_or_default()
}

fn makes(store: &Store, words: &Payload, result: Handle) -> bool {
    let Ok(record) = Record::unpack(words) else { return false };
    record.results > 0 && record.result == object_key(result)
        || record.results > 1 && results_of(store, words).contains(&result)
}

/// What became of a submission.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// It is on its way, and nothing is left to do here.
    Yes,
    /// Somebody has to look after the lane: it has a backlog, or holds specs.
    AndPump,
    /// Nobody serves the queue any more: these calls were taken back.
    Ended(Vec<Call>),
}

/// What a lane has to be looked after for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Left {
    /// For nothing.
    Nothing,
    /// Specs to let go of.
    Specs,
    /// Calls that wait for room.
    Backlog,
}

/// See the head of the file.
pub(crate) struct Lane {
    /// The raylet's number of the queue.
    number: u64,
    queue: Queue,
    /// Whether the raylet is to be asked for workers: not for an actor's.
    is_class: bool,
    store: Store,
    state: Mutex<State>,
    /// Calls in the backlog, and records with a spec: what a pump looks for.
    left: AtomicUsize,
    /// Why nobody serves it any more, as the bytes of an error object.
    end: OnceLock<Vec<u8>>,
}

struct State {
    submitter: Submitter,
    backlog: Backlog,
    /// Specs by the slot of their record; empty until there is one.
    specs: Vec<Option<RawRef>>,
    spec_count: usize,
    since_reap: u32,
    pace: Pace,
    wish: Wish,
    /// A record may be queued that nobody was woken for.
    is_unrung: bool,
    /// Records that were claimed at the last look, and whose results are gone: over in a moment, or what
    /// nobody waits for.
    unsure: Vec<Position>,
    is_ended: bool,
}

/// How often a call is over.
struct Pace {
    /// Nanoseconds from one to the next, lately.
    interval_ns: u64,
    measured_at: Instant,
    /// Since then.
    finished: u64,
}

impl Pace {
    fn new() -> Pace {
        Pace { interval_ns: u64::MAX, measured_at: Instant::now(), finished: 0 }
    }

    fn measure(&mut self) {
        let now = Instant::now();
        let passed_ns = u64::try_from(now.duration_since(self.measured_at).as_nanos()).unwrap_or(u64::MAX);
        let interval_ns = passed_ns / self.finished.max(1);
        let is_first = self.interval_ns == u64::MAX;
        self.interval_ns = if is_first { interval_ns } else { self.interval_ns / 2 + interval_ns / 2 };
        (self.measured_at, self.finished) = (now, 0);
    }

    /// Whether so many short calls are over within a time.
    #[inline]
    fn is_quick(&self, calls: u64, within_ns: u64) -> bool {
        self.interval_ns < QUICK_NS && calls.saturating_mul(self.interval_ns) < within_ns
    }
}

/// What the raylet was asked for last.
#[derive(Default)]
struct Wish {
    /// Workers; 0 once everything before is done.
    asked: u64,
    asked_at: Option<Instant>,
    since_look: u32,
}

/// Calls that do not fit into the ring, in pieces so that a long one is not copied when it grows.
#[derive(Default)]
struct Backlog {
    pieces: VecDeque<VecDeque<Call>>,
    count: usize,
}

impl Backlog {
    fn push(&mut self, call: Call) {
        self.count += 1;
        match self.pieces.back_mut().filter(|piece| piece.len() < PIECE_CALLS) {
            Some(piece) => piece.push_back(call),
            None => {
                // A short backlog, which is the usual one, is not given a whole piece.
                let room = if self.pieces.is_empty() { 8 } else { PIECE_CALLS };
                let mut piece = VecDeque::with_capacity(room);
                piece.push_back(call);
                self.pieces.push_back(piece);
            }
        }
    }

    fn front(&self) -> Option<&Call> {
        self.pieces.front()?.front()
    }

    fn pop(&mut self) -> Option<Call> {
        let piece = self.pieces.front_mut()?;
        let call = piece.pop_front();
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.count -= usize::from(call.is_some());
        call
    }

    fn take(&mut self, is_it: impl Fn(&Call) -> bool) -> Option<Call> {
        for piece in &mut self.pieces {
            if let Some(at) = piece.iter().position(&is_it) {
                self.count -= 1;
                return piece.remove(at);
            }
        }
        None
    }

    fn drain(&mut self) -> impl Iterator<Item = Call> + use<> {
        self.count = 0;
        std::mem::take(&mut self.pieces).into_iter().flatten()
    }
}

/// How far a record is that is not finished.
enum Standing {
    /// Its results stand.
    Answered,
    /// It is claimed, and nobody waits for its results any more.
    Unsure,
    /// It is still to be run.
    Waiting,
}

/// What a wish to cancel found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was not begun, and will not be: its results are the caller's to seal.
    TakenBack(Call),
    /// It is not here, or somebody has claimed it.
    NotQueued,
}

impl Lane {
    pub(crate) fn new(store: &Store, number: u64, queue: Queue, is_class: bool) -> Result<Lane, Broken> {
        let state = State {
            submitter: Submitter::new(&queue)?,
            backlog: Backlog::default(),
            specs: Vec::new(),
            spec_count: 0,
            since_reap: 0,
            pace: Pace::new(),
            wish: Wish::default(),
            is_unrung: false,
            unsure: Vec::new(),
            is_ended: false,
        };
        let (store, state) = (store.clone(), Mutex::new(state));
        Ok(Lane { number, queue, is_class, store, state, left: AtomicUsize::new(0), end: OnceLock::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics on what it finds.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The error that its calls end with, where the raylet has said one.
    pub(crate) fn end(&self) -> Option<&[u8]> {
        self.end.get().map(Vec::as_slice)
    }

    pub(crate) fn set_end(&self, error: Vec<u8>) {
        let _ = self.end.set(error);
    }

    /// Whether somebody has to look after it.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) != 0
    }

    /// Submits a call behind all that were submitted before.
    #[inline]
    pub(crate) fn submit(&self, call: Call, line: &Line) -> Submitted {
        let mut state = self.lock();
        if state.is_ended {
            return Submitted::Ended(vec![call]);
        }
        if state.since_reap >= REAP_AFTER {
            // What is broken shows when the record is pushed, or taken back.
            let _ = state.reap();
            state.pace.measure();
        }
        let mut pushed = if state.backlog.count > 0 { state.refill() } else { 0 };
        match state.push_or_reap(call) {
            None => pushed += 1,
            Some(call) => state.backlog.push(call),
        }
        self.look(state, pushed, line)
    }

    /// After records were pushed: looks who serves the queue, and does what follows.
    #[inline]
    fn look(&self, mut state: MutexGuard<'_, State>, pushed: u64, line: &Line) -> Submitted {
        // With the fence that the bell needs.
        let service = self.queue.service();
        let claimers = match service {
            Service::Ended => {
                let taken = state.take_back(&self.queue, &self.store);
                self.note(&mut state);
                return Submitted::Ended(taken);
            }
            Service::Claimers(claimers) => u64::from(claimers),
        };
        let sleepers = u64::from(self.queue.bell().sleepers());
        match sleepers {
            0 => state.is_unrung = false,
            _ if pushed > 0 => self.ring(&mut state, claimers.saturating_sub(sleepers), pushed),
            _ => {}
        }
        if self.is_class && state.waiting().min(WORKERS_WANTED_MAX) > claimers {
            self.wish(&mut state, claimers, line);
        }
        if self.note(&mut state) { Submitted::AndPump } else { Submitted::Yes }
    }

    /// Wakes as many as records were pushed, unless who is awake will do.
    fn ring(&self, state: &mut State, awake: u64, pushed: u64) {
        let will_do = self.is_class && awake > 0 && state.pace.is_quick(state.waiting(), DRAIN_NS);
        state.is_unrung |= will_do;
        if !will_do {
            state.submitter.ring(pushed);
        }
    }

    fn note(&self, state: &mut State) -> bool {
        state.is_unrung &= state.submitter.in_flight() > 0;
        let left = state.backlog.count + state.spec_count + usize::from(state.is_unrung);
        self.left.store(left, Ordering::Relaxed);
        left != 0
    }

    /// There are more calls than workers, as far as is known: asks for some, if that is news.
    fn wish(&self, state: &mut State, claimers: u64, line: &Line) {
        if state.submitter.in_flight() <= IN_FLIGHT_FEW {
            let _ = state.reap();
        }
        if state.waiting() <= 1 {
            // All before this one is over, and with it what was asked for that.
            state.wish.asked = state.wish.asked.min(claimers);
        }
        let is_news = |state: &mut State, waiting: u64| {
            let wanted = waiting.min(WORKERS_WANTED_MAX);
            wanted > claimers && state.wish.is_news(wanted, claimers)
        };
        let known = state.waiting();
        let is_enough = claimers > 0 && state.pace.is_quick(known, DRAIN_LONG_NS);
        if is_enough || !is_news(state, known) {
            return;
        }
        // Closer: what was finished since, and what is answered and finished in a moment.
        let _ = state.reap();
        let waiting = state.waiting() - self.answered_of_few(state);
        if waiting == known || is_news(state, waiting) {
            self.ask_for(state, waiting, line);
        }
    }

    fn ask_for(&self, state: &mut State, waiting: u64, line: &Line) {
        let wanted = waiting.min(WORKERS_WANTED_MAX);
        state.wish.asked = wanted;
        state.wish.asked_at = Some(Instant::now());
        let backlog = u32::try_from(waiting).unwrap_or(u32::MAX);
        // A raylet that is gone shows elsewhere.
        let _ = line.send(WantWorkers { queue: self.number, wanted: wanted as u32, backlog });
    }

    /// How many of few records in flight are over but for their word. Of one that nobody waits for that
    /// cannot be known at once: it is taken to be, unless it was found so before.
    fn answered_of_few(&self, state: &mut State) -> u64 {
        let before = std::mem::take(&mut state.unsure);
        if state.submitter.in_flight() > IN_FLIGHT_FEW {
            return 0;
        }
        let mut answered = 0;
        for position in self.in_flight(state) {
            match self.standing(position) {
                Standing::Answered => answered += 1,
                Standing::Unsure => {
                    answered += u64::from(!before.contains(&position));
                    state.unsure.push(position);
                }
                Standing::Waiting => {}
            }
        }
        // Somebody is to come late and look again.
        state.is_unrung |= !state.unsure.is_empty();
        answered
    }

    /// Where the records stand that are not reaped, the last first.
    fn in_flight(&self, state: &State) -> impl Iterator<Item = Position> + use<> {
        let (next, in_flight) = (state.submitter.next().number(), state.submitter.in_flight());
        (1..=in_flight).map(move |back| Position::from_number(next.wrapping_sub(back)))
    }

    /// Moves on what can; what is left then. `Err` as [`Submitted::Ended`]. Who comes `late` wakes who
    /// was not woken before, if that has not turned out to be right.
    pub(crate) fn pump(&self, is_late: bool, line: &Line) -> Result<Left, Vec<Call>> {
        if !self.has_left() {
            return Ok(Left::Nothing);
        }
        let mut state = self.lock();
        if is_late && std::mem::replace(&mut state.is_unrung, false) {
            // What is broken shows to who claims it.
            let _ = self.queue.nudge();
        }
        let pushed = state.refill();
        let is_full = state.backlog.count > 0;
        match self.look(state, pushed, line) {
            Submitted::Yes => Ok(Left::Nothing),
            Submitted::AndPump => Ok(if is_full { Left::Backlog } else { Left::Specs }),
            Submitted::Ended(calls) => Err(calls),
        }
    }

    /// For who has waited for a while: wakes a claimer that was woken before and may be stopped, and
    /// asks for workers again where there are none.
    pub(crate) fn nudge(&self, line: &Line) -> Result<(), Vec<Call>> {
        let mut state = self.lock();
        let pushed = state.refill();
        if state.waiting() == 0 {
            self.note(&mut state);
            return Ok(());
        }
        state.is_unrung = false;
        let _ = self.queue.nudge();
        match self.look(state, pushed, line) {
            Submitted::Ended(calls) => Err(calls),
            Submitted::Yes | Submitted::AndPump => Ok(()),
        }
    }

    /// Takes the call back that makes this result, if nobody has begun it.
    pub(crate) fn cancel(&self, result: Handle) -> Found {
        let (mut state, store) = (self.lock(), &self.store);
        if let Some(call) = state.backlog.take(|call| call.makes(store, result)) {
            self.note(&mut state);
            return Found::TakenBack(call);
        }
        for entry in self.queue.queued() {
            if makes(store, &entry.payload, result) && self.queue.cancel(entry.word.position) == Cancel::Cancelled {
                return Found::TakenBack(taken_back(store, entry.payload));
            }
        }
        Found::NotQueued
    }

    /// All results of the call under way that makes this one and others, in order; none where there is none.
    pub(crate) fn under_way(&self, result: Handle) -> Vec<Handle> {
        let (state, store) = (self.lock(), &self.store);
        let found = self.in_flight(&state).filter_map(|position| self.queue.look(position));
        let mut making = found.filter(|entry| makes(store, &entry.payload, result));
        making.next().map(|entry| results_of(store, &entry.payload)).unwrap_or_default()
    }

    /// Takes the calls back that the task of this mark submitted and nobody has begun; of those that
    /// are under way, their words.
    pub(crate) fn cancel_children(&self, parent: u32) -> (Vec<Call>, Vec<Payload>) {
        let mut state = self.lock();
        let mut taken: Vec<Call> =
            std::iter::from_fn(|| state.backlog.take(|call| parent_of(&call.words) == parent)).collect();
        let mut begun = Vec::new();
        for position in self.in_flight(&state) {
            let Some(entry) = self.queue.look(position).filter(|entry| parent_of(&entry.payload) == parent) else {
                continue;
            };
            match self.queue.cancel(position) {
                Cancel::Cancelled => taken.push(taken_back(&self.store, entry.payload)),
                Cancel::Claimed { .. } => begun.push(entry.payload),
                Cancel::Finished | Cancel::Gone => {}
            }
        }
        self.note(&mut state);
        (taken, begun)
    }

    /// Reaps; whether everything that was ever submitted is over.
    pub(crate) fn is_over(&self) -> bool {
        let mut state = self.lock();
        let _ = state.reap();
        self.note(&mut state);
        state.waiting() == 0
    }

    /// Whether the results of everything that was ever submitted stand: the records are over in a moment.
    pub(crate) fn is_answered(&self) -> bool {
        let mut state = self.lock();
        let _ = state.reap();
        self.note(&mut state);
        let is_answered = |position| matches!(self.standing(position), Standing::Answered);
        state.backlog.count == 0 && self.in_flight(&state).all(is_answered)
    }

    fn standing(&self, position: Position) -> Standing {
        let Some(entry) = self.queue.look(position) else { return Standing::Answered };
        let last = results_of(&self.store, &entry.payload).last().copied();
        match last.and_then(|last| self.store.refer(last)) {
            Some(result) if result.is_ready() => Standing::Answered,
            None if entry.word.state == store_shm::queue::State::Claimed => Standing::Unsure,
            _ => Standing::Waiting,
        }
    }

    /// Tells the raylet that nothing more comes. Only once everything is over: its place may be
    /// another queue's from then on.
    pub(crate) fn close(&self, line: &Line) {
        let mut state = self.lock();
        state.is_ended = true;
        let _ = line.send(CloseQueue { queue: self.number });
    }
}

impl Wish {
    fn is_news(&mut self, wanted: u64, claimers: u64) -> bool {
        let is_old = |wish: &Wish| wish.asked_at.is_none_or(|at| at.elapsed() >= WISH_AGE);
        if self.asked == 0 || wanted >= 2 * self.asked {
            return true;
        }
        self.since_look += 1;
        let is_time = claimers == 0 || self.since_look >= WISH_LOOK_AFTER;
        if is_time {
            self.since_look = 0;
        }
        is_time && is_old(self)
    }
}

impl State {
    /// Calls that are not known to be over.
    fn waiting(&self) -> u64 {
        self.submitter.in_flight() + self.backlog.count as u64
    }

    /// Hands the call back where the ring is full.
    #[inline]
    fn push_or_reap(&mut self, call: Call) -> Option<Call> {
        if self.backlog.count > 0 {
            return Some(call);
        }
        let call = self.push(call)?;
        match self.reap() {
            Ok(reaped) if reaped > 0 => self.push(call),
            _ => Some(call),
        }
    }

    #[inline]
    fn push(&mut self, call: Call) -> Option<Call> {
        match self.submitter.push(&call.words) {
            Ok(position) => {
                self.since_reap += 1;
                if let Some(spec) = call.spec {
                    self.hold(position, spec);
                }
                None
            }
            Err(_) => Some(call),
        }
    }

    fn hold(&mut self, position: Position, spec: RawRef) {
        let records = self.submitter.queue().records() as usize;
        if self.specs.is_empty() {
            self.specs.resize_with(records, || None);
        }
        self.specs[position.number() as usize & (records - 1)] = Some(spec);
        self.spec_count += 1;
    }

    fn reap(&mut self) -> Result<u64, Broken> {
        self.since_reap = 0;
        let (specs, spec_count) = (&mut self.specs, &mut self.spec_count);
        let mask = self.submitter.queue().records() as usize - 1;
        let reaped = self.submitter.reap(|position, _| {
            let spec = specs.get_mut(position.number() as usize & mask).and_then(Option::take);
            *spec_count -= usize::from(spec.is_some());
        });
        self.pace.finished += reaped.unwrap_or(0);
        reaped
    }

    /// Reaps, and fills what is free from the backlog; how many records it pushed.
    fn refill(&mut self) -> u64 {
        // What is broken shows when the record is pushed, or taken back.
        let _ = self.reap();
        let mut pushed = 0;
        while let Some(call) = self.backlog.front() {
            let Ok(position) = self.submitter.push(&call.words) else { break };
            pushed += 1;
            let call = self.backlog.pop().expect("it is the front");
            if let Some(spec) = call.spec {
                self.hold(position, spec);
            }
        }
        pushed
    }

    /// Takes back what nobody has begun: nobody will.
    fn take_back(&mut self, queue: &Queue, store: &Store) -> Vec<Call> {
        self.is_ended = true;
        let queued = queue.queued().filter(|entry| queue.cancel(entry.word.position) == Cancel::Cancelled);
        let mut taken: Vec<Call> = queued.map(|entry| taken_back(store, entry.payload)).collect();
        taken.extend(self.backlog.drain());
        taken
    }
}

/// A call of a record that will not run. Its spec is held by the slot of the record until that is
/// reaped, and from here on by the call.
fn taken_back(store: &Store, words: Payload) -> Call {
    let spec = spec_key(&words).and_then(|key| store.refer(handle(key)));
    Call { words, spec }
}

fn spec_key(words: &Payload) -> Option<ObjectKey> {
    match Record::unpack(words).ok()?.body {
        Body::Spec(key) => Some(key),
        Body::Inline { .. } => None,
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("number", &self.number).finish_non_exhaustive()
    }
}
