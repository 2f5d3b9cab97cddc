//! An object written through pointers that outlive its seal.
//!
//! The one thing to know: other code (NumPy, a program's views of an array) cannot be told that the object is
//! immutable now. So it gets a mapping of its own of the object's pages, and at the seal that mapping becomes
//! private at the same addresses: whoever still writes through an old pointer writes to copies of its own. Until
//! the canvas is dropped the object stays pinned, as those pages still show its bytes.
//!
//! | state | pages | the object |
//! | --- | --- | --- |
//! | open | shared | being written; dropped now, it is aborted and nothing remains |
//! | sealed | private | stands, pinned by this |
//! | in a forked child | private | its parent's: the child cannot seal it |
//!
//! What a child did not write goes on to show the object, and other bytes once its parent aborted that.
//!
//! This file must not know what is written.

use crate::make::ObjectWriter;
use crate::object::{Object, ObjectRef};
use crate::store::{Inner, Store};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use store_shm::fork::AtFork;
use store_shm::gate;
use store_shm::map::DraftMap;
use store_shm::segment::SegmentError;

/// An object that is written through [`Canvas::pointer`], and may be written to after its seal: without effect
/// on it.
pub struct Canvas {
    // First, so that it goes before the writer gives the block back.
    pages: Arc<Pages>,
    bytes: usize,
    owner_pid: u32,
    state: Mutex<State>,
}

enum State {
    Open(ObjectWriter),
    Sealing,
    /// The pin, which is all that is wanted of it.
    Sealed(#[allow(dead_code)] Object),
}

/// The mapping, and what it is of.
struct Pages {
    map: DraftMap,
    inner: Arc<Inner>,
    is_private: AtomicBool,
}

impl Pages {
    fn make_private(&self) -> Result<(), SegmentError> {
        self.map.make_private(&self.inner.data)?;
        self.is_private.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl AtFork for Pages {
    fn before_fork(&self) {}

    fn after_fork_in_parent(&self) {}

    fn after_fork_in_child(&self) {
        // What was private is a copy of the parent's, with what the parent wrote to it.
        if !self.is_private.swap(true, Ordering::SeqCst) {
            self.map.make_private_in_child(&self.inner.data);
        }
    }
}

impl ObjectWriter {
    /// Has a range of the object, which is not empty, written through pointers instead.
    pub fn into_canvas(self, range: Range<usize>) -> Result<Canvas, SegmentError> {
        gate::check(range.start as u64, range.len() as u64, self.len() as u64)?;
        let (inner, offset) = self.place();
        let map = DraftMap::map(&inner.data, offset + range.start as u64, range.len() as u64)?;
        map.populate()?;
        let pages = Arc::new(Pages { map, inner: Arc::clone(inner), is_private: AtomicBool::new(false) });
        let handler: Arc<dyn AtFork> = pages.clone();
        store_shm::fork::register(Arc::downgrade(&handler));
        let (owner_pid, state) = (std::process::id(), Mutex::new(State::Open(self)));
        Ok(Canvas { pages, bytes: range.len(), owner_pid, state })
    }
}

impl Canvas {
    /// Where the range begins. Good for [`Canvas::bytes`] while `self` lives; whoever writes through it does so
    /// before [`Canvas::seal`], or for himself.
    pub fn pointer(&self) -> NonNull<u8> {
        self.pages.map.pointer()
    }

    /// Bytes of the range.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets `finish` write what is left to write, anywhere in the object, and seals it. By then no write through
    /// the pointer reaches the object any more.
    ///
    /// `None` where this cannot be sealed: it was before, it is of another store, this is a forked child, the
    /// kernel refuses another mapping, or `finish` says no, which is the end of the object.
    pub fn seal(&self, store: &Store, finish: impl FnOnce(&mut [u8]) -> bool) -> Option<ObjectRef> {
        // Before the lock: a thread of the parent may have had it.
        if self.owner_pid != std::process::id() || !Arc::ptr_eq(&self.pages.inner, &store.inner) {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Open(_)) || self.pages.is_private.load(Ordering::SeqCst) {
            return None;
        }
        self.pages.make_private().ok()?;
        let State::Open(mut writer) = std::mem::replace(&mut *state, State::Sealing) else { return None };
        if !finish(&mut writer) {
            // Kept: the private pages still show the block, so it may not become another object's.
            *state = State::Open(writer);
            return None;
        }
        let (reference, object) = writer.seal_pinned();
        *state = State::Sealed(object);
        Some(reference)
    }
}

impl std::fmt::Debug for Canvas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canvas").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, CreateOptions, Keeping};

    fn store() -> Store {
        let config = Config { capacity_bytes: 1 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
        Store::in_process(config).expect("a small store")
    }

    /// A canvas over all but the first 64 of some bytes, and a way to write to it.
    fn canvas(store: &Store, bytes: usize) -> Canvas {
        let writer = store.create(bytes as u64, &CreateOptions::default()).expect("there is room");
        writer.into_canvas(64..bytes).expect("it can be mapped")
    }

    fn end(store: Store) {
        store.check_invariants();
        assert!(store.list().is_empty());
    }

    fn no_more(_: &mut [u8]) -> bool {
        true
    }

    #[test]
    fn what_is_sealed_is_what_was_written_and_pinned() {
        let store = store();
        let canvas = canvas(&store, 20_000);
        let finish = |out: &mut [u8]| {
            out.fill(7);
            true
        };
        let object = canvas.seal(&store, finish).expect("it is open");
        assert!(store.view(&object).expect("it stands").iter().all(|byte| *byte == 7));
        assert!(canvas.seal(&store, no_more).is_none());
        drop(object);
        assert_eq!(store.list().len(), 1);
        drop(canvas);
        end(store);
    }

    #[test]
    fn what_is_dropped_open_leaves_nothing() {
        let store = store();
        drop(canvas(&store, 20_000));
        end(store);
    }

    #[test]
    fn another_store_cannot_seal_it() {
        let (store, other) = (store(), self::store());
        let canvas = canvas(&store, 1000);
        assert!(canvas.seal(&other, no_more).is_none());
        assert!(canvas.seal(&store, no_more).is_some());
        drop(canvas);
        end(store);
    }

    #[test]
    fn what_cannot_be_finished_stays_unsealed() {
        let store = store();
        let canvas = canvas(&store, 1000);
        assert!(canvas.seal(&store, |_| false).is_none());
        assert!(canvas.seal(&store, no_more).is_none());
        drop(canvas);
        end(store);
    }

    #[test]
    fn a_range_outside_or_empty_is_refused() {
        let store = store();
        for range in [0..1001, 1001..1002, 5..5] {
            let writer = store.create(1000, &CreateOptions::default()).expect("there is room");
            assert!(writer.into_canvas(range).is_err());
        }
        end(store);
    }
}
