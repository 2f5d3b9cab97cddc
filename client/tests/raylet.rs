//! Remote functions and actors on a real raylet: every program of `programs`, on both transports.
//!
//! The one thing to know: each program has a raylet of its own, started by its `init` as a child of
//! this process, whose workers are forked from this very executable. This file must not depend on what
//! else runs on the machine.

mod programs;

use raylet_client::prelude::*;

fn config(transport: Transport) -> Config {
    Config {
        address: Some("local".to_owned()),
        transport: Some(transport),
        capacity_bytes: 256 << 20,
        num_cpus: Some(2.0),
        ..Config::default()
    }
}

fn direct() -> Raylet {
    Raylet::init(config(Transport::Direct)).unwrap()
}

fn routed() -> Raylet {
    Raylet::init(config(Transport::Raylet)).unwrap()
}

#[test]
fn programs_of_tasks_run_on_leased_workers() {
    programs::run(programs::TASKS, direct);
}

#[test]
fn programs_of_tasks_run_through_the_raylet() {
    programs::run(programs::TASKS, routed);
}

#[test]
fn programs_of_actors_run_on_leased_workers() {
    programs::run(programs::ACTORS, direct);
}

#[test]
fn programs_of_actors_run_through_the_raylet() {
    programs::run(programs::ACTORS, routed);
}

fn one_cpu() -> Raylet {
    Raylet::init(Config { num_cpus: Some(1.0), ..config(Transport::Direct) }).unwrap()
}

fn kind<T: Value + std::fmt::Debug>(fetched: Result<T, FetchError>) -> TaskErrorKind {
    match fetched {
        Err(FetchError::Task(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

/// Says that it runs, by making `begun`, and goes on once `go` is there.
#[remote]
fn held_up(begun: String, go: String) -> u64 {
    std::fs::write(begun, "").expect("the directory is there");
    while !std::path::Path::new(&go).exists() {
        std::thread::yield_now();
    }
    1
}

/// Two files that tasks and tests tell each other by.
struct Signals(tempfile::TempDir);

impl Signals {
    fn new() -> Signals {
        Signals(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn submit(&self, ray: &Raylet, options: Options) -> ObjectRef<u64> {
        held_up::options(options).remote(ray, self.path("begun"), self.path("go")).unwrap()
    }

    fn await_begin(&self) {
        while !self.0.path().join("begun").exists() {
            std::thread::yield_now();
        }
    }

    fn go(&self) {
        std::fs::write(self.path("go"), "").unwrap();
    }
}

#[remote]
fn increment(n: u64) -> u64 {
    n + 1
}

#[remote]
fn failing() -> Result<u64> {
    Err("as asked".into())
}

#[test]
fn a_task_that_is_late_ends_with_an_error_and_its_worker_goes_on() {
    for ray in [direct(), routed()] {
        let signals = Signals::new();
        let late = signals.submit(&ray, Options::new().timeout(std::time::Duration::from_millis(20)));
        assert_eq!(kind(ray.get(&late)), TaskErrorKind::TimedOut);
        signals.go();
        assert_eq!(ray.get(&increment::remote(&ray, 1).unwrap()).unwrap(), 2);
    }
}

#[test]
fn a_cancelled_task_does_not_run_and_a_running_one_is_ended_by_force() {
    for transport in [Transport::Direct, Transport::Raylet] {
        let ray = one_cpu();
        let (running, queued) = (Signals::new(), Signals::new());
        let options = || Options::new().transport(transport);
        let runs = running.submit(&ray, options());
        running.await_begin();
        let waits = queued.submit(&ray, options());
        ray.cancel(&waits, false);
        assert_eq!(kind(ray.get(&waits)), TaskErrorKind::Cancelled);
        ray.cancel(&runs, true);
        assert_eq!(kind(ray.get(&runs)), TaskErrorKind::Cancelled);
        // The only CPU is free again, and what was cancelled never began.
        let after = increment::options(options()).remote(&ray, 1).unwrap();
        assert_eq!(ray.get(&after).unwrap(), 2);
        assert!(!std::path::Path::new(&queued.path("begun")).exists());
    }
}

#[test]
fn getting_all_ends_at_the_first_error() {
    let ray = direct();
    let signals = Signals::new();
    let held_up = signals.submit(&ray, Options::new());
    let all = [held_up, failing::remote(&ray).unwrap()];
    assert_eq!(kind(ray.get_all(&all)), TaskErrorKind::Returned);
    let (ready, rest) = ray.wait(&all, 1, None).unwrap();
    assert_eq!((&ready[..], &rest[..]), (&all[1..], &all[..1]));
    signals.go();
    assert_eq!(ray.get(&all[0]).unwrap(), 1);
}

#[remote]
fn through_init(n: u64) -> Result<u64> {
    let ray = Raylet::init(Config::default())?;
    let next = increment::remote(&ray, n)?;
    Ok(ray.get(&next)?)
}

#[test]
fn a_worker_that_inits_has_its_own_raylet() {
    let ray = one_cpu();
    assert_eq!(ray.get(&through_init::remote(&ray, 1).unwrap()).unwrap(), 2);
}

#[remote]
fn depth(ray: &Raylet, n: u64) -> Result<u64> {
    if n == 0 {
        return Ok(0);
    }
    Ok(ray.get(&depth::remote(ray, n - 1)?)? + 1)
}

#[test]
fn recursion_needs_no_more_cpus_than_there_are() {
    let ray = one_cpu();
    assert_eq!(ray.get(&depth::remote(&ray, 200).unwrap()).unwrap(), 200);
}

#[test]
fn a_placement_group_is_reserved_used_and_removed() {
    let ray = direct();
    let bundle = Options::new().num_cpus(1);
    let group = ray.placement_group(&[bundle.clone(), bundle.clone()], Strategy::Pack).unwrap();
    ray.get(&group.ready()).unwrap();
    let inside = |number| increment::options(Options::new().placement_group(&group, number)).remote(&ray, 1);
    assert_eq!(ray.get(&inside(0).unwrap()).unwrap(), 2);
    assert_eq!(ray.get(&inside(1).unwrap()).unwrap(), 2);
    // All CPUs are reserved.
    let outside = increment::remote(&ray, 1).unwrap();
    assert!(matches!(
        ray.get_timeout(&outside, std::time::Duration::from_millis(20)),
        Err(FetchError::TimedOut { .. })
    ));
    group.remove().unwrap();
    assert_eq!(ray.get(&outside).unwrap(), 2);
    let refused = inside(0).map(|late| kind(ray.get(&late)));
    assert!(matches!(refused, Ok(TaskErrorKind::Refused) | Err(SubmitError::Refused { .. })), "{refused:?}");
    assert!(ray.placement_group(&[], Strategy::Pack).is_err());
}

#[test]
fn objects_of_another_raylet_are_refused() {
    let (one, two) = (direct(), direct());
    let object = one.put(5u64).unwrap();
    let foreign = increment::remote(&two, &object);
    assert!(matches!(foreign, Err(SubmitError::ForeignReference { .. })), "{foreign:?}");
    assert_eq!(one.get(&increment::remote(&one, &object).unwrap()).unwrap(), 6);
}

#[remote]
fn chatter(text: String) {
    println!("{text}");
    eprintln!("{text} aloud");
}

/// What the test below runs as a process of its own, to see what it writes.
#[test]
fn chattering_driver() {
    if let Ok(seen) = std::env::var("RAYLET_TEST_CHATTER") {
        let ray = one_cpu();
        ray.get(&chatter::remote(&ray, "hello driver").unwrap()).unwrap();
        while !std::path::Path::new(&seen).exists() {
            std::thread::yield_now();
        }
    }
}

/// Reads until a line ends so.
fn line_ending(stream: impl std::io::Read, end: &str) -> String {
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    lines.map(Result::unwrap).find(|line| line.ends_with(end)).expect("it writes the line")
}

#[test]
fn what_workers_write_comes_to_the_driver_with_their_names() {
    use std::process::{Command, Stdio};
    let signals = Signals::new();
    let mut driver = Command::new(std::env::current_exe().unwrap());
    driver.args(["--exact", "chattering_driver", "--nocapture"]).env("RAYLET_TEST_CHATTER", signals.path("go"));
    let mut driver = driver.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = line_ending(driver.stdout.take().unwrap(), ") hello driver");
    let err = line_ending(driver.stderr.take().unwrap(), ") hello driver aloud");
    signals.go();
    driver.wait().unwrap();
    for line in [out, err] {
        assert!(line.starts_with('(') && line.contains(" pid="), "{line}");
    }
}
