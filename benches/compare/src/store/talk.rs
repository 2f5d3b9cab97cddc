//! What the harness and its other processes say to each other, outside the store.
//!
//! The one thing to know: a process of ours finds a Unix socket at its standard input. First come the
//! store's descriptors and its client number, then words: 64 bits each, little endian. Nothing that
//! is timed goes this way.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use store::{ClientId, Config, Handle, Keeping, ObjectRef, Segments, Store};
use store_shm::fd::{recv_fds, send_fds};
use store_shm::liveness::ProcessId;

use crate::child::{OTHER_CORE, OwnedChild};
use crate::error::BenchError;

/// How long the harness waits for an answer.
const SILENCE: Duration = Duration::from_secs(60);
const WORD_BYTES: usize = size_of::<u64>();
const LOST: &str = "the socket to the other process";

/// One end of the socket.
pub(super) struct Talk(UnixStream);

/// Another process of ours, a client of the harness's store.
pub(super) struct Partner {
    pub(super) process: OwnedChild,
    pub(super) talk: Talk,
}

impl Partner {
    /// Starts this executable in a role and admits it to the store.
    pub(super) fn start(role: &str, store: &Store) -> Result<Self, BenchError> {
        let (ours, theirs) = UnixStream::pair().map_err(BenchError::system(LOST))?;
        ours.set_read_timeout(Some(SILENCE)).map_err(BenchError::system(LOST))?;
        let core = OTHER_CORE.to_string();
        let input = Stdio::from(std::os::fd::OwnedFd::from(theirs));
        let process = OwnedChild::start_role_with(&["ours", "--role", role, "--core", &core], input)?;
        let talk = Talk(ours);
        talk.send_store(store, process.id(), role)?;
        Ok(Self { process, talk })
    }
}

impl Talk {
    /// The end that the harness left at this process' standard input.
    pub(super) fn of_role() -> Result<Self, BenchError> {
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(BenchError::system(LOST))?;
        Ok(Self(UnixStream::from(socket)))
    }

    fn send_store(&self, store: &Store, pid: u32, label: &str) -> Result<(), BenchError> {
        let process = ProcessId::of(pid).ok_or(BenchError::Answer { peer: "ours", answer: String::new() })?;
        let client = store.admit(process, label).map_err(BenchError::store("admit"))?;
        let segments = store.segments().map_err(BenchError::store("descriptors"))?;
        let fds = [&segments.tables, &segments.data, &segments.data_read_only].map(AsFd::as_fd);
        let payload = [client.number.to_le_bytes(), client.generation.to_le_bytes()].concat();
        send_fds(self.0.as_fd(), &payload, &fds).map(|_| ()).map_err(|error| BenchError::system(LOST)(error.into()))
    }

    /// Joins the harness's store.
    pub(super) fn join_store(&self) -> Result<Store, BenchError> {
        let mut payload = [0; 4];
        let received = recv_fds(self.0.as_fd(), &mut payload, 3);
        let (_, fds) = received.map_err(|error| BenchError::system(LOST)(error.into()))?;
        let [tables, data, data_read_only] = <[_; 3]>::try_from(fds).map_err(|fds| {
            let found = fds.len() as u64;
            BenchError::TooFew { what: "descriptors of a store", found, wanted: 3 }
        })?;
        let segments = Segments { tables, data, data_read_only };
        let client = ClientId {
            number: u16::from_le_bytes([payload[0], payload[1]]),
            generation: u16::from_le_bytes([payload[2], payload[3]]),
        };
        let config = Config { keeping: Keeping::Daemon, ..Config::default() };
        Store::attach(segments, client, config).map_err(BenchError::store("attach"))
    }

    /// Says some words.
    pub(super) fn tell(&mut self, words: &[u64]) -> Result<(), BenchError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.0.write_all(&bytes).map_err(BenchError::system(LOST))
    }

    /// Waits for as many words as are wanted.
    pub(super) fn hear<const COUNT: usize>(&mut self) -> Result<[u64; COUNT], BenchError> {
        let mut words = [0; COUNT];
        for word in &mut words {
            let mut bytes = [0; WORD_BYTES];
            self.0.read_exact(&mut bytes).map_err(BenchError::system(LOST))?;
            *word = u64::from_le_bytes(bytes);
        }
        Ok(words)
    }

    /// Names objects of the store to the other process.
    pub(super) fn tell_objects(&mut self, objects: &[ObjectRef]) -> Result<(), BenchError> {
        let handles = objects.iter().map(ObjectRef::handle);
        let words = handles.flat_map(|handle| [u64::from(handle.slot), handle.generation]);
        let all: Vec<u64> = [objects.len() as u64].into_iter().chain(words).collect();
        self.tell(&all)
    }

    /// Refers to the objects that the other process names.
    pub(super) fn hear_objects(&mut self, store: &Store) -> Result<Vec<ObjectRef>, BenchError> {
        let [count] = self.hear()?;
        let mut bytes = vec![0; count as usize * 2 * WORD_BYTES];
        self.0.read_exact(&mut bytes).map_err(BenchError::system(LOST))?;
        let pairs = bytes.as_chunks::<WORD_BYTES>().0.as_chunks::<2>().0;
        let objects: Vec<ObjectRef> = pairs
            .iter()
            .map(|pair| pair.map(u64::from_le_bytes))
            .filter_map(|[slot, generation]| {
                let slot = slot as u32;
                store.refer(Handle { slot, generation })
            })
            .collect();
        let found = objects.len() as u64;
        (found == count).then_some(objects).ok_or(BenchError::TooFew {
            what: "objects that still exist",
            found,
            wanted: count,
        })
    }
}
