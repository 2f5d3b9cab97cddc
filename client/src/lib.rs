//! The Rust client of the raylet: objects in shared memory, made and read without asking anyone.
//!
//! ```
//! use raylet_client::{Client, Config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let base = tempfile::tempdir()?;
//! # let base = base.path().to_owned();
//! let driver = Client::embedded(&Config { base, capacity_bytes: 64 << 20, ..Config::embedded() })?;
//! let object = driver.put(b"written once, read in place")?;
//! assert_eq!(&driver.view(&object)?[..7], b"written");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is one process' membership in the store of one raylet. [`Client::connect`] joins a
//! raylet that runs, `Client::embedded` starts one in this process that others can join. Everything
//! about objects is [`Store`]'s, to which a client derefs.
//!
//! # Shapes
//!
//! | what | is |
//! | --- | --- |
//! | session | a directory `<base>/<name>` with the raylet's socket; `<base>` is `$RAYLET_DIR`, else `$XDG_RUNTIME_DIR/raylet-<uid>`, else `/tmp/raylet-<uid>` |
//! | [`JobId`] | 4 bytes: the number the raylet gave this client, from 1, little endian |
//! | [`ObjectId`] | 28 bytes: the driver's task (20 times 0xff, then the [`JobId`]), then which of its puts it is, from 1, little endian |
//! | sizes | bytes |
//! | time limits | [`Duration`](std::time::Duration); of a connect 10 s, of a create 30 s, unless given |
//!
//! So the first put of the first job is always
//! `ffffffffffffffffffffffffffffffffffffffff0100000001000000`. A forked child is a client of its own
//! and derives its ids under a random task.
//!
//! # Errors
//!
//! [`ConnectError`] when joining, with [`ConnectError::NotRunning`] for "nobody is there"; then
//! [`CreateError`] and [`GetError`], whose `RayletGone` says that a call waited for something only
//! the raylet could have done. What a client holds stays readable after the raylet's end.
//!
//! The one thing to know: nothing here decides over objects, and nothing but joining goes over the
//! socket. This crate must not hold state that the store has.

mod connection;
#[cfg(feature = "embedded")]
mod embedded;
mod engine;
mod error;
pub mod role;

pub mod actor;
pub mod binding;
mod local;
pub mod prelude;
pub mod refs;
pub mod remote;
mod scoped;
pub mod stream;
pub mod task;
mod timeline;
pub mod value;
mod worker;

#[doc(hidden)]
#[path = "remote/made.rs"]
pub mod __private;

pub use actor::{Actor, ActorError, ActorHandle, exit_actor};
pub use connection::ConnectOptions;
pub use error::{ConnectError, SegmentOpenError};
#[cfg(feature = "embedded")]
pub use raylet::{Config, StartError};
pub use raylet_api::{JobId, TaskId};
pub use raylet_macros::{Value, remote};
pub use remote::{
    CancelOptions, FetchError, GroupError, InitError, Mode, PlacementGroup, Raylet, Strategy, SubmitError, WaitError,
};
pub use store::{
    CreateError, CreateOptions, Encoding, GetError, Handle, Lifetime, NameError, Object, ObjectId, ObjectRef,
    ObjectWriter, Store, Usage, View,
};
pub use task::{Argument, Options, OptionsError, TaskError, TaskErrorKind, Transport};
pub use timeline::{ProfileEvent, profile_event};
pub use value::{Serde, SerdeValue, Value, ValueError};

use std::fmt;
use std::ops::Deref;

/// A membership in the store of one raylet; ends when it and all objects taken by it are dropped.
pub struct Client {
    // Before the raylet, so that it is dropped first.
    store: Store,
    job: JobId,
    session_id: String,
    #[cfg(feature = "embedded")]
    raylet: Option<raylet::Raylet>,
}

impl Client {
    /// Joins the raylet of a session that runs; blocks until it is in, at most `options.timeout`.
    pub fn connect(options: &ConnectOptions) -> Result<Client, ConnectError> {
        let joined = connection::join(options)?;
        Ok(Client {
            store: joined.store,
            job: joined.job,
            session_id: joined.session_id,
            #[cfg(feature = "embedded")]
            raylet: None,
        })
    }

    /// The store: everything about objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The job that this client is the driver of.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// The task that this client counts as: what it puts is named after it.
    pub fn task(&self) -> TaskId {
        TaskId::driver(self.job)
    }

    /// Names this run of the raylet; no other run has the same.
    pub fn session_id(&self) -> &str {
        &self.session_id
    }
}

impl Deref for Client {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Client");
        debug.field("job", &self.job);
        debug.field("session_id", &self.session_id);
        debug.field("number", &self.store.client().number);
        debug.finish_non_exhaustive()
    }
}
