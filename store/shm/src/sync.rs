//! The atomics that queues are written against: `std`'s, or loom's when their models are built.
//!
//! The one thing to know: every word that two processes race on in a queue goes through these names,
//! so the source that loom explores is the source that ships. Nothing else of this crate uses them.

#[cfg(feature = "loom")]
pub(crate) use crate::modelled::AtomicU64;
#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Shared structs: a checked view of a segment, or plain memory under loom.
#[cfg(not(feature = "loom"))]
pub(crate) type Array<T> = crate::array::SharedArray<T>;
#[cfg(feature = "loom")]
pub(crate) type Array<T> = std::sync::Arc<[T]>;

/// The full fence between a read-modify-write of one word and a load of another.
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
