//! A task whose argument lists another object: its submitter and its worker die, or stop.
//!
//! The one thing to know: the steps are those of the client's engine (`engine/spec`, `engine/lane`),
//! of its worker (`worker/run`, `worker/results`), and, before a dead client is swept, of the raylet
//! (`schedule/deaths`, `schedule/left`), by the same calls of the store, the queue and the records,
//! and without the control line: here one task is all there is. It must change when those do.

use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind, ObjectKey, Record, Spec};
use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{ClientId, CreateError, CreateOptions, Encoding, Handle, Object, ObjectRef, Store};
use store_shm::queue::{Cancel, Claimed, Claimer, PAYLOAD_WORDS, Payload, Queue, Service, Submitter};
use store_shm::segment::{Memfd, page_bytes};
use store_shm::{SharedArray, SharedMap};
use tests::shared::SharedWords;
use tests::stepping::{Operation, Plan, drive};
use tests::world::{World, at_once, check_content, content, id_of, look, put};
use tests::{Unboxed, alone};

const MIB: u64 = 1 << 20;
const RECORDS: u64 = 4;
const NESTED: u64 = 1;
const ARGUMENT: u64 = 2;
const RESULT: u64 = 3;
const OUTSIDE: u64 = 4;
const NESTED_BYTES: u64 = 50;
const LIST_BYTES: u64 = 24;
/// What stands for the packed arguments.
const PACKED: &[u8] = b"one argument, awaited";

fn make_queue(owner: u16) -> Queue {
    let page = page_bytes();
    let bytes = page + Queue::bytes(RECORDS).expect("four is a power of two");
    let memfd = Memfd::create("queue", bytes.next_multiple_of(page)).expect("a test maps a few pages");
    let map = Arc::new(SharedMap::map(&memfd).expect("a test maps a few pages"));
    let bells = SharedArray::new(&map, 0, 1).expect("the first page is theirs");
    Queue::format(&map, page, RECORDS, &bells, 0, owner).expect("the rest is its")
}

fn key(handle: Handle) -> ObjectKey {
    ObjectKey { slot: handle.slot, generation: handle.generation }
}

fn handle(key: ObjectKey) -> Handle {
    Handle { slot: key.slot, generation: key.generation }
}

fn list(world: &World, index: u64, references: &[ObjectRef]) -> ObjectRef {
    let options = CreateOptions { references, ..at_once(id_of(index)) };
    world.store.put_with(&content(&id_of(index), LIST_BYTES), &options).expect("there is room")
}

/// An argument that alone keeps another object.
fn make_argument(world: &World) -> ObjectRef {
    let nested = put(&world.store, id_of(NESTED), NESTED_BYTES).expect("there is room");
    list(world, ARGUMENT, slice::from_ref(&nested))
}

/// Words that a victim tells the test by.
struct Told(SharedWords);

impl Told {
    fn new() -> Told {
        Told(SharedWords::new(5))
    }

    fn reset(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    }

    fn say_client(&self, client: ClientId) {
        self.0[0].store(u64::from(client.number), Ordering::SeqCst);
        self.0[1].store(u64::from(client.generation), Ordering::SeqCst);
    }

    fn client(&self) -> ClientId {
        let [number, generation] = [0, 1].map(|at: usize| self.0[at].load(Ordering::SeqCst) as u16);
        ClientId { number, generation }
    }

    fn say_result(&self, result: Handle) {
        self.0[2].store(u64::from(result.slot), Ordering::Relaxed);
        self.0[3].store(result.generation, Ordering::Relaxed);
        self.0[4].store(1, Ordering::Release);
    }

    fn result(&self) -> Option<Handle> {
        let is_there = self.0[4].load(Ordering::Acquire) == 1;
        let [slot, generation] = [2, 3].map(|at: usize| self.0[at].load(Ordering::Relaxed));
        is_there.then_some(Handle { slot: slot as u32, generation })
    }
}

/// As the engine packs a call that awaits one object: into a spec, which lists it.
fn pack(store: &Store, awaited: &ObjectRef, result: Handle, retries: i16) -> (Payload, ObjectRef) {
    let spec = Spec { more_results: Vec::new(), awaited: vec![0], arguments: PACKED };
    let references = slice::from_ref(awaited);
    let options = CreateOptions { by_handle_only: true, references, ..CreateOptions::default() };
    let spec = store.put_with(&spec.pack(), &options).expect("there is room");
    (record(result, retries, Body::Spec(key(spec.handle()))).pack(), spec)
}

fn record(result: Handle, retries: i16, body: Body) -> Record {
    Record {
        key: 7,
        kind: Kind::Task,
        retries_errors: false,
        is_stream: false,
        results: 1,
        retries,
        number: 1,
        parent: 0,
        result: key(result),
        body,
    }
}

/// A call as a worker has it, with its own holds on all that it needs.
struct Call {
    record: Record,
    _spec: Option<Object>,
    awaited: Vec<ObjectRef>,
}

/// As the engine unpacks a call; `None` where its spec is gone.
fn unpack(store: &Store, words: &Payload) -> Option<Call> {
    let record = Record::unpack(words).expect("a caller packed it");
    let Body::Spec(spec) = record.body else { return Some(Call { record, _spec: None, awaited: Vec::new() }) };
    let spec = store.refer(handle(spec))?;
    let object = store.get(&spec).expect("a reference keeps the value");
    let listed = object.references();
    let read = Spec::unpack(&object).expect("a caller packed it");
    assert_eq!(read.arguments, PACKED);
    let awaited = read.awaited.iter().map(|&position| listed[usize::from(position)].clone()).collect();
    Some(Call { record, awaited, _spec: Some(object) })
}

/// What a worker does with a call: the result says what the argument and what that lists say, and
/// lists the same.
fn execute(store: &Store, call: &Call) {
    let arguments = call.awaited.iter().map(|awaited| store.get(awaited).expect("a spec keeps what it lists"));
    let arguments: Vec<Object> = arguments.collect();
    let nested: Vec<ObjectRef> = arguments.iter().flat_map(Object::references).collect();
    let values: Vec<Object> =
        nested.iter().map(|nested| store.get(nested).expect("a list keeps what it lists")).collect();
    let bytes: Vec<&[u8]> = arguments.iter().chain(&values).map(|object| &**object).collect();
    let bytes = bytes.concat();
    let options = CreateOptions { references: &nested, ..CreateOptions::default() };
    match store.create_for(handle(call.record.result), bytes.len() as u64, &options).unboxed() {
        Ok(Some(mut writer)) => {
            writer.copy_from_slice(&bytes);
            drop(writer.seal());
        }
        // Nobody wants it, or somebody was first.
        Ok(None) | Err(CreateError::DuplicateObject { .. }) => {}
        Err(error) => panic!("a result cannot be written: {error}"),
    }
}

fn run(store: &Store, claimed: &Claimed) {
    let call = unpack(store, &claimed.payload).expect("a queued call's spec is held by whoever answers for it");
    if claimed.attempt() == 0 || !stands(store, &call.record) {
        execute(store, &call);
    }
}

/// Claims and runs all there is; how often it ran a call that has a spec.
fn serve(store: &Store, queue: &Queue) -> u64 {
    let mut claimer = Claimer::new(queue, store.client().number);
    let mut count = 0;
    while let Some(claimed) = claimer.claim().expect("nothing is broken") {
        let record = Record::unpack(&claimed.payload).expect("a caller packed it");
        count += u64::from(matches!(record.body, Body::Spec(_)));
        run(store, &claimed);
        claimer.finish(claimed).expect("nobody takes from the living");
    }
    count
}

fn stands(store: &Store, record: &Record) -> bool {
    store.refer(handle(record.result)).is_some_and(|result| result.is_ready())
}

fn seal_error(store: &Store, result: ObjectKey, kind: TaskErrorKind) {
    let bytes = Failure::new(kind, "a task", "it will not run").to_bytes();
    let options = CreateOptions { encoding: Encoding::Error, ..CreateOptions::default() };
    match store.put_for(handle(result), &bytes, &options).unboxed() {
        Ok(_) | Err(CreateError::DuplicateObject { .. }) => {}
        Err(error) => panic!("an error finds no room: {error}"),
    }
}

/// What a result says that stands: `None` for a value, which is right; else the error.
fn check_result(store: &Store, result: &ObjectRef) -> Option<TaskErrorKind> {
    let object = store.get(result).expect("a result that stands can be read");
    if object.encoding() == Encoding::Error {
        return Some(Failure::from_bytes(&object).kind);
    }
    let (argument, nested) = object.split_at(LIST_BYTES as usize);
    check_content(&id_of(ARGUMENT), argument);
    check_content(&id_of(NESTED), nested);
    let listed = object.references();
    assert_eq!(listed.len(), 1, "the result lists what its argument does");
    check_content(&id_of(NESTED), &store.view(&listed[0]).expect("a result keeps what it lists"));
    None
}

/// Nothing that stands lists what is gone.
fn check_nothing_dangles(store: &Store) {
    for object in store.list().iter().filter_map(|info| store.refer(info.handle)).filter(ObjectRef::is_ready) {
        let found = store.get(&object).expect("a reference keeps the value").references();
        for listed in found.iter().filter(|listed| listed.is_ready()) {
            drop(store.view(listed).expect("a list keeps what it lists"));
        }
    }
}

/// A caller submits a task.
struct Submit {
    queue: Queue,
    told: Told,
    /// Whether somebody else wants its result.
    is_wanted: bool,
    /// Whether a worker claims it before the dead caller is swept, and stops there until that is over.
    is_claimed: bool,
    claimed: Option<Claimed>,
    argument: Option<ObjectRef>,
    submitter: Option<Submitter>,
    result: Option<ObjectRef>,
    spec: Option<ObjectRef>,
    /// Of another client, which got the result from the caller: a list.
    outside: Option<ObjectRef>,
    /// What the raylet took over.
    adopted: Vec<ObjectRef>,
    runs: u64,
}

impl Submit {
    fn new(world: &World, is_wanted: bool, is_claimed: bool) -> Submit {
        Submit {
            queue: make_queue(world.store.client().number),
            told: Told::new(),
            is_wanted,
            is_claimed,
            claimed: None,
            argument: None,
            submitter: None,
            result: None,
            spec: None,
            outside: None,
            adopted: Vec::new(),
            runs: 0,
        }
    }

    /// Somebody else refers to the result, as soon as there is one.
    fn want(&mut self, world: &World) {
        if let Some(result) = self.told.result().filter(|_| self.is_wanted && self.outside.is_none()) {
            let result = world.store.refer(result).expect("its caller has not let go of it");
            self.outside = Some(list(world, OUTSIDE, &[result]));
        }
    }

    /// The calls of a dead caller: those that are wanted are taken over, the others will not begin.
    fn leave(&mut self, store: &Store, dead: ClientId) -> BTreeSet<ObjectKey> {
        let mut kept = BTreeSet::new();
        let claimed = self.queue.claimed_by(store.client().number);
        for entry in self.queue.queued().chain(claimed).collect::<Vec<_>>() {
            let record = Record::unpack(&entry.payload).expect("the caller packed it");
            let Body::Spec(spec) = record.body else { panic!("it has a spec") };
            if is_wanted(store, record.result, dead) {
                self.adopted.push(store.refer(handle(spec)).expect("the dead hold it until they are swept"));
                kept.insert(record.result);
            } else if self.claimed.is_none() {
                assert_eq!(self.queue.cancel(entry.word.position), Cancel::Cancelled, "nobody else claims");
                seal_error(store, record.result, TaskErrorKind::CallerDied);
            }
        }
        kept
    }

    /// The worker that stopped goes on.
    fn run_claimed(&mut self, store: &Store) {
        let Some(claimed) = self.claimed.take() else { return };
        match unpack(store, &claimed.payload) {
            Some(call) => {
                execute(store, &call);
                self.runs += 1;
            }
            None => assert!(self.outside.is_none(), "the spec of a call that somebody wants is gone"),
        }
        self.queue.finish(claimed).expect("nobody takes from the living");
    }

    /// What somebody wants has the right value, if it was submitted, and else an error.
    fn check_outside(&self, store: &Store) {
        let Some(outside) = &self.outside else { return };
        let listed = store.get(outside).expect("it is sealed").references();
        assert!(listed[0].is_ready(), "a result that somebody waits for never comes");
        match check_result(store, &listed[0]) {
            None => assert_eq!(self.runs, 1, "a value without a run"),
            Some(error) => assert_eq!((error, self.runs), (TaskErrorKind::CallerDied, 0)),
        }
    }
}

/// Whether anybody but a dead caller and us refers to an object: here no call waits for another.
fn is_wanted(store: &Store, object: ObjectKey, dead: ClientId) -> bool {
    let us = store.client().number;
    let found = store.list_from(object.slot, 1);
    let info = found.first().filter(|info| key(info.handle) == object).expect("the dead hold it");
    info.listed > 0 || info.holders.iter().any(|holder| ![us, dead.number].contains(&holder.client))
}

/// What the dead promised, handed out, and will not be made by anybody.
fn break_promises(store: &Store, dead: ClientId, kept: &BTreeSet<ObjectKey>) {
    for promise in store.promises_of(dead) {
        if !kept.contains(&key(promise)) && store.holders_besides(promise, dead) {
            seal_error(store, key(promise), TaskErrorKind::CallerDied);
        }
    }
}

impl Operation for Submit {
    fn prepare(&mut self, world: &World) {
        self.told.reset();
        self.runs = 0;
        self.argument = Some(make_argument(world));
        // A worker that seems to sleep, so that ringing goes the long way.
        std::mem::forget(self.queue.bell().announce());
    }

    fn hand_over(&mut self, _: &World) {
        self.argument = None;
    }

    fn warm(&mut self, world: &World) {
        world.work();
        self.told.say_client(world.store.client());
        self.submitter = Some(Submitter::new(&self.queue).expect("nothing is broken"));
    }

    fn run(&mut self, world: &World) {
        let store = &world.store;
        let result = store.promise_by_handle(Some(&id_of(RESULT))).expect("there is room");
        self.told.say_result(result.handle());
        let argument = self.argument.take().expect("prepared");
        let (words, spec) = pack(store, &argument, result.handle(), 3);
        let submitter = self.submitter.as_mut().expect("it is warm");
        submitter.try_submit(&words).expect("there is room");
        (self.spec, self.result) = (Some(spec), Some(result));
        assert_eq!(self.queue.service(), Service::Claimers(0), "nobody gives out claimers here");
        // From here on only the spec keeps it.
        drop(argument);
        let spec = &mut self.spec;
        submitter.reap(|_, _| *spec = None).expect("nothing is broken");
    }

    fn verify(&mut self, world: &World) {
        let result = self.result.as_ref().expect("it ran");
        if result.is_ready() {
            assert_eq!(check_result(&world.store, result), None);
        }
    }

    fn beside(&mut self, world: &World) {
        self.want(world);
        self.runs += serve(&world.store, &self.queue);
        assert!(self.runs <= 1, "the one task ran {} times", self.runs);
        for index in [NESTED, ARGUMENT] {
            look(&world.store, &id_of(index));
        }
    }

    fn before_sweep(&mut self, world: &World) {
        self.want(world);
        if self.is_claimed {
            let mut claimer = Claimer::new(&self.queue, world.store.client().number);
            self.claimed = claimer.claim().expect("nothing is broken");
        }
        let dead = self.told.client();
        let kept = self.leave(&world.store, dead);
        break_promises(&world.store, dead, &kept);
        self.queue.mend().expect("nothing is broken");
    }

    fn after(&mut self, world: &World) {
        self.run_claimed(&world.store);
        let left = serve(&world.store, &self.queue);
        assert!(self.is_wanted || left == 0, "what nobody wants was claimed");
        self.runs += left;
        assert!(self.runs <= 1, "the one task ran {} times", self.runs);
        self.check_outside(&world.store);
        check_nothing_dangles(&world.store);
        let mut successor = Submitter::new(&self.queue).expect("nothing is broken");
        successor.reap(|_, _| {}).expect("nothing is broken");
        assert_eq!(successor.in_flight(), 0, "a record never ended");
    }

    fn clean(&mut self, world: &World) {
        // The result, by itself, keeps what it lists.
        self.adopted.clear();
        self.check_outside(&world.store);
        self.outside = None;
    }
}

/// A caller that lives.
struct Caller {
    submitter: Submitter,
    /// By the position of their record, until that is reaped.
    specs: BTreeMap<u64, ObjectRef>,
    result: Option<ObjectRef>,
}

impl Caller {
    fn reap(&mut self) {
        let specs = &mut self.specs;
        let reaped = self.submitter.reap(|position, _| drop(specs.remove(&position.number())));
        reaped.expect("nothing is broken");
    }

    /// A call without an argument, which goes through whatever one stopped worker has.
    fn call_another(&mut self, store: &Store) {
        let result = store.promise_by_handle(None).expect("there is room");
        let body = Body::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] };
        self.submitter.try_submit(&record(result.handle(), 0, body).pack()).expect("there is room");
        serve(store, self.submitter.queue());
        assert!(result.is_ready(), "a stopped worker holds up another call");
        self.reap();
    }
}

/// A worker runs a task.
struct Work {
    told: Told,
    caller: Caller,
    retries: i16,
    /// Whether the next worker comes before the dead one is swept.
    is_at_once: bool,
    /// Whether the raylet ended the task.
    has_failed: bool,
}

impl Work {
    fn new(world: &World, retries: i16, is_at_once: bool) -> Work {
        let queue = make_queue(world.store.client().number);
        let submitter = Submitter::new(&queue).expect("nothing is broken");
        let caller = Caller { submitter, specs: BTreeMap::new(), result: None };
        Work { told: Told::new(), caller, retries, is_at_once, has_failed: false }
    }

    fn queue(&self) -> &Queue {
        self.caller.submitter.queue()
    }

    /// What a dead worker had claimed is over if its result stands, is tried again if it may be, and
    /// fails otherwise.
    fn take_claims(&mut self, store: &Store, dead: u16) {
        for entry in self.queue().claimed_by(dead).collect::<Vec<_>>() {
            let (position, record) = (entry.word.position, Record::unpack(&entry.payload).expect("a caller packed it"));
            let may_retry = record.may_retry(u32::from(entry.word.attempt));
            if !stands(store, &record) && may_retry {
                assert!(self.queue().requeue(position, dead), "nobody else sweeps");
                continue;
            }
            if !stands(store, &record) {
                seal_error(store, record.result, TaskErrorKind::WorkerCrashed);
                self.has_failed = true;
            }
            assert!(self.queue().finish_for_dead(position, dead), "nobody else sweeps");
        }
        self.queue().mend().expect("nothing is broken");
    }

    fn look_at_result(&self, store: &Store) {
        let result = self.caller.result.as_ref().expect("prepared");
        if result.is_ready() {
            let expected = self.has_failed.then_some(TaskErrorKind::WorkerCrashed);
            assert_eq!(check_result(store, result), expected);
        }
    }
}

impl Operation for Work {
    fn prepare(&mut self, world: &World) {
        self.told.reset();
        self.has_failed = false;
        let argument = make_argument(world);
        let result = world.store.promise_by_handle(Some(&id_of(RESULT))).expect("there is room");
        let (words, spec) = pack(&world.store, &argument, result.handle(), self.retries);
        let position = self.caller.submitter.try_submit(&words).expect("there is room");
        self.caller.specs.insert(position.number(), spec);
        self.caller.result = Some(result);
    }

    fn warm(&mut self, world: &World) {
        world.work();
        self.told.say_client(world.store.client());
        // The caller's, not this worker's.
        self.caller.specs.clear();
        self.caller.result = None;
    }

    fn run(&mut self, world: &World) {
        let mut claimer = Claimer::new(self.queue(), world.store.client().number);
        if let Some(claimed) = claimer.claim().expect("nothing is broken") {
            run(&world.store, &claimed);
            claimer.finish(claimed).expect("nobody takes from the living");
        }
    }

    fn beside(&mut self, world: &World) {
        self.look_at_result(&world.store);
        self.caller.call_another(&world.store);
        assert!(self.queue().claimed_by(self.told.client().number).count() <= 1, "it claims one");
    }

    fn before_sweep(&mut self, world: &World) {
        self.take_claims(&world.store, self.told.client().number);
        if self.is_at_once {
            self.after(world);
        }
    }

    fn after(&mut self, world: &World) {
        serve(&world.store, self.queue());
        self.caller.reap();
        assert_eq!(self.caller.submitter.in_flight(), 0, "a record never ended");
        assert!(self.caller.specs.is_empty(), "a spec was not let go");
        let result = self.caller.result.as_ref().expect("prepared");
        assert!(result.is_ready(), "a caller waits in vain");
        self.look_at_result(&world.store);
        check_nothing_dangles(&world.store);
    }

    fn clean(&mut self, _: &World) {
        self.caller.result = None;
    }
}

const _: () = assert!(PAYLOAD_WORDS == raylet_api::record::RECORD_WORDS);

fn drive_submit(name: &str, is_wanted: bool, is_claimed: bool) {
    let world = World::new(4 * MIB);
    let submit = Submit::new(&world, is_wanted, is_claimed);
    drive(name, world, submit, Plan::EVERY);
}

fn drive_work(name: &str, retries: i16, is_at_once: bool, plan: Plan) {
    let world = World::new(4 * MIB);
    let work = Work::new(&world, retries, is_at_once);
    drive(name, world, work, plan);
}

alone!(submitter_of_what_another_wants {
    drive_submit("submit a task whose result another wants", true, false);
});

alone!(submitter_of_what_nobody_wants {
    drive_submit("submit a task whose result nobody else wants", false, false);
});

alone!(submitter_of_what_another_wants_and_a_worker_has_claimed {
    drive_submit("submit a task that another wants and a worker has claimed", true, true);
});

alone!(submitter_of_what_nobody_wants_and_a_worker_has_claimed {
    drive_submit("submit a task that nobody wants and a worker has claimed", false, true);
});

alone!(worker {
    drive_work("run a task", 3, false, Plan::EVERY);
});

alone!(worker_whose_successor_comes_before_the_sweep {
    drive_work("run a task that is run again at once", 3, true, Plan::EVERY);
});

alone!(worker_of_a_task_that_is_not_tried_again {
    drive_work("run a task once", 0, false, Plan::ONCE);
});
