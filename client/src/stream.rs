//! Results that come one after the other: a chain of cells, and who writes and reads it.
//!
//! The one thing to know: the call's result is a promise, and each item seals it with a *cell*: a small
//! object that lists the item and the promise of the next cell. The reader takes both and lets go of
//! the cell, so what was read is free; the writer sees that, and runs no further ahead than it may. An
//! end is a cell without an item, an error stands where a cell would, and a reader that lets go of
//! everything ends the writer. This file must not know where either of them runs.
//!
//! A cell is MessagePack: nil, or an array of two references, each an array of slot and generation.

use crate::refs::ObjectRef;
use crate::remote::{FetchError, Raylet, SubmitError};
use crate::task::{Arguments, Function, Options, Results, TaskError, TaskErrorKind};
use crate::value::{Form, Parcel, SerdeValue, Value};
use raylet_api::{ObjectId, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use store::{CreateError, CreateOptions, Encoding, Handle, ObjectRef as RawRef, Store};

/// Items that wait for their reader, where nobody says how many.
pub const AHEAD: u32 = 16;
/// Pauses of a writer that is as far ahead as it may; the reader has items to read meanwhile.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// What a cell says to its reader.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Cell<T>(Option<(ObjectRef<T>, ObjectRef<()>)>);

impl<T> SerdeValue for Cell<T> {}

/// The same by handles, as it is written.
type Written = Option<((u32, u64), (u32, u64))>;

fn name(handle: Handle) -> (u32, u64) {
    (handle.slot, handle.generation)
}

/// The items of a call, as references that come one after the other: what `#[remote(stream)]` returns.
///
/// The iterator blocks until the next item is there. Where the function failed, the last reference is
/// to its error, as of any call. Dropped, it has the function end before its next item.
///
/// ```
/// use raylet_client::prelude::*;
///
/// #[remote(stream)]
/// fn squares(end: u64) -> impl Iterator<Item = u64> {
///     (0..end).map(|x| x * x)
/// }
///
/// # fn main() -> Result<()> {
/// let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
/// for (x, square) in squares::remote(&ray, 3)?.enumerate() {
///     assert_eq!(ray.get(&square)?, (x * x) as u64);
/// }
/// # Ok(())
/// # }
/// ```
pub struct RefStream<T> {
    ray: Raylet,
    /// The next cell; `None` at the end.
    cell: Option<RawRef>,
    item: PhantomData<fn() -> T>,
}

impl<T> RefStream<T> {
    pub(crate) fn new(ray: &Raylet, first: RawRef) -> RefStream<T> {
        RefStream { ray: ray.clone(), cell: Some(first), item: PhantomData }
    }

    /// The next item as soon as it is there, at most `timeout`; `None` at the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<ObjectRef<T>>, FetchError> {
        self.step(Some(timeout))
    }

    /// The next item in time, for async code; `None` at the end.
    pub async fn next_async(&mut self) -> Option<ObjectRef<T>> {
        if let Some(cell) = &self.cell {
            let engine = self.ray.engine();
            // Registered first, then looked at: a seal in between wakes.
            let look = |context: &mut std::task::Context<'_>| {
                let will_wake = cell.is_ready() || engine.wake_when_ready(cell, context.waker());
                if cell.is_ready() || !will_wake { Poll::Ready(()) } else { Poll::Pending }
            };
            poll_fn(look).await;
        }
        self.next()
    }

    fn step(&mut self, timeout: Option<Duration>) -> Result<Option<ObjectRef<T>>, FetchError> {
        let Some(cell) = &self.cell else { return Ok(None) };
        let object = self.ray.engine().get(cell, timeout)?;
        if object.encoding() == Encoding::Error {
            return Ok(self.last());
        }
        let Cell(read) = Cell::<T>::from_parcel(Parcel::of_object(&self.ray, object))?;
        let (item, next) = read.unzip();
        self.cell = next.map(|next: ObjectRef<()>| next.object().clone());
        Ok(item)
    }

    /// What stands in the place of a cell, for whoever gets its value to see.
    fn last(&mut self) -> Option<ObjectRef<T>> {
        self.cell.take().map(|cell| ObjectRef::new(&self.ray, cell))
    }
}

impl<T> Iterator for RefStream<T> {
    type Item = ObjectRef<T>;

    fn next(&mut self) -> Option<ObjectRef<T>> {
        // Why there is no cell is what `get` of it says.
        self.step(None).unwrap_or_else(|_| self.last())
    }
}

impl<T> fmt::Debug for RefStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefStream<{}>({:?})", std::any::type_name::<T>(), self.cell)
    }
}

/// Submits a call whose items are objects of their own.
pub fn submit_stream<T>(
    ray: &Raylet,
    function: &'static Function,
    arguments: Arguments,
    options: Option<&Options>,
) -> Result<RefStream<T>, SubmitError> {
    Ok(RefStream::new(ray, ray.submit_stream(function, arguments, options)?.one()))
}

/// Makes an object of the next item; false where nobody reads on.
pub fn push_one<T: Value>(name: &str, item: T, ahead: u32, results: &mut dyn Results) -> Result<bool, TaskError> {
    let form = item.form().map_err(|error| unstored(name, &error))?;
    results.push(&form, ahead).map_err(|error| unstored(name, &error))
}

fn unstored(name: &str, error: &dyn fmt::Display) -> TaskError {
    TaskError::new(TaskErrorKind::Result, name, error)
}

/// Who makes the cells of one call.
pub(crate) struct Writer<'a> {
    store: &'a Store,
    /// In whose name the promises of cells are.
    task: Option<TaskId>,
    /// What the next cell seals; `None` once nobody reads on.
    place: Option<Handle>,
    /// Cells so far.
    count: u64,
    /// Items that an earlier attempt has made.
    skipped: u64,
    /// Cells that may not have been read, the oldest first.
    unread: VecDeque<Handle>,
    is_bounded: bool,
}

impl<'a> Writer<'a> {
    /// Of a call whose result this is; behind the cells that an earlier attempt has made, as far as they
    /// can still be followed.
    pub(crate) fn new(store: &'a Store, first: Handle) -> Writer<'a> {
        let task = store.refer(first).map(|object| TaskId::from_bytes(object.id().task()));
        let unread = VecDeque::new();
        let mut writer = Writer { store, task, place: Some(first), count: 0, skipped: 0, unread, is_bounded: true };
        while let Some(next) = writer.following() {
            writer.went_on(next);
        }
        writer.begin_again();
        writer
    }

    /// Runs ahead as far as it likes: its reader comes after it.
    pub(crate) fn unbounded(mut self) -> Writer<'a> {
        self.is_bounded = false;
        self
    }

    /// The call is tried again: its first items are there.
    pub(crate) fn begin_again(&mut self) {
        self.skipped = self.count;
    }

    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    /// Seals the end of the stream; else the error that is to be sealed, and into which promise.
    pub(crate) fn end(self, name: &str, outcome: Result<(), TaskError>) -> Option<(Handle, TaskError)> {
        let place = self.place?;
        let ended = outcome.and_then(|()| self.seal(place, &None, &[]).map_err(|error| unstored(name, &error)));
        ended.err().map(|error| (place, error))
    }

    fn went_on(&mut self, next: Handle) {
        self.unread.extend(self.place.replace(next));
        self.count += 1;
    }

    /// The cell behind the one that stands where this writer is; closes it where none can come.
    fn following(&mut self) -> Option<Handle> {
        let cell = self.place.and_then(|place| self.store.refer(place));
        if cell.as_ref().is_some_and(|cell| !cell.is_ready()) {
            return None;
        }
        let object = cell.and_then(|cell| self.store.get(&cell).ok());
        let is_cell = object.filter(|object| object.encoding() == Encoding::MessagePack);
        let read = is_cell.and_then(|object| rmp_serde::from_slice::<Written>(&object).ok().flatten());
        if read.is_none() {
            self.place = None;
        }
        read.map(|(_, (slot, generation))| Handle { slot, generation })
    }

    /// Waits until there is room for one more unread cell, or nobody reads on.
    fn wait_for_reader(&mut self, ahead: usize) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.unread.len();
            while self.unread.front().is_some_and(|cell| !self.store.is_live(*cell)) {
                self.unread.pop_front();
            }
            if self.unread.len() < ahead {
                return;
            }
            pause = if self.unread.len() < before { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            thread::sleep(pause);
        }
    }

    /// False where somebody sealed it before, or nobody wants it.
    fn seal(&self, place: Handle, cell: &Written, references: &[RawRef]) -> Result<bool, Box<CreateError>> {
        let bytes = rmp_serde::to_vec(cell).expect("numbers always encode");
        let options = CreateOptions { encoding: Encoding::MessagePack, references, ..CreateOptions::default() };
        match self.store.put_for(place, &bytes, &options) {
            Ok(sealed) => Ok(sealed.is_some()),
            Err(error) if matches!(*error, CreateError::DuplicateObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The promise of the cell behind the next one, in the name of the call: who comes after a dead
    /// writer knows by that what it is.
    fn promise(&self) -> Result<RawRef, Box<CreateError>> {
        let id = self.task.map(|task| ObjectId::of(&task, self.count as u32 + 2));
        let id = id.map(|id| store::ObjectId::new(*id.as_bytes()));
        self.store.promise_by_handle(id.as_ref())
    }
}

impl Results for Writer<'_> {
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>> {
        self.push(form, 0).map(drop)
    }

    fn push(&mut self, form: &Form<'_>, ahead: u32) -> Result<bool, Box<CreateError>> {
        if self.skipped > 0 {
            self.skipped -= 1;
            return Ok(true);
        }
        if self.is_bounded && ahead > 0 {
            self.wait_for_reader(ahead as usize);
        }
        let Some(place) = self.place else { return Ok(false) };
        let (item, next) = (form.put(self.store)?, self.promise()?);
        let (named, handle) = (name(item.handle()), next.handle());
        let cell = Some((named, name(handle)));
        match Writer::seal(self, place, &cell, &[item, next])? {
            true => self.went_on(handle),
            false => self.place = None,
        }
        Ok(self.place.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Config, Mode};

    fn local() -> Raylet {
        Raylet::init(Config { mode: Mode::Local, capacity_bytes: 1 << 20, ..Config::default() }).unwrap()
    }

    fn push(writer: &mut Writer<'_>, mut items: std::ops::Range<u64>) -> bool {
        items.all(|item| writer.push(&item.form().unwrap(), AHEAD).unwrap())
    }

    fn read(ray: &Raylet, first: RawRef) -> Vec<Result<u64, String>> {
        RefStream::<u64>::new(ray, first).map(|item| ray.get(&item).map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn who_comes_after_a_writer_goes_on_behind_its_cells() {
        let ray = local();
        let first = ray.store().promise_by_handle(None).unwrap();
        assert!(push(&mut Writer::new(ray.store(), first.handle()), 0..3));
        let mut second = Writer::new(ray.store(), first.handle());
        assert!(push(&mut second, 0..4));
        // Tried again by the same one.
        second.begin_again();
        assert!(push(&mut second, 0..5));
        assert!(second.end("f", Ok(())).is_none());
        let mut late = Writer::new(ray.store(), first.handle());
        assert!(!push(&mut late, 0..9) && late.end("f", Ok(())).is_none());
        assert_eq!(read(&ray, first), (0..5).map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn cells_end_as_they_are_read_and_all_of_them_with_their_reader() {
        let ray = local();
        let used = || ray.store().list_from(0, 100).len();
        let first = ray.store().promise_by_handle(None).unwrap();
        let mut writer = Writer::new(ray.store(), first.handle());
        assert!(push(&mut writer, 0..10));
        // Of each a cell and an item, and one promise.
        assert_eq!(used(), 21);
        let mut stream = RefStream::<u64>::new(&ray, first);
        assert_eq!(stream.by_ref().take(4).count(), 4);
        assert_eq!(used(), 13);
        drop(stream);
        assert_eq!(used(), 0);
        assert!(!push(&mut writer, 10..11));
        assert!(writer.end("f", Ok(())).is_none());
    }

    #[test]
    fn whatever_stands_where_a_cell_should_is_the_last_item() {
        let ray = local();
        for bytes in [&b""[..], b"\xff", b"\x92\x92\x01\x02\x03", b"\x92\x92\x01\x02\x92\x01\x02"] {
            let first = ray.store().promise_by_handle(None).unwrap();
            let options = CreateOptions { encoding: Encoding::MessagePack, ..CreateOptions::default() };
            ray.store().put_for(first.handle(), bytes, &options).unwrap().unwrap();
            assert!(!push(&mut Writer::new(ray.store(), first.handle()), 0..2), "{bytes:?}");
            let items = read(&ray, first);
            assert!(items.len() == 1 && items[0].is_err(), "{bytes:?}: {items:?}");
        }
    }
}
