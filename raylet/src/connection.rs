//! One connection: frames in, answers out, and the admission of a client that has not joined yet.
//!
//! The one thing to know: the connection matters to a client of the store only until the client has
//! joined; its end before that takes the admission back, its end afterwards says nothing (R1). A driver
//! or worker keeps it as its control line. This file must not know what a client holds.

use crate::schedule::{self, Input, Joined, executable_of};
use crate::server::Shared;
use crate::survey;
use raylet_api::frame::{self, Decoder, PROTOCOL_VERSION, ProtocolError};
use raylet_api::message::*;
use raylet_api::{TASK_DESCRIPTORS, WELCOME_DESCRIPTORS};
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
    /// What it asked for where that needs the connection for its life.
    control: Option<(schedule::LineId, schedule::Outbound, schedule::Inbound)>,
    shared: Arc<Shared>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Connection {
    pub(crate) fn new(stream: UnixStream, peer_pid: Option<u32>, shared: Arc<Shared>) -> Connection {
        shared.connection_count.fetch_add(1, Ordering::Relaxed);
        let peer_pid = peer_pid.filter(|&pid| pid != 0);
        Connection { stream, decoder: Decoder::new(), peer_pid, client: None, control: None, shared }
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
                if self.control.is_some() {
                    return self.serve_control().await;
                }
            }
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(()),
                count => self.decoder.extend(&bytes[..count]),
            }
        }
    }

    /// From the greeting on, the connection is the client's control line.
    async fn serve_control(&mut self) -> Result<(), Ended> {
        let Some((line, outbound, mut inbound)) = self.control.take() else { return Ok(()) };
        let ends = (line, &outbound, &mut inbound);
        let ended = schedule::serve(&mut self.stream, &mut self.decoder, &self.shared, ends).await;
        self.close_control(line).await;
        ended
    }

    /// The scheduler hears of the end, and whether anybody had joined by then.
    async fn close_control(&mut self, line: schedule::LineId) {
        let has_never_joined = self.client.take().is_some_and(|client| self.shared.store.dismiss(client));
        self.shared.desk.tell(Input::Closed { line, has_never_joined }).await;
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
            Message::Shutdown(_) => self.shut_down().await,
            other => match question(&self.shared, other).await {
                Ok(reply) => self.send(reply).await,
                Err(other) => self.send(unexpected(&other)).await,
            },
        }
    }

    async fn hello(&mut self, hello: Hello) -> Result<(), Ended> {
        match self.admit(&hello).await {
            Ok(welcome) if hello.want == Want::Store => self.send_welcome(welcome).await,
            Ok(welcome) => self.begin_control(hello, welcome).await,
            Err(error) => self.send(error).await,
        }
    }

    /// The scheduler knows of a driver or worker before that can say anything.
    async fn begin_control(&mut self, hello: Hello, welcome: Welcome) -> Result<(), Ended> {
        let (line, (out, inbound)) = (self.shared.desk.new_line(), schedule::pair());
        let Some(client) = self.client else { return Ok(()) };
        let joined = Joined {
            line,
            client,
            pid: hello.pid,
            job: welcome.job,
            want: hello.want,
            worker: hello.worker,
            program: hello.program.unwrap_or_default(),
            executable: executable_of(hello.pid).filter(|_| hello.want == Want::Driver),
            out: out.clone(),
        };
        self.shared.desk.tell(Input::Joined(Box::new(joined))).await;
        let welcome = Welcome { tasks: Some(self.shared.desk.tasks()), ..welcome };
        let sent = self.send_welcome(welcome).await;
        match sent {
            Ok(()) => self.control = Some((line, out, inbound)),
            Err(_) => self.close_control(line).await,
        }
        sent
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
        let admit = || match hello.want {
            Want::Store => self.shared.store.admit(process, label),
            _ => self.shared.desk.gate.admit(|| self.shared.store.admit(process, label)),
        };
        let client = match admit() {
            // The keeper may not have got to those who just died.
            Err(OpenError::TooManyClients { .. }) => {
                self.shared.survey(store::Store::reclaim).await?;
                admit()
            }
            admitted => admitted,
        };
        let client = client.map_err(|error| admit_error(&error))?;
        self.client = Some(client);
        let counters = self.shared.door.counters();
        counters.clients_admitted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(pid = process.pid, label, number = client.number, "a client came in");
        Ok(self.welcome(client, hello))
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

    fn welcome(&self, client: ClientId, hello: &Hello) -> Welcome {
        let (shared, geometry) = (&self.shared, self.shared.store.geometry());
        Welcome {
            client_index: client.number.into(),
            client_generation: client.generation.into(),
            session_id: shared.session_id.clone(),
            capacity_bytes: geometry.capacity_bytes,
            slot_count: geometry.slots,
            max_clients: geometry.clients as u32 - 1,
            layout_version: store::LAYOUT_VERSION,
            job: self.job(hello),
            spill_directory: Some(shared.spill_directory.clone()),
            raylet_pid: std::process::id(),
            tasks: None,
            timeline: shared.timeline,
        }
    }

    /// A job of its own for everybody but workers, who are of their driver's.
    fn job(&self, hello: &Hello) -> u32 {
        match (hello.want, hello.worker) {
            (Want::Worker, Some(worker)) => self.shared.desk.worker_jobs.of(worker),
            _ => self.shared.job_count.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Sends the greeting, the descriptors on its first byte.
    async fn send_welcome(&mut self, welcome: Welcome) -> Result<(), Ended> {
        let tasks = welcome.tasks;
        let bytes = frame::encode(&welcome.into())?;
        let (stream, segments) = (&self.stream, &self.shared.segments);
        let fds = [&segments.tables, &segments.data, &segments.data_read_only, &self.shared.desk.segment];
        let fds = fds.map(AsFd::as_fd);
        let count = if tasks.is_some() { TASK_DESCRIPTORS } else { WELCOME_DESCRIPTORS };
        let sent = stream.async_io(Interest::WRITABLE, || {
            let sent = store_shm::fd::send_fds(stream.as_fd(), &bytes, &fds[..count]);
            sent.map_err(send_error)
        });
        let sent = sent.await?;
        Ok(self.stream.write_all(&bytes[sent..]).await?)
    }

    async fn shut_down(&mut self) -> Result<(), Ended> {
        let client_count = self.shared.store.tally().clients as u32;
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
        if let Some(client) = self.client
            && self.shared.store.dismiss(client)
        {
            tracing::debug!(number = client.number, "a client never joined");
        }
    }
}

/// Answers what anybody may ask about the whole; gives back what is no such question.
pub(crate) async fn question(shared: &Arc<Shared>, message: Message) -> Result<Message, Message> {
    let reply = match message {
        Message::Status(_) => {
            let store = shared.survey(survey::status).await;
            store.map(|store| Message::from(status(shared, store)))
        }
        Message::ListObjects(page) => {
            let (cursor, count) = (page.cursor, page_count(page.count_max));
            shared.survey(move |store| survey::objects(store, cursor, count)).await.map(Message::from)
        }
        Message::ListClients(page) => {
            let (cursor, count) = (page.cursor, page_count(page.count_max));
            shared.survey(move |store| survey::clients(store, cursor, count)).await.map(Message::from)
        }
        what @ (Message::ListTasks(_)
        | Message::ListActors(_)
        | Message::ListWorkers(_)
        | Message::ListGroups(_)
        | Message::Summary(_)
        | Message::Timeline(_)) => {
            let ending = || Error::new(ErrorCode::ShuttingDown, "the raylet is ending", &[]);
            shared.desk.ask(what).await.ok_or_else(ending)
        }
        other => return Err(other),
    };
    Ok(reply.unwrap_or_else(Message::from))
}

fn status(shared: &Shared, store: StoreStatus) -> StatusReply {
    let relaxed = Ordering::Relaxed;
    StatusReply {
        session: shared.session.clone(),
        session_id: shared.session_id.clone(),
        raylet_pid: std::process::id(),
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        connection_count: shared.connection_count.load(relaxed),
        bad_connection_count: shared.door.counters().bad_connections.load(relaxed),
        store,
        metrics_port: shared.metrics_port,
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

pub(crate) fn unexpected(message: &Message) -> Error {
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
