//! Submitting, claiming and sweeping records of a queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use store_shm::queue::{Claimer, Outcome, PAYLOAD_WORDS, Payload, Queue, Submitter};
use store_shm::segment::{Memfd, page_bytes};
use store_shm::{SharedArray, SharedMap};
use tests::alone;
use tests::stepping::{Operation, Plan, drive};
use tests::world::World;

const MIB: u64 = 1 << 20;
const RECORDS: u64 = 4;
const VICTIM: u16 = 9;
const DEAD: u16 = 10;
const SURVIVOR: u16 = 1;

fn make_queue() -> Queue {
    let page = page_bytes();
    let bytes = page + Queue::bytes(RECORDS).expect("four is a power of two");
    let memfd = Memfd::create("queue", bytes.next_multiple_of(page)).expect("a test maps a few pages");
    let map = Arc::new(SharedMap::map(&memfd).expect("a test maps a few pages"));
    let bells = SharedArray::new(&map, 0, 1).expect("the first page is theirs");
    Queue::format(&map, page, RECORDS, &bells, 0, 0).expect("the rest is its")
}

fn payload(number: u64) -> Payload {
    std::array::from_fn(|index| number * PAYLOAD_WORDS as u64 + index as u64)
}

/// Claims and finishes what is queued; the survivors' whole work.
fn drain(queue: &Queue) -> u64 {
    let mut claimer = Claimer::new(queue, SURVIVOR);
    let mut count = 0;
    while let Some(claimed) = claimer.claim().expect("nothing is broken") {
        assert_eq!(claimed.payload, payload(claimed.payload[0] / PAYLOAD_WORDS as u64), "a record is not whole");
        claimer.finish(claimed).expect("nobody takes from the living");
        count += 1;
    }
    count
}

fn sweep(queue: &Queue, dead: u16) -> usize {
    let entries: Vec<_> = queue.claimed_by(dead).collect();
    let swept = entries.iter().filter(|entry| queue.requeue(entry.word.position, dead)).count();
    queue.mend().expect("nothing is broken");
    swept
}

/// The owner submits one record and reaps.
struct Submit {
    queue: Queue,
    submitter: Option<Submitter>,
}

impl Operation for Submit {
    fn prepare(&mut self, _: &World) {
        // Somebody that seems to sleep, so that ringing goes the long way.
        std::mem::forget(self.queue.bell().announce());
    }

    fn warm(&mut self, _: &World) {
        self.submitter = Some(Submitter::new(&self.queue).expect("nothing is broken"));
    }

    fn run(&mut self, _: &World) {
        let submitter = self.submitter.as_mut().expect("it is warm");
        submitter.try_submit(&payload(77)).expect("there is room");
        submitter.reap(|_, _| {}).expect("nothing is broken");
    }

    fn beside(&mut self, _: &World) {
        drain(&self.queue);
        assert!(!self.queue.has_queued().expect("nothing is broken"));
    }

    fn after(&mut self, _: &World) {
        let mut successor = Submitter::new(&self.queue).expect("nothing is broken");
        let left = drain(&self.queue);
        let reaped = successor.reap(|_, outcome| assert!(matches!(outcome, Outcome::Done { attempt: 0, .. })));
        assert!(left <= 1 && reaped.expect("nothing is broken") <= 1, "one record was submitted, or none");
        assert_eq!(successor.in_flight(), 0, "every record is reaped");
    }
}

/// An owner that lives, and the books it keeps.
struct Owner {
    submitter: Submitter,
    /// Submitted and not reaped.
    open: BTreeSet<u64>,
    submitted: u64,
}

impl Owner {
    fn new(queue: &Queue) -> Owner {
        let submitter = Submitter::new(queue).expect("nothing is broken");
        Owner { submitter, open: BTreeSet::new(), submitted: 0 }
    }

    fn submit(&mut self) {
        self.submitted += 1;
        let position = self.submitter.try_submit(&payload(self.submitted)).expect("there is room");
        assert!(self.open.insert(position.number()), "one position twice");
    }

    fn reap(&mut self) {
        let open = &mut self.open;
        let reaped = self.submitter.reap(|position, _| assert!(open.remove(&position.number()), "reaped twice"));
        reaped.expect("nothing is broken");
    }

    /// Whatever one stopped client has, everything else goes through.
    fn work(&mut self) {
        for _ in 0..RECORDS {
            self.submit();
            drain(self.submitter.queue());
            self.reap();
        }
        let left = self.submitter.in_flight();
        assert!(left <= RECORDS, "{left} records are left");
    }

    fn finish(&mut self) {
        drain(self.submitter.queue());
        self.reap();
        assert!(self.open.is_empty(), "these never ended: {:?}", self.open);
    }
}

/// A claimer announces itself, claims, passes on, finishes.
struct Claim {
    owner: Owner,
}

impl Operation for Claim {
    fn prepare(&mut self, _: &World) {
        self.owner.submit();
        self.owner.submit();
    }

    fn warm(&mut self, _: &World) {}

    fn run(&mut self, _: &World) {
        let queue = self.owner.submitter.queue();
        let mut claimer = Claimer::new(queue, VICTIM);
        let announced = queue.bell().announce();
        let claimed = claimer.claim().expect("nothing is broken");
        drop(announced);
        if let Some(claimed) = claimed {
            claimer.pass_on().expect("nothing is broken");
            claimer.finish(claimed).expect("nobody takes from the living");
        }
    }

    fn beside(&mut self, _: &World) {
        drain(self.owner.submitter.queue());
        self.owner.reap();
        self.owner.work();
        assert!(self.owner.submitter.queue().claimed_by(VICTIM).count() <= 1, "it claims one");
    }

    fn after(&mut self, _: &World) {
        assert!(sweep(self.owner.submitter.queue(), VICTIM) <= 1, "it claims one");
        self.owner.finish();
        self.owner.work();
        assert!(self.owner.open.is_empty(), "nobody stands in the way any more");
    }
}

/// A sweeper gives back what another had.
struct Sweep {
    owner: Owner,
}

impl Operation for Sweep {
    fn prepare(&mut self, _: &World) {
        std::mem::forget(self.owner.submitter.queue().bell().announce());
        let mut dead = Claimer::new(self.owner.submitter.queue(), DEAD);
        for _ in 0..2 {
            self.owner.submit();
            let _ = dead.claim().expect("nothing is broken").expect("one is queued");
        }
    }

    fn warm(&mut self, _: &World) {}

    fn run(&mut self, _: &World) {
        sweep(self.owner.submitter.queue(), DEAD);
    }

    fn beside(&mut self, _: &World) {
        drain(self.owner.submitter.queue());
        self.owner.reap();
        self.owner.work();
    }

    fn after(&mut self, _: &World) {
        // Whoever comes after a dead sweeper sweeps for the dead client again.
        sweep(self.owner.submitter.queue(), DEAD);
        self.owner.finish();
    }
}

alone!(queue_submit {
    drive("queue submit", World::new(MIB), Submit { queue: make_queue(), submitter: None }, Plan::EVERY);
});

alone!(queue_claim {
    drive("queue claim", World::new(MIB), Claim { owner: Owner::new(&make_queue()) }, Plan::EVERY);
});

alone!(queue_sweep {
    drive("queue sweep", World::new(MIB), Sweep { owner: Owner::new(&make_queue()) }, Plan::ONCE);
});
