//! Processes the harness starts: pinned, ended by id, never outliving it.
//!
//! The one thing to know: a role of this executable calls `end_with_parent` first, so that even a
//! harness that is killed leaves nobody spinning.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Child, Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, alarm};

use crate::error::BenchError;
use crate::processes::threads;

/// The core of the harness and of whoever measures.
pub const HARNESS_CORE: usize = 0;
/// The core of the process at the other end.
pub const OTHER_CORE: usize = 1;

/// Keeps this process on one core; a machine without that core keeps it where it was.
pub fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    let pinned = cores.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
    if let Err(error) = pinned {
        eprintln!("not pinned to core {core}: {error}");
    }
}

/// Keeps all threads that another process has now on one core, as far as the kernel allows.
pub fn pin_process(pid: u32, core: usize) {
    let mut cores = CpuSet::new();
    if let Err(error) = cores.set(core) {
        eprintln!("process {pid} is not pinned to core {core}: {error}");
        return;
    }
    for thread in threads(pid) {
        // A thread that has ended needs no core.
        let _ = sched_setaffinity(Pid::from_raw(thread.cast_signed()), &cores);
    }
}

/// Runs something on whatever core the kernel likes, as a process that nobody pinned; the threads it
/// starts stay free. The harness is back on its core afterwards.
pub fn unpinned<T>(run: impl FnOnce() -> T) -> T {
    unpin();
    let result = run();
    pin_to_core(HARNESS_CORE);
    result
}

/// Lets this process run on all cores, its parent's pinning undone.
pub fn unpin() {
    let mut cores = CpuSet::new();
    let all = (0..CpuSet::count()).try_for_each(|core| cores.set(core));
    if let Err(error) = all.and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores)) {
        eprintln!("still pinned: {error}");
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

/// Turns this process into another program, which ends when `parent` does, and after so many seconds.
pub fn become_other(command: &[OsString], seconds: Option<u32>, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    // The alarm stays with the process, whatever program it becomes.
    seconds.map(alarm::set);
    let Some((program, arguments)) = command.split_first() else {
        return Err(BenchError::UnknownRole { role: String::new() });
    };
    Err(BenchError::system("another program")(Command::new(program).args(arguments).exec()))
}

/// This executable in another role, not started yet.
pub fn role_command(role: &[&str]) -> Result<Command, BenchError> {
    let executable = std::env::current_exe().map_err(BenchError::system("our own path"))?;
    let mut command = Command::new(executable);
    command.args(role).arg("--parent").arg(std::process::id().to_string());
    Ok(command)
}

/// A child that ends at the latest when this value does.
pub struct OwnedChild(Child);

impl OwnedChild {
    /// This executable in another role.
    pub fn start_role(role: &[&str]) -> Result<Self, BenchError> {
        Self::start_role_with(role, Stdio::null())
    }

    /// As [`OwnedChild::start_role`], with something at its standard input.
    pub fn start_role_with(role: &[&str], input: Stdio) -> Result<Self, BenchError> {
        role_command(role)?.stdin(input).spawn().map(Self).map_err(BenchError::system("another process of ours"))
    }

    /// Takes over a child that somebody started.
    pub fn adopt(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Stops it where it is, so that it takes no core from anybody.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it without a warning, as a crash does; its process id stays taken until this value drops.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // Fails only for a child that has ended, whom nothing needs to reach any more.
        let _ = kill(Pid::from_raw(self.id().cast_signed()), signal);
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
