//! Taking turns: ours, then each peer, round after round; those that work when they are idle after
//! all others.
//!
//! The one thing to know: a contender that cannot be built or fails once is out for its work and
//! leaves nulls; the others go on. Only a signal ends the run.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::BenchError;
use crate::plan::{Made, Peer, Setting, Work, WorkPlan};
use crate::python::Environments;
use crate::report::Report;
use crate::stats::Summary;
use crate::watchdog::Watchdog;

/// Bytes of [`Bench::source`].
pub const SOURCE_BYTES: usize = 100 << 20;

/// Somebody who can do a work again and again. A round gives samples in the work's unit.
pub trait Contender {
    /// One turn.
    fn round(&mut self) -> Result<Vec<f64>, BenchError>;
}

impl<F: FnMut() -> Result<Vec<f64>, BenchError>> Contender for F {
    fn round(&mut self) -> Result<Vec<f64>, BenchError> {
        self()
    }
}

/// A contender, boxed by whoever made it.
pub type Boxed = Box<dyn Contender>;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Counted rounds; one uncounted round goes before them.
    pub rounds: usize,
    /// What a full count is divided by.
    pub divisor: usize,
}

impl Effort {
    /// What the numbers in the README are made with.
    pub const FULL: Self = Self { rounds: 7, divisor: 1 };
    /// Enough to see that everything runs; its numbers mean nothing.
    pub const QUICK: Self = Self { rounds: 2, divisor: 50 };

    /// `full` operations, or the part of them that this run does; never none.
    pub fn count(self, full: usize) -> usize {
        (full / self.divisor).max(1)
    }
}

/// How much of Ray's own microbenchmark.
#[derive(Clone, Copy, Debug)]
pub struct PerfRuns {
    /// Runs of each row.
    pub rounds: usize,
    /// Seconds it sleeps before each row; ten by its own will.
    pub warm_up_seconds: f64,
}

/// What every contender may use.
pub struct Bench {
    /// How Ray's own microbenchmark is run.
    pub perf: PerfRuns,
    /// How much of everything.
    pub effort: Effort,
    /// Python's peers, and our own package.
    pub environments: Environments,
    interrupted: Arc<AtomicBool>,
    source: OnceCell<Rc<[u8]>>,
}

impl Bench {
    /// `interrupted` is set by a signal.
    pub fn new(effort: Effort, perf: PerfRuns, environments: Environments, interrupted: Arc<AtomicBool>) -> Self {
        Self { effort, perf, environments, interrupted, source: OnceCell::new() }
    }

    /// 100 MiB of touched bytes, none of them zero: the source of every put and of every copy.
    pub fn source(&self) -> Rc<[u8]> {
        let fresh = || (0..SOURCE_BYTES).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 11) as u8 | 1).collect();
        Rc::clone(self.source.get_or_init(fresh))
    }

    fn check_interrupted(&self) -> Result<(), BenchError> {
        if self.interrupted.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
    }
}

/// One contender's place at the table.
struct Seat {
    peer: Option<Peer>,
    contender: Option<Boxed>,
    rounds: Vec<Vec<f64>>,
}

impl Seat {
    fn new<W: Work>(plan: &WorkPlan<W>, peer: Option<Peer>, bench: &Bench) -> Self {
        let made = match peer {
            None => plan.work.ours(Setting::Measured, bench),
            Some(Peer::Itself) => plan.work.ours(Setting::Baseline, bench),
            Some(peer) => plan.work.peer(peer, bench),
        };
        let contender = made.unwrap_or_else(|error| {
            complain(plan.name, peer, &error);
            None
        });
        Self { peer, contender, rounds: Vec::new() }
    }

    fn turn(&mut self, work: &str) {
        match self.contender.as_mut().map(|contender| contender.round()) {
            Some(Ok(samples)) => self.rounds.push(samples),
            Some(Err(error)) => {
                complain(work, self.peer, &error);
                self.contender = None;
                self.rounds.clear();
            }
            None => {}
        }
    }
}

fn complain(work: &str, peer: Option<Peer>, error: &BenchError) {
    eprintln!("  {} of {work}: {error}", peer.map_or("ours", Peer::name));
}

/// Runs one work against these of its peers and adds its rows.
pub fn run_work<W: Work>(
    plan: &WorkPlan<W>,
    peers: &[Peer],
    bench: &Bench,
    report: &mut Report,
) -> Result<(), BenchError> {
    let start = Instant::now();
    eprintln!("{} ...", plan.name);
    let _watchdog = Watchdog::start(plan.name);
    let measured = measure(plan, peers, bench)?;
    let summary = |who: Option<Peer>| measured.iter().find(|(peer, _)| *peer == who)?.1.clone();
    let peers: Vec<_> = peers.iter().map(|peer| (*peer, summary(Some(*peer)))).collect();
    report.add(plan, summary(None).as_ref(), &peers);
    eprintln!("{} took {:.1} s", plan.name, start.elapsed().as_secs_f64());
    Ok(())
}

/// What each contender's rounds came to; ours is `None`.
type Measured = Vec<(Option<Peer>, Option<Summary>)>;

/// Ours and its peers, in one turn or, where some work when it is not theirs, in two.
fn measure<W: Work>(plan: &WorkPlan<W>, peers: &[Peer], bench: &Bench) -> Result<Measured, BenchError> {
    let at_table = |peers: &[Peer]| -> Vec<Option<Peer>> { peers.iter().copied().map(Some).collect() };
    if let Some(counted) = plan.work.rounds_anew(bench) {
        let rounds = Rounds { uncounted: 0, counted };
        return take_turns(plan, &[vec![None], at_table(peers)].concat(), rounds, bench);
    }
    let (loud, quiet): (Vec<Peer>, Vec<Peer>) = peers.iter().partition(|peer| peer.works_when_idle());
    let rounds = Rounds::after_a_first(bench.effort.rounds.min(plan.rounds_max));
    let mut measured = take_turns(plan, &[vec![None], at_table(&quiet)].concat(), rounds, bench)?;
    measured.extend(take_turns(plan, &at_table(&loud), rounds, bench)?);
    Ok(measured)
}

/// How often everybody's turn comes.
#[derive(Clone, Copy)]
struct Rounds {
    uncounted: usize,
    counted: usize,
}

impl Rounds {
    /// So many after one that is not counted; with none of them that one counts.
    fn after_a_first(counted: usize) -> Self {
        if counted == 0 { Self { uncounted: 0, counted: 1 } } else { Self { uncounted: 1, counted } }
    }
}

/// All rounds of these, in turn; they are gone afterwards.
fn take_turns<W: Work>(
    plan: &WorkPlan<W>,
    who: &[Option<Peer>],
    rounds: Rounds,
    bench: &Bench,
) -> Result<Measured, BenchError> {
    let mut seats: Vec<Seat> = who.iter().map(|peer| Seat::new(plan, *peer, bench)).collect();
    for round in 1..=rounds.uncounted + rounds.counted {
        for seat in &mut seats {
            bench.check_interrupted()?;
            seat.turn(plan.name);
            if round == rounds.uncounted {
                seat.rounds.clear();
            }
        }
    }
    Ok(seats.iter().map(|seat| (seat.peer, Summary::of(&seat.rounds))).collect())
}

/// A peer that has nothing to do with a work.
pub fn no_such_peer<W: Work>(work: W, peer: Peer) -> Made {
    debug_assert!(false, "the table names {peer:?} for {work:?}, nobody implements it");
    Ok(None)
}
