//! One connection: frames in, answers out, and the admission of a client that has not joined yet.
//!
//! The one thing to know: the connection matters to its client only until the client has joined the
//! store; its end before that takes the admission back, its end afterwards says nothing (R1). This
//! file must not know what a client holds.

use crate::server::Shared;
use crate::survey;
use raylet_api::frame::{self, Decoder, PROTOCOL_VERSION, ProtocolError};
use raylet_api::message::*;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{ClientId, OpenError};
use store_shm::fd::FdError;
use store_shm::liveness::ProcessId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

const READ_BYTES: usize = 4 << 10;

/// A connection and what is known of its peer.
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// The peer as the kernel shows it to us; `None` where it does not.
    peer_pid: Option<u32>,
    /// The client that was admitted over this connection.
    client: Option<ClientId>,
    shared: Arc<Shared>,
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
    pub(crate) fn new(stream: UnixStream, peer_pid: Option<u32>, shared: Arc<Shared>) -> Connection {
        shared.connection_count.fetch_add(1, Ordering::Relaxed);
        let peer_pid = peer_pid.filter(|&pid| pid != 0);
        Connection { stream, decoder: Decoder::new(), peer_pid, client: None, shared }
    }

    /// Serves the connection to its end.
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
        self.shared.door.counters().bad_connections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(pid = ?self.peer_pid, %error, "a connection was closed for its bytes");
        let text = error.to_string();
        let error = match error {
            ProtocolError::UnsupportedVersion { supported, found } => version_error(supported, found),
            _ => Error::new(ErrorCode::BadFrame, text, &[]),
        };
        // The peer may have gone; that is no news.
        let _ = self.send(error).await;
        let _ = self.stream.shutdown().await;
    }

    async fn answer(&mut self, message: Message) -> Result<(), Ended> {
        self.shared.door.counters().requests.fetch_add(1, Ordering::Relaxed);
        match message {
            Message::Hello(hello) => self.hello(hello).await,
            Message::Status(_) => {
                let store = self.shared.survey(survey::status).await;
                let status = store.map(|store| self.status(store));
                self.send_or_refuse(status).await
            }
            Message::ListObjects(page) => {
                let (cursor, count) = (page.cursor, page_count(page.count_max));
                let page = move |store: &_| survey::objects(store, cursor, count);
                let page = self.shared.survey(page).await;
                self.send_or_refuse(page).await
            }
            Message::ListClients(page) => {
                let (cursor, count) = (page.cursor, page_count(page.count_max));
                let page = move |store: &_| survey::clients(store, cursor, count);
                let page = self.shared.survey(page).await;
                self.send_or_refuse(page).await
            }
            Message::Shutdown(_) => self.shut_down().await,
            other => self.send(unexpected(&other)).await,
        }
    }

    async fn hello(&mut self, hello: Hello) -> Result<(), Ended> {
        match self.admit(&hello).await {
            Ok(welcome) => self.send_welcome(welcome).await,
            Err(error) => self.send(error).await,
        }
    }

    /// Reserves a number for the peer's process; the store's keeper watches it from here on.
    async fn admit(&mut self, hello: &Hello) -> Result<Welcome, Error> {
        if hello.protocol_version != u32::from(PROTOCOL_VERSION) {
            let found = u8::try_from(hello.protocol_version).unwrap_or(u8::MAX);
            return Err(version_error(PROTOCOL_VERSION, found));
        }
        if self.client.is_some() {
            let text = "this connection has said hello before";
            return Err(Error::new(ErrorCode::AlreadyAdmitted, text, &[]));
        }
        let process = self.peer_process(hello)?;
        let label = cut_label(&hello.label);
        let client = match self.shared.store.admit(process, label) {
            // The keeper may not have got to those who just died.
            Err(OpenError::TooManyClients { .. }) => {
                self.shared.survey(store::Store::reclaim).await?;
                self.shared.store.admit(process, label)
            }
            admitted => admitted,
        };
        let client = client.map_err(|error| admit_error(&error))?;
        self.client = Some(client);
        let counters = self.shared.door.counters();
        counters.clients_admitted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(pid = process.pid, label, number = client.number, "a client came in");
        Ok(self.welcome(client))
    }

    /// The peer's process, by the kernel's word. The tables name processes by pid, so the peer has to
    /// see itself under the pid that we see.
    fn peer_process(&self, hello: &Hello) -> Result<ProcessId, Error> {
        let invisible = || {
            let pid = u64::from(self.peer_pid.unwrap_or(0));
            let text = format!("the kernel shows the raylet process {pid}, which calls itself {}", hello.pid);
            Error::new(ErrorCode::PeerInvisible, text, &[("pid", pid)])
        };
        let process = self.peer_pid.filter(|&pid| pid == hello.pid).and_then(ProcessId::of).ok_or_else(invisible)?;
        // The peer may have died and another process taken its pid: then the start times differ.
        match hello.start_ticks != 0 && hello.start_ticks != process.start_ticks {
            true => Err(invisible()),
            false => Ok(process),
        }
    }

    fn welcome(&self, client: ClientId) -> Welcome {
        let (shared, geometry) = (&self.shared, self.shared.store.geometry());
        Welcome {
            client_index: client.number.into(),
            client_generation: client.generation.into(),
            session_id: shared.session_id.clone(),
            capacity_bytes: geometry.capacity_bytes,
            slot_count: geometry.slots,
            max_clients: geometry.clients as u32 - 1,
            layout_version: store::LAYOUT_VERSION,
            job: shared.job_count.fetch_add(1, Ordering::Relaxed) + 1,
            spill_directory: Some(shared.spill_directory.clone()),
            raylet_pid: std::process::id(),
            tasks: None,
        }
    }

    /// Sends the greeting, the descriptors on its first byte.
    async fn send_welcome(&mut self, welcome: Welcome) -> Result<(), Ended> {
        let bytes = frame::encode(&welcome.into())?;
        let (stream, segments) = (&self.stream, &self.shared.segments);
        let fds = [segments.tables.as_fd(), segments.data.as_fd(), segments.data_read_only.as_fd()];
        let sent = stream.async_io(Interest::WRITABLE, || {
            let sent = store_shm::fd::send_fds(stream.as_fd(), &bytes, &fds);
            sent.map_err(send_error)
        });
        let sent = sent.await?;
        Ok(self.stream.write_all(&bytes[sent..]).await?)
    }

    fn status(&self, store: StoreStatus) -> StatusReply {
        let (shared, relaxed) = (&self.shared, Ordering::Relaxed);
        StatusReply {
            session: shared.session.clone(),
            session_id: shared.session_id.clone(),
            raylet_pid: std::process::id(),
            uptime_ms: shared.started.elapsed().as_millis() as u64,
            connection_count: shared.connection_count.load(relaxed),
            bad_connection_count: shared.door.counters().bad_connections.load(relaxed),
            store,
        }
    }

    async fn shut_down(&mut self) -> Result<(), Ended> {
        let client_count = self.shared.store.tally().clients as u32;
        let sent = self.send(Ending { client_count }).await;
        tracing::info!(pid = ?self.peer_pid, "asked to end");
        self.shared.end.notify_one();
        sent
    }

    async fn send_or_refuse(&mut self, outcome: Result<impl Into<Message>, Error>) -> Result<(), Ended> {
        match outcome {
            Ok(reply) => self.send(reply).await,
            Err(error) => self.send(error).await,
        }
    }

    async fn send(&mut self, message: impl Into<Message>) -> Result<(), Ended> {
        let bytes = frame::encode(&message.into())?;
        Ok(self.stream.write_all(&bytes).await?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connection_count.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client
            && self.shared.store.dismiss(client)
        {
            tracing::debug!(number = client.number, "a client never joined");
        }
    }
}

fn page_count(count_max: u32) -> u32 {
    count_max.clamp(1, PAGE_COUNT_MAX)
}

/// The label as far as it is kept, cut between characters.
fn cut_label(label: &str) -> &str {
    let end = (0..=LABEL_BYTES_MAX.min(label.len())).rev().find(|&end| label.is_char_boundary(end));
    &label[..end.expect("every text has a boundary at 0")]
}

fn version_error(supported: u8, found: u8) -> Error {
    let text = format!("protocol version {found}, this raylet speaks {supported}");
    let numbers = [("supported", u64::from(supported)), ("found", u64::from(found))];
    Error::new(ErrorCode::UnsupportedVersion, text, &numbers)
}

fn admit_error(error: &OpenError) -> Error {
    match error {
        OpenError::TooManyClients { clients } => {
            let numbers = [("max_clients", *clients)];
            Error::new(ErrorCode::TooManyClients, error.to_string(), &numbers)
        }
        other => Error::new(ErrorCode::Internal, other.to_string(), &[]),
    }
}

fn unexpected(message: &Message) -> Error {
    let text = format!("a raylet takes no {}", message.name());
    let numbers = [("kind", u64::from(message.kind()))];
    Error::new(ErrorCode::UnexpectedMessage, text, &numbers)
}

/// The system's word as the runtime wants it: "would block" must stay recognisable.
fn send_error(error: FdError) -> io::Error {
    match error {
        FdError::System { source, .. } => io::Error::from(source),
        other => io::Error::other(other),
    }
}
