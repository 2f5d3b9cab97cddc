//! The socket thread: takes connections in, one task each, until it is told to end.
//!
//! The one thing to know: everything here runs on one thread of one small runtime, and what may
//! take long goes to a thread beside it (R2). This file must not read frames; `connection` does.

use crate::connection::{Connection, question};
use crate::door::Door;
use crate::guarded::{AbortOnPanic, spawn};
use crate::metrics;
use crate::schedule::{Desk, Scheduler};
use raylet_api::inside::Summary;
use raylet_api::message::{self, Message, Status};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Segments, Store};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// Connections at once; more are turned away. Each client has one while it joins.
const CONNECTION_COUNT_MAX: u64 = 8192;
/// How long to wait when the process or the system has no descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How old the store's numbers in the door may be, and how old where nothing had changed before: an
/// idle raylet is to sleep.
const DOOR_PERIOD: Duration = Duration::from_secs(1);
const DOOR_PERIOD_MAX: Duration = Duration::from_secs(8);
/// Threads for questions that look at the whole store.
const SURVEY_THREADS_MAX: usize = 2;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    /// What a client is handed, made once.
    pub(crate) segments: Segments,
    pub(crate) door: Arc<Door>,
    /// Where drivers and workers turn to.
    pub(crate) desk: Desk,
    pub(crate) session: String,
    pub(crate) session_id: String,
    pub(crate) spill_directory: String,
    pub(crate) started: Instant,
    /// Open connections.
    pub(crate) connection_count: AtomicU64,
    /// Jobs numbered so far.
    pub(crate) job_count: Arc<AtomicU32>,
    /// Told when somebody asks the raylet to end.
    pub(crate) end: Arc<Notify>,
    /// Where metrics are to be had.
    pub(crate) metrics_port: Option<u16>,
    /// What runs is remembered.
    pub(crate) timeline: bool,
}

/// What is listened on.
pub(crate) struct Listening {
    pub(crate) socket: std::os::unix::net::UnixListener,
    /// Where metrics are asked for, and its port.
    pub(crate) metrics: Option<(std::net::TcpListener, u16)>,
}

/// Runs socket and scheduler until `shared.end` is notified; then every worker is ended.
pub(crate) fn run(listening: Listening, shared: Arc<Shared>, scheduler: Scheduler) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(SURVEY_THREADS_MAX).enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listening.socket)?;
        let end = shared.end.clone();
        tokio::select! {
            () = end.notified() => {}
            () = accept_all(&listener, &shared) => {}
            () = write_door(&shared) => {}
            () = scheduler.run() => {}
            served = serve_metrics(listening.metrics, &shared) => served?,
        }
        Ok(())
    })
}

async fn accept_all(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => take_in(stream, shared),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Answers who asks for metrics, if anybody may; never ends but by an error.
async fn serve_metrics(listener: Option<(std::net::TcpListener, u16)>, shared: &Arc<Shared>) -> io::Result<()> {
    let Some((listener, _)) = listener else { return std::future::pending().await };
    let shared = shared.clone();
    metrics::serve(listener, move || metrics_page(shared.clone())).await
}

async fn metrics_page(shared: Arc<Shared>) -> Option<String> {
    let Ok(Message::StatusReply(status)) = question(&shared, Status {}.into()).await else { return None };
    let Ok(Message::SummaryReply(summary)) = question(&shared, Summary {}.into()).await else { return None };
    Some(metrics::text(&status, &summary))
}

/// Keeps the store's numbers in the door fresh; the longer nothing changes, the more rarely it looks.
async fn write_door(shared: &Arc<Shared>) {
    let (mut written, mut pause) = (None, DOOR_PERIOD);
    loop {
        let tally = shared.store.tally();
        pause = if written.as_ref() == Some(&tally) { (2 * pause).min(DOOR_PERIOD_MAX) } else { DOOR_PERIOD };
        shared.door.write_tally(&tally);
        written = Some(tally);
        tokio::time::sleep(pause).await;
    }
}

/// Gives the connection a task, if the kernel says the peer is our user.
fn take_in(stream: UnixStream, shared: &Arc<Shared>) {
    let own_uid = nix::unistd::geteuid().as_raw();
    let peer = match stream.peer_cred() {
        Ok(peer) if peer.uid() == own_uid => peer,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "a connection of another user was refused");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "a connection without a peer was refused");
            return;
        }
    };
    // Relaxed: this thread alone counts; others only read.
    if shared.connection_count.load(Ordering::Relaxed) >= CONNECTION_COUNT_MAX {
        tracing::warn!(limit = CONNECTION_COUNT_MAX, "a connection over the limit was refused");
        return;
    }
    shared.door.counters().connections.fetch_add(1, Ordering::Relaxed);
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    spawn(Connection::new(stream, pid, shared.clone()).run());
}

impl Shared {
    /// Asks the store something that may take long, on a thread beside (R2).
    pub(crate) async fn survey<T: Send + 'static>(
        self: &Arc<Shared>,
        question: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, message::Error> {
        let shared = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || {
            let _guard = AbortOnPanic;
            question(&shared.store)
        });
        // A panic has aborted the process, so this was never begun: the runtime is being taken down.
        answer.await.map_err(|_| {
            let (code, text) = (message::ErrorCode::ShuttingDown, "the raylet is ending");
            message::Error::new(code, text, &[])
        })
    }
}
