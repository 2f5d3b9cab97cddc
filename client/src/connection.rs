//! Saying hello: over the socket, once, until the store is joined.
//!
//! The one thing to know: the connection is kept until the store is joined. If it ends earlier, the
//! raylet takes the admission back; afterwards a client of the store alone needs it no more, and for
//! drivers and workers it is the control line. This file must not be needed once a client is in.

use crate::engine::segment::Segment;
use crate::error::ConnectError;
use raylet_api::address;
use raylet_api::frame::{self, Decoder, PROTOCOL_VERSION};
use raylet_api::message::{Hello, Message, Want, Welcome};
use raylet_api::work::ProgramWish;
use raylet_api::{JobId, TaskId, WELCOME_DESCRIPTORS};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use store::{ClientId, Config, Keeping, LAYOUT_VERSION, Segments, Store};
use store_shm::fd::{FdError, recv_fds};
use store_shm::liveness::ProcessId;

/// How long joining may take where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 << 10;

/// Whom to join, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The session's directory.
    pub directory: PathBuf,
    /// What this client calls itself in errors and listings; 40 bytes are kept.
    pub label: String,
    /// How long joining may take.
    pub timeout: Duration,
    /// How long a create waits for room unless it says otherwise.
    pub create_timeout: Duration,
}

impl ConnectOptions {
    /// The session of this name in the user's directory of sessions.
    pub fn session(name: &str) -> Result<ConnectOptions, ConnectError> {
        let directory = address::session_directory(&address::base_directory(), name)?;
        Ok(ConnectOptions::at(directory))
    }

    /// The session in this directory.
    pub fn at(directory: impl Into<PathBuf>) -> ConnectOptions {
        ConnectOptions {
            directory: directory.into(),
            label: "driver".to_owned(),
            timeout: TIMEOUT,
            create_timeout: Config::default().create_timeout,
        }
    }
}

impl Default for ConnectOptions {
    /// The user's shared raylet.
    fn default() -> ConnectOptions {
        ConnectOptions::at(address::base_directory().join(address::DEFAULT_SESSION))
    }
}

/// Descriptors of a greeting to who comes to work: those of the store, and the segment of queues.
const WORKING_DESCRIPTORS: usize = WELCOME_DESCRIPTORS + 1;

/// A client that is in.
pub(crate) struct Joined {
    pub(crate) store: Store,
    pub(crate) job: JobId,
    pub(crate) session_id: String,
    /// Whether the raylet records what ran when.
    pub(crate) has_timeline: bool,
}

/// Who comes to have tasks run, or to run them.
#[derive(Clone, Debug)]
pub(crate) enum Comer {
    /// What its workers are started from.
    Driver(ProgramWish),
    /// Its number, as the raylet gave it.
    Worker(u64),
}

/// What the control line is made of, see [`Line::start`](crate::engine::line::Line::start).
pub(crate) struct LineParts {
    pub(crate) stream: UnixStream,
    /// May have bytes that came behind the greeting.
    pub(crate) decoder: Decoder,
}

/// Goes in for objects alone.
pub(crate) fn join(options: &ConnectOptions) -> Result<Joined, ConnectError> {
    let mut greeting = Greeting::open(options)?;
    let (welcome, fds) = greeting.exchange(hello(&options.label), WELCOME_DESCRIPTORS)?;
    // The greeting lives to the end of this function: until then the admission stands.
    let count = fds.len();
    let fds = <[OwnedFd; WELCOME_DESCRIPTORS]>::try_from(fds);
    let [tables, data, data_read_only] = fds.map_err(|_| unexpected("Welcome", count, WELCOME_DESCRIPTORS))?;
    let task = *TaskId::driver(JobId::new(welcome.job)).as_bytes();
    attach(Segments { tables, data, data_read_only }, welcome, options, Some(task))
}

/// Goes in to work; the connection stays.
pub(crate) fn join_to_work(
    options: &ConnectOptions,
    comer: Comer,
) -> Result<(Joined, LineParts, Segment), ConnectError> {
    let mut greeting = Greeting::open(options)?;
    let mut hello = hello(&options.label);
    let is_driver = matches!(comer, Comer::Driver(_));
    match comer {
        Comer::Driver(program) => (hello.want, hello.program) = (Want::Driver, Some(program)),
        Comer::Worker(number) => (hello.want, hello.worker) = (Want::Worker, Some(number)),
    }
    let (welcome, fds) = greeting.exchange(hello, WORKING_DESCRIPTORS)?;
    let count = fds.len();
    let fds = <[OwnedFd; WORKING_DESCRIPTORS]>::try_from(fds);
    let unexpected = || unexpected("Welcome", count, WORKING_DESCRIPTORS);
    let ([tables, data, data_read_only, queues], Some(layout)) = (fds.map_err(|_| unexpected())?, welcome.tasks) else {
        return Err(unexpected());
    };
    let segment = Segment::open(queues, layout)?;
    // A worker derives ids in the names of what it runs, and until then in a random one.
    let task = is_driver.then(|| *TaskId::driver(JobId::new(welcome.job)).as_bytes());
    let joined = attach(Segments { tables, data, data_read_only }, welcome, options, task)?;
    let Greeting { stream, decoder, .. } = greeting;
    Ok((joined, LineParts { stream, decoder }, segment))
}

fn attach(
    segments: Segments,
    welcome: Welcome,
    options: &ConnectOptions,
    task: Option<[u8; 24]>,
) -> Result<Joined, ConnectError> {
    if welcome.layout_version != LAYOUT_VERSION {
        return Err(ConnectError::Layout { expected: LAYOUT_VERSION, found: welcome.layout_version });
    }
    let job = JobId::new(welcome.job);
    let config = Config {
        label: options.label.clone(),
        spill_directory: welcome.spill_directory.as_deref().map(PathBuf::from),
        create_timeout: options.create_timeout,
        keeping: Keeping::Daemon,
        task,
        ..Config::default()
    };
    let store = Store::attach(segments, client_id(&welcome)?, config)?;
    Ok(Joined { store, job, session_id: welcome.session_id, has_timeline: welcome.timeline })
}

fn client_id(welcome: &Welcome) -> Result<ClientId, ConnectError> {
    let number = u16::try_from(welcome.client_index).ok();
    let generation = u16::try_from(welcome.client_generation).ok();
    match (number, generation) {
        (Some(number), Some(generation)) => Ok(ClientId { number, generation }),
        _ => Err(ConnectError::ClientNumber { index: welcome.client_index, generation: welcome.client_generation }),
    }
}

fn hello(label: &str) -> Hello {
    let process = ProcessId::current();
    Hello {
        protocol_version: u32::from(PROTOCOL_VERSION),
        pid: process.pid,
        start_ticks: process.start_ticks,
        label: label.to_owned(),
        want: Want::Store,
        ..Hello::default()
    }
}

fn unexpected(found: &'static str, descriptors: usize, expected_descriptors: usize) -> ConnectError {
    ConnectError::Unexpected { found, descriptors, expected_descriptors }
}

/// A blocking connection with a deadline.
struct Greeting {
    stream: UnixStream,
    decoder: Decoder,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Greeting {
    fn open(options: &ConnectOptions) -> Result<Greeting, ConnectError> {
        // A time too far away for the clock is no limit.
        let deadline = Instant::now().checked_add(options.timeout);
        let stream = address::connect(&options.directory)?;
        Ok(Greeting { stream, decoder: Decoder::new(), timeout: options.timeout, deadline })
    }

    /// Says hello, and hears what the raylet says to that.
    fn exchange(&mut self, hello: Hello, descriptors: usize) -> Result<(Welcome, Vec<OwnedFd>), ConnectError> {
        self.send(&hello.into())?;
        let (message, fds) = self.receive(descriptors)?;
        match message {
            Message::Welcome(welcome) => Ok((welcome, fds)),
            Message::Error(error) => {
                Err(ConnectError::Refused { code: error.code, text: error.text, numbers: error.numbers })
            }
            other => Err(unexpected(other.name(), fds.len(), descriptors)),
        }
    }

    fn send(&mut self, message: &Message) -> Result<(), ConnectError> {
        let bytes = frame::encode(message)?;
        let left = self.left()?;
        let limited = self.stream.set_write_timeout(left);
        limited.and_then(|()| self.stream.write_all(&bytes)).map_err(|error| self.broken(error))
    }

    /// The next message, and the descriptors that came with it.
    fn receive(&mut self, descriptors: usize) -> Result<(Message, Vec<OwnedFd>), ConnectError> {
        let (mut bytes, mut fds) = ([0; READ_BYTES], Vec::new());
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok((message, fds));
            }
            let left = self.left()?;
            let limited = self.stream.set_read_timeout(left);
            limited.map_err(ConnectError::Io)?;
            let came = recv_fds(self.stream.as_fd(), &mut bytes, descriptors);
            let (count, more) = came.map_err(|error| self.broken(io_error(error)))?;
            if count == 0 {
                return Err(ConnectError::Closed);
            }
            self.decoder.extend(&bytes[..count]);
            fds.extend(more);
        }
    }

    /// What is left of the time; `None` where there is no limit.
    fn left(&self) -> Result<Option<Duration>, ConnectError> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(self.no_answer()),
        }
    }

    fn broken(&self, error: io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.no_answer(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ConnectError::Closed,
            _ => ConnectError::Io(error),
        }
    }

    fn no_answer(&self) -> ConnectError {
        ConnectError::NoAnswer { limit_ms: self.timeout.as_millis() as u64 }
    }
}

fn io_error(error: FdError) -> io::Error {
    error.into()
}
