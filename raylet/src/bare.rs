//! A keeper that lets clients in and keeps nothing: for tests of the rim.
//!
//! The one thing to know: it hands out real, empty segments, so a greeting is whole, and it records
//! what the rim told it. It must not grow into a store.

use crate::keeper::{Admission, AdmitError, ObjectKeeper, Rest, StoreFacts};
use raylet_api::message::{ClientInfo, ClientsReply, ObjectsReply, StoreStatus};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store_shm::liveness::ProcessId;
use store_shm::segment::{Memfd, SegmentError};

const TABLES_BYTES: u64 = 1 << 16;

/// See the file's docs.
pub struct BareKeeper {
    tables: Memfd,
    data: Memfd,
    data_read_only: OwnedFd,
    state: Mutex<State>,
    bell: Condvar,
}

struct State {
    rows: Vec<Row>,
    ending: bool,
    swept_client_count: u64,
    left_client_count: u64,
    reserved_bytes: u64,
    rung: u32,
}

#[derive(Clone, Default)]
struct Row {
    generation: u64,
    client: Option<(ProcessId, String)>,
}

impl BareKeeper {
    /// A keeper with a data segment of `capacity_bytes` and `max_clients` rows.
    pub fn new(capacity_bytes: u64, max_clients: u32) -> Result<BareKeeper, SegmentError> {
        let data = Memfd::create("raylet-data", capacity_bytes)?;
        let state = State {
            rows: vec![Row::default(); max_clients as usize],
            ending: false,
            swept_client_count: 0,
            left_client_count: 0,
            reserved_bytes: 0,
            rung: 0,
        };
        Ok(BareKeeper {
            tables: Memfd::create("raylet-tables", TABLES_BYTES)?,
            data_read_only: data.read_only()?,
            data,
            state: Mutex::new(state),
            bell: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, client: Admission, count: impl FnOnce(&mut State) -> &mut u64) {
        let mut state = self.lock();
        let row = &mut state.rows[client.client_index as usize];
        assert_eq!(
            row.generation, client.client_generation,
            "R1: given up by the one who held it"
        );
        assert!(row.client.take().is_some(), "R1: a client is given up once");
        *count(&mut state) += 1;
    }
}

impl ObjectKeeper for BareKeeper {
    fn facts(&self) -> StoreFacts {
        StoreFacts {
            capacity_bytes: self.data.bytes(),
            slot_count: 0,
            max_clients: self.lock().rows.len() as u32,
            layout_version: 0,
        }
    }

    fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.tables.as_fd(),
            self.data.as_fd(),
            self.data_read_only.as_fd(),
        ]
    }

    fn admit(&self, process: ProcessId, label: &str) -> Result<Admission, AdmitError> {
        let mut state = self.lock();
        if state.ending {
            return Err(AdmitError::Ending);
        }
        let max_clients = state.rows.len() as u32;
        let free = state
            .rows
            .iter_mut()
            .zip(0..)
            .find(|(row, _)| row.client.is_none());
        let (row, client_index) = free.ok_or(AdmitError::TooManyClients { max_clients })?;
        row.generation += 1;
        row.client = Some((process, label.to_owned()));
        Ok(Admission {
            client_index,
            client_generation: row.generation,
        })
    }

    fn status(&self) -> StoreStatus {
        let state = self.lock();
        let counters = [
            ("left_client_count", state.left_client_count),
            ("reserved_bytes", state.reserved_bytes),
        ];
        StoreStatus {
            capacity_bytes: self.data.bytes(),
            client_count: state.rows.iter().filter(|row| row.client.is_some()).count() as u32,
            max_clients: state.rows.len() as u32,
            swept_client_count: state.swept_client_count,
            counters: counters
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            ..StoreStatus::default()
        }
    }

    fn ring(&self) {
        let mut state = self.lock();
        state.rung = state.rung.wrapping_add(1);
        self.bell.notify_all();
    }

    fn client_left(&self, client: Admission) {
        self.give_up(client, |state| &mut state.left_client_count);
    }

    fn client_died(&self, client: Admission) {
        self.give_up(client, |state| &mut state.swept_client_count);
    }

    fn reserve(&self, _client: Admission, bytes: u64) {
        self.lock().reserved_bytes += bytes;
    }

    fn objects(&self, _cursor: u64, _count_max: u32) -> ObjectsReply {
        ObjectsReply::default()
    }

    fn clients(&self, cursor: u64, count_max: u32) -> ClientsReply {
        let state = self.lock();
        let taken = state
            .rows
            .iter()
            .zip(0_u32..)
            .skip(cursor as usize)
            .filter_map(|(row, index)| {
                let (process, label) = row.client.as_ref()?;
                Some(ClientInfo {
                    client_index: index,
                    client_generation: row.generation,
                    pid: process.pid,
                    label: label.clone(),
                    ..ClientInfo::default()
                })
            });
        let clients: Vec<_> = taken.take(count_max as usize).collect();
        let full = clients.len() == count_max as usize;
        let last = clients.last().filter(|_| full);
        ClientsReply {
            next_cursor: last.map(|client| u64::from(client.client_index) + 1),
            clients,
        }
    }

    fn work(&self, _slice: Duration) -> Rest {
        Rest::UntilRung
    }

    fn rung(&self) -> u32 {
        self.lock().rung
    }

    fn sleep(&self, seen: u32, limit: Option<Duration>) {
        let state = self.lock();
        let quiet = |state: &mut State| state.rung == seen;
        // The guard is given up at once: only the waiting matters.
        match limit {
            Some(limit) => drop(self.bell.wait_timeout_while(state, limit, quiet)),
            None => drop(self.bell.wait_while(state, quiet)),
        }
    }

    fn end(&self) {
        self.lock().ending = true;
    }
}
