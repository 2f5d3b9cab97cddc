//! A control line: what a driver or worker says goes to the scheduler, and what that says to it waits
//! here until it is read.
//!
//! The one thing to know: nobody waits for the peer. What it does not read piles up, up to bounds:
//! the lines that workers wrote are dropped and counted, and a peer that asks without reading is not
//! read any more itself. This file must not know what the messages mean.

use super::Input;
use crate::connection::{Ended, question};
use crate::server::Shared;
use raylet_api::frame::{self, Decoder};
use raylet_api::message::Message;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

/// Answers that a peer may leave unread before it is not read any more.
const UNREAD_COUNT_MAX: usize = 4096;
/// Bytes of log lines that wait for one driver.
const LOG_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 16 << 10;
/// After this time what was written on other lines before is read: the timers' resolution.
const OTHERS_FIRST: Duration = Duration::from_millis(1);

/// Names a control line; never used again.
pub(crate) type LineId = u64;

/// What waits for a peer.
#[derive(Debug, Default)]
struct Load {
    count: AtomicUsize,
    log_bytes: AtomicUsize,
    has_room: Notify,
    is_dead: Notify,
}

/// The end of a line that the scheduler has.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    messages: mpsc::UnboundedSender<(Message, usize)>,
    load: Arc<Load>,
}

/// The end of a line that its connection has.
#[derive(Debug)]
pub(crate) struct Inbound {
    messages: mpsc::UnboundedReceiver<(Message, usize)>,
    load: Arc<Load>,
}

/// A line's two ends.
pub(crate) fn pair() -> (Outbound, Inbound) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::new(Load::default());
    (Outbound { messages: sender, load: load.clone() }, Inbound { messages: receiver, load })
}

impl Outbound {
    /// Says something; a peer that is gone does not hear it.
    pub(crate) fn send(&self, message: impl Into<Message>) {
        self.push(message.into(), 0);
    }

    /// Whether the peer reads its log lines.
    pub(crate) fn has_log_room(&self) -> bool {
        // Relaxed: these count, and order nothing.
        self.load.log_bytes.load(Ordering::Relaxed) < LOG_BYTES_MAX
    }

    /// Says something that is so large and may be left out.
    pub(crate) fn send_log(&self, message: impl Into<Message>, bytes: usize) {
        self.load.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.push(message.into(), bytes);
    }

    fn push(&self, message: Message, log_bytes: usize) {
        self.load.count.fetch_add(1, Ordering::Relaxed);
        let _ = self.messages.send((message, log_bytes));
    }

    /// The peer is dead: what it said before is read, and nothing that others say in its place.
    pub(crate) fn drain(&self) {
        self.load.is_dead.notify_one();
    }
}

/// Carries messages both ways until the peer ends the line, or its bytes do.
pub(crate) async fn serve(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
    shared: &Arc<Shared>,
    (line, outbound, inbound): (LineId, &Outbound, &mut Inbound),
) -> Result<(), Ended> {
    let (read, write) = stream.split();
    let Inbound { messages, load } = inbound;
    tokio::select! {
        ended = hear(read, decoder, shared, line, outbound) => ended,
        () = say(write, messages, load) => Ok(()),
    }
}

async fn hear(
    mut read: ReadHalf<'_>,
    decoder: &mut Decoder,
    shared: &Arc<Shared>,
    line: LineId,
    outbound: &Outbound,
) -> Result<(), Ended> {
    let (mut bytes, load) = (vec![0; READ_BYTES], &outbound.load);
    loop {
        while let Some(message) = decoder.next_message()? {
            take_in(message, shared, line, outbound).await;
        }
        tokio::select! {
            biased;
            () = load.is_dead.notified() => return last_words(&read, decoder, shared, line, outbound).await,
            () = load.has_room.notified(), if load.count.load(Ordering::Relaxed) > UNREAD_COUNT_MAX => {}
            count = read.read(&mut bytes), if load.count.load(Ordering::Relaxed) <= UNREAD_COUNT_MAX => match count? {
                0 => return Ok(()),
                count => decoder.extend(&bytes[..count]),
            },
        }
    }
}

/// A child of the dead may still have the socket, so its end may not come.
async fn last_words(
    read: &ReadHalf<'_>,
    decoder: &mut Decoder,
    shared: &Arc<Shared>,
    line: LineId,
    outbound: &Outbound,
) -> Result<(), Ended> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match read.try_read(&mut bytes) {
            Ok(count @ 1..) => decoder.extend(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Ok(()),
        }
        while let Some(message) = decoder.next_message()? {
            take_in(message, shared, line, outbound).await;
        }
    }
}

async fn take_in(message: Message, shared: &Arc<Shared>, line: LineId, outbound: &Outbound) {
    shared.door.counters().requests.fetch_add(1, Ordering::Relaxed);
    if matches!(message, Message::RemakeObject(_)) {
        // The recipe came on the line of a worker, which may be read after this one though it was written
        // before. A timer ends only when the sockets have been looked at.
        tokio::time::sleep(OTHERS_FIRST).await;
    }
    match question(shared, message).await {
        Ok(reply) => outbound.send(reply),
        Err(message) => shared.desk.tell(Input::Said { line, message: Box::new(message) }).await,
    }
}

/// Writes what waits. A peer that cannot be written to may still have said something: its end is for
/// whoever reads.
async fn say(mut write: WriteHalf<'_>, messages: &mut mpsc::UnboundedReceiver<(Message, usize)>, load: &Load) {
    while let Some((message, log_bytes)) = messages.recv().await {
        load.count.fetch_sub(1, Ordering::Relaxed);
        load.log_bytes.fetch_sub(log_bytes, Ordering::Relaxed);
        load.has_room.notify_one();
        let bytes = match frame::encode(&message) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, message = message.name(), "a message could not be sent");
                continue;
            }
        };
        if write.write_all(&bytes).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}
