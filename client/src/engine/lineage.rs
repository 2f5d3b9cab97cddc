//! Values that are lost, made again: what a worker says for that, and who asks for it.
//!
//! The one thing to know: a value is lost where its spill file is gone or damaged. Whoever gets it then
//! promises a fresh object and has the raylet run the task again for that; the lost one is given the fresh
//! one's value, and so everybody has it again. Workers say how their large results are made before these
//! can be seen, so that nobody loses what has no recipe. This file must not know who keeps recipes.

use super::slots::SlotMap;
use super::spec::{Unpacked, object_key};
use super::{Shared, lock};
use raylet_api::record::Kind;
use raylet_api::work::{KeepRecipe, RecipeArgument, RemakeObject};
use raylet_api::{Failure, TaskErrorKind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{CreateOptions, Encoding, GetError, Object, ObjectRef as RawRef, RemakeError};

/// A result of so many bytes has a recipe: as in Ray, whose smaller ones stay in their owners. To say it
/// costs a message, about 9 us here where results of this size are made every 12 us, and what is smaller
/// goes to disk only when all that is larger has.
pub(crate) const RECIPE_RESULT_BYTES_MIN: usize = 100 << 10;
/// Bytes of spec and arguments in one recipe.
const RECIPE_BYTES_MAX: usize = 100 << 10;
/// Fresh objects up to which nobody looks for those that nobody came back for.
const UNDER_WAY_MANY: usize = 64;

/// Fresh objects under way, by what they are made for.
#[derive(Default)]
pub(super) struct Remaking(Mutex<SlotMap<RawRef>>);

impl Shared {
    /// Says how the results of a call can be made again, where they can.
    pub(super) fn keep_recipe(&self, call: &Unpacked) {
        let record = &call.record;
        if record.kind != Kind::Task || record.is_stream || record.retries == 0 || call.spec().len() > RECIPE_BYTES_MAX
        {
            return;
        }
        let mut left = RECIPE_BYTES_MAX - call.spec().len();
        let arguments = call.awaited.iter().map(|object| self.recipe_argument(object, &mut left)).collect();
        let _ = self.line.send(KeepRecipe { words: record.pack(), spec: call.spec().to_vec(), arguments });
    }

    /// A small value goes into the recipe, which so keeps no object.
    fn recipe_argument(&self, object: &RawRef, left: &mut usize) -> RecipeArgument {
        let is_small = object.size() < RECIPE_RESULT_BYTES_MIN as u64 && object.size() <= *left as u64;
        let value = Some(object).filter(|_| is_small).and_then(|object| self.store.get(object).ok());
        let value = value.filter(|value| value.encoding() != Encoding::Error && value.references().is_empty());
        *left -= value.as_ref().map_or(0, |value| value.len());
        let value = value.map(|value| (value.encoding() as u8, value.to_vec()));
        RecipeArgument { object: object_key(object.handle()), value }
    }

    /// After a get that failed by `error`: the value, made again if it was lost.
    #[cold]
    pub(super) fn make_again(
        self: &Arc<Self>,
        lost: &RawRef,
        error: Box<GetError>,
        timeout: Option<Duration>,
    ) -> Result<Object, Box<GetError>> {
        let is_lost = matches!(*error, GetError::Restore { .. });
        if !is_lost || self.is_forked.load(Ordering::Relaxed) {
            return Err(error);
        }
        // A raylet that is gone makes nothing.
        let Some(fresh) = self.remaking(lost) else { return Err(error) };
        if !fresh.is_ready() {
            self.wait_for_one(&fresh, timeout)?;
        }
        let made = self.store.get(&fresh);
        self.is_remade(lost, &fresh);
        let made = made?;
        if made.encoding() == Encoding::Error {
            return Ok(made);
        }
        match self.store.restore_from(lost, &made).map_err(|error| *error) {
            Ok(()) => {
                drop(made);
                self.store.get(lost)
            }
            Err(RemakeError::Get(error)) => Err(error),
            Err(error) => self.other_value(&error),
        }
    }

    /// The fresh object for a lost one; others may wait for it already.
    fn remaking(&self, lost: &RawRef) -> Option<RawRef> {
        let mut under_way = lock(&self.remaking.0);
        if let Some(fresh) = under_way.get(&lost.handle()) {
            return Some(fresh.clone());
        }
        if under_way.len() >= UNDER_WAY_MANY {
            under_way.retain(|_, fresh| !fresh.is_ready());
        }
        // By its id, so that what its task puts and submits has the same ids again.
        let fresh = self.store.promise_by_handle(Some(&lost.id())).ok()?;
        let wish = RemakeObject { lost: object_key(lost.handle()), fresh: object_key(fresh.handle()) };
        self.line.send(wish).ok()?;
        under_way.insert(lost.handle(), fresh.clone());
        Some(fresh)
    }

    fn is_remade(&self, lost: &RawRef, fresh: &RawRef) {
        let mut under_way = lock(&self.remaking.0);
        if under_way.get(&lost.handle()).is_some_and(|known| known.handle() == fresh.handle()) {
            under_way.remove(&lost.handle());
        }
    }

    /// The error of a task that is not the same each time, as an object.
    fn other_value(&self, error: &RemakeError) -> Result<Object, Box<GetError>> {
        let failure = Failure::new(TaskErrorKind::ReconstructionFailed, "the task of a lost value", error.to_string());
        let options = CreateOptions { encoding: Encoding::Error, by_handle_only: true, ..CreateOptions::default() };
        let object = self.store.put_with(&failure.to_bytes(), &options);
        let object = object.map_err(|source| GetError::NoRoom { id: store::ObjectId::new([0; 28]), source })?;
        self.store.get(&object)
    }
}
