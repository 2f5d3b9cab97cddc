//! Children: forked, stepped, stopped, killed, reaped.
//!
//! The one thing to know: a child dies with the thread that forked it, so nothing is left running
//! when a test fails. It must not return from a child: a child ends in here.

#![allow(unsafe_code)]

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a child that panicked exits with.
pub const PANICKED: i32 = 101;

/// A forked child, which is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    is_reaped: bool,
}

impl Child {
    /// Runs `body` in a forked child, which exits with what it returns. Destructors of what the
    /// child inherited do not run.
    pub fn fork(body: impl FnOnce() -> i32) -> Child {
        // SAFETY: a test that forks runs alone in its process, in one thread but for those of the
        // store, which follows forks; the child ends in `end_with`.
        match unsafe { fork() }.expect("the tests fork few children") {
            ForkResult::Parent { child } => Child { pid: child, is_reaped: false },
            ForkResult::Child => end_with(body),
        }
    }

    /// As [`Child::fork`], `count` times, where so many may be too many: `None`, said aloud, and none
    /// is left then.
    pub fn fork_many(count: usize, mut body: impl FnMut() -> i32) -> Option<Vec<Child>> {
        let mut children = Vec::with_capacity(count);
        while children.len() < count {
            // SAFETY: as in `fork`.
            match unsafe { fork() } {
                Ok(ForkResult::Parent { child }) => children.push(Child { pid: child, is_reaped: false }),
                Ok(ForkResult::Child) => end_with(&mut body),
                Err(error) => {
                    eprintln!("skipped: of {count} processes the kernel gives {} here: {error}", children.len());
                    return None;
                }
            }
        }
        Some(children)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the child is not reaped yet");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> WaitStatus {
        self.reap()
    }

    /// Waits for its end, which has to be an exit with 0.
    ///
    /// # Panics
    ///
    /// If it ended otherwise.
    pub fn succeed(self) {
        let status = self.wait();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "a child ended with {status:?}");
    }

    /// Whether it has ended; it stays to be reaped.
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(self.pid), flags);
        !matches!(status, Ok(WaitStatus::StillAlive))
    }

    /// Kills it and waits for its end.
    pub fn kill(mut self) {
        self.kill_and_reap();
    }

    fn reap(&mut self) -> WaitStatus {
        self.is_reaped = true;
        loop {
            match waitpid(self.pid, None) {
                Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => return status,
                // A traced child may report a stop on its way out.
                Ok(_) => continue,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => panic!("nobody else reaps the child: {error}"),
            }
        }
    }

    fn kill_and_reap(&mut self) {
        if !self.is_reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            self.reap();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

fn end_with(body: impl FnOnce() -> i32) -> ! {
    // Neither a core file nor the child itself may stay behind.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_pdeathsig(Signal::SIGKILL);
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
    // SAFETY: ends the process without running what belongs to the parent.
    unsafe { libc::_exit(code) }
}

/// Raises the limit of open files as far as this process may; whether `needed` may be open then.
pub fn may_open(needed: u64) -> bool {
    let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return false };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    if most < needed {
        eprintln!("skipped: {needed} files have to be open at once, and the limit is {most} here");
    }
    most >= needed
}

/// Whether a child may have its parent trace it: sandboxes forbid that.
pub fn may_trace() -> nix::Result<()> {
    let refused = Child::fork(|| ptrace::traceme().map_or_else(|error| error as i32, |()| 0)).wait();
    match refused {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, error) => Err(nix::errno::Errno::from_raw(error)),
        ended => panic!("a child that only asks ended with {ended:?}"),
    }
}

/// What driving a victim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stands where it was driven to.
    Stopped,
    /// It has forked, and its child stands before its first instruction, or is about to.
    Forked(Pid),
    /// It has ended.
    Ended(WaitStatus),
}

/// A child that its parent drives one machine instruction at a time.
#[derive(Debug)]
pub struct Victim {
    child: Child,
}

impl Victim {
    /// Forks a child that runs `warm`, stops, and goes on to `body` when it is driven.
    pub fn start(warm: impl FnOnce(), body: impl FnOnce() -> i32) -> Victim {
        let child = Child::fork(|| {
            ptrace::traceme().expect("a parent may trace its child");
            warm();
            raise(Signal::SIGSTOP).expect("one may stop oneself");
            body()
        });
        let mut victim = Victim { child };
        match victim.wait_for_stop(ptrace::cont) {
            Step::Stopped => victim,
            ended => panic!("a victim ended while it warmed up: {ended:?}"),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Lets it run one instruction.
    pub fn step(&mut self) -> Step {
        loop {
            ptrace::step(self.child.pid, None).expect("the victim is stopped");
            match self.wait_for_stop(ptrace::step) {
                Step::Forked(pid) => let_go(pid, |_| {}),
                step => return step,
            }
        }
    }

    /// Lets it run until it is to execute the instruction at `address` for the `time`th time, not
    /// counting the one that it stands before now.
    pub fn run_to(&mut self, address: u64, time: u64) -> Step {
        ptrace::setoptions(self.child.pid, ptrace::Options::PTRACE_O_TRACEFORK).expect("the victim is stopped");
        let saved = self.read(address);
        for passed in 0..time {
            if passed > 0 || self.position() == address {
                // Over the instruction itself, which is whole at the moment.
                if let ended @ Step::Ended(_) = self.step() {
                    return ended;
                }
            }
            self.write(address, saved & !BREAK_MASK | BREAK);
            ptrace::cont(self.child.pid, None).expect("the victim is stopped");
            let mut stopped = self.wait_for_stop(ptrace::cont);
            while let Step::Forked(pid) = stopped {
                // It has a copy of the code, breakpoint and all.
                let_go(pid, |child| child.write(address, saved));
                ptrace::cont(self.child.pid, None).expect("the victim is stopped");
                stopped = self.wait_for_stop(ptrace::cont);
            }
            if stopped != Step::Stopped {
                return stopped;
            }
            self.write(address, saved);
            self.set_position(address);
        }
        Step::Stopped
    }

    /// Lets it run until it forks; the child stands before its first instruction, and the victim
    /// in the middle of its fork.
    ///
    /// # Panics
    ///
    /// If it ends without forking.
    pub fn run_to_fork(&mut self) -> Victim {
        ptrace::setoptions(self.child.pid, ptrace::Options::PTRACE_O_TRACEFORK).expect("the victim is stopped");
        ptrace::cont(self.child.pid, None).expect("the victim is stopped");
        match self.wait_for_stop(ptrace::cont) {
            Step::Forked(pid) => {
                let mut child = Victim { child: Child { pid, is_reaped: false } };
                assert_eq!(
                    child.wait_for_stop(ptrace::cont),
                    Step::Stopped,
                    "a child ended before its first instruction"
                );
                child
            }
            other => panic!("the victim did not fork: {other:?}"),
        }
    }

    /// Kills it where it stands.
    pub fn kill(self) {
        self.child.kill();
    }

    /// Lets it run to its end.
    pub fn finish(mut self) -> WaitStatus {
        loop {
            ptrace::cont(self.child.pid, None).expect("the victim is stopped");
            match self.wait_for_stop(ptrace::cont) {
                Step::Stopped => {}
                Step::Forked(pid) => let_go(pid, |_| {}),
                Step::Ended(status) => return status,
            }
        }
    }

    /// Waits until it stands; `go_on` lets it have a signal of its own, of which it may die.
    fn wait_for_stop(&mut self, go_on: impl Fn(Pid, Option<Signal>) -> nix::Result<()>) -> Step {
        loop {
            match waitpid(self.child.pid, None) {
                Err(nix::errno::Errno::EINTR) => continue,
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP)) => return Step::Stopped,
                Ok(WaitStatus::Stopped(_, signal)) => {
                    go_on(self.child.pid, Some(signal)).expect("the victim is stopped")
                }
                Ok(WaitStatus::PtraceEvent(..)) => {
                    let pid = ptrace::getevent(self.child.pid).expect("the victim is stopped");
                    return Step::Forked(Pid::from_raw(pid as i32));
                }
                Ok(ended) => {
                    self.child.is_reaped = true;
                    return Step::Ended(ended);
                }
                Err(error) => panic!("nobody else waits for the victim: {error}"),
            }
        }
    }

    fn read(&self, address: u64) -> i64 {
        ptrace::read(self.child.pid, address as ptrace::AddressType).expect("code can be read")
    }

    fn write(&self, address: u64, word: i64) {
        ptrace::write(self.child.pid, address as ptrace::AddressType, word)
            .expect("a tracer writes to private copies of code");
    }

    /// The address of the instruction that it executes next.
    #[cfg(target_arch = "x86_64")]
    pub fn position(&self) -> u64 {
        ptrace::getregs(self.child.pid).expect("the victim is stopped").rip
    }

    #[cfg(target_arch = "x86_64")]
    fn set_position(&self, address: u64) {
        let mut registers = ptrace::getregs(self.child.pid).expect("the victim is stopped");
        registers.rip = address;
        ptrace::setregs(self.child.pid, registers).expect("the victim is stopped");
    }

    /// The address of the instruction that it executes next.
    #[cfg(target_arch = "aarch64")]
    pub fn position(&self) -> u64 {
        ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(self.child.pid).expect("the victim is stopped").pc
    }

    #[cfg(target_arch = "aarch64")]
    fn set_position(&self, address: u64) {
        let mut registers =
            ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(self.child.pid).expect("the victim is stopped");
        registers.pc = address;
        ptrace::setregset::<ptrace::regset::NT_PRSTATUS>(self.child.pid, registers).expect("the victim is stopped");
    }
}

/// Lets a victim's child go its own way, once `mend` has seen it.
fn let_go(pid: Pid, mend: impl FnOnce(&Victim)) {
    // Not ours to reap.
    let mut child = Victim { child: Child { pid, is_reaped: true } };
    if child.wait_for_stop(ptrace::cont) == Step::Stopped {
        mend(&child);
        ptrace::detach(pid, None).expect("the child is stopped");
    }
}

/// `int3`.
#[cfg(target_arch = "x86_64")]
const BREAK: i64 = 0xCC;
#[cfg(target_arch = "x86_64")]
const BREAK_MASK: i64 = 0xFF;
/// `brk #0`.
#[cfg(target_arch = "aarch64")]
const BREAK: i64 = 0xD420_0000;
#[cfg(target_arch = "aarch64")]
const BREAK_MASK: i64 = 0xFFFF_FFFF;

/// Keeps this process and its children on one processor: a parent and the victim that it steps then
/// take turns without waking each other across processors, which is ten times as fast.
pub fn stay_on_one_processor() {
    let mut one = CpuSet::new();
    // Where the kernel put this process, which is where least goes on.
    let Ok(mine) = sched_getcpu() else { return };
    if one.set(mine).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &one);
    }
}

/// Where code of this program and of its libraries lies that a tracer can put a breakpoint into;
/// children inherit it. The first range is the program's own.
pub fn code_ranges() -> Vec<Range<u64>> {
    let binary = std::env::current_exe().expect("a running program has a path");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process can read its own maps");
    // The first place is the program's own, wherever its line stands.
    let mut ranges = Vec::from([Range::default()]);
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')) {
        let (start, end) = line.split(' ').next().and_then(|span| span.split_once('-')).expect("start-end");
        let address = |text| u64::from_str_radix(text, 16).expect("an address is hexadecimal");
        let range = address(start)..address(end);
        if line.ends_with(binary.to_string_lossy().as_ref()) { ranges[0] = range } else { ranges.push(range) }
    }
    ranges
}

/// Which instruction a stepped victim stands behind, for the message of the alarm.
static STANDS_AT: AtomicU64 = AtomicU64::new(0);

/// Ends this process with a message unless the alarm is set anew in time: the net under a survivor
/// that hangs. Zero turns it off.
pub fn alarm(seconds: u32, stands_at: u64) {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    INSTALL.call_once(|| {
        // SAFETY: the handler only writes and exits, which a signal handler may.
        unsafe { libc::signal(libc::SIGALRM, on_alarm as *const () as libc::sighandler_t) };
    });
    STANDS_AT.store(stands_at, Ordering::Relaxed);
    nix::unistd::alarm::cancel();
    if seconds > 0 {
        nix::unistd::alarm::set(seconds);
    }
}

extern "C" fn on_alarm(_: libc::c_int) {
    let mut text = *b"\na survivor hangs; the victim stands behind instruction           \n";
    let mut at = text.len() - 2;
    let mut number = STANDS_AT.load(Ordering::Relaxed);
    while number > 0 && at > 0 && text[at] == b' ' {
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
    }
    // SAFETY: both calls are allowed in a signal handler.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::abort()
    }
}
