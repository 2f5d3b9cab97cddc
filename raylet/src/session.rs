//! A session on disk: a directory of its own, and the lock that says somebody runs in it.
//!
//! The one thing to know: alive is who holds the file lock, because the kernel gives it up with the
//! process, however that ends. The lock's file also names everything the session made elsewhere (its
//! door, its spill directory), so who finds the lock free can sweep all of it (R3, R4). This file
//! must not talk to a raylet.
//!
//! ```text
//!  <base>/                $RAYLET_DIR, else $XDG_RUNTIME_DIR/raylet-<uid>, else /tmp/raylet-<uid>
//!    <session>/           0700
//!      lock               held (flock) while the raylet lives; its content is the record, JSON
//!      socket
//!      spill/             unless the record names another place
//!      raylet.log         where the raylet runs in the background
//!    .stale-<number>/     a session somebody is sweeping
//! ```

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use raylet_api::address::{self, AddressError};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store_shm::liveness::ProcessId;

use crate::door::{Door, DoorError};

const LOCK_NAME: &str = "lock";
const LOG_NAME: &str = "raylet.log";
const SPILL_NAME: &str = "spill";
const STALE_PREFIX: &str = ".stale-";

/// How often and how long to wait for a sweeper to give up a lock it holds for a moment.
const LOCK_ATTEMPT_COUNT: u32 = 200;
const LOCK_ATTEMPT_DELAY: Duration = Duration::from_millis(5);

/// Why a session cannot be had or swept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A raylet runs in it.
    #[error("already running: session {session:?} belongs to pid {pid}")]
    AlreadyRunning {
        /// The session.
        session: String,
        /// The raylet, as its record says; 0 where the record is unreadable.
        pid: u32,
    },
    /// The name cannot be a session's.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The directory of all sessions is not ours.
    #[error("{} belongs to uid {found_uid}, not {expected_uid}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Who we are.
        expected_uid: u32,
        /// Whose it is.
        found_uid: u32,
    },
    /// Others may write into the directory of all sessions.
    #[error("others may write into {} (mode {mode:o})", path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A path that is no text: the session's record could not name it.
    #[error("{} is not text in UTF-8", path.display())]
    NotUnicode {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no directory has the name.
    #[error("{} is no directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The door of a dead session stays.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The system said no.
    #[error("{}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// What the lock's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The raylet's pid.
    pub pid: u32,
    /// When it started, in kernel ticks.
    pub start_ticks: u64,
    /// Names this run.
    pub session_id: String,
    /// The named segment.
    pub door: String,
    /// Where objects are spilled to.
    pub spill_directory: PathBuf,
}

impl Record {
    fn new(session_id: u64, spill_directory: PathBuf) -> Record {
        let raylet = ProcessId::current();
        Record {
            pid: raylet.pid,
            start_ticks: raylet.start_ticks,
            session_id: format!("{session_id:016x}"),
            door: format!("{}{session_id:016x}", own_prefix()),
            spill_directory,
        }
    }

    /// The process that wrote the record.
    pub fn raylet(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_ticks: self.start_ticks }
    }
}

/// A session that is ours until dropped; then nothing of it is left.
#[derive(Debug)]
pub struct Session {
    name: String,
    directory: PathBuf,
    lock: Option<File>,
    id: u64,
    record: Record,
}

impl Session {
    /// Takes the session, sweeping whatever a dead raylet left in it and in its neighbours.
    ///
    /// `spill_parent` is where the spill directory is made; without it, in the session's own
    /// directory, or in `/var/tmp` where that one is memory.
    pub fn acquire(base: &Path, name: &str, spill_parent: Option<&Path>) -> Result<Session, SessionError> {
        let directory = address::session_directory(base, name)?;
        check_text([Some(base), spill_parent])?;
        make_base(base)?;
        let mut lock = take_lock(&directory, name)?;
        // Ours from here on: an error below drops `session`, which removes what is there.
        clear(&directory, read_record(&mut lock).as_ref())?;
        let id = random_number();
        let record = Record::new(id, choose_spill(&directory, spill_parent, id));
        let session = Session { name: name.to_owned(), directory, lock: Some(lock), id, record };
        session.fill()?;
        // A neighbour that cannot be swept is not this session's trouble; doctor names it.
        if let Err(error) = sweep_stale(base) {
            tracing::warn!(%error, "a stale session could not be swept");
        }
        Ok(session)
    }

    /// The session's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the socket is to be.
    pub fn socket_path(&self) -> PathBuf {
        self.directory.join(address::SOCKET_NAME)
    }

    /// Where the log of a raylet in the background is.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join(LOG_NAME)
    }

    /// Where objects are spilled to; made, empty.
    pub fn spill_directory(&self) -> &Path {
        &self.record.spill_directory
    }

    /// The number that names this run.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What others can read of the session.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Writes the record, then makes what it names (R4).
    fn fill(&self) -> Result<(), SessionError> {
        let path = self.directory.join(LOCK_NAME);
        let text = serde_json::to_vec(&self.record).expect("its paths are text: they were checked");
        let mut lock = self.lock.as_ref().expect("held until the drop");
        let written = lock.rewind().and_then(|()| lock.set_len(0)).and_then(|()| lock.write_all(&text));
        written.map_err(|source| SessionError::Io { path, source })?;
        make_directory(self.spill_directory())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A forked child has a copy of this value but not the session.
        if self.record.pid != std::process::id() {
            return;
        }
        let removed = clear(&self.directory, Some(&self.record)).and_then(|()| remove_locked(&self.directory));
        if let Err(error) = removed {
            tracing::warn!(%error, "the session's files stay until the next sweep");
        }
        // Last: with the lock goes the right to remove anything.
        self.lock = None;
    }
}

/// Reads the record of a session, running or not; `None` where there is none.
pub fn record(directory: &Path) -> Option<Record> {
    read_record(&mut File::open(directory.join(LOCK_NAME)).ok()?)
}

/// Whether somebody holds the session's lock at this moment.
pub fn is_held(directory: &Path) -> Result<bool, SessionError> {
    match open_lock(directory, false)? {
        Some(lock) => Ok(!try_lock(&lock, directory)? && is_same_file(&lock, directory)),
        None => Ok(false),
    }
}

/// Removes every session under `base` whose lock is free, and returns their names.
pub fn sweep_stale(base: &Path) -> Result<Vec<String>, SessionError> {
    let entries = match std::fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error(base))?,
    };
    let mut swept = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error(base))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.filter(|_| path.is_dir());
        let Some(name) = name else { continue };
        if sweep_one(base, &path, &name)? {
            swept.push(name);
        }
    }
    Ok(swept)
}

/// Sweeps one session if its lock is free. It is first renamed: from then on a raylet that starts
/// under the name gets a directory of its own and need not wait.
fn sweep_one(base: &Path, directory: &Path, name: &str) -> Result<bool, SessionError> {
    let Some(mut lock) = open_lock(directory, false)? else {
        // Either just made, or left by a sweep that was killed; only the latter may have content.
        return match name.starts_with(STALE_PREFIX) {
            true => remove_all(directory).map(|()| true),
            false => Ok(std::fs::remove_dir(directory).is_ok()),
        };
    };
    if !try_lock(&lock, directory)? || !is_same_file(&lock, directory) {
        return Ok(false);
    }
    let aside = base.join(format!("{STALE_PREFIX}{:016x}", random_number()));
    std::fs::rename(directory, &aside).map_err(io_error(directory))?;
    clear(&aside, read_record(&mut lock).as_ref())?;
    remove_locked(&aside)?;
    Ok(true)
}

/// Removes everything a session made, but for its directory and lock.
fn clear(directory: &Path, record: Option<&Record>) -> Result<(), SessionError> {
    if let Some(record) = record {
        // The record is a file's content: only names that can be ours are followed.
        if record.door.starts_with(&own_prefix()) && !record.door.contains('/') {
            Door::remove(&record.door)?;
        }
        if is_own_spill(&record.spill_directory) {
            remove_all(&record.spill_directory)?;
        }
    }
    for entry in std::fs::read_dir(directory).map_err(io_error(directory))? {
        let entry = entry.map_err(io_error(directory))?;
        if entry.file_name() != LOCK_NAME {
            remove_all(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the lock's file and the directory that has nothing else in it.
fn remove_locked(directory: &Path) -> Result<(), SessionError> {
    remove_all(&directory.join(LOCK_NAME))?;
    match std::fs::remove_dir(directory) {
        // Somebody who wants the session made a new lock file meanwhile: the directory is theirs.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => gone_is_fine(other).map_err(io_error(directory)),
    }
}

/// Refuses paths that neither the record nor a message could carry.
fn check_text(paths: [Option<&Path>; 2]) -> Result<(), SessionError> {
    match paths.into_iter().flatten().find(|path| path.to_str().is_none()) {
        Some(path) => Err(SessionError::NotUnicode { path: path.to_owned() }),
        None => Ok(()),
    }
}

/// Makes the directory of all sessions, or checks the one that is there.
fn make_base(base: &Path) -> Result<(), SessionError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(base);
    made.map_err(io_error(base))?;
    let metadata = std::fs::symlink_metadata(base).map_err(io_error(base))?;
    let path = || base.to_owned();
    if !metadata.is_dir() {
        return Err(SessionError::NotADirectory { path: path() });
    }
    let (expected_uid, found_uid) = (nix::unistd::geteuid().as_raw(), metadata.uid());
    if expected_uid != found_uid {
        return Err(SessionError::NotOurs { path: path(), expected_uid, found_uid });
    }
    match metadata.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(SessionError::OpenToOthers { path: path(), mode: metadata.mode() & 0o7777 }),
    }
}

fn make_directory(path: &Path) -> Result<(), SessionError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(io_error(path)),
    }
}

/// Makes the directory and takes its lock; says who has it where that is a living raylet.
fn take_lock(directory: &Path, name: &str) -> Result<File, SessionError> {
    let mut pid = 0;
    for _ in 0..LOCK_ATTEMPT_COUNT {
        make_directory(directory)?;
        // Gone again: a sweep took the directory away between the two calls.
        let Some(mut lock) = open_lock(directory, true)? else {
            continue;
        };
        if try_lock(&lock, directory)? {
            if is_same_file(&lock, directory) {
                return Ok(lock);
            }
            continue;
        }
        let holder = read_record(&mut lock);
        pid = holder.as_ref().map_or(0, |record| record.pid);
        if holder.is_some_and(|record| !record.raylet().is_dead()) {
            break;
        }
        // A sweeper holds it, or a raylet that has not written its record yet.
        std::thread::sleep(LOCK_ATTEMPT_DELAY);
    }
    Err(SessionError::AlreadyRunning { session: name.to_owned(), pid })
}

/// Opens the lock's file; `None` where it or its directory is not there.
fn open_lock(directory: &Path, create: bool) -> Result<Option<File>, SessionError> {
    let path = directory.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(create).mode(0o600).truncate(false);
    match options.open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SessionError::Io { path, source }),
    }
}

fn try_lock(lock: &File, directory: &Path) -> Result<bool, SessionError> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(io_error(directory)(source)),
    }
}

/// Whether the locked file is still the one under the name; else it locks nothing.
fn is_same_file(lock: &File, directory: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = lock.metadata().map(identity);
    let named = std::fs::symlink_metadata(directory.join(LOCK_NAME)).map(identity);
    matches!((ours, named), (Ok(ours), Ok(named)) if ours == named)
}

fn read_record(lock: &mut File) -> Option<Record> {
    const RECORD_BYTES_MAX: u64 = 1 << 16;
    let mut text = Vec::new();
    lock.rewind().ok()?;
    Read::by_ref(lock).take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Where the spill directory is to be. Spilling to memory would free none, so a session directory
/// on a tmpfs is passed over for `/var/tmp`, unless that is one too.
fn choose_spill(directory: &Path, parent: Option<&Path>, id: u64) -> PathBuf {
    let apart = |parent: &Path| parent.join(format!("{}{id:016x}", own_prefix()));
    let var = Path::new("/var/tmp");
    match parent {
        Some(parent) => apart(parent),
        None if is_memory(directory) && var.is_dir() && !is_memory(var) => apart(var),
        None => directory.join(SPILL_NAME),
    }
}

/// Whether files at `path` are memory.
pub fn is_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

/// Whether a spill directory outside the session's is one that a session of ours made.
fn is_own_spill(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let uid = nix::unistd::geteuid().as_raw();
    let metadata = std::fs::symlink_metadata(path);
    name.starts_with(&own_prefix()) && metadata.is_ok_and(|data| data.is_dir() && data.uid() == uid)
}

/// What the name of everything outside the session's directory begins with.
pub fn own_prefix() -> String {
    format!("raylet-{}-", nix::unistd::geteuid().as_raw())
}

fn remove_all(path: &Path) -> Result<(), SessionError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(io_error(path))?,
    };
    let removed = match metadata.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    gone_is_fine(removed).map_err(io_error(path))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> SessionError {
    move |source| SessionError::Io { path: path.to_owned(), source }
}

/// A number that no other session has: the standard library seeds its hashers from the kernel.
fn random_number() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|e| name(e).into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Leaves a session as a killed raylet does: everything there, the lock free.
    fn abandon(base: &Path, name: &str, spill: &Path) -> Record {
        let mut session = Session::acquire(base, name, Some(spill)).unwrap();
        std::fs::write(session.socket_path(), b"").unwrap();
        std::fs::write(session.spill_directory().join("object"), b"bytes").unwrap();
        std::mem::forget(Door::create(&session.record.door, session.id, 1).unwrap());
        session.lock = None;
        // As a process with this record would be gone, the drop must not clean up.
        session.record.pid = u32::MAX;
        let (directory, record) = (session.directory.clone(), session.record.clone());
        drop(session);
        std::fs::write(directory.join(LOCK_NAME), serde_json::to_vec(&record).unwrap()).unwrap();
        record
    }

    #[test]
    fn a_session_is_private_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let spill = tempfile::tempdir().unwrap();
        let session = Session::acquire(base.path(), "one", Some(spill.path())).unwrap();
        let mode = session.directory().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(record(session.directory()).as_ref(), Some(session.record()));
        assert_eq!(names(spill.path()), [session.record().door.as_str()]);
        assert_eq!(session.spill_directory().metadata().unwrap().mode() & 0o777, 0o700);
        drop(session);
        assert_eq!(names(base.path()), [""; 0]);
        assert_eq!(names(spill.path()), [""; 0]);
    }

    #[test]
    fn a_session_has_one_holder_and_others_hear_who() {
        let base = tempfile::tempdir().unwrap();
        let first = Session::acquire(base.path(), "one", None).unwrap();
        let error = Session::acquire(base.path(), "one", None).unwrap_err();
        let own = std::process::id();
        assert!(matches!(error, SessionError::AlreadyRunning { pid, .. } if pid == own), "{error}");
        let other = Session::acquire(base.path(), "two", None).unwrap();
        assert_ne!(first.id(), other.id());
        drop(first);
        Session::acquire(base.path(), "one", None).unwrap();
        assert_eq!(names(base.path()), ["two"]);
    }

    #[test]
    fn what_a_dead_raylet_left_is_swept_by_its_successor_and_by_neighbours() {
        let base = tempfile::tempdir().unwrap();
        let spill = tempfile::tempdir().unwrap();
        for successor in ["dead", "other"] {
            let dead = abandon(base.path(), "dead", spill.path());
            assert!(Path::new("/dev/shm").join(&dead.door).exists());
            let session = Session::acquire(base.path(), successor, None).unwrap();
            assert!(!Path::new("/dev/shm").join(&dead.door).exists());
            assert_eq!(names(base.path()), [successor]);
            assert!(!session.socket_path().exists());
            assert_eq!(names(spill.path()), [""; 0]);
        }
    }

    #[test]
    fn a_sweep_that_was_killed_is_finished_by_the_next() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join(".stale-1/spill")).unwrap();
        std::fs::create_dir(base.path().join("just-made")).unwrap();
        let living = Session::acquire(base.path(), "living", None).unwrap();
        assert_eq!(names(base.path()), ["living"]);
        assert_eq!(sweep_stale(base.path()).unwrap(), [""; 0]);
        assert!(record(living.directory()).is_some());
        assert_eq!(sweep_stale(&base.path().join("gone")).unwrap(), [""; 0]);
    }

    #[test]
    fn a_record_cannot_point_a_sweep_elsewhere() {
        let base = tempfile::tempdir().unwrap();
        let bystander = tempfile::tempdir().unwrap();
        let directory = base.path().join("dead");
        std::fs::create_dir(&directory).unwrap();
        let record = Record { door: "../bystander".into(), ..Record::new(1, bystander.path().to_owned()) };
        std::fs::write(directory.join(LOCK_NAME), serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(sweep_stale(base.path()).unwrap(), ["dead"]);
        assert!(bystander.path().exists());
    }

    #[test]
    fn a_base_that_others_may_write_into_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(base.path(), open).unwrap();
        let error = Session::acquire(base.path(), "one", None).unwrap_err();
        assert!(matches!(error, SessionError::OpenToOthers { mode: 0o777, .. }), "{error}");
    }
}
