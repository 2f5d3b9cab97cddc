//! A driver and the raylet that is its child: ready, joined, and gone with its driver.
//!
//! The one thing to know: the *driver* whose end is tested is this test binary once more. Waiting has a bound that only a hang reaches; nothing sleeps.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::role::{self, ChildError, RayletChild, StartRayletError};
use raylet_client::{Client, Config, ConnectError, ConnectOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store_shm::{ProcessId, Watch};

const LONG_MS: u16 = 60_000;
/// Set for the driver: the directory of sessions.
const BASE: &str = "RAYLET_TEST_DRIVER";
const SESSION: &str = "driven";
/// What the driver says before the pids of its raylet and of what else it started.
const STARTED: &str = "started ";

/// The driver whose end is tested; without its variable, a test of nothing.
#[test]
fn driver_process() {
    let Some(base) = std::env::var_os(BASE) else { return };
    // The thread that starts the raylet ends before anybody hears of it.
    let raylet = std::thread::spawn(move || start(Path::new(&base))).join().unwrap();
    let client = join(&raylet);
    let object = client.put(b"there").unwrap();
    // What user code starts has no part in the raylet's life.
    let mut child = Command::new("sleep").arg("10000").stdout(Stdio::null()).spawn().unwrap();
    println!("\n{STARTED}{} {}", raylet.pid(), child.id());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    drop((object, client, raylet));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn start(base: &Path) -> RayletChild {
    role::start_raylet(&config(base)).unwrap()
}

fn config(base: &Path) -> Config {
    let session = SESSION.to_owned();
    Config { base: base.to_owned(), session, capacity_bytes: 16 << 20, max_clients: 16, ..Config::default() }
}

fn join(raylet: &RayletChild) -> Client {
    Client::connect(&ConnectOptions::at(raylet.session_directory())).unwrap()
}

fn process(pid: u32) -> ProcessId {
    ProcessId::of(pid).unwrap()
}

fn signal(process: ProcessId, signal: Signal) {
    kill(Pid::from_raw(process.pid as i32), signal).unwrap();
}

#[track_caller]
fn wait_until_dead(process: ProcessId) {
    let Some(watch) = Watch::try_open(process).unwrap() else { return };
    let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(LONG_MS)), Ok(1), "{process:?} lives on");
}

/// The reaper of a raylet: the one child that it has had from before it was ready.
fn reaper_of(raylet: ProcessId) -> ProcessId {
    let path = format!("/proc/{0}/task/{0}/children", raylet.pid);
    let children = std::fs::read_to_string(path).unwrap();
    process(children.trim().parse().expect("one child"))
}

fn names_in_memory(base: &Path) -> Vec<PathBuf> {
    // Doors of other sessions are other tests'.
    let record = std::fs::read(base.join(SESSION).join("lock")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let name = |field: &str| record[field].as_str().unwrap().to_owned();
    vec![Path::new("/dev/shm").join(name("door")), PathBuf::from(name("spill_directory"))]
}

#[test]
fn a_raylet_is_started_joined_and_ended() {
    let base = tempfile::tempdir().unwrap();
    let raylet = start(base.path());
    let left = names_in_memory(base.path());
    let reaper = reaper_of(process(raylet.pid()));
    assert!(left.iter().all(|path| path.exists()));
    let client = join(&raylet);
    assert_eq!(client.session_id(), raylet.session_id());
    assert_eq!(client.job(), raylet_client::JobId::new(1));
    let object = client.put(b"there").unwrap();
    let pid = process(raylet.pid());
    let options = ConnectOptions::at(raylet.session_directory());
    drop(raylet);
    assert!(pid.is_dead() && reaper.is_dead());
    assert_eq!(&client.view(&object).unwrap()[..], b"there");
    assert!(matches!(Client::connect(&options), Err(ConnectError::NotRunning { .. })));
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_raylet_that_cannot_run_says_why() {
    let base = tempfile::tempdir().unwrap();
    let _first = start(base.path());
    let error = role::start_raylet(&config(base.path())).unwrap_err();
    assert!(
        matches!(&error, StartRayletError::Child(ChildError::Refused { text }) if text.contains("already running")),
        "{error}"
    );
    let nowhere = Config { session: "../x".to_owned(), ..config(base.path()) };
    let error = role::start_raylet(&nowhere).unwrap_err();
    assert!(error.to_string().contains("cannot name a session"), "{error}");
}

#[test]
fn an_unknown_role_runs_nothing() {
    for role in ["nobody", "", "zygote"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.env("RAYLET_ROLE", role).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty() && text.starts_with("raylet: "), "{role}: {text}");
    }
}

/// A driver with a raylet, as its parent sees it.
struct Driver {
    child: Child,
    _lines: Box<dyn Iterator<Item = String>>,
    raylet: ProcessId,
    reaper: ProcessId,
    /// What user code in the driver started, which nobody but the driver may end.
    stranger: ProcessId,
    left: Vec<PathBuf>,
    base: tempfile::TempDir,
}

impl Driver {
    fn start() -> Driver {
        let base = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "driver_process", "--nocapture"]);
        command.env(BASE, base.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Kept open: the harness of the child says more at its end.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pids = lines.find_map(|line| Some(line.strip_prefix(STARTED)?.to_owned())).expect("it says so");
        let (raylet, stranger) = pids.split_once(' ').unwrap();
        let [raylet, stranger] = [raylet, stranger].map(|pid| process(pid.parse().unwrap()));
        Driver {
            _lines: Box::new(lines),
            child,
            raylet,
            reaper: reaper_of(raylet),
            stranger,
            left: names_in_memory(base.path()),
            base,
        }
    }

    #[track_caller]
    fn check_gone(&self) {
        wait_until_dead(self.raylet);
        wait_until_dead(self.reaper);
        assert!(self.left.iter().all(|path| !path.exists()), "{:?}", self.left);
        assert_eq!(std::fs::read_dir(self.base.path()).unwrap().count(), 0);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.stranger.is_dead() {
            signal(self.stranger, Signal::SIGKILL);
        }
        wait_until_dead(self.raylet);
        wait_until_dead(self.reaper);
    }
}

#[test]
fn a_raylet_outlives_the_thread_that_started_it_and_ends_with_the_driver() {
    let mut driver = Driver::start();
    assert!(!driver.raylet.is_dead());
    drop(driver.child.stdin.take());
    assert!(driver.child.wait().unwrap().success());
    driver.check_gone();
}

#[test]
fn a_killed_driver_takes_its_raylet_along() {
    let mut driver = Driver::start();
    driver.child.kill().unwrap();
    driver.check_gone();
    assert!(!driver.stranger.is_dead());
}

#[test]
fn a_killed_raylet_leaves_nothing_but_its_driver() {
    let driver = Driver::start();
    signal(driver.raylet, Signal::SIGKILL);
    driver.check_gone();
    assert!(!process(driver.child.id()).is_dead());
}

#[test]
fn a_stopped_raylet_is_killed_when_its_driver_is_gone() {
    let mut driver = Driver::start();
    signal(driver.raylet, Signal::SIGSTOP);
    driver.child.kill().unwrap();
    driver.check_gone();
}
