//! The file an object's bytes move to when memory is short: written once, read once or more,
//! removed.
//!
//! The one thing to know: a spill file is read as untrusted. Every block carries a checksum over the
//! object's id, the block's position and its bytes, so a block that rotted, moved or belongs to
//! another object is found before the object is published again.
//!
//! This file must not know slots, states or memory: it gets bytes and gives bytes back.
//!
//! ```text
//!  offset bytes
//!       0     8  magic "RAYSPILL"
//!       8     4  version, 1                          all integers little endian
//!      12     4  block bytes B, 1 MiB when written
//!      16     8  payload bytes P
//!      24    28  object id
//!      52     8  reserved, zero
//!      60     4  crc32 of bytes 0..60
//!      64     B  block 0 ----+
//!    64+B     4  its crc32   |  crc32(id || block number as u64 || bytes of the block)
//!  64+B+4     B  block 1     |
//!            ..              |  the last block has P mod B bytes (B where that is 0);
//!                            |  an object of no bytes has no block
//!     end                    +  64 + P + 4 * ceil(P / B): nothing may follow
//! ```
//!
//! A file appears under its name complete or not at all: it is written under a temporary name in the
//! same directory and renamed. There is no `fsync`: the file lives no longer than the raylet's
//! session, which does not outlive the machine's uptime, and until then the page cache is as good as
//! the disk. A temporary left by a killed writer is found by [`sweep_temporaries`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of an object id.
pub const ID_BYTES: usize = 28;
/// Bytes of a block as written; a reader takes any size from 1 to this.
pub const BLOCK_BYTES: u32 = 1 << 20;
/// The largest payload a file may claim: the address space of a process, so that no sum overflows.
pub const PAYLOAD_BYTES_MAX: u64 = 1 << 47;

const MAGIC: [u8; 8] = *b"RAYSPILL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const CHECKSUM_AT: usize = 60;
const CHECKSUM_BYTES: u64 = 4;
const TEMPORARY_SUFFIX: &str = ".tmp";

const _: () = assert!(24 + ID_BYTES + 8 == CHECKSUM_AT);
const _: () = assert!(CHECKSUM_AT + 4 == HEADER_BYTES);

/// Why a spill file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The directory is not there (any more).
    #[error("the spill directory {} does not exist", path.display())]
    DirectoryMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not there.
    #[error("the spill file {} does not exist", path.display())]
    FileMissing {
        /// The file.
        path: PathBuf,
    },
    /// A name that would leave the directory or look like a temporary.
    #[error("{name:?} cannot name a spill file")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The disk (or the user's quota) is full.
    #[error("no space for a spill file of {needed_bytes} bytes at {}", path.display())]
    NoSpace {
        /// The file that was to be.
        path: PathBuf,
        /// Its whole size.
        needed_bytes: u64,
    },
    /// The payload is larger than any file may claim.
    #[error("a payload of {payload_bytes} bytes in {} is over the limit of {limit_bytes}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was asked for or what the header says.
        payload_bytes: u64,
        /// [`PAYLOAD_BYTES_MAX`], or the file-size limit's unknown value as 0.
        limit_bytes: u64,
    },
    /// The first bytes are not those of a spill file.
    #[error("{} is not a spill file", path.display())]
    NotASpillFile {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version of this code.
    #[error("{} has spill format version {found}, this code reads {expected}", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The version we read.
        expected: u32,
        /// The version in the file.
        found: u32,
    },
    /// The header's own checksum does not hold.
    #[error("the header of {} is damaged: checksum {found:#010x}, expected {expected:#010x}", path.display())]
    CorruptHeader {
        /// The file.
        path: PathBuf,
        /// The checksum its bytes have.
        expected: u32,
        /// The checksum it carries.
        found: u32,
    },
    /// The header is whole but says a block size nobody writes.
    #[error("{} has blocks of {found_bytes} bytes, allowed are 1 to {limit_bytes}", path.display())]
    BadBlockBytes {
        /// The file.
        path: PathBuf,
        /// What the header says.
        found_bytes: u32,
        /// [`BLOCK_BYTES`].
        limit_bytes: u32,
    },
    /// A block's checksum does not hold.
    #[error("block {block} of {} is damaged: checksum {found:#010x}, expected {expected:#010x}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The block's number.
        block: u64,
        /// The checksum its bytes have.
        expected: u32,
        /// The checksum it carries.
        found: u32,
    },
    /// The file ends too early.
    #[error("{} ends after {found_bytes} bytes, expected {expected_bytes}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How long it should be.
        expected_bytes: u64,
        /// How many bytes came.
        found_bytes: u64,
    },
    /// Bytes follow the last block.
    #[error("{} goes on after its {expected_bytes} bytes", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// How long it should be.
        expected_bytes: u64,
    },
    /// A whole file of another object.
    #[error("{} holds object {}, expected {}", path.display(), Hex(found), Hex(expected))]
    WrongObject {
        /// The file.
        path: PathBuf,
        /// The id asked for.
        expected: [u8; ID_BYTES],
        /// The id in the file.
        found: [u8; ID_BYTES],
    },
    /// The caller's buffer and the payload differ in size.
    #[error("{} holds {found_bytes} payload bytes, the caller expects {expected_bytes}", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The buffer's size.
        expected_bytes: u64,
        /// The payload's size.
        found_bytes: u64,
    },
    /// The system said no.
    #[error("spill file {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Prints bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes `payload` as the spill file `name` in `dir`; replaces a file of that name.
///
/// On any error the temporary is removed and a file that had the name before is untouched.
pub fn write(dir: &Path, name: &str, id: [u8; ID_BYTES], payload: &[u8]) -> Result<(), SpillError> {
    check_name(name)?;
    let path = dir.join(name);
    let payload_bytes = payload.len() as u64;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(SpillError::TooLarge { path, payload_bytes, limit_bytes: PAYLOAD_BYTES_MAX });
    }
    let header = Header { block_bytes: BLOCK_BYTES, payload_bytes, id };
    let mut temporary = Temporary::create(dir, name, &header)?;
    let written = write_all(&mut temporary.file, &header, payload);
    written.map_err(|source| classify(source, &temporary.path, &header))?;
    temporary.publish(&path)
}

/// Reads the spill file at `path`, which must hold object `id` of exactly `out.len()` bytes.
///
/// After an error `out` holds arbitrary bytes.
pub fn read_into(path: &Path, id: [u8; ID_BYTES], out: &mut [u8]) -> Result<(), SpillError> {
    let mut file = File::open(path).map_err(|source| missing_file(source, path))?;
    let header = read_header(&mut file, path)?;
    if header.id != id {
        return Err(SpillError::WrongObject { path: path.to_owned(), expected: id, found: header.id });
    }
    read_payload(&mut file, path, &header, out)
}

/// Removes the spill file at `path`; one that is already gone is no error.
pub fn remove(path: &Path) -> Result<(), SpillError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SpillError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Removes the temporaries of writers that no longer run and says how many there were.
///
/// A writer is gone when no process has its pid or the one that has it started at another time; in
/// doubt (no `/proc`) the temporary stays.
pub fn sweep_temporaries(dir: &Path) -> Result<u64, SpillError> {
    let failed = |source| SpillError::Io { path: dir.to_owned(), source };
    let entries = std::fs::read_dir(dir).map_err(|source| missing_directory(source, dir))?;
    let mut swept = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let writer = entry.file_name().to_str().and_then(writer_of);
        if writer.is_some_and(|writer| writer.is_gone()) {
            remove(&entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Parses arbitrary bytes as a spill file: as they are, and once more with a header made valid so
/// that the blocks are reached. Never panics and allocates nothing that grows with what the bytes
/// claim.
pub fn fuzz_read(bytes: &[u8]) {
    const PAYLOAD_BYTES: usize = 1 << 10;
    let path = Path::new("fuzz");
    let mut out = [0_u8; PAYLOAD_BYTES];
    let mut read = |mut source: &[u8]| {
        let header = read_header(&mut source, path)?;
        let payload_bytes = header.payload_bytes.min(PAYLOAD_BYTES as u64) as usize;
        read_payload(&mut source, path, &header, &mut out[..payload_bytes])
    };
    let _ = read(bytes);
    let mut patched = [0_u8; HEADER_BYTES + PAYLOAD_BYTES];
    let length = bytes.len().min(patched.len());
    patched[..length].copy_from_slice(&bytes[..length]);
    patched[..8].copy_from_slice(&MAGIC);
    patched[8..12].copy_from_slice(&VERSION.to_le_bytes());
    // Of the claimed sizes only the low bits stay: the others fail on the first comparison.
    patched[14..16].fill(0);
    patched[18..24].fill(0);
    let sum = crc32fast::hash(&patched[..CHECKSUM_AT]);
    patched[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let _ = read(&patched[..length.max(HEADER_BYTES)]);
}

/// What the first 64 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    block_bytes: u32,
    payload_bytes: u64,
    id: [u8; ID_BYTES],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.block_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..24 + ID_BYTES].copy_from_slice(&self.id);
        let sum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], path: &Path) -> Result<Header, SpillError> {
        let path = || path.to_owned();
        if bytes[..8] != MAGIC {
            return Err(SpillError::NotASpillFile { path: path() });
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(SpillError::WrongVersion { path: path(), expected: VERSION, found: version });
        }
        let (expected, found) = (crc32fast::hash(&bytes[..CHECKSUM_AT]), u32_at(bytes, CHECKSUM_AT));
        if expected != found {
            return Err(SpillError::CorruptHeader { path: path(), expected, found });
        }
        let header = Header {
            block_bytes: u32_at(bytes, 12),
            payload_bytes: u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32,
            id: *bytes[24..].first_chunk().expect("40 bytes follow byte 24"),
        };
        header.check(path)
    }

    /// The claims that arithmetic below relies on.
    fn check(self, path: impl Fn() -> PathBuf) -> Result<Header, SpillError> {
        let Header { block_bytes, payload_bytes, .. } = self;
        if !(1..=BLOCK_BYTES).contains(&block_bytes) {
            let (found_bytes, limit_bytes) = (block_bytes, BLOCK_BYTES);
            return Err(SpillError::BadBlockBytes { path: path(), found_bytes, limit_bytes });
        }
        if payload_bytes > PAYLOAD_BYTES_MAX {
            let limit_bytes = PAYLOAD_BYTES_MAX;
            return Err(SpillError::TooLarge { path: path(), payload_bytes, limit_bytes });
        }
        Ok(self)
    }

    /// The file's whole size. Cannot overflow: P <= 2^47 and one byte is at most one block.
    fn file_bytes(&self) -> u64 {
        let blocks = self.payload_bytes.div_ceil(u64::from(self.block_bytes));
        HEADER_BYTES as u64 + self.payload_bytes + blocks * CHECKSUM_BYTES
    }

    fn block_checksum(&self, block: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.id);
        hasher.update(&block.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("a constant offset inside the header"))
}

fn write_all(file: &mut impl Write, header: &Header, payload: &[u8]) -> io::Result<()> {
    file.write_all(&header.encode())?;
    for (block, bytes) in (0_u64..).zip(payload.chunks(header.block_bytes as usize)) {
        file.write_all(bytes)?;
        file.write_all(&header.block_checksum(block, bytes).to_le_bytes())?;
    }
    Ok(())
}

fn read_header(source: &mut impl Read, path: &Path) -> Result<Header, SpillError> {
    let mut bytes = [0; HEADER_BYTES];
    let mut position = Position { path, read: 0, expected: HEADER_BYTES as u64 };
    position.fill(source, &mut bytes)?;
    Header::decode(&bytes, path)
}

fn read_payload(source: &mut impl Read, path: &Path, header: &Header, out: &mut [u8]) -> Result<(), SpillError> {
    if header.payload_bytes != out.len() as u64 {
        let (expected_bytes, found_bytes) = (out.len() as u64, header.payload_bytes);
        return Err(SpillError::WrongSize { path: path.to_owned(), expected_bytes, found_bytes });
    }
    let mut position = Position { path, read: HEADER_BYTES as u64, expected: header.file_bytes() };
    for (block, bytes) in (0_u64..).zip(out.chunks_mut(header.block_bytes as usize)) {
        let mut sum = [0; CHECKSUM_BYTES as usize];
        position.fill(source, bytes)?;
        position.fill(source, &mut sum)?;
        let (expected, found) = (header.block_checksum(block, bytes), u32::from_le_bytes(sum));
        if expected != found {
            return Err(SpillError::Corrupt { path: path.to_owned(), block, expected, found });
        }
    }
    position.finish(source)
}

/// Where a reader stands in the file, for errors that say so.
struct Position<'a> {
    path: &'a Path,
    read: u64,
    expected: u64,
}

impl Position<'_> {
    fn fill(&mut self, source: &mut impl Read, mut out: &mut [u8]) -> Result<(), SpillError> {
        while !out.is_empty() {
            match self.read_some(source, out)? {
                0 => {
                    let (path, expected_bytes) = (self.path.to_owned(), self.expected);
                    return Err(SpillError::Truncated { path, expected_bytes, found_bytes: self.read });
                }
                count => {
                    self.read += count as u64;
                    out = &mut out[count..];
                }
            }
        }
        Ok(())
    }

    /// Nothing may follow the last block.
    fn finish(&mut self, source: &mut impl Read) -> Result<(), SpillError> {
        match self.read_some(source, &mut [0])? {
            0 => Ok(()),
            _ => Err(SpillError::TrailingBytes { path: self.path.to_owned(), expected_bytes: self.expected }),
        }
    }

    fn read_some(&self, source: &mut impl Read, out: &mut [u8]) -> Result<usize, SpillError> {
        loop {
            match source.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(SpillError::Io { path: self.path.to_owned(), source });
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// A file under its temporary name; removed when dropped unless published.
struct Temporary {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn create(dir: &Path, name: &str, header: &Header) -> Result<Temporary, SpillError> {
        let path = dir.join(Writer::current().temporary_name(name));
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|source| match source.raw_os_error() {
            Some(ENOSPC | EDQUOT) => classify(source, &path, header),
            _ => missing_directory(source, dir),
        })?;
        Ok(Temporary { file, path, published: false })
    }

    fn publish(mut self, path: &Path) -> Result<(), SpillError> {
        let failed = |source| SpillError::Io { path: path.to_owned(), source };
        std::fs::rename(&self.path, path).map_err(failed)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // A failure leaves a file that the next sweep finds; there is nobody to tell here.
            let _ = remove(&self.path);
        }
    }
}

/// Who writes a temporary; part of its name, so that a sweep can ask whether the writer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writer {
    pid: u32,
    start_ticks: u64,
}

impl Writer {
    fn current() -> Writer {
        let pid = std::process::id();
        // Without /proc the start is 0 and, by the same lack, nobody is ever found gone.
        Writer { pid, start_ticks: start_ticks(pid).unwrap_or(0) }
    }

    /// `<name>.<pid>-<start>-<count>.tmp`: the count keeps the threads of one writer apart.
    fn temporary_name(&self, name: &str) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: the number only has to differ from the others.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("{name}.{}-{}-{count}{TEMPORARY_SUFFIX}", self.pid, self.start_ticks)
    }

    fn is_gone(&self) -> bool {
        let proc_is_there = start_ticks(std::process::id()).is_some();
        proc_is_there && self.start_ticks != 0 && start_ticks(self.pid) != Some(self.start_ticks)
    }
}

/// Reads the writer back out of a temporary's name; `None` for every other file.
fn writer_of(name: &str) -> Option<Writer> {
    let (_, parts) = name.strip_suffix(TEMPORARY_SUFFIX)?.rsplit_once('.')?;
    let mut parts = parts.split('-');
    let writer = Writer { pid: parts.next()?.parse().ok()?, start_ticks: parts.next()?.parse().ok()? };
    let _count: u64 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(writer)
}

/// Field 22 of the process's stat line, counted from the last parenthesis because the command
/// before it may contain spaces and parentheses itself.
fn start_ticks(pid: u32) -> Option<u64> {
    let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_command = line.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(&line[after_command..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn check_name(name: &str) -> Result<(), SpillError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let bad = !plain || name.is_empty() || name.starts_with('.') || name.ends_with(TEMPORARY_SUFFIX);
    match bad {
        true => Err(SpillError::BadName { name: name.to_owned() }),
        false => Ok(()),
    }
}

const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;
const EDQUOT: i32 = 122;

fn classify(source: io::Error, path: &Path, header: &Header) -> SpillError {
    let (path, payload_bytes) = (path.to_owned(), header.payload_bytes);
    match source.raw_os_error() {
        Some(ENOSPC | EDQUOT) => SpillError::NoSpace { path, needed_bytes: header.file_bytes() },
        Some(EFBIG) => SpillError::TooLarge { path, payload_bytes, limit_bytes: 0 },
        _ => SpillError::Io { path, source },
    }
}

fn missing_directory(source: io::Error, dir: &Path) -> SpillError {
    let path = dir.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SpillError::DirectoryMissing { path },
        _ => SpillError::Io { path, source },
    }
}

fn missing_file(source: io::Error, path: &Path) -> SpillError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => SpillError::FileMissing { path },
        _ => SpillError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ID: [u8; ID_BYTES] = [7; ID_BYTES];

    /// A directory of its own for each test; goes away with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(Writer::current().temporary_name(name));
            std::fs::create_dir(&path).unwrap();
            Scratch(path)
        }
        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A reproducible payload whose neighbouring blocks differ.
    fn payload(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..bytes).map(next).collect()
    }

    fn file(payload: &[u8], block_bytes: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = Header { block_bytes, payload_bytes: payload.len() as u64, id: ID };
        write_all(&mut bytes, &header, payload).unwrap();
        assert_eq!(bytes.len() as u64, header.file_bytes());
        bytes
    }

    fn parse(mut bytes: &[u8], out: &mut [u8]) -> Result<(), SpillError> {
        let header = read_header(&mut bytes, Path::new("bytes"))?;
        read_payload(&mut bytes, Path::new("bytes"), &header, out)
    }

    #[test]
    fn bytes_come_back_at_every_block_boundary() {
        let scratch = Scratch::new("boundary");
        let block = BLOCK_BYTES as usize;
        for bytes in [0, 1, 63, block - 1, block, block + 1, 3 * block, 3 * block + 5] {
            let payload = payload(bytes);
            write(&scratch.0, "object", ID, &payload).unwrap();
            let mut out = vec![0; bytes];
            read_into(&scratch.0.join("object"), ID, &mut out).unwrap();
            assert!(out == payload, "payload of {bytes} bytes");
        }
        assert_eq!(scratch.names(), ["object"]);
        let mode = scratch.0.join("object").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(&scratch.0.join("object")).unwrap();
        remove(&scratch.0.join("object")).unwrap();
        assert!(scratch.names().is_empty());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let payload = payload(100);
        let good = file(&payload, 33);
        let mut out = [0; 100];
        parse(&good, &mut out).unwrap();
        assert_eq!(out[..], payload[..]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, &mut out).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let good = file(&payload(100), 33);
        for length in 0..good.len() {
            let error = parse(&good[..length], &mut [0; 100]).unwrap_err();
            let SpillError::Truncated { expected_bytes, found_bytes, .. } = error else {
                panic!("{error} at {length}");
            };
            let expected = if length < HEADER_BYTES { HEADER_BYTES } else { good.len() };
            assert_eq!((expected_bytes, found_bytes), (expected as u64, length as u64));
        }
        let longer = [&good[..], &[0]].concat();
        let error = parse(&longer, &mut [0; 100]).unwrap_err();
        assert!(matches!(error, SpillError::TrailingBytes { expected_bytes: 180, .. }), "{error}");
    }

    #[test]
    fn swapped_blocks_are_found() {
        let good = file(&payload(64), 32);
        let (first, second) = (64..100, 100..136);
        let swapped = [&good[..64], &good[second], &good[first]].concat();
        let error = parse(&swapped, &mut [0; 64]).unwrap_err();
        assert!(matches!(error, SpillError::Corrupt { block: 0, .. }), "{error}");
    }

    #[test]
    fn header_claims_are_checked() {
        let header = |block_bytes, payload_bytes| Header { block_bytes, payload_bytes, id: ID };
        let read = |header: Header| parse(&header.encode(), &mut []).unwrap_err();
        let error = read(header(0, 0));
        assert!(matches!(error, SpillError::BadBlockBytes { found_bytes: 0, .. }), "{error}");
        let error = read(header(BLOCK_BYTES + 1, 0));
        assert!(matches!(error, SpillError::BadBlockBytes { .. }), "{error}");
        let error = read(header(1, u64::MAX));
        assert!(matches!(error, SpillError::TooLarge { payload_bytes: u64::MAX, .. }), "{error}");
        let error = read(header(1, PAYLOAD_BYTES_MAX));
        assert!(matches!(error, SpillError::WrongSize { expected_bytes: 0, .. }), "{error}");
        assert_eq!(header(1, PAYLOAD_BYTES_MAX).file_bytes(), 64 + 5 * PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn another_object_or_size_is_refused() {
        let scratch = Scratch::new("another");
        write(&scratch.0, "object", ID, b"bytes").unwrap();
        let path = scratch.0.join("object");
        let error = read_into(&path, [8; ID_BYTES], &mut [0; 5]).unwrap_err();
        assert!(matches!(error, SpillError::WrongObject { found: ID, .. }), "{error}");
        assert!(error.to_string().contains(&"08".repeat(ID_BYTES)));
        let error = read_into(&path, ID, &mut [0; 6]).unwrap_err();
        assert!(matches!(error, SpillError::WrongSize { expected_bytes: 6, found_bytes: 5, .. }));
        let error = read_into(&scratch.0.join("none"), ID, &mut []).unwrap_err();
        assert!(matches!(error, SpillError::FileMissing { .. }), "{error}");
    }

    #[test]
    fn failed_write_leaves_nothing_and_keeps_what_was() {
        let scratch = Scratch::new("failed");
        // A directory under the final name lets everything succeed but the rename.
        std::fs::create_dir(scratch.0.join("object")).unwrap();
        let error = write(&scratch.0, "object", ID, b"bytes").unwrap_err();
        assert!(matches!(error, SpillError::Io { .. }), "{error}");
        assert_eq!(scratch.names(), ["object"]);
        let error = write(&scratch.0.join("gone"), "object", ID, b"bytes").unwrap_err();
        assert!(matches!(error, SpillError::DirectoryMissing { .. }), "{error}");
        for name in ["", "..", "a/b", ".hidden", "object.tmp", "a\0b"] {
            let error = write(&scratch.0, name, ID, b"bytes").unwrap_err();
            assert!(matches!(error, SpillError::BadName { .. }), "{name:?}: {error}");
        }
    }

    #[test]
    fn full_disk_says_how_much_was_needed() {
        let header = Header { block_bytes: BLOCK_BYTES, payload_bytes: 10, id: ID };
        let failed = |errno| classify(io::Error::from_raw_os_error(errno), Path::new("x"), &header);
        for errno in [ENOSPC, EDQUOT] {
            let error = failed(errno);
            assert!(matches!(error, SpillError::NoSpace { needed_bytes: 78, .. }), "{error}");
        }
        assert!(matches!(failed(EFBIG), SpillError::TooLarge { payload_bytes: 10, .. }));
        assert!(matches!(failed(5), SpillError::Io { .. }));
        // The device that is always full takes the same way through the writer.
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write_all(&mut full, &header, b"0123456789").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOSPC));
    }

    #[test]
    fn temporaries_of_the_dead_are_swept_and_of_the_living_kept() {
        let scratch = Scratch::new("sweep");
        let living = Writer::current();
        let reused_pid = Writer { start_ticks: living.start_ticks + 1, ..living };
        let dead = Writer { pid: u32::MAX, start_ticks: 1 };
        let kept = living.temporary_name("object");
        for name in [&kept, &reused_pid.temporary_name("a.b"), &dead.temporary_name("c"), "d.tmp"] {
            std::fs::write(scratch.0.join(name), b"half").unwrap();
        }
        std::fs::write(scratch.0.join("object"), b"whole").unwrap();
        assert_eq!(sweep_temporaries(&scratch.0).unwrap(), 2);
        assert_eq!(scratch.names(), ["d.tmp", "object", &kept]);
        let error = sweep_temporaries(&scratch.0.join("gone")).unwrap_err();
        assert!(matches!(error, SpillError::DirectoryMissing { .. }), "{error}");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let good = file(&payload(200), 33);
        for round in 0..2_000_u32 {
            let mut bytes = payload(round as usize % 400);
            let from = round as usize % good.len();
            let length = bytes.len().min(good.len() - from);
            bytes[..length].copy_from_slice(&good[from..from + length]);
            fuzz_read(&bytes);
        }
        fuzz_read(&good);
    }
}
