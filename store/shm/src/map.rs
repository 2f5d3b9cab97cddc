//! Mappings of a segment: shared words ([`SharedMap`]), bytes to look at ([`ReadMap`]), and ranges to
//! fill ([`WriteWindow`]).
//!
//! The one thing to know: each maps the whole segment once and is never moved or grown, so an address
//! that passed the gate is good for as long as the mapping lives. Nothing here may turn an unchecked
//! offset into an address, or into a `&[u8]` that somebody may still write to.
//!
//! | mapping | protection | in a forked child | in a core file |
//! | --- | --- | --- | --- |
//! | `SharedMap` | read, write | the same | yes |
//! | `ReadMap` | read | the same | no |
//! | `PrivateMap` | read, write, private | a copy | no |
//! | `DraftMap` | read, write; private later | the same: its owner makes it private there | no |
//! | `WriteWindow` | none; read, write where open | unusable: faults | no |

use std::fs;
use std::io;
use std::mem::{align_of, needs_drop, size_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::mman::{self, MRemapFlags, MapFlags, MmapAdvise, ProtFlags};

use crate::fork::{self, AtFork};
use crate::gate::{self, GateError};
use crate::segment::{Memfd, SegmentError, allocation_error, page_bytes, sealed_bytes};

/// What the kernel allows when /proc does not say: its built-in default.
const MAP_COUNT_MAX_DEFAULT: u64 = 65_530;

/// A type that may lie in shared memory and be looked at while other processes write to it.
///
/// # Safety
///
/// The implementer promises all of these:
/// 1. `#[repr(C)]` and no padding, so that its layout is the same in each process;
/// 2. any bytes are a valid value, since a peer may have written them;
/// 3. whatever may change is an atomic, at any depth: no other interior mutability;
/// 4. no `Drop`, no pointers, no references, no `usize`.
pub unsafe trait Shared: Sync {}

// SAFETY: atomics have the layout of their integer, any bytes are valid, and no Drop.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array adds no padding and no bytes of its own to its items.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A whole segment, readable and writable: tables of shared words.
#[derive(Debug)]
pub struct SharedMap {
    map: MmapRaw,
    bytes: u64,
}

impl SharedMap {
    /// Maps the segment. Forked children keep the mapping.
    pub fn map(memfd: &Memfd) -> Result<SharedMap, SegmentError> {
        let bytes = memfd.bytes();
        let map = options(bytes)?.map_raw(memfd.as_fd().as_raw_fd());
        let map = map.map_err(map_error)?;
        Ok(SharedMap { map, bytes })
    }

    /// The size of the segment.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `count` items of `T` at `offset`, if they lie inside and are aligned.
    #[inline]
    pub fn array<T: Shared>(&self, offset: u64, count: u64) -> Result<&[T], GateError> {
        const { assert!(!needs_drop::<T>(), "a shared type has no Drop") };
        gate::check_array(offset, count, size_of::<T>() as u64, self.bytes)?;
        gate::check_aligned(offset, align_of::<T>() as u64)?;
        let first = self.map.as_ptr().wrapping_add(offset as usize).cast::<T>();
        if !first.is_aligned() {
            // Only for types aligned beyond a page, which the mapping itself need not be.
            let align = align_of::<T>() as u64;
            return Err(GateError::Misaligned { offset, align });
        }
        // SAFETY: (1) the gate passed, so the range is mapped while `self` lives and cannot shrink;
        // (2) it is aligned; (3) `T: Shared`: any bytes are valid and changes go through atomics.
        Ok(unsafe { slice::from_raw_parts(first, count as usize) })
    }
}

/// A whole segment, readable only: where every view of an object comes from.
#[derive(Debug)]
pub struct ReadMap {
    map: MmapRaw,
    bytes: u64,
}

impl ReadMap {
    /// Maps `bytes` of a sealed segment. Give it a read-only descriptor: then not even `mprotect`
    /// makes the mapping writable.
    pub fn map(fd: BorrowedFd<'_>, bytes: u64) -> Result<ReadMap, SegmentError> {
        let found_bytes = sealed_bytes(fd)?;
        if found_bytes < bytes {
            return Err(SegmentError::TooSmall { expected_bytes: bytes, found_bytes });
        }
        let map = options(bytes)?.map_raw_read_only(fd.as_raw_fd());
        let map = map.map_err(map_error)?;
        map.advise(Advice::DontDump).map_err(advice_error)?;
        Ok(ReadMap { map, bytes })
    }

    /// How much is mapped.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the mapping begins, for those who compute offsets from addresses.
    #[inline]
    pub fn base(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// The address of a range that passed the gate. Reading through it is the caller's `unsafe`.
    #[inline]
    pub fn pointer(&self, offset: u64, bytes: u64) -> Result<NonNull<u8>, GateError> {
        gate::check(offset, bytes, self.bytes)?;
        // SAFETY: the gate passed, so the sum is inside the mapping, and no mapping is at null.
        Ok(unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(offset as usize)) })
    }

    /// The bytes of a range.
    ///
    /// # Safety
    ///
    /// Nobody writes to the range while the slice lives: the object is sealed and pinned.
    #[inline]
    pub unsafe fn slice(&self, offset: u64, bytes: u64) -> Result<&[u8], GateError> {
        let first = self.pointer(offset, bytes)?;
        // SAFETY: (1) the gate passed, so the range is mapped while `self` lives; (2) the caller
        // promises that nobody writes to it.
        Ok(unsafe { slice::from_raw_parts(first.as_ptr(), bytes as usize) })
    }

    /// Fills the page tables for a range, so that reading it takes no faults. Kernels before 5.14
    /// cannot, and then it costs the faults and nothing else. Pages nobody allocated are allocated.
    pub fn populate(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        gate::check(offset, bytes, self.bytes)?;
        let (start, length) = page_cover(offset, bytes);
        let first = self.pointer(start, length)?;
        match advise(first, length, MmapAdvise::MADV_POPULATE_READ) {
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(allocation_error("MADV_POPULATE_READ", errno, bytes)),
        }
    }
}

/// A range of a segment as memory of this process alone: read in place, and a page becomes a copy as soon
/// as it is written to.
///
/// Pages that were not written to show what the segment holds, so the range has to be one that nobody
/// changes: of an object that is sealed and stays pinned.
#[derive(Debug)]
pub struct PrivateMap {
    map: MmapRaw,
    skipped: usize,
}

impl PrivateMap {
    /// Maps the whole pages around a range that is not empty.
    pub fn map(memfd: &Memfd, offset: u64, bytes: u64) -> Result<PrivateMap, SegmentError> {
        gate::check(offset, bytes, memfd.bytes())?;
        let (start, length) = page_cover(offset, bytes);
        let mut options = options(length)?;
        // SAFETY: `map_copy` warns of slices over a file that changes. None is made here: the mapping is
        // kept raw, its addresses are inside the segment, which cannot shrink, and writes stay private.
        let map = unsafe { options.offset(start).no_reserve_swap().map_copy(memfd.as_fd().as_raw_fd()) };
        let map = MmapRaw::from(map.map_err(map_error)?);
        map.advise(Advice::DontDump).map_err(advice_error)?;
        Ok(PrivateMap { map, skipped: (offset - start) as usize })
    }

    /// Where the range begins. Good while `self` lives, for as many bytes as were asked for.
    pub fn pointer(&self) -> NonNull<u8> {
        let first = self.map.as_mut_ptr().wrapping_add(self.skipped);
        NonNull::new(first).expect("no mapping is at null")
    }
}

/// A range of a segment that somebody fills through pointers which stay behind: what is written reaches the
/// segment until [`DraftMap::make_private`], and from then on this process alone, at the same addresses.
///
/// The whole pages around the range are mapped, so whoever hands out the pointer answers for writes beside it.
#[derive(Debug)]
pub struct DraftMap {
    base: NonNull<u8>,
    length: NonZeroUsize,
    /// Where in the segment the mapping begins.
    start: u64,
    /// Where in the mapping the range begins.
    skipped: usize,
}

// SAFETY: the addresses are only computed with here; whoever writes through them answers for it.
unsafe impl Send for DraftMap {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for DraftMap {}

impl DraftMap {
    /// Maps the whole pages around a range that is not empty.
    pub fn map(memfd: &Memfd, offset: u64, bytes: u64) -> Result<DraftMap, SegmentError> {
        gate::check(offset, bytes, memfd.bytes())?;
        let (start, cover) = page_cover(offset, bytes);
        let length = length(cover)?;
        let base = map_pages(memfd, start, length, MapFlags::MAP_SHARED)?;
        Ok(DraftMap { base, length, start, skipped: (offset - start) as usize })
    }

    /// Where the range begins. Good while `self` lives, for as many bytes as were asked for.
    pub fn pointer(&self) -> NonNull<u8> {
        let first = self.base.as_ptr().wrapping_add(self.skipped);
        NonNull::new(first).expect("no mapping is at null")
    }

    /// Fills the page tables, so that writing takes no faults. Kernels before 5.14 cannot, and then it
    /// costs the faults and nothing else. Pages nobody allocated are allocated.
    pub fn populate(&self) -> Result<(), SegmentError> {
        let bytes = self.length.get() as u64;
        // By reading: that maps several pages a fault, writable at once, as nothing watches these pages.
        match advise(self.base, bytes, MmapAdvise::MADV_POPULATE_READ) {
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(allocation_error("MADV_POPULATE_READ", errno, bytes)),
        }
    }

    /// Cuts the range off the segment, of which it goes on to show what was written until now. `memfd` is
    /// the one that was mapped. On an error nothing has changed.
    ///
    /// Nobody finds a hole meanwhile, and once this returns no write reaches the segment: the kernel
    /// exchanges the pages in one step, in which other threads wait, and forgets the old ones everywhere.
    pub fn make_private(&self, memfd: &Memfd) -> Result<(), SegmentError> {
        // Made elsewhere and moved: mapping over the old pages directly may fail with these gone already.
        let fresh = map_pages(memfd, self.start, self.length, MapFlags::MAP_PRIVATE)?;
        let (length, flags) = (self.length.get(), MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED);
        // SAFETY: the source was mapped just now, and the target is our own mapping, of the same length,
        // of the same part of the same segment: pointers into it stay good.
        let moved = unsafe { mman::mremap(fresh.cast(), length, length, flags, Some(self.base.cast())) };
        match moved {
            Ok(_) => Ok(()),
            Err(errno) => {
                // SAFETY: it was mapped just now, and nobody else knows it.
                let _ = unsafe { mman::munmap(fresh.cast(), length) };
                Err(mapping_error("mremap", errno, self.start, length as u64))
            }
        }
    }

    /// As [`DraftMap::make_private`], in a child that has just been forked: without a mapping elsewhere,
    /// which could land in a hole that the child has yet to fill. Where it fails the range can be touched
    /// no more.
    pub fn make_private_in_child(&self, memfd: &Memfd) {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
        let place = NonZeroUsize::new(self.base.as_ptr().addr());
        let start = self.start as libc::off_t;
        // SAFETY: what is replaced is our own mapping, by the same part of the same segment.
        let mapped = unsafe { mman::mmap(place, self.length, READ_WRITE, flags, memfd, start) };
        if mapped.is_err() {
            let none = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
            // SAFETY: as above; what cannot be touched cannot be read wrongly.
            let _ = unsafe { mman::mmap_anonymous(place, self.length, ProtFlags::PROT_NONE, none) };
        }
    }
}

impl Drop for DraftMap {
    fn drop(&mut self) {
        // SAFETY: the range is our mapping, and whoever has pointers into it was told how long they are good.
        let _ = unsafe { mman::munmap(self.base.cast(), self.length.get()) };
    }
}

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Maps whole pages of a segment, to read and to write, and keeps them out of core files.
fn map_pages(memfd: &Memfd, start: u64, length: NonZeroUsize, kind: MapFlags) -> Result<NonNull<u8>, SegmentError> {
    let flags = kind | MapFlags::MAP_NORESERVE;
    // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
    let base = unsafe { mman::mmap(None, length, READ_WRITE, flags, memfd, start as libc::off_t) };
    let base = base.map_err(|errno| mapping_error("mmap", errno, start, length.get() as u64))?.cast();
    if let Err(errno) = advise(base, length.get() as u64, MmapAdvise::MADV_DONTDUMP) {
        // SAFETY: it was mapped just now, and nobody else knows it.
        let _ = unsafe { mman::munmap(base.cast(), length.get()) };
        return Err(SegmentError::system("madvise")(errno));
    }
    Ok(base)
}

/// The data segment mapped a second time, closed but for the ranges this process may fill.
#[derive(Debug)]
pub struct WriteWindow {
    reservation: Arc<Reservation>,
}

impl WriteWindow {
    /// Maps the whole segment without any access. The descriptor must be writable.
    pub fn map(memfd: &Memfd) -> Result<WriteWindow, SegmentError> {
        check_writable(memfd.as_fd())?;
        let reservation = Arc::new(Reservation::map(memfd)?);
        let handler: Arc<dyn AtFork> = reservation.clone();
        fork::register(Arc::downgrade(&handler));
        // After registering: a fork before this line inherits a range it cannot touch, one after it
        // finds a hole, which the handler fills.
        reservation.hide()?;
        Ok(WriteWindow { reservation })
    }

    /// The size of the segment.
    pub fn bytes(&self) -> u64 {
        self.reservation.bytes
    }

    /// Makes whole pages readable and writable.
    pub fn open(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        self.reservation.protect(offset, bytes, access)
    }

    /// Takes the access to whole pages away again; their contents stay.
    pub fn close(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        self.reservation.protect(offset, bytes, ProtFlags::PROT_NONE)
    }

    /// Allocates the missing pages of an open range and fills the page tables, so that writing to it
    /// neither faults nor fails. `Unsupported` before Linux 5.14: use [`Memfd::allocate`].
    pub fn populate(&self, offset: u64, bytes: u64) -> Result<(), SegmentError> {
        gate::check(offset, bytes, self.bytes())?;
        self.reservation.check_owner()?;
        let (start, length) = page_cover(offset, bytes);
        let first = self.pointer(start, length)?;
        match advise(first, length, MmapAdvise::MADV_POPULATE_WRITE) {
            Ok(()) => Ok(()),
            Err(Errno::EINVAL) => Err(self.why_not_populated(offset, bytes)),
            Err(errno) => Err(allocation_error("MADV_POPULATE_WRITE", errno, bytes)),
        }
    }

    /// The address of a range that passed the gate. Writing through it is the caller's `unsafe`, and
    /// a fault unless the range is open.
    #[inline]
    pub fn pointer(&self, offset: u64, bytes: u64) -> Result<NonNull<u8>, GateError> {
        gate::check(offset, bytes, self.reservation.bytes)?;
        // SAFETY: the gate passed, so the sum is inside the mapping.
        Ok(unsafe { self.reservation.base.add(offset as usize) })
    }

    /// EINVAL means an unknown advice or a closed range. The kernel checks the advice before anything
    /// else, also for no bytes at all.
    fn why_not_populated(&self, offset: u64, bytes: u64) -> SegmentError {
        match advise(self.reservation.base, 0, MmapAdvise::MADV_POPULATE_WRITE) {
            Ok(()) => SegmentError::NotOpen { offset, bytes },
            Err(_) => SegmentError::Unsupported { call: "MADV_POPULATE_WRITE" },
        }
    }
}

/// The range belongs to the process that mapped it and shows the segment.
const OWNED: u8 = 0;
/// We are a fork: the range holds nothing but our own inaccessible placeholder.
const PLACEHOLDER: u8 = 1;
/// We are a fork, and something else lies at the range: hands off.
const LOST: u8 = 2;

/// The address range of a write window.
///
/// A child does not inherit the mapping, and what it maps next could land in the hole: then a stray
/// pointer would write into an innocent allocation, and dropping the window would unmap it. So the
/// fork handler fills the hole with memory nobody can touch.
#[derive(Debug)]
struct Reservation {
    base: NonNull<u8>,
    bytes: u64,
    owner_pid: u32,
    /// `OWNED`, `PLACEHOLDER` or `LOST`; changes only in a forked child, before it has threads.
    state: AtomicU8,
}

// SAFETY: the address is only computed with here; whoever writes through it answers for it.
unsafe impl Send for Reservation {}
// SAFETY: as above; the state is an atomic.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn map(memfd: &Memfd) -> Result<Reservation, SegmentError> {
        let bytes = memfd.bytes();
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
        let base = unsafe { mman::mmap(None, length(bytes)?, ProtFlags::PROT_NONE, flags, memfd, 0) };
        Ok(Reservation {
            base: base.map_err(SegmentError::system("mmap"))?.cast(),
            bytes,
            owner_pid: std::process::id(),
            state: AtomicU8::new(OWNED),
        })
    }

    /// Keeps the range out of forked children and of core files.
    fn hide(&self) -> Result<(), SegmentError> {
        for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
            advise(self.base, self.bytes, advice).map_err(SegmentError::system("madvise"))?;
        }
        Ok(())
    }

    fn protect(&self, offset: u64, bytes: u64, access: ProtFlags) -> Result<(), SegmentError> {
        gate::check(offset, bytes, self.bytes)?;
        let page = page_bytes();
        gate::check_aligned(offset, page)?;
        if offset + bytes != self.bytes {
            // The kernel works on whole pages; only the segment's own end may be inside of one.
            gate::check_aligned(bytes, page)?;
        }
        self.check_owner()?;
        // SAFETY: the gate passed and the range is still ours. Taking access away can make others'
        // use of it fault, which is what the window is for, and never undefined.
        let outcome = unsafe {
            let first = self.base.add(offset as usize).cast();
            mman::mprotect(first, bytes as usize, access)
        };
        outcome.map_err(|errno| mapping_error("mprotect", errno, offset, bytes))
    }

    fn check_owner(&self) -> Result<(), SegmentError> {
        match self.state.load(Ordering::Relaxed) {
            OWNED => Ok(()),
            _ => Err(SegmentError::Forked { owner_pid: self.owner_pid }),
        }
    }

    /// Runs in a fresh child: maps inaccessible memory into the hole, unless somebody was faster.
    fn fill_hole(&self) -> u8 {
        let address = self.base.as_ptr() as usize;
        let (Some(place), Ok(length)) = (NonZeroUsize::new(address), length(self.bytes)) else {
            return LOST;
        };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: with this flag the kernel maps only where nothing is.
        let mapped = unsafe { mman::mmap_anonymous(Some(place), length, ProtFlags::PROT_NONE, flags) };
        match mapped {
            Ok(found) if found.cast() == self.base => PLACEHOLDER,
            Ok(elsewhere) => {
                // Kernels before 4.17 take the place for a hint.
                // SAFETY: we have just mapped this, and nobody else knows it.
                let _ = unsafe { mman::munmap(elsewhere, length.get()) };
                LOST
            }
            Err(_) => LOST,
        }
    }
}

impl AtFork for Reservation {
    fn before_fork(&self) {}

    fn after_fork_in_parent(&self) {}

    fn after_fork_in_child(&self) {
        // A grandchild inherits the placeholder.
        if self.state.load(Ordering::Relaxed) == OWNED {
            self.state.store(self.fill_hole(), Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if *self.state.get_mut() != LOST {
            // SAFETY: the range is our mapping or our placeholder, and nobody holds a window to it.
            let _ = unsafe { mman::munmap(self.base.cast(), self.bytes as usize) };
        }
    }
}

fn options(bytes: u64) -> Result<MmapOptions, SegmentError> {
    let mut options = MmapOptions::new();
    options.len(length(bytes)?.get());
    Ok(options)
}

fn length(bytes: u64) -> Result<NonZeroUsize, SegmentError> {
    let limit = isize::MAX as u64;
    if bytes > limit {
        return Err(SegmentError::TooLarge { bytes, limit });
    }
    NonZeroUsize::new(bytes as usize).ok_or(SegmentError::Empty)
}

/// The whole pages around a range that passed the gate: start and length.
fn page_cover(offset: u64, bytes: u64) -> (u64, u64) {
    let start = offset & !(page_bytes() - 1);
    (start, offset + bytes - start)
}

/// Gives advice that changes no contents, again if a signal interrupted it.
fn advise(first: NonNull<u8>, bytes: u64, advice: MmapAdvise) -> Result<(), Errno> {
    loop {
        // SAFETY: callers pass a range of a mapping of ours and advice that keeps its contents.
        match unsafe { mman::madvise(first.cast(), bytes as usize, advice) } {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            outcome => return outcome,
        }
    }
}

/// A mapping that cannot become writable later is refused now, with the kernel's word for it.
fn check_writable(fd: BorrowedFd<'_>) -> Result<(), SegmentError> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(SegmentError::system("F_GETFL"))?;
    if flags & OFlag::O_ACCMODE.bits() != OFlag::O_RDWR.bits() {
        return Err(SegmentError::system("mmap")(Errno::EACCES));
    }
    Ok(())
}

fn mapping_error(call: &'static str, errno: Errno, offset: u64, bytes: u64) -> SegmentError {
    match errno {
        Errno::ENOMEM => SegmentError::TooManyMappings { offset, bytes, limit: map_count_max() },
        source => SegmentError::system(call)(source),
    }
}

fn map_count_max() -> u64 {
    fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(MAP_COUNT_MAX_DEFAULT)
}

fn map_error(error: io::Error) -> SegmentError {
    SegmentError::system("mmap")(errno_of(&error))
}

fn advice_error(error: io::Error) -> SegmentError {
    SegmentError::system("madvise")(errno_of(&error))
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::WaitStatus;

    use super::*;
    use crate::testing::{check_segfault, fork_child, outcome_in_child, reap};

    fn segment(pages: u64) -> Memfd {
        Memfd::create("test", pages * page_bytes()).unwrap()
    }

    fn read_map(memfd: &Memfd) -> ReadMap {
        ReadMap::map(memfd.read_only().unwrap().as_fd(), memfd.bytes()).unwrap()
    }

    fn write(first: NonNull<u8>, byte: u8) -> i32 {
        // SAFETY: tests write where the window is open, or in a child that is to die of it.
        unsafe { first.write_volatile(byte) };
        0
    }

    fn read(first: NonNull<u8>) -> i32 {
        // SAFETY: as above.
        i32::from(unsafe { first.read_volatile() })
    }

    #[test]
    fn two_maps_of_a_segment_show_the_same_words() {
        let memfd = segment(2);
        let one = SharedMap::map(&memfd).unwrap();
        let two = SharedMap::map(&memfd).unwrap();
        let last = memfd.bytes() / 8 - 1;
        one.array::<AtomicU64>(0, last + 1).unwrap()[last as usize].store(7, Ordering::Relaxed);
        let seen = &two.array::<AtomicU64>(last * 8, 1).unwrap()[0];
        assert_eq!(seen.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn arrays_outside_or_misaligned_are_refused() {
        let map = SharedMap::map(&segment(1)).unwrap();
        let limit = page_bytes();
        let error = map.array::<AtomicU64>(8, limit / 8).unwrap_err();
        let expected = GateError::OutOfBounds { offset: 8, bytes: limit, limit };
        assert_eq!(error, expected);
        let error = map.array::<AtomicU64>(4, 1).unwrap_err();
        let (offset, align) = (4, 8);
        assert_eq!(error, GateError::Misaligned { offset, align });
        assert!(map.array::<AtomicU64>(0, u64::MAX).is_err());
        assert!(map.array::<AtomicU64>(u64::MAX - 7, 1).is_err());
    }

    #[test]
    fn empty_arrays_and_types_are_refused() {
        let map = SharedMap::map(&segment(1)).unwrap();
        assert_eq!(map.array::<AtomicU64>(0, 0).unwrap_err(), GateError::Empty);
        let error = map.array::<[AtomicU64; 0]>(0, 4).unwrap_err();
        assert_eq!(error, GateError::Empty);
    }

    #[test]
    fn children_keep_the_shared_map() {
        let map = SharedMap::map(&segment(1)).unwrap();
        let word = &map.array::<AtomicU32>(0, 1).unwrap()[0];
        let child = fork_child(|| {
            word.store(5, Ordering::Release);
            0
        });
        assert_eq!(reap(child), WaitStatus::Exited(child, 0));
        assert_eq!(word.load(Ordering::Acquire), 5);
    }

    #[test]
    fn write_through_the_read_map_faults() {
        let map = read_map(&segment(1));
        let first = map.pointer(0, 1).unwrap();
        check_segfault(|| write(first, 1));
    }

    #[test]
    fn read_map_cannot_be_made_writable() {
        let map = read_map(&segment(1));
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let first = map.pointer(0, 1).unwrap().cast();
        // SAFETY: the kernel refuses.
        let outcome = unsafe { mman::mprotect(first, page_bytes() as usize, access) };
        assert_eq!(outcome, Err(Errno::EACCES));
    }

    #[test]
    fn read_map_beyond_the_file_is_refused() {
        let memfd = segment(1);
        let found_bytes = memfd.bytes();
        let expected_bytes = found_bytes + 1;
        let error = ReadMap::map(memfd.as_fd(), expected_bytes).unwrap_err();
        let expected = SegmentError::TooSmall { expected_bytes, found_bytes };
        assert_eq!(error, expected);
        let error = ReadMap::map(memfd.as_fd(), 0).unwrap_err();
        assert_eq!(error, SegmentError::Empty);
    }

    #[test]
    fn pointers_and_slices_pass_the_gate() {
        let map = read_map(&segment(1));
        assert!(map.pointer(0, map.bytes() + 1).is_err());
        assert!(map.pointer(u64::MAX, 2).is_err());
        // SAFETY: nobody writes.
        assert_eq!(unsafe { map.slice(0, 0) }, Err(GateError::Empty));
        // SAFETY: nobody writes.
        let bytes = unsafe { map.slice(1, map.bytes() - 1) }.unwrap();
        assert_eq!(bytes.len() as u64, map.bytes() - 1);
        assert_eq!(bytes.as_ptr(), map.base().wrapping_add(1));
    }

    #[test]
    fn closed_window_faults_on_read_and_write() {
        let window = WriteWindow::map(&segment(2)).unwrap();
        let first = window.pointer(0, 1).unwrap();
        // A child would fault for another reason too, so it makes its own window.
        check_segfault(|| {
            let window = WriteWindow::map(&segment(2)).unwrap();
            write(window.pointer(0, 1).unwrap(), 1)
        });
        check_segfault(|| {
            let window = WriteWindow::map(&segment(2)).unwrap();
            window.open(0, page_bytes()).unwrap();
            read(window.pointer(page_bytes(), 1).unwrap())
        });
        check_segfault(|| read(first));
    }

    #[test]
    fn what_an_open_window_writes_the_read_map_shows() {
        let memfd = segment(4);
        let page = page_bytes();
        let window = WriteWindow::map(&memfd).unwrap();
        let map = read_map(&memfd);
        window.open(page, 2 * page).unwrap();
        write(window.pointer(page + 3, 1).unwrap(), 9);
        assert_eq!(read(map.pointer(page + 3, 1).unwrap()), 9);
        window.close(page, page).unwrap();
        write(window.pointer(2 * page, 1).unwrap(), 8);
        assert_eq!(read(map.pointer(page + 3, 1).unwrap()), 9);
    }

    #[test]
    fn window_closed_again_faults() {
        check_segfault(|| {
            let window = WriteWindow::map(&segment(1)).unwrap();
            window.open(0, page_bytes()).unwrap();
            let first = window.pointer(0, 1).unwrap();
            write(first, 1);
            window.close(0, page_bytes()).unwrap();
            write(first, 2)
        });
    }

    #[test]
    fn child_touching_its_parents_window_dies() {
        let window = WriteWindow::map(&segment(2)).unwrap();
        window.open(0, 2 * page_bytes()).unwrap();
        let first = window.pointer(0, 1).unwrap();
        write(first, 3);
        check_segfault(|| write(first, 4));
        check_segfault(|| read(first));
        // Memory that the child maps later must not land under the stray pointer.
        check_segfault(|| {
            let other = SharedMap::map(&segment(2)).unwrap();
            let _ = other.bytes();
            write(first, 4)
        });
        assert_eq!(read(first), 3);
    }

    #[test]
    fn child_cannot_open_and_may_drop_its_parents_window() {
        let window = WriteWindow::map(&segment(1)).unwrap();
        let owner_pid = std::process::id();
        let forked = Err(SegmentError::Forked { owner_pid });
        let outcome = outcome_in_child(|| {
            assert_eq!(window.open(0, page_bytes()), forked);
            assert_eq!(window.populate(0, 1), forked);
            let grandchild = outcome_in_child(|| i32::from(window.close(0, page_bytes()) != forked));
            assert!(matches!(grandchild, WaitStatus::Exited(_, 0)));
            assert_eq!(window.reservation.state.load(Ordering::Relaxed), PLACEHOLDER);
            // SAFETY: the child exits without ever touching its copy of the window again.
            drop(unsafe { std::ptr::read(&raw const window) });
            0
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
        window.open(0, page_bytes()).unwrap();
        assert_eq!(write(window.pointer(0, 1).unwrap(), 1), 0);
    }

    #[test]
    fn window_changes_access_of_whole_pages_only() {
        let window = WriteWindow::map(&segment(2)).unwrap();
        let align = page_bytes();
        let misaligned = |offset| Err(GateError::Misaligned { offset, align }.into());
        assert_eq!(window.open(8, align), misaligned(8));
        assert_eq!(window.open(0, align + 8), misaligned(align + 8));
        assert!(window.open(align, 2 * align).is_err());
        assert!(window.close(0, 0).is_err());
        assert!(window.pointer(0, 2 * align + 1).is_err());
    }

    #[test]
    fn segment_that_ends_inside_a_page_opens_to_its_end() {
        let bytes = page_bytes() + 100;
        let window = WriteWindow::map(&Memfd::create("test", bytes).unwrap()).unwrap();
        window.open(0, bytes).unwrap();
        window.populate(0, bytes).unwrap();
        assert_eq!(write(window.pointer(bytes - 1, 1).unwrap(), 1), 0);
    }

    #[test]
    fn window_of_a_read_only_descriptor_is_refused() {
        let memfd = Memfd::from_fd(segment(1).read_only().unwrap()).unwrap();
        let call = "mmap";
        let source = Errno::EACCES;
        let expected = SegmentError::System { call, source };
        assert_eq!(WriteWindow::map(&memfd).unwrap_err(), expected);
        assert_eq!(SharedMap::map(&memfd).unwrap_err(), expected);
    }

    #[test]
    fn populating_an_open_range_allocates_its_pages() {
        let memfd = segment(16);
        let page = page_bytes();
        let window = WriteWindow::map(&memfd).unwrap();
        window.open(0, 8 * page).unwrap();
        match window.populate(page + 1, 2 * page) {
            Ok(()) => assert_eq!(memfd.allocated_bytes(), Ok(3 * page)),
            Err(error) => assert!(matches!(error, SegmentError::Unsupported { .. })),
        }
        read_map(&memfd).populate(0, 4 * page).unwrap();
    }

    #[test]
    fn populating_a_closed_range_is_refused() {
        let memfd = segment(4);
        let window = WriteWindow::map(&memfd).unwrap();
        match window.populate(0, 5).unwrap_err() {
            SegmentError::NotOpen { offset: 0, bytes: 5 } | SegmentError::Unsupported { .. } => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(memfd.allocated_bytes(), Ok(0));
    }

    #[test]
    fn too_many_mappings_is_a_typed_error() {
        let limit = map_count_max();
        if limit > 1 << 21 {
            return; // A machine so configured would spend seconds on reaching the limit.
        }
        // In a child, since the other tests need mappings too.
        let outcome = outcome_in_child(|| {
            let window = WriteWindow::map(&segment(2 * limit)).unwrap();
            let page = page_bytes();
            let mut opened = (0..limit).map(|n| window.open(2 * n * page, page));
            match opened.find(Result::is_err) {
                Some(Err(SegmentError::TooManyMappings { limit: told, .. })) => i32::from(told != limit),
                _ => 2,
            }
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
    }

    /// The kernel's flags for the one mapping of the segment with this name.
    fn kernel_flags(name: &str) -> String {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.split_once(name).unwrap().1;
        let flags = ours.split_once("VmFlags:").unwrap().1;
        flags.lines().next().unwrap().to_owned()
    }

    #[test]
    fn data_stays_out_of_core_files_and_the_window_out_of_children() {
        let memfd = Memfd::create("test-flags-of-window", page_bytes()).unwrap();
        let _window = WriteWindow::map(&memfd).unwrap();
        let flags = kernel_flags("test-flags-of-window");
        assert!(flags.contains(" dc") && flags.contains(" dd"), "{flags}");
        let memfd = Memfd::create("test-flags-of-read-map", page_bytes()).unwrap();
        let _map = read_map(&memfd);
        let flags = kernel_flags("test-flags-of-read-map");
        assert!(flags.contains(" dd") && !flags.contains(" dc"), "{flags}");
    }

    #[test]
    fn what_is_written_to_a_private_map_stays_there() {
        let page = page_bytes();
        let memfd = segment(4);
        let window = WriteWindow::map(&memfd).unwrap();
        window.open(0, 4 * page).unwrap();
        let shared = window.pointer(page + 8, page).unwrap();
        // SAFETY: the range is open, and this thread alone uses it.
        unsafe { shared.as_ptr().write_bytes(7, page as usize) };
        let private = PrivateMap::map(&memfd, page + 8, page).unwrap();
        // SAFETY: the mapping is as long as was asked for, and this thread alone uses it.
        let bytes = unsafe { slice::from_raw_parts_mut(private.pointer().as_ptr(), page as usize) };
        assert!(bytes.iter().all(|byte| *byte == 7));
        bytes.fill(9);
        // SAFETY: as above; nobody writes here any more.
        let seen = unsafe { slice::from_raw_parts(shared.as_ptr(), page as usize) };
        assert!(seen.iter().all(|byte| *byte == 7));
        assert!(PrivateMap::map(&memfd, 3 * page, page + 1).is_err());
        assert!(PrivateMap::map(&memfd, 0, 0).is_err());
    }

    /// A segment whose second page and the one behind it are open, and a draft over its middle.
    fn drafted() -> (Memfd, WriteWindow, DraftMap) {
        let (page, memfd) = (page_bytes(), segment(4));
        let window = WriteWindow::map(&memfd).unwrap();
        window.open(0, 4 * page).unwrap();
        let draft = DraftMap::map(&memfd, page + 8, page).unwrap();
        (memfd, window, draft)
    }

    #[test]
    fn what_is_written_to_a_draft_reaches_the_segment_until_it_is_private() {
        let (memfd, window, draft) = drafted();
        let (page, first) = (page_bytes(), draft.pointer());
        draft.populate().unwrap();
        write(first, 7);
        let shared = window.pointer(page + 8, 1).unwrap();
        assert_eq!(read(shared), 7);
        draft.make_private(&memfd).unwrap();
        assert_eq!((draft.pointer(), read(first)), (first, 7));
        write(first, 9);
        assert_eq!((read(first), read(shared)), (9, 7));
        assert!(DraftMap::map(&memfd, 3 * page, page + 1).is_err());
        assert!(DraftMap::map(&memfd, 0, 0).is_err());
    }

    #[test]
    fn a_thread_that_writes_while_a_draft_becomes_private_finds_no_hole() {
        let (memfd, window, draft) = drafted();
        let is_over = AtomicU8::new(0);
        let shared = window.pointer(page_bytes() + 8, 1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut byte = 0u8;
                while is_over.load(Ordering::SeqCst) == 0 {
                    byte = byte.wrapping_add(1);
                    write(draft.pointer(), byte);
                }
            });
            draft.make_private(&memfd).unwrap();
            let seen = read(shared);
            for _ in 0..1000 {
                assert_eq!(read(shared), seen);
                std::thread::yield_now();
            }
            is_over.store(1, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_child_makes_a_draft_private_for_itself() {
        let (memfd, window, draft) = drafted();
        write(draft.pointer(), 7);
        let outcome = outcome_in_child(|| {
            draft.make_private_in_child(&memfd);
            let seen = read(draft.pointer());
            write(draft.pointer(), 9);
            i32::from(seen != 7 || read(draft.pointer()) != 9)
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
        assert_eq!(read(window.pointer(page_bytes() + 8, 1).unwrap()), 7);
    }

    #[test]
    fn dropped_maps_leave_nothing_mapped() {
        // In a child, which is alone: a fork of another test holds the window for its duration.
        let outcome = outcome_in_child(|| {
            let memfd = Memfd::create("test-dropped-maps", page_bytes()).unwrap();
            let draft = DraftMap::map(&memfd, 0, 8).unwrap();
            draft.make_private(&memfd).unwrap();
            let maps = (SharedMap::map(&memfd).unwrap(), read_map(&memfd), WriteWindow::map(&memfd).unwrap(), draft);
            assert!(is_mapped("test-dropped-maps"));
            drop(maps);
            i32::from(is_mapped("test-dropped-maps"))
        });
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
    }

    fn is_mapped(name: &str) -> bool {
        fs::read_to_string("/proc/self/maps").unwrap().contains(name)
    }
}
