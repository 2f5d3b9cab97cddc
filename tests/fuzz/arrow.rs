//! Arrow files, mutated.
//!
//! The one thing to know: what is accepted is also walked, value for value, through the safe methods
//! of its arrays. It must not vouch for any bytes.

use crate::Reader;
use crate::tally::{Depth, Tally};
use store::arrow::fuzz::{Mutator, aligned, seeds, walk};
use store::arrow::{DecodeError, decode};

/// Valid tables of every type, and the last input.
pub(crate) struct Tables {
    seeds: Vec<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Tables {
    pub(crate) fn new() -> Tables {
        Tables { seeds: seeds(), bytes: Vec::new() }
    }
}

impl Reader for Tables {
    fn input(&mut self, random: &mut Mutator, tally: &mut Tally) {
        random.mutate(&self.seeds, &mut self.bytes);
        match decode(aligned(&self.bytes), false) {
            Ok(table) => {
                std::hint::black_box(walk(&table));
                tally.depth(Depth::Accepted);
                tally.outcome("accepted, and walked");
            }
            Err(error) => {
                let is_first = matches!(error, DecodeError::NotArrow { .. });
                tally.depth(if is_first { Depth::Refused } else { Depth::Entered });
                tally.error("", &error);
            }
        }
    }
}
