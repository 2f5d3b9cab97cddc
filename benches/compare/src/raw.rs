//! Everything unsafe of this crate: shared mappings, bare futexes, opening LMDB.
//!
//! The one thing to know: this is not the store's code and must not become it; the limits stand on
//! it. Words of a mapping are only ever seen as atomics, its bytes are only ever copied, so no
//! reference to memory that another process writes exists.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use heed::{Env, EnvFlags, EnvOpenOptions, WithTls};
use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::BenchError;

/// Bytes of a page of shared memory as first touched.
pub const PAGE_BYTES: usize = 4096;
/// 64-bit words of a cache line.
pub const WORDS_PER_LINE: usize = 8;

/// Pages of a memfd, mapped shared and never as huge pages.
pub struct SharedPages {
    file: File,
    map: MmapRaw,
}

impl SharedPages {
    /// Fresh pages that nobody has touched.
    pub fn untouched(bytes: usize) -> Result<Self, BenchError> {
        let memory = memfd_create(c"bench-limit", MFdFlags::MFD_CLOEXEC).map_err(BenchError::errno("memfd_create"))?;
        let file = File::from(memory);
        file.set_len(bytes as u64).map_err(BenchError::system("the size of a memfd"))?;
        Self::map(file)
    }

    /// Fresh pages, every one of them present and mapped writable.
    pub fn warm(bytes: usize) -> Result<Self, BenchError> {
        let pages = Self::untouched(bytes)?;
        for offset in (0..bytes).step_by(PAGE_BYTES) {
            pages.copy_in(offset, &[1]);
        }
        Ok(pages)
    }

    /// The pages of another process, by the path that process gave.
    pub fn open(path: &Path) -> Result<Self, BenchError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(BenchError::system("another process's memfd"))?;
        Self::map(file)
    }

    fn map(file: File) -> Result<Self, BenchError> {
        let map = MmapOptions::new().map_raw(&file).map_err(BenchError::system("mmap"))?;
        // A machine without huge pages refuses the advice and needs none.
        let _ = map.advise(Advice::NoHugePage);
        Ok(Self { file, map })
    }

    /// Where another process of this user finds these pages as long as this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Copies `source` to `offset` as `memcpy` does.
    pub fn copy_in(&self, offset: usize, source: &[u8]) {
        let end = offset.checked_add(source.len()).expect("an offset within a mapping");
        assert!(end <= self.map.len(), "a copy to {offset}..{end} of {} bytes", self.map.len());
        // SAFETY: 1. the assert keeps the destination inside the mapping; 2. the source is a slice,
        // and no reference into the mapping's bytes exists, so they do not overlap.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), self.map.as_mut_ptr().add(offset), source.len()) }
    }

    /// All pages as 64-bit words.
    pub fn words(&self) -> &[AtomicU64] {
        let count = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: 1. a mapping starts at a page, so it is aligned; 2. `count` words lie inside it;
        // 3. it is shared memory that is only accessed through atomics and `copy_in`, and callers use
        // one of the two on a range; 4. it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), count) }
    }

    /// The first half of a 64-bit word, for a futex.
    pub fn futex_word(&self, index: usize) -> &AtomicU32 {
        let word = &self.words()[index];
        // SAFETY: the 64-bit word is aligned for 32 bits and lives as long; it is only used in halves.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast::<u32>()) }
    }
}

/// Sleeps while the word holds `expected`; returns early at times, as the kernel does.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word is valid for the call; the time-out is absent; the result says only why we woke.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, ptr::null::<libc::timespec>()) };
}

/// Wakes one who waits for the word.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is valid for the call, which reads only its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// How LMDB maps its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LmdbMap {
    /// Pages are written by system calls; a stray write is a fault.
    ReadOnly,
    /// Pages are written in place.
    Writable,
}

/// Opens an LMDB environment in a directory of our own; never synced, as fits a directory in memory.
pub fn open_lmdb(directory: &Path, map_bytes: usize, map: LmdbMap) -> Result<Env<WithTls>, heed::Error> {
    let mut flags = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC;
    if map == LmdbMap::Writable {
        flags |= EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC;
    }
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes).max_readers(16);
    // SAFETY: 1. the directory is fresh and private, so nobody else has the files open or shortens
    // them; 2. losing them at a crash is what is wanted of memory.
    unsafe {
        options.flags(flags);
        options.open(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_second_mapping_sees_the_same_words() {
        let pages = SharedPages::warm(PAGE_BYTES).expect("pages");
        let other = SharedPages::open(&pages.path()).expect("the same pages");
        pages.copy_in(8, &7u64.to_ne_bytes());
        assert_eq!(other.words()[1].load(Ordering::Relaxed), 7);
    }

    #[test]
    #[should_panic(expected = "a copy to")]
    fn a_copy_past_the_end_is_refused() {
        SharedPages::untouched(PAGE_BYTES).expect("pages").copy_in(PAGE_BYTES - 1, &[0; 2]);
    }

    #[test]
    fn a_wait_for_another_value_returns() {
        futex_wait(&AtomicU32::new(1), 0);
    }
}
