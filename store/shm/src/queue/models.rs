//! Loom explores the queue: every interleaving, every reordering the memory model allows.
//!
//! The one thing to know: the functions called here are the ones that ship. A process that ends
//! does so before its write number `n` ([`ends_after`]), and each such model is run for every `n`
//! that any interleaving reaches; one that is stopped is one that ends and is never swept. Loom
//! itself fails a model in which somebody sleeps for ever: a lost wake-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::*;
use crate::modelled::{ends_after, limit_writes};

const DEAD: u16 = 9;

/// Explores every interleaving with at most `preemptions` switches away from a thread that could
/// go on; `None` has no limit.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        model();
    });
    eprintln!("{} executions", executions.load(Relaxed));
}

/// Explores a model once for each write before which its process can end. The model says whether
/// the process got there.
fn explore_ends(preemptions: Option<usize>, model: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let model = Arc::new(model);
    for writes in 0.. {
        let reached = Arc::new(AtomicBool::new(false));
        let (model, seen) = (Arc::clone(&model), Arc::clone(&reached));
        explore(preemptions, move || {
            if model(writes) {
                seen.store(true, Relaxed);
            }
        });
        if !reached.load(Relaxed) {
            assert!(writes > 0, "the model makes no write");
            return;
        }
    }
}

/// What the record at a position carries.
fn payload(position: u64) -> Payload {
    [100 + position]
}

fn submit(submitter: &mut Submitter) {
    let next = submitter.next().number();
    submitter.try_submit(&payload(next)).expect("there is room");
}

/// Claims and finishes one record, if there is one; where it was submitted, by what it says.
fn work(claimer: &mut Claimer) -> Option<u64> {
    let claimed = claimer.claim().expect("nothing is broken")?;
    let number = claimed.payload[0] - 100;
    claimer.finish(claimed).expect("nobody takes from the living");
    Some(number)
}

/// As a worker does: until it has one.
fn wait_and_work(claimer: &mut Claimer) -> u64 {
    let queue = claimer.queue().clone();
    loop {
        if let Some(number) = work(claimer) {
            return number;
        }
        let announced = queue.bell().announce();
        if let Some(number) = work(claimer) {
            return number;
        }
        let _ = announced.sleep(None);
    }
}

fn all_that_is_left(queue: &Queue) -> Vec<u64> {
    let mut claimer = Claimer::new(queue, 8);
    std::iter::from_fn(|| work(&mut claimer)).collect()
}

/// Each of the first so many records was worked on once.
fn assert_each_once(mut numbers: Vec<u64>, count: u64) {
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "Q2: each record once");
}

fn sweep(queue: &Queue) {
    for entry in queue.claimed_by(DEAD).collect::<Vec<_>>() {
        assert!(queue.requeue(entry.word.position, DEAD), "nobody else sweeps");
    }
    queue.mend().expect("nothing is broken");
}

#[test]
fn each_record_is_claimed_once_and_whole() {
    explore(Some(2), || {
        let queue = Queue::for_model(2);
        let mut submitter = Submitter::new(&queue).unwrap();
        let claimers = [1, 2].map(|me| {
            let queue = queue.clone();
            loom::thread::spawn(move || {
                let mut claimer = Claimer::new(&queue, me);
                [work(&mut claimer), work(&mut claimer)]
            })
        });
        submit(&mut submitter);
        submit(&mut submitter);
        let found = claimers.map(|claimer| claimer.join().unwrap());
        let mut numbers: Vec<u64> = found.into_iter().flatten().flatten().collect();
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, 2);
    });
}

#[test]
fn a_slot_is_filled_anew_only_when_its_claimer_is_through() {
    explore(Some(3), || {
        let queue = Queue::for_model(1);
        let mut submitter = Submitter::new(&queue).unwrap();
        submit(&mut submitter);
        let beside = queue.clone();
        let claimer = loom::thread::spawn(move || {
            let mut claimer = Claimer::new(&beside, 1);
            [work(&mut claimer), work(&mut claimer)]
        });
        let mut reaped = Vec::new();
        submitter.reap(|position, _| reaped.push(position.number())).unwrap();
        let mut count = 1;
        if submitter.in_flight() == 0 {
            submitter.try_submit(&payload(count)).unwrap();
            count += 1;
        }
        let mut numbers: Vec<u64> = claimer.join().unwrap().into_iter().flatten().collect();
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, count);
        submitter.reap(|position, _| reaped.push(position.number())).unwrap();
        assert!(reaped.len() as u64 == count && reaped[0] == 0, "{reaped:?}");
    });
}

#[test]
fn a_cancel_and_a_claim_never_both_win() {
    explore(Some(3), || {
        let queue = Queue::for_model(2);
        let mut submitter = Submitter::new(&queue).unwrap();
        let position = submitter.try_submit(&payload(0)).unwrap();
        submit(&mut submitter);
        let beside = queue.clone();
        let claimer = loom::thread::spawn(move || work(&mut Claimer::new(&beside, 1)));
        let is_cancelled = queue.cancel(position) == Cancel::Cancelled;
        let mut numbers: Vec<u64> = claimer.join().unwrap().into_iter().collect();
        numbers.extend(all_that_is_left(&queue));
        numbers.extend(is_cancelled.then_some(0));
        assert_each_once(numbers, 2);
        let mut outcomes = Vec::new();
        submitter.reap(|_, outcome| outcomes.push(outcome)).unwrap();
        assert_eq!(outcomes[0] == Outcome::Cancelled, is_cancelled);
        assert_eq!(outcomes.len(), 2);
    });
}

/// The dead one had claimed record 0; record 1 is queued.
fn with_a_dead_claimer() -> Queue {
    let queue = Queue::for_model(2);
    let mut submitter = Submitter::new(&queue).unwrap();
    submit(&mut submitter);
    submit(&mut submitter);
    let _ = Claimer::new(&queue, DEAD).claim().unwrap().expect("one is queued");
    queue
}

#[test]
fn a_requeue_behind_a_slow_claimer_is_not_skipped() {
    explore(Some(3), || {
        let queue = with_a_dead_claimer();
        let beside = queue.clone();
        let claimer = loom::thread::spawn(move || {
            let mut claimer = Claimer::new(&beside, 1);
            [work(&mut claimer), work(&mut claimer)]
        });
        assert!(queue.requeue(Position::from_number(0), DEAD));
        let mut numbers: Vec<u64> = claimer.join().unwrap().into_iter().flatten().collect();
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, 2);
    });
}

#[test]
fn a_requeue_behind_two_slow_claimers_is_not_skipped() {
    explore(Some(3), || {
        let queue = with_a_dead_claimer();
        let claimers = [1, 2].map(|me| {
            let queue = queue.clone();
            loom::thread::spawn(move || work(&mut Claimer::new(&queue, me)))
        });
        assert!(queue.requeue(Position::from_number(0), DEAD));
        let mut numbers: Vec<u64> = claimers.into_iter().filter_map(|claimer| claimer.join().unwrap()).collect();
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, 2);
    });
}

#[test]
fn a_claimer_that_looked_before_a_requeue_looks_again() {
    explore(Some(3), || {
        let queue = with_a_dead_claimer();
        let beside = queue.clone();
        let mut claimer = Claimer::new(&queue, 1);
        assert_eq!(work(&mut claimer), Some(1));
        assert_eq!(work(&mut claimer), None);
        let sweeper = loom::thread::spawn(move || sweep(&beside));
        let number = wait_and_work(&mut claimer);
        assert_eq!(number, 0);
        sweeper.join().unwrap();
    });
}

#[test]
fn a_sweeper_that_is_killed_leaves_nothing_behind() {
    explore_ends(Some(2), |writes| {
        let queue = with_a_dead_claimer();
        let beside = queue.clone();
        let claimer = loom::thread::spawn(move || {
            let mut claimer = Claimer::new(&beside, 1);
            [work(&mut claimer), work(&mut claimer)]
        });
        let ended = ends_after(writes, || sweep(&queue));
        let mut numbers: Vec<u64> = claimer.join().unwrap().into_iter().flatten().collect();
        sweep(&queue);
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, 2);
        ended
    });
}

#[test]
fn a_claimer_that_is_killed_loses_nothing() {
    explore_ends(Some(2), |writes| {
        let queue = Queue::for_model(2);
        let mut submitter = Submitter::new(&queue).unwrap();
        submit(&mut submitter);
        submit(&mut submitter);
        let beside = queue.clone();
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let victim = loom::thread::spawn(move || {
            let mut claimer = Claimer::new(&beside, DEAD);
            let ended = ends_after(writes, || {
                while work(&mut claimer).is_some() {
                    count.fetch_add(1, Relaxed);
                }
            });
            if ended {
                sweep(&beside);
            }
            ended
        });
        let mut claimer = Claimer::new(&queue, 1);
        let found = [work(&mut claimer), work(&mut claimer)].into_iter().flatten().count();
        let ended = victim.join().unwrap();
        let rest = all_that_is_left(&queue).len();
        let mut reaped = Vec::new();
        submitter.reap(|position, _| reaped.push(position.number())).unwrap();
        assert_eq!(reaped, [0, 1], "every record is finished");
        assert_eq!(found + rest + done.load(Relaxed) as usize, 2, "Q2: each once");
        ended
    });
}

#[test]
fn a_submitter_that_is_killed_leaves_a_whole_record_or_none() {
    explore_ends(Some(3), |writes| {
        let queue = Queue::for_model(2);
        let beside = queue.clone();
        let owner = loom::thread::spawn(move || {
            ends_after(writes, || {
                let mut submitter = Submitter::new(&beside).unwrap();
                submit(&mut submitter);
                submit(&mut submitter);
            })
        });
        let mut claimer = Claimer::new(&queue, 1);
        let mut numbers: Vec<u64> = work(&mut claimer).into_iter().collect();
        let ended = owner.join().unwrap();
        numbers.extend(all_that_is_left(&queue));
        let count = numbers.len() as u64;
        assert_each_once(numbers, count);
        let successor = Submitter::new(&queue).unwrap();
        assert_eq!(successor.in_flight(), count, "the successor knows what was submitted");
        ended
    });
}

#[test]
fn no_wake_up_is_lost() {
    for stale in [0, 1] {
        explore(Some(3), move || {
            let queue = Queue::for_model(2);
            if stale > 0 {
                // Somebody was killed in its sleep.
                std::mem::forget(queue.bell().announce());
            }
            let beside = queue.clone();
            let worker = loom::thread::spawn(move || wait_and_work(&mut Claimer::new(&beside, 1)));
            submit(&mut Submitter::new(&queue).unwrap());
            assert_eq!(worker.join().unwrap(), 0);
        });
    }
}

#[test]
fn two_sleepers_are_woken_for_two_records() {
    explore(Some(2), || {
        let queue = Queue::for_model(2);
        let workers = [1, 2].map(|me| {
            let queue = queue.clone();
            loom::thread::spawn(move || wait_and_work(&mut Claimer::new(&queue, me)))
        });
        let mut submitter = Submitter::new(&queue).unwrap();
        submit(&mut submitter);
        submit(&mut submitter);
        assert_each_once(workers.into_iter().map(|worker| worker.join().unwrap()).collect(), 2);
    });
}

#[test]
fn an_owner_that_is_killed_while_it_rings_spoils_no_other_ring() {
    explore_ends(Some(2), |writes| {
        let one = Queue::for_model(1);
        let other = Queue::for_model_beside(1, one.bells.clone());
        let beside = other.clone();
        // Works for the other queue alone, so that the first owner's ring is for nothing.
        let worker = loom::thread::spawn(move || wait_and_work(&mut Claimer::new(&beside, 1)));
        let victim = loom::thread::spawn(move || ends_after(writes, || submit(&mut Submitter::new(&one).unwrap())));
        submit(&mut Submitter::new(&other).unwrap());
        assert_eq!(worker.join().unwrap(), 0);
        victim.join().unwrap()
    });
}

/// Works on the one record there is or sees that it is done; who did it tells everybody.
fn work_until_done(queue: &Queue, me: u16, ends_from_here: impl Fn()) {
    let mut claimer = Claimer::new(queue, me);
    let mut is_over = || {
        let is_ours = work(&mut claimer).is_some();
        if is_ours {
            queue.bell().wake_all();
        }
        is_ours || matches!(queue.place(Position::from_number(0)), Ok(Place::Here(word)) if word.is_finished())
    };
    loop {
        let announced = queue.bell().announce();
        if is_over() {
            return;
        }
        let _ = announced.sleep(None);
        ends_from_here();
    }
}

#[test]
fn a_woken_claimer_that_is_killed_is_made_up_for() {
    explore_ends(Some(1), |writes| {
        let queue = Queue::for_model(1);
        let (beside, beneath) = (queue.clone(), queue.clone());
        let worker = loom::thread::spawn(move || work_until_done(&beside, 1, || {}));
        let victim = loom::thread::spawn(move || {
            // Woken, and only then, it is killed.
            let ended = ends_after(u32::MAX - 1, || work_until_done(&beneath, DEAD, || limit_writes(writes)));
            if ended {
                sweep(&beneath);
                // It may have died between finishing and telling: that is not the queue's to know.
                beneath.bell().wake_all();
            }
            ended
        });
        submit(&mut Submitter::new(&queue).unwrap());
        worker.join().unwrap();
        victim.join().unwrap()
    });
}

/// A full ring of one record, which claimer 1 has.
fn full_ring() -> (Queue, Submitter, Claimer, Claimed) {
    let queue = Queue::for_model(1);
    let mut submitter = Submitter::new(&queue).unwrap();
    submit(&mut submitter);
    let mut claimer = Claimer::new(&queue, DEAD);
    let claimed = claimer.claim().unwrap().expect("one is queued");
    (queue, submitter, claimer, claimed)
}

fn reap_all(submitter: &mut Submitter) -> Vec<(u64, Outcome)> {
    let mut reaped = Vec::new();
    submitter.reap(|position, outcome| reaped.push((position.number(), outcome))).unwrap();
    reaped
}

#[test]
fn a_record_that_moves_on_is_finished_once() {
    explore(Some(3), || {
        let (_, mut submitter, claimer, claimed) = full_ring();
        let worker = loom::thread::spawn(move || claimer.finish(claimed).expect("it is ours"));
        let mut reaped = reap_all(&mut submitter);
        worker.join().unwrap();
        reaped.extend(reap_all(&mut submitter));
        assert_eq!(reaped, [(0, Outcome::Done { claimer: DEAD, attempt: 0 })], "Q4");
    });
}

#[test]
fn a_record_that_moves_on_is_requeued_once() {
    explore(Some(2), || {
        let (queue, mut submitter, _, _) = full_ring();
        let beside = queue.clone();
        let sweeper = loom::thread::spawn(move || sweep(&beside));
        let mut claimer = Claimer::new(&queue, 1);
        let reaped = reap_all(&mut submitter);
        let mut numbers: Vec<u64> = work(&mut claimer).into_iter().collect();
        sweeper.join().unwrap();
        numbers.extend(all_that_is_left(&queue));
        assert_each_once(numbers, 1);
        assert!(reaped.is_empty());
        let reaped = reap_all(&mut submitter);
        assert!(matches!(reaped[..], [(0, Outcome::Done { attempt: 1, .. })]), "Q4: {reaped:?}");
    });
}
