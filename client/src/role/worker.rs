//! A worker, from its fork to its main function.
//!
//! The one thing to know: it is forked from a process that never had a second thread and never
//! mapped a store, and joins its session like any other client. It ends with the raylet by its
//! leash, whatever it is doing. What it does is [`crate::worker`]'s, unless somebody says otherwise: this
//! file must not know tasks.

use crate::{Client, ConnectError, ConnectOptions};
use raylet_api::zygote::{FORK_FDS, WorkerSpec};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use store_shm::process::{self, ProcessError, Reach};

/// What a worker exits with that could not be set up or could not join; standard error says why.
pub(crate) const EXIT_NOT_JOINED: i32 = 71;

/// What a worker does once it is in; its result is the exit code.
pub type WorkerMain = fn(Worker) -> i32;

static WORKER_MAIN: OnceLock<WorkerMain> = OnceLock::new();

/// Has workers do something else than run tasks and actors. Only the first call counts, and only one made before the roles
/// are taken: by an early constructor.
pub fn set_worker_main(main: WorkerMain) {
    let _ = WORKER_MAIN.set(main);
}

/// A worker that is in.
#[derive(Debug)]
pub struct Worker {
    /// What it is to be.
    pub spec: WorkerSpec,
    /// Its membership; none where the spec names no session.
    pub client: Option<Client>,
    leash: OwnedFd,
}

impl Worker {
    /// Sleeps until the raylet lets go of the leash, which this process does not survive.
    pub fn wait_for_the_end(&self) -> ! {
        loop {
            let mut polled = [nix::poll::PollFd::new(self.leash.as_fd(), nix::poll::PollFlags::empty())];
            let answered = nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE);
            if answered.is_ok() {
                std::process::exit(0);
            }
        }
    }
}

/// The whole life of a worker, in the process that was just forked; `fds` are leash, standard output
/// and standard error.
pub(super) fn run(spec: WorkerSpec, fds: [OwnedFd; FORK_FDS]) -> i32 {
    let leash = match set_up(&spec, fds) {
        Ok(leash) => leash,
        Err(error) => return fail(&spec, &error),
    };
    if let (Some(hooks), Some(_)) = (super::fork_hooks(), &spec.directory) {
        return (hooks.work)(&spec);
    }
    let main = WORKER_MAIN.get().copied();
    if main.is_none() && spec.directory.is_some() {
        return match crate::worker::run(&spec) {
            Ok(()) => 0,
            Err(error) => fail(&spec, &error),
        };
    }
    let main = main.unwrap_or(|worker| worker.wait_for_the_end());
    match join(&spec) {
        Ok(client) => main(Worker { spec, client, leash }),
        Err(error) => fail(&spec, &error),
    }
}

fn fail(spec: &WorkerSpec, error: &dyn std::error::Error) -> i32 {
    let mut source = error.source();
    let mut text = error.to_string();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    eprintln!("raylet: worker {} could not start: {text}", spec.worker);
    EXIT_NOT_JOINED
}

fn set_up(spec: &WorkerSpec, [leash, stdout, stderr]: [OwnedFd; FORK_FDS]) -> Result<OwnedFd, ProcessError> {
    let system = |call| move |source| ProcessError::System { call, source };
    nix::unistd::dup2_stdout(stdout).map_err(system("dup2"))?;
    nix::unistd::dup2_stderr(stderr).map_err(system("dup2"))?;
    // A session and a group of its own, which is killed as a whole.
    nix::unistd::setsid().map_err(system("setsid"))?;
    if let Err(error) = process::wear_leash(leash.as_fd(), Reach::Group) {
        watch_leash(&leash, error)?;
    }
    process::reset_signals()?;
    let _ = nix::sys::prctl::set_name(c"raylet-worker");
    if spec.oom_score_adj != 0 {
        // A sandbox may forbid it; then the worker is killed no sooner than others.
        let _ = fs::write("/proc/self/oom_score_adj", spec.oom_score_adj.to_string());
    }
    Ok(leash)
}

/// Where the kernel knows no leash (a sandbox's own), a thread looks at it.
fn watch_leash(leash: &OwnedFd, error: ProcessError) -> Result<(), ProcessError> {
    let watched = leash.try_clone().map_err(|_| error)?;
    let thread = std::thread::Builder::new().name("raylet-leash".to_owned());
    let spawned = thread.spawn(move || {
        while !process::has_hung_up(watched.as_fd()) {
            let mut polled = [nix::poll::PollFd::new(watched.as_fd(), nix::poll::PollFlags::empty())];
            let _ = nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE);
        }
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(0), nix::sys::signal::Signal::SIGKILL);
    });
    spawned.map(drop).map_err(|_| error)
}

fn join(spec: &WorkerSpec) -> Result<Option<Client>, ConnectError> {
    let Some(directory) = &spec.directory else { return Ok(None) };
    let options = ConnectOptions { label: spec.label.clone(), ..ConnectOptions::at(directory) };
    Client::connect(&options).map(Some)
}
