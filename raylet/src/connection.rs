//! One connection: frames in, frames out, and the watch over the client's process.
//!
//! The one thing to know: the watch is a task of its own that outlives the connection. It alone
//! gives the client up, by its goodbye or by the kernel's word (R1). This file must not know what a
//! client holds.

use crate::keeper::{Admission, AdmitError, Request};
use crate::server::{Shared, spawn};
use raylet_api::frame::{self, Decoder, PROTOCOL_VERSION, ProtocolError};
use raylet_api::message::*;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store_shm::fd::FdError;
use store_shm::liveness::{ProcessId, Watch};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

const READ_BYTES: usize = 16 << 10;

/// A connection and what is known of its peer.
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// The peer as the kernel shows it to us; `None` where it does not.
    peer_pid: Option<u32>,
    client: Option<Admitted>,
    shared: Arc<Shared>,
}

/// A client that came in over this connection.
struct Admitted {
    admission: Admission,
    /// Tells the watch that the client said goodbye. Dropped without a word, it tells nothing.
    goodbye: oneshot::Sender<()>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Connection {
    pub(crate) fn new(
        stream: UnixStream,
        peer_pid: Option<u32>,
        shared: Arc<Shared>,
    ) -> Connection {
        shared.connection_count.fetch_add(1, Ordering::Relaxed);
        let peer_pid = peer_pid.filter(|&pid| pid != 0);
        Connection {
            stream,
            decoder: Decoder::new(),
            peer_pid,
            client: None,
            shared,
        }
    }

    /// Serves the connection to its end. Its end gives no client up (R1).
    pub(crate) async fn run(mut self) {
        let ended = self.serve().await;
        let pid = self.peer_pid;
        match ended {
            Ok(()) => {}
            Err(Ended::Protocol(error)) => self.refuse(error).await,
            Err(Ended::Io(error)) => tracing::debug!(?pid, %error, "a connection broke"),
        }
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            while let Some(message) = self.decoder.next_message()? {
                self.answer(message).await?;
            }
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(()),
                count => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// Bad bytes: one error to the peer, then this connection is over and nothing else (R5).
    async fn refuse(&mut self, error: ProtocolError) {
        self.shared
            .door
            .counters()
            .bad_connections
            .fetch_add(1, Ordering::Relaxed);
        tracing::warn!(pid = ?self.peer_pid, %error, "a connection was closed for its bytes");
        let text = error.to_string();
        let error = match error {
            ProtocolError::UnsupportedVersion { supported, found } => {
                version_error(supported, found)
            }
            _ => Error::new(ErrorCode::BadFrame, text, &[]),
        };
        // The peer may have gone; that is no news.
        let _ = self.send(error).await;
        let _ = self.stream.shutdown().await;
    }

    async fn answer(&mut self, message: Message) -> Result<(), Ended> {
        self.shared
            .door
            .counters()
            .requests
            .fetch_add(1, Ordering::Relaxed);
        match message {
            Message::Hello(hello) => self.hello(hello).await,
            Message::Goodbye(_) => self.goodbye().await,
            Message::ReserveHint(hint) => self.reserve(hint).await,
            Message::Status(_) => self.send(self.status()).await,
            Message::ListObjects(page) => self.list_objects(page).await,
            Message::ListClients(page) => self.list_clients(page).await,
            Message::Shutdown(_) => self.shut_down().await,
            other => {
                let text = format!("a raylet takes no {}", other.name());
                let kind = u64::from(other.kind());
                self.send(Error::new(
                    ErrorCode::UnexpectedMessage,
                    text,
                    &[("kind", kind)],
                ))
                .await
            }
        }
    }

    async fn hello(&mut self, hello: Hello) -> Result<(), Ended> {
        match self.admit(&hello) {
            Ok(welcome) => self.send_welcome(welcome).await,
            Err(error) => self.send(error).await,
        }
    }

    /// Lets the client in and sets the watch over its process.
    fn admit(&mut self, hello: &Hello) -> Result<Welcome, Error> {
        if hello.protocol_version != u32::from(PROTOCOL_VERSION) {
            let found = u8::try_from(hello.protocol_version).unwrap_or(u8::MAX);
            return Err(version_error(PROTOCOL_VERSION, found));
        }
        if self.client.is_some() {
            let text = "this connection has said hello before";
            return Err(Error::new(ErrorCode::AlreadyAdmitted, text, &[]));
        }
        let (process, watch) = self.watch_peer(hello)?;
        let keeper = &self.shared.keeper.keeper;
        let admission = keeper
            .admit(process, cut_label(&hello.label))
            .map_err(admit_error)?;
        let (goodbye, told) = oneshot::channel();
        spawn(watch_client(self.shared.clone(), admission, watch, told));
        self.client = Some(Admitted { admission, goodbye });
        self.shared
            .door
            .counters()
            .clients_admitted
            .fetch_add(1, Ordering::Relaxed);
        let (pid, label) = (process.pid, &hello.label);
        tracing::info!(
            pid,
            label,
            index = admission.client_index,
            "a client came in"
        );
        Ok(self.welcome(admission))
    }

    /// The peer's process, and the kernel's promise to say when it ends.
    fn watch_peer(&self, hello: &Hello) -> Result<(ProcessId, AsyncFd<PidFd>), Error> {
        let invisible = || {
            let pid = u64::from(self.peer_pid.unwrap_or(0));
            let text = format!("the kernel does not show process {pid} to the raylet");
            Error::new(ErrorCode::PeerInvisible, text, &[("pid", pid)])
        };
        let process = self
            .peer_pid
            .and_then(ProcessId::of)
            .ok_or_else(invisible)?;
        // The peer may have died and another process taken its pid: then the start times differ.
        // They are comparable where the peer sees itself under the pid that we see.
        let comparable = hello.start_ticks != 0 && hello.pid == process.pid;
        if comparable && hello.start_ticks != process.start_ticks {
            return Err(invisible());
        }
        let watch = Watch::try_open(process).map_err(|error| internal(&io::Error::other(error)))?;
        let watch = PidFd(watch.ok_or_else(invisible)?);
        // Deprecated because an `AsRawFd` may give a descriptor it does not own, or another one later,
        // and its successor is unsafe. `PidFd` owns its one descriptor and never changes it.
        #[expect(deprecated)]
        let watch = AsyncFd::with_interest(watch, Interest::READABLE);
        watch
            .map(|watch| (process, watch))
            .map_err(|error| internal(&error))
    }

    fn welcome(&self, admission: Admission) -> Welcome {
        let facts = self.shared.keeper.keeper.facts();
        Welcome {
            client_index: admission.client_index,
            client_generation: admission.client_generation,
            session_id: self.shared.session_id.clone(),
            capacity_bytes: facts.capacity_bytes,
            slot_count: facts.slot_count,
            max_clients: facts.max_clients,
            layout_version: facts.layout_version,
            spill_directory: self.shared.spill_directory.clone(),
            raylet_pid: std::process::id(),
        }
    }

    /// Sends the greeting, the descriptors on its first byte.
    async fn send_welcome(&mut self, welcome: Welcome) -> Result<(), Ended> {
        let bytes = frame::encode(&welcome.into())?;
        let (stream, keeper) = (&self.stream, &self.shared.keeper.keeper);
        let sent = stream.async_io(Interest::WRITABLE, || {
            let sent = store_shm::fd::send_fds(stream.as_fd(), &bytes, &keeper.descriptors());
            sent.map_err(send_error)
        });
        let sent = sent.await?;
        Ok(self.stream.write_all(&bytes[sent..]).await?)
    }

    async fn goodbye(&mut self) -> Result<(), Ended> {
        match self.client.take() {
            Some(client) => {
                // The watch may have seen the process end meanwhile: then it gave the client up.
                let _ = client.goodbye.send(());
                self.send(Farewell {}).await
            }
            None => self.send(not_admitted("Goodbye")).await,
        }
    }

    async fn reserve(&mut self, hint: ReserveHint) -> Result<(), Ended> {
        match &self.client {
            Some(client) => {
                let request = Request::Reserve(client.admission, hint.bytes);
                self.shared.keeper.request(request);
                Ok(())
            }
            None => self.send(not_admitted("ReserveHint")).await,
        }
    }

    fn status(&self) -> StatusReply {
        let (shared, relaxed) = (&self.shared, Ordering::Relaxed);
        StatusReply {
            session: shared.session.clone(),
            session_id: shared.session_id.clone(),
            raylet_pid: std::process::id(),
            uptime_ms: shared.started.elapsed().as_millis() as u64,
            connection_count: shared.connection_count.load(relaxed),
            bad_connection_count: shared.door.counters().bad_connections.load(relaxed),
            store: shared.keeper.keeper.status(),
        }
    }

    async fn list_objects(&mut self, page: ListObjects) -> Result<(), Ended> {
        let (send, receive) = oneshot::channel();
        let count_max = page_count(page.count_max);
        self.shared
            .keeper
            .request(Request::Objects(page.cursor, count_max, send));
        match receive.await {
            Ok(reply) => self.send(reply).await,
            Err(_) => self.send(ending()).await,
        }
    }

    async fn list_clients(&mut self, page: ListClients) -> Result<(), Ended> {
        let (send, receive) = oneshot::channel();
        let count_max = page_count(page.count_max);
        self.shared
            .keeper
            .request(Request::Clients(page.cursor, count_max, send));
        match receive.await {
            Ok(reply) => self.send(reply).await,
            Err(_) => self.send(ending()).await,
        }
    }

    async fn shut_down(&mut self) -> Result<(), Ended> {
        let client_count = self.shared.keeper.keeper.status().client_count;
        let sent = self.send(Ending { client_count }).await;
        tracing::info!(pid = ?self.peer_pid, "asked to end");
        self.shared.end.notify_one();
        sent
    }

    async fn send(&mut self, message: impl Into<Message>) -> Result<(), Ended> {
        let bytes = frame::encode(&message.into())?;
        Ok(self.stream.write_all(&bytes).await?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connection_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the client's goodbye or for the end of its process, and gives it up once (R1).
async fn watch_client(
    shared: Arc<Shared>,
    client: Admission,
    watch: AsyncFd<PidFd>,
    told: oneshot::Receiver<()>,
) {
    let counters = shared.door.counters();
    tokio::select! {
        biased;
        // A connection that ends without a goodbye drops the sender: that branch is out, the other
        // waits on.
        Ok(()) = told => {
            counters.clients_left.fetch_add(1, Ordering::Relaxed);
            shared.keeper.request(Request::Left(client));
        }
        () = process_end(&watch) => {
            tracing::info!(index = client.client_index, "a client's process ended");
            counters.clients_died.fetch_add(1, Ordering::Relaxed);
            shared.keeper.request(Request::Died(client));
        }
    }
}

async fn process_end(watch: &AsyncFd<PidFd>) {
    while let Ok(mut ready) = watch.readable().await {
        if watch.get_ref().0.is_dead() {
            return;
        }
        ready.clear_ready();
    }
    // The runtime is being taken down: the process may well live, so this never says it ended.
    std::future::pending().await
}

/// A pidfd as tokio wants it.
struct PidFd(Watch);

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn page_count(count_max: u32) -> u32 {
    count_max.clamp(1, PAGE_COUNT_MAX)
}

/// The label as far as it is kept, cut between characters.
fn cut_label(label: &str) -> &str {
    let end = (0..=LABEL_BYTES_MAX.min(label.len()))
        .rev()
        .find(|&end| label.is_char_boundary(end));
    &label[..end.expect("every text has a boundary at 0")]
}

fn version_error(supported: u8, found: u8) -> Error {
    let text = format!("protocol version {found}, this raylet speaks {supported}");
    let numbers = [
        ("supported", u64::from(supported)),
        ("found", u64::from(found)),
    ];
    Error::new(ErrorCode::UnsupportedVersion, text, &numbers)
}

fn admit_error(error: AdmitError) -> Error {
    match error {
        AdmitError::TooManyClients { max_clients } => {
            let numbers = [("max_clients", u64::from(max_clients))];
            Error::new(ErrorCode::TooManyClients, error.to_string(), &numbers)
        }
        AdmitError::Ending => ending(),
    }
}

fn not_admitted(name: &str) -> Error {
    Error::new(
        ErrorCode::NotAdmitted,
        format!("{name} needs a Hello first"),
        &[],
    )
}

fn ending() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the raylet is ending", &[])
}

/// The system's word as the runtime wants it: "would block" must stay recognisable.
fn send_error(error: FdError) -> io::Error {
    match error {
        FdError::System { source, .. } => io::Error::from(source),
        other => io::Error::other(other),
    }
}

fn internal(error: &io::Error) -> Error {
    let errno = error
        .raw_os_error()
        .map(|errno| ("errno", errno.unsigned_abs().into()));
    Error::new(ErrorCode::Internal, error.to_string(), errno.as_slice())
}
