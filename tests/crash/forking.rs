//! Forking: the parent, and the child from its first instruction on.
//!
//! The one thing to know: a child has its holds before `fork` returns, so a child that is killed
//! before it ran a single instruction has to be swept as well.

use nix::sys::wait::WaitStatus;
use std::sync::atomic::Ordering;
use tests::alone;
use tests::process::{Child, Step, Victim, alarm, may_trace, stay_on_one_processor};
use tests::shared::SharedWords;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, check_content};

const MIB: u64 = 1 << 20;
const PATIENCE_SECONDS: u32 = 20;
/// Most of a child's first instructions are the C library's, and stepping is quadratic.
const STRIDE: u64 = 97;

/// Forks a child that reads and ends.
struct Fork;

fn read_neighbours(world: &World) -> i32 {
    // A child whose parent was killed before it came so far is nobody: it may read nothing.
    if world.store.client().number == 0 {
        return 0;
    }
    for neighbour in &world.neighbours {
        if let Ok(view) = world.store.view(&neighbour.object) {
            check_content(&neighbour.id, &view);
        }
    }
    0
}

impl Operation for Fork {
    fn run(&mut self, world: &World) {
        Child::fork(|| read_neighbours(world)).succeed();
    }

    fn beside(&mut self, world: &World) {
        read_neighbours(world);
    }
}

/// In a parent whose child was killed: nobody but it and the test may hold the neighbours then.
fn is_child_swept(world: &World) -> bool {
    world.store.reclaim();
    let (me, test) = (world.store.client().number, 1);
    world
        .store
        .list()
        .iter()
        .all(|object| object.holders.iter().all(|holder| holder.client == me || holder.client == test))
}

/// A victim that is going to fork, and its child that stands before its first instruction.
fn parent_and_child(world: &World, done: &SharedWords) -> (Victim, Victim) {
    done[0].store(0, Ordering::SeqCst);
    let body = || {
        let child = Child::fork(|| {
            done[0].store(1, Ordering::SeqCst);
            0
        });
        let _ = child.wait();
        i32::from(!is_child_swept(world))
    };
    let mut parent = Victim::start(|| world.work(), body);
    let child = parent.run_to_fork();
    (parent, child)
}

alone!(fork_a_child {
    drive("fork a child", World::new(4 * MIB), Fork, Plan::ONCE);
});

alone!(a_child_from_its_first_instruction_on {
    if let Err(error) = may_trace() {
        eprintln!("skipped: the kernel lets nobody be traced here: {error}");
        return;
    }
    stay_on_one_processor();
    let (world, done) = (World::new(4 * MIB), SharedWords::new(1));
    let mut kills = 0;
    loop {
        alarm(PATIENCE_SECONDS, kills);
        let (parent, mut child) = parent_and_child(&world, &done);
        let stepped = (0..kills).take_while(|_| done[0].load(Ordering::SeqCst) == 0 && child.step() == Step::Stopped).count();
        child.kill();
        let status = parent.finish();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "a child killed behind instruction {stepped}: its parent ended with {status:?}");
        world.bury();
        world.check_calm();
        kills += STRIDE;
        if done[0].load(Ordering::SeqCst) == 1 {
            break;
        }
    }
    world.finish();
    alarm(0, 0);
    eprintln!("a child from its first instruction on: {} kills", kills / STRIDE);
});
