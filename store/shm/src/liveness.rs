//! Who is dead: only ever the kernel's word.
//!
//! The one thing to know: a process is named by pid *and* start time, since pids are reused, and it
//! is dead only if the kernel says so: no such pid, another start time under it, or a pidfd that
//! polls readable, which is when the last thread of the group has ended, reaped or not. Any doubt (no
//! descriptor left, no /proc) is alive. It must not take time-outs for deaths or kill anybody.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use thiserror::Error;

/// Stands for a start time that could not be read: matches every start time.
const START_UNKNOWN: u64 = 0;

/// Where field 22 of /proc/<pid>/stat, the start time, is among the fields after the command: the
/// first of them is field 3.
const START_TICKS_INDEX: usize = 22 - 3;

/// Why a process cannot be watched, though it is not known to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The kernel gave no pidfd: too many open files, or a kernel or sandbox without the call.
    #[error("no pidfd for process {pid}")]
    NoPidfd {
        /// The process that was to be watched.
        pid: u32,
        /// What the kernel said.
        source: Errno,
    },
}

/// The name of one process among all of this boot. To be read from shared memory only where both
/// fields were published together: a pid with a stranger's start time is a dead process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id, as this process's pid namespace has it.
    pub pid: u32,
    /// Start time in clock ticks since boot; 0 if it could not be read.
    pub start_ticks: u64,
}

impl ProcessId {
    /// This process. Not cached, since a fork changes it.
    pub fn current() -> ProcessId {
        let pid = std::process::id();
        ProcessId { pid, start_ticks: start_ticks(pid).unwrap_or(START_UNKNOWN) }
    }

    /// The process that has this pid now, zombies included. `None` if /proc shows none.
    pub fn of(pid: u32) -> Option<ProcessId> {
        let start_ticks = start_ticks(pid)?;
        Some(ProcessId { pid, start_ticks })
    }

    /// Whether the kernel says that the process is dead. Once true, it stays true.
    pub fn is_dead(&self) -> bool {
        match Watch::try_open(*self) {
            Ok(Some(watch)) => watch.is_dead(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// What can be told without a pidfd: nobody has the pid, or somebody who started at another time.
    fn is_gone(&self) -> bool {
        let Some(pid) = self.kernel_pid() else {
            return true;
        };
        kill(pid, None) == Err(Errno::ESRCH) || self.is_replaced()
    }

    /// Whether the pid now belongs to somebody else.
    fn is_replaced(&self) -> bool {
        let is_known = self.start_ticks != START_UNKNOWN;
        is_known && start_ticks(self.pid).is_some_and(|found| found != self.start_ticks)
    }

    /// `None` for numbers that no process can have. To the kernel 0 and below mean groups.
    fn kernel_pid(&self) -> Option<Pid> {
        let pid = i32::try_from(self.pid).ok()?;
        (pid > 0).then(|| Pid::from_raw(pid))
    }
}

/// A pidfd: polls readable when its process, with all threads, has ended.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Starts to watch. `None` is "no watch": the process is already dead, or the kernel gave no
    /// pidfd. Who acts on the death asks [`ProcessId::is_dead`] or uses [`Watch::try_open`].
    pub fn open(id: ProcessId) -> Option<Watch> {
        Watch::try_open(id).ok().flatten()
    }

    /// Starts to watch. `Ok(None)` means that the process is already dead.
    pub fn try_open(id: ProcessId) -> Result<Option<Watch>, WatchError> {
        let Some(pid) = id.kernel_pid() else {
            return Ok(None);
        };
        match pidfd_open(pid) {
            // The start time is read after opening. If it is the right one now, then no other process
            // had the pid before, so the pidfd is the right one too.
            Ok(_) if id.is_replaced() => Ok(None),
            Ok(fd) => Ok(Some(Watch(fd))),
            // Besides ESRCH: the pid may live on as a group's, or be another process's thread.
            Err(_) if id.is_gone() => Ok(None),
            Err(source) => Err(WatchError::NoPidfd { pid: id.pid, source }),
        }
    }

    /// Whether the process has ended. Once true, it stays true.
    pub fn is_dead(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(_) => polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)),
            Err(_) => false,
        }
    }
}

impl From<Watch> for OwnedFd {
    fn from(watch: Watch) -> OwnedFd {
        watch.0
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers. Its descriptor is closed on exec without being asked.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let raw = i32::try_from(raw).expect("descriptors are ints");
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The command stands in parentheses and may hold any bytes, further parentheses included; but
/// nothing after it does, so the last one ends it.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let field = fields.split_ascii_whitespace().nth(START_TICKS_INDEX)?;
    field.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{Signal, raise};
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
    use nix::unistd::{getpgid, setpgid};

    use super::*;
    use crate::testing::{fork_child, outcome_in_child, reap};

    fn id_of(child: Pid) -> ProcessId {
        ProcessId::of(child.as_raw() as u32).unwrap()
    }

    fn pause_forever() -> i32 {
        loop {
            nix::unistd::pause();
        }
    }

    fn become_zombie(child: Pid) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(child), flags).unwrap();
    }

    fn check_dead(id: ProcessId, is_dead: bool) {
        assert_eq!(id.is_dead(), is_dead);
        assert_eq!(Watch::open(id).is_none_or(|watch| watch.is_dead()), is_dead);
    }

    fn reaped() -> ProcessId {
        let child = fork_child(pause_forever);
        let id = id_of(child);
        kill(child, Signal::SIGKILL).unwrap();
        reap(child);
        id
    }

    #[test]
    fn this_process_and_its_parent_live() {
        check_dead(ProcessId::current(), false);
        assert_eq!(ProcessId::of(std::process::id()), Some(ProcessId::current()));
        let parent = ProcessId::of(nix::unistd::getppid().as_raw() as u32);
        check_dead(parent.unwrap(), false);
    }

    #[test]
    fn reused_pid_with_another_start_time_is_dead() {
        let mut id = ProcessId::current();
        id.start_ticks += 1;
        check_dead(id, true);
        assert!(Watch::open(id).is_none());
    }

    #[test]
    fn unknown_start_time_is_not_a_death() {
        let mut id = ProcessId::current();
        id.start_ticks = START_UNKNOWN;
        check_dead(id, false);
    }

    #[test]
    fn zombie_is_dead_and_so_it_is_when_reaped() {
        let child = fork_child(|| 0);
        become_zombie(child);
        let id = id_of(child);
        check_dead(id, true);
        reap(child);
        check_dead(id, true);
    }

    #[test]
    fn zombie_leader_with_a_running_thread_lives() {
        let child = fork_child(|| {
            thread::spawn(pause_forever);
            // SAFETY: ends the calling thread alone; nothing of this frame is used by the other.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
            1
        });
        let stat = format!("/proc/{child}/stat");
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            thread::yield_now();
        }
        check_dead(id_of(child), false);
        kill(child, Signal::SIGKILL).unwrap();
        become_zombie(child);
        check_dead(id_of(child), true);
        reap(child);
    }

    #[test]
    fn stopped_process_lives() {
        let child = fork_child(|| {
            raise(Signal::SIGSTOP).unwrap();
            0
        });
        let status = waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(status, WaitStatus::Stopped(child, Signal::SIGSTOP));
        let id = id_of(child);
        check_dead(id, false);
        kill(child, Signal::SIGKILL).unwrap();
        reap(child);
        check_dead(id, true);
    }

    #[test]
    fn watch_outlives_its_process() {
        let child = fork_child(pause_forever);
        let watch = Watch::open(id_of(child)).unwrap();
        assert!(!watch.is_dead());
        kill(child, Signal::SIGKILL).unwrap();
        become_zombie(child);
        assert!(watch.is_dead());
        reap(child);
        assert!(watch.is_dead());
    }

    #[test]
    fn leader_of_a_group_that_outlives_it_is_dead() {
        // The group keeps the number in use, so a pidfd is refused with something other than ESRCH.
        let outcome = outcome_in_child(|| {
            // So that the orphaned member comes to us to be reaped.
            set_child_subreaper(true).unwrap();
            let (told, tell) = nix::unistd::pipe().unwrap();
            let leader = fork_child(|| lead_group(&tell));
            let mut member = [0; 4];
            assert_eq!(nix::unistd::read(&told, &mut member), Ok(4));
            let member = Pid::from_raw(i32::from_ne_bytes(member));
            let id = id_of(leader);
            kill(leader, Signal::SIGKILL).unwrap();
            reap(leader);
            let is_group = getpgid(Some(member)) == Ok(leader);
            let is_right = is_group && id.is_dead() && Watch::try_open(id).unwrap().is_none();
            kill(member, Signal::SIGKILL).unwrap();
            reap(member);
            i32::from(!is_right)
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
    }

    /// Forks a member that survives its parent and tells its pid once that is certain.
    fn lead_group(tell: &OwnedFd) -> i32 {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
        fork_child(|| {
            set_pdeathsig(None).unwrap();
            let pid = std::process::id().to_ne_bytes();
            nix::unistd::write(tell, &pid).unwrap();
            pause_forever()
        });
        pause_forever()
    }

    #[test]
    fn without_descriptors_the_living_live_and_the_gone_are_dead() {
        let gone = reaped();
        let alive = ProcessId::current();
        let outcome = outcome_in_child(|| {
            setrlimit(Resource::RLIMIT_NOFILE, 0, 0).unwrap();
            let is_refused = matches!(Watch::try_open(alive), Err(WatchError::NoPidfd { source: Errno::EMFILE, .. }));
            i32::from(!is_refused || alive.is_dead() || !gone.is_dead())
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
    }

    #[test]
    fn numbers_no_process_can_have_are_dead() {
        for pid in [0, 1 << 31, u32::MAX] {
            let start_ticks = 1;
            check_dead(ProcessId { pid, start_ticks }, true);
            assert_eq!(ProcessId::of(pid), None);
        }
    }

    #[test]
    fn start_time_is_found_behind_any_command() {
        let after = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n";
        for command in ["cat", "a b", "a) S 1 (b", "))) (", ""] {
            let stat = format!("77 ({command}) {after}");
            assert_eq!(parse_start_ticks(stat.as_bytes()), Some(4242), "{command}");
        }
        let mut stat = b"77 (\xff\xfe) ".to_vec();
        stat.extend(after.as_bytes());
        assert_eq!(parse_start_ticks(&stat), Some(4242));
        assert_eq!(parse_start_ticks(b""), None);
        assert_eq!(parse_start_ticks(b"77 (cat) S 1 2"), None);
    }
}
