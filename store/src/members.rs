//! Joining a store and finding out who died.
//!
//! The one thing to know: a client's number, process and state are one word, so a client is never
//! half there. Number 0 is nobody's: a decider of 0 means that nobody decides.

use crate::error::OpenError;
use crate::layout::client::{ClientRecord, ClientState, Identity};
use crate::sync::Ordering;
use crate::tables::Tables;
use store_shm::liveness::ProcessId;

/// A client number and which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    /// Row of holds.
    pub number: u16,
    /// How often the number was given out.
    pub generation: u16,
}

impl ClientId {
    /// Nobody: a forked child that was refused a number of its own.
    pub(crate) const NOBODY: ClientId = ClientId { number: 0, generation: 0 };

    /// In one word, the number in its low half.
    #[inline]
    pub(crate) const fn pack(self) -> u32 {
        (self.generation as u32) << 16 | self.number as u32
    }

    #[inline]
    pub(crate) const fn unpack(word: u32) -> ClientId {
        ClientId { number: word as u16, generation: (word >> 16) as u16 }
    }
}

/// Bytes that a label may have.
pub(crate) const LABEL_BYTES: usize = 40;

impl ClientRecord {
    pub(crate) fn read(&self) -> Identity {
        Identity::unpack(self.identity.load(Ordering::SeqCst))
    }

    pub(crate) fn label_text(&self) -> String {
        let bytes: Vec<u8> = self.label.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    fn write_label(&self, label: &str) {
        let mut bytes = [0; LABEL_BYTES];
        let mut end = label.len().min(LABEL_BYTES);
        while !label.is_char_boundary(end) {
            end -= 1;
        }
        bytes[..end].copy_from_slice(&label.as_bytes()[..end]);
        for (word, chunk) in self.label.iter().zip(bytes.chunks(8)) {
            word.store(u64::from_le_bytes(chunk.try_into().expect("8 of 40 bytes")), Ordering::Relaxed);
        }
    }

    /// The process behind the record, as far as the kernel can tell it from another.
    pub(crate) fn process(&self) -> ProcessId {
        ProcessId { pid: self.read().pid, start_ticks: self.start.load(Ordering::SeqCst) }
    }

    /// Whether the process behind a record in use has ended, by the kernel's word.
    pub(crate) fn is_dead(&self) -> bool {
        let identity = self.read();
        match identity.state {
            ClientState::Free => false,
            ClientState::Leaving => true,
            ClientState::Alive => self.process().is_dead(),
            // Its whole start time may not be written yet: the word's part has to do.
            ClientState::Joining => match ProcessId::of(identity.pid) {
                Some(process) => !identity.started_at(process.start_ticks) || process.is_dead(),
                // Gone, or no descriptor is left to look with, which is no death.
                None => ProcessId { pid: identity.pid, start_ticks: 0 }.is_dead(),
            },
        }
    }
}

impl Tables {
    pub(crate) fn client(&self, client: u16) -> &ClientRecord {
        &self.clients[client as usize]
    }

    /// Takes a free number for `process`; its row may be written before it is made alive.
    pub(crate) fn admit(
        &self,
        process: ProcessId,
        label: &str,
        parent: Option<u16>,
        now_ms: u32,
    ) -> Result<ClientId, OpenError> {
        for number in 1..self.geometry.clients as u16 {
            let record = self.client(number);
            let before = record.read();
            if before.state != ClientState::Free {
                continue;
            }
            let joining = Identity {
                state: ClientState::Joining,
                pid: process.pid,
                start_low: process.start_ticks as u32,
                generation: before.generation.wrapping_add(1),
            };
            let taken =
                record.identity.compare_exchange(before.pack(), joining.pack(), Ordering::SeqCst, Ordering::SeqCst);
            if taken.is_err() {
                continue;
            }
            record.start.store(process.start_ticks, Ordering::SeqCst);
            record.joined_ms.store(now_ms, Ordering::Relaxed);
            record.parent.store(parent.map_or(0, |parent| u64::from(parent) + 1), Ordering::Relaxed);
            record.write_label(label);
            // Before the row is used: whoever looks for holders looks at every number below.
            self.header().clients_high.fetch_max(u64::from(number) + 1, Ordering::SeqCst);
            return Ok(ClientId { number, generation: joining.generation });
        }
        Err(OpenError::TooManyClients { clients: self.geometry.clients - 1 })
    }

    /// Turns an admission into a living client of `process`.
    pub(crate) fn join(&self, client: ClientId, process: ProcessId) -> Result<(), OpenError> {
        let refused = OpenError::NotAdmitted { client: client.number, generation: client.generation };
        if client.number == 0 || u64::from(client.number) >= self.geometry.clients {
            return Err(refused);
        }
        let record = self.client(client.number);
        let before = record.read();
        if before.state != ClientState::Joining || before.generation != client.generation {
            return Err(refused);
        }
        record.start.store(process.start_ticks, Ordering::SeqCst);
        let alive = Identity {
            state: ClientState::Alive,
            pid: process.pid,
            start_low: process.start_ticks as u32,
            generation: client.generation,
        };
        record
            .identity
            .compare_exchange(before.pack(), alive.pack(), Ordering::SeqCst, Ordering::SeqCst)
            .map(|_| ())
            .map_err(|_| refused)
    }

    /// Turns an admission that nobody joined by into a client that leaves.
    pub(crate) fn dismiss(&self, client: ClientId) -> bool {
        if client.number == 0 || u64::from(client.number) >= self.geometry.clients {
            return false;
        }
        let record = self.client(client.number);
        let before = record.read();
        let is_joining = before.state == ClientState::Joining && before.generation == client.generation;
        let leaving = Identity { state: ClientState::Leaving, ..before };
        is_joining
            && record
                .identity
                .compare_exchange(before.pack(), leaving.pack(), Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// A client that goes of its own accord: swept like a dead one.
    pub(crate) fn leave(&self, client: u16) {
        let record = self.client(client);
        let identity = record.read();
        if identity.state == ClientState::Alive {
            let leaving = Identity { state: ClientState::Leaving, ..identity };
            record.identity.store(leaving.pack(), Ordering::SeqCst);
        }
    }

    /// Which life of this number has ended, by the kernel's word, and is not swept yet.
    pub(crate) fn ended(&self, number: u16) -> Option<ClientId> {
        if number == 0 || u64::from(number) >= self.geometry.clients {
            return None;
        }
        let record = self.client(number);
        let generation = record.read().generation;
        // The same before and after: what is dead is that life.
        let is_over = record.is_dead() && record.read().generation == generation;
        is_over.then_some(ClientId { number, generation })
    }

    /// Whether that life of a number is over, swept or not.
    pub(crate) fn has_ended(&self, client: ClientId) -> bool {
        self.is_swept(client) || self.ended(client.number) == Some(client)
    }

    /// Whether nothing of that life of a number is left, or there never was one.
    pub(crate) fn is_swept(&self, client: ClientId) -> bool {
        if u64::from(client.number) >= self.geometry.clients {
            return true;
        }
        let identity = self.client(client.number).read();
        identity.state == ClientState::Free || identity.generation != client.generation
    }

    /// Numbers in use.
    pub(crate) fn clients_in_use(&self) -> impl Iterator<Item = u16> + '_ {
        (1..self.clients_high() as u16).filter(|&number| self.client(number).read().state != ClientState::Free)
    }

    /// Wakes whoever keeps the store.
    pub(crate) fn ring_keeper(&self) {
        self.header().chores.ring();
    }

    pub(crate) fn keeper(&self) -> Option<u16> {
        let keeper = self.header().keeper.load(Ordering::SeqCst);
        let number = keeper.checked_sub(1)?;
        (number < self.geometry.clients).then_some(number as u16)
    }
}
