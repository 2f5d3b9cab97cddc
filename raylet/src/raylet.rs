//! A running raylet: session, door, keeper and socket put together, and taken apart in order.
//!
//! The one thing to know: this is a value of a library. It installs no signal handler, writes to no
//! standard stream and can run inside another program. It must not know the command line.

use crate::door::{Door, DoorError, DoorState};
use crate::keeper::{KeeperHandle, ObjectKeeper, Request};
use crate::server::{self, Shared};
use crate::session::{Session, SessionError};
use raylet_api::address;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Instant;
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
    /// Rows of the client table.
    pub max_clients: u32,
    /// Where the spill directory is made; `None` lets the session choose.
    pub spill_parent: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            base: address::base_directory(),
            session: address::DEFAULT_SESSION.to_owned(),
            capacity_bytes: crate::machine::default_capacity_bytes(),
            max_clients: DEFAULT_MAX_CLIENTS,
            spill_parent: None,
        }
    }
}

/// Rows of the client table where nobody says otherwise.
pub const DEFAULT_MAX_CLIENTS: u32 = 1024;

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
    Keeper {
        /// The store's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket cannot be bound or served.
    #[error("the socket {}", path.display())]
    Socket {
        /// The socket.
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

/// A raylet that serves. Dropping it ends it and waits.
pub struct Raylet {
    socket_thread: Option<JoinHandle<io::Result<()>>>,
    keeper_thread: Option<JoinHandle<()>>,
    keeper: KeeperHandle,
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
    /// Takes the session, makes the store with `make_keeper` and serves.
    pub fn start(
        config: &Config,
        make_keeper: impl FnOnce(&Config, &Session) -> Result<Arc<dyn ObjectKeeper>, KeeperFailure>,
    ) -> Result<Raylet, StartError> {
        let spill_parent = config.spill_parent.as_deref();
        let session = Session::acquire(&config.base, &config.session, spill_parent)?;
        let keeper = make_keeper(config, &session);
        let keeper = keeper.map_err(|source| StartError::Keeper { source })?;
        let capacity_bytes = keeper.facts().capacity_bytes;
        let door = Arc::new(Door::create(
            &session.record().door,
            session.id(),
            capacity_bytes,
        )?);
        let listener = bind(&session.socket_path())?;
        let (keeper, keeper_thread) =
            KeeperHandle::spawn(keeper).map_err(|source| StartError::Thread { source })?;
        let end = Arc::new(Notify::new());
        // From here on the drop of `raylet` ends what runs.
        let mut raylet = Raylet {
            socket_thread: None,
            keeper_thread: Some(keeper_thread),
            keeper,
            end,
            door,
            session,
        };
        raylet.serve(listener)?;
        Ok(raylet)
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

    fn serve(&mut self, listener: UnixListener) -> Result<(), StartError> {
        let record = self.session.record();
        let shared = Arc::new(Shared {
            keeper: self.keeper.clone(),
            door: self.door.clone(),
            session: self.session.name().to_owned(),
            session_id: record.session_id.clone(),
            spill_directory: record.spill_directory.to_str().map(str::to_owned),
            started: Instant::now(),
            connection_count: AtomicU64::new(0),
            end: self.end.clone(),
        });
        let thread = std::thread::Builder::new().name("raylet-socket".to_owned());
        let thread = thread.spawn(move || server::run(listener, shared));
        self.socket_thread = Some(thread.map_err(|source| StartError::Thread { source })?);
        Ok(())
    }

    fn join_socket(&mut self) -> Option<io::Result<()>> {
        // A panic on that thread has aborted the process already.
        self.socket_thread
            .take()
            .and_then(|thread| thread.join().ok())
    }
}

/// Why a store could not be made.
pub type KeeperFailure = Box<dyn std::error::Error + Send + Sync>;

impl Drop for Raylet {
    fn drop(&mut self) {
        // A forked child has this value but none of the threads.
        if self.session.record().pid != std::process::id() {
            return;
        }
        self.door.set_state(DoorState::Ending);
        self.end.notify_one();
        let _ = self.join_socket();
        // Nobody asks the keeper any more; it tells those who wait in shared memory, and ends.
        self.keeper.request(Request::End);
        if let Some(thread) = self.keeper_thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds the socket, however long its path. The session's directory keeps others out.
fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let bound = address::with_short_path(path, |path| UnixListener::bind(path));
    let bound = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|source| StartError::Socket {
        path: path.to_owned(),
        source,
    })
}
