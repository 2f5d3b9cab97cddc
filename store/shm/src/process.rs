//! Becoming and ending processes: code before `main`, forks without threads, a leash on a group.
//!
//! The one thing to know: a *leash* is a pipe that nobody ever writes. Whoever puts it on is killed
//! by the kernel, with its process group if so wished, the moment the last writing end is closed: it
//! need not run for that, so it may be stopped or block every signal. Unlike the parent's death signal it
//! follows no thread and no reparenting. This file must not know what the processes are for.
//!
//! Invariants:
//!
//! * **F1** A process forks here only while it has one thread, so a child may do anything.
//! * **F2** A child has the descriptors 0, 1, 2 and those it was meant to have, no others.
//! * **F3** Only the leader of a group has it die with a leash, so nobody else's group does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};
use thiserror::Error;

use crate::liveness::{ProcessId, Watch};

/// What a child that panicked exits with.
pub const PANICKED: i32 = 101;

/// The first descriptor behind the standard streams.
const FIRST_FD: RawFd = 3;

/// Why a process cannot become what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A fork would leave the other threads' locks taken for ever (F1).
    #[error("process {pid} has {count} threads, and only one with a single thread may fork")]
    Threaded {
        /// The process.
        pid: u32,
        /// Its threads.
        count: u64,
    },
    /// Only the leader of a group may put it on a leash (F3).
    #[error("process {pid} is in the group of {group}, and would take it along")]
    NotLeader {
        /// The process.
        pid: u32,
        /// Its group.
        group: u32,
    },
    /// The kernel said no.
    #[error("{call} failed")]
    System {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

fn system(call: &'static str) -> impl Fn(Errno) -> ProcessError {
    move |source| ProcessError::System { call, source }
}

/// Runs a function before `main`, in whatever executable the code is linked into.
///
/// The function gets a [`Fresh`] and must not unwind. `early` ones run before the others.
#[macro_export]
macro_rules! before_main {
    ($function:path) => {
        $crate::before_main!(@ ".init_array", $function);
    };
    (early $function:path) => {
        $crate::before_main!(@ ".init_array.00200", $function);
    };
    (@ $section:literal, $function:path) => {
        const _: () = {
            #[allow(unsafe_code)]
            #[used]
            // SAFETY: the section holds pointers to functions, and this is one.
            #[unsafe(link_section = $section)]
            static AT_LOAD: extern "C" fn() = at_load;

            extern "C" fn at_load() {
                let function: fn($crate::process::Fresh) = $function;
                $crate::process::call_fresh(function);
            }
        };
    };
}

/// Stands for a process in which `main` has not run yet, so nobody owns a descriptor by number and
/// nobody reads the environment.
#[derive(Debug)]
pub struct Fresh(());

/// For [`before_main`] alone: anybody else would lie.
#[doc(hidden)]
pub fn call_fresh(function: fn(Fresh)) {
    function(Fresh(()));
}

impl Fresh {
    /// The variable's value; children of this process do not see it any more.
    pub fn take_variable(&self, name: &str) -> Option<OsString> {
        let value = std::env::var_os(name)?;
        // With other threads it stays: they may be reading.
        if thread_count() == Ok(1) {
            // SAFETY: there is no other thread.
            unsafe { std::env::remove_var(name) };
        }
        Some(value)
    }

    /// Takes what came as standard input for its own and puts /dev/null there. All that was
    /// inherited beside the standard streams is closed.
    pub fn take_standard_input(self) -> Result<OwnedFd, ProcessError> {
        // Nobody owns any: `main` has not run.
        close_range(FIRST_FD, RawFd::MAX);
        let taken = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(FIRST_FD)).map_err(system("fcntl"))?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let taken = unsafe { OwnedFd::from_raw_fd(taken) };
        let null = open_null()?;
        nix::unistd::dup2_stdin(null).map_err(system("dup2"))?;
        Ok(taken)
    }
}

/// Sets a variable of this process, which may have threads by now: for what only the environment can
/// tell foreign code, such as which GPUs are its own.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: (1) all Rust code reads the environment under the lock that this takes; (2) C code that
    // reads it at this very instant finds the old value or the new one, as the C library frees
    // neither; (3) what it may move is the table, so the caller is between two calls of user code,
    // and a thread that this left behind reads no variables all the time.
    unsafe { std::env::set_var(name, value) };
}

fn open_null() -> Result<OwnedFd, ProcessError> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()).map_err(system("open /dev/null"))
}

/// Points all three standard streams to /dev/null.
pub fn let_go_of_standard_streams() -> Result<(), ProcessError> {
    let null = open_null()?;
    nix::unistd::dup2_stdin(&null).map_err(system("dup2"))?;
    nix::unistd::dup2_stdout(&null).map_err(system("dup2"))?;
    nix::unistd::dup2_stderr(&null).map_err(system("dup2"))
}

/// Has a command that is about to be started inherit nothing but its standard streams, whatever this
/// process may have inherited itself.
pub fn inherit_nothing(command: &mut Command) {
    let mark = || {
        mark_close_on_exec(FIRST_FD);
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only; it allocates nothing.
    unsafe { command.pre_exec(mark) };
}

/// Marks, and does not close: what the standard library keeps open between fork and exec stays.
fn mark_close_on_exec(first: RawFd) {
    // SAFETY: the call takes three numbers, and closes nothing before an exec.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    // Before Linux 5.11, or where a sandbox forbids it.
    for raw in first..descriptor_limit() {
        // SAFETY: as above; a number that is no descriptor is refused.
        unsafe { libc::fcntl(raw, libc::F_SETFD, FdFlag::FD_CLOEXEC.bits()) };
    }
}

/// Closes by number: only for a process in which nobody owns one of these.
fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the call takes three numbers; the callers know that nobody owns any of these.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 {
        return;
    }
    for raw in first..=last.min(descriptor_limit()) {
        // SAFETY: as above.
        unsafe { libc::close(raw) };
    }
}

fn descriptor_limit() -> RawFd {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.ok().and_then(|(soft, _)| RawFd::try_from(soft).ok()).unwrap_or(1 << 16)
}

/// How many threads this process has.
pub fn thread_count() -> Result<u64, ProcessError> {
    let stat = nix::sys::stat::stat("/proc/self/task").map_err(system("stat /proc/self/task"))?;
    #[allow(clippy::useless_conversion, reason = "narrower on aarch64")]
    let links: u64 = stat.st_nlink.into();
    // Each thread is a directory in there, and so are `.` and `..`.
    match links.saturating_sub(2) {
        0 => count_entries(),
        count => Ok(count),
    }
}

/// For a /proc that counts no links.
fn count_entries() -> Result<u64, ProcessError> {
    let entries = fs::read_dir("/proc/self/task").map(|entries| entries.count() as u64);
    let source = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    entries.map_err(|error| system("read /proc/self/task")(source(error)))
}

/// A forked child: its pid, and a pidfd that is its own, because it was not reaped before.
#[derive(Debug)]
pub struct Child {
    /// The pid.
    pub pid: u32,
    /// Polls readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Forks; the child runs `body` with `kept` and exits with what it returns; the parent closes `kept`.
///
/// Refused where there is another thread (F1). In the child all descriptors but the standard streams
/// and `kept` are closed first (F2): `body` must own no others. What the parent had on its stack is
/// never dropped there.
pub fn fork_alone<const N: usize>(
    kept: [OwnedFd; N],
    body: impl FnOnce([OwnedFd; N]) -> i32,
) -> Result<Child, ProcessError> {
    match thread_count()? {
        1 => {}
        count => return Err(ProcessError::Threaded { pid: std::process::id(), count }),
    }
    // SAFETY: this is the only thread, so the child inherits nothing half-done and no lock that
    // somebody else holds.
    match unsafe { nix::unistd::fork() }.map_err(system("fork"))? {
        ForkResult::Child => {
            close_all_but(kept.each_ref().map(AsRawFd::as_raw_fd));
            let code = catch_unwind(AssertUnwindSafe(|| body(kept))).unwrap_or(PANICKED);
            std::process::exit(code)
        }
        ForkResult::Parent { child } => {
            let pid = child.as_raw().cast_unsigned();
            watch(pid).map(|pidfd| Child { pid, pidfd })
        }
    }
}

/// A child that nobody can watch must not run on.
fn watch(pid: u32) -> Result<OwnedFd, ProcessError> {
    let child = Pid::from_raw(pid.cast_signed());
    let opened = Watch::try_open(ProcessId { pid, start_ticks: 0 });
    let source = match opened {
        Ok(Some(watch)) => return Ok(watch.into()),
        Ok(None) => Errno::ESRCH,
        Err(crate::WatchError::NoPidfd { source, .. }) => source,
    };
    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(child, None);
    Err(ProcessError::System { call: "pidfd_open", source })
}

fn close_all_but<const N: usize>(mut kept: [RawFd; N]) {
    kept.sort_unstable();
    let mut first = FIRST_FD;
    for raw in kept {
        close_range(first, raw - 1);
        first = first.max(raw + 1);
    }
    close_range(first, RawFd::MAX);
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Whose end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any child of this process.
    Any,
    /// The child with this pid.
    Pid(u32),
    /// Any child in this group.
    Group(u32),
}

/// A child that has ended, if there is one; never waits. It stays a zombie, which keeps its pid and
/// its group's number from being used again, unless it is to be reaped.
pub fn ended_child(which: Which, is_reaped: bool) -> Option<(u32, Ended)> {
    let (kind, id) = match which {
        Which::Any => (libc::P_ALL, 0),
        Which::Pid(pid) => (libc::P_PID, pid),
        Which::Group(group) => (libc::P_PGID, group),
    };
    let flags = libc::WEXITED | libc::WNOHANG | if is_reaped { 0 } else { libc::WNOWAIT };
    // SAFETY: all zeros is a valid siginfo: no signal.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the call writes one siginfo, and this is one.
        let waited = unsafe { libc::waitid(kind, id, &mut info, flags) };
        match Errno::result(waited) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    // SAFETY: waitid fills these fields, or leaves zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let ended = if info.si_code == libc::CLD_EXITED { Ended::Code(status) } else { Ended::Signal(status) };
    (pid != 0).then(|| (pid.cast_unsigned(), ended))
}

/// Gives signals back their meaning at the start of a program: nothing blocked, nothing handled, and
/// a broken pipe is an error rather than a signal, as in every Rust program.
pub fn reset_signals() -> Result<(), ProcessError> {
    for number in 1..=libc::SIGRTMAX() {
        let action = if number == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither disposition is a handler. Numbers that may not be changed are refused.
        unsafe { libc::signal(number, action) };
    }
    let none = nix::sys::signal::SigSet::empty();
    none.thread_set_mask().map_err(system("pthread_sigmask"))
}

/// Sends a signal to the one process that a pidfd names; `false` where it has been reaped.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<bool, ProcessError> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes a descriptor that is open, two numbers, and no pointer to follow.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, none, 0) };
    match Errno::result(sent) {
        Ok(_) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(source) => Err(ProcessError::System { call: "pidfd_send_signal", source }),
    }
}

/// The kernel's number for "which signal tells of readiness"; the same on every architecture.
const F_SETSIG: i32 = 10;

/// Who is killed at the end of a leash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whoever wears it, and nobody it has forked: a child has the leash too until it closes it.
    Process,
    /// The whole group of whoever wears it, who must be its leader.
    Group,
}

/// Puts on a leash: its end is the end of this process, or of all its group.
///
/// The reading end has to be open as long as the leash is to hold, and must be this process' alone:
/// the kernel remembers one owner per opened pipe.
pub fn wear_leash(leash: BorrowedFd<'_>, reach: Reach) -> Result<(), ProcessError> {
    let (pid, group) = (std::process::id(), nix::unistd::getpgrp().as_raw().cast_unsigned());
    // Negative means a group, to the kernel.
    let owner = match reach {
        Reach::Process => pid.cast_signed(),
        Reach::Group if pid == group => -pid.cast_signed(),
        Reach::Group => return Err(ProcessError::NotLeader { pid, group }),
    };
    let raw = leash.as_raw_fd();
    // SAFETY: the call takes a descriptor that is open and a number.
    let owned = unsafe { libc::fcntl(raw, libc::F_SETOWN, owner) };
    Errno::result(owned).map_err(system("fcntl F_SETOWN"))?;
    // SAFETY: as above.
    let signal = unsafe { libc::fcntl(raw, F_SETSIG, Signal::SIGKILL as i32) };
    Errno::result(signal).map_err(system("fcntl F_SETSIG"))?;
    let flags = OFlag::O_ASYNC | OFlag::O_NONBLOCK;
    fcntl(leash, FcntlArg::F_SETFL(flags)).map_err(system("fcntl F_SETFL"))?;
    // It may have ended before all that.
    if has_hung_up(leash) {
        let _ = nix::sys::signal::kill(Pid::from_raw(owner), Signal::SIGKILL);
    }
    Ok(())
}

/// Whether the last writing end of a pipe is closed.
pub fn has_hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::empty())];
    let answered = poll(&mut polled, PollTimeout::ZERO);
    answered.is_ok() && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// A leash: the end to hold and the end to wear.
pub fn leash() -> Result<(OwnedFd, OwnedFd), ProcessError> {
    let (worn, held) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(system("pipe2"))?;
    Ok((held, worn))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::wait::WaitStatus;

    use super::*;
    use crate::testing::{fork_child, outcome_in_child, reap};

    fn pause_forever() -> i32 {
        loop {
            nix::unistd::pause();
        }
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        let waiting = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| waiting.wait());
            let refused = fork_alone([], |[]| 0).unwrap_err();
            waiting.wait();
            assert!(matches!(refused, ProcessError::Threaded { count: 2.., .. }), "{refused}");
        });
    }

    #[test]
    fn a_child_has_what_it_was_meant_to_have_and_nothing_else() {
        let (other, kept) = leash().unwrap();
        let status = outcome_in_child(|| {
            let other = other.as_raw_fd();
            let body = |[kept]: [OwnedFd; 1]| {
                let open = |raw: RawFd| fs::exists(format!("/proc/self/fd/{raw}")).unwrap();
                i32::from(!open(kept.as_raw_fd()) || open(other) || !open(1))
            };
            let child = fork_alone([kept], body).unwrap();
            while ended_child(Which::Pid(child.pid), false).is_none() {
                std::thread::yield_now();
            }
            i32::from(ended_child(Which::Any, true) != Some((child.pid, Ended::Code(0))))
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    /// A group that wears a leash, told of once it does.
    fn leashed(is_stopped: bool) -> (OwnedFd, Pid) {
        let (held, worn) = leash().unwrap();
        let (told, tell) = nix::unistd::pipe().unwrap();
        let holder = held.as_raw_fd();
        let child = fork_child(|| {
            // SAFETY: the copy of the parent's end, which nothing in this child owns.
            unsafe { libc::close(holder) };
            nix::unistd::setsid().unwrap();
            let member = fork_child(pause_forever);
            nix::sys::signal::SigSet::all().thread_block().unwrap();
            wear_leash(worn.as_fd(), Reach::Group).unwrap();
            nix::unistd::write(&tell, &member.as_raw().to_ne_bytes()).unwrap();
            if is_stopped {
                nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            }
            pause_forever()
        });
        let mut member = [0; 4];
        assert_eq!(nix::unistd::read(&told, &mut member), Ok(4));
        (held, child)
    }

    #[test]
    fn the_end_of_a_leash_is_the_end_of_the_group() {
        for is_stopped in [false, true] {
            let (held, child) = leashed(is_stopped);
            assert!(!ProcessId::of(child.as_raw() as u32).unwrap().is_dead());
            // Tests beside may be between fork and exec, or fork and end, with copies of it.
            drop(held);
            let status = reap(child);
            assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{status:?}");
        }
    }

    #[test]
    fn only_a_leader_wears_a_leash() {
        let (_held, worn) = leash().unwrap();
        let status = outcome_in_child(|| {
            let refused = wear_leash(worn.as_fd(), Reach::Group);
            i32::from(!matches!(refused, Err(ProcessError::NotLeader { .. })))
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    #[test]
    fn a_command_inherits_nothing_that_it_should_not() {
        let (held, _worn) = leash().unwrap();
        // As a descriptor that this process inherited from a careless parent.
        fcntl(&held, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let name = format!("/proc/self/fd/{}", held.as_raw_fd());
        let mut command = Command::new("test");
        command.args(["-e", &name]);
        assert!(command.status().unwrap().success());
        inherit_nothing(&mut command);
        assert_eq!(command.status().unwrap().into_raw(), 1 << 8);
    }

    #[test]
    fn a_signal_reaches_the_process_of_a_pidfd_and_no_other() {
        let child = fork_child(pause_forever);
        let pidfd: OwnedFd = Watch::open(ProcessId::of(child.as_raw() as u32).unwrap()).unwrap().into();
        assert_eq!(send_signal(pidfd.as_fd(), Signal::SIGKILL), Ok(true));
        reap(child);
        assert_eq!(send_signal(pidfd.as_fd(), Signal::SIGKILL), Ok(false));
    }
}
