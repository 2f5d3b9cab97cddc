//! One queue, one process: every transition, broken words, and the wrap of positions.

use super::word::State;
use super::*;
use crate::segment::{Memfd, page_bytes};

pub(super) const BELLS: u64 = 4;

/// A segment with bells at its start and a queue behind them, all zeros.
pub(super) struct Ground {
    pub(super) map: Arc<SharedMap>,
    pub(super) bells: SharedArray<Bell>,
    pub(super) offset: u64,
}

pub(super) fn ground(records: u64) -> Ground {
    let offset = page_bytes();
    let memfd = Memfd::create("test", offset + Queue::bytes(records).unwrap().next_multiple_of(page_bytes())).unwrap();
    let map = Arc::new(SharedMap::map(&memfd).unwrap());
    let bells = SharedArray::new(&map, 0, BELLS).unwrap();
    Ground { map, bells, offset }
}

pub(super) fn queue(records: u64) -> Queue {
    let ground = ground(records);
    Queue::format(&ground.map, ground.offset, records, &ground.bells, 1, 7).unwrap()
}

pub(super) fn payload(number: u64) -> Payload {
    std::array::from_fn(|index| number << 8 | index as u64)
}

fn claim(claimer: &mut Claimer) -> Option<u64> {
    let claimed = claimer.claim().unwrap()?;
    let number = claimed.payload[0] >> 8;
    assert_eq!(claimed.payload, payload(number));
    claimer.finish(claimed).unwrap();
    Some(number)
}

fn reap(submitter: &mut Submitter) -> Vec<(u64, Outcome)> {
    let mut reaped = Vec::new();
    submitter.reap(|position, outcome| reaped.push((position.number(), outcome))).unwrap();
    reaped
}

fn numbers(reaped: &[(u64, Outcome)]) -> Vec<u64> {
    reaped.iter().map(|(number, _)| *number).collect()
}

fn set_word(queue: &Queue, slot: u64, word: u64) {
    queue.record(Position::from_number(slot)).word.store(word, Ordering::SeqCst);
}

#[test]
fn records_come_out_in_order_through_many_laps() {
    let queue = queue(4);
    let mut submitter = Submitter::new(&queue).unwrap();
    let mut claimer = Claimer::new(&queue, 3);
    for lap in 0..50 {
        for number in 4 * lap..4 * lap + 4 {
            assert_eq!(submitter.try_submit(&payload(number)).unwrap().number(), number);
        }
        assert_eq!(submitter.try_submit(&payload(0)), Err(Full { records: 4 }));
        for number in 4 * lap..4 * lap + 4 {
            assert_eq!(claim(&mut claimer), Some(number));
        }
        assert_eq!(claim(&mut claimer), None);
        assert_eq!(numbers(&reap(&mut submitter)), [4 * lap, 4 * lap + 1, 4 * lap + 2, 4 * lap + 3]);
    }
}

#[test]
fn an_opened_queue_is_the_one_that_was_made() {
    let ground = ground(8);
    let made = Queue::format(&ground.map, ground.offset, 8, &ground.bells, 3, 0xBEEF).unwrap();
    let opened = Queue::open(&ground.map, ground.offset, &ground.bells).unwrap();
    assert_eq!((opened.records(), opened.owner()), (8, 0xBEEF));
    assert!(std::ptr::eq(opened.bell(), made.bell()));
    Submitter::new(&made).unwrap().try_submit(&payload(5)).unwrap();
    assert_eq!(claim(&mut Claimer::new(&opened, 1)), Some(5));
}

#[test]
fn what_is_no_queue_is_refused() {
    let ground = ground(8);
    let open = |offset| Queue::open(&ground.map, offset, &ground.bells).unwrap_err();
    assert_eq!(open(ground.offset), QueueError::NotAQueue { offset: ground.offset, found: 0 });
    assert!(matches!(open(ground.offset + 64), QueueError::Gate(GateError::Misaligned { .. })));
    assert!(matches!(open(u64::MAX - 127), QueueError::Gate(GateError::OutOfBounds { .. })));
    let format = |records, bell| Queue::format(&ground.map, ground.offset, records, &ground.bells, bell, 1);
    for records in [0, 3, RECORDS_MAX * 2] {
        assert_eq!(format(records, 0).unwrap_err(), QueueError::Records { records });
    }
    assert_eq!(format(8, 4).unwrap_err(), QueueError::NoSuchBell { bell: 4, bells: BELLS });
    assert!(matches!(format(RECORDS_MAX, 0).unwrap_err(), QueueError::Gate(GateError::OutOfBounds { .. })));
}

#[test]
fn a_cancelled_record_is_passed_over_and_reaped_as_such() {
    let queue = queue(4);
    let mut submitter = Submitter::new(&queue).unwrap();
    let mut claimer = Claimer::new(&queue, 3);
    let positions: Vec<Position> = (0..3).map(|number| submitter.try_submit(&payload(number)).unwrap()).collect();
    assert_eq!(queue.cancel(positions[1]), Cancel::Cancelled);
    assert_eq!(queue.cancel(positions[1]), Cancel::Finished);
    let first = claimer.claim().unwrap().unwrap();
    assert_eq!(queue.cancel(positions[0]), Cancel::Claimed { claimer: 3 });
    assert_eq!(submitter.withdraw(positions[2]), Cancel::Cancelled);
    assert_eq!(claim(&mut claimer), None);
    claimer.finish(first).unwrap();
    let done = Outcome::Done { claimer: 3, attempt: 0 };
    assert_eq!(reap(&mut submitter), [(0, done), (1, Outcome::Cancelled), (2, Outcome::Cancelled)]);
    assert_eq!(queue.cancel(Position::from_number(3)), Cancel::Gone);
    assert_eq!(queue.cancel(Position::from_number(1 << 39)), Cancel::Gone);
}

#[test]
fn what_the_dead_had_is_requeued_in_front() {
    let queue = queue(8);
    let mut submitter = Submitter::new(&queue).unwrap();
    (0..5).for_each(|number| _ = submitter.try_submit(&payload(number)).unwrap());
    let mut dead = Claimer::new(&queue, 9);
    let mut claimer = Claimer::new(&queue, 3);
    let lost = dead.claim().unwrap().unwrap();
    assert_eq!(claim(&mut claimer), Some(1));
    let _ = dead.claim().unwrap().unwrap();
    let entries: Vec<Entry> = queue.claimed_by(9).collect();
    assert_eq!(entries.iter().map(|entry| entry.payload[0] >> 8).collect::<Vec<_>>(), [0, 2]);
    assert!(queue.requeue(entries[0].word.position, 9));
    assert!(queue.finish_for_dead(entries[1].word.position, 9));
    assert!(!queue.requeue(entries[1].word.position, 9) && !queue.finish_for_dead(entries[0].word.position, 9));
    assert!(claimer.finish(lost).is_err(), "it is queued again");
    assert_eq!(std::iter::from_fn(|| claim(&mut claimer)).collect::<Vec<_>>(), [0, 3, 4]);
    let reaped = reap(&mut submitter);
    assert_eq!(numbers(&reaped), [0, 1, 2, 3, 4]);
    assert_eq!(reaped[0].1, Outcome::Done { claimer: 3, attempt: 1 });
    assert_eq!(reaped[2].1, Outcome::Done { claimer: 9, attempt: 0 });
}

#[test]
fn what_a_dead_owner_left_queued_is_listed() {
    let queue = queue(8);
    let mut submitter = Submitter::new(&queue).unwrap();
    (0..5).for_each(|number| _ = submitter.try_submit(&payload(number)).unwrap());
    assert_eq!(claim(&mut Claimer::new(&queue, 3)), Some(0));
    drop(submitter);
    let queued: Vec<Entry> = queue.queued().collect();
    assert_eq!(queued.iter().map(|entry| entry.payload[0] >> 8).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(queued.iter().all(|entry| queue.cancel(entry.word.position) == Cancel::Cancelled));
    let mut successor = Submitter::new(&queue).unwrap();
    assert_eq!(numbers(&reap(&mut successor)), [0, 1, 2, 3, 4]);
    assert_eq!(successor.try_submit(&payload(6)).unwrap().number(), 5);
    assert_eq!(queue.look(Position::from_number(5)).unwrap().payload, payload(6));
    assert_eq!(queue.look(Position::from_number(4)), None);
    assert_eq!(claim(&mut Claimer::new(&queue, 3)), Some(6));
}

#[test]
fn a_claim_that_takes_laps_delays_itself_alone() {
    let queue = queue(4);
    let mut submitter = Submitter::new(&queue).unwrap();
    let mut slow = Claimer::new(&queue, 9);
    let mut claimer = Claimer::new(&queue, 3);
    submitter.try_submit(&payload(1000)).unwrap();
    let claimed = slow.claim().unwrap().unwrap();
    let mut submitted = 0;
    let mut worked = 0;
    for _ in 0..100 {
        while submitter.try_submit(&payload(submitted)).is_ok() {
            submitted += 1;
        }
        while let Some(number) = claim(&mut claimer) {
            assert_eq!(number, worked);
            worked += 1;
        }
        reap(&mut submitter);
    }
    assert!(worked > 250, "Q4: {worked}");
    slow.finish(claimed).unwrap();
    let reaped = reap(&mut submitter);
    assert!(reaped.contains(&(0, Outcome::Done { claimer: 9, attempt: 0 })), "{reaped:?}");
}

#[test]
fn a_moved_record_of_a_dead_claimer_is_found_and_withdrawn() {
    let queue = queue(2);
    let mut submitter = Submitter::new(&queue).unwrap();
    let first = submitter.try_submit(&payload(7)).unwrap();
    let _ = Claimer::new(&queue, 9).claim().unwrap().unwrap();
    submitter.try_submit(&payload(8)).unwrap();
    assert_eq!(claim(&mut Claimer::new(&queue, 3)), Some(8));
    assert_eq!(numbers(&reap(&mut submitter)), [1]);
    assert_eq!(queue.cancel(first), Cancel::Gone);
    let entries: Vec<Entry> = queue.claimed_by(9).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].payload, payload(7));
    assert!(queue.requeue(entries[0].word.position, 9));
    assert_eq!(submitter.withdraw(first), Cancel::Cancelled);
    assert_eq!(reap(&mut submitter), [(0, Outcome::Cancelled)]);
}

#[test]
fn a_ring_full_of_claims_is_full_and_nothing_hangs() {
    let queue = queue(4);
    let mut submitter = Submitter::new(&queue).unwrap();
    let mut claimer = Claimer::new(&queue, 3);
    (0..4).for_each(|number| _ = submitter.try_submit(&payload(number)).unwrap());
    let claimed: Vec<Claimed> = std::iter::from_fn(|| claimer.claim().unwrap()).collect();
    assert_eq!(reap(&mut submitter), []);
    assert_eq!(submitter.try_submit(&payload(9)), Err(Full { records: 4 }));
    claimed.into_iter().for_each(|claimed| claimer.finish(claimed).unwrap());
    let mut order = numbers(&reap(&mut submitter));
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2, 3], "the positions they were submitted at");
}

#[test]
fn positions_wrap() {
    let queue = queue(4);
    let start = Position::from_number(0).minus(6);
    for offset in 0..4 {
        let word = Snapshot { state: State::Done, ..Snapshot::queued(start.minus(4).plus(offset)) };
        set_word(&queue, word.position.number(), word.pack());
    }
    queue.header().reaped.store(start.number(), Ordering::SeqCst);
    queue.header().cursor.store(start.number() << 24, Ordering::SeqCst);
    let mut submitter = Submitter::new(&queue).unwrap();
    let mut claimer = Claimer::new(&queue, 3);
    for number in 0..40 {
        assert_eq!(submitter.try_submit(&payload(number)).unwrap(), start.plus(number));
        assert_eq!(claim(&mut claimer), Some(number));
        assert_eq!(numbers(&reap(&mut submitter)), [start.plus(number).number()]);
    }
}

#[test]
fn a_late_cursor_jumps_over_laps() {
    let queue = queue(4);
    let mut submitter = Submitter::new(&queue).unwrap();
    for number in 0..1001 {
        let position = submitter.try_submit(&payload(number)).unwrap();
        if number < 1000 {
            assert_eq!(queue.cancel(position), Cancel::Cancelled);
            reap(&mut submitter);
        }
    }
    assert_eq!(queue.cursor().position.number(), 0);
    assert_eq!(claim(&mut Claimer::new(&queue, 3)), Some(1000));
}

#[test]
fn a_cursor_that_a_stray_store_hit_is_mended() {
    for wild in [1, 5, 3 << 20, 1 << 38, (1 << 39) + 1, u64::MAX >> 24] {
        let queue = queue(8);
        let mut submitter = Submitter::new(&queue).unwrap();
        let mut claimer = Claimer::new(&queue, 3);
        submitter.try_submit(&payload(0)).unwrap();
        assert_eq!(claim(&mut claimer), Some(0));
        queue.header().cursor.store(wild << 24 | 77, Ordering::SeqCst);
        for number in 1..30 {
            submitter.try_submit(&payload(number)).unwrap();
            assert_eq!(claim(&mut claimer), Some(number), "cursor {wild}");
            reap(&mut submitter);
        }
    }
}

#[test]
fn an_unknown_word_is_an_error_and_sweeps_go_on() {
    for word in [u64::MAX, 0x0100_000F, 3 << 24 | 1, 1 << 4] {
        let queue = queue(4);
        let mut submitter = Submitter::new(&queue).unwrap();
        (0..3).for_each(|number| _ = submitter.try_submit(&payload(number)).unwrap());
        let _ = Claimer::new(&queue, 9).claim().unwrap();
        set_word(&queue, 1, word);
        let broken = Claimer::new(&queue, 3).claim().unwrap_err();
        assert!(matches!(broken, Broken::Record { slot: 1, word: found, .. } if found == word), "{broken}");
        assert!(Submitter::new(&queue).is_err() && queue.has_queued().is_err());
        assert_eq!(queue.claimed_by(9).count(), 1);
        assert_eq!(queue.queued().count(), 1);
        assert!(queue.requeue(Position::from_number(0), 9));
        let _ = claim(&mut Claimer::new(&queue, 4));
        assert_eq!(numbers(&reap_some(&mut submitter)), [0]);
    }
}

/// As `reap`, of a queue that is broken further on.
fn reap_some(submitter: &mut Submitter) -> Vec<(u64, Outcome)> {
    let mut reaped = Vec::new();
    let outcome = submitter.reap(|position, outcome| reaped.push((position.number(), outcome)));
    assert!(outcome.is_err());
    reaped
}

#[test]
fn any_words_at_all_end_every_call() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let queue = queue_in_plain_memory();
        for slot in 0..4 {
            // Mostly close to what could be: the rest is refused at once.
            let near = Snapshot {
                position: Position::from_number(random() % 16),
                claimer: 9,
                attempt: 0,
                state: State::ALL[random() as usize % 5],
            };
            set_word(queue, slot, if random() % 4 == 0 { random() } else { near.pack() });
        }
        let hint = |number: u64| if number.is_multiple_of(4) { number } else { number % 16 };
        queue.header().reaped.store(hint(random()), Ordering::SeqCst);
        queue.header().cursor.store(hint(random()) << 24, Ordering::SeqCst);
        exercise(queue);
    }
}

/// Made once: words are all that the calls below look at.
fn queue_in_plain_memory() -> &'static Queue {
    static QUEUE: std::sync::OnceLock<Queue> = std::sync::OnceLock::new();
    QUEUE.get_or_init(|| queue(4))
}

fn exercise(queue: &Queue) {
    let mut claimer = Claimer::new(queue, 3);
    let claimed: Vec<Claimed> = (0..8).filter_map(|_| claimer.claim().ok().flatten()).collect();
    let _ = (queue.has_queued(), queue.nudge(), queue.mend());
    for entry in queue.claimed_by(9).collect::<Vec<_>>() {
        let _ = queue.requeue(entry.word.position, 9);
    }
    queue.queued().for_each(|entry| _ = queue.cancel(entry.word.position));
    claimed.into_iter().for_each(|claimed| _ = claimer.finish(claimed));
    if let Ok(mut submitter) = Submitter::new(queue) {
        for number in 0..6 {
            let _ = submitter.try_submit(&payload(number));
            let _ = submitter.reap(|_, _| {});
        }
        let _ = submitter.withdraw(submitter.next().minus(1));
    }
}

#[test]
fn every_state_meets_every_event() {
    // Which word each event leaves of a record that claimer 9 has, where a word names a claimer.
    let expected = |state, event| match (state, event) {
        (State::Queued, "claim") => State::Claimed,
        (State::Queued, "cancel") => State::Cancelled,
        (State::Claimed, "finish for 9") => State::Done,
        (State::Claimed, "requeue of 9") => State::Queued,
        (state, _) => state,
    };
    for state in State::ALL {
        for event in ["claim", "cancel", "finish for 8", "finish for 9", "requeue of 8", "requeue of 9"] {
            let queue = queue(2);
            let position = Position::from_number(0);
            let claimer = if matches!(state, State::Claimed | State::Done) { 9 } else { 0 };
            let word = Snapshot { position, claimer, attempt: 0, state };
            set_word(&queue, 0, word.pack());
            match event {
                "claim" => drop(Claimer::new(&queue, 3).claim().unwrap()),
                "cancel" => _ = queue.cancel(position),
                "finish for 8" => _ = queue.finish_for_dead(position, 8),
                "finish for 9" => _ = queue.finish_for_dead(position, 9),
                "requeue of 8" => _ = queue.requeue(position, 8),
                _ => _ = queue.requeue(position, 9),
            }
            let after = Snapshot::unpack(queue.record(position).word.load(Ordering::SeqCst)).unwrap();
            assert_eq!(after.state, expected(state, event), "{state:?} {event}");
            assert_eq!(after.position, position);
        }
    }
}

#[test]
fn a_sleeper_that_died_costs_one_needless_ring() {
    let queue = queue(8);
    let mut submitter = Submitter::new(&queue).unwrap();
    (0..5).for_each(|_| std::mem::forget(queue.bell().announce()));
    assert_eq!(queue.bell().sleepers(), 5);
    submitter.try_submit(&payload(0)).unwrap();
    assert_eq!(queue.bell().sleepers(), 0, "B1: mended");
    drop(queue.bell().announce());
    assert_eq!(queue.bell().sleepers(), 0);
}

#[test]
fn an_announcement_ends_with_its_time() {
    let queue = queue(8);
    let outcome = queue.bell().announce().sleep(Some(std::time::Duration::from_micros(50)));
    assert_eq!(outcome, crate::futex::WaitOutcome::TimedOut);
    assert_eq!(queue.bell().sleepers(), 0);
}
