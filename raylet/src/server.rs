//! The socket thread: takes connections in, one task each, until it is told to end.
//!
//! The one thing to know: everything here runs on one thread of one small runtime, and nothing in it
//! waits for the keeper (R2). This file must not read frames; `connection` does.

use crate::connection::Connection;
use crate::door::Door;
use crate::keeper::{AbortOnPanic, KeeperHandle};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// Connections at once; more are turned away.
const CONNECTION_COUNT_MAX: u64 = 4096;
/// How long to wait when the process or the system has no descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) keeper: KeeperHandle,
    pub(crate) door: Arc<Door>,
    pub(crate) session: String,
    pub(crate) session_id: String,
    pub(crate) spill_directory: Option<String>,
    pub(crate) started: Instant,
    /// Open connections.
    pub(crate) connection_count: AtomicU64,
    /// Told when somebody asks the raylet to end.
    pub(crate) end: Arc<Notify>,
}

/// Runs the socket until `shared.end` is notified.
pub(crate) fn run(
    listener: std::os::unix::net::UnixListener,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let end = shared.end.clone();
        tokio::select! {
            () = end.notified() => {}
            () = accept_all(&listener, &shared) => {}
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
        tracing::warn!(
            limit = CONNECTION_COUNT_MAX,
            "a connection over the limit was refused"
        );
        return;
    }
    shared
        .door
        .counters()
        .connections
        .fetch_add(1, Ordering::Relaxed);
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    spawn(Connection::new(stream, pid, shared.clone()).run());
}

/// Runs a task whose panic ends the process: tokio would swallow it, and with it a death notice.
pub(crate) fn spawn<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let _guard = AbortOnPanic;
        future.await;
    });
}
