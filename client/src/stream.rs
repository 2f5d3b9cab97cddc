//! Results that come one after the other: a chain of cells, and who writes and reads it.
//!
//! The one thing to know: a call that streams has two results, promises both: its *end*, and its first
//! cell. Each item seals a *cell*: a small object that lists the item and the promise of the next cell.
//! The reader takes both and lets go of the cell, so what was read is free; the writer sees that, and
//! runs no further ahead than it may. The end is sealed last, by nil or an error, and by whoever gives
//! the call up: so the reader waits for a cell or the end, and who lets go of the end, or seals it, ends
//! the writer. A writer that comes after a dead one finds by their ids which cells were made and where
//! it has to go on. This file must not know where either of them runs.
//!
//! A cell is MessagePack: an array of two references, each an array of slot and generation. Its id is
//! the call's task and, counted from 0, its number + 2.

use crate::refs::ObjectRef;
use crate::remote::{FetchError, Raylet, SubmitError};
use crate::task::{Arguments, Function, Options, ResultRefs, Results, TaskError, TaskErrorKind};
use crate::value::{Form, Parcel, SerdeValue, Value};
use raylet_api::{ObjectId, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};
use store::{CreateError, CreateOptions, Encoding, Handle, ObjectRef as RawRef, Store};

/// Items that wait for their reader, where nobody says how many.
pub const AHEAD: u32 = 16;
/// Pauses of a writer that is as far ahead as it may; the reader has items to read meanwhile.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// What a cell says to its reader.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Cell<T>(ObjectRef<T>, ObjectRef<()>);

impl<T> SerdeValue for Cell<T> {}

/// The same by handles, as it is written.
type Written = ((u32, u64), (u32, u64));

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
    /// The next cell, and the end; `None` behind that.
    rest: Option<(RawRef, RawRef)>,
    item: PhantomData<fn() -> T>,
}

/// Results of a call that streams.
pub(crate) const RESULTS: usize = 2;

impl<T> RefStream<T> {
    pub(crate) fn new(ray: &Raylet, results: ResultRefs) -> RefStream<T> {
        let mut results = results.many().into_iter();
        let mut next = || results.next().expect("an engine gives as many results as it was asked for");
        let (end, cell) = (next(), next());
        RefStream { ray: ray.clone(), rest: Some((cell, end)), item: PhantomData }
    }

    /// The next item as soon as it is there, at most `timeout`; `None` at the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<ObjectRef<T>>, FetchError> {
        self.step(Some(timeout))
    }

    /// What has a value when the next item is there: this or [`RefStream::end`]; nothing behind the last.
    pub fn next_cell(&self) -> Option<&RawRef> {
        self.rest.as_ref().map(|(cell, _)| cell)
    }

    /// What has a value when there are no more items; nothing behind the last.
    pub fn end(&self) -> Option<&RawRef> {
        self.rest.as_ref().map(|(_, end)| end)
    }

    /// The next item in time, for async code; `None` at the end.
    pub async fn next_async(&mut self) -> Option<ObjectRef<T>> {
        if let Some((cell, end)) = &self.rest {
            let engine = self.ray.engine();
            let is_ready = || cell.is_ready() || end.is_ready();
            // Registered first, then looked at: a seal in between wakes.
            let look = |context: &mut std::task::Context<'_>| {
                let wakes = |object| engine.wake_when_ready(object, context.waker());
                let will_wake = is_ready() || wakes(cell) && wakes(end);
                if is_ready() || !will_wake { Poll::Ready(()) } else { Poll::Pending }
            };
            poll_fn(look).await;
        }
        self.next()
    }

    fn step(&mut self, timeout: Option<Duration>) -> Result<Option<ObjectRef<T>>, FetchError> {
        let Some((cell, end)) = &self.rest else { return Ok(None) };
        let started = Instant::now();
        if !cell.is_ready() && !self.ray.engine().wait(&[cell.clone(), end.clone()], 1, timeout)?.contains(&true) {
            return Err(FetchError::TimedOut { id: cell.id(), waited: started.elapsed() });
        }
        // Cells are sealed before the end is: where one is still open, there is none.
        let is_over = !cell.is_ready();
        let last = if is_over { end } else { cell };
        let object = self.ray.engine().get(last, Some(Duration::ZERO))?;
        if object.encoding() == Encoding::Error {
            let error = ObjectRef::new(&self.ray, last.clone());
            self.rest = None;
            return Ok(Some(error));
        }
        if is_over {
            self.rest = None;
            return Ok(None);
        }
        let Cell(item, next) = Cell::<T>::from_parcel(Parcel::of_object(&self.ray, object))?;
        self.rest = self.rest.take().map(|(_, end)| (next.object().clone(), end));
        Ok(Some(item))
    }
}

impl<T> Iterator for RefStream<T> {
    type Item = ObjectRef<T>;

    fn next(&mut self) -> Option<ObjectRef<T>> {
        self.step(None).unwrap_or_else(|_| {
            // Why there is no cell is what `get` of it says.
            let (cell, _) = self.rest.take()?;
            Some(ObjectRef::new(&self.ray, cell))
        })
    }
}

impl<T> fmt::Debug for RefStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefStream<{}>({:?})", std::any::type_name::<T>(), self.rest)
    }
}

/// Submits a call whose items are objects of their own.
pub fn submit_stream<T>(
    ray: &Raylet,
    function: &'static Function,
    arguments: Arguments,
    options: Option<&Options>,
) -> Result<RefStream<T>, SubmitError> {
    Ok(RefStream::new(ray, ray.submit_stream(function, arguments, options)?))
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
pub(crate) struct Writer {
    store: Store,
    /// In whose name the promises of cells are.
    task: Option<TaskId>,
    end: Handle,
    first: Handle,
    /// What the next cell seals, where that is known.
    place: Option<Handle>,
    /// Cells so far, read ones included.
    count: u64,
    /// Items that this writer has made before.
    skipped: u64,
    /// Cells that may not have been read, the oldest first.
    unread: VecDeque<Handle>,
    /// Another writer was here before.
    is_successor: bool,
    is_bounded: bool,
}

/// What became of a cell that an earlier writer may have made.
enum Earlier {
    /// It waits for its reader.
    Made(Handle),
    /// Its reader waits for it.
    Open(Handle),
    /// It was read.
    Over,
}

impl Writer {
    /// Of a call with these results; `attempt` counts the attempts before this one.
    pub(crate) fn new(store: &Store, [end, first]: [Handle; RESULTS], attempt: u32) -> Writer {
        let is_successor = attempt > 0;
        Writer {
            store: store.clone(),
            task: store.refer(end).map(|object| TaskId::from_bytes(object.id().task())),
            end,
            first,
            place: (!is_successor).then_some(first),
            count: 0,
            skipped: 0,
            unread: VecDeque::new(),
            is_successor,
            is_bounded: true,
        }
    }

    /// Runs ahead as far as it likes: its reader comes after it.
    pub(crate) fn unbounded(mut self) -> Writer {
        self.is_bounded = false;
        self
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The call is tried again: its first items are there.
    pub(crate) fn begin_again(&mut self) {
        self.skipped = self.count;
    }

    /// Seals the end; else the error that is to be sealed, and into which promise.
    pub(crate) fn end(self, name: &str, outcome: Result<(), TaskError>) -> Option<(Handle, TaskError)> {
        let has_lost_its_place = self.place.is_none() && self.reads_on();
        let ended = match outcome {
            Ok(()) if has_lost_its_place => Err(lost(name, self.count)),
            Ok(()) => self.seal(self.end, b"\xc0", &[]).map(drop).map_err(|error| unstored(name, &error)),
            Err(error) => Err(error),
        };
        ended.err().map(|error| (self.end, error))
    }

    /// Whether somebody wants more, and nobody has given the call up.
    fn reads_on(&self) -> bool {
        self.store.refer(self.end).is_some_and(|end| !end.is_ready())
    }

    fn went_on(&mut self, cell: Handle) {
        self.unread.push_back(cell);
        self.count += 1;
    }

    fn earlier(&self) -> Earlier {
        let found = match self.count {
            0 => self.store.refer(self.first),
            count => self.id_of(count).and_then(|id| self.store.lookup(&id)),
        };
        match found {
            Some(cell) if cell.is_ready() => Earlier::Made(cell.handle()),
            Some(cell) => Earlier::Open(cell.handle()),
            None => Earlier::Over,
        }
    }

    /// Whether the next item need not wait for the reader, of whom the writer may be so many items ahead, 0
    /// for any number; or nobody reads on.
    pub(crate) fn has_room(&mut self, ahead: u32) -> bool {
        if !self.is_bounded || ahead == 0 || self.skipped > 0 {
            return true;
        }
        while self.unread.front().is_some_and(|cell| !self.store.is_live(*cell)) {
            self.unread.pop_front();
        }
        self.unread.len() < ahead as usize || !self.reads_on()
    }

    /// Waits for that.
    fn wait_for_reader(&mut self, ahead: u32) {
        let mut pause = PAUSE_MIN;
        let mut before = self.unread.len();
        while !self.has_room(ahead) {
            let has_read = self.unread.len() < before;
            pause = if has_read { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            before = self.unread.len();
            thread::sleep(pause);
        }
    }

    /// False where somebody sealed it before, or nobody wants it.
    fn seal(&self, place: Handle, bytes: &[u8], references: &[RawRef]) -> Result<bool, Box<CreateError>> {
        let options = CreateOptions { encoding: Encoding::MessagePack, references, ..CreateOptions::default() };
        match self.store.put_for(place, bytes, &options) {
            Ok(sealed) => Ok(sealed.is_some()),
            Err(error) if matches!(*error, CreateError::DuplicateObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The id of the cell of this number.
    fn id_of(&self, number: u64) -> Option<store::ObjectId> {
        let id = ObjectId::of(&self.task?, u32::try_from(number).ok()?.checked_add(RESULTS as u32)?);
        Some(store::ObjectId::new(*id.as_bytes()))
    }

    /// The promise of the cell behind the next one; who comes after a dead writer finds it by its id.
    fn promise(&self) -> Result<RawRef, Box<CreateError>> {
        let Some(id) = self.id_of(self.count + 1) else { return self.store.promise_by_handle(None) };
        let earlier = if self.is_successor { self.store.lookup(&id) } else { None };
        if let Some(earlier) = earlier.filter(|earlier| !earlier.is_ready()) {
            return Ok(earlier);
        }
        let promise = self.store.promise_by_handle(Some(&id))?;
        // Where the id is taken, nobody could come after this writer, which is no error of the call.
        let _ = self.store.publish(&promise);
        Ok(promise)
    }
}

/// What was read is gone, and no open cell was found behind it.
fn lost(name: &str, count: u64) -> TaskError {
    let message = format_args!("the attempt after its death found no open place among its {count} items");
    TaskError::new(TaskErrorKind::WorkerCrashed, name, &message)
}

impl Results for Writer {
    fn seal(&mut self, form: &Form<'_>) -> Result<(), Box<CreateError>> {
        self.push(form, 0).map(drop)
    }

    fn push(&mut self, form: &Form<'_>, ahead: u32) -> Result<bool, Box<CreateError>> {
        if self.skipped > 0 {
            self.skipped -= 1;
            return Ok(true);
        }
        self.wait_for_reader(ahead);
        if !self.reads_on() {
            return Ok(false);
        }
        let place = match self.place.map_or_else(|| self.earlier(), Earlier::Open) {
            Earlier::Open(place) => place,
            Earlier::Made(cell) => {
                self.went_on(cell);
                return Ok(true);
            }
            Earlier::Over => {
                self.count += 1;
                return Ok(true);
            }
        };
        let (item, next) = (form.put(&self.store)?, self.promise()?);
        let cell: Written = (name(item.handle()), name(next.handle()));
        let bytes = rmp_serde::to_vec(&cell).expect("numbers always encode");
        self.place = Some(next.handle());
        self.went_on(place);
        Writer::seal(self, place, &bytes, &[item, next])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Config, Mode};

    struct Ground {
        ray: Raylet,
        results: [RawRef; RESULTS],
    }

    fn ground() -> Ground {
        let ray = Raylet::init(Config { mode: Mode::Local, capacity_bytes: 1 << 20, ..Config::default() }).unwrap();
        let task = TaskId::normal(raylet_api::JobId::new(1), &TaskId::driver(raylet_api::JobId::new(1)), 1);
        let promise = |index| {
            let id = store::ObjectId::new(*ObjectId::of(&task, index).as_bytes());
            ray.store().promise_by_handle(Some(&id)).unwrap()
        };
        Ground { results: [promise(1), promise(2)], ray }
    }

    impl Ground {
        fn writer(&self, attempt: u32) -> Writer {
            Writer::new(self.ray.store(), [self.results[0].handle(), self.results[1].handle()], attempt)
        }

        fn objects(&self) -> usize {
            self.ray.store().list_from(0, 100).len()
        }

        /// The reader, who alone holds the results.
        fn reader(&mut self) -> RefStream<u64> {
            let none = [(); RESULTS].map(|()| self.ray.store().put(b"").unwrap());
            let results = std::mem::replace(&mut self.results, none);
            RefStream::new(&self.ray, ResultRefs::Many(results.into()))
        }
    }

    fn push(writer: &mut Writer, mut items: std::ops::Range<u64>) -> bool {
        items.all(|item| writer.push(&item.form().unwrap(), AHEAD).unwrap())
    }

    fn read(ray: &Raylet, stream: impl Iterator<Item = ObjectRef<u64>>) -> Vec<Result<u64, String>> {
        stream.map(|item| ray.get(&item).map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn who_comes_after_a_writer_goes_on_behind_its_cells_read_or_not() {
        for already_read in 0..=3 {
            let mut ground = ground();
            let results = [ground.results[0].handle(), ground.results[1].handle()];
            assert!(push(&mut ground.writer(0), 0..3));
            let mut stream = ground.reader();
            let (ray, mut items) = (ground.ray.clone(), Vec::new());
            items.extend(read(&ray, stream.by_ref().take(already_read)));
            let mut second = Writer::new(ray.store(), results, 1);
            assert!(push(&mut second, 0..4), "{already_read}");
            // Tried again by the same one.
            second.begin_again();
            assert!(push(&mut second, 0..5));
            assert!(second.end("f", Ok(())).is_none());
            let mut late = Writer::new(ray.store(), results, 2);
            assert!(!push(&mut late, 0..1) && late.end("f", Ok(())).is_none());
            items.extend(read(&ray, stream));
            assert_eq!(items, (0..5).map(Ok).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_writer_that_does_not_find_its_place_says_so() {
        let ground = ground();
        assert!(push(&mut ground.writer(0), 0..3));
        let mut second = ground.writer(1);
        assert!(push(&mut second, 0..2));
        let (place, error) = second.end("f", Ok(())).expect("the third is missing");
        assert_eq!((place, error.kind()), (ground.results[0].handle(), TaskErrorKind::WorkerCrashed));
    }

    #[test]
    fn cells_end_as_they_are_read_and_all_of_them_with_their_reader() {
        let mut ground = ground();
        let results = [ground.results[0].handle(), ground.results[1].handle()];
        let ray = ground.ray.clone();
        let mut writer = Writer::new(ray.store(), results, 0);
        assert!(push(&mut writer, 0..10));
        // Of each a cell and an item, an end, and an open cell.
        assert_eq!(ground.objects(), 22);
        let mut stream = ground.reader();
        ground.results = [(); RESULTS].map(|()| ground.results[0].clone());
        assert_eq!(stream.by_ref().take(4).count(), 4);
        assert_eq!(ground.objects(), 14 + 1);
        drop(stream);
        assert_eq!(ground.objects(), 1);
        assert!(!push(&mut writer, 10..11));
        assert!(writer.end("f", Ok(())).is_none());
    }

    #[test]
    fn whatever_stands_where_a_cell_should_is_the_last_item() {
        for bytes in [&b""[..], b"\xff", b"\xc0", b"\x92\x92\x01\x02\x03", b"\x92\x92\x01\x02\x92\x01\x02"] {
            let mut ground = ground();
            let options = CreateOptions { encoding: Encoding::MessagePack, ..CreateOptions::default() };
            ground.ray.store().put_for(ground.results[1].handle(), bytes, &options).unwrap().unwrap();
            let (ray, stream) = (ground.ray.clone(), ground.reader());
            let items = read(&ray, stream);
            assert!(items.len() == 1 && items[0].is_err(), "{bytes:?}: {items:?}");
        }
    }

    #[test]
    fn whoever_seals_the_end_ends_writer_and_reader() {
        let mut ground = ground();
        let results = [ground.results[0].handle(), ground.results[1].handle()];
        let ray = ground.ray.clone();
        let mut writer = Writer::new(ray.store(), results, 0);
        assert!(push(&mut writer, 0..2));
        let error = TaskError::new(TaskErrorKind::Cancelled, "f", &"by hand");
        crate::worker::seal_error(ray.store(), &results, &error);
        assert!(!push(&mut writer, 2..3));
        let items = read(&ray, ground.reader());
        assert_eq!(items[..2], [Ok(0), Ok(1)]);
        assert!(items.len() == 3 && items[2].as_ref().is_err_and(|text| text.contains("by hand")), "{items:?}");
    }
}
