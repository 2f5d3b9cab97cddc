//! One zygote, as its raylet sees it: started, asked, heard, watched to its end.
//!
//! The one thing to know: it is the user's executable in another role, so it may be anything: one that
//! cannot be started, ends at once, or never answers, is reported as such and not waited for. This
//! file must not know what workers are for.

use super::{group, until_ended};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use raylet_api::ProgramWish;
use raylet_api::zygote::*;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use store_shm::fd::{FdError, recv_fds, send_fds};
use store_shm::process::{self, ProcessError, Which, ended_child};
use store_shm::{ProcessId, Watch};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// How long an executable may take to say that it is a zygote.
const READY_TIME: Duration = Duration::from_secs(10);
/// Forks asked for and not answered: bounds the descriptors in flight, which the kernel counts.
const UNANSWERED_COUNT_MAX: usize = 32;
/// How long to wait where the kernel takes no more descriptors.
const SEND_RETRY_DELAY: Duration = Duration::from_millis(1);

/// What a zygote is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable. What `/proc/<pid>/exe` names can be started even if it was replaced.
    pub executable: PathBuf,
    /// What it is given besides its name.
    pub arguments: Vec<OsString>,
    /// Variables that are set beside those of this process, or instead of them.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether it gets this process' variables as well.
    pub inherits_environment: bool,
    /// Where it works; none is where this process does.
    pub directory: Option<PathBuf>,
}

impl Program {
    /// The executable of this process.
    pub fn own() -> Program {
        Program::at("/proc/self/exe")
    }

    /// An executable, with the variables of this process.
    pub fn at(executable: impl Into<PathBuf>) -> Program {
        Program {
            executable: executable.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherits_environment: true,
            directory: None,
        }
    }

    /// What a driver asks for, whose own executable is `own`.
    pub(crate) fn wished(wish: &ProgramWish, own: PathBuf) -> Program {
        let environment = wish.environment.iter().flatten();
        Program {
            executable: wish.executable.as_ref().map_or(own, PathBuf::from),
            arguments: wish.arguments.iter().map(OsString::from).collect(),
            environment: environment.map(|(name, value)| (name.into(), value.into())).collect(),
            inherits_environment: wish.environment.is_none(),
            directory: wish.directory.as_ref().map(PathBuf::from),
        }
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.executable);
        // An interpreter finds its library by the name that it is called by.
        if self.executable.starts_with("/proc") {
            command.arg0(format!("raylet-{role}"));
        }
        command.args(&self.arguments);
        if !self.inherits_environment {
            command.env_clear();
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.env(ROLE_VARIABLE, role);
        command
    }
}

/// Why there is no zygote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZygoteError {
    /// The executable could not be started.
    #[error("cannot start {} as a zygote", executable.display())]
    Spawn {
        /// The executable.
        executable: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A socket or a leash cannot be had.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It could not be told to start.
    #[error("the socket to the zygote")]
    Socket(#[from] FdError),
    /// It cannot be watched, or its socket cannot be waited for.
    #[error("the zygote cannot be watched")]
    Watch {
        /// The system's word.
        source: io::Error,
    },
    /// A zygote of that number runs, or the pool is ending.
    #[error("zygote {zygote} runs already, or the pool is ending")]
    NumberInUse {
        /// Which.
        zygote: u64,
    },
}

/// A fork to ask for.
#[derive(Debug)]
pub(crate) struct Order {
    /// The packet.
    pub(crate) bytes: Vec<u8>,
    /// What rides on it.
    pub(crate) fds: [OwnedFd; FORK_FDS],
}

/// A process that was started in some role with a socket for standard input. Never left a zombie.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
}

/// Starts an executable in a role.
pub(crate) fn start_role(program: &Program, role: &str) -> Result<Started, ZygoteError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    let (socket, theirs) = pair.map_err(|source| ProcessError::System { call: "socketpair", source })?;
    let mut command = program.command(role);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
    let spawned = command.spawn();
    let mut child = spawned.map_err(|source| ZygoteError::Spawn { executable: shown(&program.executable), source })?;
    let pid = child.id();
    // It is not reaped before, so the pid is still its own.
    match Watch::try_open(ProcessId { pid, start_ticks: 0 }) {
        Ok(Some(watch)) => Ok(Started { pid, pidfd: watch.into(), socket }),
        unwatched => {
            let _ = child.kill();
            let _ = child.wait();
            let source = unwatched.err().map_or(io::ErrorKind::NotFound.into(), io::Error::other);
            Err(ZygoteError::Watch { source })
        }
    }
}

/// What `/proc/self/exe` is, for people.
fn shown(executable: &Path) -> PathBuf {
    std::fs::read_link(executable).unwrap_or_else(|_| executable.to_owned())
}

/// A zygote that was started and that nobody listens to yet. Dropping it ends it.
#[derive(Debug)]
pub struct Kindled {
    program: Program,
    /// `None` once it is a [`Zygote`]'s.
    inside: Option<Inside>,
}

#[derive(Debug)]
struct Inside {
    started: Started,
    leash: OwnedFd,
}

impl Kindled {
    /// Starts one, and puts it on a leash.
    pub fn start(program: &Program) -> Result<Kindled, ZygoteError> {
        let started = start_role(program, ROLE_ZYGOTE)?;
        match greet(&started.socket) {
            Ok(leash) => Ok(Kindled { program: program.clone(), inside: Some(Inside { started, leash }) }),
            Err(error) => {
                end(started.pid, &started.pidfd);
                Err(error)
            }
        }
    }

    pub(crate) fn is_of(&self, program: &Program) -> bool {
        self.program == *program
    }
}

impl Drop for Kindled {
    fn drop(&mut self) {
        if let Some(Inside { started, .. }) = &self.inside {
            end(started.pid, &started.pidfd);
        }
    }
}

/// Has it start, and gives its leash.
fn greet(socket: &OwnedFd) -> Result<OwnedFd, ZygoteError> {
    let (leash, worn) = process::leash()?;
    let bytes = encode(&ToZygote::Start {}).expect("it has nothing that could be too long");
    match send_fds(socket.as_fd(), &bytes, &[worn.as_fd()]) {
        // It has ended already, and is reported to.
        Ok(_) | Err(FdError::System { source: Errno::EPIPE, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    let system = |source| ProcessError::System { call: "fcntl F_SETFL", source };
    nix::fcntl::fcntl(socket, flags).map_err(system)?;
    Ok(leash)
}

/// Kills and reaps it.
fn end(pid: u32, pidfd: &OwnedFd) {
    super::kill(pidfd);
    // Killed, so this does not take long.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
}

/// A zygote that runs.
pub(crate) struct Zygote {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    socket: AsyncFd<OwnedFd>,
    waiting: VecDeque<Order>,
    unanswered_count: usize,
    is_ready: bool,
}

impl Zygote {
    /// Takes over one that is on its way, and gives the leash that it wears.
    pub(crate) fn of(mut kindled: Kindled) -> Result<(Zygote, OwnedFd), ZygoteError> {
        let Some(Inside { started, leash }) = kindled.inside.take() else { unreachable!("it is taken here only") };
        let Started { pid, pidfd, socket } = started;
        #[allow(deprecated, reason = "the registration owns the descriptor, so nobody closes it before")]
        match AsyncFd::new(socket) {
            Ok(socket) => {
                let (pidfd, waiting) = (Arc::new(pidfd), VecDeque::new());
                Ok((Zygote { pid, pidfd, socket, waiting, unanswered_count: 0, is_ready: false }, leash))
            }
            Err(source) => {
                end(pid, &pidfd);
                Err(ZygoteError::Watch { source })
            }
        }
    }

    /// Becomes readable when it has ended.
    pub(crate) fn pidfd(&self) -> Arc<OwnedFd> {
        self.pidfd.clone()
    }

    /// Carries orders there and answers back until it has ended; says how it did.
    pub(crate) async fn serve(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        hear: impl Fn(FromZygote, Vec<OwnedFd>),
    ) -> Option<Exit> {
        let pidfd = self.pidfd.clone();
        let late = tokio::time::sleep(READY_TIME);
        let ended = until_ended(&pidfd);
        tokio::pin!(late, ended);
        let mut has_ended = false;
        loop {
            let may_send = self.unanswered_count < UNANSWERED_COUNT_MAX && !self.waiting.is_empty();
            let goes_on = tokio::select! {
                Some(order) = orders.recv() => {
                    self.waiting.push_back(order);
                    true
                }
                packet = receive(&self.socket) => match packet {
                    Some((message, fds)) => self.take(message, fds, &hear),
                    None => false,
                },
                sent = send_first(&self.socket, &self.waiting), if may_send => {
                    self.waiting.pop_front().filter(|_| sent).is_some_and(|_| {
                        self.unanswered_count += 1;
                        true
                    })
                }
                () = &mut ended => {
                    has_ended = true;
                    false
                }
                () = &mut late, if !self.is_ready => false,
            };
            if !goes_on {
                break;
            }
        }
        // It has ended, or is of no more use. Answers that it gave before still count.
        super::kill(&pidfd);
        if !has_ended {
            ended.await;
        }
        while let Ok(Some((message, fds))) = receive_now(self.socket.get_ref().as_fd()) {
            self.take(message, fds, &hear);
        }
        ended_child(Which::Pid(self.pid), true).map(|(_, ended)| group::exit_of(ended))
    }

    fn take(&mut self, message: FromZygote, fds: Vec<OwnedFd>, hear: &impl Fn(FromZygote, Vec<OwnedFd>)) -> bool {
        match &message {
            FromZygote::Ready { .. } => self.is_ready = true,
            FromZygote::Forked { .. } | FromZygote::Refused { .. } => {
                self.unanswered_count = self.unanswered_count.saturating_sub(1);
            }
            _ => {}
        }
        hear(message, fds);
        true
    }
}

/// The next packet; `None` where there will be none.
async fn receive(socket: &AsyncFd<OwnedFd>) -> Option<(FromZygote, Vec<OwnedFd>)> {
    let received = socket.async_io(Interest::READABLE, |socket| receive_now(socket.as_fd())).await;
    match received {
        Ok(packet) => packet,
        Err(error) => {
            // Its end is told of by its process.
            tracing::debug!(%error, "a zygote's socket broke");
            None
        }
    }
}

fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Option<(FromZygote, Vec<OwnedFd>)>> {
    let mut bytes = [0; PACKET_BYTES_MAX];
    match recv_fds(socket, &mut bytes, PACKET_FDS_MAX) {
        Ok((0, _)) => Ok(None),
        Ok((count, fds)) => {
            let message = decode(&bytes[..count]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(Some((message, fds)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends the first of those that wait; `false` where the socket broke. May be dropped and begun anew.
async fn send_first(socket: &AsyncFd<OwnedFd>, waiting: &VecDeque<Order>) -> bool {
    let Some(order) = waiting.front() else { return true };
    let fds = order.fds.each_ref().map(AsFd::as_fd);
    loop {
        let sent = socket.async_io(Interest::WRITABLE, |socket| {
            send_fds(socket.as_fd(), &order.bytes, &fds).map_err(io::Error::from)
        });
        match sent.await {
            Ok(_) => return true,
            Err(error) if error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32) => {
                tokio::time::sleep(SEND_RETRY_DELAY).await;
            }
            Err(error) => {
                // Its end is told of by its process.
                tracing::debug!(%error, "a zygote's socket broke");
                return false;
            }
        }
    }
}
