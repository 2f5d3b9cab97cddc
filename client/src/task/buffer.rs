//! Bytes that usually are few: in the value itself up to what a task's record holds.
//!
//! The one thing to know: the usual call then allocates nothing for its arguments. This file must not
//! know what the bytes mean.

use raylet_api::record::INLINE_BYTES_MAX;
use std::fmt;

/// A growing run of bytes.
pub(crate) struct Buffer {
    len: usize,
    inline: [u8; INLINE_BYTES_MAX],
    /// All of them, once they are more than fit.
    spilled: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer { len: 0, inline: [0; INLINE_BYTES_MAX], spilled: Vec::new() }
    }
}

impl Buffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len <= INLINE_BYTES_MAX { &self.inline[..self.len] } else { &self.spilled }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        if self.len <= INLINE_BYTES_MAX { &mut self.inline[..self.len] } else { &mut self.spilled }
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end <= INLINE_BYTES_MAX {
            self.inline[self.len..end].copy_from_slice(bytes);
        } else {
            self.spill(bytes);
        }
        self.len = end;
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline[..self.len]);
        }
        self.spilled.extend_from_slice(bytes);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_wherever_they_lie() {
        let all: Vec<u8> = (0..=200).collect();
        for step in [1, 7, INLINE_BYTES_MAX, 201] {
            let mut buffer = Buffer::default();
            for part in all.chunks(step) {
                buffer.extend(part);
                assert_eq!(buffer.bytes(), &all[..buffer.len]);
            }
            buffer.bytes_mut()[0] = 9;
            assert_eq!(buffer.bytes()[..2], [9, 1]);
        }
    }
}
