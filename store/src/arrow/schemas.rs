//! Schemas that this process has read lately: tables of one kind share one schema.
//!
//! The one thing to know: a schema is read from the footer with its lists of messages blanked out.
//! So it depends on nothing else, whatever a hostile footer lets overlap, and tables that differ in
//! where their messages are have the same key. Keys are compared byte by byte. Nobody waits here:
//! where another thread looks (or did when this process was forked), the schema is read anew.

use std::sync::Mutex;

use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::Footer;
use arrow_schema::SchemaRef;

/// How many schemas are kept.
const SCHEMAS_MAX: usize = 16;
/// Footers that are longer are read each time: together the keys stay within 1 MiB.
const FOOTER_BYTES_MAX: usize = 1 << 16;
/// Flatbuffers align to this much.
const FLATBUFFER_ALIGNMENT: usize = 8;

/// Schemas that were used, the latest first.
static LATEST: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A footer's bytes, and where in them its two lists of messages are.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    bytes: &'a [u8],
    lists: [(usize, usize); 2],
}

struct Kept {
    blanked: Buffer,
    lists: [(usize, usize); 2],
    schema: SchemaRef,
}

impl<'a> Key<'a> {
    /// The key of `footer`, which lies in `bytes`.
    pub(super) fn new(bytes: &'a [u8], footer: &Footer<'a>) -> Self {
        let range = |list: Option<&[u8]>| {
            let list = list.unwrap_or_default();
            let start = (list.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
            // An empty list is nowhere.
            if list.is_empty() { (0, 0) } else { (start, start + list.len()) }
        };
        let mut lists = [
            range(footer.dictionaries().map(|list| list.bytes())),
            range(footer.recordBatches().map(|list| list.bytes())),
        ];
        lists.sort_unstable();
        Self { bytes, lists }
    }

    /// A copy without the lists, aligned as the original is.
    pub(super) fn blanked(&self) -> Buffer {
        let shift = self.bytes.as_ptr() as usize % FLATBUFFER_ALIGNMENT;
        let mut copy = MutableBuffer::from_len_zeroed(shift);
        copy.extend_from_slice(self.bytes);
        for (start, end) in self.lists {
            copy[shift + start..shift + end].fill(0);
        }
        Buffer::from(copy).slice(shift)
    }

    fn is_of(&self, kept: &Kept) -> bool {
        let [first, second] = self.lists;
        let rest = first.1.max(second.1);
        let gap = first.1..second.0.max(first.1);
        let parts = [0..first.0, gap, rest..self.bytes.len()];
        self.lists == kept.lists
            && self.bytes.len() == kept.blanked.len()
            && parts.into_iter().all(|part| self.bytes[part.clone()] == kept.blanked[part])
    }
}

/// The schema of this key, if it was used lately.
pub(super) fn find(key: Key) -> Option<SchemaRef> {
    let mut latest = LATEST.try_lock().ok()?;
    let at = latest.iter().position(|kept| key.is_of(kept))?;
    latest[..=at].rotate_right(1);
    Some(latest[0].schema.clone())
}

/// Keeps the schema that was read from a key's `blanked` copy.
pub(super) fn keep(key: Key, blanked: Buffer, schema: &SchemaRef) {
    if blanked.len() > FOOTER_BYTES_MAX {
        return;
    }
    if let Ok(mut latest) = LATEST.try_lock() {
        latest.truncate(SCHEMAS_MAX - 1);
        latest.insert(0, Kept { blanked, lists: key.lists, schema: schema.clone() });
    }
}
