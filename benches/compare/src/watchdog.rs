//! An end for works that never end.
//!
//! The one thing to know: who hangs cannot be told to stop, so the whole run ends, with what the report
//! has so far; every other process ends with the harness. This file must not know what a work does.

use std::process::exit;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// No work with all its peers takes as long.
const LIMIT: Duration = Duration::from_secs(400);

/// Ends the run unless it is dropped in time.
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// Watches a work.
    pub fn start(work: &'static str) -> Self {
        let (alive, watched) = channel::<()>();
        thread::spawn(move || {
            if watched.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{work} has not ended within {} s: the run ends", LIMIT.as_secs());
                exit(1);
            }
        });
        Self { _alive: alive }
    }
}
