//! The command line: what a person types, and what the shell gets back.
//!
//! The one thing to know: each command is a function from its options to an outcome; this file alone
//! prints errors and chooses the exit code. It must not hold a command's work.

mod bytes;
mod doctor;
mod list;
mod logs;
mod look;
mod memory;
mod pages;
mod resources;
mod start;
mod status;
mod stop;
mod summary;
mod table;
mod timeline;

pub use look::look;

use crate::ask::AskError;
use crate::raylet::StartError;
use crate::session::SessionError;
use clap::{Args, Parser, Subcommand, ValueEnum};
use raylet_api::address::{self, AddressError};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

/// The exit codes, as `--help` shows them.
const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  no raylet runs in the session
  4  a raylet already runs in the session
  5  the raylet runs and does not answer, or does not end
  6  doctor found something that will not work

Environment:
  RAYLET_DIR       directory of all sessions (else $XDG_RUNTIME_DIR/raylet-<uid>, else /tmp/raylet-<uid>)
  RAYLET_TIMELINE  1: as start --timeline
  RUST_LOG         what the raylet logs, for example debug";

#[derive(Debug, Parser)]
#[command(name = "raylet", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a raylet and return when it serves; prints the path of its socket
    Start(start::Options),
    /// End the raylet and wait until nothing of it is left
    Stop(stop::Options),
    /// Say how the raylet and its store are
    Status(status::Options),
    /// List tasks, actors, objects, workers or placement groups
    List(list::Options),
    /// Count tasks, actors or objects by name and state
    Summary(summary::Options),
    /// Say which objects there are and who holds them
    Memory(memory::Options),
    /// Print what workers wrote
    Logs(logs::Options),
    /// Write what ran when as a Chrome trace, which Perfetto opens
    Timeline(timeline::Options),
    /// Look for what would make a raylet slow or fail here; sweeps what dead raylets left
    Doctor(doctor::Options),
}

/// Which session is meant.
#[derive(Clone, Debug, Args)]
struct SessionOptions {
    /// The session: raylets of different sessions know nothing of each other
    #[arg(long, value_name = "NAME", default_value = address::DEFAULT_SESSION)]
    session: String,
}

impl SessionOptions {
    fn directory(&self) -> Result<PathBuf, AddressError> {
        address::session_directory(&address::base_directory(), &self.session)
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    #[value(alias = "text")]
    Table,
    /// For programs
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the raylet (pid {pid}) did not end within {limit_ms} ms; --force kills it")]
    StillRunning { pid: u32, limit_ms: u64 },
    #[error("this machine will not do: {bad_count} of {count} checks failed")]
    Unhealthy { bad_count: usize, count: usize },
    /// The background process has said why itself.
    #[error("the raylet in the background did not start")]
    NotStarted { exit_code: u8 },
    #[error("{what} have no field {field:?}; there are {known}")]
    NoSuchField { field: String, what: &'static str, known: String },
    #[error("no worker has the number or pid {wanted}, or it has written nothing; {known} have written something")]
    NoSuchWorker { wanted: u64, known: usize },
    #[error("no actor that has a worker is called {name:?}")]
    NoSuchActor { name: String },
    #[error("no timeline is kept: start the raylet with --timeline")]
    NoTimeline,
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Session(error) | CliError::Start(StartError::Session(error)) => session_exit_code(error),
            CliError::Address(AddressError::NotRunning { .. }) => 3,
            CliError::Ask(AskError::Address(AddressError::NotRunning { .. })) => 3,
            CliError::Ask(AskError::NoAnswer { .. }) | CliError::StillRunning { .. } => 5,
            CliError::NoSuchField { .. } => 2,
            CliError::Unhealthy { .. } => 6,
            CliError::NotStarted { exit_code } => *exit_code,
            _ => 1,
        }
    }
}

fn session_exit_code(error: &SessionError) -> u8 {
    match error {
        SessionError::AlreadyRunning { .. } => 4,
        SessionError::Address(AddressError::BadSessionName { .. }) => 2,
        _ => 1,
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// What starts this command line once more: the executable, and what comes before a command. Only the
/// first call counts, and without one it is this process' executable.
pub fn set_own_command(words: Vec<OsString>) {
    let _ = OWN_COMMAND.set(words);
}

static OWN_COMMAND: OnceLock<Vec<OsString>> = OnceLock::new();

/// Runs a command line, whose first word is what the command is called; its exit code.
pub fn run(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to the one stream, errors to the other; nobody may be listening.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    log_to_stderr();
    let outcome = match cli.command {
        Command::Start(options) => start::run(&options),
        Command::Stop(options) => stop::run(&options),
        Command::Status(options) => status::run(&options),
        Command::List(options) => list::run(&options),
        Command::Summary(options) => summary::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Logs(options) => logs::run(&options),
        Command::Timeline(options) => timeline::run(&options),
        Command::Doctor(options) => doctor::run(&options),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            if !matches!(error, CliError::NotStarted { .. }) {
                complain(&error);
            }
            error.exit_code()
        }
    }
}

/// Prints an error and what caused it, on one line.
fn complain(error: &dyn std::error::Error) {
    let mut line = format!("raylet: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(line, ": {cause}");
        source = cause.source();
    }
    // Nobody may be listening any more.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints an answer. Whoever stopped listening has what they wanted.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("answers have text keys only");
    print(&(text + "\n"));
}

/// An age with one digit after the point.
fn age(age_ms: u64) -> String {
    let seconds = age_ms as f64 / 1e3;
    match age_ms / 1000 {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only where a host program has a subscriber already; then that one is used.
    let _ = subscriber.with_ansi(false).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_the_cases_apart() {
        let running = || SessionError::AlreadyRunning { session: "x".into(), pid: 7 };
        assert_eq!(CliError::from(running()).exit_code(), 4);
        assert_eq!(CliError::from(StartError::from(running())).exit_code(), 4);
        let gone = AddressError::NotRunning { path: "x".into() };
        assert_eq!(CliError::from(AskError::from(gone)).exit_code(), 3);
        assert_eq!(CliError::from(AskError::NoAnswer { limit_ms: 1 }).exit_code(), 5);
        assert_eq!(CliError::from(AskError::Closed).exit_code(), 1);
    }
}
