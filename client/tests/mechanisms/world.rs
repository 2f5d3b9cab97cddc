//! A raylet of a test's own, other drivers, and looks at processes and files.
//!
//! The one thing to know: a raylet ends with its [`World`] and a driver with its [`Driver`], also where
//! a test fails. Waiting looks again and again, with a bound that only a hang reaches. This file must not
//! touch a process that it did not start.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet::ask::Asker;
use raylet_api::Message;
use raylet_api::inside::{ListTasks, ListWorkers, Summary, SummaryReply, TaskInfo, WorkerInfo};
use raylet_api::message::{Status, StatusReply};
use raylet_client::prelude::*;
use raylet_client::role::{RayletChild, start_raylet};
use raylet_core::resources::{Amount, Resources};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How long something is watched for not coming.
pub(crate) const SHORT: Duration = Duration::from_millis(30);
/// Which other driver a process is.
pub(crate) const DRIVER: &str = "RAYLET_TEST_DRIVER";
/// What that driver is told.
pub(crate) const TOLD: &str = "RAYLET_TEST_TOLD";
/// What stands before everything that a driver says to its test.
const SAYS: &str = "@@ ";
const ENTRIES_PER_PAGE: u32 = 1000;

/// A raylet, and a directory for signs.
pub(crate) struct World {
    // In this order they end.
    raylet: RayletChild,
    base: tempfile::TempDir,
}

impl World {
    /// With two CPUs.
    pub(crate) fn new() -> World {
        World::with(|_| {})
    }

    pub(crate) fn with_cpus(count: u64) -> World {
        World::with(|config| config.resources = Resources::cpus(Amount::whole(count as u32)))
    }

    pub(crate) fn with(change: impl FnOnce(&mut raylet::Config)) -> World {
        let base = tempfile::tempdir().unwrap();
        let mut config = raylet::Config {
            base: base.path().join("raylet"),
            capacity_bytes: 64 << 20,
            resources: Resources::cpus(Amount::whole(2)),
            ..raylet::Config::default()
        };
        change(&mut config);
        World { raylet: start_raylet(&config).unwrap(), base }
    }

    pub(crate) fn raylet_pid(&self) -> i32 {
        self.raylet.pid().cast_signed()
    }

    /// The session's directory.
    pub(crate) fn session(&self) -> &Path {
        self.raylet.session_directory()
    }

    /// Where all sessions are.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.base.path().join("raylet")
    }

    pub(crate) fn config(&self) -> Config {
        let address = Some(self.session().display().to_string());
        Config { address, log_to_driver: false, ..Config::default() }
    }

    /// This process as a driver.
    pub(crate) fn join(&self) -> Raylet {
        Raylet::init(self.config()).unwrap()
    }

    pub(crate) fn join_by(&self, transport: Transport) -> Raylet {
        Raylet::init(Config { transport: Some(transport), ..self.config() }).unwrap()
    }

    /// A place for a sign.
    pub(crate) fn sign(&self, name: &str) -> Sign {
        Sign(self.base.path().join(name).display().to_string())
    }

    pub(crate) fn asker(&self) -> Asker {
        Asker::connect(self.session()).unwrap()
    }

    pub(crate) fn status(&self) -> StatusReply {
        status(&mut self.asker())
    }

    pub(crate) fn summary(&self) -> SummaryReply {
        summary(&mut self.asker())
    }

    pub(crate) fn tasks(&self) -> Vec<TaskInfo> {
        match self.asker().ask(ListTasks { cursor: 0, count_max: ENTRIES_PER_PAGE }).unwrap() {
            Message::TasksReply(reply) => reply.tasks,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        match self.asker().ask(ListWorkers { cursor: 0, count_max: ENTRIES_PER_PAGE }).unwrap() {
            Message::WorkersReply(reply) => reply.workers,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn status(asker: &mut Asker) -> StatusReply {
    match asker.ask(Status {}).unwrap() {
        Message::StatusReply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn summary(asker: &mut Asker) -> SummaryReply {
    match asker.ask(Summary {}).unwrap() {
        Message::SummaryReply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A file that says "go on", and files beside it that say who has begun.
#[derive(Clone, Debug)]
pub(crate) struct Sign(pub(crate) String);

impl Sign {
    /// In a task: says that it has begun, gives which one it is, from 0, and waits for the sign.
    pub(crate) fn linger(&self) -> std::io::Result<u32> {
        let number = self.begin()?;
        until("the sign to go on", || Path::new(&self.0).exists());
        Ok(number)
    }

    /// In a task: says that it has begun.
    pub(crate) fn begin(&self) -> std::io::Result<u32> {
        for number in 0.. {
            let path = format!("{}.{number}", self.0);
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(mut file) => {
                    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
                    return Ok(number);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("numbers do not end")
    }

    /// The processes of those that have begun, in order.
    pub(crate) fn begun(&self) -> Vec<i32> {
        let read = |number: u32| fs::read_to_string(format!("{}.{number}", self.0)).ok();
        let whole = |text: String| text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
        (0..).map_while(|number| read(number).and_then(whole)).collect()
    }

    /// Waits until so many have begun.
    #[track_caller]
    pub(crate) fn await_begun(&self, count: usize) -> Vec<i32> {
        until(&format!("{count} to begin"), || self.begun().len() >= count);
        self.begun()
    }

    pub(crate) fn go(&self) {
        fs::write(&self.0, "").unwrap();
    }
}

/// Another driver: this executable once more.
pub(crate) struct Driver {
    child: Child,
    /// Dropped, it tells the driver to end.
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    heard: Vec<Line>,
    /// Things that it said, and the test has heard.
    said_count: usize,
}

/// What a driver wrote.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

impl Driver {
    /// `told` is what [`told`] gives there; `base` its directory of sessions.
    pub(crate) fn start(which: &str, told: &str, base: &Path, variables: &[(&str, &str)]) -> Driver {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "another_driver", "--nocapture"]);
        command.env_remove("RAY_ADDRESS").env_remove("RAY_FORCE_DIRECT").env("RUST_BACKTRACE", "0");
        command.env(DRIVER, which).env(TOLD, told).env("RAYLET_DIR", base);
        command.envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        pump(child.stdout.take().unwrap(), false, sender.clone());
        pump(child.stderr.take().unwrap(), true, sender);
        let stdin = child.stdin.take();
        Driver { child, stdin, lines, heard: Vec::new(), said_count: 0 }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The next thing that the driver says to the test.
    #[track_caller]
    pub(crate) fn said(&mut self) -> String {
        let number = self.said_count;
        self.said_count += 1;
        self.find(|heard| {
            let said = heard.iter().filter_map(|line| line.text.split_once(SAYS));
            said.map(|(_, said)| said.to_owned()).nth(number)
        })
    }

    /// Waits for a line that is so, unless it has come before.
    #[track_caller]
    pub(crate) fn line(&mut self, is_so: impl Fn(&Line) -> bool) {
        self.find(|heard| heard.iter().any(&is_so).then_some(()));
    }

    #[track_caller]
    fn find<T>(&mut self, look: impl Fn(&[Line]) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        loop {
            if let Some(found) = look(&self.heard) {
                return found;
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(error) => panic!("the driver did not write that ({error}): {:#?}", self.heard),
            }
        }
    }

    /// Has it end well, and gives all that it wrote.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<Line> {
        self.stdin = None;
        let end = Instant::now() + LONG;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.heard.push(line);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {:#?}", self.heard);
        std::mem::take(&mut self.heard)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pump(stream: impl std::io::Read + Send + 'static, is_error: bool, to: Sender<Line>) {
    std::thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = to.send(Line { is_error, text });
        }
    });
}

/// In another driver: what it was told.
pub(crate) fn told() -> String {
    std::env::var(TOLD).unwrap()
}

/// In another driver: says something to the test.
pub(crate) fn say(what: &str) {
    println!("\n{SAYS}{what}");
}

/// In another driver: waits until the test wants it to end.
pub(crate) fn stay() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Looks until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "waited {} s for {what}", LONG.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the process is there, or not reaped yet");
}

/// Name, state and parent of a process.
fn stat(pid: i32) -> Option<(String, char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    let name = head.split_once('(')?.1.to_owned();
    Some((name, fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub(crate) fn is_over(pid: i32) -> bool {
    stat(pid).is_none_or(|(_, state, _)| matches!(state, 'Z' | 'X'))
}

/// Pids of the living children of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| stat(*pid).is_some_and(|(_, state, ppid)| ppid == parent && !matches!(state, 'Z' | 'X'));
    pids.filter(is_child).collect()
}

/// Children, their children, and so on.
pub(crate) fn descendants(ancestor: i32) -> Vec<i32> {
    let mut found = children(ancestor);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// How many entries a directory has; none where there is none.
pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
