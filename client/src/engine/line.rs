//! The control line: what a driver or worker and its raylet say to each other once it is in.
//!
//! The one thing to know: nobody waits here for the raylet but who asked it something. A message goes
//! out at once if the socket takes it, else it waits in memory and the reader's thread sends it: a
//! raylet that is stopped holds up its answers and nothing else. When the line ends, every question
//! is answered with [`LineError::RayletGone`], and so is every later one. This file must not know
//! what the messages are for.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use raylet_api::frame::{self, Decoder, ProtocolError};
use raylet_api::message::Message;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 16 << 10;

/// A question to the raylet has no answer, or a message did not go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LineError {
    /// The raylet has ended.
    #[error("the raylet has ended")]
    RayletGone,
    /// The raylet is there and silent: stopped, or very busy.
    #[error("the raylet did not answer within {waited_ms} ms")]
    NoAnswer {
        /// How long it had.
        waited_ms: u64,
    },
    /// The message is no frame: it is too long.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Takes what the raylet says unasked. It runs on the reader's thread, so it must not ask.
pub(crate) type OnMessage = Box<dyn FnMut(Message) + Send>;
/// Is told once that the raylet is gone.
pub(crate) type OnGone = Box<dyn FnOnce() + Send>;
type Answer = Box<dyn FnOnce(Result<Message, LineError>) + Send>;

/// A control line. Dropping it ends it.
pub(crate) struct Line {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    stream: UnixStream,
    /// Wakes the reader, who sends what waits.
    wake: EventFd,
    outgoing: Mutex<Vec<u8>>,
    /// `None` once the line has ended.
    asked: Mutex<Option<HashMap<u64, Answer>>>,
    requests: AtomicU64,
    is_gone: AtomicBool,
    /// The process that reads; what it forks has this value, and no reader.
    owner: u32,
}

/// Nothing here is left half changed by a panic: what others gave runs without a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Goes on after the greeting: `decoder` may have bytes that came behind it.
    pub(crate) fn start(
        stream: UnixStream,
        decoder: Decoder,
        on_message: OnMessage,
        on_gone: OnGone,
    ) -> io::Result<Line> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let shared = Arc::new(Shared {
            stream,
            wake: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            outgoing: Mutex::default(),
            asked: Mutex::new(Some(HashMap::new())),
            requests: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
            owner: std::process::id(),
        });
        let mut reader = Reader { shared: shared.clone(), decoder, on_message };
        let thread = std::thread::Builder::new().name("raylet-line".to_owned());
        let thread = thread.spawn(move || {
            reader.run();
            reader.shared.end();
            on_gone();
        })?;
        Ok(Line { shared, reader: Some(thread) })
    }

    /// Whether the raylet has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.is_gone.load(Ordering::Acquire)
    }

    /// Ends it; the raylet sees its other end go.
    pub(crate) fn close(&self) {
        // The reader then reads to the end, so that what was sent is not thrown away by a reset.
        let _ = shutdown(self.shared.stream.as_raw_fd(), Shutdown::Both);
        self.shared.wake_reader();
    }

    /// Says something; never waits.
    pub(crate) fn send(&self, message: impl Into<Message>) -> Result<(), LineError> {
        self.shared.send(&frame::encode(&message.into())?)
    }

    /// Sends what waits, for a process that is about to end; false if it did not go in time.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.shared.flush().is_err() {
                return false;
            }
            if lock(&self.shared.outgoing).is_empty() {
                return true;
            }
            let Some(left) = timeout.checked_sub(start.elapsed()) else { return false };
            let mut polled = [PollFd::new(self.shared.stream.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
    }

    /// Asks, and waits for the answer; `question` is given the number to ask with.
    pub(crate) fn ask<M: Into<Message>>(
        &self,
        question: impl FnOnce(u64) -> M,
        timeout: Duration,
    ) -> Result<Message, LineError> {
        let (answer, answered) = sync_channel(1);
        let request = self.ask_then(question, move |came| {
            // Who asked may have given up.
            let _ = answer.try_send(came);
        })?;
        match answered.recv_timeout(timeout) {
            Ok(came) => came,
            Err(RecvTimeoutError::Disconnected) => Err(LineError::RayletGone),
            Err(RecvTimeoutError::Timeout) => {
                self.shared.forget(request);
                Err(LineError::NoAnswer { waited_ms: timeout.as_millis() as u64 })
            }
        }
    }

    /// Asks; the reader's thread calls `then` with the answer, or with the end of the line. Where this
    /// fails, it is not called.
    pub(crate) fn ask_then<M: Into<Message>>(
        &self,
        question: impl FnOnce(u64) -> M,
        then: impl FnOnce(Result<Message, LineError>) + Send + 'static,
    ) -> Result<u64, LineError> {
        let request = self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = frame::encode(&question(request).into())?;
        match &mut *lock(&self.shared.asked) {
            Some(asked) => asked.insert(request, Box::new(then)),
            None => return Err(LineError::RayletGone),
        };
        match self.shared.send(&bytes) {
            Ok(()) => Ok(request),
            Err(error) => {
                // Where the end came in between, `then` has been told.
                let is_ours = self.shared.forget(request);
                if is_ours { Err(error) } else { Ok(request) }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shared.owner != std::process::id() {
            return;
        }
        self.close();
        let Some(reader) = self.reader.take() else { return };
        if reader.thread().id() != std::thread::current().id() {
            // A panic on that thread has been reported.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn send(&self, bytes: &[u8]) -> Result<(), LineError> {
        if self.is_gone.load(Ordering::Acquire) || self.owner != std::process::id() {
            return Err(LineError::RayletGone);
        }
        let mut outgoing = lock(&self.outgoing);
        if !outgoing.is_empty() {
            outgoing.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = self.write(bytes).map_err(|_| LineError::RayletGone)?;
        if sent < bytes.len() {
            outgoing.extend_from_slice(&bytes[sent..]);
            drop(outgoing);
            self.wake_reader();
        }
        Ok(())
    }

    /// As much as the socket takes now.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut sent = 0;
        while sent < bytes.len() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.stream.as_raw_fd(), &bytes[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn flush(&self) -> Result<(), Errno> {
        let mut outgoing = lock(&self.outgoing);
        let sent = self.write(&outgoing)?;
        outgoing.drain(..sent);
        Ok(())
    }

    fn wake_reader(&self) {
        // Full means that it is awake.
        let _ = self.wake.write(1);
    }

    /// Whether the question was still open.
    fn forget(&self, request: u64) -> bool {
        let forgotten = lock(&self.asked).as_mut().and_then(|asked| asked.remove(&request));
        forgotten.is_some()
    }

    fn end(&self) {
        self.is_gone.store(true, Ordering::Release);
        let asked = lock(&self.asked).take();
        asked.into_iter().flatten().for_each(|(_, then)| then(Err(LineError::RayletGone)));
    }

    /// The question that a message answers.
    fn answered(&self, message: &Message) -> Option<Answer> {
        let request = request_of(message)?;
        lock(&self.asked).as_mut()?.remove(&request)
    }
}

/// The number of the request that a message answers, if it is an answer.
fn request_of(message: &Message) -> Option<u64> {
    match message {
        Message::QueueOpened(answer) => Some(answer.request),
        Message::ActorCreated(answer) => Some(answer.request),
        Message::ActorFound(answer) => Some(answer.request),
        Message::Done(answer) => Some(answer.request),
        Message::Refused(answer) => Some(answer.request),
        _ => None,
    }
}

/// The thread that reads, and sends what the socket did not take at once.
struct Reader {
    shared: Arc<Shared>,
    decoder: Decoder,
    on_message: OnMessage,
}

impl Reader {
    fn run(&mut self) {
        let mut bytes = vec![0; READ_BYTES];
        // What came behind the greeting may be whole already.
        while self.deliver().is_ok() {
            let Ok((is_readable, is_writable)) = self.wait() else { return };
            if is_writable && self.shared.flush().is_err() {
                return;
            }
            if is_readable && !self.read(&mut bytes) {
                return;
            }
        }
    }

    /// Sleeps until there is something to do: whether to read, and whether to send.
    fn wait(&self) -> Result<(bool, bool), Errno> {
        let mut events = PollFlags::POLLIN;
        let has_outgoing = !lock(&self.shared.outgoing).is_empty();
        events.set(PollFlags::POLLOUT, has_outgoing);
        let stream = PollFd::new(self.shared.stream.as_fd(), events);
        let mut polled = [stream, PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let _ = self.shared.wake.read();
        let came = polled[0].revents().unwrap_or(PollFlags::empty());
        Ok((!(came & !PollFlags::POLLOUT).is_empty(), came.contains(PollFlags::POLLOUT)))
    }

    /// False at the end of the line.
    fn read(&mut self, bytes: &mut [u8]) -> bool {
        match recv(self.shared.stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(count) => {
                self.decoder.extend(&bytes[..count]);
                true
            }
            Err(error) => matches!(error, Errno::EINTR | Errno::EAGAIN),
        }
    }

    fn deliver(&mut self) -> Result<(), ProtocolError> {
        while let Some(message) = self.decoder.next_message()? {
            match self.shared.answered(&message) {
                Some(then) => then(Ok(message)),
                None => (self.on_message)(message),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::work::{CreateGroup, Done, FindActor, Notice};
    use std::io::{Read, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(60);

    struct Ends {
        line: Line,
        raylet: UnixStream,
        said: Receiver<Message>,
        gone: Receiver<()>,
    }

    fn ends() -> Ends {
        let (ours, raylet) = UnixStream::pair().unwrap();
        let (say, said): (Sender<Message>, _) = channel();
        let (go, gone) = channel();
        let on_message = Box::new(move |message| _ = say.send(message));
        let on_gone = Box::new(move || _ = go.send(()));
        let line = Line::start(ours, Decoder::new(), on_message, on_gone).unwrap();
        Ends { line, raylet, said, gone }
    }

    fn receive(stream: &mut UnixStream, decoder: &mut Decoder) -> Message {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = decoder.next_message().unwrap() {
                return message;
            }
            let count = stream.read(&mut bytes).unwrap();
            decoder.extend(&bytes[..count]);
        }
    }

    #[test]
    fn an_answer_goes_to_who_asked_and_the_rest_to_the_listener() {
        let Ends { line, mut raylet, said, .. } = ends();
        let answering = std::thread::spawn(move || {
            let mut decoder = Decoder::new();
            let Message::CreateGroup(asked) = receive(&mut raylet, &mut decoder) else { panic!("another message") };
            let notice = Message::from(Notice { text: "unasked".to_owned() });
            raylet.write_all(&frame::encode(&notice).unwrap()).unwrap();
            raylet.write_all(&frame::encode(&Done { request: asked.request }.into()).unwrap()).unwrap();
            raylet
        });
        let answer = line.ask(|request| CreateGroup { request, ..CreateGroup::default() }, SOON).unwrap();
        assert!(matches!(answer, Message::Done(_)), "{answer:?}");
        assert!(matches!(said.recv().unwrap(), Message::Notice(_)));
        drop(answering.join().unwrap());
    }

    #[test]
    fn a_raylet_that_does_not_read_holds_nobody_up() {
        let Ends { line, mut raylet, .. } = ends();
        let long = "x".repeat(100_000);
        for count in 0..50 {
            line.send(Notice { text: format!("{count} {long}") }).unwrap();
        }
        let silent = line.ask(|request| FindActor { request, ..FindActor::default() }, Duration::from_millis(1));
        assert!(matches!(silent, Err(LineError::NoAnswer { waited_ms: 1 })));
        let mut decoder = Decoder::new();
        for count in 0..50 {
            let Message::Notice(Notice { text }) = receive(&mut raylet, &mut decoder) else { panic!("in order") };
            assert!(text.starts_with(&format!("{count} ")));
        }
        assert!(matches!(receive(&mut raylet, &mut decoder), Message::FindActor(_)));
    }

    #[test]
    fn at_the_end_every_question_is_answered() {
        let Ends { line, raylet, gone, .. } = ends();
        let (answer, answered) = channel();
        let then = move |came: Result<Message, LineError>| _ = answer.send(came.is_err());
        line.ask_then(|request| FindActor { request, ..FindActor::default() }, then).unwrap();
        drop(raylet);
        assert_eq!(answered.recv(), Ok(true));
        gone.recv().unwrap();
        assert!(line.is_gone());
        assert!(matches!(line.send(Notice::default()), Err(LineError::RayletGone)));
        let asked = line.ask(|request| FindActor { request, ..FindActor::default() }, SOON);
        assert!(matches!(asked, Err(LineError::RayletGone)));
    }
}
