//! Stopping and killing one operation behind every machine instruction.
//!
//! The one thing to know: three drives of the same operation. *Kill*: for every instruction a fresh
//! victim runs that far and is killed; survivors sweep and check. *Stop*: for every instruction a
//! fresh victim runs that far and stands still while survivors work beside it; then it goes on to
//! its end. *Disturb*: one victim, survivors work beside it behind each of its instructions.
//! It must not know any operation.

use crate::process::{Step, Victim, alarm, code_ranges, may_trace, stay_on_one_processor};
use crate::shared::SharedWords;
use crate::world::World;
use nix::sys::wait::WaitStatus;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long survivors may take beside one stopped victim before they count as hanging.
const PATIENCE_SECONDS: u32 = 20;
/// A victim that is disturbed behind each instruction may retry this often before it is left alone.
const RETRIES: u64 = 10;
/// The same in instructions, for long operations.
const RETRIES_MAX: u64 = 20_000;
/// How far before an instruction a breakpoint is looked for, from which to step there.
const LOOK_BACK: usize = 4096;
/// Operations shorter than this are stepped from the beginning where no breakpoint gets there.
const STEPPED_WHOLE: usize = 3000;

/// One operation of a victim, and what others do and find meanwhile and afterwards.
pub trait Operation {
    /// In the test: what the victim inherits.
    fn prepare(&mut self, _world: &World) {}
    /// In the test, once the victim has inherited it: lets go of what is to be the victim's alone.
    fn hand_over(&mut self, _world: &World) {}
    /// In the victim: whatever is not to be stepped.
    fn warm(&mut self, world: &World) {
        world.work();
    }
    /// In the victim, stepped.
    fn run(&mut self, world: &World);
    /// In the victim, at full speed: whether the operation did what it should.
    fn verify(&mut self, _world: &World) {}
    /// In the test, at any instant: whatever it finds has to be right.
    fn beside(&mut self, _world: &World) {}
    /// In the test, when the victim is dead and not swept yet: what somebody does before a sweep.
    fn before_sweep(&mut self, _world: &World) {}
    /// In the test, when the victim is dead and swept: what must be the case.
    fn after(&mut self, _world: &World) {}
    /// In the test: lets go of what it has.
    fn clean(&mut self, _world: &World) {}
}

/// Behind which instructions an operation is interrupted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of an instruction of this program that is executed often: the first so many times, and the last.
    pub visits: u64,
    /// The same for libraries, which touch no shared word but to copy bytes.
    pub library_visits: u64,
}

impl Plan {
    /// Every instruction, every time.
    pub const EVERY: Plan = Plan { visits: u64::MAX, library_visits: u64::MAX };
    /// Every instruction, where long loops look at tables that nobody changes meanwhile.
    pub const LOOPS: Plan = Plan { visits: 6, library_visits: 1 };
    /// Every instruction, its first and its last time: for long ways that mostly read.
    pub const ONCE: Plan = Plan { visits: 1, library_visits: 0 };
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Instructions from the first to the last of the operation.
    pub instructions: u64,
    /// Victims killed.
    pub kills: u64,
    /// Victims stopped while others worked, and continued.
    pub stops: u64,
    /// Stops of the one victim that was stopped behind each instruction.
    pub disturbances: u64,
    /// Victims that went another way than the one that was explored, and were tried anew.
    pub lost: u64,
    /// Places that none of these tries came to.
    pub missed: u64,
    /// Steps in all.
    pub steps: u64,
    /// The slowest a survivor was beside a stopped victim.
    pub slowest: Duration,
}

/// Drives an operation in every way, and prints what was done. Where nobody may trace a child it
/// says so, and proves nothing.
pub fn drive(name: &str, world: World, mut operation: impl Operation, plan: Plan) {
    if let Err(error) = may_trace() {
        eprintln!("skipped: {name}: the kernel lets nobody be traced here: {error}");
        return;
    }
    stay_on_one_processor();
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut stepper = Stepper { world: &world, done: SharedWords::new(1), path: Path::default(), tally: &mut tally };
    // Twice: the first victim finds things to be made once, which the others do not.
    stepper.explore(&mut operation, plan);
    stepper.explore(&mut operation, plan);
    stepper.kill_behind_each(&mut operation);
    stepper.stop_behind_each(&mut operation);
    stepper.disturb_behind_each(&mut operation);
    drop(stepper);
    alarm(PATIENCE_SECONDS, 0);
    drop(operation);
    world.finish();
    alarm(0, 0);
    eprintln!(
        "{name}: {} instructions, {} kills, {} stops, {} disturbances, slowest survivor {:?}, {} lost, {} missed, {} steps in {:.1?}",
        tally.instructions,
        tally.kills,
        tally.stops,
        tally.disturbances,
        tally.slowest,
        tally.lost,
        tally.missed,
        tally.steps,
        started.elapsed()
    );
}

struct Stepper<'a> {
    world: &'a World,
    /// Set by a victim when it has done its operation.
    done: SharedWords,
    path: Path,
    tally: &'a mut Tally,
}

/// The way that an undisturbed victim takes.
#[derive(Default)]
struct Path {
    /// For each instruction, how to get there.
    places: Vec<Place>,
    /// Indices of those behind which the operation is to be interrupted.
    targets: Vec<usize>,
}

/// One instruction on the way.
#[derive(Clone, Copy)]
struct Place {
    address: u64,
    /// How often it was executed before.
    time: u64,
    /// Whether a breakpoint can be put there.
    can_break: bool,
}

impl Path {
    fn new(addresses: &[u64], plan: Plan) -> Path {
        let ranges = code_ranges();
        let mut times: HashMap<u64, u64> = HashMap::new();
        let mut path = Path::default();
        for &address in addresses {
            let time = times.entry(address).or_default();
            let can_break = ranges.iter().any(|range| range.contains(&address));
            path.places.push(Place { address, time: *time, can_break });
            *time += 1;
        }
        for (at, place) in path.places.iter().enumerate() {
            let visits = if ranges[0].contains(&place.address) { plan.visits } else { plan.library_visits };
            let left = times[&place.address] - 1 - place.time;
            if place.time < visits || left < visits || at + 1 == addresses.len() {
                path.targets.push(at);
            }
        }
        path
    }

    /// The cheapest place to run to in order to step to `target` from there: each passing of a
    /// breakpoint stops the victim twice.
    fn way_to(&self, target: usize) -> Option<(usize, Place)> {
        let places = self.places_before(target).filter(|(_, place)| place.can_break);
        places.min_by_key(|(at, place)| 2 * place.time as usize + target - at)
    }

    /// The last place before `target` that is passed once: reached however often loops ran.
    fn sure_way_to(&self, target: usize) -> Option<(usize, Place)> {
        self.places_before(target).find(|(_, place)| place.can_break && place.time == 0)
    }

    fn places_before(&self, target: usize) -> impl Iterator<Item = (usize, Place)> + '_ {
        (target.saturating_sub(LOOK_BACK)..=target).rev().map(|at| (at, self.places[at]))
    }
}

impl Stepper<'_> {
    fn start(&mut self, operation: &mut impl Operation) -> Victim {
        alarm(PATIENCE_SECONDS, 0);
        operation.prepare(self.world);
        self.done[0].store(0, Ordering::SeqCst);
        let (world, done) = (self.world, &self.done);
        let shared = std::cell::RefCell::new(&mut *operation);
        let victim = Victim::start(
            || shared.borrow_mut().warm(world),
            || {
                let mut operation = shared.borrow_mut();
                operation.run(world);
                done[0].store(1, Ordering::SeqCst);
                operation.verify(world);
                0
            },
        );
        operation.hand_over(self.world);
        victim
    }

    fn is_done(&self) -> bool {
        self.done[0].load(Ordering::SeqCst) == 1
    }

    fn step(&mut self, victim: &mut Victim, at: u64) {
        self.tally.steps += 1;
        if let Step::Ended(status) = victim.step() {
            panic!("the victim ended by itself behind instruction {at}: {status:?}");
        }
    }

    /// Steps one victim from the first to the last instruction and writes down its way.
    fn explore(&mut self, operation: &mut impl Operation, plan: Plan) {
        let mut victim = self.start(operation);
        let mut addresses = Vec::new();
        while !self.is_done() {
            addresses.push(victim.position());
            self.step(&mut victim, addresses.len() as u64);
        }
        addresses.push(victim.position());
        let status = victim.finish();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "left alone, it ended with {status:?}");
        self.path = Path::new(&addresses, plan);
        self.tally.instructions = addresses.len() as u64 - 1;
        self.settle(operation, "left alone", self.tally.instructions);
    }

    /// A fresh victim that stands behind `target` instructions of its way.
    fn victim_at(&mut self, operation: &mut impl Operation, target: usize) -> Victim {
        for way in [self.path.way_to(target), self.path.sure_way_to(target)] {
            let Some((from, place)) = way else { continue };
            let mut victim = self.start(operation);
            if from == 0 || self.run_to(&mut victim, from, place) {
                (from..target).for_each(|at| {
                    if !self.is_done() {
                        self.step(&mut victim, at as u64)
                    }
                });
                return victim;
            }
            // It went another way, which depends on the instant or on what others left behind.
            drop(victim);
            self.settle(operation, "lost", target as u64);
            self.tally.lost += 1;
        }
        let mut victim = self.start(operation);
        if self.path.places.len() < STEPPED_WHOLE {
            (0..target).for_each(|at| {
                if !self.is_done() {
                    self.step(&mut victim, at as u64)
                }
            });
        } else {
            self.tally.missed += 1;
        }
        victim
    }

    fn run_to(&self, victim: &mut Victim, from: usize, place: Place) -> bool {
        // The instruction that it stands before at first is not stopped at.
        let is_first = self.path.places[0].address == place.address;
        let stopped = victim.run_to(place.address, place.time + u64::from(!is_first)) == Step::Stopped;
        stopped && (!self.is_done() || from + 1 == self.path.places.len())
    }

    fn kill_behind_each(&mut self, operation: &mut impl Operation) {
        for target in self.path.targets.clone() {
            let victim = self.victim_at(operation, target);
            alarm(PATIENCE_SECONDS, target as u64);
            victim.kill();
            self.tally.kills += 1;
            self.settle(operation, "killed", target as u64);
        }
    }

    fn stop_behind_each(&mut self, operation: &mut impl Operation) {
        for target in self.path.targets.clone() {
            let victim = self.victim_at(operation, target);
            self.work_beside(operation, target as u64);
            let status = victim.finish();
            assert!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "stopped behind instruction {target}, it ended with {status:?}"
            );
            self.tally.stops += 1;
            self.settle(operation, "stopped", target as u64);
        }
    }

    fn disturb_behind_each(&mut self, operation: &mut impl Operation) {
        let mut victim = self.start(operation);
        let most = self.tally.instructions + (self.tally.instructions * RETRIES).min(RETRIES_MAX);
        let is_target: HashSet<u64> = self.path.targets.iter().map(|&target| target as u64).collect();
        let mut at = 0;
        while !self.is_done() && at < most {
            if at > self.tally.instructions || is_target.contains(&at) {
                self.work_beside(operation, at);
                self.tally.disturbances += 1;
            }
            self.step(&mut victim, at);
            at += 1;
        }
        let status = victim.finish();
        assert!(
            matches!(status, WaitStatus::Exited(_, 0)),
            "disturbed behind each instruction, it ended with {status:?}"
        );
        self.settle(operation, "disturbed", at);
    }

    fn work_beside(&mut self, operation: &mut impl Operation, at: u64) {
        alarm(PATIENCE_SECONDS, at);
        let since = Instant::now();
        self.world.work();
        operation.beside(self.world);
        self.tally.slowest = self.tally.slowest.max(since.elapsed());
    }

    /// The victim is dead: sweeps and checks everything.
    fn settle(&mut self, operation: &mut impl Operation, how: &str, at: u64) {
        let _context = Context { how, at };
        alarm(PATIENCE_SECONDS, at);
        operation.before_sweep(self.world);
        self.world.bury();
        self.world.store.check_invariants();
        operation.after(self.world);
        operation.clean(self.world);
        self.world.check_calm();
        self.world.work();
        self.world.check_calm();
    }
}

/// Says where the victim stood when a check fails.
struct Context<'a> {
    how: &'a str,
    at: u64,
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the victim had been {} behind instruction {}", self.how, self.at);
        }
    }
}
