//! Stopping and killing one operation behind every machine instruction.
//!
//! The one thing to know: three drives of the same operation. *Kill*: for every instruction a fresh
//! victim runs that far and is killed; survivors sweep and check. *Stop*: for every instruction a
//! fresh victim runs that far and stands still while survivors work beside it; then it goes on to
//! its end. *Disturb*: one victim, survivors work beside it behind each of its instructions.
//! It must not know any operation.

use crate::process::{Step, Victim, alarm};
use crate::shared::SharedWords;
use crate::world::World;
use nix::sys::wait::WaitStatus;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long survivors may take beside one stopped victim before they count as hanging.
const PATIENCE_SECONDS: u32 = 20;
/// A victim that is disturbed behind each instruction may retry this often before it is left alone.
const RETRIES: u64 = 10;

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
    /// In the test, when the victim is dead and swept: what must be the case.
    fn after(&mut self, _world: &World) {}
    /// In the test: lets go of what it has.
    fn clean(&mut self, _world: &World) {}
}

/// Behind which instructions an operation is interrupted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Each of this program's own: 1. Each third: 3.
    pub stride: u64,
    /// Of those in libraries, which touch no shared word.
    pub library_stride: u64,
}

impl Plan {
    /// Every instruction.
    pub const EVERY: Plan = Plan { stride: 1, library_stride: 1 };
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
    /// Steps in all.
    pub steps: u64,
    /// The slowest a survivor was beside a stopped victim.
    pub slowest: Duration,
}

/// Drives an operation in every way, and prints what was done.
pub fn drive(name: &str, world: World, mut operation: impl Operation, plan: Plan) {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut stepper = Stepper { world: &world, done: SharedWords::new(1), plan, tally: &mut tally };
    stepper.kill_behind_each(&mut operation);
    stepper.stop_behind_each(&mut operation);
    stepper.disturb_behind_each(&mut operation);
    drop(stepper);
    alarm(PATIENCE_SECONDS, 0);
    drop(operation);
    world.finish();
    alarm(0, 0);
    eprintln!(
        "{name}: {} instructions, {} kills, {} stops, {} disturbances, slowest survivor {:?}, {} steps in {:.1?}",
        tally.instructions, tally.kills, tally.stops, tally.disturbances, tally.slowest, tally.steps, started.elapsed()
    );
}

struct Stepper<'a> {
    world: &'a World,
    /// Set by a victim when it has done its operation.
    done: SharedWords,
    plan: Plan,
    tally: &'a mut Tally,
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

    /// Steps until the victim stands behind the first place from `target` on that the plan names;
    /// `None` when it was done before.
    fn step_to(&mut self, victim: &mut Victim, target: u64) -> Option<u64> {
        let mut at = 0;
        while !self.is_done() {
            if at >= target && (at.is_multiple_of(self.plan.library_stride) || victim.is_in_program()) {
                return Some(at);
            }
            self.step(victim, at);
            at += 1;
        }
        self.tally.instructions = self.tally.instructions.max(at);
        None
    }

    fn step(&mut self, victim: &mut Victim, at: u64) {
        self.tally.steps += 1;
        if let Step::Ended(status) = victim.step() {
            panic!("the victim ended by itself behind instruction {at}: {status:?}");
        }
    }

    fn kill_behind_each(&mut self, operation: &mut impl Operation) {
        let mut target = 0;
        loop {
            let mut victim = self.start(operation);
            let at = self.step_to(&mut victim, target);
            alarm(PATIENCE_SECONDS, at.unwrap_or(target));
            victim.kill();
            self.tally.kills += 1;
            self.settle(operation, "killed", at.unwrap_or(target));
            let Some(at) = at else { return };
            target = at + self.plan.stride;
        }
    }

    fn stop_behind_each(&mut self, operation: &mut impl Operation) {
        let mut target = 0;
        loop {
            let mut victim = self.start(operation);
            let at = self.step_to(&mut victim, target);
            self.work_beside(operation, at.unwrap_or(target));
            let status = victim.finish();
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "stopped behind instruction {at:?}, it ended with {status:?}");
            self.tally.stops += 1;
            self.settle(operation, "stopped", at.unwrap_or(target));
            let Some(at) = at else { return };
            target = at + self.plan.stride;
        }
    }

    fn disturb_behind_each(&mut self, operation: &mut impl Operation) {
        let mut victim = self.start(operation);
        let most = self.tally.instructions * RETRIES;
        let mut at = 0;
        while !self.is_done() && at < most {
            self.work_beside(operation, at);
            self.tally.disturbances += 1;
            self.step(&mut victim, at);
            at += 1;
        }
        let status = victim.finish();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "disturbed behind each instruction, it ended with {status:?}");
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
        self.world.store.reclaim();
        assert_eq!(self.world.store.unswept_clients(), 0, "R1: a dead client is left");
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
