//! Joining a raylet or starting one, and what a process is from then on.
//!
//! The one thing to know: a raylet that is started is a child of this process, and is dropped after
//! everything that talks to it. A driver tells the raylet what its workers are started from; those it
//! starts know by their environment what else the driver was configured with. This file must not know
//! how calls are submitted.

use super::actors::Actors;
use super::frontier::Frontier;
use super::interrupt::Interrupts;
use super::line::{Line, OnGone, OnMessage};
use super::lineage::Remaking;
use super::plan::Plans;
use super::print::Printer;
use super::pump::Pump;
use super::routed::Routed;
use super::scope::Scope;
use super::segment::Segment;
use super::spec::handle;
use super::wait::Spin;
use super::{Place, Remote, Shared};
#[cfg(feature = "embedded")]
use crate::binding::Program;
use crate::connection::{self, Comer, ConnectOptions, Joined, LineParts};
use crate::error::ConnectError;
use crate::remote::{Config, InitError, Raylet};
use crate::task::{FUNCTIONS, Transport};
use crate::timeline;
use raylet_api::message::Message;
use raylet_api::work::{NameFunctions, ProgramWish};
use raylet_api::{ActorId, JobId, TaskId, address};
use std::collections::HashMap;
use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

/// Names a raylet to join.
const ADDRESS_VARIABLE: &str = "RAY_ADDRESS";
/// 1: direct, 0: through the raylet.
const TRANSPORT_VARIABLE: &str = "RAY_FORCE_DIRECT";
/// What a driver's workers have for namespace.
const NAMESPACE_VARIABLE: &str = "RAYLET_NAMESPACE";
/// The address that means the user's default session.
const AUTO: &str = "auto";
/// The address that means one of one's own.
const LOCAL: &str = "local";
/// Names of functions that go into one message.
const NAMES_MAX: usize = 1000;

/// A worker's own raylet.
static WORKER: OnceLock<Raylet> = OnceLock::new();

/// The raylet that this process is a worker of; `None` where it is none.
pub(crate) fn worker_raylet() -> Option<&'static Raylet> {
    WORKER.get()
}

/// What a worker has once it is in.
pub(crate) struct WorkerSeat {
    /// What its tasks submit by; the same as [`worker_raylet`].
    pub(crate) ray: Raylet,
    pub(crate) line: Arc<Line>,
    pub(crate) segment: Segment,
    /// Whether the raylet records what ran when.
    pub(crate) has_timeline: bool,
}

/// A raylet as a [`Config`] says.
pub(crate) fn init(config: &Config) -> Result<Raylet, InitError> {
    if let Some(ray) = worker_raylet() {
        return Ok(ray.clone());
    }
    let transport = transport(config.transport, env::var(TRANSPORT_VARIABLE).ok())?;
    let asked_for = config.address.clone().or_else(|| env::var(ADDRESS_VARIABLE).ok().filter(|text| !text.is_empty()));
    match asked_for {
        Some(address) if address == LOCAL => start(config, transport),
        Some(address) => join_driver(&directory_of(&address)?, config, transport, true),
        None => {
            let shared = address::base_directory().join(address::DEFAULT_SESSION);
            match join_driver(&shared, config, transport, true) {
                Err(InitError::Connect { source: ConnectError::NotRunning { .. }, .. }) => start(config, transport),
                joined => joined,
            }
        }
    }
}

/// The nearest word counts.
fn transport(configured: Option<Transport>, forced: Option<String>) -> Result<Transport, InitError> {
    match (configured, forced.as_deref()) {
        (Some(transport), _) => Ok(transport),
        (None, Some("1" | "true")) => Ok(Transport::Direct),
        (None, Some("0" | "false")) => Ok(Transport::Raylet),
        (None, None | Some("")) => Ok(Transport::default()),
        (None, Some(value)) => Err(InitError::ForceDirect { value: value.to_owned() }),
    }
}

/// The session that an address means.
fn directory_of(text: &str) -> Result<PathBuf, InitError> {
    if text.contains('/') {
        return Ok(PathBuf::from(text));
    }
    let name = if text == AUTO { address::DEFAULT_SESSION } else { text };
    let directory = address::session_directory(&address::base_directory(), name);
    directory.map_err(|_| InitError::Address { address: text.to_owned() })
}

#[cfg(not(feature = "embedded"))]
fn start(_config: &Config, _transport: Transport) -> Result<Raylet, InitError> {
    Err(InitError::NotEmbedded)
}

/// Starts a raylet for this process alone.
#[cfg(feature = "embedded")]
fn start(config: &Config, transport: Transport) -> Result<Raylet, InitError> {
    let program = config.raylet_program.clone().map_or_else(raylet::pool::Program::own, raylet_program);
    let wish = worker_program(config, false);
    // What is to be opened when the driver joins cannot be started before.
    let first_program = Some(wish.clone()).filter(|wish| wish.executable.is_some());
    let started = raylet::Config { first_program, ..raylet_config(config)? };
    let child = crate::role::start_raylet_by(&program, &started)?;
    let directory = child.session_directory().to_owned();
    let shared = join(&directory, config, transport, wish)?;
    Ok(Raylet::over(Arc::new(Remote { shared, child: Mutex::new(Some(child)) })))
}

#[cfg(feature = "embedded")]
fn raylet_program(program: Program) -> raylet::pool::Program {
    let mut started = raylet::pool::Program::own();
    if let Some(executable) = program.executable {
        started.executable = executable.into();
    }
    started.arguments = program.arguments.into_iter().map(Into::into).collect();
    started.environment = program.environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    started.directory = program.directory.map(Into::into);
    started
}

#[cfg(feature = "embedded")]
fn raylet_config(config: &Config) -> Result<raylet::Config, InitError> {
    let mut started = raylet::Config { is_driver: false, timeline: config.timeline, ..raylet::Config::embedded() };
    if config.capacity_bytes > 0 {
        started.capacity_bytes = config.capacity_bytes;
    }
    started.spill_parent = config.spill_directory.clone();
    let mut named = crate::task::Options::new();
    named.resources = config.resources.clone();
    let named = config.num_cpus.into_iter().fold(named, crate::task::Options::num_cpus);
    let named = config.num_gpus.into_iter().fold(named, crate::task::Options::num_gpus);
    named.check()?;
    for (name, units) in named.resource_units() {
        set_resource(&mut started, name, units);
    }
    started.resources.memory_bytes = config.memory_bytes.unwrap_or(started.resources.memory_bytes);
    started.scheduler.workers_max = config.workers_max.unwrap_or(started.scheduler.workers_max);
    Ok(started)
}

#[cfg(feature = "embedded")]
fn set_resource(config: &mut raylet::Config, name: &str, units: u64) {
    let resources = &mut config.resources;
    match name {
        "CPU" => resources.cpu.0 = units,
        "GPU" => resources.gpu.0 = units,
        name => {
            let mut amount = resources.cpu;
            amount.0 = units;
            *resources = std::mem::take(resources).with(name, amount);
        }
    }
}

fn join_driver(directory: &Path, config: &Config, transport: Transport, is_shared: bool) -> Result<Raylet, InitError> {
    let shared = join(directory, config, transport, worker_program(config, is_shared))?;
    Ok(Raylet::over(Arc::new(Remote {
        shared,
        #[cfg(feature = "embedded")]
        child: Mutex::new(None),
    })))
}

/// Comes in as a driver.
fn join(
    directory: &Path,
    config: &Config,
    transport: Transport,
    program: ProgramWish,
) -> Result<Arc<Shared>, InitError> {
    let options = ConnectOptions::at(directory);
    let connect = |source| InitError::Connect { directory: directory.to_owned(), source };
    let (joined, parts, segment) = connection::join_to_work(&options, Comer::Driver(program)).map_err(connect)?;
    let job = joined.job;
    if joined.has_timeline {
        timeline::turn_on();
    }
    let listener = Arc::new(Listener::new(config.log_to_driver, config.printer.clone()));
    let (heard, gone) = (listener.clone(), listener.clone());
    let on_message: OnMessage = Box::new(move |message| heard.hear(message));
    let on_gone: OnGone = Box::new(move || gone.raylet_is_gone());
    let line = start_line(parts, on_message, on_gone).map_err(|source| InitError::Thread { source })?;
    let as_what = AsWhat {
        is_worker: false,
        scope: Scope::of(TaskId::driver(job)),
        transport,
        namespace: config.namespace.clone(),
    };
    let shared = share(directory, &joined, line, segment, as_what);
    listener.meet(&shared);
    name_functions(&shared.line);
    Ok(shared)
}

/// What a process is to its raylet.
pub(super) struct AsWhat {
    pub(super) is_worker: bool,
    pub(super) scope: Scope,
    pub(super) transport: Transport,
    pub(super) namespace: Option<String>,
}

pub(super) fn share(
    directory: &Path,
    joined: &Joined,
    line: Arc<Line>,
    segment: Segment,
    as_what: AsWhat,
) -> Arc<Shared> {
    let AsWhat { is_worker, scope, transport, namespace } = as_what;
    let shared = Arc::new(Shared {
        store: joined.store.clone(),
        line,
        segment,
        place: Place { directory: directory.to_owned(), session_id: joined.session_id.clone() },
        is_worker,
        scope,
        job: joined.job,
        transport,
        namespace,
        named: Mutex::default(),
        plans: Plans::new(),
        classes: Mutex::new(HashMap::new()),
        lanes: RwLock::default(),
        has_lanes_left: AtomicBool::new(false),
        has_backlog: AtomicBool::new(false),
        frontier: Frontier::default(),
        actors: Actors::default(),
        routed: Routed::default(),
        interrupts: Interrupts::default(),
        remaking: Remaking::default(),
        pump: Pump::default(),
        spin: Spin::default(),
        blocked: AtomicUsize::new(0),
        is_forked: AtomicBool::new(false),
    });
    let handler: Weak<dyn store_shm::AtFork> = Arc::<Shared>::downgrade(&shared);
    store_shm::fork::register(handler);
    shared
}

fn start_line(parts: LineParts, on_message: OnMessage, on_gone: OnGone) -> std::io::Result<Arc<Line>> {
    Line::start(parts.stream, parts.decoder, on_message, on_gone).map(Arc::new)
}

/// Comes in as a worker; `worker` is the number that the raylet gave it.
pub(crate) fn join_as_worker(
    options: &ConnectOptions,
    worker: u64,
    mut on_message: OnMessage,
    on_gone: OnGone,
) -> Result<WorkerSeat, ConnectError> {
    let (joined, parts, segment) = connection::join_to_work(options, Comer::Worker(worker))?;
    let listener = Arc::new(Listener::new(false, Printer::default()));
    let (heard, gone) = (listener.clone(), listener.clone());
    let on_message: OnMessage = Box::new(move |message| match message {
        Message::QueueEnded(_) | Message::InterruptTask(_) => heard.hear(message),
        other => on_message(other),
    });
    let on_gone: OnGone = Box::new(move || {
        gone.raylet_is_gone();
        on_gone();
    });
    let line = start_line(parts, on_message, on_gone).map_err(ConnectError::Io)?;
    // What is wrong with the variable its driver was told.
    let transport = transport(None, env::var(TRANSPORT_VARIABLE).ok()).unwrap_or_default();
    let task = nobodys_task(joined.job);
    // What its tasks put is named after it, and so after its job.
    joined.store.begin_task(*task.as_bytes());
    let as_what =
        AsWhat { is_worker: true, scope: Scope::of(task), transport, namespace: env::var(NAMESPACE_VARIABLE).ok() };
    let shared = share(&options.directory, &joined, line, segment, as_what);
    listener.meet(&shared);
    let (line, segment) = (shared.line.clone(), shared.segment.clone());
    let engine = Remote {
        shared,
        #[cfg(feature = "embedded")]
        child: Mutex::new(None),
    };
    let ray = WORKER.get_or_init(|| Raylet::over(Arc::new(engine))).clone();
    Ok(WorkerSeat { ray, line, segment, has_timeline: joined.has_timeline })
}

/// A task that nobody submitted, for what a worker submits outside of any.
fn nobodys_task(job: JobId) -> TaskId {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let mut bytes = [0; TaskId::BYTES];
    bytes[..8].copy_from_slice(&hasher.finish().to_le_bytes());
    bytes[8..].copy_from_slice(ActorId::nil(job).as_bytes());
    TaskId::from_bytes(bytes)
}

/// What the driver's workers are started from: this executable, here. Where the raylet is not its
/// child, in this environment, too.
fn worker_program(config: &Config, is_shared: bool) -> ProgramWish {
    let directory = env::current_dir().ok().and_then(|directory| directory.to_str().map(str::to_owned));
    let program = config.worker_program.clone().unwrap_or_default();
    let mut wish = ProgramWish {
        executable: program.executable,
        arguments: program.arguments,
        directory: program.directory.or(directory),
        ..ProgramWish::default()
    };
    let told = [
        config.transport.map(|transport| {
            let is_direct = transport == Transport::Direct;
            (TRANSPORT_VARIABLE.to_owned(), u8::from(is_direct).to_string())
        }),
        config.namespace.clone().map(|namespace| (NAMESPACE_VARIABLE.to_owned(), namespace)),
    ];
    let mut told = told.into_iter().flatten().chain(program.environment).peekable();
    if is_shared || told.peek().is_some() {
        let variables =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        wish.environment = Some(variables.chain(told).collect());
    }
    wish
}

/// What the driver's executable can run, for listings.
fn name_functions(line: &Line) {
    let functions = FUNCTIONS.iter().map(|function| (function.key, function.name.to_owned()));
    let classes = crate::actor::CLASSES.iter().flat_map(|class| {
        let methods = class.methods.iter().map(|method| (method.key, method.name.to_owned()));
        std::iter::once((class.key, class.name.to_owned())).chain(methods)
    });
    let names: Vec<_> = functions.chain(classes).collect();
    for names in names.chunks(NAMES_MAX) {
        // A raylet that is gone lists nothing.
        let _ = line.send(NameFunctions { names: names.to_vec() });
    }
}

/// Hears what the raylet says unasked.
pub(super) struct Listener {
    log_to_driver: bool,
    printer: Printer,
    /// Once there is somebody to tell.
    shared: OnceLock<Weak<Shared>>,
}

impl Listener {
    pub(super) fn new(log_to_driver: bool, printer: Printer) -> Listener {
        Listener { log_to_driver, printer, shared: OnceLock::new() }
    }

    pub(super) fn meet(&self, shared: &Arc<Shared>) {
        let _ = self.shared.set(Arc::downgrade(shared));
        if shared.line.is_gone() {
            shared.raylet_is_gone();
        }
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.get()?.upgrade()
    }

    pub(super) fn hear(&self, message: Message) {
        match message {
            Message::LogLines(lines) if self.log_to_driver => self.printer.lines(&lines),
            Message::Notice(notice) => self.printer.notice(&notice),
            Message::QueueEnded(ended) => {
                if let Some(shared) = self.shared() {
                    shared.queue_ended(ended);
                }
            }
            Message::InterruptTask(asked) => {
                if let Some(shared) = self.shared() {
                    shared.interrupt(asked);
                }
                // Rust's calls cannot be interrupted; another language's may.
                if let Some(language) = crate::binding::language() {
                    language.interrupt(handle(asked.result));
                }
            }
            Message::GiveEvents(asked) => {
                if let Some(shared) = self.shared() {
                    timeline::take(asked.request).into_iter().for_each(|events| _ = shared.line.send(events));
                }
            }
            _ => {}
        }
    }

    pub(super) fn raylet_is_gone(&self) {
        if let Some(shared) = self.shared() {
            shared.raylet_is_gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_on_the_transport_counts() {
        let forced = |text: &str| Some(text.to_owned());
        assert_eq!(transport(None, None).unwrap(), Transport::Direct);
        assert_eq!(transport(None, forced("0")).unwrap(), Transport::Raylet);
        assert_eq!(transport(None, forced("true")).unwrap(), Transport::Direct);
        assert_eq!(transport(Some(Transport::Direct), forced("0")).unwrap(), Transport::Direct);
        assert!(matches!(transport(None, forced("maybe")), Err(InitError::ForceDirect { .. })));
    }

    #[test]
    fn an_address_is_a_name_or_a_directory() {
        assert_eq!(directory_of("/run/x").unwrap(), Path::new("/run/x"));
        let base = address::base_directory();
        assert_eq!(directory_of("auto").unwrap(), base.join(address::DEFAULT_SESSION));
        assert_eq!(directory_of("mine").unwrap(), base.join("mine"));
        assert!(matches!(directory_of(""), Err(InitError::Address { .. })));
    }
}
