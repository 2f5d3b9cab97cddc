//! What workers write, kept in files: one per worker, in the session's directory.
//!
//! The one thing to know: nobody waits for the disk. Lines go to a thread of their own; what it cannot
//! take (too much at once, a full disk) is dropped and counted, and said once. Each worker has at most
//! two files of [`FILE_BYTES_MAX`], and those of ended workers go, the oldest first, when they are too
//! many. This file must not read them; `cli::logs` does.
//!
//! ```text
//! <session>/logs/worker-<number>-<pid>.log      what it wrote last
//!                worker-<number>-<pid>.log.1    what it wrote before that
//! ```

use crate::guarded::AbortOnPanic;
use crate::pool::Line;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The directory's name in the session's.
pub(crate) const DIRECTORY: &str = "logs";
/// A file that is longer becomes the older one.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files of ended workers together.
const ENDED_BYTES_MAX: u64 = 256 << 20;
const ENDED_COUNT_MAX: usize = 1024;
/// Bytes on their way to the disk; more is dropped.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 256 << 10;
/// Files open at once.
const OPEN_COUNT_MAX: usize = 64;

/// How many lines came, and how many are in no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogCounts {
    pub(crate) written: u64,
    pub(crate) dropped: u64,
}

/// The hand that writes. Dropping it writes what is on its way.
#[derive(Debug)]
pub(crate) struct Logs {
    told: Option<mpsc::Sender<Told>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process whose thread it is; a forked child has none.
    owner: u32,
}

#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    has_warned: AtomicBool,
}

#[derive(Debug)]
enum Told {
    Line { worker: u64, pid: u32, bytes: Vec<u8> },
    Ended { worker: u64 },
}

impl Logs {
    /// Makes the directory and starts the thread.
    pub(crate) fn start(directory: &Path) -> io::Result<Logs> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let (told, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(directory.to_owned(), shared.clone());
        let thread = std::thread::Builder::new().name("raylet-logs".to_owned());
        let thread = thread.spawn(move || {
            let _guard = AbortOnPanic;
            writer.run(&inbox);
        })?;
        Ok(Logs { told: Some(told), shared, thread: Some(thread), owner: std::process::id() })
    }

    /// Has a line written, or dropped where the disk does not keep up.
    pub(crate) fn write(&self, line: &Line) {
        let mut bytes = Vec::with_capacity(line.bytes.len() + 1);
        bytes.extend_from_slice(&line.bytes);
        if line.is_whole {
            bytes.push(b'\n');
        }
        let len = bytes.len();
        if self.shared.waiting_bytes.fetch_add(len, Ordering::Relaxed) + len > WAITING_BYTES_MAX {
            self.shared.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            return self.shared.drop_lines(1, &"the disk does not keep up");
        }
        self.tell(Told::Line { worker: line.worker, pid: line.pid, bytes });
    }

    /// The worker writes no more.
    pub(crate) fn ended(&self, worker: u64) {
        self.tell(Told::Ended { worker });
    }

    pub(crate) fn counts(&self) -> LogCounts {
        let relaxed = Ordering::Relaxed;
        LogCounts { written: self.shared.written.load(relaxed), dropped: self.shared.dropped.load(relaxed) }
    }

    fn tell(&self, told: Told) {
        // The thread ends at the drop alone.
        let _ = self.told.as_ref().map(|sender| sender.send(told));
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.told = None;
        if self.owner == std::process::id() {
            // A panic on that thread has aborted the process already.
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

impl Shared {
    fn drop_lines(&self, count: u64, reason: &dyn std::fmt::Display) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%reason, "lines of workers are missing in their files; said once, metrics count on");
        }
    }
}

/// What has come for one worker and is not written yet.
#[derive(Debug, Default)]
struct Batch {
    pid: u32,
    bytes: Vec<u8>,
    lines: u64,
}

struct Writer {
    directory: PathBuf,
    shared: Arc<Shared>,
    batches: BTreeMap<u64, Batch>,
    open: BTreeMap<u64, (File, u64)>,
    /// What workers there were, and what they wrote to.
    paths: BTreeMap<u64, PathBuf>,
    ended: VecDeque<(PathBuf, u64)>,
    ended_bytes: u64,
    file_bytes_max: u64,
    ended_bytes_max: u64,
}

impl Writer {
    fn new(directory: PathBuf, shared: Arc<Shared>) -> Writer {
        Writer {
            directory,
            shared,
            batches: BTreeMap::new(),
            open: BTreeMap::new(),
            paths: BTreeMap::new(),
            ended: VecDeque::new(),
            ended_bytes: 0,
            file_bytes_max: FILE_BYTES_MAX,
            ended_bytes_max: ENDED_BYTES_MAX,
        }
    }

    fn run(mut self, inbox: &mpsc::Receiver<Told>) {
        while let Ok(first) = inbox.recv() {
            let mut bytes = self.take_in(first);
            while bytes < BATCH_BYTES
                && let Ok(next) = inbox.try_recv()
            {
                bytes += self.take_in(next);
            }
            self.flush_all();
        }
    }

    /// Takes in what was told; how many bytes are to be written for it.
    fn take_in(&mut self, told: Told) -> usize {
        match told {
            Told::Line { worker, pid, bytes } => {
                let batch = self.batches.entry(worker).or_default();
                batch.pid = pid;
                batch.lines += 1;
                batch.bytes.extend_from_slice(&bytes);
                bytes.len()
            }
            Told::Ended { worker } => {
                self.flush_all();
                self.end(worker);
                0
            }
        }
    }

    fn flush_all(&mut self) {
        for (worker, batch) in std::mem::take(&mut self.batches) {
            self.shared.waiting_bytes.fetch_sub(batch.bytes.len(), Ordering::Relaxed);
            match self.append(worker, batch.pid, &batch.bytes) {
                Ok(()) => drop(self.shared.written.fetch_add(batch.lines, Ordering::Relaxed)),
                Err(error) => {
                    // Opened again the next time: by then there may be room.
                    self.open.remove(&worker);
                    self.shared.drop_lines(batch.lines, &error);
                }
            }
        }
    }

    fn append(&mut self, worker: u64, pid: u32, bytes: &[u8]) -> io::Result<()> {
        let path = self.directory.join(file_name(worker, pid));
        if self.open.get(&worker).is_some_and(|(_, len)| *len >= self.file_bytes_max) {
            self.open.remove(&worker);
            std::fs::rename(&path, older(&path))?;
        }
        if !self.open.contains_key(&worker) {
            if self.open.len() >= OPEN_COUNT_MAX {
                self.open.clear();
            }
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let len = file.metadata()?.len();
            self.open.insert(worker, (file, len));
            self.paths.insert(worker, path);
        }
        let (file, len) = self.open.get_mut(&worker).expect("it was opened above");
        file.write_all(bytes)?;
        *len += bytes.len() as u64;
        Ok(())
    }

    /// Closes the files of a worker, and removes the oldest of others that are too many.
    fn end(&mut self, worker: u64) {
        self.open.remove(&worker);
        let Some(path) = self.paths.remove(&worker) else { return };
        let files = [older(&path), path.clone()];
        let bytes = files.iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum();
        self.ended_bytes += bytes;
        self.ended.push_back((path, bytes));
        while self.ended.len() > ENDED_COUNT_MAX || self.ended_bytes > self.ended_bytes_max {
            let Some((path, bytes)) = self.ended.pop_front() else { return };
            self.ended_bytes -= bytes;
            for path in [older(&path), path] {
                // It may have had only one; what else is wrong, the session's sweep meets as well.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// The name of a worker's file.
pub(crate) fn file_name(worker: u64, pid: u32) -> String {
    format!("worker-{worker}-{pid}.log")
}

/// The worker and process that a file's name tells; `None` where it is no worker's newer file.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, u32)> {
    let (worker, pid) = name.strip_prefix("worker-")?.strip_suffix(".log")?.split_once('-')?;
    Some((worker.parse().ok()?, pid.parse().ok()?))
}

/// Where a file goes when it is full.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Stream;

    fn line(worker: u64, text: &str) -> Line {
        Line { worker, pid: 70, stream: Stream::Stdout, bytes: text.as_bytes().to_vec(), is_whole: true }
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn each_worker_has_a_file_of_what_it_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::start(&directory.path().join(DIRECTORY)).unwrap();
        logs.write(&line(1, "one"));
        logs.write(&line(2, "two"));
        logs.write(&Line { is_whole: false, ..line(1, "no newline") });
        let shared = logs.shared.clone();
        drop(logs);
        let logs = directory.path().join(DIRECTORY);
        assert_eq!(read(&logs.join("worker-1-70.log")), "one\nno newline");
        assert_eq!(read(&logs.join("worker-2-70.log")), "two\n");
        assert_eq!((shared.written.load(Ordering::Relaxed), shared.dropped.load(Ordering::Relaxed)), (3, 0));
        assert_eq!(shared.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_disk_drops_lines_and_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join(file_name(1, 70))).unwrap();
        let logs = Logs::start(directory.path()).unwrap();
        for _ in 0..10 {
            logs.write(&line(1, "lost"));
        }
        logs.write(&line(2, "kept"));
        let shared = logs.shared.clone();
        drop(logs);
        assert_eq!((shared.written.load(Ordering::Relaxed), shared.dropped.load(Ordering::Relaxed)), (1, 10));
        assert!(shared.has_warned.load(Ordering::Relaxed));
        assert_eq!(read(&directory.path().join(file_name(2, 70))), "kept\n");
    }

    #[test]
    fn more_than_may_wait_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::start(directory.path()).unwrap();
        logs.shared.waiting_bytes.store(WAITING_BYTES_MAX - 2, Ordering::Relaxed);
        logs.write(&line(1, "two"));
        assert_eq!(logs.counts(), LogCounts { written: 0, dropped: 1 });
        logs.shared.waiting_bytes.store(0, Ordering::Relaxed);
    }

    #[test]
    fn files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::default());
        let mut writer = Writer { file_bytes_max: 10, ..Writer::new(directory.path().to_owned(), shared) };
        writer.ended_bytes_max = 25;
        for worker in [1, 2] {
            for text in ["0123456789\n", "abcdefghij\n", "last\n"] {
                writer.take_in(Told::Line { worker, pid: 70, bytes: text.as_bytes().to_vec() });
                writer.flush_all();
            }
        }
        let path = directory.path().join(file_name(1, 70));
        assert_eq!((read(&path).as_str(), read(&older(&path)).as_str()), ("last\n", "abcdefghij\n"));
        writer.take_in(Told::Ended { worker: 1 });
        assert!(path.exists() && older(&path).exists());
        // The two of the second are too many beside those of the first.
        writer.take_in(Told::Ended { worker: 2 });
        assert!(!path.exists() && !older(&path).exists());
        assert!(directory.path().join(file_name(2, 70)).exists());
        assert_eq!(writer.ended_bytes, 16);
    }

    #[test]
    fn names_of_files_are_read_back() {
        assert_eq!(parse_file_name(&file_name(7, 300)), Some((7, 300)));
        for name in ["worker-7-300.log.1", "worker-7.log", "raylet.log", "worker-x-1.log"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
