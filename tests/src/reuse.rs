//! A child with a process id of one's choice, as if the kernel had come round to it again.
//!
//! The one thing to know: the kernel lets the root of a pid namespace choose, and others not. The
//! child is no client of any store: it runs nothing but `pause`.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Longer than two ticks of the clock that start times are told in.
const TICKS: Duration = Duration::from_millis(30);

/// A child that does nothing; killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Idle(Pid);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Starts a child that has this process id, which nobody else has, later than whoever had it last.
pub fn child_with_pid(pid: Pid) -> Result<Idle, Errno> {
    let ticked = Instant::now();
    while ticked.elapsed() < TICKS {
        std::thread::yield_now();
    }
    let chosen = [pid.as_raw()];
    // SAFETY: all zero is the "nothing" of each field.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = chosen.as_ptr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: without CLONE_VM the child is a copy, as after `fork`; it calls nothing but the kernel.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match made {
        0 => idle(),
        _ => Errno::result(made).map(|made| Idle(Pid::from_raw(made as i32))),
    }
}

fn idle() -> ! {
    // SAFETY: system calls only, none of which touches memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}
