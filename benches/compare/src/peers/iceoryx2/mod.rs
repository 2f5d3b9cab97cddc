//! iceoryx2 between two pinned, spinning processes: publish-subscribe and request-response.
//!
//! The one thing to know: the other end spins, so it is stopped while it is not its contender's turn.
//! Its files live under a prefix and a directory of this run, and what a killed process leaves there
//! is cleaned up at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use iceoryx2::prelude::{
    Config, FileName, LogLevel, Node, NodeBuilder, SemanticString, ServiceName, SignalHandlingMode, ipc, set_log_level,
};
use tempfile::TempDir;

use crate::child::{OTHER_CORE, OwnedChild};
use crate::error::BenchError;
use crate::scratch;

pub mod publish_subscribe;
pub mod request_response;

/// How long a spinning end waits before it gives the other up.
const SILENCE: Duration = Duration::from_secs(10);
/// Empty looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 1 << 16;

/// The other process and the directory of both.
struct Side {
    other: OwnedChild,
    directory: TempDir,
}

impl Side {
    /// Starts the other process, which speaks a pattern of communication.
    fn start(pattern: &str) -> Result<Self, BenchError> {
        let directory = scratch::on_disk()?;
        let root = directory.path().display().to_string();
        let core = OTHER_CORE.to_string();
        let role = ["iceoryx2-echo", "--pattern", pattern, "--root", &root, "--core", &core];
        Ok(Self { other: OwnedChild::start_role(&role)?, directory })
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Stops the other process until somebody needs it.
    fn rest(&self) {
        self.other.pause();
    }

    /// Does something with the other process awake.
    fn awake<T>(&self, run: impl FnOnce() -> T) -> T {
        self.other.resume();
        let result = run();
        self.other.pause();
        result
    }

    /// Asks the other process to end, which removes its own files; then removes what is left.
    fn end(&mut self, ask: impl FnOnce() -> Result<(), BenchError>, node: &Node<ipc::Service>) {
        self.other.resume();
        // One that has ended already hears nothing, and need not.
        let _ = ask();
        let start = Instant::now();
        while !self.other.has_ended() && start.elapsed() < SILENCE {
            std::thread::yield_now();
        }
        node.blocking_cleanup_dead_nodes(Duration::from_secs(1));
        // Its bookkeeping in shared memory outlives its nodes; the name is this run's alone.
        scratch::remove_shared(&run_name(self.directory.path()));
    }
}

/// Looks until there is something or patience has run out.
fn hear_within<T>(
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>, BenchError>,
) -> Result<Option<T>, BenchError> {
    let mut start = None;
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if let Some(heard) = look()? {
                return Ok(Some(heard));
            }
        }
        if start.get_or_insert_with(Instant::now).elapsed() > patience {
            return Ok(None);
        }
    }
}

fn open_node(root: &Path) -> Result<Node<ipc::Service>, BenchError> {
    set_log_level(LogLevel::Fatal);
    NodeBuilder::new()
        .config(&private_config(root)?)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<ipc::Service>()
        .map_err(refused("a node"))
}

/// Everything under a directory and a prefix of this run.
fn private_config(root: &Path) -> Result<Config, BenchError> {
    let mut config = Config::default();
    let path = iceoryx2::prelude::Path::new(root.as_os_str().as_encoded_bytes());
    config.global.set_root_path(&path.map_err(refused("its directory"))?);
    config.global.prefix = FileName::new(run_name(root).as_bytes()).map_err(refused("its prefix"))?;
    Ok(config)
}

fn run_name(root: &Path) -> String {
    root.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn service_name(name: &str) -> Result<ServiceName, BenchError> {
    name.try_into().map_err(refused("a service's name"))
}

fn refused<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> BenchError {
    move |error| BenchError::Iceoryx2 { step, source: Box::new(error) }
}

/// The other end; ends when asked to, or with the harness.
pub fn echo(pattern: &str, root: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    match pattern {
        "publish-subscribe" => publish_subscribe::echo(root, core, parent),
        "request-response" => request_response::echo(root, core, parent),
        _ => Err(BenchError::UnknownRole { role: pattern.to_owned() }),
    }
}
