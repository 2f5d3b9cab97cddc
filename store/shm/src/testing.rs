//! Forked children for this crate's own tests.
//!
//! The one thing to know: the test process has many threads, so a child gets only the one that
//! forked; its closure keeps to shared memory and system calls. It must not outlive its test: the
//! kernel kills it when the thread that forked it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// What a child that panicked exits with.
const PANICKED: i32 = 101;

/// Runs the closure in a forked child, which then exits with what it returned.
pub(crate) fn fork_child(run: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child keeps to what is allowed after a fork of a process with threads: see above.
    match unsafe { fork() }.expect("the tests fork few children") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => exit(run),
    }
}

/// Waits for the child's end and takes its exit status.
pub(crate) fn reap(child: Pid) -> WaitStatus {
    waitpid(child, None).expect("nobody else reaps the child")
}

/// Runs the closure in a child and says how that ended.
pub(crate) fn outcome_in_child(run: impl FnOnce() -> i32) -> WaitStatus {
    reap(fork_child(run))
}

/// Whether the child died of an access to memory that it may not touch.
pub(crate) fn check_segfault(run: impl FnOnce() -> i32) {
    match outcome_in_child(run) {
        WaitStatus::Signaled(_, Signal::SIGSEGV, _) => {}
        other => panic!("expected SIGSEGV, got {other:?}"),
    }
}

fn exit(run: impl FnOnce() -> i32) -> ! {
    // Neither a core file nor the child itself may stay behind.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_pdeathsig(Signal::SIGKILL);
    let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or(PANICKED);
    // SAFETY: _exit is allowed after a fork, and skips what belongs to the parent.
    unsafe { libc::_exit(code) }
}
