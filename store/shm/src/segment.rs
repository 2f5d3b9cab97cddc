//! A segment: sealed, sparse, anonymous shared memory behind a file descriptor.
//!
//! The one thing to know: a segment's size is fixed for life by seals, so whoever maps it may rely on
//! its bounds even if a peer misbehaves. Its pages cost nothing until touched or allocated. This file
//! must not map memory and must not know what a segment contains.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::ftruncate;
use thiserror::Error;

use crate::gate::{self, GateError};

/// Largest size of a segment: offsets must fit `off_t` and a mapping must fit `isize`.
const BYTES_MAX: u64 = isize::MAX as u64;

/// How much one `fallocate` call is asked for at first. A signal undoes the whole call, so a large
/// range under a frequent timer would otherwise never be done; 8 MiB takes a few milliseconds.
const ALLOCATE_PIECE_BYTES: u64 = 8 << 20;

/// The unit of `st_blocks`, whatever the block size of the file system.
const STAT_BLOCK_BYTES: u64 = 512;

/// What can go wrong with a segment or a mapping of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment of no bytes was asked for or received.
    #[error("a segment of zero bytes")]
    Empty,
    /// More than any mapping can hold.
    #[error("{bytes} bytes are more than a segment can have ({limit})")]
    TooLarge {
        /// Size asked for.
        bytes: u64,
        /// Largest size possible.
        limit: u64,
    },
    /// The file is smaller than the mapping asked for.
    #[error("the segment has {found_bytes} bytes, not the expected {expected_bytes}")]
    TooSmall {
        /// Size the caller was told.
        expected_bytes: u64,
        /// Size of the file.
        found_bytes: u64,
    },
    /// The file could be truncated under its mappings: `F_SEAL_SHRINK` is missing.
    #[error("the segment is not sealed against shrinking (seals {seals:#x})")]
    NotSealed {
        /// Seals it carries, as `F_GET_SEALS` says; 0 also for files that cannot be sealed.
        seals: i32,
    },
    /// The machine (or the memory control group) has no page left for this range.
    #[error("no space for {requested_bytes} bytes")]
    NoSpace {
        /// Size of the range that was to be allocated.
        requested_bytes: u64,
    },
    /// Opening, closing or mapping a range would need one mapping more than the kernel allows.
    #[error("changing {bytes} bytes at offset {offset} exceeds vm.max_map_count ({limit})")]
    TooManyMappings {
        /// Start of the range.
        offset: u64,
        /// Length of the range.
        bytes: u64,
        /// The kernel's limit for one process.
        limit: u64,
    },
    /// A range of the write window was used that its process has not opened.
    #[error("{bytes} bytes at offset {offset} of the write window are not open")]
    NotOpen {
        /// Start of the range.
        offset: u64,
        /// Length of the range.
        bytes: u64,
    },
    /// The write window belongs to the process that mapped it, and this is a fork of it.
    #[error("the write window stayed with process {owner_pid}; this is a fork of it")]
    Forked {
        /// Who mapped the window.
        owner_pid: u32,
    },
    /// The kernel does not know this call; the caller has another way.
    #[error("the kernel does not support {call}")]
    Unsupported {
        /// The system call or advice.
        call: &'static str,
    },
    /// The range is not inside the segment.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Any other refusal of the kernel.
    #[error("{call} failed")]
    System {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

impl SegmentError {
    /// Names the call that failed; a function to pass to `map_err`.
    pub(crate) fn system(call: &'static str) -> impl Fn(Errno) -> SegmentError {
        move |source| SegmentError::System { call, source }
    }
}

/// An anonymous file in memory, sealed against any change of size, and its descriptor.
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    bytes: u64,
}

impl Memfd {
    /// Creates a segment of exactly `bytes`, mode 0600, without any page yet. `name` is what
    /// `/proc/<pid>/maps` shows.
    pub fn create(name: &str, bytes: u64) -> Result<Memfd, SegmentError> {
        check_bytes(bytes)?;
        let fd = create_fd(name)?;
        let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmod(&fd, owner_only).map_err(SegmentError::system("fchmod"))?;
        ftruncate(&fd, bytes as i64).map_err(SegmentError::system("ftruncate"))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(SegmentError::system("F_ADD_SEALS"))?;
        Ok(Memfd { fd, bytes })
    }

    /// Takes a descriptor somebody sent, read-only or not, if its size cannot change for the worse.
    pub fn from_fd(fd: OwnedFd) -> Result<Memfd, SegmentError> {
        let bytes = sealed_bytes(fd.as_fd())?;
        check_bytes(bytes)?;
        Ok(Memfd { fd, bytes })
    }

    /// The size, fixed for life.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A second descriptor that nobody can map writable. The way is a reopen through /proc, since
    /// duplicates share the access mode.
    pub fn read_only(&self) -> Result<OwnedFd, SegmentError> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        open(path.as_str(), flags, Mode::empty()).map_err(SegmentError::system("open"))
    }

    /// A second descriptor with the same access mode, closed on exec.
    pub fn try_clone(&self) -> Result<OwnedFd, SegmentError> {
        let raw = fcntl(&self.fd, FcntlArg::F_DUPFD_CLOEXEC(0));
        let raw = raw.map_err(SegmentError::system("F_DUPFD_CLOEXEC"))?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// Gives the range its pages, so that touching it later cannot fail. Contents stay. On an error
    /// part of the range may have got pages; [`Memfd::punch`] gives them back if nothing lives there.
    pub fn allocate(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        gate::check(offset, bytes, self.bytes)?;
        let mut done_bytes = 0;
        let mut piece_bytes = ALLOCATE_PIECE_BYTES;
        while done_bytes < bytes {
            let now_bytes = piece_bytes.min(bytes - done_bytes);
            match self.fallocate(FallocateFlags::empty(), offset + done_bytes, now_bytes) {
                Ok(()) => done_bytes += now_bytes,
                Err(Errno::EINTR) => piece_bytes = (piece_bytes / 2).max(page_bytes()),
                Err(errno) => return Err(allocation_error("fallocate", errno, bytes)),
            }
        }
        Ok(())
    }

    /// Gives the range's whole pages back to the machine; the range reads as zeros afterwards, and
    /// the size stays.
    pub fn punch(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        gate::check(offset, bytes, self.bytes)?;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        loop {
            match self.fallocate(flags, offset, bytes) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map_err(SegmentError::system("fallocate")),
            }
        }
    }

    /// How many bytes of pages the segment has now, allocated or touched by anybody.
    pub fn allocated_bytes(&self) -> Result<u64, SegmentError> {
        Ok(stat(self.fd.as_fd())?.st_blocks as u64 * STAT_BLOCK_BYTES)
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, bytes: u64) -> Result<(), Errno> {
        // The casts are exact: the gate bounded both by the size, which is at most `BYTES_MAX`.
        fallocate(&self.fd, flags, offset as i64, bytes as i64)
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The page size of this machine: 4 KiB on x86-64, up to 64 KiB on aarch64.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf only reads its argument.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("every Linux kernel knows its page size")
}

/// The size of a file that cannot shrink any more, whoever holds it.
pub(crate) fn sealed_bytes(fd: BorrowedFd<'_>) -> Result<u64, SegmentError> {
    // Seals are read before the size: once sealed it cannot fall. EINVAL means that the file is of
    // a kind that has no seals.
    let seals = match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(seals) => seals,
        Err(Errno::EINVAL) => 0,
        Err(errno) => return Err(SegmentError::system("F_GET_SEALS")(errno)),
    };
    if seals & SealFlag::F_SEAL_SHRINK.bits() == 0 {
        return Err(SegmentError::NotSealed { seals });
    }
    Ok(stat(fd)?.st_size as u64)
}

/// Tells running out of memory from everything else. The kernel says EFAULT where touching the page
/// would have been SIGBUS, which for a segment has no other cause than memory.
pub(crate) fn allocation_error(call: &'static str, errno: Errno, requested_bytes: u64) -> SegmentError {
    match errno {
        Errno::ENOSPC | Errno::ENOMEM | Errno::EFAULT | Errno::EDQUOT => SegmentError::NoSpace { requested_bytes },
        source => SegmentError::System { call, source },
    }
}

fn check_bytes(bytes: u64) -> Result<(), SegmentError> {
    match bytes {
        0 => Err(SegmentError::Empty),
        1..=BYTES_MAX => Ok(()),
        _ => Err(SegmentError::TooLarge { bytes, limit: BYTES_MAX }),
    }
}

/// Asks for a file that can never be executed, as `vm.memfd_noexec = 2` demands; kernels before 6.3
/// do not know the flag and say EINVAL.
fn create_fd(name: &str) -> Result<OwnedFd, SegmentError> {
    let name = CString::new(name).map_err(|_| SegmentError::system("memfd_create")(Errno::EINVAL))?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match memfd_create(&name, flags | libc::MFD_NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(&name, flags),
        outcome => outcome,
    }
    .map_err(SegmentError::system("memfd_create"))
}

fn memfd_create(name: &CString, flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a C string that outlives the call.
    let raw = Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn stat(fd: BorrowedFd<'_>) -> Result<FileStat, SegmentError> {
    fstat(fd).map_err(SegmentError::system("fstat"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use nix::fcntl::FdFlag;

    use super::*;

    fn segment(pages: u64) -> Memfd {
        Memfd::create("test", pages * page_bytes()).unwrap()
    }

    fn check_cloexec(fd: BorrowedFd<'_>) {
        let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn new_segment_is_private_sparse_and_has_its_size() {
        let memfd = segment(16);
        let stat = fstat(&memfd).unwrap();
        assert_eq!(stat.st_mode & 0o7777, 0o600);
        assert_eq!(stat.st_size as u64, memfd.bytes());
        assert_eq!(memfd.allocated_bytes(), Ok(0));
    }

    #[test]
    fn sealed_segment_can_neither_shrink_nor_grow() {
        let memfd = segment(2);
        for bytes in [0, page_bytes(), 3 * page_bytes()] {
            assert_eq!(ftruncate(&memfd, bytes as i64), Err(Errno::EPERM));
        }
    }

    #[test]
    fn every_descriptor_is_closed_on_exec() {
        let memfd = segment(1);
        check_cloexec(memfd.as_fd());
        check_cloexec(memfd.try_clone().unwrap().as_fd());
        check_cloexec(memfd.read_only().unwrap().as_fd());
    }

    #[test]
    fn read_only_descriptor_reads_and_does_not_write() {
        let memfd = segment(1);
        let mut writer = File::from(memfd.try_clone().unwrap());
        writer.write_all(b"seen").unwrap();
        let mut reader = File::from(memfd.read_only().unwrap());
        let mut seen = [0; 4];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"seen");
        assert!(reader.write(b"x").is_err());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(Memfd::create("test", 0).unwrap_err(), SegmentError::Empty);
        let limit = BYTES_MAX;
        let bytes = u64::MAX;
        let error = Memfd::create("test", bytes).unwrap_err();
        assert_eq!(error, SegmentError::TooLarge { bytes, limit });
    }

    #[test]
    fn name_with_a_nul_is_a_typed_error() {
        let error = Memfd::create("a\0b", 1).unwrap_err();
        let call = "memfd_create";
        let source = Errno::EINVAL;
        assert_eq!(error, SegmentError::System { call, source });
    }

    #[test]
    fn received_segment_keeps_its_size_even_read_only() {
        let memfd = segment(3);
        let clone = Memfd::from_fd(memfd.try_clone().unwrap()).unwrap();
        assert_eq!(clone.bytes(), memfd.bytes());
        let reader = Memfd::from_fd(memfd.read_only().unwrap()).unwrap();
        assert_eq!(reader.bytes(), memfd.bytes());
    }

    #[test]
    fn received_file_without_the_seal_is_refused() {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let unsealed = memfd_create(&CString::from(c"test"), flags).unwrap();
        let error = Memfd::from_fd(unsealed).unwrap_err();
        assert!(matches!(error, SegmentError::NotSealed { .. }), "{error}");
        let other = File::open("/proc/self/stat").unwrap();
        let error = Memfd::from_fd(other.into()).unwrap_err();
        assert_eq!(error, SegmentError::NotSealed { seals: 0 });
    }

    #[test]
    fn allocated_pages_are_counted_until_punched() {
        let memfd = segment(64);
        let page = page_bytes();
        memfd.allocate(page, 8 * page).unwrap();
        assert_eq!(memfd.allocated_bytes(), Ok(8 * page));
        memfd.punch(page, 3 * page).unwrap();
        assert_eq!(memfd.allocated_bytes(), Ok(5 * page));
        assert_eq!(fstat(&memfd).unwrap().st_size as u64, memfd.bytes());
    }

    #[test]
    fn more_than_one_piece_is_allocated_whole() {
        let memfd = Memfd::create("test", 3 * ALLOCATE_PIECE_BYTES).unwrap();
        let bytes = 2 * ALLOCATE_PIECE_BYTES + page_bytes();
        memfd.allocate(0, bytes).unwrap();
        assert_eq!(memfd.allocated_bytes(), Ok(bytes));
    }

    #[test]
    fn ranges_outside_are_refused() {
        let memfd = segment(1);
        let error = GateError::OutOfBounds { offset: 1, bytes: page_bytes(), limit: page_bytes() };
        assert_eq!(memfd.allocate(1, page_bytes()), Err(error.into()));
        assert_eq!(memfd.punch(1, page_bytes()), Err(error.into()));
        assert_eq!(memfd.punch(0, 0), Err(GateError::Empty.into()));
    }

    #[test]
    fn running_out_of_memory_is_no_space() {
        let requested_bytes = 7;
        for errno in [Errno::ENOSPC, Errno::ENOMEM, Errno::EFAULT] {
            let error = allocation_error("fallocate", errno, requested_bytes);
            assert_eq!(error, SegmentError::NoSpace { requested_bytes });
        }
    }
}
