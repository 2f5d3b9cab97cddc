//! How a program joins or starts a raylet.
//!
//! The one thing to know: the default works everywhere: it joins the raylet that the environment or
//! the user's default session names, else starts one that ends with the program. What only a raylet
//! that is started can be told is ignored where one is joined. This file must not start anything.

use crate::binding::{Printer, Program};
use crate::task::Transport;
use std::path::PathBuf;

/// Where tasks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// On workers, which a raylet starts.
    #[default]
    Raylet,
    /// In the calling thread, one after the other, each before its `remote` returns: for tests, and
    /// for finding errors with a debugger. Objects are in shared memory as always.
    Local,
}

/// How a program joins or starts a raylet.
///
/// | field | without it |
/// | --- | --- |
/// | `address` | `$RAY_ADDRESS`; else the user's default session where a raylet runs in it; else one is started |
/// | `transport` | `$RAY_FORCE_DIRECT` (1 is direct, 0 is through the raylet); else direct |
/// | `namespace` | each job has its own |
#[derive(Clone, Debug)]
pub struct Config {
    /// Where tasks run.
    pub mode: Mode,
    /// Whom to join: `"auto"` (the user's default session), a session's name, or its directory; nothing
    /// is started then. `"local"` always starts one.
    pub address: Option<String>,
    /// How tasks get to workers unless a call says.
    pub transport: Option<Transport>,
    /// Which names of actors are meant.
    pub namespace: Option<String>,
    /// Whether what workers write is written to this process' standard streams.
    pub log_to_driver: bool,
    /// Who writes it there.
    pub printer: Printer,
    /// Bytes of objects that fit into memory; of a raylet that is started, as are all below. 0 is what
    /// suits the machine.
    pub capacity_bytes: u64,
    /// Where objects go when memory is full; `None`: where the raylet likes, and in local mode nowhere.
    pub spill_directory: Option<PathBuf>,
    /// CPUs that tasks may have; `None`: those of this machine.
    pub num_cpus: Option<f64>,
    /// GPUs that tasks may have; `None`: those of this machine.
    pub num_gpus: Option<f64>,
    /// Bytes of memory that tasks may ask for; `None`: those of this machine.
    pub memory_bytes: Option<u64>,
    /// Further resources by name.
    pub resources: Vec<(String, f64)>,
    /// Workers at once, whatever they do.
    pub workers_max: Option<u32>,
    /// Whether it records what ran when.
    pub timeline: bool,
    /// What it is started from; `None`: this executable.
    pub raylet_program: Option<Program>,
    /// What workers are started from, also where a raylet is joined; `None`: this executable.
    pub worker_program: Option<Program>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::default(),
            address: None,
            transport: None,
            namespace: None,
            log_to_driver: true,
            printer: Printer::default(),
            capacity_bytes: 0,
            spill_directory: None,
            num_cpus: None,
            num_gpus: None,
            memory_bytes: None,
            resources: Vec::new(),
            workers_max: None,
            timeline: false,
            raylet_program: None,
            worker_program: None,
        }
    }
}
