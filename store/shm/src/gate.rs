//! The gate: the one place where an offset and a length become trusted.
//!
//! The one thing to know: whoever computes an address inside a mapping calls [`check`] first, and a
//! range that passed is inside the mapping for as long as the mapping lives, since segments cannot
//! shrink. It must not touch memory or know what lies at an offset.

use thiserror::Error;

/// Why an offset from shared memory, or from a caller, was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GateError {
    /// The range does not lie inside the segment, or its end overflows.
    #[error("{bytes} bytes at offset {offset} do not lie inside {limit} bytes")]
    OutOfBounds {
        /// First byte asked for, from the start of the segment.
        offset: u64,
        /// Length asked for; `u64::MAX` if computing it overflowed.
        bytes: u64,
        /// Length of the segment.
        limit: u64,
    },
    /// The offset does not suit the type that should lie there.
    #[error("offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// Offset asked for.
        offset: u64,
        /// Alignment it needs, a power of two.
        align: u64,
    },
    /// A range of no bytes: always a mistake, and its address might be past the end.
    #[error("a range of zero bytes")]
    Empty,
}

/// Passes iff `bytes > 0` and `offset..offset + bytes` lies inside `0..limit`.
#[inline]
pub fn check(offset: u64, bytes: u64, limit: u64) -> Result<(), GateError> {
    if bytes == 0 {
        return Err(GateError::Empty);
    }
    match offset.checked_add(bytes) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(GateError::OutOfBounds { offset, bytes, limit }),
    }
}

/// Passes iff `offset` is a multiple of `align`, which is a power of two.
#[inline]
pub fn check_aligned(offset: u64, align: u64) -> Result<(), GateError> {
    debug_assert!(align.is_power_of_two());
    if offset & (align - 1) == 0 { Ok(()) } else { Err(GateError::Misaligned { offset, align }) }
}

/// The size of `count` items of `item_bytes`, provided that they lie inside `0..limit` at `offset`.
#[inline]
pub fn check_array(offset: u64, count: u64, item_bytes: u64, limit: u64) -> Result<u64, GateError> {
    let bytes = count.checked_mul(item_bytes).ok_or(GateError::OutOfBounds { offset, bytes: u64::MAX, limit })?;
    check(offset, bytes, limit)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_range(offset: u64, bytes: u64, limit: u64, passes: bool) {
        let expected = match (passes, bytes) {
            (true, _) => Ok(()),
            (false, 0) => Err(GateError::Empty),
            (false, _) => Err(GateError::OutOfBounds { offset, bytes, limit }),
        };
        assert_eq!(check(offset, bytes, limit), expected, "{offset} {bytes} {limit}");
    }

    #[test]
    fn ranges_inside_pass_up_to_the_last_byte() {
        check_range(0, 1, 1, true);
        check_range(0, 4096, 4096, true);
        check_range(4095, 1, 4096, true);
        check_range(u64::MAX - 1, 1, u64::MAX, true);
    }

    #[test]
    fn ranges_outside_are_refused() {
        check_range(4096, 1, 4096, false);
        check_range(0, 4097, 4096, false);
        check_range(4095, 2, 4096, false);
        check_range(0, 1, 0, false);
    }

    #[test]
    fn overflowing_ends_are_refused() {
        check_range(u64::MAX, 1, 4096, false);
        check_range(1, u64::MAX, 4096, false);
        check_range(u64::MAX, u64::MAX, u64::MAX, false);
        check_range(u64::MAX - 7, 8, 16, false);
    }

    #[test]
    fn empty_ranges_are_refused() {
        check_range(0, 0, 4096, false);
        check_range(4096, 0, 4096, false);
        check_range(u64::MAX, 0, 0, false);
    }

    #[test]
    fn arrays_whose_size_overflows_are_refused() {
        let error = check_array(0, u64::MAX / 4, 8, 4096).unwrap_err();
        let expected = GateError::OutOfBounds { offset: 0, bytes: u64::MAX, limit: 4096 };
        assert_eq!(error, expected);
        assert_eq!(check_array(8, 4, 8, 40), Ok(32));
        assert_eq!(check_array(0, 0, 8, 40), Err(GateError::Empty));
        assert_eq!(check_array(0, 8, 0, 40), Err(GateError::Empty));
    }

    #[test]
    fn misaligned_offsets_are_refused() {
        assert_eq!(check_aligned(64, 64), Ok(()));
        let expected = GateError::Misaligned { offset: 60, align: 8 };
        assert_eq!(check_aligned(60, 8), Err(expected));
    }
}
