//! Drivers and workers played by hand: what the scheduler makes of what they say.
//!
//! The one thing to know: this test's own executable is the driver's program, so the raylet forks its
//! workers from it, and what they do is written here, record by record. A driver is a thread of this
//! process with a connection of its own; it is gone when it drops that and leaves the store. Waiting
//! has a bound that only a hang reaches.

use nix::sys::signal::{Signal, raise};
use raylet::{Config, Raylet};
use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_api::frame::{Decoder, PROTOCOL_VERSION};
use raylet_api::message::*;
use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind, ObjectKey, Record, Spec};
use raylet_api::{work::*, zygote::ROLE_VARIABLE};
use raylet_client::role::{Worker, set_worker_main};
use raylet_core::Resources;
use raylet_core::resources::Amount;
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{ClientId, CreateOptions, Encoding, Handle, Keeping, Object, ObjectRef, Segments, Store};
use store_shm::process::Fresh;
use store_shm::queue::{Bell, Claimed, Claimer, Queue, Service, Submitter};
use store_shm::segment::Memfd;
use store_shm::{ProcessId, SharedArray, SharedMap};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Seals the arguments as the result.
const ECHO: u64 = 1;
/// Dies in its first attempts, as many as the arguments' first byte says; seals the attempt.
const DIE: u64 = 2;
/// Never ends by itself.
const HANG: u64 = 3;
/// Writes the arguments as a line.
const PRINT: u64 = 4;
/// Has it tried again; the second time seals the attempt.
const FAIL_ONCE: u64 = 5;
/// An actor's: adds the arguments' first byte and seals the sum.
const ADD: u64 = 6;
/// An actor's constructor that fails.
const NEVER: u64 = 7;
/// Runs until the driver has sealed its result.
const HOLD: u64 = 8;

/// Has workers never be ready.
const HANG_VARIABLE: &str = "RAYLET_TEST_HANG";

store_shm::before_main!(early choose_main);

fn choose_main(_: Fresh) {
    set_worker_main(work);
}

/// The other end of a control line.
struct Hand {
    stream: UnixStream,
    decoder: Decoder,
    heard: VecDeque<Message>,
    store: Store,
    map: Arc<SharedMap>,
    bells: SharedArray<Bell>,
}

impl Hand {
    fn join(directory: &Path, hello: Hello) -> Hand {
        let stream = raylet_api::address::connect(directory).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let process = ProcessId::current();
        let (pid, start_ticks) = (process.pid, process.start_ticks);
        let hello = Hello { protocol_version: u32::from(PROTOCOL_VERSION), pid, start_ticks, ..hello };
        (&stream).write_all(&raylet_api::encode(&hello.into()).unwrap()).unwrap();
        let (mut decoder, mut fds, mut heard) = (Decoder::new(), Vec::new(), VecDeque::new());
        let welcome = loop {
            let mut bytes = [0; 4096];
            let (count, more) = store_shm::fd::recv_fds(stream.as_fd(), &mut bytes, 4).unwrap();
            assert_ne!(count, 0, "the raylet closed the connection");
            decoder.extend(&bytes[..count]);
            fds.extend(more);
            match decoder.next_message().unwrap() {
                Some(Message::Welcome(welcome)) => break welcome,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        };
        while let Some(message) = decoder.next_message().unwrap() {
            heard.push_back(message);
        }
        let [tables, data, data_read_only, queues] = <[OwnedFd; 4]>::try_from(fds).unwrap();
        let client = ClientId { number: welcome.client_index as u16, generation: welcome.client_generation as u16 };
        let config = store::Config { keeping: Keeping::Daemon, label: "hand".to_owned(), ..store::Config::default() };
        let store = Store::attach(Segments { tables, data, data_read_only }, client, config).unwrap();
        let tasks = welcome.tasks.unwrap();
        let map = Arc::new(SharedMap::map(&Memfd::from_fd(queues).unwrap()).unwrap());
        let bells = SharedArray::new(&map, 0, tasks.bells).unwrap();
        Hand { stream, decoder, heard, store, map, bells }
    }

    fn say(&self, message: impl Into<Message>) {
        let bytes = raylet_api::encode(&message.into()).unwrap();
        (&self.stream).write_all(&bytes).unwrap();
    }

    /// The next message; lines of workers only where they are asked for.
    fn hear(&mut self) -> Message {
        loop {
            match self.heard.pop_front().or_else(|| self.decoder.next_message().unwrap()) {
                Some(message) => return message,
                None => assert!(self.read(), "the raylet is gone"),
            }
        }
    }

    /// What has come already.
    fn hear_now(&mut self) -> Option<Message> {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.try_read();
        self.stream.set_nonblocking(false).unwrap();
        let found = self.heard.pop_front().or_else(|| self.decoder.next_message().unwrap());
        if found.is_none() && matches!(read, Ok(0)) {
            // The raylet is gone.
            std::process::exit(0);
        }
        found
    }

    fn read(&mut self) -> bool {
        self.try_read().expect("the raylet says something in time") > 0
    }

    fn try_read(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes)?;
        self.decoder.extend(&bytes[..count]);
        Ok(count)
    }

    fn queue(&self, offset: u64) -> Queue {
        Queue::open(&self.map, offset, &self.bells).unwrap()
    }

    fn number(&self) -> u16 {
        self.store.client().number
    }

    fn promise(&self) -> ObjectRef {
        self.store.promise_by_handle(None).unwrap()
    }

    #[track_caller]
    fn value(&self, object: &ObjectRef) -> Object {
        let value = self.end(object);
        assert_ne!(value.encoding(), Encoding::Error, "{:?}", Failure::from_bytes(&value));
        value
    }

    fn end(&self, object: &ObjectRef) -> Object {
        self.store.get_timeout(object, LONG).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn failure(&self, object: &ObjectRef) -> Failure {
        let value = self.end(object);
        assert_eq!(value.encoding(), Encoding::Error, "{:?}", &value[..]);
        Failure::from_bytes(&value)
    }
}

fn key(object: &ObjectRef) -> ObjectKey {
    let Handle { slot, generation } = object.handle();
    ObjectKey { slot, generation }
}

fn record(function: u64, result: Option<&ObjectRef>, retries: i16, arguments: &[u8]) -> Record {
    let mut bytes = [0; INLINE_BYTES_MAX];
    bytes[..arguments.len()].copy_from_slice(arguments);
    Record {
        key: function,
        kind: Kind::Task,
        retries_errors: false,
        is_stream: false,
        results: u16::from(result.is_some()),
        retries,
        number: 1,
        parent: 0,
        result: result.map(key).unwrap_or_default(),
        body: Body::Inline { len: arguments.len() as u8, bytes },
    }
}

fn demand(cpus: u64) -> Demand {
    [("CPU".to_owned(), cpus * 10_000)].into()
}

fn class(cpus: u64) -> ClassWish {
    ClassWish { demand: demand(cpus), ..ClassWish::default() }
}

// The worker.

/// What a worker of these tests is.
fn work(worker: Worker) -> i32 {
    while std::env::var_os(HANG_VARIABLE).is_some() {
        std::thread::park();
    }
    let directory = worker.spec.directory.clone().unwrap();
    let hello = Hello { want: Want::Worker, worker: Some(worker.spec.worker), ..Hello::default() };
    let mut hand = Hand::join(Path::new(&directory), hello);
    hand.stream.set_read_timeout(None).unwrap();
    hand.say(WorkerReady {});
    loop {
        match hand.hear() {
            Message::Grant(grant) => lease(&mut hand, &grant),
            Message::RunTask(task) => {
                let retry = run(&hand, &Record::unpack(&task.words).unwrap(), task.attempt - 1, &mut 0);
                hand.say(TaskDone { task: task.task, retry });
            }
            Message::RunActor(actor) => return be_actor(&mut hand, &actor),
            Message::Withdraw(_) | Message::InterruptTask(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn lease(hand: &mut Hand, grant: &Grant) {
    let queue = hand.queue(grant.offset);
    let mut claimer = Claimer::new(&queue, hand.number());
    let (mut calls, mut is_idle, mut is_withdrawn) = (0, false, false);
    while !is_withdrawn {
        if let Some(claimed) = claimer.claim().unwrap() {
            if std::mem::take(&mut is_idle) {
                hand.say(LeaseBusy { queue: grant.queue });
            }
            run_claimed(hand, &queue, claimed, &mut 0);
            calls += 1;
            continue;
        }
        if !std::mem::replace(&mut is_idle, true) {
            hand.say(LeaseIdle { queue: grant.queue });
        }
        sleep_unless(queue.bell(), || queue.has_queued().unwrap());
        while let Some(message) = hand.hear_now() {
            is_withdrawn |= matches!(message, Message::Withdraw(withdraw) if withdraw.queue == grant.queue);
        }
    }
    let has_queued = queue.has_queued().unwrap();
    hand.say(LeaseReturned { queue: grant.queue, calls, has_queued });
}

/// A while, as a line and a bell are to be looked at.
fn sleep_unless(bell: &Bell, has_work: impl Fn() -> bool) {
    let announced = bell.announce();
    if !has_work() {
        let _ = announced.sleep(Some(Duration::from_millis(2)));
    }
}

fn run_claimed(hand: &Hand, queue: &Queue, claimed: Claimed, state: &mut u8) {
    let record = Record::unpack(&claimed.payload).unwrap();
    run(hand, &record, u32::from(claimed.attempt()), state);
    queue.finish(claimed).unwrap();
}

/// Whether it is to be tried again.
fn run(hand: &Hand, record: &Record, attempt: u32, state: &mut u8) -> bool {
    let arguments = match record.body {
        Body::Inline { len, bytes } => bytes[..usize::from(len)].to_vec(),
        Body::Spec(spec) => {
            let spec = hand.store.refer(Handle { slot: spec.slot, generation: spec.generation }).unwrap();
            let bytes = hand.store.get(&spec).unwrap();
            Spec::unpack(&bytes).unwrap().arguments.to_vec()
        }
    };
    match record.key {
        ECHO => seal(hand, record, &arguments),
        DIE if attempt < u32::from(arguments[0]) => raise(Signal::SIGKILL).unwrap(),
        FAIL_ONCE if attempt == 0 => return true,
        DIE | FAIL_ONCE => seal(hand, record, &[attempt as u8]),
        HANG => loop {
            std::thread::park();
        },
        HOLD => {
            let ObjectKey { slot, generation } = record.result;
            hand.store.get_timeout(&hand.store.refer(Handle { slot, generation }).unwrap(), LONG).unwrap();
        }
        PRINT => {
            println!("{}", String::from_utf8(arguments).unwrap());
            seal(hand, record, b"printed");
        }
        ADD => {
            *state += arguments[0];
            seal(hand, record, &[*state]);
        }
        other => panic!("function {other}"),
    }
    false
}

fn seal(hand: &Hand, record: &Record, bytes: &[u8]) {
    let ObjectKey { slot, generation } = record.result;
    // Somebody may have sealed it before, or nobody wants it.
    let _ = hand.store.put_for(Handle { slot, generation }, bytes, &CreateOptions::default());
}

fn be_actor(hand: &mut Hand, actor: &RunActor) -> i32 {
    let constructor = Record::unpack(&actor.words).unwrap();
    if constructor.key == NEVER {
        let error = Failure::new(TaskErrorKind::Returned, "Never::new", "as it was told");
        hand.say(ActorFailed { error: error.to_bytes() });
        return 0;
    }
    hand.say(ActorReady {});
    let mut queues: BTreeMap<u64, Claimer> = BTreeMap::new();
    let serve = |hand: &Hand, queues: &mut BTreeMap<u64, Claimer>, (number, offset)| {
        queues.insert(number, Claimer::new(&hand.queue(offset), hand.number()));
    };
    actor.queues.iter().for_each(|&queue| serve(hand, &mut queues, queue));
    let (mut state, mut is_ending) = (actor.restarts as u8 * 100, false);
    loop {
        let mut found = false;
        for claimer in queues.values_mut() {
            while let Some(claimed) = claimer.claim().unwrap() {
                let queue = claimer.queue().clone();
                run_claimed(hand, &queue, claimed, &mut state);
                found = true;
            }
        }
        if is_ending && !found {
            hand.say(ActorExited {});
            return 0;
        }
        sleep_unless(&hand.bells[actor.bell as usize], || {
            queues.values().any(|claimer| claimer.queue().has_queued().unwrap())
        });
        while let Some(message) = hand.hear_now() {
            match message {
                Message::ServeQueue(more) => serve(hand, &mut queues, (more.queue, more.offset)),
                Message::DropQueue(less) => {
                    queues.remove(&less.queue);
                    hand.say(QueueDropped { queue: less.queue });
                }
                Message::EndWorker(_) => is_ending = true,
                other => panic!("{other:?}"),
            }
        }
    }
}

// The driver.

struct World {
    raylet: Raylet,
    _base: tempfile::TempDir,
}

impl World {
    fn new(cpus: u32) -> World {
        World::with(|config| config.resources = Resources::cpus(Amount::whole(cpus)))
    }

    fn with(change: impl FnOnce(&mut Config)) -> World {
        assert!(std::env::var_os(ROLE_VARIABLE).is_none());
        let base = tempfile::tempdir().unwrap();
        let mut config = Config {
            base: base.path().to_owned(),
            session: "test".to_owned(),
            capacity_bytes: 32 << 20,
            max_clients: 64,
            ..Config::default()
        };
        change(&mut config);
        World { raylet: Raylet::start(&config).unwrap(), _base: base }
    }

    fn driver(&self) -> Driver {
        self.driver_of(ProgramWish::default())
    }

    fn driver_of(&self, program: ProgramWish) -> Driver {
        let hello = Hello { want: Want::Driver, program: Some(program), ..Hello::default() };
        let hand = Hand::join(self.raylet.session().directory(), hello);
        let names = [(ECHO, "echo"), (DIE, "die"), (HANG, "hang"), (PRINT, "print"), (ADD, "Adder"), (NEVER, "Never")];
        hand.say(NameFunctions { names: names.map(|(key, name)| (key, name.to_owned())).into() });
        Driver { hand, request: 0 }
    }

    /// Waits until nobody but the raylet is in the store and no object is left.
    fn wait_until_empty(&self) {
        let store = self.raylet.store();
        until("everybody has left", || store.usage().clients == 1);
        until("every object is gone", || store.usage().by_state.is_empty());
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

struct Driver {
    hand: Hand,
    request: u64,
}

/// A queue of this driver.
struct Lane {
    number: u64,
    submitter: Submitter,
}

impl Driver {
    fn ask(&mut self, message: impl Fn(u64) -> Message) -> Message {
        self.request += 1;
        self.hand.say(message(self.request));
        loop {
            match self.hand.hear() {
                Message::LogLines(lines) => lines.lines.iter().for_each(|line| println!("{}", line.text)),
                Message::QueueEnded(_) => {}
                answer => return answer,
            }
        }
    }

    fn open(&mut self, class: &ClassWish) -> Lane {
        let answer = self.ask(|request| OpenQueue { request, class: class.clone() }.into());
        self.lane(answer)
    }

    fn lane(&self, answer: Message) -> Lane {
        let Message::QueueOpened(opened) = answer else { panic!("{answer:?}") };
        let queue = self.hand.queue(opened.offset);
        assert_eq!(queue.owner(), self.hand.number());
        Lane { number: opened.queue, submitter: Submitter::new(&queue).unwrap() }
    }

    /// Submits, and asks for a worker where there is none.
    fn submit(&self, lane: &mut Lane, record: &Record) {
        lane.submitter.try_submit(&record.pack()).unwrap();
        self.want(lane, 1);
    }

    fn want(&self, lane: &Lane, wanted: u32) {
        if lane.submitter.queue().service() == Service::Claimers(0) {
            let backlog = lane.submitter.in_flight() as u32;
            self.hand.say(WantWorkers { queue: lane.number, wanted, backlog });
        }
    }

    fn call(&self, lane: &mut Lane, function: u64, retries: i16, arguments: &[u8]) -> ObjectRef {
        let result = self.hand.promise();
        self.submit(lane, &record(function, Some(&result), retries, arguments));
        result
    }

    fn submit_task(&self, record: &Record, waits_for: Vec<ObjectKey>) {
        self.hand.say(SubmitTask { class: class(1), waits_for, words: record.pack() });
    }

    /// Makes an actor and opens a queue to it.
    fn actor(&mut self, change: impl Fn(&mut CreateActor)) -> (ObjectRef, Lane) {
        let anchor = self.hand.store.put(b"anchor").unwrap();
        let wish = |request| {
            let words = Record { kind: Kind::Create, ..record(ADD, None, 0, b"") }.pack();
            let mut wish =
                CreateActor { request, anchor: key(&anchor), class: class(1), words, ..CreateActor::default() };
            change(&mut wish);
            wish
        };
        let answer = self.ask(|request| wish(request).into());
        let Message::ActorCreated(created) = answer else { panic!("{answer:?}") };
        assert_eq!(created.anchor, key(&anchor));
        let lane = self.open_to(&anchor);
        (anchor, lane)
    }

    fn open_to(&mut self, anchor: &ObjectRef) -> Lane {
        let answer = self.ask(|request| OpenActorQueue { request, anchor: key(anchor) }.into());
        self.lane(answer)
    }

    fn add(&self, lane: &mut Lane, amount: u8) -> ObjectRef {
        let result = self.hand.promise();
        lane.submitter.try_submit(&record(ADD, Some(&result), 0, &[amount]).pack()).unwrap();
        result
    }
}

#[test]
fn records_of_a_queue_run_on_leased_workers() {
    let world = World::new(2);
    let mut driver = world.driver();
    let mut lane = driver.open(&class(1));
    let calls: Vec<(ObjectRef, [u8; 4])> = (0..1000u32)
        .map(|number| (driver.call(&mut lane, ECHO, 0, &number.to_le_bytes()), number.to_le_bytes()))
        .collect();
    for (result, expected) in &calls {
        assert_eq!(&driver.hand.value(result)[..], expected);
    }
    // Again, after the lease has gone back for being idle.
    until("the lease goes back", || lane.submitter.queue().service() == Service::Claimers(0));
    let again = driver.call(&mut lane, ECHO, 0, b"again");
    assert_eq!(&driver.hand.value(&again)[..], b"again");
    drop((calls, again, driver));
    world.wait_until_empty();
}

#[test]
fn what_a_dead_worker_had_claimed_runs_again_or_fails() {
    let world = World::new(1);
    let mut driver = world.driver();
    let mut lane = driver.open(&class(1));
    let retried = driver.call(&mut lane, DIE, 3, &[2]);
    let behind = driver.call(&mut lane, ECHO, 0, b"behind");
    assert_eq!(&driver.hand.value(&retried)[..], [2]);
    assert_eq!(&driver.hand.value(&behind)[..], b"behind");
    let failed = driver.call(&mut lane, DIE, 1, &[9]);
    let failure = driver.hand.failure(&failed);
    assert_eq!((failure.kind, failure.function.as_str()), (TaskErrorKind::WorkerCrashed, "die"));
    assert!(failure.message.contains("(signal 9); it had 2 attempts"), "{}", failure.message);
    drop((retried, behind, failed, driver));
    world.wait_until_empty();
}

#[test]
fn tasks_go_through_the_raylet_and_wait_for_their_arguments() {
    let world = World::new(1);
    let mut driver = world.driver();
    let hand = &driver.hand;
    let (first, second, third) = (hand.promise(), hand.promise(), hand.promise());
    let argument = hand.promise();
    // Each waits for the one before, the first for a value that does not stand yet.
    let spec = Spec { more_results: Vec::new(), awaited: vec![0], arguments: b"by spec" };
    let options =
        CreateOptions { references: std::slice::from_ref(&argument), by_handle_only: true, ..Default::default() };
    let spec = hand.store.put_with(&spec.pack(), &options).unwrap();
    let by_spec = Record { body: Body::Spec(key(&spec)), ..record(ECHO, Some(&first), 0, b"") };
    driver.submit_task(&by_spec, vec![key(&argument)]);
    driver.submit_task(&record(DIE, Some(&second), 1, &[1]), vec![key(&first)]);
    driver.submit_task(&record(FAIL_ONCE, Some(&third), 1, b""), vec![key(&second)]);
    // Messages of one line are taken in order: after an answer, the raylet holds what the tasks need.
    driver.ask(|request| FindActor { request, ..FindActor::default() }.into());
    drop(spec);
    assert!(!first.is_ready());
    let hand = &driver.hand;
    hand.store.put_for(argument.handle(), b"argument", &CreateOptions::default()).unwrap();
    assert_eq!(&hand.value(&third)[..], [1]);
    assert_eq!(&hand.value(&second)[..], [1]);
    assert_eq!(&hand.value(&first)[..], b"by spec");
    drop((first, second, third, argument, driver));
    world.wait_until_empty();
}

#[test]
fn a_cancelled_task_does_not_run_and_by_force_not_to_its_end() {
    let world = World::new(1);
    let mut driver = world.driver();
    let mut lane = driver.open(&class(1));
    let hanging = driver.call(&mut lane, HANG, 3, b"");
    until("somebody has claimed it", || !lane.submitter.queue().has_queued().unwrap());
    let waiting = driver.hand.promise();
    driver.submit_task(&record(ECHO, Some(&waiting), 0, b""), Vec::new());
    driver.hand.say(CancelTask { result: key(&waiting), recursive: true, ..CancelTask::default() });
    assert_eq!(driver.hand.failure(&waiting).kind, TaskErrorKind::Cancelled);
    // As callers do: the first seal wins.
    let error = Failure::new(TaskErrorKind::Cancelled, "hang", "by hand").to_bytes();
    let options = CreateOptions { encoding: Encoding::Error, ..CreateOptions::default() };
    driver.hand.store.put_for(hanging.handle(), &error, &options).unwrap();
    driver.hand.say(CancelTask { result: key(&hanging), force: true, recursive: true, ..CancelTask::default() });
    let behind = driver.call(&mut lane, ECHO, 0, b"behind");
    assert_eq!(&driver.hand.value(&behind)[..], b"behind");
    until("its record is finished", || {
        lane.submitter.reap(|_, _| {}).unwrap() + 1 > 0 && lane.submitter.in_flight() == 0
    });
    drop((hanging, waiting, behind, driver));
    world.wait_until_empty();
}

#[test]
fn an_actor_is_called_made_again_and_ends_with_its_handles() {
    let world = World::new(1);
    let mut driver = world.driver();
    let (anchor, mut lane) = driver.actor(|wish| wish.restarts_max = 1);
    let sums = [driver.add(&mut lane, 1), driver.add(&mut lane, 2)];
    assert_eq!(sums.each_ref().map(|sum| driver.hand.value(sum)[0]), [1, 3]);
    // Dies of its first call ever, made anew: what was under way fails, what waits is done.
    let dying = driver.hand.promise();
    let waiting = {
        lane.submitter.try_submit(&record(DIE, Some(&dying), 0, &[9]).pack()).unwrap();
        driver.add(&mut lane, 5)
    };
    let failure = driver.hand.failure(&dying);
    assert_eq!(failure.kind, TaskErrorKind::ActorUnavailable, "{failure:?}");
    assert_eq!(driver.hand.value(&waiting)[0], 105);
    // And again, for good: held until both are in the queue, which nobody looks at once it has ended.
    let [held, last] = [driver.hand.promise(), driver.hand.promise()];
    lane.submitter.try_submit(&record(HOLD, Some(&held), 0, b"").pack()).unwrap();
    lane.submitter.try_submit(&record(DIE, Some(&last), 0, &[9]).pack()).unwrap();
    let lost = driver.add(&mut lane, 1);
    driver.hand.store.put_for(held.handle(), b"go", &CreateOptions::default()).unwrap();
    let failure = driver.hand.failure(&lost);
    assert_eq!((failure.kind, failure.function.as_str()), (TaskErrorKind::ActorDied, "Adder"));
    assert!(failure.message.contains("(signal 9) after 1 restarts"), "{}", failure.message);
    assert_eq!(driver.hand.failure(&last).kind, TaskErrorKind::ActorDied);
    assert_eq!(lane.submitter.queue().service(), Service::Ended);
    let answer = driver.ask(|request| AskActor { request, anchor: key(&anchor) }.into());
    let Message::ActorFound(found) = answer else { panic!("{answer:?}") };
    let death = Failure::from_bytes(&found.death.unwrap());
    assert_eq!((found.anchor, death.kind, death.function.as_str()), (None, TaskErrorKind::ActorDied, "Adder"));
    drop((anchor, sums, dying, waiting, held, last, lost, driver));
    world.wait_until_empty();
}

#[test]
fn actors_have_names_until_nobody_can_call_them() {
    let world = World::new(2);
    let mut driver = world.driver();
    let (anchor, mut lane) = driver.actor(|wish| wish.name = Some("adder".to_owned()));
    let find = |request| FindActor { request, name: "adder".to_owned(), ..FindActor::default() }.into();
    let answer = driver.ask(find);
    assert!(matches!(&answer, Message::ActorFound(found) if found.anchor == Some(key(&anchor))), "{answer:?}");
    // The name is taken; whoever wants the one of that name gets it.
    let other = driver.hand.store.put(b"other").unwrap();
    let wish = |request, get_if_exists| {
        let words = Record { kind: Kind::Create, ..record(ADD, None, 0, b"") }.pack();
        let name = Some("adder".to_owned());
        CreateActor { request, anchor: key(&other), name, get_if_exists, words, ..CreateActor::default() }.into()
    };
    let answer = driver.ask(|request| wish(request, false));
    assert!(matches!(&answer, Message::Refused(refused) if refused.code == RefusalCode::NameTaken), "{answer:?}");
    let answer = driver.ask(|request| wish(request, true));
    assert!(matches!(&answer, Message::ActorCreated(created) if created.anchor == key(&anchor)), "{answer:?}");
    // Another caller has a queue of its own.
    let mut other_driver = world.driver();
    let theirs = other_driver.hand.store.refer(anchor.handle()).unwrap();
    let mut their_lane = other_driver.open_to(&theirs);
    assert_eq!(other_driver.hand.value(&other_driver.add(&mut their_lane, 7))[0], 7);
    drop((theirs, their_lane, other_driver));
    let last = driver.add(&mut lane, 1);
    let released = key(&anchor);
    drop(anchor);
    driver.hand.say(ReleasedActor { anchor: released });
    assert_eq!(driver.hand.value(&last)[0], 8);
    until("it has ended", || lane.submitter.queue().service() == Service::Ended);
    let answer = driver.ask(find);
    assert!(matches!(&answer, Message::ActorFound(found) if found.anchor.is_none()), "{answer:?}");
    drop((other, last, driver));
    world.wait_until_empty();
}

#[test]
fn a_constructor_that_fails_is_the_death_of_its_actor() {
    let world = World::new(1);
    let mut driver = world.driver();
    let never = Record { kind: Kind::Create, ..record(NEVER, None, 0, b"") };
    let (anchor, mut lane) = driver.actor(|wish| wish.words = never.pack());
    let call = driver.add(&mut lane, 1);
    // Whether it was there before the actor died, or comes too late and is taken back.
    until("the actor is dead", || lane.submitter.queue().service() == Service::Ended);
    let answer = driver.ask(|request| AskActor { request, anchor: key(&anchor) }.into());
    let Message::ActorFound(found) = answer else { panic!("{answer:?}") };
    let death = Failure::from_bytes(&found.death.unwrap());
    assert!(death.message.contains("its constructor failed: as it was told"), "{}", death.message);
    drop((anchor, call, driver));
    world.wait_until_empty();
}

#[test]
fn what_a_driver_leaves_behind_runs_where_others_want_it() {
    let world = World::new(1);
    let mut driver = world.driver();
    let other = world.driver();
    let mut lane = driver.open(&class(1));
    let wanted = driver.call(&mut lane, ECHO, 0, b"wanted");
    let theirs = other.hand.store.refer(wanted.handle()).unwrap();
    let promised = driver.hand.promise();
    let never_made = other.hand.store.refer(promised.handle()).unwrap();
    let unwanted = driver.call(&mut lane, HANG, 0, b"");
    drop((wanted, promised, unwanted, driver));
    assert_eq!(&other.hand.value(&theirs)[..], b"wanted");
    assert_eq!(other.hand.failure(&never_made).kind, TaskErrorKind::CallerDied);
    drop((theirs, never_made, other));
    world.wait_until_empty();
}

#[test]
fn placement_groups_are_reserved_as_a_whole_and_removed_with_what_they_hold() {
    let world = World::new(2);
    let mut driver = world.driver();
    let promise = driver.hand.promise();
    let group = key(&promise);
    let bundles = vec![demand(1), demand(1)];
    let create = |request| CreateGroup { request, group, bundles: bundles.clone(), ..CreateGroup::default() }.into();
    let answer = driver.ask(create);
    assert!(matches!(answer, Message::Done(_)), "{answer:?}");
    assert_eq!(&driver.hand.value(&promise)[..], [0xc0]);
    let inside = ClassWish { placement: Some(BundleWish { group, bundle: Some(1) }), ..class(1) };
    let mut lane = driver.open(&inside);
    let result = driver.call(&mut lane, ECHO, 0, b"inside");
    assert_eq!(&driver.hand.value(&result)[..], b"inside");
    let hanging = driver.call(&mut lane, HANG, 0, b"");
    driver.hand.say(RemoveGroup { group });
    assert_eq!(driver.hand.failure(&hanging).kind, TaskErrorKind::Refused);
    let answer = driver.ask(|request| OpenQueue { request, class: inside.clone() }.into());
    assert!(matches!(&answer, Message::Refused(refused) if refused.code == RefusalCode::NoSuchGroup), "{answer:?}");
    drop((promise, result, hanging, driver));
    world.wait_until_empty();
}

#[test]
fn what_workers_write_reaches_their_driver_and_no_other() {
    let world = World::new(2);
    let (mut driver, mut other) = (world.driver(), world.driver());
    let mut lane = driver.open(&class(1));
    let mut others_lane = other.open(&class(1));
    let result = driver.call(&mut lane, PRINT, 0, b"for the first");
    let others_result = other.call(&mut others_lane, PRINT, 0, b"for the second");
    for (driver, expected) in [(&mut driver, "for the first"), (&mut other, "for the second")] {
        let line = loop {
            if let Message::LogLines(mut lines) = driver.hand.hear() {
                assert_eq!(lines.lines.len(), 1, "{lines:?}");
                break lines.lines.remove(0);
            }
        };
        assert_eq!((line.text.as_str(), line.is_error), (expected, false));
        assert_ne!(line.pid, 0);
    }
    drop((result, others_result, driver, other));
    world.wait_until_empty();
}

#[test]
fn a_program_that_is_no_program_is_a_clear_error() {
    let world = World::new(1);
    let program = ProgramWish { executable: Some("/no/such/program".to_owned()), ..ProgramWish::default() };
    let mut driver = world.driver_of(program);
    let mut lane = driver.open(&class(1));
    let result = driver.call(&mut lane, ECHO, 0, b"");
    let failure = driver.hand.failure(&result);
    assert_eq!((failure.kind, failure.function.as_str()), (TaskErrorKind::Refused, "echo"));
    assert!(failure.message.contains("/no/such/program"), "{}", failure.message);
    // It may ask again: nothing is broken for good.
    assert_eq!(lane.submitter.queue().service(), Service::Claimers(0));
    drop((result, driver));
    world.wait_until_empty();
}

#[test]
fn workers_that_hang_before_they_are_ready_are_a_clear_error() {
    let world = World::with(|config| {
        config.resources = Resources::cpus(Amount::whole(1));
        config.scheduler.start_timeout_us = 100_000;
    });
    let variables = std::env::vars().chain([(HANG_VARIABLE.to_owned(), "1".to_owned())]);
    let program = ProgramWish { environment: Some(variables.collect()), ..ProgramWish::default() };
    let mut driver = world.driver_of(program);
    let mut lane = driver.open(&class(1));
    let result = driver.call(&mut lane, ECHO, 0, b"");
    let failure = driver.hand.failure(&result);
    assert_eq!((failure.kind, failure.function.as_str()), (TaskErrorKind::Refused, "echo"));
    assert!(failure.message.contains("was not ready in time"), "{}", failure.message);
    drop((result, driver));
    world.wait_until_empty();
}

#[test]
fn a_request_that_is_too_large_is_reported_and_waits() {
    let world = World::new(1);
    let mut driver = world.driver();
    let mut lane = driver.open(&class(4));
    let result = driver.call(&mut lane, ECHO, 0, b"");
    let notice = loop {
        if let Message::Notice(notice) = driver.hand.hear() {
            break notice.text;
        }
    };
    assert!(notice.contains("asks for 4 CPU") && notice.contains("1 CPU"), "{notice}");
    assert!(!result.is_ready());
    drop((result, driver));
    world.wait_until_empty();
}

#[test]
fn whichever_worker_is_killed_every_task_ends() {
    let world = World::new(3);
    let mut driver = world.driver();
    let mut lane = driver.open(&class(1));
    let direct: Vec<ObjectRef> = (0..400u32).map(|at| driver.call(&mut lane, ECHO, -1, &at.to_le_bytes())).collect();
    let routed: Vec<ObjectRef> = (0..100).map(|_| driver.hand.promise()).collect();
    for (at, result) in (0..100u32).zip(&routed) {
        driver.submit_task(&record(ECHO, Some(result), -1, &at.to_le_bytes()), Vec::new());
    }
    driver.want(&lane, 3);
    let mut random = 1u64;
    for _ in 0..30 {
        // A worker, not this process, at a moment that differs each time.
        let pids = world.raylet.store().clients().into_iter().map(|client| client.pid);
        let pids: Vec<u32> = pids.filter(|&pid| pid != std::process::id()).collect();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Some(&pid) = pids.get((random >> 33) as usize % pids.len().max(1)) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        (0..(random >> 60) * 1000).for_each(|_| std::hint::spin_loop());
        driver.want(&lane, 3);
    }
    for (results, count) in [(&direct, 400u32), (&routed, 100)] {
        for (at, result) in (0..count).zip(results) {
            assert_eq!(&driver.hand.value(result)[..], at.to_le_bytes());
        }
    }
    drop((direct, routed, driver));
    world.wait_until_empty();
}

#[test]
fn who_says_to_be_a_worker_and_is_not_is_told_so() {
    let world = World::new(1);
    let hello = Hello { want: Want::Worker, worker: Some(77), ..Hello::default() };
    let mut hand = Hand::join(world.raylet.session().directory(), hello);
    let answer = hand.hear();
    assert!(matches!(&answer, Message::Error(error) if error.numbers["worker"] == 77), "{answer:?}");
    drop(hand);
    world.wait_until_empty();
}
