//! Processes the harness starts: pinned, ended by id, never outliving it.
//!
//! The one thing to know: a role of this executable calls `end_with_parent` first, so that even a
//! harness that is killed leaves nobody spinning.

use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::BenchError;

/// The core of the harness and of whoever measures.
pub const HARNESS_CORE: usize = 0;
/// The core of the process at the other end.
pub const OTHER_CORE: usize = 1;

/// Keeps this process on one core; a machine without that core keeps it where it was.
pub fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    let pinned = cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
    if let Err(error) = pinned {
        eprintln!("not pinned to core {core}: {error}");
    }
}

/// Makes this process end when `parent` does.
pub fn end_with_parent(parent: u32) -> Result<(), BenchError> {
    set_pdeathsig(Signal::SIGKILL).map_err(BenchError::errno("prctl"))?;
    // The parent may have died before the call above; then nobody will signal us.
    if parent_id() != parent {
        return Err(BenchError::Interrupted);
    }
    Ok(())
}

/// A child that ends at the latest when this value does.
pub struct OwnedChild(Child);

impl OwnedChild {
    /// This executable in another role.
    pub fn start_role(role: &[&str]) -> Result<Self, BenchError> {
        let executable = std::env::current_exe().map_err(BenchError::system("our own path"))?;
        Command::new(executable)
            .args(role)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(BenchError::system("another process of ours"))
    }

    /// Takes over a child that somebody started.
    pub fn adopt(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Both fail only for a child that is gone, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
