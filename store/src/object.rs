//! Sealed bytes as Rust sees them, and unsealed ones as their writer does.
//!
//! The one thing to know: a `&[u8]` over shared memory exists in two places only, both in this
//! file: over an object that is sealed and pinned (nobody writes it, nobody moves it), and, mutably,
//! over a block that this process owns and has not sealed (nobody else looks at it).

#![allow(unsafe_code)]

use crate::alloc::window::Window;
use crate::error::GetError;
use crate::hold::PIN;
use crate::object_id::ObjectId;
use crate::state::{Snapshot, TAG_BITS, TAG_MASK};
use crate::store::{Inner, Store};
use crate::sync::Ordering;
use crate::tables::Handle;
use bytes::Bytes;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use store_shm::gate::GateError;
use store_shm::map::{PrivateMap, ReadMap};
use store_shm::segment::SegmentError;

/// How an object's bytes are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Encoding {
    /// Plain bytes.
    #[default]
    Raw = 0,
    /// An Arrow IPC file.
    Arrow = 1,
    /// Python's pickle, protocol 5.
    Pickle = 2,
    /// MessagePack.
    MessagePack = 3,
    /// An error, as the client encodes it.
    Error = 4,
    /// A name: the record that keeps what it names.
    Name = 5,
}

impl Encoding {
    /// Of its number, as in `encoding as u8`; unknown ones read as raw bytes.
    pub fn from_number(number: u8) -> Encoding {
        Encoding::from_flags(u32::from(number))
    }

    /// Unknown numbers read as raw bytes, which is always true.
    pub(crate) fn from_flags(flags: u32) -> Encoding {
        match flags & crate::layout::entry::FLAG_ENCODING {
            1 => Encoding::Arrow,
            2 => Encoding::Pickle,
            3 => Encoding::MessagePack,
            4 => Encoding::Error,
            5 => Encoding::Name,
            _ => Encoding::Raw,
        }
    }
}

/// A live view of an object, borrowed from the store: the cheapest way to read.
///
/// While it lives the bytes stay where they are.
pub struct View<'a> {
    inner: &'a Inner,
    /// As wide as the rest: a field with padding beside it is stored in parts and moved whole, and
    /// each move waits for the stores (7 of 12 ns).
    slot: u64,
    /// The cell as the pin left it: what the release expects to find.
    seen: u64,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// Over `len` bytes at `offset` of an object of which this process has just taken a pin, which
    /// passes to the view; `None`, and the pin stays the caller's, where that is outside the data.
    #[inline(always)]
    pub(crate) fn over(inner: &'a Inner, slot: u32, seen: u64, offset: u64, len: u64) -> Option<View<'a>> {
        // SAFETY: the caller pinned a sealed object, so nobody writes or moves these bytes until
        // the pin is released, which `drop` does; the gate checks the range.
        let bytes = unsafe { sealed(&inner.tables.data, offset, len) }.ok()?;
        Some(View { inner, slot: u64::from(slot), seen, bytes })
    }

    /// Over a private copy that is kept while this client pins the slot, by a pin just taken, which
    /// passes to the view.
    pub(crate) fn over_copy(inner: &'a Inner, slot: u32, seen: u64, copy: NonNull<[u8]>) -> View<'a> {
        // SAFETY: the caller vouches that the copy stays as long as the pin; nobody writes to it.
        let bytes = unsafe { copy.as_ref() };
        View { inner, slot: u64::from(slot), seen, bytes }
    }
}

/// # Safety
///
/// The range belongs to an object that is sealed and pinned for as long as the slice is used.
#[inline(always)]
unsafe fn sealed(data: &ReadMap, offset: u64, len: u64) -> Result<&[u8], GateError> {
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: passed on to the caller.
    unsafe { data.slice(offset, len) }
}

impl Deref for View<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for View<'_> {
    #[inline]
    fn drop(&mut self) {
        let party = self.inner.party();
        let slot = self.slot as u32;
        if party.let_go_seen(slot, PIN, self.seen) {
            party.end_hold(slot);
        }
    }
}

/// A live view that owns its pin and may be kept, sent and shared.
pub struct Object {
    inner: Arc<Inner>,
    handle: Handle,
    bytes: *const [u8],
}

// SAFETY: the bytes are immutable while the object is pinned, and the pin may be released anywhere.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// Keeps a view beyond its borrow.
    pub(crate) fn from_view(inner: &Arc<Inner>, handle: Handle, view: View<'_>) -> Object {
        let bytes: *const [u8] = view.bytes;
        // The pin passes from the view to the object.
        std::mem::forget(view);
        Object { inner: Arc::clone(inner), handle, bytes }
    }

    /// Of an object that this process has just sealed at `offset`, and pinned before.
    pub(crate) fn pinned(inner: &Arc<Inner>, handle: Handle, offset: u64, len: u64) -> Object {
        let view = View::over(inner, handle.slot, PIN, offset, len);
        Object::from_view(inner, handle, view.expect("it was written there, inside the data"))
    }

    /// The id of the object.
    pub fn id(&self) -> ObjectId {
        self.inner.id_of(self.handle.slot)
    }

    /// How its bytes are to be read.
    pub fn encoding(&self) -> Encoding {
        self.inner.encoding_of(self.handle.slot)
    }

    /// Slot and generation of the object.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The objects that this one's list names, each with a reference of its own.
    pub fn references(&self) -> Vec<ObjectRef> {
        self.inner.references_of(self.handle).map(|handle| ObjectRef::new(&self.inner, handle)).collect()
    }

    /// The bytes as `bytes::Bytes` that own the pin; nothing is copied.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The bytes once more, as memory that this process may write to without anybody seeing it; good for
    /// as long as this object is kept, too. `None` where they do not lie in the store's memory: read back
    /// from disk, or none at all.
    pub fn private(&self) -> Result<Option<PrivateMap>, SegmentError> {
        let data = &self.inner.tables.data;
        let offset = (self.bytes.cast::<u8>().addr()).wrapping_sub(data.base().addr()) as u64;
        let bytes = self.len() as u64;
        let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= data.bytes());
        if bytes == 0 || !is_inside {
            return Ok(None);
        }
        PrivateMap::map(&self.inner.data, offset, bytes).map(Some)
    }

    /// The store that the object is in.
    pub fn store(&self) -> Store {
        Store::from_inner(Arc::clone(&self.inner))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Deref for Object {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the object is sealed, this value owns a pin of it, and `inner` keeps it mapped.
        unsafe { &*self.bytes }
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.inner.party().release(self.handle.slot, PIN);
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("id", &self.id()).field("bytes", &self.len()).finish()
    }
}

/// A reference: somebody names the object, so it exists; its bytes may move to disk meanwhile.
pub struct ObjectRef {
    pub(crate) inner: Arc<Inner>,
    /// `slot 24 | low 40 bits of the generation`: 16 bytes in all come back in registers, and a put
    /// costs 5 of 36 ns more where they come back in memory.
    name: u64,
}

impl ObjectRef {
    /// Takes over a reference that is in the cell already.
    #[inline]
    pub(crate) fn new(inner: &Arc<Inner>, handle: Handle) -> ObjectRef {
        ObjectRef::owning(Arc::clone(inner), handle)
    }

    /// As [`ObjectRef::new`], with the store that somebody needs no more.
    #[inline]
    pub(crate) fn owning(inner: Arc<Inner>, handle: Handle) -> ObjectRef {
        let name = u64::from(handle.slot) << TAG_BITS | handle.generation & TAG_MASK;
        ObjectRef { inner, name }
    }

    /// The id of the object.
    pub fn id(&self) -> ObjectId {
        self.inner.id_of(self.slot())
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        (self.name >> TAG_BITS) as u32
    }

    /// The low bits of the generation.
    #[inline(always)]
    pub(crate) fn tag(&self) -> u64 {
        self.name & TAG_MASK
    }

    /// Slot and generation: names the object without the index, for as long as it lives.
    #[inline]
    pub fn handle(&self) -> Handle {
        // While it is referred to its generation stays: the entry has the bits that are not here.
        let word = self.inner.tables.entry(self.slot()).word.load(Ordering::Relaxed);
        let generation = Snapshot::generation_of(word) & !TAG_MASK | self.tag();
        Handle { slot: self.slot(), generation }
    }

    /// Whether the value stands.
    pub fn is_ready(&self) -> bool {
        self.inner.is_ready(self.handle())
    }

    /// How the value is to be read, once there is one.
    pub fn encoding(&self) -> Encoding {
        self.inner.encoding_of(self.slot())
    }

    /// Bytes of the value; zero while there is none.
    pub fn size(&self) -> u64 {
        self.inner.size_of(self.slot())
    }

    /// The store that the object is in.
    pub fn store(&self) -> Store {
        Store::from_inner(Arc::clone(&self.inner))
    }
}

impl Clone for ObjectRef {
    fn clone(&self) -> ObjectRef {
        self.inner.refer_again(self.handle());
        ObjectRef::new(&self.inner, self.handle())
    }
}

impl Drop for ObjectRef {
    #[inline]
    fn drop(&mut self) {
        self.inner.party().release(self.slot(), crate::hold::REFERENCE);
    }
}

impl std::fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectRef({})", self.id())
    }
}

/// The bytes of a block that this process owns and has not sealed.
pub(crate) struct Unsealed {
    bytes: *mut [u8],
}

// SAFETY: the block belongs to one writer, which may move between threads.
unsafe impl Send for Unsealed {}
// SAFETY: shared access only reads.
unsafe impl Sync for Unsealed {}

impl Unsealed {
    /// Over a block that the caller has just allocated in this process and tells nobody else about
    /// before it is sealed.
    pub(crate) fn over(window: &Window, offset: u64, len: u64) -> Result<Unsealed, GateError> {
        let first = if len == 0 { std::ptr::NonNull::dangling() } else { window.pointer(offset, len)? };
        Ok(Unsealed { bytes: std::ptr::slice_from_raw_parts_mut(first.as_ptr(), len as usize) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the window is open over the block (its owner prepared it), and until the seal
        // nobody but this writer touches it.
        unsafe { &*self.bytes }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the mutable borrow of `self` excludes other borrows.
        unsafe { &mut *self.bytes }
    }
}

/// The 16 bytes of one list item; `None` outside the data.
pub(crate) fn list_item_bytes(data: &ReadMap, offset: u64) -> Option<[u8; 16]> {
    let first = data.pointer(offset, 16).ok()?;
    // SAFETY: the gate checked the range. Lists are written before their container can be reached
    // and freed after it is taken apart; a stray write could change them, so they are copied whole
    // and what they say is checked again.
    Some(unsafe { first.cast::<[u8; 16]>().as_ptr().read_volatile() })
}

/// Bytes of a sealed object that the spiller writes to disk; the caller holds a reference, and is
/// the one process that could move them.
pub(crate) fn spillable(inner: &Inner, offset: u64, len: u64, id: ObjectId) -> Result<&[u8], Box<GetError>> {
    // SAFETY: the caller's reference keeps the block from being freed, and only the spiller, which
    // it is, moves it.
    unsafe { sealed(&inner.tables.data, offset, len) }.map_err(|source| GetError::Corrupt { id, source }.into())
}
