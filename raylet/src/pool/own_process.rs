//! What a raylet does to a process that is its own, started by a shell or by a driver.
//!
//! The one thing to know: a raylet as a library does none of this, because the process is somebody
//! else's. This file must not be called from `crate::raylet`.

use crate::raylet::Ender;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io;

/// Blocks the signals that end us, in every thread started from here on; one thread waits for them.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Ends the raylet when one of these signals comes.
pub(crate) fn spawn_signal_thread(signals: SigSet, ender: Ender) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("raylet-signals".to_owned());
    let spawned = thread.spawn(move || {
        while let Ok(signal) = signals.wait() {
            tracing::info!(signal = signal.as_str(), "asked to end");
            ender.end();
        }
    });
    // Never joined: it ends with the process.
    spawned.map(drop)
}

/// Each client costs a descriptor, each worker four more: take what we are allowed.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of descriptors stays");
    }
}

/// Becomes the parent of workers whose zygote has died, and of what workers left: somebody has to
/// reap them, and in a container there may be nobody else.
pub(crate) fn take_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphaned workers go to the system's first process");
    }
}
