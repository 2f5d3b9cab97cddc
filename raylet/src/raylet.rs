//! A running raylet: session, store, door and socket put together, and taken apart in order.
//!
//! The one thing to know: this is a value of a library. It installs no signal handler, writes to no
//! standard stream and can run inside another program. It must not know the command line.

use crate::door::{Door, DoorError, DoorState};
use crate::metrics;
use crate::pool::{Kindled, Program};
use crate::schedule::{Desk, Gate, QueuesError, Scheduler, Setup};
use crate::server::{self, Listening, Shared};
use crate::session::{Session, SessionError};
use raylet_api::{JobId, ProgramWish, TaskId, address};
use raylet_core::Resources;
use raylet_core::resources::BadResources;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use store::{Keeping, OpenError, Segments, Store};
use tokio::sync::Notify;

/// What a raylet is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of all sessions.
    pub base: PathBuf,
    /// The session's name.
    pub session: String,
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Clients there may be at once, besides the raylet itself; at most [`MAX_CLIENTS_LIMIT`].
    pub max_clients: u32,
    /// The process that starts the raylet is a driver: the raylet's own connection to the store is
    /// the driver's, and has the first job.
    pub is_driver: bool,
    /// Where the spill directory is made; `None` lets the session choose.
    pub spill_parent: Option<PathBuf>,
    /// What tasks and actors may have of the machine.
    pub resources: Resources,
    /// Limits and spans of the scheduler, among them how many workers there may be.
    pub scheduler: raylet_core::Config,
    /// Serve metrics on this port of 127.0.0.1; 0 takes a free one.
    pub metrics_port: Option<u16>,
    /// Remember what runs when; `RAYLET_TIMELINE=1` in the environment of this process as well.
    pub timeline: bool,
    /// What the first driver's workers will be started from, where that is known and it names its executable: their
    /// zygote then starts first of all, and not when the driver joins.
    pub first_program: Option<ProgramWish>,
}

impl Default for Config {
    fn default() -> Config {
        let capacity_bytes = crate::machine::default_capacity_bytes();
        Config {
            base: address::base_directory(),
            session: address::DEFAULT_SESSION.to_owned(),
            capacity_bytes,
            max_clients: DEFAULT_MAX_CLIENTS,
            is_driver: false,
            spill_parent: None,
            resources: crate::machine::default_resources(capacity_bytes),
            scheduler: raylet_core::Config::default(),
            metrics_port: None,
            timeline: std::env::var("RAYLET_TIMELINE").is_ok_and(|value| value == "1" || value == "true"),
            first_program: None,
        }
    }
}

impl Config {
    /// For a raylet inside a driver's process: a session that nobody else means by chance.
    pub fn embedded() -> Config {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Config { session: format!("driver-{}-{count}", std::process::id()), is_driver: true, ..Config::default() }
    }
}

/// The job of the driver in whose process a raylet runs.
pub const FIRST_JOB: JobId = JobId::new(1);
/// Clients at once where nobody says otherwise.
pub const DEFAULT_MAX_CLIENTS: u32 = 4096;
/// The most there can be: number 0 is nobody's, and the raylet itself has one.
pub const MAX_CLIENTS_LIMIT: u32 = store::CLIENTS_MAX as u32 - 2;

/// Why a raylet did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The session cannot be had.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The door cannot be made.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The store cannot be made.
    #[error("the store cannot be made")]
    Store {
        /// The store's word.
        #[from]
        source: OpenError,
    },
    /// The socket cannot be bound or served.
    #[error("the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The queues of tasks cannot be made.
    #[error("the queues of tasks cannot be made")]
    Queues {
        /// What went wrong.
        #[from]
        source: QueuesError,
    },
    /// A machine cannot have so much of something.
    #[error("the machine's resources")]
    Resources {
        /// What cannot be.
        #[from]
        source: BadResources,
    },
    /// The port for metrics cannot be had.
    #[error("port {port} of 127.0.0.1 for metrics")]
    Metrics {
        /// The port, as it was asked for.
        port: u16,
        /// The system's word.
        source: io::Error,
    },
    /// Files for what workers write cannot be made.
    #[error("the directory for what workers write, {}", path.display())]
    Logs {
        /// The directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started")]
    Thread {
        /// The system's word.
        source: io::Error,
    },
}

/// The zygote of a program that names its executable. One that cannot be had now is started when it is asked for.
fn first_zygote(wish: &ProgramWish) -> Option<Kindled> {
    let executable = PathBuf::from(wish.executable.as_ref()?);
    let kindled = Kindled::start(&Program::wished(wish, executable));
    kindled.inspect_err(|error| tracing::warn!(%error, "the first zygote does not start early")).ok()
}

/// A raylet that serves. Dropping it ends it and waits.
pub struct Raylet {
    socket_thread: Option<JoinHandle<io::Result<()>>>,
    store: Store,
    job_count: Arc<AtomicU32>,
    end: Arc<Notify>,
    door: Arc<Door>,
    // Last, so that it is dropped last: the session's lock covers all of the above.
    session: Session,
}

/// Ends a raylet from anywhere, any number of times.
#[derive(Clone, Debug)]
pub struct Ender(Arc<Notify>);

impl Ender {
    /// Asks the raylet to end; returns at once.
    pub fn end(&self) {
        self.0.notify_one();
    }
}

impl Raylet {
    /// Takes the session, makes the store, whose own threads keep it, and serves.
    pub fn start(config: &Config) -> Result<Raylet, StartError> {
        let first_zygote = config.first_program.as_ref().and_then(first_zygote);
        let spill_parent = config.spill_parent.as_deref();
        let session = Session::acquire(&config.base, &config.session, spill_parent)?;
        let (gate, dead) = Gate::new();
        let gate = Arc::new(gate);
        let store = make_store(config, &session, gate.clone())?;
        let door = Door::create(&session.record().door, session.id(), store.geometry().capacity_bytes)?;
        let segments = store.segments()?;
        let listener = bind(&session.socket_path())?;
        let directory = session.directory().to_str().expect("a session has text for a path").to_owned();
        let scheduler = Scheduler::new(Setup { config, store: store.clone(), gate, dead, directory, first_zygote })?;
        let metrics = config.metrics_port.map(bind_metrics).transpose()?;
        // From here on the drop of `raylet` ends what runs.
        let mut raylet = Raylet {
            socket_thread: None,
            store,
            job_count: Arc::new(AtomicU32::new(u32::from(config.is_driver))),
            end: Arc::new(Notify::new()),
            door: Arc::new(door),
            session,
        };
        let listening = Listening { socket: listener, metrics };
        raylet.serve(config, listening, segments, scheduler)?;
        Ok(raylet)
    }

    /// The raylet's own connection to its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The socket.
    pub fn socket_path(&self) -> PathBuf {
        self.session.socket_path()
    }

    /// A way to end it.
    pub fn ender(&self) -> Ender {
        Ender(self.end.clone())
    }

    /// Waits until somebody ends it, then takes everything down.
    pub fn wait(mut self) -> Result<(), StartError> {
        let path = self.socket_path();
        match self.join_socket() {
            Some(Err(source)) => Err(StartError::Socket { path, source }),
            _ => Ok(()),
        }
    }

    fn serve(
        &mut self,
        config: &Config,
        listening: Listening,
        segments: Segments,
        (scheduler, desk): (Scheduler, Desk),
    ) -> Result<(), StartError> {
        let record = self.session.record();
        let spill_directory = record.spill_directory.to_str();
        let shared = Arc::new(Shared {
            store: self.store.clone(),
            segments,
            door: self.door.clone(),
            desk,
            session: self.session.name().to_owned(),
            session_id: record.session_id.clone(),
            spill_directory: spill_directory.expect("a session has text for a path").to_owned(),
            started: Instant::now(),
            connection_count: AtomicU64::new(0),
            job_count: self.job_count.clone(),
            end: self.end.clone(),
            metrics_port: listening.metrics.as_ref().map(|(_, port)| *port),
            timeline: config.timeline,
        });
        let thread = std::thread::Builder::new().name("raylet-socket".to_owned());
        let thread = thread.spawn(move || server::run(listening, shared, scheduler));
        self.socket_thread = Some(thread.map_err(|source| StartError::Thread { source })?);
        Ok(())
    }

    fn join_socket(&mut self) -> Option<io::Result<()>> {
        // A panic on that thread has aborted the process already.
        self.socket_thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for Raylet {
    fn drop(&mut self) {
        // A forked child has this value but none of the threads.
        if self.session.record().pid != std::process::id() {
            return;
        }
        self.door.set_state(DoorState::Ending);
        self.end.notify_one();
        let _ = self.join_socket();
        // Clients that wait in shared memory hear of it; what they hold stays theirs.
        self.store.stop_keeping();
    }
}

/// The store of a session, kept by threads of this process.
fn make_store(config: &Config, session: &Session, gate: Arc<Gate>) -> Result<Store, OpenError> {
    let max_clients = config.max_clients.clamp(1, MAX_CLIENTS_LIMIT);
    Store::in_process(store::Config {
        capacity_bytes: config.capacity_bytes,
        max_clients: u64::from(max_clients) + 2,
        label: if config.is_driver { "driver" } else { "raylet" }.to_owned(),
        task: config.is_driver.then(|| *TaskId::driver(FIRST_JOB).as_bytes()),
        spill_directory: Some(session.spill_directory().to_owned()),
        keeping: Keeping::Threads,
        gate: Some(gate),
        ..store::Config::default()
    })
}

fn bind_metrics(port: u16) -> Result<(std::net::TcpListener, u16), StartError> {
    metrics::bind(port).map_err(|source| StartError::Metrics { port, source })
}

/// Binds the socket, however long its path. The session's directory keeps others out.
fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let bound = address::with_short_path(path, |path| UnixListener::bind(path));
    let bound = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|source| StartError::Socket { path: path.to_owned(), source })
}
