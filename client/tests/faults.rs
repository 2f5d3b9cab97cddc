//! Who is killed or stopped, and what everybody else sees: one table.
//!
//! The one thing to know: each row runs over both transports. It has a raylet of its own with two
//! CPUs, and this process is its driver; other drivers are this executable once more. Waiting has a bound that only a hang
//! reaches, and nothing asserts how long anything takes. A row ends with nothing left: no worker, no
//! byte, no file. It must not touch a process that its own world did not start.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::prelude::*;
use raylet_client::role::{RayletChild, start_raylet};
use raylet_client::{ActorHandle, GetError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);
/// How long something is watched for not coming.
const SHORT: Duration = Duration::from_millis(50);
/// Set for a driver that is not this process: which one.
const DRIVER: &str = "RAYLET_TEST_DRIVER";
const SESSION: &str = "RAYLET_TEST_SESSION";
const SIGNS: &str = "RAYLET_TEST_SIGNS";
/// What chooses the transport of every driver and worker here.
const FORCE_DIRECT: &str = "RAY_FORCE_DIRECT";

type Row = (&'static str, &'static str, fn(&mut World) -> Result<()>);

/// Who, what, and the row's program.
const TABLE: &[Row] = &[
    ("worker", "killed", worker_killed),
    ("worker", "stopped", worker_stopped),
    ("actor", "killed", actor_killed),
    ("actor", "stopped", actor_stopped),
    ("submitter", "killed", submitter_killed),
    ("submitter", "stopped", submitter_stopped),
    ("driver", "killed", driver_killed),
    ("driver", "stopped", driver_stopped),
    ("zygote", "killed", zygote_killed),
    ("zygote", "stopped", zygote_stopped),
    ("raylet", "killed", raylet_killed),
    ("raylet", "stopped", raylet_stopped),
];

fn main() -> Result<()> {
    if let Some(which) = std::env::var_os(DRIVER) {
        return driver(which.to_str().ok_or("a name")?);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::var_os(FORCE_DIRECT).is_none() {
        return both_transports();
    }
    let transport = if is_direct() { "direct" } else { "through the raylet" };
    for (who, what, body) in TABLE {
        let name = format!("{who} {what}");
        let is_wanted = wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
        // Through a stopped raylet nothing goes.
        if !is_wanted || !is_direct() && name == "raylet stopped" {
            continue;
        }
        let started = Instant::now();
        let mut world = World::new()?;
        body(&mut world).map_err(|error| format!("{name}, {transport}: {error}"))?;
        world.end().map_err(|error| format!("{name}, {transport}, at its end: {error}"))?;
        println!("{transport:<18} {name:<18} ok, {} ms", started.elapsed().as_millis());
    }
    Ok(())
}

fn is_direct() -> bool {
    std::env::var_os(FORCE_DIRECT).is_some_and(|force| force == "1")
}

/// This executable once more for each: a process' variables do not change while it has threads.
fn both_transports() -> Result<()> {
    for force in ["1", "0"] {
        let status =
            Command::new(std::env::current_exe()?).args(std::env::args().skip(1)).env(FORCE_DIRECT, force).status()?;
        if !status.success() {
            return Err(format!("with {FORCE_DIRECT}={force}: {status}").into());
        }
    }
    Ok(())
}

/// A raylet, this process as its driver, and a directory for signs.
struct World {
    // In this order they end.
    ray: Option<Raylet>,
    raylet: RayletChild,
    others: Vec<Child>,
    base: tempfile::TempDir,
    /// Bytes in use before anything ran.
    used: u64,
}

impl World {
    fn new() -> Result<World> {
        let base = tempfile::tempdir()?;
        let config = raylet::Config {
            base: base.path().join("raylet"),
            session: "faults".to_owned(),
            capacity_bytes: 64 << 20,
            resources: raylet_core::resources::Resources::cpus(raylet_core::resources::Amount(2 * 10_000)),
            ..raylet::Config::default()
        };
        let raylet = start_raylet(&config)?;
        let ray = join(raylet.session_directory())?;
        let used = ray.store().usage().used_bytes;
        Ok(World { ray: Some(ray), raylet, others: Vec::new(), base, used })
    }

    fn ray(&self) -> Raylet {
        self.ray.clone().expect("it ends with the world")
    }

    /// A place for a sign.
    fn sign(&self, name: &str) -> String {
        self.base.path().join(name).display().to_string()
    }

    /// Starts another driver, and gives the first line that it says.
    fn other(&mut self, which: &str) -> Result<(i32, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(DRIVER, which).env(SESSION, self.raylet.session_directory());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env(SIGNS, self.base.path());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("it is piped")?).read_line(&mut line)?;
        let pid = child.id().cast_signed();
        self.others.push(child);
        Ok((pid, line.trim().to_owned()))
    }

    /// The pid of a child of the raylet with this name.
    fn process(&self, name: &str) -> Result<i32> {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let (head, tail) = stat.rsplit_once(')').ok_or("a stat line")?;
            let parent = tail.split_whitespace().nth(1).and_then(|ppid| ppid.parse::<u32>().ok());
            if parent == Some(self.raylet.pid()) && head.ends_with(&format!("({name}")) {
                return Ok(pid);
            }
        }
        Err(format!("raylet {} has no child {name:?}", self.raylet.pid()).into())
    }

    /// Everything is given back, and nothing of the raylet is left once it has ended.
    fn end(mut self) -> Result<()> {
        for mut child in self.others.drain(..) {
            signal(child.id().cast_signed(), Signal::SIGKILL);
            child.wait()?;
        }
        let ray = self.ray.take().expect("it ends here");
        let used = self.used;
        if !is_over(self.raylet.pid().cast_signed()) {
            until("all bytes to be back", || ray.store().usage().used_bytes <= used)?;
        }
        drop(ray);
        let directory = self.raylet.session_directory().to_owned();
        drop(self.raylet);
        until("the session to be gone", || !directory.join("socket").exists())
    }
}

fn join(directory: &Path) -> Result<Raylet> {
    Ok(Raylet::init(Config { address: Some(directory.display().to_string()), ..Config::default() })?)
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there, or not reaped yet");
}

fn is_over(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, tail)| tail.trim_start().starts_with(['Z', 'X'])))
}

/// Looks until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > LONG {
            return Err(format!("waited {} s for {what}", LONG.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn pid_at(sign: &str) -> Result<i32> {
    until(sign, || std::fs::read_to_string(sign).is_ok_and(|text| text.ends_with('\n')))?;
    Ok(std::fs::read_to_string(sign)?.trim().parse()?)
}

fn leave_pid(sign: &str) -> std::io::Result<()> {
    std::fs::write(sign, format!("{}\n", std::process::id()))
}

/// Says where it runs, for each attempt apart, and waits for the sign to go on.
#[remote]
fn linger(sign: String) -> Result<u32> {
    let attempt = (0..).find(|attempt| !exists(&format!("{sign}.{attempt}"))).expect("numbers do not end");
    leave_pid(&format!("{sign}.{attempt}"))?;
    until(&sign, || exists(&sign))?;
    Ok(attempt)
}

#[remote]
fn double(x: u64) -> u64 {
    2 * x
}

/// Tasks by others go on.
fn others_go_on(ray: &Raylet) -> Result<()> {
    let doubled: Vec<_> = (0..200).map(|x| double::remote(ray, x)).collect::<Result<_, _>>()?;
    for (x, doubled) in (0..).zip(&doubled) {
        assert_eq!(ray.get_timeout(doubled, LONG)?, 2 * x);
    }
    Ok(())
}

fn worker_killed(world: &mut World) -> Result<()> {
    let (ray, sign) = (world.ray(), world.sign("retried"));
    let retried = linger::remote(&ray, sign.clone())?;
    signal(pid_at(&format!("{sign}.0"))?, Signal::SIGKILL);
    pid_at(&format!("{sign}.1"))?;
    others_go_on(&ray)?;
    std::fs::write(&sign, "")?;
    assert_eq!(ray.get_timeout(&retried, LONG)?, 1, "the second attempt");

    let sign = world.sign("crashed");
    let crashed = linger::options(Options::new().max_retries(0)).remote(&ray, sign.clone())?;
    signal(pid_at(&format!("{sign}.0"))?, Signal::SIGKILL);
    assert_eq!(kind(ray.get_timeout(&crashed, LONG))?, TaskErrorKind::WorkerCrashed);
    assert!(!exists(&format!("{sign}.1")), "no second attempt");
    others_go_on(&ray)
}

fn kind<T>(outcome: Result<T, FetchError>) -> Result<TaskErrorKind> {
    match outcome {
        Err(FetchError::Task(error)) => Ok(error.kind()),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it has a value".into()),
    }
}

fn worker_stopped(world: &mut World) -> Result<()> {
    let (ray, sign) = (world.ray(), world.sign("stopped"));
    let stopped = linger::remote(&ray, sign.clone())?;
    let worker = pid_at(&format!("{sign}.0"))?;
    signal(worker, Signal::SIGSTOP);
    others_go_on(&ray)?;
    std::fs::write(&sign, "")?;
    assert!(matches!(ray.get_timeout(&stopped, SHORT), Err(FetchError::TimedOut { .. })));
    signal(worker, Signal::SIGCONT);
    assert_eq!(ray.get_timeout(&stopped, LONG)?, 0, "the first attempt");
    Ok(())
}

struct Tally {
    sum: u64,
    kept: Vec<ObjectRef<u32>>,
}

#[remote]
impl Tally {
    fn new() -> Tally {
        Tally { sum: 0, kept: Vec::new() }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn add(&mut self, x: u64) -> u64 {
        self.sum += x;
        self.sum
    }

    fn keep(&mut self, kept: Vec<ObjectRef<u32>>) -> u64 {
        self.kept = kept;
        self.kept.len() as u64
    }

    fn kept(&self) -> Vec<ObjectRef<u32>> {
        self.kept.clone()
    }

    fn linger(&mut self, sign: String) -> Result<u32> {
        super_linger(sign)
    }
}

fn super_linger(sign: String) -> Result<u32> {
    linger(sign)
}

fn tally(ray: &Raylet, options: Options) -> Result<(ActorHandle<Tally>, i32)> {
    let tally = Tally::options(options).remote(ray)?;
    let pid = ray.get_timeout(&tally.pid()?, LONG)?.cast_signed();
    Ok((tally, pid))
}

fn actor_killed(world: &mut World) -> Result<()> {
    let ray = world.ray();
    let (mortal, pid) = tally(&ray, Options::new().num_cpus(0))?;
    let sign = world.sign("mortal");
    let (during, queued) = (mortal.linger(sign.clone())?, mortal.add(1)?);
    pid_at(&format!("{sign}.0"))?;
    signal(pid, Signal::SIGKILL);
    assert_eq!(kind(ray.get_timeout(&during, LONG))?, TaskErrorKind::ActorDied);
    assert_eq!(kind(ray.get_timeout(&queued, LONG))?, TaskErrorKind::ActorDied, "a queued call, too");
    assert_eq!(kind(ray.get_timeout(&mortal.add(1)?, LONG))?, TaskErrorKind::ActorDied, "and a later one");

    let again = Options::new().num_cpus(0).max_restarts(1).max_task_retries(1);
    let (restarted, pid) = tally(&ray, again)?;
    let sign = world.sign("restarted");
    let (before, during) = (ray.get_timeout(&restarted.add(5)?, LONG)?, restarted.linger(sign.clone())?);
    pid_at(&format!("{sign}.0"))?;
    signal(pid, Signal::SIGKILL);
    pid_at(&format!("{sign}.1"))?;
    std::fs::write(&sign, "")?;
    assert_eq!((before, ray.get_timeout(&during, LONG)?), (5, 1), "the call runs again");
    assert_eq!(ray.get_timeout(&restarted.add(1)?, LONG)?, 1, "its state is new");
    others_go_on(&ray)
}

fn actor_stopped(world: &mut World) -> Result<()> {
    let ray = world.ray();
    let (stopped, pid) = tally(&ray, Options::new().num_cpus(0))?;
    signal(pid, Signal::SIGSTOP);
    let call = stopped.add(1)?;
    others_go_on(&ray)?;
    assert!(matches!(ray.get_timeout(&call, SHORT), Err(FetchError::TimedOut { .. })));
    signal(pid, Signal::SIGCONT);
    assert_eq!(ray.get_timeout(&call, LONG)?, 1);
    Ok(())
}

/// Submits, hands the result to somebody else, and stays.
#[remote(max_retries = 0)]
fn submit_and_stay(ray: &Raylet, keeper: ActorHandle<Tally>, child: String, own: String) -> Result<u32> {
    let child = linger::remote(ray, child)?;
    ray.get(&keeper.keep(vec![child])?)?;
    linger(own)
}

/// The pids of a submitter and of the task that it submitted; an actor refers to the result.
fn submitter(world: &World) -> Result<(ActorHandle<Tally>, ObjectRef<u32>, [i32; 2])> {
    let (ray, child, own) = (world.ray(), world.sign("child"), world.sign("own"));
    let (keeper, _) = tally(&ray, Options::new().num_cpus(0))?;
    let parent = submit_and_stay::remote(&ray, keeper.clone(), child.clone(), own.clone())?;
    let pids = [pid_at(&format!("{own}.0"))?, pid_at(&format!("{child}.0"))?];
    Ok((keeper, parent, pids))
}

fn the_child_comes(world: &World, keeper: &ActorHandle<Tally>) -> Result<()> {
    let ray = world.ray();
    std::fs::write(world.sign("child"), "")?;
    let kept = ray.get_timeout(&keeper.kept()?, LONG)?;
    assert_eq!(ray.get_timeout(&kept[0], LONG)?, 0, "its first attempt");
    Ok(())
}

fn submitter_killed(world: &mut World) -> Result<()> {
    let (keeper, parent, [submitter, _]) = submitter(world)?;
    signal(submitter, Signal::SIGKILL);
    assert_eq!(kind(world.ray().get_timeout(&parent, LONG))?, TaskErrorKind::WorkerCrashed);
    the_child_comes(world, &keeper)?;
    others_go_on(&world.ray())
}

fn submitter_stopped(world: &mut World) -> Result<()> {
    let (keeper, parent, [submitter, _]) = submitter(world)?;
    signal(submitter, Signal::SIGSTOP);
    the_child_comes(world, &keeper)?;
    others_go_on(&world.ray())?;
    signal(submitter, Signal::SIGCONT);
    std::fs::write(world.sign("own"), "")?;
    assert_eq!(world.ray().get_timeout(&parent, LONG)?, 0);
    Ok(())
}

/// Another driver, which has an object, an actor and a task; says the pids of the two, and stays.
fn driver(which: &str) -> Result<()> {
    let directory = PathBuf::from(std::env::var_os(SESSION).ok_or("a session")?);
    let signs = PathBuf::from(std::env::var_os(SIGNS).ok_or("a directory")?);
    assert_eq!(which, "owner");
    let ray = join(&directory)?;
    let _object = ray.put(vec![1u8; 8 << 20])?;
    let (_actor, actor) = tally(&ray, Options::new().num_cpus(0))?;
    let sign = signs.join("theirs").display().to_string();
    let _task = linger::remote(&ray, sign.clone())?;
    println!("{actor} {}", pid_at(&format!("{sign}.0"))?);
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn owner(world: &mut World) -> Result<(i32, Vec<i32>)> {
    let (pid, said) = world.other("owner")?;
    let theirs: Vec<i32> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(theirs.len(), 2, "{said:?}");
    Ok((pid, theirs))
}

fn driver_killed(world: &mut World) -> Result<()> {
    let ray = world.ray();
    let before = ray.store().usage().used_bytes;
    let (driver, theirs) = owner(world)?;
    assert!(ray.store().usage().used_bytes >= before + (8 << 20));
    others_go_on(&ray)?;
    signal(driver, Signal::SIGKILL);
    until("its actor and its task to end", || theirs.iter().all(|pid| is_over(*pid)))?;
    until("its bytes to be back", || ray.store().usage().used_bytes <= before)?;
    others_go_on(&ray)
}

fn driver_stopped(world: &mut World) -> Result<()> {
    let ray = world.ray();
    let (driver, theirs) = owner(world)?;
    signal(driver, Signal::SIGSTOP);
    others_go_on(&ray)?;
    assert!(theirs.iter().all(|pid| !is_over(*pid)), "what it started stays");
    signal(driver, Signal::SIGCONT);
    Ok(())
}

fn zygote_killed(world: &mut World) -> Result<()> {
    let (ray, sign) = (world.ray(), world.sign("child"));
    let running = linger::remote(&ray, sign.clone())?;
    pid_at(&format!("{sign}.0"))?;
    let zygote = world.process("raylet-zygote")?;
    signal(zygote, Signal::SIGKILL);
    let (_actor, _) = tally(&ray, Options::new().num_cpus(0))?;
    others_go_on(&ray)?;
    std::fs::write(&sign, "")?;
    assert_eq!(ray.get_timeout(&running, LONG)?, 0, "workers stay");
    assert_ne!(world.process("raylet-zygote")?, zygote, "it is replaced");
    Ok(())
}

fn zygote_stopped(world: &mut World) -> Result<()> {
    let ray = world.ray();
    others_go_on(&ray)?;
    let zygote = world.process("raylet-zygote")?;
    signal(zygote, Signal::SIGSTOP);
    others_go_on(&ray)?;
    let actors: Vec<_> =
        (0..8).map(|_| Tally::options(Options::new().num_cpus(0)).remote(&ray)).collect::<Result<_, _>>()?;
    // Idle workers have become actors, and no others are forked; those on a lease go on.
    if is_direct() {
        others_go_on(&ray)?;
    }
    signal(zygote, Signal::SIGCONT);
    for actor in &actors {
        ray.get_timeout(&actor.pid()?, LONG)?;
    }
    Ok(())
}

fn raylet_stopped(world: &mut World) -> Result<()> {
    let ray = world.ray();
    let (actor, _) = tally(&ray, Options::new().num_cpus(0))?;
    let sign = world.sign("held");
    // Its worker has a lease on the class and keeps it, whatever the raylet thinks of idle ones.
    let held = linger::remote(&ray, sign.clone())?;
    pid_at(&format!("{sign}.0"))?;
    let raylet = world.raylet.pid().cast_signed();
    signal(raylet, Signal::SIGSTOP);
    let outcome = while_the_raylet_is_stopped(&ray, &actor, &held, &sign);
    signal(raylet, Signal::SIGCONT);
    outcome?;
    let (_another, _) = tally(&ray, Options::new().num_cpus(0))?;
    others_go_on(&ray)
}

fn while_the_raylet_is_stopped(
    ray: &Raylet,
    actor: &ActorHandle<Tally>,
    held: &ObjectRef<u32>,
    sign: &str,
) -> Result<()> {
    let object = ray.put(vec![7u8; 1 << 16])?;
    assert_eq!(ray.get(&object)?.len(), 1 << 16);
    drop(object);
    for n in 1..=100 {
        assert_eq!(ray.get_timeout(&actor.add(1)?, LONG)?, n);
    }
    std::fs::write(sign, "")?;
    assert_eq!(ray.get_timeout(held, LONG)?, 0);
    others_go_on(ray)
}

fn raylet_killed(world: &mut World) -> Result<()> {
    let (ray, sign) = (world.ray(), world.sign("child"));
    let object = ray.put(vec![7u8; 1 << 16])?;
    let (actor, pid) = tally(&ray, Options::new().num_cpus(0))?;
    let running = linger::remote(&ray, sign.clone())?;
    let worker = pid_at(&format!("{sign}.0"))?;
    let blocked = std::thread::spawn({
        let (ray, running) = (ray.clone(), running.clone());
        move || ray.get(&running)
    });
    signal(world.raylet.pid().cast_signed(), Signal::SIGKILL);
    let outcome = blocked.join().map_err(|_| "the getter panicked")?;
    let is_gone = matches!(&outcome, Err(FetchError::Get(error)) if matches!(**error, GetError::RayletGone));
    assert!(is_gone, "{outcome:?}");
    assert_eq!(ray.get(&object)?.len(), 1 << 16, "what is held stays readable");
    until("its workers to end", || is_over(worker) && is_over(pid))?;
    until("a submit to say so", || double::remote(&ray, 1).is_err() || actor.add(1).is_err())?;
    Ok(())
}
