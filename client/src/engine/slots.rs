//! Maps from objects, hashed by their slot.
//!
//! The one thing to know: nobody chooses handles, the store gives them out, so one multiplication
//! spreads them as well as a hash made to withstand an adversary. This file must hold no policy.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use store::Handle;

/// A map from handles.
pub(crate) type SlotMap<V> = HashMap<Handle, V, BuildHasherDefault<SlotHasher>>;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        // The map takes its buckets from the low bits and its tags from the high ones.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
