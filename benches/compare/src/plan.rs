//! What a bench's table is made of: works, peers, units.
//!
//! The one thing to know: a row is looked up by its name, "<work>, <peer>", so a renamed work or
//! peer is a lost promise. This file must not know what any work does.

use std::fmt::Debug;

use crate::error::BenchError;
use crate::report::Report;
use crate::run::{Bench, Boxed};

/// A contender ready for its first round; none where the work does not exist for it.
pub type Made = Result<Option<Boxed>, BenchError>;

/// One thing that contenders do; a bench is an enum of them.
pub trait Work: Copy + Debug + 'static {
    /// Ours, ready for its first round.
    fn ours(self, setting: Setting, bench: &Bench) -> Made;
    /// The peer, ready for its first round.
    fn peer(self, peer: Peer, bench: &Bench) -> Made;
    /// Rounds, all of them counted, of a work whose contenders start anew in each and leave nothing
    /// behind: then those that work when they are idle take part in the turns. None where they stay.
    fn rounds_anew(self, _bench: &Bench) -> Option<usize> {
        None
    }
    /// Adds the rows of the bench that follow from others.
    fn conclude(_report: &mut Report) {}
}

/// Which of ours a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What the row is about.
    Measured,
    /// What the row's peer "self" is: the same in the easier setting.
    Baseline,
}

/// Whom ours is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// One uncontended fetch_add and one fetch_sub.
    RmwPair,
    /// Plasma, the last wheel that had it.
    Plasma,
    /// Plasma when this client already holds the object: its own count, no message.
    PlasmaHeld,
    /// Ray, driven from Python.
    Ray,
    /// LMDB on tmpfs, never synced, its map read-only as LMDB has it by default and as our views are.
    Lmdb,
    /// The same written through a writable map: no system call, and no protection from stray writes.
    LmdbWritemap,
    /// Python's shared memory blocks.
    Multiprocessing,
    /// Python's own pool of processes.
    MultiprocessingPool,
    /// joblib's pool of processes.
    Loky,
    /// The other pool of processes that Python brings.
    ConcurrentFutures,
    /// The same source into as many warm shared pages.
    Memcpy,
    /// First writes to shared pages.
    Faults,
    /// Dependent random cache lines.
    PointerChase,
    /// iceoryx2: publish-subscribe for objects, request-response for tasks.
    Iceoryx2,
    /// Two processes and two futex words.
    Futex,
    /// A byte to another process and one back, through two pipes.
    Pipe,
    /// A program that does nothing, from its start to its end.
    ProcessSpawn,
    /// Rayon's pool of threads, in this process.
    Rayon,
    /// The crate `threadpool`, in this process.
    ThreadPool,
    /// A unary gRPC call over a Unix socket.
    Grpc,
    /// Plain processes, one for each core, each on its share of the same input.
    Ideal,
    /// Ours in another setting; the work says in which.
    Itself,
    /// A time written down beforehand instead of measured.
    Allowance,
}

impl Peer {
    /// Whether its processes take time from others while it is not their turn: Ray's do.
    pub fn works_when_idle(self) -> bool {
        self == Self::Ray
    }

    /// As it stands in a row's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RmwPair => "rmw pair",
            Self::Plasma => "plasma",
            Self::PlasmaHeld => "plasma held",
            Self::Ray => "ray",
            Self::Lmdb => "lmdb",
            Self::LmdbWritemap => "lmdb writemap",
            Self::Multiprocessing => "multiprocessing",
            Self::MultiprocessingPool => "multiprocessing.Pool",
            Self::Loky => "joblib loky",
            Self::ConcurrentFutures => "concurrent.futures",
            Self::Memcpy => "memcpy",
            Self::Faults => "4 KiB faults",
            Self::PointerChase => "pointer chase",
            Self::Iceoryx2 => "iceoryx2",
            Self::Futex => "futex",
            Self::Pipe => "pipe",
            Self::ProcessSpawn => "process spawn",
            Self::Rayon => "rayon",
            Self::ThreadPool => "thread pool",
            Self::Grpc => "grpc",
            Self::Ideal => "ideal",
            Self::Itself => "self",
            Self::Allowance => "allowance",
        }
    }
}

/// What a row's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds: less is better.
    Nanoseconds,
    /// Bytes: less is better.
    Bytes,
    /// Operations a second.
    PerSecond,
    /// 10^9 bytes a second.
    GigabytesPerSecond,
    /// How many times better ours is than a peer whose figure is one.
    Times,
}

impl Unit {
    /// As it stands in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::PerSecond => "1/s",
            Self::GigabytesPerSecond => "GB/s",
            Self::Times => "times",
        }
    }

    /// How many times better ours is: above one, ours wins.
    pub fn ratio(self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::Nanoseconds | Self::Bytes => peer / ours,
            Self::PerSecond | Self::GigabytesPerSecond | Self::Times => ours / peer,
        }
    }
}

/// One line of a bench's table.
#[derive(Clone, Copy, Debug)]
pub struct WorkPlan<W> {
    /// What is done.
    pub work: W,
    /// The row's name without its peer.
    pub name: &'static str,
    /// Of ours and of every peer.
    pub unit: Unit,
    /// In the order of turns, after ours.
    pub peers: &'static [Peer],
    /// Counted rounds at most, for what takes seconds a round; with 0 the otherwise uncounted first
    /// round is all there is. A work with rounds of its own has those.
    pub rounds_max: usize,
}

/// A line with as many rounds as the run has.
pub const fn plan<W>(work: W, name: &'static str, unit: Unit, peers: &'static [Peer]) -> WorkPlan<W> {
    WorkPlan { work, name, unit, peers, rounds_max: usize::MAX }
}

impl<W> WorkPlan<W> {
    /// The same with fewer rounds.
    pub const fn in_rounds(self, rounds_max: usize) -> Self
    where
        W: Copy,
    {
        WorkPlan { work: self.work, name: self.name, unit: self.unit, peers: self.peers, rounds_max }
    }
}

#[cfg(test)]
pub(crate) fn check_names<W>(plans: &[WorkPlan<W>]) {
    for (index, plan) in plans.iter().enumerate() {
        assert!(!plan.name.contains(", "), "{}", plan.name);
        assert!(plans[..index].iter().all(|other| other.name != plan.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_ours_winning() {
        assert_eq!(Unit::Nanoseconds.ratio(5.0, 10.0), 2.0);
        assert_eq!(Unit::GigabytesPerSecond.ratio(10.0, 5.0), 2.0);
    }
}
