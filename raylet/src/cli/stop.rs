//! `raylet stop`: asks the raylet to end and waits until its lock is free.
//!
//! The one thing to know: the lock is free only after the session's files, door and spill directory
//! are gone, so who waits for it finds nothing left. This file must not remove anything of a raylet
//! that lives.

use super::{CliError, SessionOptions, print};
use crate::ask::{AskError, Asker};
use crate::session::{self, Record};
use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_api::address::{self, AddressError};
use raylet_api::message::Shutdown;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait for the raylet to take itself down; then the question ends, not the raylet.
const END_TIME: Duration = Duration::from_secs(10);
const LOOK_AGAIN_DELAY: Duration = Duration::from_millis(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// Kill a raylet that does not end by itself, and sweep what it leaves
    #[arg(long)]
    force: bool,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let directory = options.session.directory()?;
    let record = session::record(&directory);
    let stopped = ask_and_wait(&directory, record.as_ref());
    let stopped = match stopped {
        Err(error) if options.force && error.exit_code() == 5 => kill_and_wait(&directory, record.as_ref()),
        other => other,
    };
    // Whoever is dead is swept now, this session or another; a failure is the next sweep's.
    if let Err(error) = session::sweep_stale(&address::base_directory()) {
        tracing::warn!(%error, "a stale session could not be swept");
    }
    stopped?;
    print(&format!("the raylet of session {:?} has ended\n", options.session.session));
    Ok(())
}

fn ask_and_wait(directory: &Path, record: Option<&Record>) -> Result<(), CliError> {
    match Asker::connect(directory).and_then(|mut asker| asker.ask(Shutdown {})) {
        // It was ending already, or takes no connections any more.
        Ok(_) | Err(AskError::Closed) => wait_until_free(directory, record),
        Err(AskError::Address(AddressError::NotRunning { .. })) if session::is_held(directory)? => {
            wait_until_free(directory, record)
        }
        Err(error) => Err(error.into()),
    }
}

fn wait_until_free(directory: &Path, record: Option<&Record>) -> Result<(), CliError> {
    let started = Instant::now();
    while started.elapsed() < END_TIME {
        // Another raylet may have taken the session the moment it was free.
        let other = session::record(directory).filter(|now| Some(now) != record);
        if other.is_some() || !session::is_held(directory)? {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN_DELAY);
    }
    let pid = record.map_or(0, |record| record.pid);
    Err(CliError::StillRunning { pid, limit_ms: END_TIME.as_millis() as u64 })
}

/// The last resort. The record names pid and start time; both must still be those of a process.
fn kill_and_wait(directory: &Path, record: Option<&Record>) -> Result<(), CliError> {
    if let Some(record) = record.filter(|record| !record.raylet().is_dead()) {
        let pid = Pid::from_raw(record.pid.cast_signed());
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(CliError::Io { what: "kill the raylet", source: errno.into() });
            }
        }
    }
    wait_until_free(directory, record)
}
