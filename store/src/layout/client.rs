//! A client's record: who it is, whether it lives, how it is woken.
//!
//! ```text
//!   0 identity   state 2 | pid 22 | start time (ticks, low 24) | generation 16
//!   8 sweeper    swept generation 16 | sweeper's generation 16 | sweeper 16; 0 none
//!  16 start      start time in ticks since boot, whole
//!  24 doorbell   futex word and sleepers
//!  32 joined_ms  store time
//!  36 wanting    KiB it waits for, 0 when it does not wait
//!  40 puts, 48 put_bytes    counters it alone adds to
//!  56 label      40 bytes of text for people
//!  96 parent     client + 1 that forked it, 0 none
//! 104 reserved
//! ```
//!
//! | state | means | who may leave it |
//! | --- | --- | --- |
//! | free | nobody's | a joiner: CAS to joining with its own pid and start time |
//! | joining | its row is not used yet | the joiner: store alive; a sweeper, once the joiner is dead |
//! | alive | its row holds what it holds | itself: store leaving; a sweeper, once it is dead |
//! | leaving | swept like a dead one | the sweeper: store free with generation + 1 |
//!
//! Identity and state are one word, so a client that ends while it joins is still known by name.

use store_shm::doorbell::Doorbell;

use std::sync::atomic::{AtomicU32, AtomicU64};

/// See the drawing above.
#[repr(C, align(128))]
pub(crate) struct ClientRecord {
    pub(crate) identity: AtomicU64,
    pub(crate) sweeper: AtomicU64,
    pub(crate) start: AtomicU64,
    pub(crate) doorbell: Doorbell,
    pub(crate) joined_ms: AtomicU32,
    pub(crate) wanting_kib: AtomicU32,
    pub(crate) puts: AtomicU64,
    pub(crate) put_bytes: AtomicU64,
    pub(crate) label: [AtomicU64; 5],
    pub(crate) parent: AtomicU64,
    pub(crate) reserved: [AtomicU64; 3],
}

const _: () = {
    assert!(size_of::<ClientRecord>() == 128);
    assert!(std::mem::offset_of!(ClientRecord, doorbell) == 24);
    assert!(std::mem::offset_of!(ClientRecord, label) == 56);
};

/// What a client record is in; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ClientState {
    Free = 0,
    Joining = 1,
    Alive = 2,
    Leaving = 3,
}

/// One reading of `identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) state: ClientState,
    pub(crate) pid: u32,
    pub(crate) start_low: u32,
    pub(crate) generation: u16,
}

const START_MASK: u64 = 0xFF_FFFF;
const PID_MASK: u64 = 0x3F_FFFF;

impl Identity {
    pub(crate) fn pack(self) -> u64 {
        (self.state as u64) << 62
            | (self.pid as u64 & PID_MASK) << 40
            | (self.start_low as u64 & START_MASK) << 16
            | self.generation as u64
    }

    pub(crate) fn unpack(word: u64) -> Identity {
        let state = match word >> 62 {
            0 => ClientState::Free,
            1 => ClientState::Joining,
            2 => ClientState::Alive,
            _ => ClientState::Leaving,
        };
        Identity {
            state,
            pid: (word >> 40 & PID_MASK) as u32,
            start_low: (word >> 16 & START_MASK) as u32,
            generation: word as u16,
        }
    }

    /// Whether a process with this start time is the one this word was written for.
    pub(crate) fn started_at(&self, start_ticks: u64) -> bool {
        start_ticks & START_MASK == u64::from(self.start_low)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_packing() {
        for state in [ClientState::Free, ClientState::Joining, ClientState::Alive, ClientState::Leaving] {
            let identity = Identity { state, pid: 4_194_303, start_low: 0xAB_CDEF, generation: 0xFFFF };
            assert_eq!(Identity::unpack(identity.pack()), identity);
        }
    }
}
