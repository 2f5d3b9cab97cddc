//! Zygotes and workers: forked, heard, killed, orphaned, and gone with their raylet.
//!
//! The one thing to know: this test's own executable is the zygote, and what a worker does is its
//! label. Who has to die with a raylet is tested with a raylet in a process of its own, the *host*,
//! which is this executable once more, taken over before the test harness runs. Waiting has a bound
//! that only a hang reaches; nothing sleeps.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet::pool::reaper::Reaper;
use raylet::pool::{Event, Exit, Line, Pool, Program, Refusal, Stream, WorkerError, WorkerSpec};
use raylet::{Config, Raylet, session};
use raylet_client::role::{Worker, set_worker_main};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store_shm::process::Fresh;
use store_shm::{ProcessId, Watch};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);
const LONG_MS: u16 = 60_000;
/// Set for a zygote that is to have a second thread.
const THREADED: &str = "RAYLET_TEST_THREADED";
/// Set for the host: the directory of sessions.
const HOST: &str = "RAYLET_TEST_HOST";

store_shm::before_main!(early be_somebody_else);

fn be_somebody_else(_: Fresh) {
    set_worker_main(worker_main);
    if std::env::var_os(THREADED).is_some() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tell.send(()).unwrap();
            std::thread::park();
        });
        told.recv().unwrap();
    }
    if let Some(base) = std::env::var_os(HOST).filter(|_| std::env::var_os("RAYLET_ROLE").is_none()) {
        host(Path::new(&base));
        std::process::exit(0);
    }
}

/// What a worker does, by its label.
fn worker_main(worker: Worker) -> i32 {
    match worker.spec.label.as_str() {
        "rest" => worker.wait_for_the_end(),
        "exit 3" => 3,
        "panic" => panic!("as it was told"),
        "write" => write_lines(),
        "look" => look(&worker),
        "leave a child" => {
            println!("child {}", sleeper().id());
            0
        }
        "rest with a child" => {
            println!("child {}", sleeper().id());
            worker.wait_for_the_end()
        }
        "join" => {
            let client = worker.client.as_ref().unwrap();
            println!("joined as {}", client.client().number);
            worker.wait_for_the_end()
        }
        other => panic!("nobody told a worker to {other:?}"),
    }
}

/// A process that ends by being killed.
fn sleeper() -> Child {
    Command::new("sleep").arg("10000").spawn().unwrap()
}

const LINE_BYTES: usize = 1 << 20;

fn write_lines() -> i32 {
    let mut out = std::io::stdout();
    let mut say = |bytes: &[u8]| out.write_all(bytes).and_then(|()| out.flush()).unwrap();
    say(b"in ");
    say(b"pieces\n\n");
    say(&[b'x'; LINE_BYTES]);
    say(b"\n");
    say(&[0, 0xff, 0xfe, b'\n']);
    eprintln!("to the other");
    say(b"without an end");
    0
}

/// Says what a worker finds itself to be.
fn look(worker: &Worker) -> i32 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    println!("fds {open}");
    let stdin = std::fs::read_link("/proc/self/fd/0").unwrap();
    println!("stdin {}", stdin.display());
    println!("role {:?}", std::env::var_os("RAYLET_ROLE"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        // Of the names with three letters more, blocked, ignored and caught; without those above 31,
        // two of which belong to the C library and stay as whoever started this test left them.
        if let Some((name @ ("SigBlk" | "SigIgn" | "SigCgt"), mask)) = line.split_once(":\t") {
            println!("{name} {:x}", u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff);
        }
    }
    let own = nix::unistd::getpid();
    println!("leads {}", nix::unistd::getpgrp() == own && nix::unistd::getsid(None) == Ok(own));
    println!("oom {}", std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim());
    println!("client {}", worker.client.is_some());
    println!("threads {}", std::fs::read_dir("/proc/self/task").unwrap().count());
    0
}

/// A pool and what it says.
struct World {
    // First, so that it has ended before its listener does.
    pool: Pool,
    events: mpsc::UnboundedReceiver<Event>,
    lines: mpsc::Receiver<Line>,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let (tell_events, events) = mpsc::unbounded_channel();
        let (tell_lines, lines) = mpsc::channel(64);
        let pool = Pool::start(tell_events, tell_lines, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        World { pool, events, lines, runtime }
    }

    /// With zygote 1.
    fn ready() -> (World, u32) {
        let mut world = World::new();
        world.pool.start_zygote(1, Program::own());
        let pid = world.zygote_ready();
        (world, pid)
    }

    fn next(&mut self) -> Event {
        let next = self.runtime.block_on(async { timeout(LONG, self.events.recv()).await });
        next.expect("the pool says something in time").expect("the pool lives")
    }

    fn next_line(&mut self) -> Line {
        let next = self.runtime.block_on(async { timeout(LONG, self.lines.recv()).await });
        next.expect("a worker writes something in time").expect("the pool lives")
    }

    fn next_text(&mut self) -> String {
        String::from_utf8(self.next_line().bytes).unwrap()
    }

    /// The number that stands behind `name` in the next line.
    fn next_number(&mut self, name: &str) -> u32 {
        let text = self.next_text();
        text.strip_prefix(name).unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    }

    #[track_caller]
    fn zygote_ready(&mut self) -> u32 {
        match self.next() {
            Event::ZygoteReady { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn started(&mut self) -> (u64, ProcessId) {
        match self.next() {
            Event::WorkerStarted { worker, process } => (worker, process),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn ended(&mut self) -> (u64, Option<Exit>) {
        match self.next() {
            Event::WorkerEnded { worker, exit, .. } => (worker, exit),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self) -> WorkerError {
        match self.next() {
            Event::WorkerRefused { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a worker of zygote 1 and waits until it is there.
    #[track_caller]
    fn start(&mut self, worker: u64, label: &str) -> ProcessId {
        self.pool.start_worker(1, spec(worker, label));
        let (started, process) = self.started();
        assert_eq!(started, worker);
        process
    }
}

fn spec(worker: u64, label: &str) -> WorkerSpec {
    WorkerSpec { worker, label: label.to_owned(), ..WorkerSpec::default() }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Waits until the kernel says that it is dead.
#[track_caller]
fn wait_until_dead(process: ProcessId) {
    let Some(watch) = Watch::try_open(process).unwrap() else { return };
    let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(LONG_MS)), Ok(1), "{process:?} lives on");
}

fn process(pid: u32) -> ProcessId {
    ProcessId::of(pid).unwrap()
}

#[test]
fn two_hundred_workers_are_started_and_all_end_with_the_pool() {
    let (mut world, zygote) = World::ready();
    let zygote = process(zygote);
    for worker in 0..200 {
        world.pool.start_worker(1, spec(worker, "rest"));
    }
    let processes: BTreeMap<u64, ProcessId> = (0..200).map(|_| world.started()).collect();
    let mut pids: Vec<u32> = processes.values().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!((processes.len(), pids.len()), (200, 200));
    assert!(processes.values().all(|process| !process.is_dead()));
    drop(world);
    // No waiting: the pool has waited.
    assert!(processes.values().chain([&zygote]).all(ProcessId::is_dead));
}

#[test]
fn a_worker_is_told_by_how_it_ended() {
    let (mut world, _) = World::ready();
    for (worker, label, expected) in [(1, "exit 3", Exit::Code(3)), (2, "panic", Exit::Code(101))] {
        world.start(worker, label);
        assert_eq!(world.ended(), (worker, Some(expected)));
    }
    let rests = world.start(3, "rest");
    world.pool.kill_worker(3);
    assert_eq!(world.ended(), (3, Some(Exit::Signal(9))));
    assert!(rests.is_dead());
    let rests = world.start(4, "rest");
    signal(rests.pid, Signal::SIGSEGV);
    assert_eq!(world.ended(), (4, Some(Exit::Signal(11))));
    // Killed before it is there.
    world.pool.start_worker(1, spec(5, "rest"));
    world.pool.kill_worker(5);
    assert_eq!(world.started().0, 5);
    assert_eq!(world.ended(), (5, Some(Exit::Signal(9))));
    // Nobody by these numbers.
    world.pool.kill_worker(5);
    world.pool.kill_worker(77);
    world.pool.start_worker(9, spec(6, "rest"));
    assert!(matches!(world.refused(), WorkerError::NoZygote { zygote: 9 }));
}

#[test]
fn workers_outlive_their_zygote_which_can_be_started_again() {
    let (mut world, zygote) = World::ready();
    let rests = world.start(1, "rest");
    signal(zygote, Signal::SIGKILL);
    match world.next() {
        Event::ZygoteEnded { zygote: 1, exit, was_ready: true, error: None } => {
            assert_eq!(exit, Some(Exit::Signal(9)));
        }
        other => panic!("{other:?}"),
    }
    world.pool.start_worker(1, spec(2, "rest"));
    assert!(matches!(world.refused(), WorkerError::NoZygote { zygote: 1 }));
    world.pool.start_zygote(1, Program::own());
    assert_ne!(world.zygote_ready(), zygote);
    world.start(3, "rest");
    assert!(!rests.is_dead());
    world.pool.kill_worker(1);
    // How it ended went to whoever reaps orphans here.
    assert_eq!(world.ended().0, 1);
    assert!(rests.is_dead());
}

#[test]
fn forks_that_a_dead_zygote_owes_are_refused_and_nobody_is_left() {
    let (mut world, zygote) = World::ready();
    signal(zygote, Signal::SIGSTOP);
    for worker in 0..100 {
        world.pool.start_worker(1, spec(worker, "rest"));
    }
    signal(zygote, Signal::SIGKILL);
    for _ in 0..100 {
        let error = world.refused();
        assert!(matches!(error, WorkerError::ZygoteEnded { zygote: 1 }), "{error}");
    }
    assert!(matches!(world.next(), Event::ZygoteEnded { was_ready: true, .. }));
    // One that is killed while it forks.
    world.pool.start_zygote(1, Program::own());
    let zygote = world.zygote_ready();
    (0..100).for_each(|worker| world.pool.start_worker(1, spec(worker, "rest")));
    let first = world.started().1;
    signal(zygote, Signal::SIGKILL);
    let mut started = vec![first];
    for _ in 1..100 {
        match world.next() {
            Event::WorkerStarted { process, .. } => started.push(process),
            Event::WorkerRefused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(started.iter().all(|process| !process.is_dead()));
    drop(world);
    assert!(started.iter().all(ProcessId::is_dead));
}

#[test]
fn a_zygote_with_threads_refuses_to_fork() {
    let mut world = World::new();
    let program = Program { environment: vec![(THREADED.into(), "1".into())], ..Program::own() };
    world.pool.start_zygote(1, program);
    let pid = world.zygote_ready();
    world.pool.start_worker(1, spec(1, "rest"));
    match world.refused() {
        WorkerError::Refused(Refusal::Threaded { pid: found, count: 2 }) => assert_eq!(found, pid),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_zygote_is_found_out() {
    let mut world = World::new();
    world.pool.start_zygote(1, Program::at("/nowhere/at/all"));
    match world.next() {
        Event::ZygoteEnded { error: Some(error), was_ready: false, .. } => {
            assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    world.pool.start_zygote(2, Program::at("/bin/true"));
    match world.next() {
        Event::ZygoteEnded { zygote: 2, error: None, was_ready: false, exit } => assert_eq!(exit, Some(Exit::Code(0))),
        other => panic!("{other:?}"),
    }
    // Says something else than a zygote would, on the socket that is its standard input.
    let talker =
        Program { arguments: vec!["-c".into(), "echo GET / >&0; exec sleep 10000".into()], ..Program::at("/bin/sh") };
    world.pool.start_zygote(3, talker);
    assert!(matches!(world.next(), Event::ZygoteEnded { zygote: 3, was_ready: false, .. }));
    let long = WorkerSpec { label: "x".repeat(1 << 20), ..spec(1, "") };
    world.pool.start_zygote(4, Program::own());
    world.zygote_ready();
    world.pool.start_worker(4, long);
    assert!(matches!(world.refused(), WorkerError::Spec(_)));
}

#[test]
fn a_dead_workers_group_is_gone_before_anybody_hears_of_its_end() {
    let (mut world, zygote) = World::ready();
    world.start(1, "leave a child");
    let child = world.next_number("child ");
    assert_eq!(world.ended().0, 1);
    assert!(ProcessId::of(child).is_none_or(|child| child.is_dead()));
    // Even if the zygote, which has to reap the worker, is stopped.
    let rests = world.start(2, "rest with a child");
    let child = process(world.next_number("child "));
    signal(zygote, Signal::SIGSTOP);
    signal(rests.pid, Signal::SIGKILL);
    assert_eq!(world.ended().0, 2);
    assert!(child.is_dead());
    signal(zygote, Signal::SIGCONT);
    world.start(3, "rest");
}

#[test]
fn lines_arrive_whole() {
    let (mut world, _) = World::ready();
    let pid = world.start(1, "write").pid;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while out.len() < 5 || err.is_empty() {
        let line = world.next_line();
        assert_eq!((line.worker, line.pid), (1, pid));
        match line.stream {
            Stream::Stdout => out.push((line.bytes, line.is_whole)),
            Stream::Stderr => err.push((line.bytes, line.is_whole)),
        }
    }
    let whole = |bytes: &[u8]| (bytes.to_vec(), true);
    let last = (b"without an end".to_vec(), false);
    let expected = [whole(b"in pieces"), whole(b""), whole(&[b'x'; LINE_BYTES]), whole(&[0, 0xff, 0xfe]), last];
    assert!(out == expected, "{:?}", out.iter().map(|(bytes, is)| (bytes.len(), is)).collect::<Vec<_>>());
    assert_eq!(err, [whole(b"to the other")]);
}

#[test]
fn a_worker_is_as_a_program_finds_itself_at_its_start() {
    let (mut world, _) = World::ready();
    world.pool.start_worker(1, WorkerSpec { oom_score_adj: 500, ..spec(1, "look") });
    world.started();
    let mut said = BTreeMap::new();
    while !said.contains_key("threads") {
        let text = world.next_text();
        let (name, value) = text.split_once(' ').unwrap();
        said.insert(name.to_owned(), value.trim().to_owned());
    }
    let expected = [
        // Three streams, the leash, and the directory that is being read.
        ("fds", "5"),
        ("stdin", "/dev/null"),
        ("role", "None"),
        ("leads", "true"),
        ("oom", "500"),
        ("client", "false"),
        ("threads", "1"),
        ("SigBlk", "0"),
        ("SigCgt", "0"),
        // A broken pipe, and nothing else.
        ("SigIgn", "1000"),
    ];
    for (name, value) in expected {
        assert_eq!(said[name], value, "{name}");
    }
}

#[test]
fn a_worker_joins_its_session_or_says_why_not() {
    let base = tempfile::tempdir().unwrap();
    let config = config(base.path(), "here");
    let raylet = Raylet::start(&config).unwrap();
    let (mut world, _) = World::ready();
    let directory = |path: &Path| Some(path.to_str().unwrap().to_owned());
    let joins = WorkerSpec { directory: directory(raylet.session().directory()), ..spec(1, "join") };
    world.pool.start_worker(1, joins);
    let joined = world.started().1;
    let number = world.next_number("joined as ");
    let clients = raylet.store().clients();
    let client = clients.iter().find(|client| u32::from(client.client) == number).unwrap();
    assert_eq!(client.pid, joined.pid);
    let nobody = WorkerSpec { directory: directory(&base.path().join("gone")), ..spec(2, "join") };
    world.pool.start_worker(1, nobody);
    world.started();
    let line = world.next_line();
    let text = String::from_utf8(line.bytes).unwrap();
    assert!(text.starts_with("raylet: worker 2 could not start: no raylet runs at "), "{text}");
    assert_eq!((line.stream, world.ended()), (Stream::Stderr, (2, Some(Exit::Code(71)))));
}

fn config(base: &Path, session: &str) -> Config {
    Config {
        base: base.to_owned(),
        session: session.to_owned(),
        capacity_bytes: 8 << 20,
        max_clients: 64,
        ..Config::default()
    }
}

/// A raylet with a pool, in a process of its own: says who it started, and serves until it is killed.
fn host(base: &Path) {
    let config = config(base, "hosted");
    let reaper = Reaper::start(&config, None).unwrap();
    let raylet = Raylet::start(&config).unwrap();
    let (mut world, zygote) = World::ready();
    let directory = raylet.session().directory().to_str().unwrap().to_owned();
    let mut pids = vec![reaper.pid(), zygote];
    for worker in 1..=8 {
        let label = if worker == 1 { "rest with a child" } else { "join" };
        world.pool.start_worker(1, WorkerSpec { directory: Some(directory.clone()), ..spec(worker, label) });
        pids.push(world.started().1.pid);
        let text = world.next_text();
        pids.extend(text.strip_prefix("child ").map(|pid| pid.parse::<u32>().unwrap()));
    }
    println!("{}", serde_json::to_string(&pids).unwrap());
    // Until it is killed, or told to end by the end of its standard input.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    drop(world);
    drop(raylet);
}

/// The host as its parent sees it.
struct Host {
    child: Child,
    processes: Vec<ProcessId>,
    record: session::Record,
    base: tempfile::TempDir,
}

impl Host {
    fn start() -> Host {
        let base = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(HOST, base.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pids: Vec<u32> = serde_json::from_str(&line).expect("the host says whom it started");
        let processes = pids.into_iter().map(process).collect();
        let record = session::record(&base.path().join("hosted")).unwrap();
        Host { child, processes, record, base }
    }

    fn door(&self) -> std::path::PathBuf {
        Path::new("/dev/shm").join(&self.record.door)
    }

    /// Waits until everybody is dead, the reaper last, and looks what is left.
    #[track_caller]
    fn check_gone(mut self) {
        self.child.wait().unwrap();
        self.processes.iter().for_each(|&process| wait_until_dead(process));
        assert!(!self.door().exists());
        assert!(!self.record.spill_directory.exists());
        assert_eq!(std::fs::read_dir(self.base.path()).unwrap().count(), 0);
    }
}

#[test]
fn nothing_outlives_a_killed_raylet() {
    let mut host = Host::start();
    assert!(host.door().exists());
    host.child.kill().unwrap();
    host.check_gone();
}

#[test]
fn nothing_outlives_a_killed_raylet_even_if_it_is_stopped() {
    let mut host = Host::start();
    // All but the reaper.
    host.processes[1..].iter().for_each(|process| signal(process.pid, Signal::SIGSTOP));
    host.child.kill().unwrap();
    host.check_gone();
}

#[test]
fn nothing_outlives_a_raylet_that_ends() {
    let mut host = Host::start();
    drop(host.child.stdin.take());
    host.check_gone();
}
