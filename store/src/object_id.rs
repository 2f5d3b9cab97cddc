//! The name of an object: 28 bytes in Ray's shape.

use std::fmt;

/// 24 bytes that name the task that made the object, then a little-endian number within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 28]);

impl ObjectId {
    /// Bytes of an id.
    pub const BYTES: usize = 28;

    /// The id with exactly these bytes.
    pub const fn new(bytes: [u8; 28]) -> ObjectId {
        ObjectId(bytes)
    }

    /// The id of the object numbered `index` that `task` made.
    pub fn of_task(task: [u8; 24], index: u32) -> ObjectId {
        let mut bytes = [0; 28];
        bytes[..24].copy_from_slice(&task);
        bytes[24..].copy_from_slice(&index.to_le_bytes());
        ObjectId(bytes)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 28] {
        &self.0
    }

    /// The task's part.
    pub fn task(&self) -> [u8; 24] {
        self.0[..24].try_into().expect("24 of 28 bytes")
    }

    /// The number within the task.
    pub fn index(&self) -> u32 {
        u32::from_le_bytes(self.0[24..].try_into().expect("the last 4 of 28 bytes"))
    }

    #[inline]
    pub(crate) fn words(&self) -> ([u64; 3], u32) {
        let word = |at: usize| u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 of 28 bytes"));
        ([word(0), word(8), word(16)], self.index())
    }

    pub(crate) fn from_words((words, index): ([u64; 3], u32)) -> ObjectId {
        let mut bytes = [0; 28];
        for (chunk, word) in bytes.chunks_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..].copy_from_slice(&index.to_le_bytes());
        ObjectId(bytes)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

#[cfg(not(feature = "loom"))]
impl std::str::FromStr for ObjectId {
    type Err = crate::error::ParseIdError;

    fn from_str(text: &str) -> Result<ObjectId, Self::Err> {
        let bad = || crate::error::ParseIdError { length: text.len() };
        if text.len() != 2 * Self::BYTES || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 28];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(ObjectId(bytes))
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn text_and_words_give_the_id_back() {
        let id = ObjectId::of_task(std::array::from_fn(|at| at as u8 * 7), 0xDEAD_BEEF);
        assert_eq!(id.to_string().parse::<ObjectId>().ok(), Some(id));
        assert_eq!(ObjectId::from_words(id.words()), id);
        assert_eq!(id.index(), 0xDEAD_BEEF);
        assert!("abc".parse::<ObjectId>().is_err());
        assert!("zz".repeat(28).parse::<ObjectId>().is_err());
    }
}
