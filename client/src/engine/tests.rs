//! The engine against a raylet and workers of a few lines, in this process.
//!
//! The one thing to know: the raylet here answers as the protocol says and does nothing unasked: it
//! gives out queues and counts wishes; the test claims records when it wants them claimed. So what
//! waits where is in the test's hand. This file must not sleep.

use super::line::Line;
use super::scope::Scope;
use super::segment::Segment;
use super::spec::{Unpacked, handle};
use super::start::{AsWhat, Listener, share};
use super::{Remote, Shared};
use crate::connection::Joined;
use crate::remote::engine::{Call, Engine};
use crate::remote::{CancelOptions, Raylet, SubmitError};
use crate::task::{Arguments, Body, Function, Options, ResultRefs, Transport};
use raylet_api::frame::{self, Decoder};
use raylet_api::message::Message;
use raylet_api::record::Record;
use raylet_api::work::*;
use raylet_api::{Failure, JobId, TaskErrorKind, TaskId};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;
use store::{CreateOptions, Encoding, GetError, ObjectRef as RawRef, Store};
use store_shm::SharedArray;
use store_shm::map::SharedMap;
use store_shm::queue::{Bell, Claimer, Queue, Service};
use store_shm::segment::{Memfd, page_bytes};

const RECORDS: u64 = 8;
const LONG: Option<Duration> = Some(Duration::from_secs(60));

static FUNCTION: Function = Function {
    key: 7,
    name: "test::function",
    place: ("", 0),
    body: Body::Sync(|_, _, _| Ok(())),
    options: Options::new,
};

/// The raylet's end of everything.
struct Bench {
    ray: Raylet,
    store: Store,
    queue: Queue,
    claimer: Mutex<Claimer>,
    said: Mutex<Receiver<Message>>,
    /// Ends the raylet when it is dropped.
    raylet: UnixStream,
}

fn bench(transport: Transport) -> Bench {
    let config = store::Config { capacity_bytes: 16 << 20, ..store::Config::default() };
    let store = Store::in_process(config).unwrap();
    let offset = page_bytes();
    let bytes = offset + Queue::bytes(RECORDS).unwrap().next_multiple_of(page_bytes());
    let memfd = Memfd::create("test", bytes).unwrap();
    let map = Arc::new(SharedMap::map(&memfd).unwrap());
    let bells: SharedArray<Bell> = SharedArray::new(&map, 0, 1).unwrap();
    let queue = Queue::format(&map, offset, RECORDS, &bells, 0, 1).unwrap();
    let layout = TaskSegment { bytes, bells: 1 };
    let segment = Segment::open(memfd.try_clone().unwrap(), layout).unwrap();
    let (ours, raylet) = UnixStream::pair().unwrap();
    let said = answer(raylet.try_clone().unwrap(), offset);
    let listener = Arc::new(Listener::new(false, super::print::Printer::default()));
    let (heard, gone) = (listener.clone(), listener.clone());
    let on_message = Box::new(move |message| heard.hear(message));
    let line = Line::start(ours, Decoder::new(), on_message, Box::new(move || gone.raylet_is_gone())).unwrap();
    let job = JobId::new(1);
    let joined = Joined { store: store.clone(), job, session_id: String::new(), has_timeline: false };
    let scope = Scope::of(TaskId::driver(job));
    let as_what = AsWhat { is_worker: false, scope, transport, namespace: None };
    let shared: Arc<Shared> = share(std::path::Path::new("/"), &joined, Arc::new(line), segment, as_what);
    listener.meet(&shared);
    let engine = Remote {
        shared,
        #[cfg(feature = "embedded")]
        child: std::sync::Mutex::new(None),
    };
    let claimer = Mutex::new(Claimer::new(&queue, 5));
    Bench { ray: Raylet::over(Arc::new(engine)), store, queue, claimer, said: Mutex::new(said), raylet }
}

/// Answers what has to be answered; passes all else on. Ends with the stream.
fn answer(mut stream: UnixStream, offset: u64) -> Receiver<Message> {
    let (pass, passed) = channel();
    std::thread::spawn(move || {
        let (mut decoder, mut bytes) = (Decoder::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            decoder.extend(&bytes[..count]);
            while let Ok(Some(message)) = decoder.next_message() {
                let reply = reply(&message, offset);
                if pass.send(message).is_err() {
                    return;
                }
                if let Some(reply) = reply
                    && stream.write_all(&frame::encode(&reply).unwrap()).is_err()
                {
                    return;
                }
            }
        }
    });
    passed
}

fn reply(message: &Message, offset: u64) -> Option<Message> {
    let opened = |request| QueueOpened { request, queue: 3, offset }.into();
    match message {
        Message::OpenQueue(OpenQueue { request, .. }) => Some(opened(*request)),
        Message::OpenActorQueue(OpenActorQueue { request, .. }) => Some(opened(*request)),
        Message::AskActor(AskActor { request, .. }) => {
            let death = Failure::new(TaskErrorKind::ActorDied, "test::Actor", "as the test wants").to_bytes();
            Some(ActorFound { request: *request, anchor: None, death: Some(death) }.into())
        }
        Message::FindActor(FindActor { request, .. }) => {
            Some(ActorFound { request: *request, ..ActorFound::default() }.into())
        }
        _ => None,
    }
}

impl Bench {
    fn engine(&self) -> &dyn Engine {
        self.ray.engine()
    }

    fn submit(&self, number: u64, awaited: &[&RawRef], options: Option<&Options>) -> RawRef {
        let awaited = awaited.iter().map(|object| (*object).clone()).collect();
        let arguments = Arguments::of_parts(&number.to_le_bytes(), awaited);
        let call = Call { arguments, options, results: 1, is_stream: false };
        self.engine().submit(&self.ray, &FUNCTION, call).unwrap().one()
    }

    /// Runs the next record: its result is what it was given. `None` where there is none.
    fn run_one(&self) -> Option<u64> {
        let mut claimer = self.claimer.lock().unwrap();
        let claimed = claimer.claim().unwrap()?;
        let call = Unpacked::of(&self.store, &claimed.payload).unwrap().expect("the caller holds the spec");
        let number = u64::from_le_bytes(call.arguments().try_into().unwrap());
        assert!(call.awaited.iter().all(RawRef::is_ready), "a task runs when its arguments are there");
        for result in call.results.as_slice() {
            // The first seal wins.
            let _ = self.store.put_for(*result, &number.to_le_bytes(), &CreateOptions::default());
        }
        claimer.finish(claimed).unwrap();
        Some(number)
    }

    /// Runs whatever comes until `is_enough`, beside the test.
    fn run_until<R>(&self, test: impl FnOnce() -> R) -> R {
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    if self.run_one().is_none() {
                        std::thread::yield_now();
                    }
                }
            });
            let outcome = test();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome
        })
    }

    fn get(&self, object: &RawRef) -> u64 {
        let object = self.engine().get(object, LONG).unwrap();
        u64::from_le_bytes(object[..].try_into().unwrap())
    }

    fn error(&self, object: &RawRef) -> Failure {
        let object = self.engine().get(object, LONG).unwrap();
        assert_eq!(object.encoding(), Encoding::Error);
        Failure::from_bytes(&object)
    }

    /// The next message of a kind.
    fn heard<T>(&self, is_it: impl Fn(Message) -> Option<T>) -> T {
        loop {
            let message = self.said.lock().unwrap().recv_timeout(LONG.unwrap()).expect("the message comes");
            if let Some(found) = is_it(message) {
                return found;
            }
        }
    }

    fn wish(&self) -> u32 {
        self.heard(|message| if let Message::WantWorkers(wish) = message { Some(wish.wanted) } else { None })
    }
}

#[test]
fn calls_run_in_the_order_given_through_a_ring_that_is_too_small() {
    let bench = bench(Transport::Direct);
    let results: Vec<RawRef> = (0..100).map(|number| bench.submit(number, &[], None)).collect();
    // Nobody submits or waits: the pump fills the ring.
    for number in 0..100 {
        while bench.queue.nudge().is_ok_and(|has_queued| !has_queued) {
            std::thread::yield_now();
        }
        assert_eq!(bench.run_one(), Some(number));
    }
    for (number, result) in (0..).zip(&results) {
        assert_eq!(bench.get(result), number);
    }
}

#[test]
fn results_have_the_ids_that_follow_from_the_driver() {
    let bench = bench(Transport::Direct);
    let ids = [0, 1].map(|number| bench.submit(number, &[], None).id().to_string());
    assert_eq!(ids[0], "a67dc375e60ddd1affffffffffffffffffffffff0100000001000000");
    assert_eq!(ids[1], "63964fa4841d4a2effffffffffffffffffffffff0100000001000000");
}

#[test]
fn workers_are_wished_for_as_calls_grow_and_not_again() {
    let bench = bench(Transport::Direct);
    let kept: Vec<RawRef> = (0..40).map(|number| bench.submit(number, &[], None)).collect();
    // A wish that is old is said again.
    let mut wishes = vec![bench.wish()];
    while *wishes.last().unwrap() < 32 {
        wishes.push(bench.wish());
    }
    wishes.dedup();
    assert_eq!(wishes, [1, 2, 4, 8, 16, 32]);
    bench.queue.set_service(Service::Claimers(64));
    // An answer behind what was said before.
    assert!(bench.engine().find_actor("nobody", None).is_none());
    bench.heard(|message| matches!(message, Message::FindActor(_)).then_some(()));
    let more = bench.submit(40, &[], None);
    assert_eq!(bench.run_until(|| bench.get(&more)), 40);
    drop(kept);
    assert!(!bench.said.lock().unwrap().try_iter().any(|message| matches!(message, Message::WantWorkers(_))));
}

#[test]
fn a_task_waits_for_its_arguments_and_no_longer() {
    let bench = bench(Transport::Direct);
    let promised = bench.store.promise_by_handle(None).unwrap();
    let first = bench.submit(1, &[&promised, &promised], None);
    let second = bench.submit(2, &[&first, &promised], None);
    let third = bench.submit(3, &[], None);
    assert_eq!(bench.run_one(), Some(3));
    assert_eq!(bench.run_one(), None);
    bench.store.put_for(promised.handle(), b"", &CreateOptions::default()).unwrap();
    assert_eq!(bench.run_until(|| [&first, &second, &third].map(|result| bench.get(result))), [1, 2, 3]);
}

#[test]
fn a_chain_runs_although_nobody_waits_for_it() {
    let bench = bench(Transport::Direct);
    let mut last = bench.store.promise_by_handle(None).unwrap();
    let start = last.clone();
    for number in 0..500 {
        last = bench.submit(number, &[&last], None);
    }
    bench.store.put_for(start.handle(), b"", &CreateOptions::default()).unwrap();
    bench.run_until(|| {
        while !last.is_ready() {
            std::thread::yield_now();
        }
    });
    assert_eq!(bench.get(&last), 499);
}

#[test]
fn what_a_call_needs_is_held_until_it_is_over_and_then_let_go_of() {
    let bench = bench(Transport::Direct);
    let argument = bench.store.put(&[1; 1000]).unwrap();
    let handle = argument.handle();
    let result = bench.submit(1, &[&argument], None);
    drop(argument);
    assert!(bench.store.refer(handle).is_some());
    assert_eq!(bench.run_one(), Some(1));
    // The pump sees to it.
    while bench.store.refer(handle).is_some() {
        std::thread::yield_now();
    }
    drop(result);
}

#[test]
fn a_cancelled_call_ends_with_an_error_wherever_it_is() {
    let bench = bench(Transport::Direct);
    let promised = bench.store.promise_by_handle(None).unwrap();
    let waiting = bench.submit(1, &[&promised], None);
    let dependent = bench.submit(2, &[&waiting], None);
    let queued: Vec<RawRef> = (10..10 + RECORDS + 4).map(|number| bench.submit(number, &[], None)).collect();
    for cancelled in [&waiting, &queued[1], &queued[RECORDS as usize + 1]] {
        bench.engine().cancel(cancelled, CancelOptions::default());
        assert_eq!(bench.error(cancelled).kind, TaskErrorKind::Cancelled);
    }
    let others: Vec<u64> = (10..10 + RECORDS + 4).filter(|number| ![11, 11 + RECORDS].contains(number)).collect();
    let results = others.iter().map(|number| &queued[*number as usize - 10]);
    assert_eq!(bench.run_until(|| results.map(|result| bench.get(result)).collect::<Vec<_>>()), others);
    // What is not here is the raylet's to stop; the error stands at once.
    let elsewhere = bench.store.promise_by_handle(None).unwrap();
    bench.engine().cancel(&elsewhere, CancelOptions { force: true, ..CancelOptions::default() });
    assert_eq!(bench.error(&elsewhere).kind, TaskErrorKind::Cancelled);
    let cancel = bench.heard(|message| if let Message::CancelTask(cancel) = message { Some(cancel) } else { None });
    assert!(cancel.force && handle(cancel.result) == elsewhere.handle());
    assert_eq!(bench.run_until(|| bench.get(&dependent)), 2, "who awaits it goes on, with the error");
}

#[test]
fn a_call_that_is_late_ends_with_an_error() {
    let bench = bench(Transport::Direct);
    let options = Options::new().timeout(Duration::from_millis(1));
    let late = bench.submit(1, &[], Some(&options));
    let patient = bench.submit(2, &[], Some(&Options::new().timeout(Duration::from_secs(600))));
    assert_eq!(bench.error(&late).kind, TaskErrorKind::TimedOut);
    assert_eq!(bench.run_until(|| bench.get(&patient)), 2, "the late one is taken back, so it never runs");
}

struct Counted(Mutex<u32>, std::sync::Condvar);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

#[test]
fn wakers_are_woken_once_and_by_whoever_seals() {
    let bench = bench(Transport::Direct);
    let counted = Arc::new(Counted(Mutex::default(), std::sync::Condvar::new()));
    let waker = Waker::from(counted.clone());
    let promised: Vec<RawRef> = (0..300).map(|_| bench.store.promise_by_handle(None).unwrap()).collect();
    for object in promised.iter().chain(&promised) {
        assert!(bench.engine().wake_when_ready(object, &waker));
    }
    for object in &promised {
        bench.store.put_for(object.handle(), b"", &CreateOptions::default()).unwrap();
    }
    let mut count = counted.0.lock().unwrap();
    while *count < 300 {
        count = counted.1.wait(count).unwrap();
    }
    drop(count);
    assert!(bench.engine().wake_when_ready(&promised[0], &waker), "at once");
    assert_eq!(*counted.0.lock().unwrap(), 301);
}

#[test]
fn a_queue_that_has_ended_gives_everything_back_with_the_reason() {
    let bench = bench(Transport::Direct);
    let queued: Vec<RawRef> = (0..RECORDS + 3).map(|number| bench.submit(number, &[], None)).collect();
    let error = Failure::new(TaskErrorKind::Refused, "f", "its job is over").to_bytes();
    let ended = frame::encode(&QueueEnded { queue: 3, error }.into()).unwrap();
    (&bench.raylet).write_all(&ended).unwrap();
    // An answer behind it: the message has been heard.
    assert!(bench.engine().find_actor("nobody", None).is_none());
    bench.queue.set_service(Service::Ended);
    let late = bench.submit(99, &[], None);
    for result in queued.iter().chain([&late]) {
        let error = bench.error(result);
        assert_eq!((error.kind, &error.message[..]), (TaskErrorKind::Refused, "its job is over"));
    }
    assert_eq!(bench.run_one(), None);
}

#[test]
fn calls_through_the_raylet_are_held_until_it_has_read_them() {
    let bench = bench(Transport::Raylet);
    let argument = bench.store.put(&[1; 1000]).unwrap();
    let awaited = argument.handle();
    drop(bench.submit(1, &[&argument, &argument], None));
    drop(argument);
    let task = bench.heard(|message| if let Message::SubmitTask(task) = message { Some(task) } else { None });
    assert_eq!(task.waits_for.len(), 1);
    assert_eq!(Record::unpack(&task.words).unwrap().key, FUNCTION.key);
    // The raylet of this test has answered the question behind it, and refers to nothing.
    while bench.store.refer(awaited).is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn once_the_raylet_is_gone_calls_fail_and_nothing_hangs() {
    let bench = bench(Transport::Direct);
    let waits = bench.submit(1, &[], None);
    let there = bench.store.put(b"12345678").unwrap();
    let counted = Arc::new(Counted(Mutex::default(), std::sync::Condvar::new()));
    assert!(bench.engine().wake_when_ready(&waits, &Waker::from(counted.clone())));
    bench.raylet.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(*bench.engine().get(&waits, None).unwrap_err(), GetError::RayletGone));
    assert!(bench.engine().wait(std::slice::from_ref(&waits), 1, None).is_err());
    let mut count = counted.0.lock().unwrap();
    while *count == 0 {
        count = counted.1.wait(count).unwrap();
    }
    drop(count);
    assert!(!bench.engine().wake_when_ready(&waits, &Waker::from(counted)));
    let call = Call { arguments: Arguments::new(), options: None, results: 1, is_stream: false };
    let refused = bench.engine().submit(&bench.ray, &FUNCTION, call).map(ResultRefs::one);
    assert!(matches!(refused, Err(SubmitError::RayletGone)), "{refused:?}");
    assert!(bench.engine().get(&there, None).is_ok(), "what is held stays readable");
    assert!(bench.engine().find_actor("anybody", None).is_none());
}

#[test]
fn many_wait_at_once_for_results_of_each_other() {
    let bench = bench(Transport::Direct);
    bench.run_until(|| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let bench = &bench;
                scope.spawn(move || {
                    let mut last = bench.submit(0, &[], None);
                    for number in 0..300 {
                        last = bench.submit(thread * 1000 + number, &[&last], None);
                        if number % 7 == 0 {
                            assert_eq!(bench.get(&last), thread * 1000 + number);
                        }
                    }
                    assert_eq!(bench.get(&last), thread * 1000 + 299);
                });
            }
        });
    });
}

/// Claims the next record and does not finish it; the raylet gives out one worker.
fn claim_one(bench: &Bench) -> store_shm::queue::Claimed {
    bench.queue.set_service(Service::Claimers(1));
    loop {
        if let Some(claimed) = bench.claimer.lock().unwrap().claim().unwrap() {
            return claimed;
        }
    }
}

#[test]
fn a_worker_that_is_about_to_finish_is_no_reason_for_another_and_one_that_goes_on_is() {
    let bench = bench(Transport::Direct);
    drop(bench.submit(1, &[], None));
    assert_eq!(bench.wish(), 1);
    // Nobody refers to its result: whether it is as good as over shows only later.
    let claimed = claim_one(&bench);
    drop(bench.submit(2, &[], None));
    // Nobody submits or waits any more: the pump sees that it was not.
    assert_eq!(bench.wish(), 2);
    bench.claimer.lock().unwrap().finish(claimed).unwrap();
    assert_eq!(bench.run_one(), Some(2));
}
