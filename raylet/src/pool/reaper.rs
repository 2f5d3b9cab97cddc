//! The reaper: a process that outlives a killed raylet by a moment, and removes what it left.
//!
//! The one thing to know: it is a fork of the raylet from before the raylet had a thread, a store or
//! a lock, so it shares the raylet's pages and holds nothing of its session. It sleeps until the
//! raylet's process is gone, then sweeps as any later raylet would. Processes need no reaper: the
//! leashes end them. This file must not touch a session whose raylet lives.

use crate::raylet::Config;
use crate::session;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use raylet_api::address;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use store_shm::process::{self, Child, ProcessError, Which, ended_child};
use store_shm::{ProcessId, Watch, WatchError};

/// How long a raylet may take to end when its driver has. A stopped one would stay for ever.
const END_TIME_MS: u16 = 5_000;
/// How often to look again at a session whose lock is not free yet, and how long between.
const SWEEP_ATTEMPT_COUNT: u32 = 200;
const SWEEP_DELAY: Duration = Duration::from_millis(5);

/// The reaper of this process. Dropping it ends it.
#[derive(Debug)]
pub struct Reaper {
    child: Child,
    /// The raylet; its forked children have this value but not the child.
    owner: u32,
}

impl Reaper {
    /// Forks the reaper of this process, which is about to run the raylet of `config`.
    ///
    /// `driver` is the pidfd of the process with which the raylet is to end; one that does not is
    /// killed. Refused where this process has threads.
    pub fn start(config: &Config, driver: Option<OwnedFd>) -> Result<Reaper, ProcessError> {
        let raylet = watch_self()?;
        let directory = address::session_directory(&config.base, &config.session).ok();
        let sweep = || directory.as_deref().map_or((), |directory| sweep(&config.base, directory));
        let child = match driver {
            Some(driver) => process::fork_alone([raylet, driver], |[raylet, driver]| {
                be_reaper(&raylet, Some(&driver));
                sweep();
                0
            }),
            None => process::fork_alone([raylet], |[raylet]| {
                be_reaper(&raylet, None);
                sweep();
                0
            }),
        };
        Ok(Reaper { child: child?, owner: std::process::id() })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        super::kill(&self.child.pidfd);
        let mut polled = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
        ended_child(Which::Pid(self.child.pid), true);
    }
}

fn watch_self() -> Result<OwnedFd, ProcessError> {
    match Watch::try_open(ProcessId::current()) {
        Ok(Some(watch)) => Ok(watch.into()),
        Ok(None) => Err(ProcessError::System { call: "pidfd_open", source: Errno::ESRCH }),
        Err(WatchError::NoPidfd { source, .. }) => Err(ProcessError::System { call: "pidfd_open", source }),
        Err(_) => Err(ProcessError::System { call: "pidfd_open", source: Errno::EINVAL }),
    }
}

/// Sleeps until the raylet is gone.
fn be_reaper(raylet: &OwnedFd, driver: Option<&OwnedFd>) {
    // Out of reach of the terminal, of the raylet's streams and of the directory it was started in.
    let _ = nix::unistd::setsid();
    let _ = process::let_go_of_standard_streams();
    let _ = std::env::set_current_dir("/");
    let _ = SigSet::all().thread_block();
    let _ = nix::sys::prctl::set_name(c"raylet-reaper");
    if let Some(driver) = driver {
        wait_for_either(raylet, driver);
        if !has_ended(raylet, PollTimeout::from(END_TIME_MS)) {
            let _ = process::send_signal(raylet.as_fd(), Signal::SIGKILL);
        }
    }
    while !has_ended(raylet, PollTimeout::NONE) {}
}

fn wait_for_either(raylet: &OwnedFd, driver: &OwnedFd) {
    let mut polled = [raylet, driver].map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN));
    while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

fn has_ended(process: &OwnedFd, timeout: PollTimeout) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, timeout), Ok(1))
}

/// Removes the dead raylet's session. Whoever holds its lock by now is its successor, or sweeps.
fn sweep(base: &Path, directory: &Path) {
    for _ in 0..SWEEP_ATTEMPT_COUNT {
        let swept = session::sweep_stale(base);
        let is_over = swept.is_ok() && session::record(directory).is_none_or(|record| !record.raylet().is_dead());
        if is_over {
            return;
        }
        std::thread::sleep(SWEEP_DELAY);
    }
}
