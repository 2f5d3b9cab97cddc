//! The mechanisms that a runtime of tasks and actors is made of, each with the number by which the
//! project's goals list them, on real raylets.
//!
//! The one thing to know: a test is named after its number and what it shows, and could fail: it kills,
//! counts processes, reads ids, ledgers and listings. Other drivers are this executable once more, see
//! `another_driver`. Numbers that are missing are Python's or have no runtime of their own; the golden
//! bytes of 29 are in the protocol's crate, the Chrome trace of 28 in the command line's tests. This
//! file must not assert how long anything takes.

#[path = "mechanisms/tap.rs"]
mod tap;
#[path = "mechanisms/world.rs"]
mod world;

mod programs;

use raylet::Config as RayletConfig;
use raylet_api::frame::{Decoder, encode};
use raylet_api::inside::{self, ActorState, ListActors, TaskState, Timeline, WorkerState};
use raylet_api::message::{Hello, ListClients, ListObjects, Message, ObjectState, Want};
use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind, Record};
use raylet_api::{JobId, ObjectId, TaskId};
use raylet_client::prelude::*;
use raylet_client::{Client, ConnectError, ConnectOptions, InitError, profile_event};
use raylet_core::resources::{Amount, Resources};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use tap::Tap;
use world::*;

const TRANSPORTS: [Transport; 2] = [Transport::Direct, Transport::Raylet];

fn kind<T: std::fmt::Debug>(fetched: Result<T, FetchError>) -> TaskErrorKind {
    match fetched {
        Err(FetchError::Task(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

/// The value, within the bound that only a hang reaches.
#[track_caller]
fn get<T: Value>(ray: &Raylet, object: &ObjectRef<T>) -> T {
    ray.get_timeout(object, LONG).unwrap()
}

fn is_late<T: Value>(ray: &Raylet, object: &ObjectRef<T>) -> bool {
    matches!(ray.get_timeout(object, SHORT), Err(FetchError::TimedOut { .. }))
}

fn id<T>(object: &ObjectRef<T>) -> ObjectId {
    object.id().to_string().parse().unwrap()
}

fn job<T>(object: &ObjectRef<T>) -> JobId {
    id(object).task().job()
}

#[remote]
fn increment(n: u64) -> u64 {
    n + 1
}

#[remote]
fn pid() -> i32 {
    std::process::id().cast_signed()
}

#[remote]
fn linger(sign: String) -> std::io::Result<u32> {
    Sign(sign).linger()
}

struct Counter {
    sum: u64,
    kept: Vec<ObjectRef<Vec<u8>>>,
}

#[remote]
impl Counter {
    fn new() -> Counter {
        Counter { sum: 0, kept: Vec::new() }
    }

    fn pid(&self) -> i32 {
        std::process::id().cast_signed()
    }

    fn add(&mut self, n: u64) -> u64 {
        self.sum += n;
        self.sum
    }

    fn keep(&mut self, kept: Vec<ObjectRef<Vec<u8>>>) -> usize {
        self.kept = kept;
        self.kept.len()
    }

    fn kept(&self) -> Vec<ObjectRef<Vec<u8>>> {
        self.kept.clone()
    }
}

/// What runs where another driver is wanted; without its variable, a test of nothing.
#[test]
fn another_driver() {
    match std::env::var(DRIVER).as_deref() {
        Ok("mode") => driver_of_a_mode(),
        Ok("owner") => driver_that_owns(),
        Ok("configured") => driver_with_resources(),
        Ok("chatter") => driver_that_chatters(),
        Ok("transport") => driver_of_a_transport(),
        Ok("maker") => driver_that_makes_actors(),
        Ok(other) => panic!("{DRIVER}={other}"),
        Err(_) => {}
    }
}

/// Inits as it is told, and says its children, its job, and whose process ran a task.
fn driver_of_a_mode() {
    let told = told();
    let mode = if told == "local mode" { Mode::Local } else { Mode::Raylet };
    let address = Some(told.clone()).filter(|told| !told.is_empty() && mode == Mode::Raylet);
    let own = std::process::id().cast_signed();
    match Raylet::init(Config { mode, address, capacity_bytes: 16 << 20, ..Config::default() }) {
        Ok(ray) => {
            let ran_here = get(&ray, &pid::remote(&ray).unwrap()) == own;
            let put = ray.put(1u64).unwrap();
            say(&format!("children={} ran_here={ran_here} job={}", children(own).len(), job(&put).number()));
        }
        Err(InitError::Connect { source: ConnectError::NotRunning { .. }, .. }) => {
            say(&format!("children={} not running", children(own).len()));
        }
        Err(other) => panic!("{other}"),
    }
}

/// What a driver of a mode says: its children, whether it ran its task itself, and the number of its job.
fn said_of_mode(told: &str, base: &Path) -> (usize, bool, u32) {
    let mut driver = Driver::start("mode", told, base, &[]);
    let said = driver.said();
    driver.end();
    let fields: BTreeMap<&str, &str> = said.split(' ').filter_map(|field| field.split_once('=')).collect();
    let [children, ran_here, job] = ["children", "ran_here", "job"].map(|name| *fields.get(name).expect(&said));
    (children.parse().unwrap(), ran_here.parse().unwrap(), job.parse().unwrap())
}

/// 1: local mode is serial in the process, no address starts a raylet or joins the user's, an address
/// joins, and never starts or stops.
#[test]
fn m01_each_mode_of_init_starts_what_it_should() {
    let world = World::new();
    let nobody = tempfile::tempdir().unwrap();
    let (count, ran_here, _) = said_of_mode("local mode", nobody.path());
    assert_eq!((count, ran_here), (0, true), "local mode has no processes");
    let (count, ran_here, job) = said_of_mode("", nobody.path());
    assert_eq!((count, ran_here, job), (1, false, 1), "without an address a raylet is started");
    until("its files to be gone", || entries(nobody.path()).is_empty());
    let mut refused = Driver::start("mode", "auto", nobody.path(), &[]);
    assert_eq!(refused.said(), "children=0 not running", "an address joins, or fails");
    refused.end();
    let told = ["", "auto", &world.session().display().to_string()].map(str::to_owned);
    for (number, told) in (1..).zip(told) {
        let joined = said_of_mode(&told, &world.sessions());
        assert_eq!(joined, (0, false, number), "{told:?} joins the raylet that runs");
        assert!(!is_over(world.raylet_pid()), "it lives on");
    }
    let ray = world.join();
    assert_eq!(get(&ray, &increment::remote(&ray, 1).unwrap()), 2);
}

#[remote]
fn through_init(n: u64) -> Result<u64> {
    let (ray, again) = (Raylet::init(Config::default())?, Raylet::init(Config::default())?);
    // One raylet, so a reference of one is none of a stranger to the other.
    let next = increment::remote(&again, &ray.put(n)?)?;
    Ok(ray.get(&next)?)
}

/// 2: a second init disturbs nothing: it is a membership of its own, and in a worker the worker's.
#[test]
fn m02_a_second_init_is_a_membership_of_its_own() {
    let world = World::new();
    let (one, two) = (world.join(), world.join());
    assert_eq!(world.summary().jobs.len(), 2);
    let object = one.put(5u64).unwrap();
    let foreign = increment::remote(&two, &object);
    assert!(matches!(foreign, Err(SubmitError::ForeignReference { .. })), "{foreign:?}");
    drop(two);
    assert_eq!(get(&one, &increment::remote(&one, &object).unwrap()), 6, "the first goes on");
    assert_eq!(get(&one, &through_init::remote(&one, 1).unwrap()), 2);
    until("the second to have left", || world.summary().jobs.len() == 1);
}

/// Starts a raylet of its own, and has a task, an actor and an object.
fn driver_that_owns() {
    let ray = Raylet::init(Config { address: Some("local".into()), capacity_bytes: 32 << 20, ..Config::default() });
    let ray = ray.unwrap();
    let sign = Sign(told());
    let _object = ray.put(vec![1u8; 8 << 20]).unwrap();
    let actor = Counter::options(Options::new().num_cpus(0)).remote(&ray).unwrap();
    let actor_pid = get(&ray, &actor.pid().unwrap());
    let _task = linger::options(Options::new().num_cpus(0)).remote(&ray, sign.0.clone()).unwrap();
    say(&format!("{actor_pid} {}", sign.await_begun(1)[0]));
    stay();
}

/// 3: whether its driver ends well or by SIGKILL, no process, socket, segment or file of a raylet stays.
#[test]
fn m03_a_raylet_ends_with_its_driver_without_a_trace() {
    for is_killed in [false, true] {
        let base = tempfile::tempdir().unwrap();
        let signs = tempfile::tempdir().unwrap();
        let sign = signs.path().join("sign").display().to_string();
        let mut driver = Driver::start("owner", &sign, base.path(), &[]);
        let said = driver.said();
        let started = descendants(driver.pid());
        for pid in said.split(' ') {
            assert!(started.contains(&pid.parse().unwrap()), "{said} of {started:?}");
        }
        let session = entries(base.path());
        let record = raylet::session::record(&base.path().join(&session[0])).unwrap();
        let door = Path::new("/dev/shm").join(&record.door);
        assert!(door.exists() && record.spill_directory.exists());
        if is_killed {
            driver.kill()
        } else {
            drop(driver.end())
        }
        until("its processes to end", || started.iter().all(|pid| is_over(*pid)));
        until("its files to be gone", || entries(base.path()).is_empty());
        assert!(!door.exists() && !record.spill_directory.exists(), "is_killed: {is_killed}");
    }
}

fn driver_with_resources() {
    let config = Config {
        address: Some("local".into()),
        capacity_bytes: 32 << 20,
        num_cpus: Some(3.0),
        num_gpus: Some(2.0),
        memory_bytes: Some(1 << 30),
        resources: vec![("tape".into(), 0.5)],
        workers_max: Some(7),
        ..Config::default()
    };
    let _ray = Raylet::init(config).unwrap();
    say("ready");
    stay();
}

/// 4: one daemon is all there is of a node; what `init` was given is what it has.
#[test]
fn m04_one_daemon_has_what_init_was_given() {
    let base = tempfile::tempdir().unwrap();
    let mut driver = Driver::start("configured", "", base.path(), &[]);
    driver.said();
    let sessions = entries(base.path());
    let mut asker = raylet::ask::Asker::connect(&base.path().join(&sessions[0])).unwrap();
    let (status, summary) = (status(&mut asker), summary(&mut asker));
    let daemons = children(driver.pid());
    assert_eq!((sessions.len(), daemons), (1, vec![status.raylet_pid.cast_signed()]));
    let expected = [("CPU", 30_000), ("GPU", 20_000), ("memory", 1 << 30), ("tape", 5_000)];
    assert_eq!(summary.capacity, expected.map(|(name, amount)| (name.to_owned(), amount)).into());
    assert_eq!((summary.worker_count_max, status.store.capacity_bytes), (7, 32 << 20));
    driver.end();
}

#[remote]
fn put_in_a_task(ray: &Raylet) -> Result<String> {
    Ok(ray.put(1u64)?.id().to_string())
}

/// 5: the raylet counts the jobs of drivers, a worker has the job of what it runs, and local mode a
/// random one.
#[test]
fn m05_jobs_of_drivers_are_counted() {
    let world = World::new();
    let (one, two) = (world.join(), world.join());
    let [first, second] = [&one, &two].map(|ray| job(&ray.put(1u64).unwrap()).number());
    assert_eq!((first, second), (1, 2));
    for (ray, expected) in [(&one, first), (&two, second)] {
        let result = put_in_a_task::remote(ray).unwrap();
        let within: ObjectId = get(ray, &result).parse().unwrap();
        assert_eq!((within.task().job().number(), job(&result).number()), (expected, expected));
    }
    drop((one, two));
    assert_eq!(job(&world.join().put(1u64).unwrap()).number(), 3, "no number comes again");
    let local = || Raylet::init(Config { mode: Mode::Local, capacity_bytes: 1 << 20, ..Config::default() }).unwrap();
    let [one, two] = [local(), local()].map(|ray| id(&ray.put(1u64).unwrap()));
    assert_ne!(one, two);
}

/// 6: the driver's name among those who make objects is its job's number, and 0xff all around it.
#[test]
fn m06_a_driver_is_named_by_its_job_and_padding() {
    let world = World::new();
    let ray = world.join();
    let made = id(&ray.put(1u64).unwrap());
    let mut expected = [0xff; 24];
    expected[20..].copy_from_slice(&[1, 0, 0, 0]);
    assert_eq!(made.task().as_bytes(), &expected);
    assert_eq!(made.task(), TaskId::driver(JobId::new(1)));
}

/// Stays until its words have come, so that they are its own and not those of what runs next.
#[remote]
fn chatter(text: String, sign: String) -> std::io::Result<i32> {
    println!("{text}");
    eprintln!("{text} aloud");
    Sign(sign).linger()?;
    Ok(std::process::id().cast_signed())
}

#[remote]
fn fail(text: String) -> u64 {
    panic!("{text}");
}

/// Chatters, fails and asks for what nobody has, all in the name that it was told.
fn driver_that_chatters() {
    let told = told();
    let [address, sign, name] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let log_to_driver = std::env::var_os("RAYLET_TEST_SILENT").is_none();
    let ray = Raylet::init(Config { address: Some(address.into()), log_to_driver, ..Config::default() }).unwrap();
    let worker = get(&ray, &chatter::remote(&ray, format!("hello of {name}"), sign.to_owned()).unwrap());
    let failed = fail::remote(&ray, format!("failure of {name}")).unwrap();
    let error = ray.get_timeout(&failed, LONG).unwrap_err();
    let _never = increment::options(Options::new().num_gpus(1000)).remote(&ray, 1).unwrap();
    say(&format!("{worker} {error}"));
    stay();
}

/// A driver, and the sign for its chatter to end.
fn start_chatterer(world: &World, name: &str, variables: &[(&str, &str)]) -> (Driver, Sign) {
    let sign = world.sign(name);
    let told = format!("{} {} {name}", world.session().display(), sign.0);
    (Driver::start("chatter", &told, &world.sessions(), variables), sign)
}

/// 7: what a job's workers write, what fails in it and what cannot run reaches its driver and no other.
#[test]
fn m07_output_and_errors_reach_the_driver_of_their_job() {
    let world = World::new();
    let mut drivers = ["Anna", "Bert"].map(|name| (name, start_chatterer(&world, name, &[])));
    for (name, (driver, sign)) in &mut drivers {
        driver.line(|line| line.text.ends_with(&format!(" hello of {name}")));
        driver.line(|line| line.text.ends_with(&format!(" hello of {name} aloud")));
        sign.go();
        let error = driver.said();
        assert!(error.contains("fail panicked") && error.contains(&format!("failure of {name}")), "{error}");
        driver.line(|line| line.is_error && line.text.starts_with("raylet: ") && line.text.contains("1000"));
    }
    for ((_, (driver, _)), other) in drivers.into_iter().zip(["Bert", "Anna"]) {
        let all = driver.end();
        assert!(all.iter().all(|line| !line.text.contains(other)), "{all:#?}");
        assert_eq!(all.iter().filter(|line| line.text.starts_with("raylet: ")).count(), 1, "{all:#?}");
    }
}

/// 8: what workers write goes to files, and to the driver's streams as `(name pid=123) text`.
#[test]
fn m08_output_goes_to_files_and_to_the_driver() {
    let world = World::new();
    let (mut driver, sign) = start_chatterer(&world, "Carl", &[]);
    let worker = sign.await_begun(1)[0];
    let tagged = |end: &str| format!("(mechanisms::chatter pid={worker}) hello of Carl{end}");
    driver.line(|line| !line.is_error && line.text == tagged(""));
    driver.line(|line| line.is_error && line.text == tagged(" aloud"));
    sign.go();
    assert!(driver.said().starts_with(&format!("{worker} ")));
    let (mut silent, sign) = start_chatterer(&world, "Dora", &[("RAYLET_TEST_SILENT", "1")]);
    let worker_of_silent = sign.await_begun(1)[0];
    let logs = world.session().join("logs");
    let log_of = |pid: i32| {
        let name = entries(&logs).into_iter().find(|name| name.ends_with(&format!("-{pid}.log")));
        name.and_then(|name| fs::read_to_string(logs.join(name)).ok()).unwrap_or_default()
    };
    let has_both = |pid: i32, name: &str| {
        let log = log_of(pid);
        log.contains(&format!("hello of {name}\n")) && log.contains(&format!("hello of {name} aloud\n"))
    };
    until("the file of a worker", || has_both(worker, "Carl"));
    until("the file of a silent driver's worker", || has_both(worker_of_silent, "Dora"));
    sign.go();
    silent.said();
    driver.end();
    let all = silent.end();
    assert!(all.iter().all(|line| !line.text.contains("hello of Dora")), "{all:#?}");
}

/// 9: nodes, tasks, actors, workers and objects can be listed while they live.
#[test]
fn m09_everything_that_lives_can_be_listed() {
    let world = World::new();
    let ray = world.join();
    let sign = world.sign("go");
    let _object = ray.put(vec![1u8; 100_000]).unwrap();
    let actor = Counter::options(Options::new().name("lister")).remote(&ray).unwrap();
    let actor_pid = get(&ray, &actor.pid().unwrap());
    let task = linger::options(Options::new().name("the task")).remote(&ray, sign.0.clone()).unwrap();
    let task_pid = sign.await_begun(1)[0];
    assert_eq!(world.status().raylet_pid.cast_signed(), world.raylet_pid(), "the node");
    let tasks = world.tasks();
    let listed = tasks.iter().find(|row| row.task == Some(id(&task).task())).expect("the task is listed");
    assert_eq!((listed.state, listed.pid, listed.job), (TaskState::Running, Some(task_pid.cast_unsigned()), 1));
    assert!(listed.name.ends_with("linger"), "{listed:?}");
    let Message::ActorsReply(actors) = world.asker().ask(ListActors { cursor: 0, count_max: 10 }).unwrap() else {
        panic!("a list of actors")
    };
    let listed = actors.actors.iter().find(|row| row.name.as_deref() == Some("lister")).expect("the actor is listed");
    assert_eq!((listed.state, listed.pid), (ActorState::Alive, Some(actor_pid.cast_unsigned())));
    let workers = world.workers();
    let state_of = |pid: i32| workers.iter().find(|row| row.pid == Some(pid.cast_unsigned())).map(|row| row.state);
    assert_eq!((state_of(task_pid), state_of(actor_pid)), (Some(WorkerState::Leased), Some(WorkerState::Actor)));
    let Message::ObjectsReply(objects) = world.asker().ask(ListObjects { cursor: 0, count_max: 1000 }).unwrap() else {
        panic!("a list of objects")
    };
    let listed =
        |bytes| objects.objects.iter().filter(|row| row.bytes >= bytes).map(|row| row.state).collect::<Vec<_>>();
    assert_eq!(listed(100_000), [ObjectState::InMemory]);
    sign.go();
    get(&ray, &task);
    until("the task to be gone", || world.tasks().is_empty());
}

#[remote]
fn fan(ray: &Raylet, width: u64) -> Result<u64> {
    assert!(Raylet::current().is_some());
    let parts: Vec<_> = (0..width).map(|n| increment::remote(ray, n)).collect::<Result<_, _>>()?;
    Ok(ray.get_all(&parts)?.into_iter().sum())
}

/// 10: one worker core submits and executes, by the table of functions of its executable, and leaves
/// when it disconnects.
#[test]
fn m10_workers_execute_and_submit_and_drivers_disconnect() {
    let world = World::new();
    let clients = || world.status().store.client_count;
    assert_eq!(clients(), 1, "the raylet itself");
    let ray = world.join();
    assert!(Raylet::current().is_none(), "the driver executes nothing");
    assert_eq!(get(&ray, &fan::remote(&ray, 20).unwrap()), (1..=20).sum::<u64>());
    let keys: BTreeSet<u64> = raylet_client::task::FUNCTIONS.iter().map(|function| function.key).collect();
    assert_eq!(keys.len(), raylet_client::task::FUNCTIONS.len(), "each function has a key of its own");
    let workers: Vec<i32> = world.workers().iter().filter_map(|row| Some(row.pid?.cast_signed())).collect();
    assert!(!workers.is_empty());
    drop(ray);
    until("the job's workers to end", || workers.iter().all(|pid| is_over(*pid)));
    until("everybody to have left", || clients() == 1);
}

#[remote(max_calls = 2)]
fn short_lived() -> i32 {
    std::process::id().cast_signed()
}

/// 12: a worker ends after as many calls as it may run.
#[test]
fn m12_a_worker_ends_after_its_calls() {
    let world = World::new();
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        let run = || get(&ray, &short_lived::remote(&ray).unwrap());
        let pids: Vec<i32> = (0..7).map(|_| run()).collect();
        let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
        pids.iter().for_each(|pid| *counts.entry(*pid).or_default() += 1);
        assert!(counts.values().all(|count| *count <= 2), "{transport:?}: {pids:?}");
        until("those that have run two to end", || counts.iter().all(|(pid, count)| *count < 2 || is_over(*pid)));
        let others: BTreeSet<i32> = (0..20).map(|_| get(&ray, &pid::remote(&ray).unwrap())).collect();
        assert!(others.len() < 10, "others stay: {others:?}");
    }
}

/// Writes into a ledger that it runs, and that it does not any more.
#[remote]
fn book(ledger: String, units: i64) -> std::io::Result<()> {
    let mut ledger = OpenOptions::new().append(true).open(ledger)?;
    ledger.write_all(format!("{units}\n").as_bytes())?;
    (0..100).for_each(|_| std::thread::yield_now());
    ledger.write_all(format!("-{units}\n").as_bytes())
}

/// 13: nothing is granted above capacity, in parts of 1/10,000.
#[test]
fn m13_no_grant_is_above_capacity() {
    let resources = Resources::cpus(Amount::whole(1)).with("tape", Amount(3)).with_memory(100 << 20);
    let world = World::with(|config| config.resources = resources);
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        let free = || Options::new().num_cpus(0);
        let cases = [
            ("CPU", 10_000, 2, Options::new().num_cpus(0.5)),
            ("tape", 3, 3, free().resource("tape", 0.0001)),
            ("memory", 100 << 20, 1, free().memory_bytes(60 << 20)),
        ];
        for (name, capacity, fits, options) in cases {
            let sign = world.sign(&format!("{name} {transport:?}"));
            let run = |_| linger::options(options.clone()).remote(&ray, sign.0.clone()).unwrap();
            let tasks: Vec<_> = (0..=fits).map(run).collect();
            sign.await_begun(fits);
            assert!(tasks.iter().all(|task| is_late(&ray, task)));
            assert_eq!(sign.begun().len(), fits, "{fits} fit into {capacity} of {name}");
            let used = world.summary().used[name];
            assert!(used <= capacity, "{used} of {capacity} {name}");
            sign.go();
            tasks.iter().for_each(|task| _ = get(&ray, task));
        }
        let ledger = world.sign(&format!("ledger {transport:?}")).0;
        fs::write(&ledger, "").unwrap();
        let run = |(cpus, count): (f64, usize)| {
            let (ray, ledger, options) = (ray.clone(), ledger.clone(), Options::new().num_cpus(cpus));
            let units = (cpus * 10_000.0).round() as i64;
            (0..count).map(move |_| book::options(options.clone()).remote(&ray, ledger.clone(), units).unwrap())
        };
        let tasks: Vec<_> = [(0.5, 20), (0.0001, 20), (1.0, 10), (0.3, 20)].into_iter().flat_map(run).collect();
        tasks.iter().for_each(|task| get(&ray, task));
        let (mut used, mut most) = (0, 0);
        for line in fs::read_to_string(&ledger).unwrap().lines() {
            used += line.parse::<i64>().unwrap();
            most = most.max(used);
        }
        assert_eq!((used, most), (0, 10_000), "of 10,000");
    }
}

/// 16: functions are named to the raylet once, by a hash of path and signature, however often they are
/// called.
#[test]
fn m16_functions_are_exported_once() {
    let world = World::new();
    let tap = Tap::of(world.session());
    let ray = Raylet::init(Config { address: Some(tap.address()), ..world.config() }).unwrap();
    for round in 0..2 {
        let calls: Vec<_> = (0..1000).map(|n| increment::remote(&ray, n).unwrap()).collect();
        assert_eq!(get(&ray, &calls[999]), 1000);
        ray.get_all(&calls).unwrap();
        let said = tap.said();
        assert_eq!((said.count("NameFunctions"), said.count("OpenQueue")), (1, 1), "round {round}: {said:?}");
        assert!(said.counts.values().sum::<usize>() < 100, "nothing is said for each call: {said:?}");
    }
    let named = tap.said().named;
    let distinct: BTreeSet<u64> = named.iter().copied().collect();
    let functions = raylet_client::task::FUNCTIONS.iter().map(|function| function.key);
    assert!(functions.clone().all(|key| distinct.contains(&key)) && distinct.len() == named.len());
}

#[remote]
fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

/// 18: a small argument lies in the call, a large one in the store, and one that is put once is there
/// once, whoever gets it.
#[test]
fn m18_small_arguments_are_inline_and_large_ones_by_reference() {
    const LARGE: usize = 1 << 20;
    let world = World::with_cpus(1);
    let ray = world.join();
    let sign = world.sign("go");
    let _busy = linger::remote(&ray, sign.0.clone()).unwrap();
    sign.await_begun(1);
    let bytes = || ray.store().usage().by_state.values().map(|(_, bytes)| bytes).sum::<u64>();
    let mut calls = Vec::new();
    let mut submit = |value: Vec<u8>, count: usize, least: usize, most: usize| {
        let before = bytes();
        let value = (value.len() < LARGE || count == 1).then_some(value);
        match value {
            Some(value) => calls.extend((0..count).map(|_| length::remote(&ray, &value).unwrap())),
            None => {
                let object = ray.put(vec![0u8; LARGE]).unwrap();
                calls.extend((0..count).map(|_| length::remote(&ray, &object).unwrap()));
            }
        }
        let put = (bytes() - before) as usize;
        assert!((least..=most).contains(&put), "{count} calls put {put} bytes, not {least} to {most}");
    };
    submit(vec![0; 10], 100, 0, 0);
    submit(vec![0; 1000], 10, 10 * 1000, 10 * 1100);
    submit(vec![0; LARGE], 1, LARGE, LARGE + 100);
    submit(vec![0; LARGE], 10, LARGE, LARGE + 10 * 100);
    sign.go();
    let lengths = ray.get_all(&calls).unwrap();
    assert_eq!(lengths.iter().sum::<usize>(), 100 * 10 + 10 * 1000 + 11 * LARGE);
}

#[remote]
fn id_of_a_child(ray: &Raylet) -> Result<String> {
    Ok(increment::remote(ray, 1)?.id().to_string())
}

/// 19: ids follow from job, parent and number alone: the same program has the same ones.
#[test]
fn m19_ids_follow_the_golden_vectors() {
    for transport in TRANSPORTS {
        let world = World::new();
        let ray = world.join_by(transport);
        let put = ray.put(1u64).unwrap();
        assert_eq!(put.id().to_string(), "ffffffffffffffffffffffffffffffffffffffff0100000001000000");
        let golden = [
            "a67dc375e60ddd1affffffffffffffffffffffff0100000001000000",
            "63964fa4841d4a2effffffffffffffffffffffff0100000001000000",
            "69a6825d641b4613ffffffffffffffffffffffff0100000001000000",
        ];
        let tasks: Vec<_> = golden.iter().map(|_| id_of_a_child::remote(&ray).unwrap()).collect();
        assert_eq!(tasks.iter().map(|task| task.id().to_string()).collect::<Vec<_>>(), golden);
        for task in &tasks {
            let parent = id(task).task();
            let expected = ObjectId::of(&TaskId::normal(JobId::new(1), &parent, 1), 1);
            assert_eq!(get(&ray, task), expected.to_string());
        }
    }
}

/// Says which way a task goes that was not told.
fn driver_of_a_transport() {
    let told = told();
    let (address, sign) = told.split_once(' ').unwrap();
    let ray = Raylet::init(Config { address: Some(address.into()), ..Config::default() }).unwrap();
    let _task = linger::remote(&ray, sign.to_owned()).unwrap();
    say("submitted");
    stay();
}

/// 20: both transports run the same programs; a variable, the config or an option says which.
#[test]
fn m20_both_transports_run_the_same_programs() {
    let names = [
        "a diamond of dependent tasks",
        "tasks that submit tasks",
        "an error passes through who depends on it",
        "several results",
    ];
    for transport in TRANSPORTS {
        let world = World::new();
        let tap = Tap::of(world.session());
        let config = Config { address: Some(tap.address()), transport: Some(transport), ..world.config() };
        let ray = Raylet::init(config).unwrap();
        for wanted in names {
            let (name, program) =
                programs::TASKS.iter().find(|(name, _)| *name == wanted).expect("there is such a program");
            program(&ray).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let before = tap.said().count("SubmitTask");
        let other = if transport == Transport::Direct { Transport::Raylet } else { Transport::Direct };
        let ours: Vec<_> = (0..50).map(|n| increment::remote(&ray, n).unwrap()).collect();
        let theirs = Options::new().transport(other);
        let theirs: Vec<_> = (0..7).map(|n| increment::options(theirs.clone()).remote(&ray, n).unwrap()).collect();
        assert_eq!(ray.get_all(&ours).unwrap().len() + ray.get_all(&theirs).unwrap().len(), 57);
        let said = tap.said();
        let routed = if transport == Transport::Raylet { 50 } else { 7 };
        assert_eq!(said.count("SubmitTask") - before, routed, "{transport:?}");
        assert!(said.kinds.iter().all(|kind| *kind == Kind::Task));
        assert_eq!(said.wants, [Want::Driver]);
    }
    let world = World::new();
    for (force, expected) in [("1", inside::Transport::Direct), ("0", inside::Transport::Raylet)] {
        let sign = world.sign(force);
        let told = format!("{} {}", world.session().display(), sign.0);
        let mut driver = Driver::start("transport", &told, &world.sessions(), &[("RAY_FORCE_DIRECT", force)]);
        driver.said();
        sign.await_begun(1);
        let goes: Vec<_> = world.tasks().iter().map(|task| task.transport).collect();
        assert_eq!(goes, [expected], "RAY_FORCE_DIRECT={force}");
        sign.go();
        driver.end();
        until("its task to be gone", || world.tasks().is_empty());
    }
}

/// Kills its own worker, each time.
#[remote]
fn deadly(sign: String) -> Result<u32> {
    Sign(sign).begin()?;
    kill_now(std::process::id().cast_signed());
    unreachable!("nobody outlives that")
}

/// Fails until the third attempt.
#[remote]
fn faulty(sign: String) -> Result<u32> {
    match Sign(sign).begin()? {
        2 => Ok(2),
        attempt => Err(format!("attempt {attempt}").into()),
    }
}

/// 21: the owner's task is tried again when its worker dies, as often as it may; an error of the
/// application is not, unless that is asked for.
#[test]
fn m21_retries_are_counted() {
    let world = World::new();
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        let attempts = |name: &str, options: Options| {
            let sign = world.sign(&format!("{name} {transport:?}"));
            let outcome = ray.get_timeout(&deadly::options(options).remote(&ray, sign.0.clone()).unwrap(), LONG);
            assert_eq!(kind(outcome), TaskErrorKind::WorkerCrashed);
            sign.begun().len()
        };
        assert_eq!(attempts("default", Options::new()), 1 + 3);
        assert_eq!(attempts("one", Options::new().max_retries(1)), 1 + 1);
        assert_eq!(attempts("none", Options::new().max_retries(0)), 1);
        // More than a record of the direct transport can count.
        assert_eq!(attempts("many", Options::new().max_retries(18)), 1 + 18);
        let faulty = |name: &str, options: Options| {
            let sign = world.sign(&format!("{name} {transport:?}"));
            let outcome = ray.get_timeout(&faulty::options(options).remote(&ray, sign.0.clone()).unwrap(), LONG);
            (outcome, sign.begun().len())
        };
        let (outcome, count) = faulty("plain", Options::new());
        assert_eq!((kind(outcome), count), (TaskErrorKind::Returned, 1));
        let (outcome, count) = faulty("exceptions", Options::new().retry_exceptions(true));
        assert_eq!((outcome.unwrap(), count), (2, 3));
        let (outcome, count) = faulty("too few", Options::new().retry_exceptions(true).max_retries(1));
        assert_eq!((kind(outcome), count), (TaskErrorKind::Returned, 2));
    }
}

/// Waits, without lending its CPU, until somebody has cancelled it.
fn await_cancel(ray: &Raylet) {
    until("a cancellation", || ray.is_cancelled());
}

fn said(path: &str) -> String {
    let read = || fs::read_to_string(path).ok().filter(|text| text.ends_with('.'));
    until(path, || read().is_some());
    read().unwrap()
}

/// Says that it has begun, and what it has in its place.
#[remote]
fn child(sign: String) -> std::io::Result<Vec<u8>> {
    Ok(vec![Sign(sign).linger()? as u8])
}

/// Begins, submits one that cannot begin, and says what became of that.
#[remote]
fn child_with_child(ray: &Raylet, directory: String) -> Result<Vec<u8>> {
    let grandchild = child::remote(ray, format!("{directory}/grandchild"))?;
    Sign(format!("{directory}/running")).begin()?;
    await_cancel(ray);
    let kind = kind(ray.get_timeout(&grandchild, LONG));
    fs::write(format!("{directory}/grandchild.said"), format!("{kind:?}."))?;
    Ok(Vec::new())
}

/// Has a child that runs, one that is queued, and one that waits for that; says what became of them.
#[remote]
fn parent(ray: &Raylet, directory: String) -> Result<u64> {
    let running = child_with_child::remote(ray, directory.clone())?;
    Sign(format!("{directory}/running")).await_begun(1);
    let queued = child::remote(ray, format!("{directory}/queued"))?;
    let waiting = length::remote(ray, &queued)?;
    // Nobody waits for this one.
    drop(child::remote(ray, format!("{directory}/forgotten"))?);
    Sign(format!("{directory}/parent")).begin()?;
    await_cancel(ray);
    let mut kinds = vec![kind(ray.get_timeout(&running, LONG)), kind(ray.get_timeout(&queued, LONG))];
    kinds.push(kind(ray.get_timeout(&waiting, LONG)));
    let more = child::remote(ray, format!("{directory}/late"));
    fs::write(format!("{directory}/said"), format!("{kinds:?} {:?}.", more.map(drop)))?;
    Ok(0)
}

/// 21: who keeps a task keeps what it submitted: both are cancelled together, and what those submitted.
#[test]
fn m21_a_cancelled_task_takes_its_children_along() {
    for transport in TRANSPORTS {
        let world = World::new();
        let ray = world.join_by(transport);
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name).display().to_string();
        let result = parent::remote(&ray, place("")).unwrap();
        Sign(place("parent")).await_begun(1);
        ray.cancel(&result, false);
        assert_eq!(kind(ray.get_timeout(&result, LONG)), TaskErrorKind::Cancelled);
        assert_eq!(said(&place("said")), "[Cancelled, Cancelled, Cancelled] Err(Cancelled).", "{transport:?}");
        assert_eq!(said(&place("grandchild.said")), "Cancelled.");
        // Whatever was queued before this one.
        let others: Vec<_> = (0..4).map(|n| increment::remote(&ray, n).unwrap()).collect();
        others.iter().for_each(|other| _ = get(&ray, other));
        for name in ["queued", "forgotten", "late", "grandchild"] {
            assert!(Sign(place(name)).begun().is_empty(), "{name}, {transport:?}");
        }
    }
}

/// Submits one that runs and one that does not, hands them over, and waits.
#[remote]
fn hand_over(ray: &Raylet, keeper: ActorHandle<Counter>, directory: String) -> Result<u64> {
    let running = child::remote(ray, format!("{directory}/running"))?;
    Sign(format!("{directory}/running")).await_begun(1);
    let queued = child::remote(ray, format!("{directory}/queued"))?;
    let kept = keeper.keep(vec![running, queued])?;
    until("them to be kept", || kept.is_ready());
    Sign(format!("{directory}/parent")).begin()?;
    until("the sign to go on", || Path::new(&format!("{directory}/parent")).exists());
    Ok(u64::from(ray.is_cancelled()))
}

/// 21: a task that is ended by force takes its children along though others want them, and one that is
/// told to go alone leaves them.
#[test]
fn m21_children_of_a_killed_task_end_and_may_be_left_alone() {
    for (transport, recursive) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, true), (transport, false)]) {
        let world = World::new();
        let ray = world.join_by(transport);
        let keeper = Counter::remote(&ray).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name).display().to_string();
        let result = hand_over::remote(&ray, &keeper, place("")).unwrap();
        Sign(place("parent")).await_begun(1);
        let kept = get(&ray, &keeper.kept().unwrap());
        let workers = Sign(place("running")).begun();
        ray.cancel_with(&result, CancelOptions { force: recursive, recursive });
        assert_eq!(kind(ray.get_timeout(&result, LONG)), TaskErrorKind::Cancelled);
        if recursive {
            assert_eq!(
                kept.iter().map(|child| kind(ray.get_timeout(child, LONG))).collect::<Vec<_>>(),
                [TaskErrorKind::Cancelled; 2]
            );
            until("whose worker is killed, too", || is_over(workers[0]));
            assert!(Sign(place("queued")).begun().is_empty(), "{transport:?}");
        } else {
            ["parent", "running", "queued"].iter().for_each(|name| Sign(place(name)).go());
            assert_eq!(kept.iter().map(|child| get(&ray, child)).collect::<Vec<_>>(), [[0], [0]], "{transport:?}");
        }
    }
}

/// 22: to be placed an actor needs a CPU and to run none, unless it says so: more of them than CPUs live.
#[test]
fn m22_more_actors_than_cpus_live_at_once() {
    let world = World::with_cpus(1);
    let ray = world.join();
    let actors: Vec<_> = (0..4).map(|_| Counter::remote(&ray).unwrap()).collect();
    let pids: BTreeSet<i32> = actors.iter().map(|actor| get(&ray, &actor.pid().unwrap())).collect();
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| !is_over(*pid)));
    assert_eq!(get(&ray, &increment::remote(&ray, 1).unwrap()), 2, "the CPU is free for tasks");
    let whole = || Counter::options(Options::new().num_cpus(1)).remote(&ray).unwrap();
    let (first, second) = (whole(), whole());
    get(&ray, &first.pid().unwrap());
    let waits = second.pid().unwrap();
    assert!(is_late(&ray, &waits), "what asks for a CPU keeps it");
    ray.kill(&first);
    get(&ray, &waits);
}

struct Risen {
    life: u32,
}

#[remote]
impl Risen {
    fn new(sign: String) -> std::io::Result<Risen> {
        Ok(Risen { life: Sign(sign).begin()? })
    }

    fn life(&self) -> (u32, i32) {
        (self.life, std::process::id().cast_signed())
    }
}

static MEETING: Barrier = Barrier::new(3);
static INSIDE: AtomicU32 = AtomicU32::new(0);

struct Hall {
    most: AtomicU32,
}

#[remote]
impl Hall {
    fn new() -> Hall {
        Hall { most: AtomicU32::new(0) }
    }

    /// Goes on once three are inside.
    fn meet(&self) {
        let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        MEETING.wait();
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&mut self) -> u32 {
        *self.most.get_mut()
    }
}

/// With an async method, so that all its calls share one thread.
struct Circle {
    inside: AtomicU32,
}

#[remote]
impl Circle {
    fn new() -> Circle {
        Circle { inside: AtomicU32::new(0) }
    }

    /// Goes on once `count` are inside.
    async fn gather(&self, count: u32) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

/// 23: an actor is restarted as often as it may, with its constructor run again; as many calls as
/// it may run at once do.
#[test]
fn m23_actors_are_restarted_and_run_calls_at_once() {
    let world = World::new();
    let ray = world.join();
    let sign = world.sign("lives");
    let risen =
        Risen::options(Options::new().max_restarts(2).max_task_retries(-1)).remote(&ray, sign.0.clone()).unwrap();
    for expected in 0..=2 {
        let (life, pid) = get(&ray, &risen.life().unwrap());
        assert_eq!(life, expected);
        kill_now(pid);
        until("it to die", || is_over(pid));
    }
    assert_eq!(kind(ray.get_timeout(&risen.life().unwrap(), LONG)), TaskErrorKind::ActorDied);
    assert_eq!(sign.begun().len(), 3);
    let hall = Hall::options(Options::new().max_concurrency(3)).remote(&ray).unwrap();
    let meetings: Vec<_> = (0..9).map(|_| hall.meet().unwrap()).collect();
    meetings.iter().for_each(|meeting| get(&ray, meeting));
    assert_eq!(get(&ray, &hall.most().unwrap()), 3);
    let circle = Circle::options(Options::new().max_concurrency(100)).remote(&ray).unwrap();
    let gathered: Vec<_> = (0..100).map(|_| circle.gather(100).unwrap()).collect();
    gathered.iter().for_each(|meeting| get(&ray, meeting));
}

/// Makes a detached actor and one that is not, and leaves.
fn driver_that_makes_actors() {
    let config = Config { address: Some(told()), namespace: Some("shared".into()), ..Config::default() };
    let ray = Raylet::init(config).unwrap();
    let make = |options: Options| {
        let counter = Counter::options(options).remote(&ray).unwrap();
        let (sum, pid) = (get(&ray, &counter.add(5).unwrap()), get(&ray, &counter.pid().unwrap()));
        assert_eq!(sum, 5);
        (counter, pid)
    };
    let (_detached, detached_pid) = make(Options::new().name("detached").detached());
    let (_bound, bound_pid) = make(Options::new().name("bound"));
    say(&format!("{detached_pid} {bound_pid}"));
    stay();
}

/// 23: a detached actor outlives its driver and is found by its name in its namespace.
#[test]
fn m23_a_detached_actor_is_found_by_a_second_driver() {
    let world = World::new();
    let mut maker = Driver::start("maker", &world.session().display().to_string(), &world.sessions(), &[]);
    let pids: Vec<i32> = maker.said().split(' ').map(|pid| pid.parse().unwrap()).collect();
    let elsewhere = world.join();
    let ray = Raylet::init(Config { namespace: Some("shared".into()), ..world.config() }).unwrap();
    assert!(ray.actor::<Counter>("bound").unwrap().is_some(), "while its driver is there");
    let taken = Counter::options(Options::new().name("detached")).remote(&ray);
    assert!(matches!(taken, Err(SubmitError::NameTaken { .. })), "{taken:?}");
    maker.end();
    until("the other one to end", || is_over(pids[1]));
    assert!(ray.actor::<Counter>("bound").unwrap().is_none());
    assert!(elsewhere.actor::<Counter>("detached").unwrap().is_none(), "names are of a namespace");
    let found = ray.actor::<Counter>("detached").unwrap().expect("it outlives its driver");
    assert_eq!(get(&ray, &found.add(1).unwrap()), 6, "its state, too");
    assert_eq!(get(&ray, &found.pid().unwrap()), pids[0]);
    let same = Counter::options(Options::new().name("detached").get_if_exists()).remote(&ray).unwrap();
    assert_eq!(same, found);
    ray.kill(&found);
    until("it to end", || is_over(pids[0]));
}

struct Ledger(Vec<(u32, u64)>);

#[remote]
impl Ledger {
    fn new() -> Ledger {
        Ledger(Vec::new())
    }

    fn note(&mut self, caller: u32, number: u64) {
        self.0.push((caller, number));
    }

    fn all(&self) -> Vec<(u32, u64)> {
        self.0.clone()
    }

    #[remote(num_returns = 2)]
    fn ends(&self) -> (u64, u64) {
        (self.0.first().map_or(0, |(_, number)| *number), self.0.last().map_or(0, |(_, number)| *number))
    }
}

const NOTES: u64 = 300;

/// Notes numbers in order; some are not known yet when the call is made.
#[remote]
fn note_all(ray: &Raylet, ledger: ActorHandle<Ledger>, caller: u32) -> Result<()> {
    let mut last = None;
    for number in 0..NOTES {
        let noted = match number % 50 {
            49 => ledger.note(caller, &increment::remote(ray, number - 1)?)?,
            _ => ledger.note(caller, number)?,
        };
        last = Some(noted);
    }
    Ok(ray.get(&last.expect("there are notes"))?)
}

/// 25: calls of one caller run in the order in which it made them, whatever they wait for; a method
/// may have several results.
#[test]
fn m25_calls_of_one_caller_run_in_order() {
    let world = World::new();
    let ray = world.join();
    let ledger = Ledger::remote(&ray).unwrap();
    let callers: Vec<_> = (1..=2).map(|caller| note_all::remote(&ray, &ledger, caller).unwrap()).collect();
    note_all(&ray, ledger.clone(), 0).unwrap();
    callers.iter().for_each(|caller| get(&ray, caller));
    let all = get(&ray, &ledger.all().unwrap());
    for caller in 0..=2 {
        let numbers: Vec<u64> = all.iter().filter(|(by, _)| *by == caller).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..NOTES).collect::<Vec<_>>(), "caller {caller}");
    }
    let (first, last) = ledger.ends().unwrap();
    assert_eq!((get(&ray, &first), get(&ray, &last)), (all[0].1, all[all.len() - 1].1));
}

/// 25: whoever lets go of an actor while its calls run, and finds it again, is the same caller.
#[test]
fn m25_an_actor_that_is_found_again_has_the_same_queue() {
    let world = World::new();
    let ray = world.join();
    drop(Ledger::options(Options::new().name("ledger").detached()).remote(&ray).unwrap());
    let find = || ray.actor::<Ledger>("ledger").unwrap().expect("it is detached");
    // The last handle of the process goes each time; its call is on its way, answered or over.
    let noted: Vec<_> = (0..2 * NOTES).map(|number| find().note(0, number).unwrap()).collect();
    ray.get_all(&noted).unwrap();
    for number in 2 * NOTES..3 * NOTES {
        get(&ray, &find().note(0, number).unwrap());
    }
    let all = get(&ray, &find().all().unwrap());
    assert!(all.iter().map(|(_, number)| *number).eq(0..3 * NOTES), "{all:?}");
    ray.kill(&find());
}

/// 27: an actor has a process of its own for all its life, tasks share workers.
#[test]
fn m27_an_actor_is_a_process_and_a_worker_runs_many_tasks() {
    let world = World::new();
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        let actors: Vec<_> = (0..3).map(|_| Counter::remote(&ray).unwrap()).collect();
        let actor_pids: Vec<i32> = actors.iter().map(|actor| get(&ray, &actor.pid().unwrap())).collect();
        let task_pids: BTreeSet<i32> = (0..50).map(|_| get(&ray, &pid::remote(&ray).unwrap())).collect();
        assert!(task_pids.len() <= 10, "{transport:?}: {task_pids:?}");
        assert_eq!(actor_pids.iter().collect::<BTreeSet<_>>().len(), 3);
        assert!(actor_pids.iter().all(|pid| !task_pids.contains(pid)));
        let again: Vec<i32> = actors.iter().map(|actor| get(&ray, &actor.pid().unwrap())).collect();
        assert_eq!(again, actor_pids);
    }
}

#[remote]
fn marked(n: u64) -> (u64, u32) {
    let _event = profile_event("the mark");
    (n, std::process::id())
}

/// 28: profile events stand in the timeline within the tasks that made them.
#[test]
fn m28_profile_events_are_in_the_timeline() {
    let world = World::with(|config| config.timeline = true);
    let ray = world.join();
    let marked: Vec<_> = (0..20).map(|n| marked::remote(&ray, n).unwrap()).collect();
    let pids: BTreeSet<u32> = marked.iter().map(|task| get(&ray, task).1).collect();
    let mut asker = world.asker();
    let mut ask = |collect| match asker.ask(Timeline { collect, cursor: 0, count_max: 4096 }).unwrap() {
        Message::TimelineReply(reply) => reply,
        other => panic!("{other:?}"),
    };
    let mut reply = ask(true);
    until("all to have told", || {
        reply = ask(false);
        reply.outstanding_count == 0
    });
    assert!(reply.is_on && reply.dropped_count == 0);
    let ours = |name: &str| {
        reply.slices.iter().filter(|slice| slice.name.ends_with(name) && pids.contains(&slice.pid)).collect::<Vec<_>>()
    };
    let (events, tasks) = (ours("the mark"), ours("::marked"));
    assert_eq!((events.len(), tasks.len()), (20, 20), "{:?}", reply.slices);
    for event in events {
        let is_around = |task: &&&inside::Slice| {
            (task.pid, task.thread) == (event.pid, event.thread)
                && task.start_us <= event.start_us
                && event.end_us <= task.end_us
        };
        assert!(event.is_profile && tasks.iter().any(|task| is_around(&task)), "{event:?}");
    }
}

/// 29: who comes for what, what a call is and how it goes are words of the protocol; there is no
/// language, for workers are the driver's executable.
#[test]
fn m29_kinds_travel_over_the_wire() {
    for want in [Want::Store, Want::Driver, Want::Worker] {
        let message = Message::from(Hello { want, ..Hello::default() });
        let mut decoder = Decoder::new();
        decoder.extend(&encode(&message).unwrap());
        assert_eq!(decoder.next_message().unwrap(), Some(message));
    }
    for kind in [Kind::Task, Kind::Call, Kind::Create] {
        let bytes = [7; INLINE_BYTES_MAX];
        let body = Body::Inline { len: 3, bytes };
        let record = Record {
            key: 1,
            kind,
            retries_errors: false,
            is_stream: false,
            results: 1,
            retries: 3,
            number: 5,
            parent: 6,
            result: Default::default(),
            body,
        };
        assert_eq!(Record::unpack(&record.pack()).unwrap().kind, kind);
    }
    let mut words = [0; raylet_api::record::RECORD_WORDS];
    words.fill(u64::MAX);
    assert!(Record::unpack(&words).is_err(), "a kind that nobody knows is an error");
}

#[derive(Serialize, Deserialize, Value)]
struct Nested {
    inner: Vec<ObjectRef<Vec<u8>>>,
}

#[remote]
fn make_nested(ray: &Raylet) -> Result<Nested> {
    Ok(Nested { inner: vec![ray.put(vec![1u8; 4 << 20])?, ray.put(vec![2u8; 4 << 20])?] })
}

#[remote]
fn add_later(counter: ActorHandle<Counter>, sign: String) -> Result<()> {
    Sign(sign).linger()?;
    counter.add(1)?;
    Ok(())
}

/// 24, 30: an actor lives as long as a handle, wherever that is.
#[test]
fn m30_an_actor_ends_with_its_last_handle() {
    let world = World::new();
    let ray = world.join();
    let sign = world.sign("go");
    let counter = Counter::remote(&ray).unwrap();
    let pid = get(&ray, &counter.pid().unwrap());
    let task = add_later::remote(&ray, &counter, sign.0.clone()).unwrap();
    sign.await_begun(1);
    drop(counter);
    assert!(is_late(&ray, &task) && !is_over(pid), "the task has a handle");
    sign.go();
    get(&ray, &task);
    drop(task);
    until("the actor to end", || is_over(pid));
}

/// 30: what is nested in objects and held by others lives, and all bytes come back: with the last
/// reference, and when who held it is killed.
#[test]
fn m30_bytes_come_back_with_the_last_reference() {
    const LARGE: u64 = 4 << 20;
    // More than what calls leave behind for a moment.
    const SMALL: u64 = 64 << 10;
    let world = World::new();
    let ray = world.join();
    let keeper = Counter::remote(&ray).unwrap();
    let keeper_pid = get(&ray, &keeper.pid().unwrap());
    let used = || ray.store().usage().used_bytes;
    let base = used();
    let back = |what: &str| until(what, || used() <= base + SMALL);
    let has = |count: u64| used() + SMALL >= base + count * LARGE;

    let result = make_nested::remote(&ray).unwrap();
    let nested = get(&ray, &result);
    drop(result);
    assert!(has(2), "what is nested outlives who made it");
    let container = ray.put(&Nested { inner: vec![nested.inner[0].clone()] }).unwrap();
    drop(nested);
    until("the one that nobody names to go", || !has(2));
    assert_eq!(get(&ray, &get(&ray, &container).inner[0]).len() as u64, LARGE);
    drop(container);
    back("nested bytes to be back");

    let borrowed = ray.put(vec![3u8; LARGE as usize]).unwrap();
    assert_eq!(get(&ray, &keeper.keep(vec![borrowed.clone()]).unwrap()), 1);
    drop(borrowed);
    let kept = get(&ray, &keeper.kept().unwrap());
    assert_eq!(get(&ray, &kept[0])[0], 3, "the borrower keeps it");
    drop(kept);
    assert!(has(1), "as long as it lives");
    kill_now(keeper_pid);
    back("the bytes of a killed borrower to be back");
    assert_eq!(kind(ray.get_timeout(&keeper.add(1).unwrap(), LONG)), TaskErrorKind::ActorDied);
}

#[remote]
fn sum(bytes: Vec<u8>) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Removes the bytes of everything that was spilled; whether there was any.
fn lose_spilled(directory: &Path) -> bool {
    let mut has_lost = false;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => has_lost |= lose_spilled(&entry.path()),
            _ => has_lost |= fs::remove_file(entry.path()).is_ok(),
        }
    }
    has_lost
}

const LARGE: usize = 1 << 20;

/// A store of eight large objects, and where others go.
fn world_with_disk(spill: &Path) -> World {
    World::with(|config: &mut RayletConfig| {
        config.capacity_bytes = 8 * LARGE as u64;
        config.spill_parent = Some(spill.to_owned());
    })
}

/// Fills the store with younger objects until these are on disk, and removes their files.
fn lose_all(ray: &Raylet, spill: &Path, objects: &[&ObjectRef<Vec<u8>>]) {
    let store = ray.store();
    let is_on_disk = |object: &&ObjectRef<Vec<u8>>| {
        let found = store.list_from(object.object().handle().slot, 1);
        found.iter().all(|info| info.state == store::ObjectState::OnDisk)
    };
    let mut fillers = std::collections::VecDeque::new();
    until("them to be on disk", || {
        fillers.push_back(ray.put(vec![0u8; LARGE]).unwrap());
        if fillers.len() > 10 {
            fillers.pop_front();
        }
        objects.iter().all(is_on_disk)
    });
    assert!(lose_spilled(spill));
}

/// 32: an object that was put cannot be made again where its bytes are lost: a typed error, for who gets
/// it and for tasks that have it as argument.
#[test]
fn m32_a_lost_object_that_was_put_is_a_typed_error() {
    let spill = tempfile::tempdir().unwrap();
    let world = world_with_disk(spill.path());
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        let objects: Vec<_> = (0..3).map(|byte: u8| ray.put(vec![byte; LARGE]).unwrap()).collect();
        lose_all(&ray, spill.path(), &[&objects[1]]);
        assert_eq!(kind(ray.get_timeout(&objects[1], LONG)), TaskErrorKind::ObjectLost);
        let error = ray.get_timeout(&sum::remote(&ray, &objects[1]).unwrap(), LONG);
        assert_eq!(kind(error), TaskErrorKind::ObjectLost);
        assert_eq!(get(&ray, &increment::remote(&ray, 1).unwrap()), 2, "others go on");
    }
}

/// Large, and says that it ran.
#[remote]
fn make_large(byte: u8, ledger: String) -> std::io::Result<Vec<u8>> {
    Sign(ledger).begin()?;
    Ok(vec![byte; LARGE])
}

/// Two results, each large, from a large and a small argument.
#[remote(num_returns = 2)]
fn derive(large: Vec<u8>, small: Vec<u8>, ledger: String) -> (Vec<u8>, Vec<u8>) {
    Sign(ledger).begin().expect("the directory is there");
    let add = |with: u8| large.iter().map(|byte| byte + with).collect();
    (add(small[0]), add(small[small.len() - 1]))
}

/// Another length each time.
#[remote]
fn grow(ledger: String) -> std::io::Result<Vec<u8>> {
    let count = Sign(ledger).begin()?;
    Ok(vec![0; LARGE + count as usize])
}

/// 32: a result whose bytes are lost is made again by its task, for whoever gets it; so are arguments of
/// that task, gone or lost. Not more often than it may be tried again, and not into another value.
#[test]
fn m32_a_lost_result_is_made_again() {
    for transport in TRANSPORTS {
        let spill = tempfile::tempdir().unwrap();
        let world = world_with_disk(spill.path());
        let ray = world.join_by(transport);
        let ledger = |name: &str| world.sign(&format!("{name}.{transport:?}"));
        let runs = |name: &str| ledger(name).begun().len();

        let made = make_large::remote(&ray, 7, ledger("made").0).unwrap();
        assert_eq!(get(&ray, &made), vec![7; LARGE]);
        lose_all(&ray, spill.path(), &[&made]);
        assert_eq!(get(&ray, &made), vec![7; LARGE], "for its owner, {transport:?}");
        assert_eq!(runs("made"), 2);
        lose_all(&ray, spill.path(), &[&made]);
        assert_eq!(get(&ray, &sum::remote(&ray, &made).unwrap()), 7 * LARGE as u64, "for a task that has it");
        assert_eq!(runs("made"), 3);
        assert_eq!(get(&ray, &made), vec![7; LARGE], "and it stays");

        let small = [vec![1; 2000], vec![2; 2000]].concat();
        let (first, second) = derive::remote(&ray, &made, &small, ledger("derived").0).unwrap();
        assert_eq!((get(&ray, &first)[0], get(&ray, &second)[0]), (8, 9));
        lose_all(&ray, spill.path(), &[&made, &second]);
        assert_eq!(get(&ray, &second), vec![9; LARGE], "its argument is lost, too");
        assert_eq!((runs("made"), runs("derived")), (4, 2));
        drop(made);
        lose_all(&ray, spill.path(), &[&second]);
        let error = ray.get_timeout(&second, LONG);
        assert_eq!(kind(error), TaskErrorKind::ObjectLost, "its argument was made as often as it may be");
        drop((first, second));

        let made = make_large::remote(&ray, 1, ledger("again").0).unwrap();
        let (first, _) = derive::remote(&ray, &made, &small, ledger("last").0).unwrap();
        assert_eq!(get(&ray, &first)[0], 2);
        drop(made);
        lose_all(&ray, spill.path(), &[&first]);
        assert_eq!(get(&ray, &first), vec![2; LARGE], "its arguments are gone");
        assert_eq!((runs("again"), runs("last")), (2, 2));

        let (made, small) = (make_large::remote(&ray, 1, ledger("whole").0).unwrap(), ray.put(small).unwrap());
        let (first, _) = derive::remote(&ray, &made, &small, ledger("lost").0).unwrap();
        assert_eq!(get(&ray, &first)[0], 2);
        lose_all(&ray, spill.path(), &[&first, &small]);
        assert_eq!(get(&ray, &first), vec![2; LARGE], "its recipe has what nobody makes again");
        assert_eq!(kind(ray.get_timeout(&small, LONG)), TaskErrorKind::ObjectLost);
        drop((made, small));

        let grown = grow::remote(&ray, ledger("grown").0).unwrap();
        assert_eq!(get(&ray, &grown).len(), LARGE);
        lose_all(&ray, spill.path(), &[&grown]);
        assert_eq!(kind(ray.get_timeout(&grown, LONG)), TaskErrorKind::ReconstructionFailed);
        let once = make_large::options(Options::new().max_retries(0)).remote(&ray, 1, ledger("once").0).unwrap();
        assert_eq!(get(&ray, &once).len(), LARGE);
        lose_all(&ray, spill.path(), &[&once]);
        assert_eq!(kind(ray.get_timeout(&once, LONG)), TaskErrorKind::ObjectLost, "it may not be tried again");
    }
}

/// 36: one daemon with tables in its process, which shows its numbers to Prometheus on a port.
#[test]
fn m36_metrics_are_served_while_it_works() {
    let world = World::with(|config| config.metrics_port = Some(0));
    let port = world.status().metrics_port.expect("it was asked for");
    let ray = world.join();
    let sign = world.sign("go");
    let tasks: Vec<_> = (0..3).map(|_| linger::remote(&ray, sign.0.clone()).unwrap()).collect();
    sign.await_begun(2);
    let page = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
        numbers(body)
    };
    let found = page();
    assert_eq!(found["raylet_resource_capacity{resource=\"CPU\"}"], 2.0);
    assert_eq!(found["raylet_resource_used{resource=\"CPU\"}"], 2.0);
    assert_eq!(found["raylet_tasks{state=\"RUNNING\"}"], 2.0);
    assert!(found["raylet_store_capacity_bytes"] >= f64::from(64 << 20));
    sign.go();
    tasks.iter().for_each(|task| _ = get(&ray, task));
    until("none to run", || page()["raylet_tasks{state=\"RUNNING\"}"] == 0.0);
}

/// The samples of a page in Prometheus' text format.
fn numbers(page: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE") && words.len() == 3, "{line}");
            types.extend((words[0] == "TYPE").then(|| words[1].to_owned()));
            continue;
        }
        let (name, number) = line.rsplit_once(' ').unwrap();
        assert!(types.contains(name.split('{').next().unwrap()), "{line} has no type");
        assert!(samples.insert(name.to_owned(), number.parse().unwrap()).is_none(), "{line} comes twice");
    }
    samples
}

#[remote]
fn executable() -> String {
    std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default()
}

/// 37: drivers, workers and plain clients are Rust; a worker is the driver's executable.
#[test]
fn m37_workers_and_clients_are_rust() {
    let world = World::new();
    let ray = world.join();
    let own = fs::read_link("/proc/self/exe").unwrap();
    let worker = get(&ray, &pid::remote(&ray).unwrap());
    assert_eq!(fs::read_link(format!("/proc/{worker}/exe")).unwrap(), own);
    assert_eq!(get(&ray, &executable::remote(&ray).unwrap()), own.display().to_string());
    let client = Client::connect(&ConnectOptions::at(world.session())).unwrap();
    let object = client.put(&[5; 1000]).unwrap();
    let read = ray.store().get_by_id(&object.id(), LONG).unwrap();
    assert_eq!(read[..], [5; 1000], "what somebody without tasks has put");
    let Message::ClientsReply(clients) = world.asker().ask(ListClients { cursor: 0, count_max: 100 }).unwrap() else {
        panic!("a list of clients")
    };
    let own_rows = clients.clients.iter().filter(|row| row.pid == std::process::id()).count();
    assert_eq!(own_rows, 2, "the driver and the client: {clients:?}");
}

#[remote]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// 39: what goes over the socket is framed: calls of any size come back, a message may come in
/// pieces, and bad bytes end the connection that they came on and nothing else.
#[test]
fn m39_a_framed_link_carries_calls_and_survives_bad_bytes() {
    let world = World::new();
    for transport in TRANSPORTS {
        let ray = world.join_by(transport);
        for size in [0, 1 << 10, 100 << 10, 8 << 20] {
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            assert!(get(&ray, &echo::remote(&ray, &sent).unwrap()) == sent, "{size} bytes, {transport:?}");
        }
    }
    let mut asker = world.asker();
    let question = encode(&raylet_api::message::Status {}.into()).unwrap();
    for _ in 0..100 {
        question.iter().for_each(|byte| asker.stream().write_all(&[*byte]).unwrap());
        assert!(matches!(asker.receive().unwrap(), Message::StatusReply(_)));
    }
    let bad = world.asker();
    bad.stream().write_all(&[0xff; 64]).unwrap();
    until("it to be closed", || world.status().bad_connection_count == 1);
    assert!(matches!(asker.ask(raylet_api::message::Status {}).unwrap(), Message::StatusReply(_)));
}
