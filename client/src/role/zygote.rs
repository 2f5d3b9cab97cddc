//! The zygote: forks workers when its raylet asks, and says how they ended.
//!
//! The one thing to know: it has one thread, maps no store and makes nothing that a worker must not
//! share with its siblings; seeds of hash maps for example are drawn once per process, so it uses
//! none. It ends when its raylet does. This file must not know what workers do.

use super::worker;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use raylet_api::zygote::*;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use store_shm::fd::{FdError, recv_fds, send_fds};
use store_shm::process::{self, Child, Ended, ProcessError, Reach, Which, ended_child};

/// After so long without anything to do an interpreter may get ready for what its workers may need. Programs begin
/// with forks, one soon after the other.
const IDLE_AFTER_MS: u16 = 100;

/// Why a zygote ended by itself. Its raylet sees that it did; people see this.
#[derive(Debug, thiserror::Error)]
enum ZygoteError {
    #[error("the socket to the raylet")]
    Socket(#[from] FdError),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the first packet is no Start with a leash, but has {descriptors} descriptors")]
    NoStart { descriptors: usize },
    #[error("{call} failed")]
    System { call: &'static str, source: Errno },
}

/// A zygote that has started.
struct Zygote {
    socket: OwnedFd,
    children: SignalFd,
    /// Worn; open as long as it is to hold.
    _leash: OwnedFd,
}

/// The whole life of a zygote; `socket` leads to its raylet.
pub(super) fn run(socket: OwnedFd) -> i32 {
    match Zygote::start(socket).and_then(|zygote| zygote.map_or(Ok(()), |zygote| zygote.serve())) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("raylet: the zygote (pid {}): {error}", std::process::id());
            1
        }
    }
}

impl Zygote {
    /// `None` where the raylet ended before it said a word.
    fn start(socket: OwnedFd) -> Result<Option<Zygote>, ZygoteError> {
        let Some((message, fds)) = receive(&socket)? else { return Ok(None) };
        let descriptors = fds.len();
        let (ToZygote::Start {}, Ok([leash])) = (message, <[OwnedFd; 1]>::try_from(fds)) else {
            return Err(ZygoteError::NoStart { descriptors });
        };
        nix::unistd::setsid().map_err(|source| ZygoteError::System { call: "setsid", source })?;
        // Itself alone: a worker is in its group, and has its leash, until it has a group of its own.
        if let Err(error) = process::wear_leash(leash.as_fd(), Reach::Process) {
            // The end of the socket does as well, unless this process is stopped then.
            eprintln!("raylet: a zygote without a leash: {error}");
        }
        process::reset_signals()?;
        let _ = nix::sys::prctl::set_name(c"raylet-zygote");
        let zygote = Zygote { socket, children: signals_of_children()?, _leash: leash };
        zygote.send(&FromZygote::Ready { pid: std::process::id() }, &[])?;
        Ok(Some(zygote))
    }

    fn serve(&self) -> Result<(), ZygoteError> {
        let mut idle = super::fork_hooks().map(|hooks| hooks.idle);
        loop {
            let limit = if idle.is_some() { PollTimeout::from(IDLE_AFTER_MS) } else { PollTimeout::NONE };
            let (asked, ended) = self.wait(limit)?;
            if !asked && !ended {
                idle = idle.filter(|step| step());
            }
            if ended {
                self.reap_all()?;
            }
            if asked && !self.answer()? {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is a packet or the end of a child, or until the limit.
    fn wait(&self, limit: PollTimeout) -> Result<(bool, bool), ZygoteError> {
        let mut polled = [&self.socket.as_fd(), &self.children.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        match poll(&mut polled, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(ZygoteError::System { call: "poll", source }),
        }
        let is_ready = |polled: &PollFd| polled.any().unwrap_or(false);
        Ok((is_ready(&polled[0]), is_ready(&polled[1])))
    }

    /// Carries out one packet; `false` at the end of the raylet.
    fn answer(&self) -> Result<bool, ZygoteError> {
        let Some((message, fds)) = receive(&self.socket)? else { return Ok(false) };
        let ToZygote::Fork(spec) = message else { return Ok(true) };
        let number = spec.worker;
        match fork(spec, fds) {
            Ok(Child { pid, pidfd }) => {
                self.send(&FromZygote::Forked { worker: number, pid }, &[pidfd.as_fd()])?;
            }
            Err(refusal) => self.send(&FromZygote::Refused { worker: number, refusal }, &[])?,
        }
        Ok(true)
    }

    /// Says how each ended child ended, ends its group while the dead leader still keeps the number
    /// from being used again, and reaps it.
    fn reap_all(&self) -> Result<(), ZygoteError> {
        while self.children.read_signal().is_ok_and(|signal| signal.is_some()) {}
        while let Some((pid, ended)) = ended_child(Which::Any, false) {
            self.send(&FromZygote::Ended { pid, exit: exit(ended) }, &[])?;
            let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            ended_child(Which::Pid(pid), true);
        }
        Ok(())
    }

    fn send(&self, message: &FromZygote, fds: &[BorrowedFd<'_>]) -> Result<(), ZygoteError> {
        send_fds(self.socket.as_fd(), &encode(message)?, fds)?;
        Ok(())
    }
}

fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal(signal) => Exit::Signal(signal),
    }
}

/// Blocks the signal that tells of children, and makes a descriptor of it.
fn signals_of_children() -> Result<SignalFd, ZygoteError> {
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    mask.thread_block().map_err(|source| ZygoteError::System { call: "pthread_sigmask", source })?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).map_err(|source| ZygoteError::System { call: "signalfd", source })
}

/// `None` at the end of the raylet.
fn receive(socket: &OwnedFd) -> Result<Option<(ToZygote, Vec<OwnedFd>)>, ZygoteError> {
    let mut bytes = [0; PACKET_BYTES_MAX];
    match recv_fds(socket.as_fd(), &mut bytes, PACKET_FDS_MAX) {
        Ok((0, _)) => Ok(None),
        Ok((count, fds)) => Ok(Some((decode(&bytes[..count])?, fds))),
        Err(FdError::System { source: Errno::ECONNRESET, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn fork(spec: WorkerSpec, fds: Vec<OwnedFd>) -> Result<Child, Refusal> {
    let (pid, found) = (std::process::id(), fds.len());
    let fds = <[OwnedFd; FORK_FDS]>::try_from(fds);
    let fds = fds.map_err(|_| Refusal::Descriptors { found, expected: FORK_FDS })?;
    let hooks = super::fork_hooks();
    hooks.inspect(|hooks| (hooks.before)());
    let forked = process::fork_alone(fds, |fds| {
        hooks.inspect(|hooks| (hooks.after_in_child)());
        worker::run(spec, fds)
    });
    hooks.inspect(|hooks| (hooks.after_in_parent)());
    forked.map_err(|error| match error {
        ProcessError::Threaded { pid, count } => Refusal::Threaded { pid, count },
        ProcessError::System { source, .. } => Refusal::System { pid, errno: source as i32 },
        _ => Refusal::System { pid, errno: Errno::EINVAL as i32 },
    })
}
