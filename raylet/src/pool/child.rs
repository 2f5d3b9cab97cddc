//! A raylet that is its driver's child: the same executable in another role.
//!
//! The one thing to know: the child ends when its driver does, however that ends and whichever thread
//! started it. It holds a pidfd of the driver, which the kernel makes readable when the whole process
//! is gone, and a socket to it, whose end says that the driver wants no raylet any more or became
//! another program. Parents and death signals are not asked: they follow threads. This file must not
//! know what the driver does with its raylet.
//!
//! ```text
//!  driver                                   child
//!    start: exec of itself, socket as stdin -> role "raylet", before its `main`
//!    Setup + the driver's pidfd             -> fork the reaper, start the raylet
//!                                           <- Ready or Failed
//!    ends, or shuts the socket down         -> ends the raylet: workers, files, door
//! ```

use super::own_process;
use super::reaper::Reaper;
use super::zygote::{Program, Started, ZygoteError, start_role};
use super::{Exit, group, kill};
use crate::raylet::{Config, Ender, Raylet};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use raylet_api::ProgramWish;
use raylet_api::zygote::ROLE_RAYLET;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_shm::fd::{FdError, recv_fds, send_fds};
use store_shm::process::{ProcessError, Which, ended_child};
use store_shm::{ProcessId, Watch};

const PACKET_BYTES_MAX: usize = 64 << 10;
/// How long a raylet may take to be ready: a session that is being swept holds it up.
const READY_TIME: Duration = Duration::from_secs(30);
/// How long it may take to end before it is killed; the reaper removes what it leaves then.
const END_TIME: Duration = Duration::from_secs(10);

/// Why the driver has no raylet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// This executable could not be started again.
    #[error(transparent)]
    Start(#[from] ZygoteError),
    /// A path that is no text cannot be handed over.
    #[error("the base or spill directory is not text in UTF-8")]
    NotUnicode,
    /// The child's connection broke.
    #[error("the connection to the raylet that was started")]
    Socket(#[from] FdError),
    /// It started and says why it cannot run.
    #[error("the raylet says: {text}")]
    Refused {
        /// Why, for people.
        text: String,
    },
    /// It ended without a word.
    #[error("the raylet that was started ended at once: {exit:?}")]
    Ended {
        /// How, where that is known.
        exit: Option<Exit>,
    },
    /// It is there and does not say that it is ready.
    #[error("the raylet that was started was not ready within {limit_ms} ms")]
    NotReady {
        /// How long it had.
        limit_ms: u64,
    },
    /// The kernel said no.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What the driver wants.
#[derive(Debug, Serialize, Deserialize)]
struct Setup {
    base: PathBuf,
    session: String,
    capacity_bytes: u64,
    max_clients: u32,
    spill_parent: Option<PathBuf>,
    resources: raylet_core::Resources,
    scheduler: raylet_core::Config,
    metrics_port: Option<u16>,
    timeline: bool,
    #[serde(default)]
    first_program: Option<ProgramWish>,
}

impl Setup {
    /// As a packet. A program with too many variables for one is left out: its driver says it once more.
    fn into_packet(mut self) -> Result<Vec<u8>, ChildError> {
        let bytes = serde_json::to_vec(&self).map_err(|_| ChildError::NotUnicode)?;
        if bytes.len() <= PACKET_BYTES_MAX || self.first_program.take().is_none() {
            return Ok(bytes);
        }
        self.into_packet()
    }
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Ready { directory: PathBuf, session_id: String },
    Failed { text: String },
}

/// A raylet that runs as a child of this process. Dropping it ends it and waits.
#[derive(Debug)]
pub struct RayletChild {
    pid: u32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    directory: PathBuf,
    session_id: String,
    /// The driver; its forked children have this value but not the child.
    owner: u32,
}

impl RayletChild {
    /// Starts an executable, mostly this one, as a raylet of `config` and waits until it serves.
    ///
    /// Only for an executable that knows the role: `raylet-client` asks before.
    pub fn start(program: &Program, config: &Config) -> Result<RayletChild, ChildError> {
        let setup = Setup {
            base: config.base.clone(),
            session: config.session.clone(),
            capacity_bytes: config.capacity_bytes,
            max_clients: config.max_clients,
            spill_parent: config.spill_parent.clone(),
            resources: config.resources.clone(),
            scheduler: config.scheduler.clone(),
            metrics_port: config.metrics_port,
            timeline: config.timeline,
            first_program: config.first_program.clone(),
        };
        let bytes = setup.into_packet()?;
        let own = own_pidfd()?;
        let Started { pid, pidfd, socket } = start_role(program, ROLE_RAYLET)?;
        let owner = std::process::id();
        // From here on a drop ends it.
        let mut child = RayletChild { pid, pidfd, socket, directory: PathBuf::new(), session_id: String::new(), owner };
        send_fds(child.socket.as_fd(), &bytes, &[own.as_fd()])?;
        match child.reply()? {
            Reply::Ready { directory, session_id } => (child.directory, child.session_id) = (directory, session_id),
            Reply::Failed { text } => return Err(ChildError::Refused { text }),
        }
        Ok(child)
    }

    /// The raylet's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where clients, this process included, join it.
    pub fn session_directory(&self) -> &Path {
        &self.directory
    }

    /// Names this run of the raylet.
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Becomes readable when the raylet's process has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    fn reply(&self) -> Result<Reply, ChildError> {
        if !is_readable_within(&self.socket, READY_TIME) {
            return Err(ChildError::NotReady { limit_ms: READY_TIME.as_millis() as u64 });
        }
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        let count = match recv_fds(self.socket.as_fd(), &mut bytes, 0) {
            Err(FdError::System { source: Errno::ECONNRESET, .. }) => 0,
            received => received?.0,
        };
        match serde_json::from_slice(&bytes[..count]) {
            Ok(reply) => Ok(reply),
            // Its end, or a word of something that is no raylet.
            Err(_) => Err(ChildError::Ended { exit: self.end() }),
        }
    }

    /// Has it end, waits for that, and reaps it.
    fn end(&self) -> Option<Exit> {
        // Ends it even if a forked child has the socket as well.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if !is_readable_within(&self.pidfd, END_TIME) {
            tracing::warn!(pid = self.pid, "the raylet does not end, and is killed");
            kill(&self.pidfd);
            is_readable_within(&self.pidfd, END_TIME);
        }
        ended_child(Which::Pid(self.pid), true).map(|(_, ended)| group::exit_of(ended))
    }
}

impl Drop for RayletChild {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            self.end();
        }
    }
}

fn own_pidfd() -> Result<OwnedFd, ProcessError> {
    let opened = Watch::try_open(ProcessId::current());
    let error = |source| ProcessError::System { call: "pidfd_open", source };
    match opened {
        Ok(Some(watch)) => Ok(watch.into()),
        Err(store_shm::WatchError::NoPidfd { source, .. }) => Err(error(source)),
        _ => Err(error(Errno::ESRCH)),
    }
}

fn is_readable_within(fd: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => {}
            answered => return matches!(answered, Ok(1)),
        }
    }
}

/// The whole life of the child; `socket` leads to its driver. To be called before `main`, in a
/// process with one thread.
pub fn run(socket: OwnedFd) -> i32 {
    log_to_stderr();
    let socket = Arc::new(socket);
    match serve(&socket) {
        Ok(()) => 0,
        Err(text) => {
            // The driver may have gone; then nobody wants to know.
            let _ = send(&socket, &Reply::Failed { text });
            1
        }
    }
}

fn serve(socket: &Arc<OwnedFd>) -> Result<(), String> {
    let Some((setup, driver)) = receive(socket)? else { return Ok(()) };
    // The driver's terminal, with its signals, is the driver's.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"raylet");
    let config = config(setup);
    let watched = driver.try_clone().map_err(in_full)?;
    let reaper = Reaper::start(&config, Some(watched)).map_err(in_full)?;
    own_process::take_orphans();
    let signals = own_process::block_signals().map_err(in_full)?;
    own_process::raise_descriptor_limit();
    let raylet = Raylet::start(&config).map_err(in_full)?;
    own_process::spawn_signal_thread(signals, raylet.ender()).map_err(in_full)?;
    spawn_driver_thread(socket.clone(), driver, raylet.ender()).map_err(in_full)?;
    let directory = raylet.session().directory().to_owned();
    let session_id = raylet.session().record().session_id.clone();
    let _ = send(socket, &Reply::Ready { directory, session_id });
    let ended = raylet.wait();
    // Only now is nothing left that it would have to remove.
    drop(reaper);
    ended.map_err(in_full)
}

fn config(setup: Setup) -> Config {
    Config {
        base: setup.base,
        session: setup.session,
        capacity_bytes: setup.capacity_bytes,
        max_clients: setup.max_clients,
        is_driver: false,
        spill_parent: setup.spill_parent,
        resources: setup.resources,
        scheduler: setup.scheduler,
        metrics_port: setup.metrics_port,
        timeline: setup.timeline,
        first_program: setup.first_program,
    }
}

/// `None` where the driver ended before it said what it wants.
fn receive(socket: &OwnedFd) -> Result<Option<(Setup, OwnedFd)>, String> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let (count, fds) = match recv_fds(socket.as_fd(), &mut bytes, 1) {
        Ok((0, _)) | Err(FdError::System { source: Errno::ECONNRESET, .. }) => return Ok(None),
        received => received.map_err(in_full)?,
    };
    let setup = serde_json::from_slice(&bytes[..count]).map_err(in_full)?;
    let driver = fds.into_iter().next().ok_or("the driver sent no pidfd of its own")?;
    Ok(Some((setup, driver)))
}

fn send(socket: &OwnedFd, reply: &Reply) -> Result<(), FdError> {
    let bytes = serde_json::to_vec(reply).expect("its paths are text: they came as text");
    send_fds(socket.as_fd(), &bytes, &[]).map(drop)
}

/// Ends the raylet when the driver's process or its wish for a raylet has ended.
fn spawn_driver_thread(socket: Arc<OwnedFd>, driver: OwnedFd, ender: Ender) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("raylet-driver".to_owned());
    let spawned = thread.spawn(move || {
        let mut polled = [driver.as_fd(), socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
        ender.end();
    });
    // Never joined: it ends with the process.
    spawned.map(drop)
}

/// An error and what caused it.
fn in_full(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Warnings only, unless `RUST_LOG` asks for more: standard error is the driver's.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = subscriber.with_ansi(false).try_init();
}
