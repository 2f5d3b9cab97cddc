//! What a task record says: the fifteen words that a caller writes and a worker reads.
//!
//! The one thing to know: a record is all that a worker needs, or it names a *spec object* that has
//! the rest and lists what the call refers to, so nothing a queued call needs depends on its caller
//! being awake. The words are an allegation until [`Record::unpack`] has looked at them. This file
//! must not know where a record lies.
//!
//! ```text
//! word 0  key of the function, class or method
//!      1  kind u8 | flags u8 | results u16 | retries i16 | inline bytes u8 | 0
//!      2  the caller's number of the call, counted up
//!      3  slot of the first result u32 | mark of the task that submits it u32, 0 for none
//!      4  its generation
//!      5..15  flag SPEC: slot u32 | 0, generation, 0 ..
//!             else: the packed arguments, as many bytes as word 1 says, zeros after them
//! ```
//!
//! The bytes of a spec object, which is reached by its handle only and lists every object that is
//! awaited ([`Spec`]):
//!
//! ```text
//! results u16 | that many times: slot u32, generation u64     the second result on
//! awaited u16 | that many times: position u16                 in the object's own list
//! the packed arguments
//! ```

use serde::{Deserialize, Serialize};

/// Words of a record.
pub const RECORD_WORDS: usize = 15;
/// Bytes of packed arguments that a record holds itself.
pub const INLINE_BYTES_MAX: usize = (RECORD_WORDS - 5) * 8;
/// Results of one call at most.
pub const RESULTS_MAX: usize = u16::MAX as usize;

const FLAG_SPEC: u8 = 1;
const FLAG_RETRY_ERRORS: u8 = 2;
const FLAG_STREAM: u8 = 4;
const FLAGS: u8 = FLAG_SPEC | FLAG_RETRY_ERRORS | FLAG_STREAM;

/// An object by its place in the table: the slot, and how often that was used before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Where it lies in the table.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u64,
}

impl ObjectKey {
    /// By which the calls that a task submits name it, of its first result; never 0.
    ///
    /// It tells apart what one process submits at a time: that another task of that process with calls
    /// under way has the same one is a chance of one in four billion.
    pub fn mark(self) -> u32 {
        // Murmur's finish: slots are used again and again, generations count up.
        let mut mixed = self.generation ^ u64::from(self.slot) << 32;
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((mixed >> 32) as u32).max(1)
    }
}

/// What a record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A function.
    Task,
    /// A method of the actor whose queue it is in.
    Call,
    /// An actor's constructor; never in a queue.
    Create,
}

/// Where the rest of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The packed arguments, in the record itself.
    Inline {
        /// How many of the bytes count.
        len: u8,
        /// The bytes.
        bytes: [u8; INLINE_BYTES_MAX],
    },
    /// In an object, see [`Spec`].
    Spec(ObjectKey),
}

/// A task record, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the function, class or method.
    pub key: u64,
    /// What it asks for.
    pub kind: Kind,
    /// Errors of the application are tried again, too.
    pub retries_errors: bool,
    /// Its two results are the end and the first cell of a stream.
    pub is_stream: bool,
    /// How many results it makes; where more than one, a spec names the others.
    pub results: u16,
    /// Attempts after the first; -1 without end.
    pub retries: i16,
    /// The caller's number of the call.
    pub number: u64,
    /// The [mark](ObjectKey::mark) of the task that submits it; 0 for a driver, or where nobody can know.
    pub parent: u32,
    /// The first result; nothing where there is none.
    pub result: ObjectKey,
    /// The arguments, or where they are.
    pub body: Body,
}

/// Words that nobody writes as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the words of a task record do not fit together: word 1 is {word:#018x}")]
pub struct BadRecord {
    /// The word that says what the others are.
    pub word: u64,
}

impl Record {
    /// As words.
    pub fn pack(&self) -> [u64; RECORD_WORDS] {
        let mut words = [0; RECORD_WORDS];
        let (mut flags, mut len) = (0, 0);
        match &self.body {
            Body::Spec(spec) => {
                flags |= FLAG_SPEC;
                (words[5], words[6]) = (u64::from(spec.slot), spec.generation);
            }
            Body::Inline { len: used, bytes } => {
                len = *used;
                for (word, bytes) in words[5..].iter_mut().zip(bytes.chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().expect("chunks are of eight bytes"));
                }
            }
        }
        flags |= if self.retries_errors { FLAG_RETRY_ERRORS } else { 0 };
        flags |= if self.is_stream { FLAG_STREAM } else { 0 };
        let [results_low, results_high] = self.results.to_le_bytes();
        let [retries_low, retries_high] = self.retries.to_le_bytes();
        let head = [self.kind as u8, flags, results_low, results_high, retries_low, retries_high, len, 0];
        (words[0], words[1], words[2]) = (self.key, u64::from_le_bytes(head), self.number);
        words[3] = u64::from(self.result.slot) | u64::from(self.parent) << 32;
        words[4] = self.result.generation;
        words
    }

    /// From words that others may have written.
    pub fn unpack(words: &[u64; RECORD_WORDS]) -> Result<Record, BadRecord> {
        let bad = BadRecord { word: words[1] };
        let [kind, flags, results_low, results_high, retries_low, retries_high, len, zero] = words[1].to_le_bytes();
        let kind = [Kind::Task, Kind::Call, Kind::Create].into_iter().find(|known| *known as u8 == kind).ok_or(bad)?;
        if flags & !FLAGS != 0 || zero != 0 || usize::from(len) > INLINE_BYTES_MAX {
            return Err(bad);
        }
        let body = match flags & FLAG_SPEC {
            0 => Body::Inline { len, bytes: bytes_of(&words[5..]) },
            _ => Body::Spec(key(words[5], words[6]).ok_or(bad)?),
        };
        let results = u16::from_le_bytes([results_low, results_high]);
        if results > 1 && matches!(body, Body::Inline { .. }) {
            return Err(bad);
        }
        Ok(Record {
            key: words[0],
            kind,
            retries_errors: flags & FLAG_RETRY_ERRORS != 0,
            is_stream: flags & FLAG_STREAM != 0,
            results,
            retries: i16::from_le_bytes([retries_low, retries_high]),
            number: words[2],
            parent: parent_of(words),
            result: ObjectKey { slot: words[3] as u32, generation: words[4] },
            body,
        })
    }

    /// Whether the attempt after `attempt` (from 0) may be made.
    pub fn may_retry(&self, attempt: u32) -> bool {
        self.retries < 0 || i64::from(attempt) < i64::from(self.retries)
    }
}

/// The mark of the task that submits a record, without a look at the rest.
#[inline]
pub fn parent_of(words: &[u64; RECORD_WORDS]) -> u32 {
    (words[3] >> 32) as u32
}

fn key(slot: u64, generation: u64) -> Option<ObjectKey> {
    Some(ObjectKey { slot: u32::try_from(slot).ok()?, generation })
}

fn bytes_of(words: &[u64]) -> [u8; INLINE_BYTES_MAX] {
    let mut bytes = [0; INLINE_BYTES_MAX];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The body of a call that does not fit into its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// The results behind the first.
    pub more_results: Vec<ObjectKey>,
    /// For each argument that is awaited, in order, its position in the spec object's list.
    pub awaited: Vec<u16>,
    /// The packed arguments.
    pub arguments: &'a [u8],
}

/// The bytes of a spec object end within a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {bytes} bytes of a call's spec end within its lists")]
pub struct BadSpec {
    /// How many there are.
    pub bytes: usize,
}

impl<'a> Spec<'a> {
    /// As the bytes of an object.
    pub fn pack(&self) -> Vec<u8> {
        let size = 4 + 12 * self.more_results.len() + 2 * self.awaited.len() + self.arguments.len();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend((self.more_results.len() as u16).to_le_bytes());
        for result in &self.more_results {
            bytes.extend(result.slot.to_le_bytes());
            bytes.extend(result.generation.to_le_bytes());
        }
        bytes.extend((self.awaited.len() as u16).to_le_bytes());
        self.awaited.iter().for_each(|position| bytes.extend(position.to_le_bytes()));
        bytes.extend(self.arguments);
        bytes
    }

    /// From an object's bytes.
    pub fn unpack(bytes: &'a [u8]) -> Result<Spec<'a>, BadSpec> {
        let bad = BadSpec { bytes: bytes.len() };
        let mut left = bytes;
        let results = take::<2>(&mut left).map(u16::from_le_bytes).ok_or(bad)?;
        let more_results = (0..results).map(|_| {
            let slot = take::<4>(&mut left).map(u32::from_le_bytes)?;
            let generation = take::<8>(&mut left).map(u64::from_le_bytes)?;
            Some(ObjectKey { slot, generation })
        });
        let more_results = more_results.collect::<Option<Vec<_>>>().ok_or(bad)?;
        let awaited = take::<2>(&mut left).map(u16::from_le_bytes).ok_or(bad)?;
        let awaited = (0..awaited).map(|_| take::<2>(&mut left).map(u16::from_le_bytes)).collect::<Option<Vec<_>>>();
        Ok(Spec { more_results, awaited: awaited.ok_or(bad)?, arguments: left })
    }
}

/// Where each of these objects stands in the list of the object that refers to all of them: that is by
/// slot, each once.
pub fn positions(slots: &[u32]) -> Vec<u16> {
    let mut listed = slots.to_vec();
    listed.sort_unstable();
    listed.dedup();
    let position = |slot: &u32| listed.binary_search(slot).expect("it was listed above") as u16;
    slots.iter().map(position).collect()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = bytes.split_first_chunk::<N>()?;
    *bytes = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: Body) -> Record {
        Record {
            key: u64::MAX,
            kind: Kind::Call,
            retries_errors: true,
            is_stream: false,
            results: 1,
            retries: -1,
            number: 7,
            parent: 0x8000_0001,
            result: ObjectKey { slot: 9, generation: 1 << 40 },
            body,
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..3].copy_from_slice(b"abc");
        for body in [Body::Inline { len: 3, bytes }, Body::Spec(ObjectKey { slot: u32::MAX, generation: u64::MAX })] {
            assert_eq!(Record::unpack(&record(body).pack()), Ok(record(body)));
        }
    }

    #[test]
    fn words_that_are_no_record_are_refused() {
        let good = record(Body::Spec(ObjectKey::default())).pack();
        for (word, value) in [(1, u64::MAX), (1, 0xff), (1, 1 << 63), (5, 1 << 32)] {
            let mut words = good;
            words[word] = value;
            assert!(Record::unpack(&words).is_err(), "word {word} = {value:#x}");
        }
    }

    #[test]
    fn marks_tell_slots_and_generations_apart() {
        let keys = (0..64).flat_map(|slot| (0..64).map(move |generation| ObjectKey { slot, generation }));
        let marks: std::collections::HashSet<u32> = keys.map(ObjectKey::mark).collect();
        assert_eq!(marks.len(), 64 * 64);
        assert_ne!(ObjectKey::default().mark(), 0);
    }

    #[test]
    fn specs_come_back_as_they_were_and_cut_ones_are_refused() {
        let more_results = vec![ObjectKey { slot: 1, generation: 2 }, ObjectKey { slot: 3, generation: 4 }];
        let spec = Spec { more_results, awaited: vec![1, 0, 1], arguments: b"" };
        let bytes = spec.pack();
        assert_eq!(Spec::unpack(&bytes), Ok(spec));
        for len in 0..bytes.len() {
            assert_eq!(Spec::unpack(&bytes[..len]), Err(BadSpec { bytes: len }));
        }
    }

    #[test]
    fn retries_are_counted_from_the_first_attempt() {
        let mut record = record(Body::Spec(ObjectKey::default()));
        assert!(record.may_retry(1_000_000));
        record.retries = 2;
        assert_eq!([0, 1, 2, 3].map(|attempt| record.may_retry(attempt)), [true, true, false, false]);
    }
}
