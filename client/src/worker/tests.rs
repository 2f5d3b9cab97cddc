//! Workers in this process: threads that serve leases and host actors, beside a raylet that is the test.
//!
//! The one thing to know: the store is local mode's, the queues lie in a segment of the test's own, and
//! the control line is a pair of sockets, so that all but the processes is real.

#![allow(unsafe_code, reason = "remote functions are registered in a section of the executable")]

use super::actor;
use super::inbox::Inbox;
use super::lease::Lease;
use super::spin::Spin;
use super::{Seat, Worker};
use crate::actor::Actor;
use crate::engine::line::Line;
use crate::engine::segment::Segment;
use crate::engine::spec::{Head, object_key, pack};
use crate::remote::{Config, Mode, Raylet};
use crate::task::{Arguments, FUNCTIONS, TaskError, TaskErrorKind};
use crate::value::Value;
use crate::{ObjectRef as RawRef, remote};
use raylet_api::frame::Decoder;
use raylet_api::message::Message;
use raylet_api::record::Kind;
use raylet_api::work::*;
use std::cell::RefCell;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Encoding, Handle, Object};
use store_shm::map::SharedMap;
use store_shm::queue::{Outcome, Queue, Service, Submitter};
use store_shm::segment::{Memfd, page_bytes};

const RECORDS: u64 = 64;
const QUEUES: u64 = 4;
/// Only a hang lasts longer.
const LONG: Duration = Duration::from_secs(60);

/// Everything but the worker.
pub(super) struct Ground {
    pub(super) ray: Raylet,
    pub(super) seat: Seat,
    pub(super) inbox: Arc<Inbox>,
    said: Receiver<Message>,
    queues: Vec<Queue>,
}

fn offset(queue: u64) -> u64 {
    let bytes = Queue::bytes(RECORDS).unwrap().next_multiple_of(page_bytes());
    page_bytes() + queue * bytes
}

/// All queues ring bell 0.
pub(super) fn ground() -> Ground {
    let ray = Raylet::init(Config { mode: Mode::Local, capacity_bytes: 16 << 20, ..Config::default() }).unwrap();
    let memfd = Memfd::create("test", offset(QUEUES)).unwrap();
    let map = Arc::new(SharedMap::map(&memfd).unwrap());
    let layout = TaskSegment { bytes: memfd.bytes(), bells: 1 };
    let segment = Segment::open(memfd.try_clone().unwrap(), layout).unwrap();
    let format = |queue| Queue::format(&map, offset(queue), RECORDS, &segment.bells, 0, 1).unwrap();
    let queues = (0..QUEUES).map(format).collect();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = Line::start(ours, Decoder::new(), Box::new(|_| {}), Box::new(|| {})).unwrap();
    let seat = Seat { ray: ray.clone(), segment, line: Arc::new(line) };
    Ground { ray, seat, inbox: Arc::default(), said: listen(theirs), queues }
}

/// What the worker says, until its line ends.
fn listen(mut stream: UnixStream) -> Receiver<Message> {
    let (say, said) = channel();
    std::thread::spawn(move || {
        let (mut decoder, mut bytes) = (Decoder::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            decoder.extend(&bytes[..count]);
            while let Some(message) = decoder.next_message().unwrap() {
                let _ = say.send(message);
            }
        }
    });
    said
}

/// A call, and where its results will be.
pub(super) struct Sent {
    pub(super) results: Vec<RawRef>,
    _spec: Option<RawRef>,
}

impl Ground {
    pub(super) fn hear(&self) -> Message {
        loop {
            match self.said.recv_timeout(LONG).expect("the worker says something") {
                // Another test of this process may have a timeline kept.
                Message::Events(_) => {}
                said => return said,
            }
        }
    }

    pub(super) fn submitter(&self, queue: usize) -> Submitter {
        Submitter::new(&self.queues[queue]).unwrap()
    }

    pub(super) fn head(&self, key: u64, kind: Kind) -> Head {
        Head { key, kind, retries_errors: false, is_stream: false, retries: 0, number: 1 }
    }

    pub(super) fn packed(
        &self,
        head: Head,
        arguments: &Arguments,
        results: usize,
    ) -> (Sent, store_shm::queue::Payload) {
        let results: Vec<RawRef> = (0..results).map(|_| self.ray.store().promise_by_handle(None).unwrap()).collect();
        let handles: Vec<Handle> = results.iter().map(RawRef::handle).collect();
        let packed = pack(self.ray.store(), head, arguments, &handles).unwrap();
        (Sent { results, _spec: packed.spec }, packed.words)
    }

    fn send(&self, submitter: &mut Submitter, head: Head, arguments: &Arguments, results: usize) -> Sent {
        let (sent, words) = self.packed(head, arguments, results);
        submitter.try_submit(&words).unwrap();
        sent
    }

    pub(super) fn arguments(&self, give: impl FnOnce(&Raylet, &mut Arguments)) -> Arguments {
        let mut arguments = Arguments::new();
        give(&self.ray, &mut arguments);
        arguments
    }

    pub(super) fn number(&self, number: u64) -> Arguments {
        self.arguments(|ray, arguments| arguments.give::<u64>(ray, number).unwrap())
    }

    fn task(&self, submitter: &mut Submitter, name: &str, number: u64) -> Sent {
        self.send(submitter, self.head(function(name), Kind::Task), &self.number(number), 1)
    }

    fn object(&self, result: &RawRef) -> Object {
        self.ray.store().get_timeout(result, LONG).unwrap()
    }

    fn value<T: Value>(&self, sent: &Sent) -> T {
        self.ray.get(&crate::refs::ObjectRef::new(&self.ray, sent_one(self, sent))).unwrap()
    }

    fn error(&self, result: &RawRef) -> TaskError {
        let object = self.object(result);
        assert_eq!(object.encoding(), Encoding::Error);
        TaskError::from_bytes(&object)
    }

    pub(super) fn worker(&self) -> JoinHandle<()> {
        let mut worker = Worker::new(self.seat.clone(), self.inbox.clone());
        let worker = std::thread::spawn(move || worker.work());
        assert!(matches!(self.hear(), Message::WorkerReady(_)));
        worker
    }

    pub(super) fn grant(&self, calls_max: u32) {
        self.queues[0].set_service(Service::Claimers(1));
        self.inbox.put(Grant { queue: 7, offset: offset(0), gpus: None, calls_max }.into());
    }

    pub(super) fn withdraw(&self) {
        self.inbox.put(Withdraw { queue: 7 }.into());
    }

    /// Ends a worker that is no actor: it fails to become one.
    pub(super) fn end(self, worker: JoinHandle<()>) {
        self.run_actor(Failing::class().key, &self.arguments(|_, _| {}), 0);
        while !matches!(self.hear(), Message::ActorFailed(_)) {}
        worker.join().unwrap();
    }

    pub(super) fn run_actor(&self, class: u64, arguments: &Arguments, concurrency_max: u32) -> Sent {
        let (sent, words) = self.packed(self.head(class, Kind::Create), arguments, 0);
        let queues = (0..2).map(|queue| (queue, offset(queue))).collect();
        let anchor = object_key(self.ray.store().put(b"anchor").unwrap().handle());
        let run = RunActor { anchor, words, concurrency_max, queues, ..RunActor::default() };
        self.inbox.put(run.into());
        sent
    }

    fn call(&self, submitter: &mut Submitter, method: u64, arguments: &Arguments) -> Sent {
        self.send(submitter, self.head(method, Kind::Call), arguments, 1)
    }
}

fn sent_one(ground: &Ground, sent: &Sent) -> RawRef {
    let result = sent.results[0].clone();
    ground.object(&result);
    result
}

pub(super) fn function(name: &str) -> u64 {
    let found = FUNCTIONS.iter().find(|function| function.name.ends_with(&format!("tests::{name}")));
    found.expect("it is in this file").key
}

pub(super) fn method<A: Actor>(name: &str) -> u64 {
    let found = A::class().methods.iter().find(|method| method.name.ends_with(&format!("::{name}")));
    found.expect("it is in this file").key
}

/// A process is one actor; here several tests are, one after the other.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[remote(crate = crate)]
fn double(x: u64) -> u64 {
    x * 2
}

#[remote(crate = crate)]
async fn later(x: u64) -> u64 {
    tokio::task::yield_now().await;
    x + 1
}

#[remote(crate = crate)]
fn panics(x: u64) -> u64 {
    panic!("no {x}")
}

#[remote(crate = crate)]
fn fails(x: u64) -> Result<u64, String> {
    Err(format!("not {x}"))
}

static TRIES: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Fails until the third time.
#[remote(crate = crate)]
fn third_time(x: u64) -> Result<u64, String> {
    let mut tries = TRIES.lock().unwrap_or_else(PoisonError::into_inner);
    tries.push(x);
    let count = tries.iter().filter(|other| **other == x).count();
    if count < 3 { Err(format!("{count}")) } else { Ok(count as u64) }
}

#[remote(crate = crate, num_returns = 2)]
fn parts(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[test]
fn a_lease_runs_what_is_queued_and_is_returned_when_it_is_withdrawn() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    let before: Vec<Sent> = (0..10).map(|x| ground.task(&mut submitter, "double", x)).collect();
    ground.grant(0);
    for (x, sent) in before.iter().enumerate() {
        assert_eq!(ground.value::<u64>(sent), 2 * x as u64);
    }
    let after = ground.task(&mut submitter, "later", 41);
    assert_eq!(ground.value::<u64>(&after), 42);
    ground.queues[0].set_service(Service::Claimers(0));
    ground.withdraw();
    let returned = loop {
        match ground.hear() {
            Message::LeaseIdle(idle) => assert_eq!(idle.queue, 7),
            Message::LeaseBusy(_) => {}
            other => break other,
        }
    };
    assert_eq!(returned, LeaseReturned { queue: 7, calls: 11, has_queued: false }.into());
    let mut done = 0;
    let count = submitter.reap(|_, outcome| done += u32::from(matches!(outcome, Outcome::Done { attempt: 0, .. })));
    assert_eq!((count.unwrap(), done), (11, 11));
    ground.end(worker);
}

#[test]
fn a_worker_that_finds_nothing_says_so_once_and_again_when_there_is_work() {
    let ground = ground();
    let worker = ground.worker();
    ground.grant(0);
    assert_eq!(ground.hear(), LeaseIdle { queue: 7 }.into());
    let mut submitter = ground.submitter(0);
    let sent = ground.task(&mut submitter, "double", 4);
    assert_eq!(ground.hear(), LeaseBusy { queue: 7 }.into());
    assert_eq!(ground.value::<u64>(&sent), 8);
    assert_eq!(ground.hear(), LeaseIdle { queue: 7 }.into());
    ground.withdraw();
    assert_eq!(ground.hear(), LeaseReturned { queue: 7, calls: 1, has_queued: false }.into());
    ground.end(worker);
}

#[test]
fn what_comes_while_a_worker_says_that_it_is_idle_makes_it_busy() {
    let ground = ground();
    let submitter = RefCell::new(ground.submitter(0));
    let (said, sent) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let say = |message: Message| {
        match (&message, said.borrow().len()) {
            (Message::LeaseIdle(_), 0) => sent.borrow_mut().push(ground.task(&mut submitter.borrow_mut(), "double", 4)),
            (Message::LeaseIdle(_), _) => ground.withdraw(),
            _ => {}
        }
        said.borrow_mut().push(message);
    };
    // One that never says again that it is idle is withdrawn all the same.
    let late = ground.inbox.clone();
    std::thread::spawn(move || {
        std::thread::sleep(LONG);
        late.put(Withdraw { queue: 7 }.into());
    });
    let (grant, mut ran) = (Grant { queue: 7, ..Grant::default() }, 0);
    let (queue, me) = (&ground.queues[0], ground.seat.me());
    Lease::new(&grant, queue, me, &ground.inbox, &mut Spin::new(), &say).serve(|_| ran += 1);
    let returned = LeaseReturned { queue: 7, calls: 1, has_queued: false }.into();
    let (idle, busy) = (LeaseIdle { queue: 7 }, LeaseBusy { queue: 7 });
    assert_eq!(said.into_inner(), [idle.into(), busy.into(), idle.into(), returned]);
    assert_eq!(ran, 1);
}

#[test]
fn a_lease_of_so_many_calls_ends_after_them_and_says_what_waits() {
    let ground = ground();
    let mut submitter = ground.submitter(0);
    let sent: Vec<Sent> = (0..3).map(|x| ground.task(&mut submitter, "double", x)).collect();
    let worker = ground.worker();
    ground.grant(2);
    assert_eq!(ground.hear(), LeaseReturned { queue: 7, calls: 2, has_queued: true }.into());
    assert!(sent[1].results[0].is_ready() && !sent[2].results[0].is_ready());
    ground.end(worker);
}

#[test]
fn what_goes_wrong_in_a_task_stands_in_the_place_of_its_result() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    ground.grant(0);
    let error = |sent: &Sent| ground.error(&sent.results[0]);
    let panicked = error(&ground.task(&mut submitter, "panics", 3));
    assert_eq!(panicked.kind(), TaskErrorKind::Panicked);
    assert!(panicked.message().starts_with("no 3 at ") && panicked.backtrace().is_some(), "{panicked:?}");
    let returned = error(&ground.task(&mut submitter, "fails", 3));
    assert_eq!((returned.kind(), returned.message()), (TaskErrorKind::Returned, "not 3"));
    let head = ground.head(0xdead, Kind::Task);
    let unknown = error(&ground.send(&mut submitter, head, &ground.number(1), 1));
    assert_eq!(unknown.kind(), TaskErrorKind::UnknownFunction);
    let executable = std::env::current_exe().unwrap();
    let text = unknown.to_string();
    assert!(text.contains("0x000000000000dead") && text.contains(executable.to_str().unwrap()), "{text}");
    let head = ground.head(function("double"), Kind::Task);
    let argument = error(&ground.send(&mut submitter, head, &Arguments::new(), 1));
    assert_eq!(argument.kind(), TaskErrorKind::Argument);
    ground.withdraw();
    ground.end(worker);
}

#[test]
fn an_error_in_the_place_of_an_argument_is_passed_on() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    ground.grant(0);
    let first = ground.task(&mut submitter, "fails", 1);
    ground.object(&first.results[0]);
    let failed: crate::refs::ObjectRef<u64> = crate::refs::ObjectRef::new(&ground.ray, first.results[0].clone());
    let arguments = ground.arguments(|ray, arguments| arguments.give::<u64>(ray, &failed).unwrap());
    let head = ground.head(function("double"), Kind::Task);
    let second = ground.error(&ground.send(&mut submitter, head, &arguments, 1).results[0]);
    assert_eq!((second.kind(), second.message()), (TaskErrorKind::Returned, "not 1"));
    assert!(second.passed().next().unwrap().ends_with("double"));
    ground.withdraw();
    ground.end(worker);
}

#[test]
fn errors_are_tried_again_as_often_as_the_record_says() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    ground.grant(0);
    let head = |retries| Head { retries_errors: true, retries, ..ground.head(function("third_time"), Kind::Task) };
    let enough = ground.send(&mut submitter, head(2), &ground.number(100), 1);
    assert_eq!(ground.value::<u64>(&enough), 3);
    let too_few = ground.send(&mut submitter, head(1), &ground.number(200), 1);
    assert_eq!(ground.error(&too_few.results[0]).message(), "2");
    ground.withdraw();
    ground.end(worker);
}

#[test]
fn several_results_are_objects_each_and_a_wrong_number_of_them_is_an_error_in_all() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    ground.grant(0);
    let head = ground.head(function("parts"), Kind::Task);
    let two = ground.send(&mut submitter, head, &ground.number(2), 2);
    let second: crate::refs::ObjectRef<u64> = crate::refs::ObjectRef::new(&ground.ray, two.results[1].clone());
    assert_eq!(ground.value::<u64>(&two), 0);
    ground.object(&two.results[1]);
    assert_eq!(ground.ray.get(&second).unwrap(), 1);
    for count in [0, 1, 3] {
        let wrong = ground.send(&mut submitter, head, &ground.number(count), 2);
        for result in &wrong.results {
            assert_eq!(ground.error(result).kind(), TaskErrorKind::ResultCount, "{count}");
        }
    }
    ground.withdraw();
    ground.end(worker);
}

#[test]
fn the_first_seal_wins_and_what_nobody_wants_runs_all_the_same() {
    let ground = ground();
    let worker = ground.worker();
    let mut submitter = ground.submitter(0);
    let sealed = ground.task(&mut submitter, "double", 1);
    let options = store::CreateOptions::default();
    ground.ray.store().put_for(sealed.results[0].handle(), b"mine", &options).unwrap().unwrap();
    let head = Head { retries_errors: true, retries: 1, ..ground.head(function("third_time"), Kind::Task) };
    drop(ground.send(&mut submitter, head, &ground.number(300), 1));
    let used_before = ground.ray.store().usage().used_bytes;
    ground.grant(2);
    assert!(matches!(ground.hear(), Message::LeaseReturned(_)));
    assert_eq!(&ground.object(&sealed.results[0])[..], b"mine");
    assert_eq!(TRIES.lock().unwrap().iter().filter(|x| **x == 300).count(), 2);
    assert_eq!(ground.ray.store().usage().used_bytes, used_before);
    ground.end(worker);
}

#[test]
fn a_task_through_the_raylet_is_answered() {
    let ground = ground();
    let worker = ground.worker();
    let (sent, words) = ground.packed(ground.head(function("double"), Kind::Task), &ground.number(8), 1);
    ground.inbox.put(RunTask { task: 5, attempt: 1, words, gpus: None }.into());
    assert_eq!(ground.hear(), TaskDone { task: 5, retry: false }.into());
    assert_eq!(ground.value::<u64>(&sent), 16);
    ground.end(worker);
}

/// Writes down what it is told.
pub(super) struct Ledger(Vec<u64>);

#[remote(crate = crate)]
impl Ledger {
    fn new() -> Ledger {
        Ledger(Vec::new())
    }

    fn note(&mut self, x: u64) -> Vec<u64> {
        self.0.push(x);
        self.0.clone()
    }

    fn look(&mut self, x: u64) -> u64 {
        x
    }

    fn fail(&mut self, x: u64) -> u64 {
        self.0.push(x);
        panic!("no {x}")
    }

    fn leave(&mut self, x: u64) -> u64 {
        assert!(actor::exit());
        x
    }

    fn meet(&self, x: u64) -> u64 {
        MEETING.wait();
        x
    }
}

/// Three at once, or never.
static MEETING: Barrier = Barrier::new(3);

struct Failing;

#[remote(crate = crate)]
impl Failing {
    fn new() -> Result<Failing, String> {
        Err("not today".to_owned())
    }
}

/// An actor on a worker of its own, once it is ready.
pub(super) fn ledger(ground: &Ground, concurrency_max: u32) -> JoinHandle<()> {
    let worker = ground.worker();
    ground.run_actor(Ledger::class().key, &ground.arguments(|_, _| {}), concurrency_max);
    assert!(matches!(ground.hear(), Message::ActorReady(_)));
    worker
}

pub(super) fn end_actor(ground: &Ground, worker: JoinHandle<()>) {
    ground.inbox.put(EndWorker {}.into());
    assert!(matches!(ground.hear(), Message::ActorExited(_)));
    worker.join().unwrap();
}

#[test]
fn an_actor_runs_the_calls_of_each_caller_in_order_and_ends_after_them() {
    let _alone = alone();
    let ground = ground();
    let (mut one, mut other) = (ground.submitter(0), ground.submitter(1));
    let note = method::<Ledger>("note");
    let before: Vec<Sent> = (0..10).map(|x| ground.call(&mut one, note, &ground.number(x))).collect();
    let _others: Vec<Sent> = (100..110).map(|x| ground.call(&mut other, note, &ground.number(x))).collect();
    let worker = ledger(&ground, 0);
    end_actor(&ground, worker);
    let noted: Vec<u64> = ground.value(before.last().unwrap());
    let (first, second): (Vec<u64>, Vec<u64>) = noted.iter().partition(|x| **x < 100);
    assert_eq!(first, (0..10).collect::<Vec<_>>());
    // By turns, whoever was first.
    assert!(second.len() >= 9 && second.is_sorted(), "{noted:?}");
}

#[test]
fn a_call_that_waits_for_an_object_holds_up_its_caller_and_nobody_else() {
    let _alone = alone();
    let ground = ground();
    let worker = ledger(&ground, 0);
    let (mut one, mut other) = (ground.submitter(0), ground.submitter(1));
    let note = method::<Ledger>("note");
    let promise = ground.ray.store().promise_by_handle(None).unwrap();
    let awaited: crate::refs::ObjectRef<u64> = crate::refs::ObjectRef::new(&ground.ray, promise.clone());
    let arguments = ground.arguments(|ray, arguments| arguments.give::<u64>(ray, &awaited).unwrap());
    let waits = ground.call(&mut one, note, &arguments);
    let behind = ground.call(&mut one, note, &ground.number(2));
    let beside = ground.call(&mut other, note, &ground.number(3));
    assert_eq!(ground.value::<Vec<u64>>(&beside), [3]);
    assert!(!waits.results[0].is_ready() && !behind.results[0].is_ready());
    // The end waits for it as well.
    ground.inbox.put(EndWorker {}.into());
    let options = store::CreateOptions { encoding: Encoding::MessagePack, ..Default::default() };
    ground.ray.store().put_for(promise.handle(), &[1], &options).unwrap().unwrap();
    ground.queues[0].bell().wake_all();
    assert_eq!(ground.value::<Vec<u64>>(&waits), [3, 1]);
    assert_eq!(ground.value::<Vec<u64>>(&behind), [3, 1, 2]);
    assert!(matches!(ground.hear(), Message::ActorExited(_)));
    worker.join().unwrap();
}

#[test]
fn a_panic_is_an_error_of_that_call_and_unknown_methods_are_errors() {
    let _alone = alone();
    let ground = ground();
    let worker = ledger(&ground, 0);
    let mut caller = ground.submitter(0);
    let failed = ground.call(&mut caller, method::<Ledger>("fail"), &ground.number(1));
    let unknown = ground.call(&mut caller, 3, &ground.number(1));
    let noted = ground.call(&mut caller, method::<Ledger>("note"), &ground.number(2));
    assert_eq!(ground.error(&failed.results[0]).kind(), TaskErrorKind::Panicked);
    assert_eq!(ground.error(&unknown.results[0]).kind(), TaskErrorKind::UnknownFunction);
    assert_eq!(ground.value::<Vec<u64>>(&noted), [1, 2]);
    end_actor(&ground, worker);
}

#[test]
fn shared_methods_run_beside_each_other_as_far_as_is_allowed() {
    let _alone = alone();
    let ground = ground();
    let worker = ledger(&ground, 3);
    let mut caller = ground.submitter(0);
    let meet = method::<Ledger>("meet");
    let meetings: Vec<Sent> = (0..6).map(|x| ground.call(&mut caller, meet, &ground.number(x))).collect();
    let after = ground.call(&mut caller, method::<Ledger>("note"), &ground.number(9));
    for (x, sent) in meetings.iter().enumerate() {
        assert_eq!(ground.value::<u64>(sent), x as u64);
    }
    assert_eq!(ground.value::<Vec<u64>>(&after), [9]);
    end_actor(&ground, worker);
}

#[test]
fn an_actor_ends_itself_before_the_next_call() {
    let _alone = alone();
    for concurrency_max in [1, 2] {
        let ground = ground();
        let worker = ledger(&ground, concurrency_max);
        let mut caller = ground.submitter(0);
        let left = ground.call(&mut caller, method::<Ledger>("leave"), &ground.number(1));
        assert_eq!(ground.value::<u64>(&left), 1);
        assert!(matches!(ground.hear(), Message::ActorExited(_)));
        worker.join().unwrap();
        let late = ground.call(&mut caller, method::<Ledger>("note"), &ground.number(2));
        assert!(!late.results[0].is_ready());
    }
}

#[test]
fn a_constructor_that_fails_says_why() {
    let ground = ground();
    let worker = ground.worker();
    ground.run_actor(Failing::class().key, &ground.arguments(|_, _| {}), 0);
    let Message::ActorFailed(failed) = ground.hear() else { panic!("it has failed") };
    let error = TaskError::from_bytes(&failed.error);
    assert_eq!(error.kind(), TaskErrorKind::ActorDied);
    assert!(error.message().contains("not today"), "{error}");
    worker.join().unwrap();
}

#[test]
fn callers_come_and_go_while_an_actor_lives() {
    let _alone = alone();
    let ground = ground();
    let worker = ledger(&ground, 0);
    let mut late = ground.submitter(3);
    let note = method::<Ledger>("note");
    let sent = ground.call(&mut late, note, &ground.number(1));
    ground.inbox.put(ServeQueue { queue: 3, offset: offset(3) }.into());
    assert_eq!(ground.value::<Vec<u64>>(&sent), [1]);
    ground.inbox.put(DropQueue { queue: 3 }.into());
    assert_eq!(ground.hear(), QueueDropped { queue: 3 }.into());
    let unheard = ground.call(&mut late, note, &ground.number(2));
    let heard = ground.call(&mut ground.submitter(1), note, &ground.number(3));
    assert_eq!(ground.value::<Vec<u64>>(&heard), [1, 3]);
    assert!(!unheard.results[0].is_ready());
    end_actor(&ground, worker);
}

/// Its calls wait for each other.
pub(super) struct Room {
    notes: Mutex<Vec<String>>,
    door: tokio::sync::Notify,
    inside: AtomicU32,
}

#[remote(crate = crate)]
impl Room {
    fn new() -> Room {
        Room { notes: Mutex::default(), door: tokio::sync::Notify::new(), inside: AtomicU32::new(0) }
    }

    async fn enter(&self, x: u64) -> u64 {
        self.note(format!("{x} waits"));
        self.door.notified().await;
        self.note(format!("{x} is in"));
        x
    }

    async fn open(&self, _x: u64) -> u64 {
        self.door.notify_waiters();
        0
    }

    async fn alone(&mut self, x: u64) -> Vec<String> {
        self.note(format!("{x} alone"));
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.note(format!("{x} done"));
        self.notes.get_mut().unwrap().clone()
    }

    async fn panic(&self, x: u64) -> u64 {
        tokio::task::yield_now().await;
        panic!("no {x}")
    }

    /// How many are inside.
    async fn pass(&self, _x: u64) -> u64 {
        self.inside.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        u64::from(self.inside.fetch_sub(1, Ordering::SeqCst))
    }

    async fn peek(&self, x: u64) -> u64 {
        x
    }

    fn count(&self, _x: u64) -> u64 {
        self.notes.lock().unwrap().len() as u64
    }
}

impl Room {
    fn note(&self, text: String) {
        self.notes.lock().unwrap().push(text);
    }
}

#[test]
fn async_methods_give_way_to_each_other_and_exclusive_ones_to_nobody() {
    let _alone = alone();
    let ground = ground();
    let worker = ground.worker();
    ground.run_actor(Room::class().key, &ground.arguments(|_, _| {}), 0);
    assert!(matches!(ground.hear(), Message::ActorReady(_)));
    let mut caller = ground.submitter(0);
    let mut call = |name: &str, x: u64| ground.call(&mut caller, method::<Room>(name), &ground.number(x));
    let entering: Vec<Sent> = (0..50).map(|x| call("enter", x)).collect();
    let count = call("count", 0);
    assert_eq!(ground.value::<u64>(&count), 50);
    let panicked = call("panic", 1);
    assert_eq!(ground.error(&panicked.results[0]).kind(), TaskErrorKind::Panicked);
    let open = call("open", 0);
    let (first, second) = (call("alone", 1), call("alone", 2));
    assert_eq!(ground.value::<u64>(&open), 0);
    let notes: Vec<String> = ground.value(&second);
    assert_eq!(notes[notes.len() - 4..], ["1 alone", "1 done", "2 alone", "2 done"]);
    assert_eq!(ground.value::<Vec<String>>(&first).len(), notes.len() - 2);
    entering.iter().enumerate().for_each(|(x, sent)| assert_eq!(ground.value::<u64>(sent), x as u64));
    end_actor(&ground, worker);
}

#[test]
fn an_async_actor_runs_as_many_calls_at_once_as_it_may() {
    let _alone = alone();
    let ground = ground();
    let worker = ground.worker();
    ground.run_actor(Room::class().key, &ground.arguments(|_, _| {}), 2);
    assert!(matches!(ground.hear(), Message::ActorReady(_)));
    let mut caller = ground.submitter(0);
    let passing: Vec<Sent> =
        (0..10).map(|x| ground.call(&mut caller, method::<Room>("pass"), &ground.number(x))).collect();
    let most: Vec<u64> = passing.iter().map(|sent| ground.value::<u64>(sent)).collect();
    assert_eq!(most.iter().max(), Some(&2), "{most:?}");
    end_actor(&ground, worker);
}
