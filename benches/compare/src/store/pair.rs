//! Two processes on one store: readers of one object, ping-pongs of objects.
//!
//! The one thing to know: a ping is a put under an id that both ends can compute, a pong likewise;
//! whoever waits asks for the id and reads the first line. Ending the objects is inside the times, as
//! iceoryx2's is, though each end does it after it has answered.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use store::{CreateOptions, ObjectId, ObjectRef, Store};

use super::small::Crowd;
use super::talk::Partner;
use super::{new_store, pinned_store};
use crate::child::{HARNESS_CORE, pin_to_core};
use crate::error::BenchError;
use crate::plan::Setting;
use crate::run::{Bench, Boxed};
use crate::stats::read_first_line;
use crate::store::work::{FEW_LIVE, SMALL_BYTES};

/// How long both read at once, for one sample.
const WINDOW: Duration = Duration::from_millis(20);
/// Pairs between two looks at the clock.
const PAIRS_PER_LOOK: usize = 1024;
/// How long an end waits for the other.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
const CAPACITY_BYTES: u64 = 1 << 30;

/// Pins and releases for about as long as asked; how many, in how many nanoseconds.
pub(super) fn read_for(window: Duration, store: &Store, object: &ObjectRef) -> Result<(u64, u64), BenchError> {
    let (start, mut pairs, mut read) = (Instant::now(), 0, 0_u64);
    loop {
        for _ in 0..PAIRS_PER_LOOK {
            let view = store.view(object).map_err(BenchError::store("get"))?;
            read = read.wrapping_add(read_first_line(&view));
        }
        pairs += PAIRS_PER_LOOK as u64;
        let elapsed = start.elapsed();
        if elapsed >= window {
            black_box(read);
            return Ok((pairs, elapsed.as_nanos() as u64));
        }
    }
}

/// Pairs a second of both processes together, or of the harness alone.
pub(super) fn readers(setting: Setting, bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(FEW_LIVE, bench)?;
    let mut other = Partner::start("read", &crowd.store)?;
    other.talk.tell_objects(&crowd.objects[MIDDLE..=MIDDLE])?;
    let mut readers = Readers { crowd, other };
    let count = bench.effort.count(20);
    Ok(Box::new(move || {
        (0..count)
            .map(|_| match setting {
                Setting::Measured => readers.both(),
                Setting::Baseline => readers.alone(),
            })
            .collect()
    }))
}

/// The object that is read.
const MIDDLE: usize = FEW_LIVE / 2;

struct Readers {
    crowd: Crowd,
    other: Partner,
}

impl Readers {
    fn alone(&self) -> Result<f64, BenchError> {
        read_for(WINDOW, &self.crowd.store, &self.crowd.objects[MIDDLE]).map(rate)
    }

    fn both(&mut self) -> Result<f64, BenchError> {
        self.other.talk.tell(&[WINDOW.as_nanos() as u64])?;
        let ours = self.alone()?;
        let [pairs, nanos] = self.other.talk.hear()?;
        Ok(ours + rate((pairs, nanos)))
    }
}

fn rate((pairs, nanos): (u64, u64)) -> f64 {
    pairs as f64 * 1e9 / nanos as f64
}

/// Which way an object goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// From the harness.
    Ping,
    /// Back to it.
    Pong,
}

/// One end of a ping-pong.
pub(super) struct End {
    store: Store,
    says: Way,
    hears: Way,
    payload: [u8; SMALL_BYTES],
    said: Option<ObjectRef>,
}

impl End {
    pub(super) fn new(store: Store, says: Way, hears: Way) -> Self {
        Self { store, says, hears, payload: [1; SMALL_BYTES], said: None }
    }

    /// Puts this turn's object; then lets go of the one before, which the other end has read.
    pub(super) fn say(&mut self, turn: u32) -> Result<(), BenchError> {
        self.payload.fill(mark(turn));
        let options = CreateOptions { id: Some(id(self.says, turn)), ..CreateOptions::default() };
        let said = self.store.put_with(&self.payload, &options);
        self.said = Some(said.map_err(BenchError::store("put"))?);
        Ok(())
    }

    /// Waits for the other end's object of this turn and reads its first line.
    pub(super) fn hear(&self, turn: u32) -> Result<(), BenchError> {
        let heard = self.store.get_by_id(&id(self.hears, turn), SILENCE);
        let heard = heard.map_err(BenchError::store("get"))?;
        let found = read_first_line(&heard);
        let expected = u64::from_ne_bytes([mark(turn); 8]).wrapping_mul(8);
        (found == expected).then_some(()).ok_or(BenchError::WrongBytes { expected, found })
    }
}

fn id(way: Way, turn: u32) -> ObjectId {
    let tag = match way {
        Way::Ping => 1,
        Way::Pong => 2,
    };
    ObjectId::of_task([tag; 24], turn)
}

fn mark(turn: u32) -> u8 {
    (turn % 255) as u8 + 1
}

/// The harness's end, the other process, and the turn they are at.
struct PingPong {
    end: End,
    _other: Partner,
    turn: u32,
}

impl PingPong {
    fn new(store: Store, role: &str) -> Result<Self, BenchError> {
        let other = Partner::start(role, &store)?;
        let mut ping_pong = Self { end: End::new(store, Way::Ping, Way::Pong), _other: other, turn: 0 };
        ping_pong.turn()?;
        Ok(ping_pong)
    }

    /// Nanoseconds of one round trip.
    fn turn(&mut self) -> Result<f64, BenchError> {
        self.turn += 1;
        let start = Instant::now();
        self.end.say(self.turn)?;
        self.end.hear(self.turn)?;
        Ok(start.elapsed().as_nanos() as f64)
    }

    fn round(&mut self, count: usize) -> Result<Vec<f64>, BenchError> {
        pin_to_core(HARNESS_CORE);
        (0..count).map(|_| self.turn()).collect()
    }
}

/// Half a round trip between two ends that spin.
pub(super) fn ping_pong_hot(bench: &Bench) -> Result<Boxed, BenchError> {
    let mut ping_pong = PingPong::new(new_store(CAPACITY_BYTES)?, "echo-hot")?;
    let count = bench.effort.count(100_000);
    Ok(Box::new(move || {
        let trips = ping_pong.round(count)?;
        Ok(trips.into_iter().map(|trip| trip / 2.0).collect())
    }))
}

/// A whole round trip between two ends that sleep: each has one core to itself, so the store does
/// not spin; that they did sleep is checked.
pub(super) fn ping_pong_asleep(bench: &Bench) -> Result<Boxed, BenchError> {
    let mut ping_pong = PingPong::new(pinned_store(CAPACITY_BYTES)?, "echo-asleep")?;
    let count = bench.effort.count(3_000);
    Ok(Box::new(move || {
        let before = sleeps()?;
        let trips = ping_pong.round(count)?;
        let found = sleeps()? - before;
        let wanted = count as u64 * 9 / 10;
        let what = "sleeps of the harness";
        (found >= wanted).then_some(trips).ok_or(BenchError::TooFew { what, found, wanted })
    }))
}

/// How often this thread gave its core away of its own accord.
fn sleeps() -> Result<u64, BenchError> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).map_err(BenchError::errno("getrusage"))?;
    Ok(usage.voluntary_context_switches().cast_unsigned())
}
