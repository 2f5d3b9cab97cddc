//! The worker pool's hands: zygotes are started, workers forked, watched, heard and ended.
//!
//! The one thing to know: nothing is decided here. The raylet says "start", "fork", "kill"; what came
//! of it arrives as an [`Event`], in order per worker: `WorkerStarted` or `WorkerRefused`, then
//! `WorkerEnded`. All of it runs on one thread of its own, so no worker's output and no slow fork
//! holds up the raylet's socket. This file must not know tasks, leases or resources.
//!
//! ```text
//!  raylet --Command--> pool thread --Fork + leash, stdout, stderr--> zygote --fork--> worker
//!     <---Event-----        |  <------ Forked + pidfd ------           |                |
//!     <---Line------        |  <------ Ended ------                    |                |
//!                           +--- pidfd, output pipes, leash -------------------------- -+
//! ```
//!
//! Invariants:
//!
//! * **Z1** Each worker and each zygote wears a leash that the pool alone holds. A worker whose
//!   `Forked` never arrived dies with its leash, so there is none that the pool does not know.
//! * **Z2** `WorkerEnded` is said after the worker's group was killed and seen empty, so nobody of it
//!   is left who could touch what the worker held.
//! * **Z3** Each `start_worker` is answered by exactly one `WorkerStarted` or `WorkerRefused`, and each
//!   `WorkerStarted` by exactly one `WorkerEnded`, while the pool lives.
//! * **Z4** Workers do not end with their zygote.

pub mod child;
pub mod output;
pub mod reaper;
pub mod zygote;

mod group;
pub(crate) mod own_process;

pub use output::{Line, Stream};
pub use raylet_api::zygote::{Exit, Refusal, WorkerSpec};
pub use zygote::{Kindled, Program, ZygoteError};

use crate::guarded::spawn;
use raylet_api::zygote::{FORK_FDS, FromZygote, PacketError, ToZygote, encode};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use store_shm::ProcessId;
use store_shm::process::{self, ProcessError};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use zygote::{Order, Zygote};

use nix::sys::signal::Signal;

/// How long the pool waits at its end for what it killed; the leashes do the rest.
const END_TIME: Duration = Duration::from_secs(5);
/// How long a dead worker's exit status may be on its way. A loaded machine takes its time;
/// a stopped zygote never says.
const EXIT_TIME: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The zygote can fork.
    ZygoteReady {
        /// Which.
        zygote: u64,
        /// Its process.
        pid: u32,
    },
    /// The zygote is gone, or never was; its workers stay. It can be started again.
    ZygoteEnded {
        /// Which.
        zygote: u64,
        /// Why it was not even started; none where it was.
        error: Option<ZygoteError>,
        /// How it ended, where that is known.
        exit: Option<Exit>,
        /// Whether it had been ready. One that never is will not be the next time.
        was_ready: bool,
    },
    /// The worker's process is there.
    WorkerStarted {
        /// Which.
        worker: u64,
        /// Its process.
        process: ProcessId,
    },
    /// There will be no such worker.
    WorkerRefused {
        /// Which.
        worker: u64,
        /// Why.
        error: WorkerError,
    },
    /// The worker and all of its group are gone (Z2).
    WorkerEnded {
        /// Which.
        worker: u64,
        /// What was its process.
        process: ProcessId,
        /// How it ended, where that is known.
        exit: Option<Exit>,
    },
}

/// Why there is no such worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// No zygote of that number runs.
    #[error("there is no zygote {zygote}")]
    NoZygote {
        /// Which.
        zygote: u64,
    },
    /// The zygote ended before it forked.
    #[error("zygote {zygote} ended before it forked")]
    ZygoteEnded {
        /// Which.
        zygote: u64,
    },
    /// The zygote did not fork.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A name in its spec is too long.
    #[error(transparent)]
    Spec(#[from] PacketError),
    /// Pipes cannot be had.
    #[error(transparent)]
    Pipes(#[from] ProcessError),
    /// The pool is ending.
    #[error("the worker pool is ending")]
    Ending,
}

/// The pool. Dropping it ends every zygote and every worker, and waits for that.
#[derive(Debug)]
pub struct Pool {
    told: mpsc::UnboundedSender<Told>,
    thread: Option<JoinHandle<()>>,
    /// The process whose thread it is; a forked child has none.
    owner: u32,
}

impl Pool {
    /// Starts the pool's thread. Events must never be held up; lines may be, and then hold up the
    /// workers that write them. The first zygote may be on its way: it is taken where it is of the program that is
    /// first asked for.
    pub fn start(
        events: mpsc::UnboundedSender<Event>,
        lines: mpsc::Sender<Line>,
        kindled: Option<Kindled>,
    ) -> io::Result<Pool> {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
        let (told, inbox) = mpsc::unbounded_channel();
        let hands = Hands {
            events,
            lines,
            told: told.clone(),
            zygotes: BTreeMap::new(),
            workers: BTreeMap::new(),
            kindled,
            is_ending: false,
        };
        let thread = std::thread::Builder::new().name("raylet-pool".to_owned());
        let thread = thread.spawn(move || runtime.block_on(hands.run(inbox)))?;
        Ok(Pool { told, thread: Some(thread), owner: std::process::id() })
    }

    /// Starts a zygote under a number that no living zygote has.
    pub fn start_zygote(&self, zygote: u64, program: Program) {
        self.tell(Told::StartZygote { zygote, program });
    }

    /// Ends a zygote; its workers stay.
    pub fn end_zygote(&self, zygote: u64) {
        self.tell(Told::EndZygote { zygote });
    }

    /// Has a zygote fork a worker, under the number in the spec.
    pub fn start_worker(&self, zygote: u64, spec: WorkerSpec) {
        self.tell(Told::StartWorker { zygote, spec });
    }

    /// Kills a worker and its group.
    pub fn kill_worker(&self, worker: u64) {
        self.tell(Told::KillWorker { worker });
    }

    /// The same, unless it has ended by itself in time.
    pub fn kill_worker_after(&self, worker: u64, limit: Duration) {
        self.tell(Told::KillWorkerAfter { worker, limit });
    }

    fn tell(&self, told: Told) {
        // The thread ends at the drop alone.
        let _ = self.told.send(told);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        self.tell(Told::End);
        // A panic on that thread has printed itself; the leashes end with it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the pool's thread hears.
#[derive(Debug)]
enum Told {
    StartZygote { zygote: u64, program: Program },
    EndZygote { zygote: u64 },
    StartWorker { zygote: u64, spec: WorkerSpec },
    KillWorker { worker: u64 },
    KillWorkerAfter { worker: u64, limit: Duration },
    Packet { zygote: u64, message: FromZygote, fds: Vec<OwnedFd> },
    ZygoteGone { zygote: u64, exit: Option<Exit> },
    WorkerGone { worker: u64, exit: Option<Exit> },
    ExitUnknown { worker: u64 },
    End,
    EndLate,
}

/// What the pool's thread has.
struct Hands {
    events: mpsc::UnboundedSender<Event>,
    lines: mpsc::Sender<Line>,
    told: mpsc::UnboundedSender<Told>,
    zygotes: BTreeMap<u64, ZygoteRow>,
    workers: BTreeMap<u64, WorkerRow>,
    kindled: Option<Kindled>,
    is_ending: bool,
}

struct ZygoteRow {
    orders: mpsc::UnboundedSender<Order>,
    pidfd: Arc<OwnedFd>,
    is_ready: bool,
    _leash: OwnedFd,
}

struct WorkerRow {
    zygote: u64,
    /// The reading ends of what it writes, until they are read.
    output: Option<[OwnedFd; 2]>,
    /// Once it has been forked.
    process: Option<(ProcessId, Arc<OwnedFd>)>,
    exit: Option<Exit>,
    is_gone: bool,
    is_killed: bool,
    _leash: OwnedFd,
}

impl Hands {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Told>) {
        while let Some(told) = inbox.recv().await {
            match told {
                Told::StartZygote { zygote, program } => self.start_zygote(zygote, &program),
                Told::EndZygote { zygote } => self.end_zygote(zygote),
                Told::StartWorker { zygote, spec } => self.start_worker(zygote, spec),
                Told::KillWorker { worker } => self.kill_worker(worker),
                Told::KillWorkerAfter { worker, limit } => self.kill_worker_after(worker, limit),
                Told::Packet { zygote, message, fds } => self.hear(zygote, message, fds),
                Told::ZygoteGone { zygote, exit } => self.zygote_gone(zygote, exit),
                Told::WorkerGone { worker, exit } => self.worker_gone(worker, exit),
                Told::ExitUnknown { worker } => self.say_ended(worker),
                Told::End => self.end(),
                Told::EndLate => return,
            }
            if self.is_ending {
                self.end_zygotes();
                if self.zygotes.is_empty() && self.workers.is_empty() {
                    return;
                }
            }
        }
    }

    /// At the end a zygote goes after its workers, so that somebody reaps them; but at once if it owes
    /// forks, because it may be stopped.
    fn end_zygotes(&self) {
        for (number, zygote) in &self.zygotes {
            let mut workers = self.workers.values().filter(|row| row.zygote == *number).peekable();
            if workers.peek().is_none() || workers.any(|row| row.process.is_none()) {
                kill(&zygote.pidfd);
            }
        }
    }

    /// Nobody may be listening any more; that is the listener's affair.
    fn say(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn start_zygote(&mut self, number: u64, program: &Program) {
        let started = match self.is_ending || self.zygotes.contains_key(&number) {
            true => Err(ZygoteError::NumberInUse { zygote: number }),
            false => self.kindle(program).and_then(Zygote::of),
        };
        match started {
            Ok(zygote) => self.keep_zygote(number, zygote),
            Err(error) => {
                let error = Some(error);
                self.say(Event::ZygoteEnded { zygote: number, error, exit: None, was_ready: false });
            }
        }
    }

    /// The one that is on its way, where it is of this program.
    fn kindle(&mut self, program: &Program) -> Result<Kindled, ZygoteError> {
        match self.kindled.take().filter(|kindled| kindled.is_of(program)) {
            Some(kindled) => Ok(kindled),
            None => Kindled::start(program),
        }
    }

    fn keep_zygote(&mut self, number: u64, (zygote, _leash): (Zygote, OwnedFd)) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let pidfd = zygote.pidfd();
        self.zygotes.insert(number, ZygoteRow { orders, pidfd, is_ready: false, _leash });
        let told = self.told.clone();
        let hear = {
            let told = told.clone();
            move |message, fds| drop(told.send(Told::Packet { zygote: number, message, fds }))
        };
        spawn(async move {
            let exit = zygote.serve(inbox, hear).await;
            let _ = told.send(Told::ZygoteGone { zygote: number, exit });
        });
    }

    fn end_zygote(&mut self, number: u64) {
        if let Some(row) = self.zygotes.get(&number) {
            kill(&row.pidfd);
        }
    }

    fn start_worker(&mut self, zygote: u64, spec: WorkerSpec) {
        let worker = spec.worker;
        if let Err(error) = self.order_worker(zygote, spec) {
            self.say(Event::WorkerRefused { worker, error });
        }
    }

    fn order_worker(&mut self, number: u64, spec: WorkerSpec) -> Result<(), WorkerError> {
        if self.is_ending {
            return Err(WorkerError::Ending);
        }
        let (worker, bytes) = (spec.worker, encode(&ToZygote::Fork(spec))?);
        let zygote = self.zygotes.get(&number).ok_or(WorkerError::NoZygote { zygote: number })?;
        let (leash, worn) = process::leash()?;
        let (out, err) = (output::pipe()?, output::pipe()?);
        let fds: [OwnedFd; FORK_FDS] = [worn, out.1, err.1];
        let row = WorkerRow {
            zygote: number,
            output: Some([out.0, err.0]),
            process: None,
            exit: None,
            is_gone: false,
            is_killed: false,
            _leash: leash,
        };
        zygote.orders.send(Order { bytes, fds }).map_err(|_| WorkerError::ZygoteEnded { zygote: number })?;
        let before = self.workers.insert(worker, row);
        assert!(before.is_none(), "Z3: worker {worker} was started twice");
        Ok(())
    }

    fn kill_worker(&mut self, worker: u64) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        // One that is not forked yet is killed when it is.
        row.is_killed = true;
        if let Some((process, pidfd)) = row.process.as_ref().filter(|_| !row.is_gone) {
            kill(pidfd);
            group::kill(*process);
        }
    }

    fn kill_worker_after(&self, worker: u64, limit: Duration) {
        let told = self.told.clone();
        spawn(async move {
            tokio::time::sleep(limit).await;
            // Of one that has ended nobody knows any more.
            let _ = told.send(Told::KillWorker { worker });
        });
    }

    fn hear(&mut self, number: u64, message: FromZygote, mut fds: Vec<OwnedFd>) {
        match message {
            FromZygote::Ready { pid } => {
                if let Some(row) = self.zygotes.get_mut(&number) {
                    row.is_ready = true;
                    self.say(Event::ZygoteReady { zygote: number, pid });
                }
            }
            FromZygote::Forked { worker, pid } => {
                if let Some(pidfd) = fds.pop() {
                    self.worker_started(worker, pid, pidfd);
                }
            }
            FromZygote::Refused { worker, refusal } => {
                if self.workers.remove(&worker).is_some() {
                    self.say(Event::WorkerRefused { worker, error: refusal.into() });
                }
            }
            FromZygote::Ended { pid, exit } => self.worker_exit(number, pid, exit),
            message => tracing::warn!(?message, "a zygote said something unknown"),
        }
    }

    fn worker_started(&mut self, worker: u64, pid: u32, pidfd: OwnedFd) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        // A worker that has been reaped already has no start time any more.
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_ticks: 0 });
        let pidfd = Arc::new(pidfd);
        row.process = Some((process, pidfd.clone()));
        let is_killed = row.is_killed;
        for (pipe, stream) in row.output.take().into_iter().flatten().zip([Stream::Stdout, Stream::Stderr]) {
            spawn(output::forward(pipe, Line::of(worker, pid, stream), self.lines.clone()));
        }
        self.watch_worker(worker, process, pidfd);
        self.say(Event::WorkerStarted { worker, process });
        if is_killed {
            self.kill_worker(worker);
        }
    }

    fn watch_worker(&self, worker: u64, process: ProcessId, pidfd: Arc<OwnedFd>) {
        let told = self.told.clone();
        spawn(async move {
            until_ended(&pidfd).await;
            let exit = group::end(process).await;
            let _ = told.send(Told::WorkerGone { worker, exit });
        });
    }

    /// The zygote's word on how one of its children ended.
    fn worker_exit(&mut self, zygote: u64, pid: u32, exit: Exit) {
        let is_it = |row: &WorkerRow| {
            row.zygote == zygote
                && row.exit.is_none()
                && row.process.as_ref().is_some_and(|(process, _)| process.pid == pid)
        };
        let found = self.workers.iter_mut().find(|(_, row)| is_it(row));
        let Some((&worker, row)) = found else { return };
        row.exit = Some(exit);
        if row.is_gone {
            self.say_ended(worker);
        }
    }

    /// Nobody of the group is left. Its exit status may still be on its way.
    fn worker_gone(&mut self, worker: u64, exit: Option<Exit>) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        row.is_gone = true;
        row.exit = row.exit.or(exit);
        if row.exit.is_some() || !self.zygotes.contains_key(&row.zygote) {
            return self.say_ended(worker);
        }
        let told = self.told.clone();
        spawn(async move {
            tokio::time::sleep(EXIT_TIME).await;
            let _ = told.send(Told::ExitUnknown { worker });
        });
    }

    fn say_ended(&mut self, worker: u64) {
        let is_gone = self.workers.get(&worker).is_some_and(|row| row.is_gone);
        if let Some(row) = self.workers.remove(&worker).filter(|_| is_gone)
            && let Some((process, _)) = row.process
        {
            self.say(Event::WorkerEnded { worker, process, exit: row.exit });
        }
    }

    fn zygote_gone(&mut self, zygote: u64, exit: Option<Exit>) {
        let Some(row) = self.zygotes.remove(&zygote) else { return };
        let unborn = self.workers.iter().filter(|(_, row)| row.zygote == zygote && row.process.is_none());
        let unborn: Vec<u64> = unborn.map(|(&worker, _)| worker).collect();
        for worker in unborn {
            // One that was forked and not told of dies by its leash here (Z1).
            self.workers.remove(&worker);
            self.say(Event::WorkerRefused { worker, error: WorkerError::ZygoteEnded { zygote } });
        }
        self.say(Event::ZygoteEnded { zygote, error: None, exit, was_ready: row.is_ready });
    }

    /// Kills everybody; the loop ends when they are gone.
    fn end(&mut self) {
        self.is_ending = true;
        let workers: Vec<u64> = self.workers.keys().copied().collect();
        workers.into_iter().for_each(|worker| self.kill_worker(worker));
        let told = self.told.clone();
        spawn(async move {
            tokio::time::sleep(END_TIME).await;
            let _ = told.send(Told::EndLate);
        });
    }
}

/// Resolves when the process of the pidfd has ended.
async fn until_ended(pidfd: &OwnedFd) {
    #[allow(deprecated, reason = "the descriptor is borrowed, so nobody closes it before the registration ends")]
    let watched = AsyncFd::with_interest(pidfd.as_fd(), tokio::io::Interest::READABLE);
    match watched {
        Ok(watched) => drop(watched.readable().await),
        // Without a place in the epoll set it is asked again and again.
        Err(error) => {
            tracing::warn!(%error, "a process is watched by asking");
            while process_lives(pidfd) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn process_lives(pidfd: &OwnedFd) -> bool {
    let mut polled = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    !matches!(nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO), Ok(1))
}

fn kill(pidfd: &OwnedFd) {
    if let Err(error) = process::send_signal(pidfd.as_fd(), Signal::SIGKILL) {
        tracing::warn!(%error, "a process could not be killed");
    }
}
