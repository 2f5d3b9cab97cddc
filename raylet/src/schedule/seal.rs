//! Failures into the objects that somebody waits for.
//!
//! The one thing to know: the first seal wins, so sealing what has a value already changes nothing,
//! and what nobody refers to any more takes nothing. The socket thread does not wait for room: what
//! finds none is tried again. This file must not decide what fails.

use super::Scheduler;
use super::translate::{handle, results};
use raylet_api::failure::Failure;
use raylet_api::record::{ObjectKey, Record};
use std::time::Duration;
use store::{CreateError, CreateOptions, Encoding};

/// How long to wait before what found no room is tried again.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(20);

/// A failure that found no room in the store.
pub(super) struct Unsealed {
    object: ObjectKey,
    bytes: Vec<u8>,
}

impl Scheduler {
    /// Seals the failure into each of these objects that has no value.
    pub(super) fn seal(&mut self, objects: &[ObjectKey], failure: &Failure) {
        if objects.is_empty() {
            return;
        }
        let bytes = failure.to_bytes();
        for &object in objects {
            if !self.try_seal(object, &bytes) {
                self.unsealed.push(Unsealed { object, bytes: bytes.clone() });
            }
        }
    }

    /// Seals the failure into all that a record was to make.
    pub(super) fn seal_record(&mut self, record: &Record, failure: &Failure) {
        let results = results(&self.store, record);
        self.seal(&results, failure);
    }

    /// Tries what found no room once more.
    pub(super) fn seal_again(&mut self) {
        let unsealed = std::mem::take(&mut self.unsealed);
        for waiting in unsealed {
            if !self.try_seal(waiting.object, &waiting.bytes) {
                self.unsealed.push(waiting);
            }
        }
    }

    /// Whether nothing is left to do.
    fn try_seal(&self, object: ObjectKey, bytes: &[u8]) -> bool {
        let options =
            CreateOptions { encoding: Encoding::Error, timeout: Some(Duration::ZERO), ..CreateOptions::default() };
        match self.store.put_for(handle(object), bytes, &options) {
            Ok(_) => true,
            Err(error) => match *error {
                CreateError::DuplicateObject { .. } => true,
                error => {
                    tracing::warn!(%error, slot = object.slot, "an error waits for room in the store");
                    false
                }
            },
        }
    }

    /// Whether an object has a value; one that is gone needs none.
    pub(super) fn is_settled(&self, object: ObjectKey) -> bool {
        self.store.refer(handle(object)).is_none_or(|object| object.is_ready())
    }
}
