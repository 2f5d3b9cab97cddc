//! A typed array inside a mapped segment, checked once when it is made.
//!
//! The one thing to know: a [`SharedArray`] keeps its mapping alive, so the references it hands
//! out are good for as long as it is borrowed. It must not be used to read bytes that another
//! process may change without an atomic; [`Shared`] forbids such types.

use crate::gate::GateError;
use crate::map::{Shared, SharedMap};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// `count` values of `T` at a fixed place of a segment that stays mapped.
pub struct SharedArray<T: Shared> {
    first: NonNull<T>,
    count: usize,
    _map: Arc<SharedMap>,
}

impl<T: Shared> SharedArray<T> {
    /// Checks offset, alignment and bounds against the mapping, once.
    pub fn new(map: &Arc<SharedMap>, offset: u64, count: u64) -> Result<Self, GateError> {
        let values = map.array::<T>(offset, count)?;
        Ok(SharedArray { first: NonNull::from(values).cast(), count: values.len(), _map: Arc::clone(map) })
    }
}

impl<T: Shared> Clone for SharedArray<T> {
    fn clone(&self) -> Self {
        SharedArray { first: self.first, count: self.count, _map: Arc::clone(&self._map) }
    }
}

impl<T: Shared> Deref for SharedArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` took pointer and count from a checked slice of `_map`, which this value
        // keeps mapped; `T: Shared` may be read and written by several processes at once.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

// SAFETY: the values are `Shared`, hence `Sync`, and the mapping may be used from any thread.
unsafe impl<T: Shared> Send for SharedArray<T> {}
// SAFETY: as above; only shared references are handed out.
unsafe impl<T: Shared> Sync for SharedArray<T> {}
