//! The tables of a store, scribbled over.
//!
//! The one thing to know: an input is a few stray stores and a few operations; each operation must
//! end, in a value or a typed error. It must not say what a value should be.

use crate::Reader;
use crate::tally::{Depth, Tally};
use std::error::Error;
use store::arrow::fuzz::Mutator;
use store::fuzz::{Outcomes, Scribbler};

/// The store.
pub(crate) struct Stores(Scribbler);

impl Stores {
    pub(crate) fn new() -> Stores {
        Stores(Scribbler::new())
    }
}

/// What the operations of one input came to.
struct Operations<'a> {
    tally: &'a mut Tally,
    failed: bool,
}

impl Outcomes for Operations<'_> {
    fn ended(&mut self, operation: &'static str) {
        self.tally.outcome(operation);
    }

    fn failed(&mut self, operation: &'static str, error: &dyn Error) {
        self.failed = true;
        self.tally.error(operation, error);
    }
}

impl Reader for Stores {
    fn input(&mut self, random: &mut Mutator, tally: &mut Tally) {
        let mut operations = Operations { tally, failed: false };
        self.0.noted_input(random, &mut operations);
        let failed = operations.failed;
        tally.depth(if failed { Depth::Entered } else { Depth::Accepted });
    }
}
