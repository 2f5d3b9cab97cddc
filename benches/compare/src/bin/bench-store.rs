//! `bench-store`: the store's rows, printed and written to `target/bench/store.json`.
//!
//! The one thing to know: the same executable is also the other process of the two-process rows, in
//! roles that the harness asks for. It decides nothing about what is measured.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use benches_compare::child::{HARNESS_CORE, pin_to_core};
use benches_compare::error::BenchError;
use benches_compare::ours;
use benches_compare::peers::{iceoryx2, limits};
use benches_compare::report::Report;
use benches_compare::run::{Bench, Effort, run_work};
use benches_compare::scratch;
use benches_compare::work::{Peer, STORE_WORKS};
use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The store beside its peers, measured in one run.
#[derive(Parser)]
struct Cli {
    /// A smoke run: everything once, numbers without meaning.
    #[arg(long)]
    quick: bool,
    /// Only works whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Leave out peers that are not installed yet.
    #[arg(long)]
    no_install: bool,
    /// Leave out all peers but ours in another setting.
    #[arg(long)]
    alone: bool,
    /// Where the JSON goes; target/bench/store.json of this repository by default.
    #[arg(long)]
    output: Option<PathBuf>,
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
    Iceoryx2Echo {
        #[arg(long)]
        root: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    Ours {
        #[arg(long)]
        role: String,
        #[command(flatten)]
        place: Place,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.role {
        Some(Role::FutexEcho { pages, place }) => limits::futex_echo(&pages, place.core, place.parent),
        Some(Role::Iceoryx2Echo { root, place }) => iceoryx2::echo(&root, place.core, place.parent),
        Some(Role::Ours { role, place }) => ours::role(&role, place.core, place.parent),
        None => bench(&cli),
    };
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

fn bench(cli: &Cli) -> Result<(), BenchError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(BenchError::system("a signal handler"))?;
    }
    scratch::sweep();
    pin_to_core(HARNESS_CORE);
    let effort = if cli.quick { Effort::QUICK } else { Effort::FULL };
    let bench = Bench::new(effort, repository().join(".venv-bench"), !cli.no_install, interrupted);
    let mut report = Report::default();
    let wanted = |name: &str| cli.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for plan in STORE_WORKS.iter().filter(|plan| wanted(plan.name)) {
        let peers = plan.peers.iter().copied();
        let peers: Vec<Peer> = peers.filter(|peer| !cli.alone || *peer == Peer::Itself).collect();
        run_work(plan, &peers, &bench, &mut report)?;
    }
    println!("{}", report.table());
    let output = cli.output.clone().unwrap_or_else(|| repository().join("target/bench/store.json"));
    report.write(&output)
}
