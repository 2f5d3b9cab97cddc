//! The door: a small named segment that says who runs the session and how it is doing.
//!
//! The one thing to know: tools read it even while the raylet hangs, and nothing depends on it.
//! Clients get their segments over the socket. This file must not hold anything that a client needs
//! in order to work.
//!
//! UNSAFE: one conversion of the mapped address to the content, and sharing it between threads.
//!
//! ```text
//!  offset bytes                                     written by the raylet alone
//!       0     8  magic "RAYDOOR1", written last     once, release
//!       8     4  layout version                     once
//!      12     4  bytes of the segment               once
//!      16     4  raylet pid                         once
//!      20     4  state: 1 serving, 2 ending         at each step
//!      24     8  raylet start, in kernel ticks      once
//!      32     8  session id                         once
//!      40     8  capacity in bytes                  once
//!      48     8  connections ever accepted          relaxed, each a plain count
//!      56     8  connections closed for bad bytes
//!      64     8  clients ever admitted
//!      72     8  requests answered
//!      80     8  clients that are in             from here on as of the last second
//!      88     8  clients swept
//!      96     8  holds that sweeps gave back
//!     104     8  bytes of the data segment that have memory
//!     112     8  objects moved to disk
//!     120     8  objects brought back
//!     128     8  cached objects ended for room
//!     136     -  reserved, zero, to 4096
//! ```
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{OFlag, posix_fallocate};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, fstat};
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use store::Usage;
use store_shm::liveness::ProcessId;

/// Bytes of the segment.
pub const DOOR_BYTES: usize = 4096;
/// Layout of the segment.
pub const DOOR_VERSION: u32 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"RAYDOOR1");

/// Why a door cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// No such segment.
    #[error("there is no segment {name}")]
    Missing {
        /// The segment.
        name: String,
    },
    /// Shared memory is full.
    #[error("no {needed_bytes} bytes are free in /dev/shm for {name}")]
    NoSpace {
        /// The segment.
        name: String,
        /// What it needs.
        needed_bytes: u64,
    },
    /// The segment belongs to somebody else.
    #[error("the segment {name} belongs to uid {found_uid}, not {expected_uid}")]
    WrongOwner {
        /// The segment.
        name: String,
        /// Who we are.
        expected_uid: u32,
        /// Whose it is.
        found_uid: u32,
    },
    /// The segment is too small or not allocated.
    #[error("the segment {name} has {found_bytes} bytes, {expected_bytes} are needed")]
    WrongSize {
        /// The segment.
        name: String,
        /// [`DOOR_BYTES`].
        expected_bytes: u64,
        /// Its size, or how much of it is allocated.
        found_bytes: u64,
    },
    /// The segment is no door, or one whose raylet died while making it.
    #[error("the segment {name} is no door: it begins with {found:#018x}")]
    WrongMagic {
        /// The segment.
        name: String,
        /// Its first eight bytes.
        found: u64,
    },
    /// Made by another version of this code.
    #[error("the door {name} has layout {found}, this code reads {expected}")]
    WrongVersion {
        /// The segment.
        name: String,
        /// The layout we read.
        expected: u32,
        /// The layout it has.
        found: u32,
    },
    /// The system said no.
    #[error("segment {name}: {errno}")]
    Os {
        /// The segment.
        name: String,
        /// The system's word.
        errno: Errno,
    },
    /// The mapping library said no.
    #[error("segment {name}")]
    Mapping {
        /// The segment.
        name: String,
        /// The library's word.
        source: ShmemError,
    },
}

/// What the raylet does, as the door says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DoorState {
    /// It takes connections.
    Serving = 1,
    /// It is about to be gone.
    Ending = 2,
}

#[repr(C)]
struct Content {
    magic: AtomicU64,
    layout_version: AtomicU32,
    bytes: AtomicU32,
    raylet_pid: AtomicU32,
    state: AtomicU32,
    start_ticks: AtomicU64,
    session_id: AtomicU64,
    capacity_bytes: AtomicU64,
    counters: Counters,
}

/// What the raylet counts; tools read it at any moment.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// Connections ever accepted.
    pub connections: AtomicU64,
    /// Connections closed because of bad bytes.
    pub bad_connections: AtomicU64,
    /// Clients ever admitted.
    pub clients_admitted: AtomicU64,
    /// Requests answered.
    pub requests: AtomicU64,
    clients: AtomicU64,
    clients_swept: AtomicU64,
    holds_swept: AtomicU64,
    resident_bytes: AtomicU64,
    objects_spilled: AtomicU64,
    objects_restored: AtomicU64,
    objects_evicted: AtomicU64,
}

const _: () = {
    assert!(std::mem::size_of::<Content>() == 136);
    assert!(std::mem::align_of::<Content>() == 8);
    assert!(std::mem::offset_of!(Content, start_ticks) == 24);
    assert!(std::mem::offset_of!(Content, counters) == 48);
    assert!(std::mem::size_of::<Content>() <= DOOR_BYTES);
};

/// What a door says, copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DoorReport {
    /// The raylet's pid.
    pub raylet_pid: u32,
    /// When it started, in kernel ticks.
    pub start_ticks: u64,
    /// Whether it is about to end.
    pub ending: bool,
    /// The run of the raylet.
    pub session_id: u64,
    /// Bytes of the data segment.
    pub capacity_bytes: u64,
    /// Connections ever accepted.
    pub connections: u64,
    /// Connections closed because of bad bytes.
    pub bad_connections: u64,
    /// Clients ever admitted.
    pub clients_admitted: u64,
    /// Requests answered.
    pub requests: u64,
    /// Clients that are in, the raylet itself included. This and what follows are as of the raylet's
    /// last second.
    pub clients: u64,
    /// Clients that left or died and were swept.
    pub clients_swept: u64,
    /// Holds that sweeps gave back.
    pub holds_swept: u64,
    /// Bytes of the data segment that have memory.
    pub resident_bytes: u64,
    /// Objects moved to disk.
    pub objects_spilled: u64,
    /// Objects brought back.
    pub objects_restored: u64,
    /// Cached objects ended for room.
    pub objects_evicted: u64,
}

/// A door, made or attached to.
pub struct Door {
    map: Shmem,
    name: String,
    /// The process that made the door and removes it; a forked child does not.
    maker_pid: Option<u32>,
}

// SAFETY: `Shmem` is neither Send nor Sync because it hands out its address; here 1. the address is
// only used to make `&Content`, which consists of atomics, and 2. the mapping lives until `Door` is
// dropped, which needs the one owner.
unsafe impl Send for Door {}
// SAFETY: as for Send.
unsafe impl Sync for Door {}

impl Door {
    /// Makes the segment, all of it allocated, and fills it in.
    pub fn create(name: &str, session_id: u64, capacity_bytes: u64) -> Result<Door, DoorError> {
        let conf = ShmemConf::new().os_id(shm_name(name)).size(DOOR_BYTES);
        let map = conf.create().map_err(|source| mapping_error(name, source))?;
        allocate(name)?;
        let mut door = Door { map, name: name.to_owned(), maker_pid: Some(std::process::id()) };
        // From here the drop of `door` removes the segment, with its own checks.
        door.map.set_owner(false);
        door.fill(session_id, capacity_bytes);
        Ok(door)
    }

    /// Opens a door that another process made. Changes nothing in it.
    pub fn attach(name: &str) -> Result<Door, DoorError> {
        check_file(name)?;
        let conf = ShmemConf::new().os_id(shm_name(name));
        let map = conf.open().map_err(|source| mapping_error(name, source))?;
        // Looked at again: between the check and the mapping the name may have changed hands.
        check_bytes(name, map.len() as u64)?;
        let door = Door { map, name: name.to_owned(), maker_pid: None };
        door.check_content()?;
        Ok(door)
    }

    /// Removes the segment of a raylet that is gone; one that is not there is no error.
    pub fn remove(name: &str) -> Result<(), DoorError> {
        match shm_unlink(shm_name(name).as_str()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(DoorError::Os { name: name.to_owned(), errno }),
        }
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.content().counters
    }

    /// Says what the raylet does now.
    pub fn set_state(&self, state: DoorState) {
        self.content().state.store(state as u32, Ordering::Release);
    }

    /// Copies what the door says.
    pub fn report(&self) -> DoorReport {
        let content = self.content();
        let counters = &content.counters;
        // Relaxed throughout: the numbers belong to no common moment.
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        DoorReport {
            raylet_pid: content.raylet_pid.load(Ordering::Relaxed),
            start_ticks: read(&content.start_ticks),
            ending: content.state.load(Ordering::Acquire) == DoorState::Ending as u32,
            session_id: read(&content.session_id),
            capacity_bytes: read(&content.capacity_bytes),
            connections: read(&counters.connections),
            bad_connections: read(&counters.bad_connections),
            clients_admitted: read(&counters.clients_admitted),
            requests: read(&counters.requests),
            clients: read(&counters.clients),
            clients_swept: read(&counters.clients_swept),
            holds_swept: read(&counters.holds_swept),
            resident_bytes: read(&counters.resident_bytes),
            objects_spilled: read(&counters.objects_spilled),
            objects_restored: read(&counters.objects_restored),
            objects_evicted: read(&counters.objects_evicted),
        }
    }

    /// Writes down what the store counts.
    pub(crate) fn write_tally(&self, tally: &Usage) {
        let counters = self.counters();
        let write = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        write(&counters.clients, tally.clients);
        write(&counters.clients_swept, tally.swept_clients);
        write(&counters.holds_swept, tally.swept_holds);
        write(&counters.resident_bytes, tally.resident_bytes);
        write(&counters.objects_spilled, tally.spilled_objects);
        write(&counters.objects_restored, tally.restored_objects);
        write(&counters.objects_evicted, tally.evicted_objects);
    }

    fn fill(&self, session_id: u64, capacity_bytes: u64) {
        let content = self.content();
        let raylet = ProcessId::current();
        content.layout_version.store(DOOR_VERSION, Ordering::Relaxed);
        content.bytes.store(DOOR_BYTES as u32, Ordering::Relaxed);
        content.raylet_pid.store(raylet.pid, Ordering::Relaxed);
        content.start_ticks.store(raylet.start_ticks, Ordering::Relaxed);
        content.session_id.store(session_id, Ordering::Relaxed);
        content.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        content.state.store(DoorState::Serving as u32, Ordering::Relaxed);
        // Release: pairs with the acquire in `check_content`; who sees the magic sees the rest.
        content.magic.store(MAGIC, Ordering::Release);
    }

    fn check_content(&self) -> Result<(), DoorError> {
        let (content, name) = (self.content(), || self.name.clone());
        let found = content.magic.load(Ordering::Acquire);
        if found != MAGIC {
            return Err(DoorError::WrongMagic { name: name(), found });
        }
        let found = content.layout_version.load(Ordering::Relaxed);
        if found != DOOR_VERSION {
            return Err(DoorError::WrongVersion { name: name(), expected: DOOR_VERSION, found });
        }
        check_bytes(&self.name, u64::from(content.bytes.load(Ordering::Relaxed)))
    }

    fn content(&self) -> &Content {
        // SAFETY: 1. the mapping has at least DOOR_BYTES: `create` asked for them, `attach` checked;
        // 2. a mapping begins at a page, so the alignment holds; 3. any bytes are valid atomics, and
        // nothing else is ever made of them; 4. the reference does not outlive `self`, which owns
        // the mapping.
        unsafe { &*self.map.as_ptr().cast::<Content>() }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.maker_pid == Some(std::process::id()) {
            // The next sweep finds what cannot be removed here.
            let _ = Door::remove(&self.name);
        }
    }
}

fn shm_name(name: &str) -> String {
    format!("/{name}")
}

fn open(name: &str, flags: OFlag) -> Result<OwnedFd, DoorError> {
    let name = name.to_owned();
    match shm_open(shm_name(&name).as_str(), flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => Err(DoorError::Missing { name }),
        Err(errno) => Err(DoorError::Os { name, errno }),
    }
}

/// Gives the segment its pages now: a hole would be a SIGBUS later, where /dev/shm is full.
fn allocate(name: &str) -> Result<(), DoorError> {
    let fd = open(name, OFlag::O_RDWR)?;
    let (name, needed_bytes) = (name.to_owned(), DOOR_BYTES as u64);
    match posix_fallocate(&fd, 0, DOOR_BYTES as i64) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC) => Err(DoorError::NoSpace { name, needed_bytes }),
        Err(errno) => Err(DoorError::Os { name, errno }),
    }
}

/// What must hold before the segment is mapped and looked at.
fn check_file(name: &str) -> Result<(), DoorError> {
    let fd = open(name, OFlag::O_RDONLY)?;
    let stat = fstat(&fd).map_err(|errno| DoorError::Os { name: name.to_owned(), errno })?;
    let (expected_uid, found_uid) = (nix::unistd::geteuid().as_raw(), stat.st_uid);
    if expected_uid != found_uid {
        return Err(DoorError::WrongOwner { name: name.to_owned(), expected_uid, found_uid });
    }
    check_bytes(name, (stat.st_size as u64).min(stat.st_blocks as u64 * 512))
}

fn check_bytes(name: &str, found_bytes: u64) -> Result<(), DoorError> {
    let expected_bytes = DOOR_BYTES as u64;
    match found_bytes >= expected_bytes {
        true => Ok(()),
        false => Err(DoorError::WrongSize { name: name.to_owned(), expected_bytes, found_bytes }),
    }
}

fn mapping_error(name: &str, source: ShmemError) -> DoorError {
    DoorError::Mapping { name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A name of its own, and the file behind it removed however the test ends.
    struct Name(String);

    impl Name {
        fn new(test: &str) -> Name {
            Name(format!("raylet-test-{}-{test}", std::process::id()))
        }
        fn path(&self) -> PathBuf {
            PathBuf::from("/dev/shm").join(&self.0)
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(self.path());
        }
    }

    #[test]
    fn a_door_says_who_runs_and_is_gone_with_its_maker() {
        let name = Name::new("says");
        let door = Door::create(&name.0, 77, 1 << 30).unwrap();
        let seen = Door::attach(&name.0).unwrap();
        door.counters().requests.fetch_add(3, Ordering::Relaxed);
        door.write_tally(&Usage { swept_clients: 5, ..Usage::default() });
        let report = seen.report();
        assert_eq!((report.raylet_pid, report.requests, report.clients_swept), (std::process::id(), 3, 5));
        assert_eq!((report.session_id, report.capacity_bytes), (77, 1 << 30));
        assert!(!report.ending);
        door.set_state(DoorState::Ending);
        assert!(seen.report().ending);
        drop(door);
        assert!(matches!(Door::attach(&name.0), Err(DoorError::Missing { .. })));
        assert_eq!(seen.report().requests, 3);
        Door::remove(&name.0).unwrap();
    }

    #[test]
    fn a_door_is_allocated_and_private() {
        use std::os::unix::fs::MetadataExt;
        let name = Name::new("allocated");
        let _door = Door::create(&name.0, 1, 1).unwrap();
        let metadata = name.path().metadata().unwrap();
        assert!(metadata.blocks() * 512 >= DOOR_BYTES as u64);
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let error = Door::create(&name.0, 2, 2).err().unwrap();
        assert!(matches!(error, DoorError::Mapping { source: ShmemError::MappingIdExists, .. }));
        assert_eq!(Door::attach(&name.0).unwrap().report().session_id, 1);
    }

    #[test]
    fn what_is_no_door_is_refused() {
        let name = Name::new("refused");
        let check = |bytes: &[u8]| {
            std::fs::write(name.path(), bytes).unwrap();
            Door::attach(&name.0).err().unwrap()
        };
        assert!(matches!(check(b""), DoorError::WrongSize { found_bytes: 0, .. }));
        let mut bytes = vec![7; DOOR_BYTES];
        let found = 0x0707_0707_0707_0707;
        assert!(matches!(check(&bytes), DoorError::WrongMagic { found: f, .. } if f == found));
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        let error = check(&bytes);
        assert!(matches!(error, DoorError::WrongVersion { found: 0x0707_0707, .. }), "{error}");
        bytes[8..12].copy_from_slice(&DOOR_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&100_u32.to_le_bytes());
        let error = check(&bytes);
        assert!(matches!(error, DoorError::WrongSize { found_bytes: 100, .. }), "{error}");
        // A file that is long enough but has no pages yet is not looked into.
        let file = std::fs::File::create(name.path()).unwrap();
        file.set_len(DOOR_BYTES as u64).unwrap();
        assert!(matches!(Door::attach(&name.0).err().unwrap(), DoorError::WrongSize { .. }));
    }
}
