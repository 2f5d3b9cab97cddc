//! The command line of all benches, and the roles in which they start themselves.
//!
//! The one thing to know: the same executable is also the other process of every two-process row. What
//! is measured stands in the bench's table; this file decides nothing about it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::child::{self, HARNESS_CORE, pin_to_core};
use crate::error::BenchError;
use crate::hogs;
use crate::peers::{futex, grpc, iceoryx2, pipe};
use crate::plan::{Peer, Work, WorkPlan};
use crate::python::Environments;
use crate::report::Report;
use crate::run::{Bench, Effort, PerfRuns, run_work};
use crate::{scratch, store, tasks};

/// Ours beside its peers, measured in one run.
#[derive(Parser)]
struct Cli {
    /// A smoke run: everything once, numbers without meaning.
    #[arg(long)]
    quick: bool,
    /// Only works whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Leave out works whose name contains this; may be given several times.
    #[arg(long)]
    without: Vec<String>,
    /// Leave out peers that are not installed yet.
    #[arg(long)]
    no_install: bool,
    /// Leave out all peers but ours in another setting.
    #[arg(long)]
    alone: bool,
    /// Where the JSON goes; below target/bench of this repository by default.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Keep the rows of an earlier run in the JSON that this one does not measure.
    #[arg(long)]
    update: bool,
    /// The interpreter that has our package; that of this repository's .venv by default.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Runs of each row of ray_perf.py, a row being the median of them.
    #[arg(long, default_value_t = 1)]
    perf_rounds: usize,
    /// Seconds that ray_perf.py sleeps before each row; a smoke run has none.
    #[arg(long, default_value_t = 10.0)]
    warm_up: f64,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the harness starts itself as.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    FutexEcho {
        #[arg(long)]
        pages: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    PipeEcho {
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    Iceoryx2Echo {
        #[arg(long)]
        pattern: String,
        #[arg(long)]
        root: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    GrpcEcho {
        #[arg(long)]
        socket: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    Hog {
        #[arg(long)]
        pages: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// A client of the harness's store.
    #[command(hide = true)]
    Ours {
        #[arg(long)]
        role: String,
        #[command(flatten)]
        place: Place,
    },
    /// Another program, which ends with the harness.
    #[command(hide = true)]
    Run {
        #[arg(long)]
        parent: u32,
        /// After so many seconds the kernel ends it.
        #[arg(long)]
        seconds: Option<u32>,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// A driver with a raylet of its own.
    #[command(hide = true)]
    Driver {
        #[arg(long)]
        role: String,
        #[arg(long)]
        parent: u32,
    },
}

/// Where a role runs and with whom it ends.
#[derive(Args)]
struct Place {
    #[arg(long)]
    core: usize,
    #[arg(long)]
    parent: u32,
}

impl Role {
    fn run(&self) -> Result<(), BenchError> {
        match self {
            Self::FutexEcho { pages, place } => futex::echo(pages, place.core, place.parent),
            Self::PipeEcho { place } => pipe::echo(place.core, place.parent),
            Self::Iceoryx2Echo { pattern, root, place } => iceoryx2::echo(pattern, root, place.core, place.parent),
            Self::GrpcEcho { socket, place } => grpc::echo(socket, place.core, place.parent),
            Self::Hog { pages, place } => hogs::hog(pages, place.core, place.parent),
            Self::Ours { role, place } => store::role(role, place.core, place.parent),
            Self::Run { parent, seconds, command } => child::become_other(command, *seconds, *parent),
            Self::Driver { role, parent } => tasks::role(role, *parent),
        }
    }
}

/// A bench of this table, or the role that it starts itself in; `name` is its result's.
pub fn main<W: Work>(name: &str, works: &[WorkPlan<W>]) -> ExitCode {
    let cli = Cli::parse();
    let done = cli.role.as_ref().map_or_else(|| cli.bench(name, works), Role::run);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The repository, wherever the executable was started.
fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

impl Cli {
    fn bench<W: Work>(&self, name: &str, works: &[WorkPlan<W>]) -> Result<(), BenchError> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(BenchError::system("a signal handler"))?;
        }
        scratch::sweep();
        pin_to_core(HARNESS_CORE);
        let effort = if self.quick { Effort::QUICK } else { Effort::FULL };
        let bench = Bench::new(effort, self.perf_runs(), self.environments(), interrupted);
        let output = self.output.clone().unwrap_or_else(|| repository().join(format!("target/bench/{name}.json")));
        let mut report = if self.update { Report::read(&output) } else { Report::default() };
        for plan in works.iter().filter(|plan| self.wants(plan.name)) {
            let peers = plan.peers.iter().copied();
            let peers: Vec<Peer> = peers.filter(|peer| !self.alone || *peer == Peer::Itself).collect();
            run_work(plan, &peers, &bench, &mut report)?;
            W::conclude(&mut report);
            // Each time, so that a run that is ended leaves what it has.
            report.write(&output)?;
        }
        println!("{}", report.table());
        Ok(())
    }

    fn environments(&self) -> Environments {
        let ours = self.python.clone().unwrap_or_else(|| repository().join(".venv/bin/python"));
        Environments::new(repository().join(".venv-bench"), ours, !self.no_install)
    }

    fn perf_runs(&self) -> PerfRuns {
        PerfRuns { rounds: self.perf_rounds, warm_up_seconds: if self.quick { 0.0 } else { self.warm_up } }
    }

    fn wants(&self, work: &str) -> bool {
        self.only.as_ref().is_none_or(|only| work.contains(only.as_str()))
            && !self.without.iter().any(|without| work.contains(without.as_str()))
    }
}
