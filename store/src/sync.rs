//! The atomics the protocol is written against: `std`'s, or loom's when its models are built.
//!
//! The one thing to know: every word that two processes race on goes through these names, so the
//! source that loom explores is the source that ships.

#[cfg(feature = "loom")]
pub(crate) use loom::{
    sync::atomic::{Ordering, fence},
    thread::yield_now,
};
#[cfg(not(feature = "loom"))]
pub(crate) use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(feature = "loom")]
pub(crate) use store_shm::modelled::{AtomicU32, AtomicU64};

/// A table of shared words: a checked view of a segment, or plain memory under loom.
#[cfg(not(feature = "loom"))]
pub(crate) type Array<T> = store_shm::array::SharedArray<T>;
#[cfg(feature = "loom")]
pub(crate) type Array<T> = Box<[T]>;

/// The full fence between a `SeqCst` read-modify-write of one word and a load of another.
///
/// On x86-64 the locked instruction is already that fence, so only the compiler has to be held
/// back; everywhere else (and under loom) it is a real one.
#[inline(always)]
pub(crate) fn fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(feature = "loom")))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(feature = "loom"))))]
    fence(Ordering::SeqCst);
}
