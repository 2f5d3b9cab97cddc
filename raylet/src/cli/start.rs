//! `raylet start`: in the foreground, or as a process of its own that outlives the shell.
//!
//! The one thing to know: the background is this executable once more with `--foreground`. Its
//! standard output is a pipe on which it says when it serves; its standard error is ours until then,
//! so the reason of a failure is seen. This file must not decide what a raylet does.

use super::resources::{self, Custom};
use super::{CliError, SessionOptions, bytes, print};
use crate::pool::own_process;
use crate::pool::reaper::Reaper;
use crate::raylet::{Config, DEFAULT_MAX_CLIENTS, MAX_CLIENTS_LIMIT, Raylet};
use clap::Args;
use raylet_api::address;
use raylet_core::resources::{Amount, Resources};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the background process says before the path of its socket.
const READY: &str = "ready ";

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// Size of the store, for example 2GiB [default: 30% of memory]
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    capacity: Option<u64>,
    /// Stay in the foreground; SIGTERM and SIGINT end it
    #[arg(long)]
    foreground: bool,
    /// Where to make the directory for spilled objects [default: beside the socket, or /var/tmp]
    #[arg(long, value_name = "DIRECTORY")]
    spill_dir: Option<PathBuf>,
    /// How many clients there may be at once
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_MAX_CLIENTS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CLIENTS_LIMIT)))]
    max_clients: u32,
    /// How many CPUs tasks may use [default: those this process may run on]
    #[arg(long, value_name = "COUNT", value_parser = resources::parse_amount)]
    num_cpus: Option<Amount>,
    /// How many GPUs tasks may use [default: those that are visible]
    #[arg(long, value_name = "COUNT")]
    num_gpus: Option<u32>,
    /// How much memory tasks may ask for, for example 4GiB [default: what the store leaves]
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Other resources that tasks may ask for, for example '{"tape": 1}'
    #[arg(long, value_name = "JSON", value_parser = resources::parse_custom)]
    resources: Option<Custom>,
    /// How many workers there may be at once
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    workers_max: Option<u32>,
    /// Serve metrics for Prometheus on this port of 127.0.0.1; 0 takes a free one, which status shows
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Remember what runs when, for `raylet timeline`; costs each task two looks at the clock
    #[arg(long, env = "RAYLET_TIMELINE", num_args = 0..=1, default_value_t = false, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new())]
    timeline: bool,
    /// Say on standard output when it serves, then let go of all standard streams
    #[arg(long, hide = true, requires = "foreground")]
    announce: bool,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    // Checked here, where the exit code of a bad name is ours to give.
    options.session.directory().map_err(crate::session::SessionError::from)?;
    match options.foreground {
        true => run_here(options),
        false => run_in_background(options),
    }
}

fn run_here(options: &Options) -> Result<(), CliError> {
    if options.announce {
        // Out of the shell's session, so that its terminal's end is not ours. Fails only for the
        // leader of a group, which a process just spawned is not.
        let _ = nix::unistd::setsid();
    }
    let (config, failed) = (config(options)?, |what| move |source| CliError::Io { what, source });
    let _reaper = Reaper::start(&config, None).map_err(io::Error::other).map_err(failed("start the reaper"))?;
    own_process::take_orphans();
    let signals = own_process::block_signals().map_err(failed("block signals"))?;
    own_process::raise_descriptor_limit();
    let raylet = Raylet::start(&config)?;
    own_process::spawn_signal_thread(signals, raylet.ender()).map_err(failed("start a thread"))?;
    let socket_path = raylet.socket_path();
    match options.announce {
        true => announce(&raylet, &socket_path)?,
        false => print(&format!("{}\n", socket_path.display())),
    }
    tracing::info!(socket = %socket_path.display(), "the raylet serves");
    raylet.wait()?;
    tracing::info!("the raylet has ended");
    Ok(())
}

fn config(options: &Options) -> Result<Config, CliError> {
    let default = Config::default();
    let resources = resources(options, default.resources);
    let workers_max = options.workers_max.unwrap_or(default.scheduler.workers_max);
    Ok(Config {
        base: address::base_directory(),
        session: options.session.session.clone(),
        capacity_bytes: options.capacity.unwrap_or(default.capacity_bytes),
        max_clients: options.max_clients,
        spill_parent: absolute(options.spill_dir.as_deref())?,
        resources,
        scheduler: raylet_core::Config { workers_max, ..default.scheduler },
        metrics_port: options.metrics_port,
        timeline: options.timeline,
        ..default
    })
}

/// What tasks may use: the machine's, but for what the options say.
fn resources(options: &Options, mut machine: Resources) -> Resources {
    machine.cpu = options.num_cpus.unwrap_or(machine.cpu);
    machine.gpu = options.num_gpus.map_or(machine.gpu, Amount::whole);
    machine.memory_bytes = options.memory.unwrap_or(machine.memory_bytes);
    match &options.resources {
        Some(custom) => custom.beside(machine),
        None => machine,
    }
}

fn absolute(path: Option<&Path>) -> Result<Option<PathBuf>, CliError> {
    let what = "find the directory for spilled objects";
    path.map(std::path::absolute).transpose().map_err(|source| CliError::Io { what, source })
}

/// Says that we serve, then lets go of the pipe, the terminal and the directory we were started in.
fn announce(raylet: &Raylet, socket_path: &Path) -> Result<(), CliError> {
    let detach = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let log = options.append(true).create(true).mode(0o600);
        nix::unistd::dup2_stderr(log.open(raylet.session().log_path())?)?;
        std::env::set_current_dir("/")?;
        print(&format!("{READY}{}\n", socket_path.display()));
        nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(())
    };
    detach().map_err(|source| CliError::Io { what: "go to the background", source })
}

fn run_in_background(options: &Options) -> Result<(), CliError> {
    let what = "start the raylet in the background";
    let failed = |source| CliError::Io { what, source };
    let mut child = command(options)?.spawn().map_err(failed)?;
    match ready_path(&mut child).map_err(failed)? {
        Some(path) => {
            print(&format!("{path}\n"));
            Ok(())
        }
        None => {
            let status = child.wait().map_err(failed)?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            // Ended without a word by a signal, or by a success that was none.
            let exit_code = code.filter(|&code| code != 0).unwrap_or(1);
            Err(CliError::NotStarted { exit_code })
        }
    }
}

/// This executable once more, with the same options spelled out.
fn command(options: &Options) -> Result<Command, CliError> {
    let what = "find this executable";
    let mut command = match super::OWN_COMMAND.get().and_then(|words| words.split_first()) {
        Some((executable, words)) => {
            let mut command = Command::new(executable);
            command.args(words);
            command
        }
        None => Command::new(std::env::current_exe().map_err(|source| CliError::Io { what, source })?),
    };
    command.args(["start", "--foreground", "--announce", "--session", &options.session.session]);
    command.args(["--max-clients", &options.max_clients.to_string()]);
    if let Some(capacity) = options.capacity {
        command.args(["--capacity", &capacity.to_string()]);
    }
    if let Some(path) = absolute(options.spill_dir.as_deref())? {
        command.arg("--spill-dir").arg(path);
    }
    pass_on(options, &mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // A caller's files, locks on them included, would stay open as long as the raylet runs.
    store_shm::process::inherit_nothing(&mut command);
    Ok(command)
}

/// The options about work, spelled out.
fn pass_on(options: &Options, command: &mut Command) {
    let values = [
        ("--num-cpus", options.num_cpus.map(|cpus| cpus.to_string())),
        ("--num-gpus", options.num_gpus.map(|count| count.to_string())),
        ("--memory", options.memory.map(|bytes| bytes.to_string())),
        ("--resources", options.resources.as_ref().map(Custom::to_string)),
        ("--workers-max", options.workers_max.map(|count| count.to_string())),
        ("--metrics-port", options.metrics_port.map(|port| port.to_string())),
        ("--timeline", Some(options.timeline.to_string())),
    ];
    for (option, value) in values.iter().filter_map(|(option, value)| Some((option, value.as_ref()?))) {
        command.arg(format!("{option}={value}"));
    }
}

/// The socket's path once the child serves; `None` where it ended before. Waits as long as the
/// child lives: it alone knows when it is ready.
fn ready_path(child: &mut Child) -> io::Result<Option<String>> {
    let Some(stdout) = child.stdout.take() else {
        return Ok(None);
    };
    let mut line = Vec::new();
    BufReader::new(stdout).read_until(b'\n', &mut line)?;
    let line = std::ffi::OsStr::from_bytes(line.strip_suffix(b"\n").unwrap_or_default());
    Ok(line.to_string_lossy().strip_prefix(READY).map(str::to_owned))
}
