//! A byte slice seen as a slice of numbers, to be written.
//!
//! The one thing to know: this is the only cast of the module, and it checks alignment and length
//! itself, so its callers need no `unsafe`.
#![allow(unsafe_code)]

use arrow_buffer::ArrowNativeType;

/// The bytes as values, if they start aligned and are a whole number of values.
pub(super) fn values_mut<T: ArrowNativeType>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: (1) `ArrowNativeType` is sealed; its implementors are numbers and structs of numbers
    // without padding, for which any bytes are a value and any value is bytes. (2) `align_to_mut`
    // puts into the middle part only what is aligned and in bounds.
    let (before, values, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

/// The bytes of numbers, to lend tests memory that starts aligned.
#[cfg(test)]
pub(super) fn values_mut_bytes(values: &mut [u128]) -> &mut [u8] {
    // SAFETY: any number is bytes, and any bytes are a number.
    unsafe { values.align_to_mut::<u8>() }.1
}
