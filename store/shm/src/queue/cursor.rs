//! Where claimers begin to look: a hint that a requeue behind it takes back.
//!
//! ```text
//!  63                   24 23                0
//! +-----------------------+-------------------+
//! |  position (40 bits)   |  version (24)     |
//! +-----------------------+-------------------+
//! ```
//!
//! The one thing to know: a requeue changes the version *after* its record is queued again. So who
//! read the cursor, then saw records that were not queued, and finds the version unchanged, may
//! move on past them: no requeue that he could have missed is over.

use super::word::Position;

const VERSION_BITS: u32 = 24;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;

/// One reading of the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Nothing before is queued, but by a requeue that is not over.
    pub(crate) position: Position,
    pub(crate) version: u64,
}

impl Cursor {
    pub(crate) fn unpack(word: u64) -> Cursor {
        Cursor { position: Position::from_number(word >> VERSION_BITS), version: word & VERSION_MASK }
    }

    pub(crate) fn pack(self) -> u64 {
        self.position.number() << VERSION_BITS | self.version
    }

    pub(crate) fn moved_on(self, position: Position) -> Cursor {
        Cursor { position, ..self }
    }

    /// For a record at `position` that was queued again. The version changes even where the position
    /// need not: a claimer may be about to move on from what it saw before.
    pub(crate) fn taken_back(self, position: Position) -> Cursor {
        let earlier = if position.after(self.position) < 0 { position } else { self.position };
        Cursor { position: earlier, version: (self.version + 1) & VERSION_MASK }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_packing_and_wrap() {
        let last = Cursor { position: Position::from_number(u64::MAX), version: VERSION_MASK };
        assert_eq!(Cursor::unpack(last.pack()), last);
        let next = last.taken_back(last.position.plus(3));
        assert_eq!(next, Cursor { position: last.position, version: 0 });
        assert_eq!(next.taken_back(last.position.minus(3)).position, last.position.minus(3));
    }
}
