//! What only Python can drive, peers and our own package: environments and the line protocol to scripts.
//!
//! The one thing to know: a script reads one JSON command a line and answers with one JSON line; it
//! ends, and ends whatever it started, when its standard input does. So a harness that dies for any
//! reason leaves nothing behind.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// Interpreters to try, the one Plasma's last wheel was built for first.
const INTERPRETERS: [&str; 2] = ["python3.11", "python3"];
/// How long a script may take to end what it started.
const END_WAIT: Duration = Duration::from_secs(15);
/// How long it may take to answer; less than a whole work may.
const ANSWER_WAIT: Duration = Duration::from_secs(300);
/// What our scripts need beside the package itself.
const OUR_REQUIREMENT: &str = "numpy";

/// A peer that Python drives.
#[derive(Clone, Copy, Debug)]
pub struct PythonPeer {
    /// The peer's name and its environment's.
    pub name: &'static str,
    /// Its file among the peers.
    pub script: &'static str,
    /// What the environment must hold; nothing for what Python itself brings.
    pub requirements: &'static [&'static str],
    /// What its script is told.
    pub arguments: &'static [&'static str],
}

/// Where environments are and which of them are ready.
pub struct Environments {
    root: PathBuf,
    ours: PathBuf,
    may_install: bool,
    ready: RefCell<HashMap<&'static str, bool>>,
}

impl Environments {
    /// Environments under `root`, one directory each; `ours` is an interpreter that has our package.
    pub fn new(root: PathBuf, ours: PathBuf, may_install: bool) -> Self {
        Self { root, ours, may_install, ready: RefCell::default() }
    }

    /// The interpreter that has our package, with what our scripts need beside it.
    pub fn ours(&self) -> Result<PathBuf, BenchError> {
        let name = "raylet";
        if !imports(&self.ours, name) {
            return Err(BenchError::NotBuilt { what: "raylet for Python", target: "python" });
        }
        if !imports(&self.ours, OUR_REQUIREMENT) {
            if !self.may_install {
                return Err(BenchError::NotInstalled { peer: OUR_REQUIREMENT });
            }
            let mut pip = Command::new(&self.ours);
            run_installer(name, pip.args(["-m", "pip", "install", "--quiet", OUR_REQUIREMENT]))?;
        }
        Ok(self.ours.clone())
    }

    /// The peer's interpreter, installed first where it is missing; a failure is remembered.
    pub fn interpreter(&self, peer: PythonPeer) -> Result<PathBuf, BenchError> {
        if peer.requirements.is_empty() {
            return any_interpreter();
        }
        let directory = self.root.join(peer.name);
        let marker = directory.join("installed");
        let wanted = peer.requirements.join("\n");
        if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
            return Ok(directory.join("bin/python"));
        }
        let failed_before = self.ready.borrow_mut().insert(peer.name, false).is_some();
        if failed_before || !self.may_install {
            return Err(BenchError::NotInstalled { peer: peer.name });
        }
        install(peer, &directory)?;
        fs::write(&marker, wanted).map_err(BenchError::system("marking an environment as ready"))?;
        Ok(directory.join("bin/python"))
    }

    /// Starts the peer's script.
    pub fn start(&self, peer: PythonPeer) -> Result<Script, BenchError> {
        let interpreter = self.interpreter(peer)?;
        Script::start(peer.name, &interpreter, &script_path(peer.script), peer.arguments)
    }
}

/// Where a script lies.
pub fn script_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

fn imports(interpreter: &Path, package: &str) -> bool {
    let mut python = Command::new(interpreter);
    python.args(["-c", &format!("import {package}")]).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

fn any_interpreter() -> Result<PathBuf, BenchError> {
    let runs = |name: &&str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let found = INTERPRETERS.iter().find(|name| runs(name));
    found.map(PathBuf::from).ok_or(BenchError::NotInstalled { peer: "python3" })
}

fn install(peer: PythonPeer, directory: &Path) -> Result<(), BenchError> {
    eprintln!("installing {} into {}", peer.requirements.join(" "), directory.display());
    run_installer(peer.name, Command::new(any_interpreter()?).args(["-m", "venv", "--clear"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin/python"));
    run_installer(peer.name, pip.args(["-m", "pip", "install", "--quiet"]).args(peer.requirements))
}

fn run_installer(peer: &'static str, command: &mut Command) -> Result<(), BenchError> {
    let status = command.stdin(Stdio::null()).status().map_err(BenchError::system("an installer"))?;
    if status.success() { Ok(()) } else { Err(BenchError::Install { peer, status }) }
}

/// What a script is asked for.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(rename = "do")]
    operation: &'a str,
    count: usize,
}

/// What it answers: samples in nanoseconds, none for a preparation.
#[derive(Deserialize)]
struct Answer {
    nanos: Vec<f64>,
}

/// A running script.
pub struct Script {
    peer: &'static str,
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Script {
    /// Starts a script and waits until it is ready.
    pub fn start(
        peer: &'static str,
        interpreter: &Path,
        script: &Path,
        arguments: &[&str],
    ) -> Result<Self, BenchError> {
        // A group of its own: the terminal's interrupt reaches the harness, which ends it in order.
        let mut process = Command::new(interpreter)
            .arg(script)
            .args(arguments)
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(BenchError::system("a peer's script"))?;
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("its output was asked to be a pipe"));
        let mut started = Self { peer, process, commands, answers };
        started.answer()?;
        Ok(started)
    }

    /// The process of its interpreter.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Nanoseconds of each of `count` times the operation.
    pub fn ask(&mut self, operation: &str, count: usize) -> Result<Vec<f64>, BenchError> {
        let mut line = serde_json::to_string(&Request { operation, count }).expect("two plain fields");
        line.push('\n');
        let commands = self.commands.as_mut().expect("open until the script is dropped");
        commands.write_all(line.as_bytes()).map_err(BenchError::system("a command to a peer"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Vec<f64>, BenchError> {
        let mut line = String::new();
        // Nothing is buffered: a script says one line and waits to be asked again.
        let mut answers = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(ANSWER_WAIT).expect("a few minutes");
        if poll(&mut answers, wait).map_err(BenchError::errno("poll"))? == 0 {
            return Err(BenchError::Silent { waited_ms: ANSWER_WAIT.as_millis() as u64 });
        }
        self.answers.read_line(&mut line).map_err(BenchError::system("a peer's answer"))?;
        match serde_json::from_str::<Answer>(&line) {
            Ok(answer) => Ok(answer.nanos),
            Err(_) => Err(BenchError::Answer { peer: self.peer, answer: line.trim().to_owned() }),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The end of its input asks it to end what it started; only a script that hangs is killed.
        self.commands = None;
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && start.elapsed() < END_WAIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
