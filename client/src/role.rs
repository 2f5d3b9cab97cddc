//! What this executable is besides its `main`: a zygote, a worker, a raylet.
//!
//! The one thing to know: before `main` a constructor looks at the variable `RAYLET_ROLE`. The raylet
//! starts the user's own executable with it, so workers know every function that is linked in,
//! whether the executable is a program, a test, a bench or an example. Without the variable the
//! constructor does nothing. This file must not decide what a worker does.
//!
//! Standard input is then the socket to whoever started the process; all other descriptors but the
//! standard streams are closed, and the variable is gone, so what user code starts is itself again.

mod worker;
mod zygote;

#[cfg(feature = "embedded")]
pub use raylet::pool::child::{ChildError, RayletChild};
pub use raylet_api::zygote::WorkerSpec;
pub use worker::{Worker, WorkerMain, set_worker_main};

use raylet_api::zygote::{LATER_VARIABLE, ROLE_RAYLET, ROLE_VARIABLE, ROLE_ZYGOTE};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use store_shm::process::{Fresh, PANICKED, call_fresh};

/// What a role exits with that was started by something else than a raylet.
pub(crate) const EXIT_MISUSED: i32 = 64;

static HAS_RUN: AtomicBool = AtomicBool::new(false);

store_shm::before_main!(choose);

/// Whether the constructor ran in this process, so that a copy of it can take a role. A build that
/// leaves the constructor out would run its `main` again instead.
pub fn is_available() -> bool {
    HAS_RUN.load(Ordering::Relaxed)
}

/// Starts a raylet as a child of this process, by this executable: it ends with this process, whatever
/// becomes of the calling thread, and takes all that it started along.
///
/// This process joins it by [`ConnectOptions::at`](crate::ConnectOptions::at) its session's directory.
#[cfg(feature = "embedded")]
pub fn start_raylet(config: &raylet::Config) -> Result<RayletChild, StartRayletError> {
    start_raylet_by(&raylet::pool::Program::own(), config)
}

/// The same, by another executable that knows the role.
#[cfg(feature = "embedded")]
pub(crate) fn start_raylet_by(
    program: &raylet::pool::Program,
    config: &raylet::Config,
) -> Result<RayletChild, StartRayletError> {
    match is_available() {
        true => Ok(RayletChild::start(program, config)?),
        false => Err(StartRayletError::NoConstructor { pid: std::process::id() }),
    }
}

/// Why a driver has no raylet of its own.
#[cfg(feature = "embedded")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartRayletError {
    /// A copy of this executable would run its `main` and not be a raylet.
    #[error("the constructor of raylet-client did not run in process {pid}: the linker has left it out")]
    NoConstructor {
        /// This process.
        pid: u32,
    },
    /// The child did not become a raylet.
    #[error(transparent)]
    Child(#[from] ChildError),
}

/// What an interpreter does around a fork of its process, and as a worker.
#[derive(Clone, Copy, Debug)]
pub struct ForkHooks {
    /// Before the fork.
    pub before: fn(),
    /// After it, in the zygote.
    pub after_in_parent: fn(),
    /// After it, in the worker.
    pub after_in_child: fn(),
    /// Once the zygote has had nothing to do for a while: a step of what its workers may need later, a short one, as
    /// forks wait meanwhile. Whether there are more.
    pub idle: fn() -> bool,
    /// The life of a worker; its result is the exit code. It is to call [`work`](crate::binding::work).
    pub work: fn(&WorkerSpec) -> i32,
}

static FORK_HOOKS: OnceLock<ForkHooks> = OnceLock::new();

/// The hooks of an interpreter, where this process is one.
pub(crate) fn fork_hooks() -> Option<&'static ForkHooks> {
    FORK_HOOKS.get()
}

/// Takes the role of this process, which did not take it before its `main`; returns where there is none.
///
/// For an interpreter's first line: nobody else may own a descriptor, or have a thread.
pub fn take_role(hooks: ForkHooks) {
    let _ = FORK_HOOKS.set(hooks);
    call_fresh(take);
}

/// Whoever takes the role later says so.
fn choose(fresh: Fresh) {
    HAS_RUN.store(true, Ordering::Relaxed);
    if std::env::var_os(LATER_VARIABLE).is_none() {
        take(fresh);
    }
}

/// Takes the role that the variable names; returns where there is none.
fn take(fresh: Fresh) {
    fresh.take_variable(LATER_VARIABLE);
    let Some(role) = fresh.take_variable(ROLE_VARIABLE) else { return };
    let run: fn(OwnedFd) -> i32 = match role.to_str() {
        Some(ROLE_ZYGOTE) => zygote::run,
        #[cfg(feature = "embedded")]
        Some(ROLE_RAYLET) => raylet::pool::child::run,
        _ => refuse(&format!("{ROLE_VARIABLE}={role:?} is no role of this executable ({ROLE_ZYGOTE}, {ROLE_RAYLET})")),
    };
    let code = match fresh.take_standard_input() {
        Ok(socket) => catch_unwind(AssertUnwindSafe(|| run(socket))).unwrap_or(PANICKED),
        Err(error) => refuse(&format!("{role:?} has no socket for standard input: {error}")),
    };
    std::process::exit(code)
}

/// Running `main` instead would do the user's work twice.
fn refuse(why: &str) -> ! {
    eprintln!("raylet: {why}");
    std::process::exit(EXIT_MISUSED)
}
