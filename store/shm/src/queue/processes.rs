//! One owner, three claimers that are processes, killed and stopped at random: nothing is lost,
//! nothing is done twice.
//!
//! The one thing to know: a claimer notes each claim before it finishes it, so a task may have been
//! begun once more than it was requeued, never less and never more. It must not use a claimer's
//! number for a new process before the old one is swept.

use std::collections::HashMap;
use std::hint::spin_loop;
use std::sync::atomic::AtomicU32;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::tests::payload;
use super::*;
use crate::segment::{Memfd, page_bytes};
use crate::testing::{fork_child, reap};

const TASKS: u64 = 200_000;
const CLAIMERS: usize = 3;
const RECORDS: u64 = 256;
/// Submitted tasks between two strokes of fate, on average.
const CALM: u64 = 500;
/// Fruitless looks before the owner nudges, as whoever waits does after a while.
const PATIENCE: u32 = 200;

/// Each so manieth task takes longer, so that claimers die in the middle of some.
const LONG_EVERY: u64 = 16;
const LONG_SPINS: u32 = 2_000;

/// What the processes share beside the queue.
struct Shared {
    queue: Queue,
    /// How often each task was begun.
    begun: SharedArray<AtomicU32>,
    is_over: SharedArray<AtomicU32>,
}

fn shared() -> Shared {
    let page = page_bytes();
    let begun_bytes = (TASKS * 4).next_multiple_of(page);
    let memfd = Memfd::create("test", 2 * page + begun_bytes + Queue::bytes(RECORDS).unwrap()).unwrap();
    let map = Arc::new(SharedMap::map(&memfd).unwrap());
    let bells = SharedArray::new(&map, 0, 2).unwrap();
    let queue = Queue::format(&map, 2 * page + begun_bytes, RECORDS, &bells, 0, 1).unwrap();
    let begun = SharedArray::new(&map, 2 * page, TASKS).unwrap();
    Shared { queue, begun, is_over: SharedArray::new(&map, page, 1).unwrap() }
}

fn claim_until_over(shared: &Shared, me: u16) -> i32 {
    let mut claimer = Claimer::new(&shared.queue, me);
    let mut has_slept = false;
    while shared.is_over[0].load(Ordering::SeqCst) == 0 {
        if work(shared, &mut claimer, has_slept) {
            has_slept = false;
            continue;
        }
        let announced = shared.queue.bell().announce();
        let has_news = work(shared, &mut claimer, false) || shared.is_over[0].load(Ordering::SeqCst) > 0;
        if !has_news {
            let _ = announced.sleep(None);
            has_slept = true;
        }
    }
    0
}

fn work(shared: &Shared, claimer: &mut Claimer, has_slept: bool) -> bool {
    let Some(claimed) = claimer.claim().expect("nothing is broken") else { return false };
    if has_slept {
        claimer.pass_on().expect("nothing is broken");
    }
    let number = claimed.payload[0] >> 8;
    assert_eq!(claimed.payload, payload(number), "a record is whole");
    shared.begun[number as usize].fetch_add(1, Ordering::SeqCst);
    if number % LONG_EVERY == 0 {
        (0..LONG_SPINS).for_each(|_| spin_loop());
    }
    claimer.finish(claimed).expect("nobody takes from the living");
    true
}

/// The owner, and what it knows of the claimers.
struct Run<'a> {
    shared: &'a Shared,
    submitter: Submitter,
    claimers: [(Pid, bool); CLAIMERS],
    requeued: Vec<u32>,
    kills: u32,
    stops: u32,
    random: u64,
    /// By position, which task was submitted there; taken out when it is reaped.
    tasks: HashMap<u64, u64>,
    /// How many are reaped.
    done: u64,
}

impl Run<'_> {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn submit_all(&mut self) {
        let mut fruitless = 0;
        let mut next = 0;
        while self.done < TASKS {
            if next < TASKS && self.submit(next) {
                next += 1;
                continue;
            }
            fruitless = if self.reap() > 0 { 0 } else { fruitless + 1 };
            if fruitless == PATIENCE {
                fruitless = 0;
                self.shared.queue.nudge().expect("nothing is broken");
                self.let_go_on();
            }
            thread::yield_now();
        }
    }

    fn submit(&mut self, number: u64) -> bool {
        let Ok(position) = self.submitter.try_submit(&payload(number)) else { return false };
        self.tasks.insert(position.number(), number);
        if self.random(CALM) == 0 {
            self.strike();
        }
        true
    }

    /// Once nothing goes on any more but what the stopped have.
    fn let_go_on(&mut self) {
        if self.submitter.in_flight() <= CLAIMERS as u64 {
            (0..CLAIMERS).for_each(|index| self.continue_(index));
        }
    }

    fn reap(&mut self) -> u64 {
        let (tasks, requeued) = (&mut self.tasks, &self.requeued);
        let count = self.submitter.reap(|position, outcome| {
            let task = tasks.remove(&position.number()).expect("each position is reaped once");
            let Outcome::Done { attempt, .. } = outcome else { panic!("nobody cancelled task {task}") };
            let expected = requeued[task as usize].min(u32::from(ATTEMPT_MAX));
            assert_eq!(u32::from(attempt), expected, "task {task}: attempts are the claimers that died of it");
        });
        let count = count.expect("nothing is broken");
        self.done += count;
        count
    }

    fn strike(&mut self) {
        let index = self.random(CLAIMERS as u64) as usize;
        match self.random(3) {
            0 => self.replace(index),
            1 if self.claimers.iter().filter(|(_, is_stopped)| *is_stopped).count() < CLAIMERS - 1 => {
                kill(self.claimers[index].0, Signal::SIGSTOP).expect("it runs");
                self.stops += u32::from(!self.claimers[index].1);
                self.claimers[index].1 = true;
            }
            _ => self.continue_(index),
        }
    }

    fn continue_(&mut self, index: usize) {
        kill(self.claimers[index].0, Signal::SIGCONT).expect("it runs");
        self.claimers[index].1 = false;
    }

    /// For a while: an idle claimer's death says little.
    fn wait_for_a_claim(&self, claimer: u16) {
        for _ in 0..PATIENCE {
            if self.shared.queue.claimed_by(claimer).next().is_some() {
                return;
            }
            thread::yield_now();
        }
    }

    /// Kills a claimer, sweeps, and starts another with its number.
    fn replace(&mut self, index: usize) {
        let (pid, _) = self.claimers[index];
        self.wait_for_a_claim(index as u16);
        kill(pid, Signal::SIGKILL).expect("it runs");
        assert!(matches!(reap(pid), WaitStatus::Signaled(_, Signal::SIGKILL, _)), "it was killed");
        self.kills += 1;
        let queue = &self.shared.queue;
        for entry in queue.claimed_by(index as u16).collect::<Vec<_>>() {
            self.requeued[(entry.payload[0] >> 8) as usize] += 1;
            assert!(queue.requeue(entry.word.position, index as u16), "nobody else sweeps");
        }
        queue.mend().expect("nothing is broken");
        self.claimers[index] = (start(self.shared, index), false);
    }
}

fn start(shared: &Shared, index: usize) -> Pid {
    fork_child(|| claim_until_over(shared, index as u16))
}

#[test]
fn every_task_is_done_once_while_claimers_are_killed_and_stopped() {
    let shared = shared();
    let mut run = Run {
        shared: &shared,
        submitter: Submitter::new(&shared.queue).unwrap(),
        claimers: std::array::from_fn(|index| (start(&shared, index), false)),
        requeued: vec![0; TASKS as usize],
        kills: 0,
        stops: 0,
        random: 0x1234_5678_9ABC_DEF1,
        tasks: HashMap::new(),
        done: 0,
    };
    run.submit_all();
    shared.is_over[0].store(1, Ordering::SeqCst);
    (0..CLAIMERS).for_each(|index| run.continue_(index));
    shared.queue.bell().wake_all();
    for (pid, _) in run.claimers {
        assert_eq!(reap(pid), WaitStatus::Exited(pid, 0));
    }
    assert_eq!(run.done, TASKS, "every task is reaped once");
    for (number, requeued) in run.requeued.iter().enumerate() {
        let begun = shared.begun[number].load(Ordering::SeqCst);
        // A claimer that died between its claim and its note was requeued and not noted.
        assert!((1..=requeued + 1).contains(&begun), "task {number}: begun {begun}, requeued {requeued} times");
    }
    let requeues: u32 = run.requeued.iter().sum();
    eprintln!("{TASKS} tasks, {} kills, {} stops, {requeues} requeued", run.kills, run.stops);
}
