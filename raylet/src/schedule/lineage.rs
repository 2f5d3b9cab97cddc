//! How large results were made, and their tasks once more where values are lost.
//!
//! The one thing to know: a recipe is what a worker has said of a task that it ran: record, packed
//! arguments, and which objects these were, with the values of small ones. It holds no object. Recipes
//! are kept as long as one of their results lives or is an argument of a recipe that is kept, and the
//! oldest go first where there are too many. The task runs again as any call through the raylet, with
//! arguments that still are, or are made again themselves. This file must not touch what is lost: who
//! asked gives it the fresh value.

use super::leases::{Serves, job_over};
use super::line::LineId;
use super::translate::{handle, key};
use super::{Scheduler, Who};
use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_api::record::{Body, INLINE_BYTES_MAX, Kind, ObjectKey, Record, Spec, positions};
use raylet_api::{KeepRecipe, RecipeArgument, RemakeObject};
use raylet_core::event::ClassSpec;
use raylet_core::ids::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{CreateError, CreateOptions, Encoding, ObjectRef, Store};

/// All recipes together; some hundred bytes each.
const BYTES_MAX: usize = 16 << 20;
/// Recipes up to which nobody looks whether their results still live.
const LOOK_AT_MIN: usize = 256;
/// How far up a line of lost arguments tasks are run again.
const DEPTH_MAX: u32 = 64;

/// How results were made.
#[derive(Clone)]
struct Recipe {
    record: Record,
    class: ClassSpec,
    results: Vec<ObjectKey>,
    packed: Vec<u8>,
    arguments: Vec<RecipeArgument>,
    /// How often they were made again.
    remakes: u32,
}

impl Recipe {
    fn bytes(&self) -> usize {
        let values = self.arguments.iter().filter_map(|argument| argument.value.as_ref());
        let values: usize = values.map(|(_, bytes)| bytes.len()).sum();
        let rows = self.results.len() * size_of::<ObjectKey>() + self.arguments.len() * size_of::<RecipeArgument>();
        size_of::<Recipe>() + self.packed.len() + rows + values
    }
}

/// The recipes.
#[derive(Default)]
pub(super) struct Lineage {
    recipes: BTreeMap<u64, Recipe>,
    by_result: BTreeMap<ObjectKey, u64>,
    next: u64,
    bytes: usize,
    look_at: usize,
}

impl Lineage {
    fn keep(&mut self, recipe: Recipe, store: &Store) {
        if self.recipes.len() >= self.look_at.max(LOOK_AT_MIN) {
            self.forget_ended(store);
            self.look_at = 2 * self.recipes.len();
        }
        let number = self.next;
        self.next += 1;
        let before: BTreeSet<u64> =
            recipe.results.iter().filter_map(|result| self.by_result.insert(*result, number)).collect();
        self.bytes += recipe.bytes();
        self.recipes.insert(number, recipe);
        before.into_iter().for_each(|number| self.forget(number));
        while self.bytes > BYTES_MAX
            && let Some((&oldest, _)) = self.recipes.first_key_value()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(recipe) = self.recipes.remove(&number) else { return };
        self.bytes -= recipe.bytes();
        for result in &recipe.results {
            if self.by_result.get(result) == Some(&number) {
                self.by_result.remove(result);
            }
        }
    }

    /// Forgets what makes nothing that somebody can still ask for.
    fn forget_ended(&mut self, store: &Store) {
        let lives = |recipe: &Recipe| recipe.results.iter().any(|&result| store.refer(handle(result)).is_some());
        let mut found: Vec<u64> =
            self.recipes.iter().filter(|(_, recipe)| lives(recipe)).map(|(&number, _)| number).collect();
        let mut needed = BTreeSet::new();
        while let Some(number) = found.pop() {
            if needed.insert(number) {
                let arguments = self.recipes.get(&number).into_iter().flat_map(|recipe| &recipe.arguments);
                found.extend(arguments.filter_map(|argument| self.by_result.get(&argument.object)));
            }
        }
        let ended: Vec<u64> = self.recipes.keys().copied().filter(|number| !needed.contains(number)).collect();
        ended.into_iter().for_each(|number| self.forget(number));
    }
}

impl Scheduler {
    pub(super) fn on_keep_recipe(&mut self, line: LineId, said: KeepRecipe) {
        if let Some(recipe) = self.recipe(line, said) {
            self.lineage.keep(recipe, &self.store);
        }
    }

    /// What a worker said, if it can be so.
    fn recipe(&self, line: LineId, said: KeepRecipe) -> Option<Recipe> {
        let Some(Who::Worker(worker)) = self.who(line) else { return None };
        let record = Record::unpack(&said.words).ok()?;
        if record.kind != Kind::Task || record.is_stream || record.results == 0 {
            return None;
        }
        let (more, packed, awaited) = match record.body {
            Body::Inline { len, bytes } => (Vec::new(), bytes[..usize::from(len)].to_vec(), 0),
            Body::Spec(_) => {
                let spec = Spec::unpack(&said.spec).ok()?;
                (spec.more_results, spec.arguments.to_vec(), spec.awaited.len())
            }
        };
        let results: Vec<ObjectKey> = std::iter::once(record.result).chain(more).collect();
        if results.len() != usize::from(record.results) || awaited != said.arguments.len() {
            return None;
        }
        let class = self.class_run_by(worker, record.result)?;
        Some(Recipe { record, class, results, packed, arguments: said.arguments, remakes: 0 })
    }

    /// Of what a worker runs: a task of ours, or one out of the queue that it serves.
    fn class_run_by(&self, worker: WorkerId, result: ObjectKey) -> Option<ClassSpec> {
        let task = self.by_result.get(&result).copied();
        if let Some(task) = task.filter(|task| self.calls.get(task).is_some_and(|call| call.worker == Some(worker))) {
            return self.node.tasks_from(task).next().filter(|row| row.task == task).map(|row| row.class);
        }
        let queues = self.workers.get(&worker)?.serves.iter().rev();
        queues.filter_map(|queue| self.queues.get(queue)).find_map(|row| match &row.serves {
            Serves::Class(class) => Some(class.clone()),
            Serves::Actor(_) => None,
        })
    }

    pub(super) fn on_remake(&mut self, line: LineId, wish: &RemakeObject) {
        if let Err(failure) = self.remake(line, wish.lost, wish.fresh, 0) {
            self.seal(&[wish.fresh], &failure);
        }
    }

    /// Has the task run once more that made an object, with `fresh` as its result in that one's place.
    fn remake(&mut self, line: LineId, lost: ObjectKey, fresh: ObjectKey, depth: u32) -> Result<(), Box<Failure>> {
        let number = self.lineage.by_result.get(&lost);
        let recipe = number.and_then(|number| self.lineage.recipes.get_mut(number)).ok_or_else(no_recipe)?;
        let (function, remakes) = (recipe.record.key, recipe.remakes);
        if depth >= DEPTH_MAX || !recipe.record.may_retry(remakes) {
            let name = self.name_of(function);
            return Err(too_often(&name, depth, remakes));
        }
        recipe.remakes += 1;
        let recipe = recipe.clone();
        let asked = self.asker(line).ok_or_else(job_over);
        let (job, caller, _) =
            asked.map_err(|(_, text)| Box::new(Failure::new(TaskErrorKind::Refused, "a lost value", text)))?;
        let again = |argument: &RecipeArgument| self.argument_again(line, argument, depth);
        let arguments = recipe.arguments.iter().map(again).collect::<Result<Vec<ObjectRef>, Box<Failure>>>()?;
        let (record, mut holds) =
            self.record_again(&recipe, lost, fresh, &arguments).map_err(|error| no_room(&error))?;
        let waits_for: BTreeSet<ObjectKey> = arguments.iter().map(|object| key(object.handle())).collect();
        holds.extend(arguments);
        let waits_for: Vec<ObjectKey> = waits_for.into_iter().collect();
        self.take_in(line, (job, caller, recipe.class), record, holds, &waits_for);
        Ok(())
    }

    /// An argument as it is, as it was, or as it will be.
    fn argument_again(
        &mut self,
        line: LineId,
        argument: &RecipeArgument,
        depth: u32,
    ) -> Result<ObjectRef, Box<Failure>> {
        let living = self.store.refer(handle(argument.object));
        if let Some((encoding, bytes)) = &argument.value {
            // First: that the object lives does not say that its bytes do, and nobody makes again what was put.
            let put = self.put_now(bytes, Encoding::from_number(*encoding), &[]);
            return put.or_else(|error| living.ok_or_else(|| no_room(&error)));
        }
        if let Some(object) = living {
            return Ok(object);
        }
        let promise = self.store.promise_by_handle(None).map_err(|error| no_room(&error))?;
        self.remake(line, argument.object, key(promise.handle()), depth + 1)?;
        Ok(promise)
    }

    /// The words of a recipe's call with other results and arguments, and what they need.
    fn record_again(
        &self,
        recipe: &Recipe,
        lost: ObjectKey,
        fresh: ObjectKey,
        arguments: &[ObjectRef],
    ) -> Result<(Record, Vec<ObjectRef>), Box<CreateError>> {
        let result = |made: &ObjectKey| match *made == lost {
            true => Ok(fresh),
            // Nobody refers to it, so nobody makes it.
            false => self.store.promise_by_handle(None).map(|promise| key(promise.handle())),
        };
        let results = recipe.results.iter().map(result).collect::<Result<Vec<_>, _>>()?;
        let slots: Vec<u32> = arguments.iter().map(|object| object.handle().slot).collect();
        let (mut body, mut holds) = (recipe.record.body, Vec::new());
        let has_spec = matches!(body, Body::Spec(_));
        if has_spec || results.len() > 1 || !arguments.is_empty() || recipe.packed.len() > INLINE_BYTES_MAX {
            let more_results = results[1..].to_vec();
            let spec = Spec { more_results, awaited: positions(&slots), arguments: &recipe.packed };
            let spec = self.put_now(&spec.pack(), Encoding::Raw, arguments)?;
            body = Body::Spec(key(spec.handle()));
            holds.push(spec);
        }
        Ok((Record { result: results[0], parent: 0, body, ..recipe.record }, holds))
    }

    fn put_now(
        &self,
        bytes: &[u8],
        encoding: Encoding,
        references: &[ObjectRef],
    ) -> Result<ObjectRef, Box<CreateError>> {
        let timeout = Some(Duration::ZERO);
        let options = CreateOptions { encoding, references, by_handle_only: true, timeout, ..CreateOptions::default() };
        self.store.put_with(bytes, &options)
    }
}

fn no_recipe() -> Box<Failure> {
    let text = "its file is gone or damaged, and nobody can make it again: it was put, it is small, an item of a stream \
                or an actor's, or its task may not be tried again";
    Box::new(Failure::new(TaskErrorKind::ObjectLost, "a value on disk", text))
}

fn too_often(name: &str, depth: u32, remakes: u32) -> Box<Failure> {
    let text = match depth >= DEPTH_MAX {
        true => format!("it is lost, and so are {DEPTH_MAX} arguments in a line before it"),
        false => format!("it is lost again, and was made again {remakes} times, which is as often as it may be"),
    };
    Box::new(Failure::new(TaskErrorKind::ObjectLost, name, text))
}

fn no_room(error: &CreateError) -> Box<Failure> {
    let text = format!("there is no room to make it again: {error}");
    Box::new(Failure::new(TaskErrorKind::ObjectLost, "a lost value", text))
}
