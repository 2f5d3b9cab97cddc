//! Words that a test and its children share, beside any store.
//!
//! The one thing to know: the mapping is anonymous and shared, so children that fork later have it
//! too. It must not be used for what a store should do.

#![allow(unsafe_code)]

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Some words, zero at first, which this process and what it forks share.
#[derive(Debug)]
pub struct SharedWords {
    first: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the words are atomics and stay mapped as long as the value lives.
unsafe impl Sync for SharedWords {}
// SAFETY: as above.
unsafe impl Send for SharedWords {}

impl SharedWords {
    /// `count` words.
    pub fn new(count: usize) -> SharedWords {
        let bytes = NonZeroUsize::new(count.max(1) * size_of::<AtomicU64>()).expect("at least one word");
        let flags = MapFlags::MAP_SHARED;
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let first = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
        SharedWords { first: first.expect("a test maps a few pages").cast(), count }
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words, zeroed by the kernel, for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nobody borrows it any more.
        let _ = unsafe { munmap(self.first.cast(), self.count.max(1) * size_of::<AtomicU64>()) };
    }
}
