//! A line between a driver and its raylet on which everything that is said is counted.
//!
//! The one thing to know: it passes bytes and descriptors on as they come, so neither end notices. It
//! is for one driver of this process, as the raylet asks the kernel whose process its peer is. This
//! file must not change what is said.

use raylet_api::frame::Decoder;
use raylet_api::message::{Message, Want};
use raylet_api::record::{Kind, Record};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store_shm::fd::{recv_fds, send_fds};

/// Descriptors at once at most.
const FDS_MAX: usize = 4;

/// What a driver said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Messages, by name.
    pub(crate) counts: BTreeMap<&'static str, usize>,
    pub(crate) wants: Vec<Want>,
    /// Kinds of the tasks that it handed to the raylet.
    pub(crate) kinds: Vec<Kind>,
    /// Keys that it named.
    pub(crate) named: Vec<u64>,
}

impl Said {
    pub(crate) fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn note(&mut self, message: &Message) {
        *self.counts.entry(message.name()).or_default() += 1;
        match message {
            Message::Hello(hello) => self.wants.push(hello.want),
            Message::SubmitTask(task) => self.kinds.push(Record::unpack(&task.words).unwrap().kind),
            Message::NameFunctions(said) => self.named.extend(said.names.iter().map(|(key, _)| key)),
            _ => {}
        }
    }
}

/// A place to join the raylet of another directory.
pub(crate) struct Tap {
    directory: tempfile::TempDir,
    said: Arc<Mutex<Said>>,
}

impl Tap {
    pub(crate) fn of(session: &Path) -> Tap {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let (session, said): (PathBuf, Arc<Mutex<Said>>) = (session.to_owned(), Arc::default());
        let heard = said.clone();
        std::thread::spawn(move || serve(&listener, &session, &heard));
        Tap { directory, said }
    }

    pub(crate) fn address(&self) -> String {
        self.directory.path().display().to_string()
    }

    pub(crate) fn said(&self) -> Said {
        self.said.lock().unwrap().clone()
    }
}

/// Takes one driver in.
fn serve(listener: &UnixListener, session: &Path, said: &Mutex<Said>) {
    let (driver, _) = listener.accept().unwrap();
    let raylet = UnixStream::connect(session.join("socket")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| pass(&raylet, &driver, |_| {}));
        let mut decoder = Decoder::new();
        pass(&driver, &raylet, |bytes| {
            decoder.extend(bytes);
            while let Some(message) = decoder.next_message().unwrap() {
                said.lock().unwrap().note(&message);
            }
        });
    });
}

/// Passes on what comes, until one end is gone.
fn pass(from: &UnixStream, mut to: &UnixStream, mut hear: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok((count @ 1.., fds)) = recv_fds(from.as_fd(), &mut bytes, FDS_MAX) {
        hear(&bytes[..count]);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let Ok(sent) = send_fds(to.as_fd(), &bytes[..count], &borrowed) else { break };
        if to.write_all(&bytes[sent..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
