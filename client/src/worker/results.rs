//! The results of one call, written where they stay: into the promises that the caller made.
//!
//! The one thing to know: while the body runs, results are written and not sealed; all of them are
//! sealed when it has returned, so a call that is tried again, or that returns a wrong number of
//! them, has shown nobody anything. A promise that somebody sealed before stays as it is (the first
//! seal wins), and one that nobody refers to any more is skipped. This file must not know what runs.

use crate::engine::RECIPE_RESULT_BYTES_MIN;
use crate::engine::spec::Unpacked;
use crate::stream::Writer;
use crate::task::{Results, TaskError, TaskErrorKind};
use crate::value::Form;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use store::arrow::Layout;
use store::{CreateError, CreateOptions, Encoding, Handle, ObjectWriter, Store};

/// See the head of the file.
pub(super) struct InPlace<'a> {
    store: &'a Store,
    promises: &'a [Handle],
    /// How many the body has handed over.
    made: usize,
    /// Of the first, which is mostly the only one; `None` where nobody wants it.
    first: Option<ObjectWriter>,
    more: Vec<Option<ObjectWriter>>,
    /// One of them is so large that it is worth a recipe.
    is_large: bool,
}

impl<'a> InPlace<'a> {
    pub(super) fn new(store: &'a Store, promises: &'a [Handle]) -> InPlace<'a> {
        InPlace { store, promises, made: 0, first: None, more: Vec::new(), is_large: false }
    }

    /// Seals what was made; an error stands in the place of each result that was not, or of all where
    /// their number is wrong.
    #[inline]
    pub(super) fn seal_all(&mut self, name: &str, outcome: Result<(), TaskError>) {
        match (outcome, self.first.is_some() && self.more.is_empty()) {
            (Ok(()), true) if self.made == self.promises.len() => drop(self.first.take().map(ObjectWriter::seal)),
            (outcome, _) => self.seal_each(name, outcome),
        }
    }

    fn seal_each(&mut self, name: &str, outcome: Result<(), TaskError>) {
        let (made, promises) = (self.made, self.promises);
        let (kept, error) = match outcome {
            Ok(()) if made == promises.len() => (made, None),
            Ok(()) => {
                let message = format_args!("{made} results came, {} were declared", promises.len());
                (0, Some(TaskError::new(TaskErrorKind::ResultCount, name, &message)))
            }
            Err(error) => (made.min(promises.len()), Some(error)),
        };
        let written = std::iter::once(self.first.take()).chain(self.more.drain(..));
        for (position, writer) in written.enumerate() {
            // What is not sealed is dropped, so its promise is open again for the error.
            let sealed = writer.filter(|_| position < kept).map(ObjectWriter::seal);
            drop(sealed);
        }
        if let Some(error) = error {
            seal_error(self.store, &promises[kept..], &error);
        }
    }
}

impl Results for InPlace<'_> {
    #[inline]
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>> {
        if let Some(promise) = self.promises.get(self.made) {
            // Made where it stays: it is large, and each move of it waits for its stores.
            let place = match self.made {
                0 => &mut self.first,
                _ => {
                    self.more.push(None);
                    self.more.last_mut().expect("it was pushed")
                }
            };
            write(self.store, *promise, form, place)?;
            self.is_large |= place.as_ref().is_some_and(|writer| writer.len() >= RECIPE_RESULT_BYTES_MIN);
        }
        self.made += 1;
        Ok(())
    }
}

/// Where the results of one call go.
pub(super) enum Outlet<'a> {
    /// Objects, as many as were declared.
    Objects(InPlace<'a>),
    /// Items as they come.
    Stream(Writer),
}

impl<'a> Outlet<'a> {
    #[inline]
    pub(super) fn new(store: &'a Store, call: &'a Unpacked, attempt: u32) -> Outlet<'a> {
        match call.results.as_slice() {
            [end, first] if call.record.is_stream => Outlet::Stream(Writer::new(store, [*end, *first], attempt)),
            promises => Outlet::Objects(InPlace::new(store, promises)),
        }
    }

    /// Whether one of the results so far is worth a recipe.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        matches!(self, Outlet::Objects(InPlace { is_large: true, .. }))
    }

    /// For another attempt.
    pub(super) fn begin_again(&mut self) {
        match self {
            Outlet::Objects(objects) => *objects = InPlace::new(objects.store, objects.promises),
            Outlet::Stream(writer) => writer.begin_again(),
        }
    }

    /// See [`InPlace::seal_all`].
    #[inline]
    pub(super) fn seal_all(self, name: &str, outcome: Result<(), TaskError>) {
        match self {
            Outlet::Objects(mut objects) => objects.seal_all(name, outcome),
            Outlet::Stream(writer) => {
                let store = writer.store().clone();
                if let Some((place, error)) = writer.end(name, outcome) {
                    seal_error(&store, &[place], &error);
                }
            }
        }
    }
}

impl Results for Outlet<'_> {
    #[inline]
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>> {
        match self {
            Outlet::Objects(objects) => objects.seal(form),
            Outlet::Stream(writer) => Results::seal(writer, form),
        }
    }

    fn push(&mut self, form: &Form<'_>, ahead: u32) -> Result<bool, Box<CreateError>> {
        match self {
            Outlet::Objects(objects) => objects.push(form, ahead),
            Outlet::Stream(writer) => writer.push(form, ahead),
        }
    }
}

/// Writes a value into a promise; `place` gets nothing where nobody wants it, or it has a value.
#[inline]
fn write(
    store: &Store,
    promise: Handle,
    form: &Form<'_>,
    place: &mut Option<ObjectWriter>,
) -> Result<(), Box<CreateError>> {
    let created = match form {
        Form::Bytes { encoding, bytes, references } => {
            let options = CreateOptions { encoding: *encoding, references, ..CreateOptions::default() };
            store.create_for(promise, bytes.len() as u64, &options)
        }
        Form::Written { encoding, len, references, .. } => {
            let options = CreateOptions { encoding: *encoding, references, ..CreateOptions::default() };
            store.create_for(promise, *len, &options)
        }
        Form::Table { schema, batches } => write_table(store, promise, schema, batches),
    };
    *place = match created {
        Ok(created) => created,
        Err(error) if matches!(*error, CreateError::DuplicateObject { .. }) => None,
        Err(error) => return Err(error),
    };
    match (place, form) {
        (Some(writer), Form::Bytes { bytes, .. }) => writer.copy_from_slice(bytes),
        (Some(writer), Form::Written { write, .. }) => write.write(writer),
        _ => {}
    }
    Ok(())
}

fn write_table(
    store: &Store,
    promise: Handle,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<Option<ObjectWriter>, Box<CreateError>> {
    let layout = Layout::plan(schema, batches).map_err(CreateError::from)?;
    let options = CreateOptions { encoding: Encoding::Arrow, ..CreateOptions::default() };
    let Some(mut writer) = store.create_for(promise, layout.bytes() as u64, &options)? else { return Ok(None) };
    layout.write(&mut writer).map_err(CreateError::from)?;
    Ok(Some(writer))
}

/// Seals an error into promises.
///
/// Whoever waits for them has no other hope: where there is no room for the whole error, its first
/// sentence will do, and where there is none for that, this waits for room again.
pub(crate) fn seal_error(store: &Store, promises: &[Handle], error: &TaskError) {
    let whole = error.form();
    for promise in promises {
        if put(store, *promise, &whole) {
            continue;
        }
        let short = TaskError::new(error.kind(), error.function(), &"it failed, and there was no room to say why");
        let short = short.form();
        while !put(store, *promise, &short) && is_wanted(store, *promise) {}
    }
}

fn put(store: &Store, promise: Handle, form: &Form<'_>) -> bool {
    let mut writer = None;
    let is_written = write(store, promise, form, &mut writer).is_ok();
    writer.map(ObjectWriter::seal);
    is_written
}

/// Whether somebody still waits, in a store that is still kept.
fn is_wanted(store: &Store, promise: Handle) -> bool {
    store.refer(promise).is_some_and(|object| !object.is_ready())
}
