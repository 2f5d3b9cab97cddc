//! The boundary to the store, and the thread on which the store's slow work runs.
//!
//! The one thing to know: the rim calls a few quick functions from the socket thread and everything
//! else from one thread of the keeper's own, so a sweep of a million holds delays no greeting by
//! more than a slice. This file must not know how objects are kept.

use raylet_api::message::{ClientsReply, ObjectsReply, StoreStatus};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use store_shm::liveness::ProcessId;
use tokio::sync::oneshot;

/// How long one piece of the keeper's work may take.
pub const SLICE: Duration = Duration::from_millis(1);
/// Hints that may wait for the keeper's thread; more are dropped, which a hint allows.
const HINT_COUNT_MAX: usize = 64;

/// What never changes while the store lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Slots of the object table.
    pub slot_count: u64,
    /// Rows of the client table.
    pub max_clients: u32,
    /// Layout of the segments.
    pub layout_version: u32,
}

/// A client's row, as given by [`ObjectKeeper::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Admission {
    /// The row.
    pub client_index: u32,
    /// How often the row was reused.
    pub client_generation: u64,
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// Every row is taken.
    #[error("all {max_clients} rows of the client table are taken")]
    TooManyClients {
        /// How many rows there are.
        max_clients: u32,
    },
    /// The store is ending.
    #[error("the store is ending")]
    Ending,
}

/// What the keeper wants to do after a slice of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Go on at once: there is more to do.
    None,
    /// Go on after this time, or earlier when the bell rings.
    For(Duration),
    /// Go on when the bell rings.
    UntilRung,
}

/// What the rim needs of the store.
///
/// The first group is called from the socket thread and must return within microseconds. The second
/// group is called from the keeper's thread only, one call at a time.
pub trait ObjectKeeper: Send + Sync + 'static {
    /// What never changes.
    fn facts(&self) -> StoreFacts;
    /// Tables for reading and writing, data for reading and writing, data for reading only.
    fn descriptors(&self) -> [BorrowedFd<'_>; raylet_api::WELCOME_DESCRIPTORS];
    /// Takes a client in.
    fn admit(&self, process: ProcessId, label: &str) -> Result<Admission, AdmitError>;
    /// The numbers of this moment.
    fn status(&self) -> StoreStatus;
    /// Rings the bell: the keeper's thread wakes, or does not fall asleep.
    fn ring(&self);

    /// The client said goodbye: reclaim what it held.
    fn client_left(&self, client: Admission);
    /// The kernel says the client's process is dead: reclaim what it held.
    fn client_died(&self, client: Admission);
    /// The client expects to put this many bytes soon.
    fn reserve(&self, client: Admission, bytes: u64);
    /// A page of the objects, from `cursor`, of at most `count_max`.
    fn objects(&self, cursor: u64, count_max: u32) -> ObjectsReply;
    /// A page of the clients, from `cursor`, of at most `count_max`.
    fn clients(&self, cursor: u64, count_max: u32) -> ClientsReply;
    /// One piece of work, at most `slice` long.
    fn work(&self, slice: Duration) -> Rest;
    /// How often the bell has rung; read before looking for work.
    fn rung(&self) -> u32;
    /// Sleeps until the bell has rung since `seen`, or for `limit`.
    fn sleep(&self, seen: u32, limit: Option<Duration>);
    /// The last call: nobody is let in any more, and who waits in shared memory is woken and told.
    fn end(&self);
}

/// What the socket thread asks of the keeper's thread.
pub(crate) enum Request {
    Left(Admission),
    Died(Admission),
    Reserve(Admission, u64),
    Objects(u64, u32, oneshot::Sender<ObjectsReply>),
    Clients(u64, u32, oneshot::Sender<ClientsReply>),
    End,
}

/// The requests that wait. A lock of this process only; it is held for a push or a swap.
#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    hint_count: usize,
}

/// The keeper together with the way to its thread.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    pub(crate) keeper: Arc<dyn ObjectKeeper>,
    queue: Arc<Mutex<Queue>>,
}

impl KeeperHandle {
    /// Starts the keeper's thread.
    pub(crate) fn spawn(
        keeper: Arc<dyn ObjectKeeper>,
    ) -> std::io::Result<(KeeperHandle, JoinHandle<()>)> {
        let handle = KeeperHandle {
            keeper,
            queue: Arc::default(),
        };
        let inside = handle.clone();
        let thread = std::thread::Builder::new().name("raylet-keeper".to_owned());
        let thread = thread.spawn(move || {
            let _guard = AbortOnPanic;
            inside.run();
        })?;
        Ok((handle, thread))
    }

    /// Hands a request over; never waits (R2).
    pub(crate) fn request(&self, request: Request) {
        {
            let mut queue = self.lock();
            if matches!(request, Request::Reserve(..)) {
                if queue.hint_count == HINT_COUNT_MAX {
                    return;
                }
                queue.hint_count += 1;
            }
            queue.requests.push_back(request);
        }
        self.keeper.ring();
    }

    /// The thread: what was asked, then a slice of work, then sleep. The bell is read first, so a
    /// request that comes later ends the sleep before it begins.
    fn run(&self) {
        loop {
            let rung = self.keeper.rung();
            let queue = std::mem::take(&mut *self.lock());
            for request in queue.requests {
                if matches!(request, Request::End) {
                    return self.keeper.end();
                }
                self.carry_out(request);
            }
            match self.keeper.work(SLICE) {
                Rest::None => {}
                Rest::For(time) => self.keeper.sleep(rung, Some(time)),
                Rest::UntilRung => self.keeper.sleep(rung, None),
            }
        }
    }

    fn carry_out(&self, request: Request) {
        let keeper = &self.keeper;
        // An asker that has gone away is no error: its answer goes nowhere.
        match request {
            Request::Left(client) => keeper.client_left(client),
            Request::Died(client) => keeper.client_died(client),
            Request::Reserve(client, bytes) => keeper.reserve(client, bytes),
            Request::Objects(cursor, count_max, reply) => {
                let _ = reply.send(keeper.objects(cursor, count_max));
            }
            Request::Clients(cursor, count_max, reply) => {
                let _ = reply.send(keeper.clients(cursor, count_max));
            }
            Request::End => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the process when a panic passes by. A raylet that lost a thread would hold memory it never
/// reclaims; one that is gone is swept by the next start.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bare::BareKeeper;

    #[test]
    fn requests_reach_the_keeper_in_order_and_the_end_is_last() {
        let keeper = Arc::new(BareKeeper::new(1 << 20, 4).unwrap());
        let (handle, thread) = KeeperHandle::spawn(keeper.clone()).unwrap();
        let first = keeper.admit(ProcessId::current(), "first").unwrap();
        let second = keeper.admit(ProcessId::current(), "second").unwrap();
        handle.request(Request::Left(first));
        handle.request(Request::Died(second));
        let (send, receive) = oneshot::channel();
        handle.request(Request::Clients(0, 10, send));
        assert_eq!(receive.blocking_recv().unwrap().clients, []);
        handle.request(Request::End);
        thread.join().unwrap();
        assert_eq!(
            keeper.admit(ProcessId::current(), "late"),
            Err(AdmitError::Ending)
        );
        assert_eq!(keeper.status().swept_client_count, 1);
    }

    #[test]
    fn hints_beyond_the_limit_are_dropped_and_nothing_else() {
        let keeper = Arc::new(BareKeeper::new(1 << 20, 4).unwrap());
        let handle = KeeperHandle {
            keeper,
            queue: Arc::default(),
        };
        let client = Admission {
            client_index: 0,
            client_generation: 1,
        };
        for _ in 0..2 * HINT_COUNT_MAX {
            handle.request(Request::Reserve(client, 1));
        }
        handle.request(Request::End);
        assert_eq!(handle.lock().requests.len(), HINT_COUNT_MAX + 1);
    }
}
