//! Documents in passages, and passages without those that others have.
//!
//! The one thing to know: a passage ends where a paragraph does, once it is long enough, so that what
//! two documents share falls into the same passages. A hash of 128 bits stands for its text: equal
//! hashes are equal texts. This file must not know which passage came first; whoever sees all decides.

use super::{OperatorError, Texts, batch, column, numbers, texts, values};
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::DataType;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

/// A passage goes on until it has so many bytes.
const PASSAGE_BYTES_WANTED: usize = 512;
/// Then until its paragraph ends, at most so many.
const PASSAGE_BYTES_MAX: usize = 1024;
/// What is left of a document makes no passage of its own if it is shorter.
const PASSAGE_BYTES_MIN: usize = 64;
/// Bytes of a passage's hash.
pub(crate) const HASH_BYTES: usize = 16;

/// The passages of the documents that the verdict keeps, and their hashes one after the other.
///
/// The corpus may be repeated: passages of its second copy on are marked with their copy's number, as
/// they would all be duplicates otherwise.
pub(crate) fn slice(documents: &RecordBatch, verdict: &RecordBatch) -> Result<(RecordBatch, Vec<u8>), OperatorError> {
    let (files, copies) = (values::<Int32Type>(documents, "file")?, values::<Int32Type>(documents, "copy")?);
    let (texts, keep) = (texts(documents, "text")?, column::<BooleanArray>(verdict, "keep", DataType::Boolean)?);
    if keep.len() != texts.len() {
        return Err(OperatorError::Verdicts { rows: texts.len(), verdicts: keep.len() });
    }
    let mut passages = Passages::with_capacity(super::text_bytes(texts));
    for row in (0..texts.len()).filter(|row| keep.value(*row)) {
        passages.add_document(files[row], copies[row], texts.value(row));
    }
    passages.finish()
}

/// Columns of passages being made.
struct Passages {
    file: Vec<i32>,
    copy: Vec<i32>,
    offset: Vec<i64>,
    text: Texts,
    hashes: Vec<u8>,
}

impl Passages {
    fn with_capacity(bytes: usize) -> Passages {
        let rows = bytes / PASSAGE_BYTES_WANTED + 1;
        Passages {
            file: Vec::with_capacity(rows),
            copy: Vec::with_capacity(rows),
            offset: Vec::with_capacity(rows),
            text: Texts::with_capacity(rows, bytes + bytes / 64),
            hashes: Vec::with_capacity(rows * HASH_BYTES),
        }
    }

    fn add_document(&mut self, file: i32, copy: i32, text: &str) {
        let mut start = 0;
        while text.len() - start >= PASSAGE_BYTES_MIN {
            let bytes = passage_bytes(&text[start..]);
            self.add(file, copy, start, text[start..start + bytes].trim_end());
            start += bytes;
        }
    }

    fn add(&mut self, file: i32, copy: i32, offset: usize, text: &str) {
        let open = self.text.open();
        let start = open.len();
        if copy > 0 {
            write!(open, "\u{a7}{copy} ").expect("a string takes what is written");
        }
        open.push_str(text);
        self.hashes.extend_from_slice(&xxh3_128(&open.as_bytes()[start..]).to_le_bytes());
        self.text.close();
        self.file.push(file);
        self.copy.push(copy);
        self.offset.push(offset as i64);
    }

    fn finish(self) -> Result<(RecordBatch, Vec<u8>), OperatorError> {
        let passages = batch(vec![
            ("file", numbers::<Int32Type>(self.file)),
            ("copy", numbers::<Int32Type>(self.copy)),
            ("offset", numbers::<Int64Type>(self.offset)),
            ("text", self.text.finish()?),
        ])?;
        Ok((passages, self.hashes))
    }
}

/// Bytes of the passage that a text begins with, with the gap behind it.
fn passage_bytes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let limit = bytes.len().min(PASSAGE_BYTES_MAX);
    let wanted = limit.min(PASSAGE_BYTES_WANTED);
    if let Some(end) = memchr::memchr(b'\n', &bytes[wanted..limit]) {
        return wanted + end + 1;
    }
    if limit == bytes.len() {
        return limit;
    }
    let last_space = memchr::memrchr2(b' ', b'\n', &bytes[wanted..limit]);
    let last_character = || (wanted..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(bytes.len());
    last_space.map_or_else(last_character, |at| wanted + at + 1)
}

/// Whether a bit is set.
pub(crate) fn is_set(bits: &[u8], row: usize) -> bool {
    bits.get(row / 8).is_some_and(|byte| byte & 1 << (row % 8) != 0)
}

/// The passages whose bit is set.
pub(crate) fn drop_rows(passages: &RecordBatch, bits: &[u8]) -> Result<RecordBatch, OperatorError> {
    let rows = passages.num_rows();
    if bits.len() != rows.div_ceil(8) {
        return Err(OperatorError::Verdicts { rows, verdicts: bits.len() * 8 });
    }
    let (old, kept) = (texts(passages, "text")?, runs(rows, bits));
    let offsets = old.value_offsets();
    let bytes = kept.iter().map(|run| (offsets[run.end] - offsets[run.start]) as usize).sum();
    let mut new = Texts::with_capacity(kept.iter().map(ExactSizeIterator::len).sum(), bytes);
    for row in kept.iter().cloned().flatten() {
        new.open().push_str(old.value(row));
        new.close();
    }
    batch(vec![
        ("file", numbers::<Int32Type>(pick(values::<Int32Type>(passages, "file")?, &kept))),
        ("copy", numbers::<Int32Type>(pick(values::<Int32Type>(passages, "copy")?, &kept))),
        ("offset", numbers::<Int64Type>(pick(values::<Int64Type>(passages, "offset")?, &kept))),
        ("text", new.finish()?),
    ])
}

/// Rows whose bit is set, as ranges.
fn runs(rows: usize, bits: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for row in (0..rows).filter(|row| is_set(bits, *row)) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

fn pick<T: Copy>(values: &[T], runs: &[std::ops::Range<usize>]) -> Vec<T> {
    runs.iter().flat_map(|run| &values[run.clone()]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::{documents, filter};
    use super::*;

    fn keep(verdicts: Vec<bool>) -> RecordBatch {
        batch(vec![("keep", std::sync::Arc::new(BooleanArray::from(verdicts)))]).unwrap()
    }

    fn sliced(text: &str) -> RecordBatch {
        slice(&documents(&[("a", text)]), &keep(vec![true])).unwrap().0
    }

    fn texts_of(passages: &RecordBatch) -> Vec<&str> {
        texts(passages, "text").unwrap().iter().flatten().collect()
    }

    #[test]
    fn a_passage_ends_with_a_paragraph_once_it_is_long_enough() {
        let [short, long] = ["s".repeat(300), "l".repeat(600)];
        let passages = sliced(&format!("{short}\n{short}\n{long}\n{short}"));
        assert_eq!(texts_of(&passages), [format!("{short}\n{short}"), long, short]);
        assert_eq!(values::<Int64Type>(&passages, "offset").unwrap(), [0, 602, 1203]);
    }

    #[test]
    fn a_long_paragraph_ends_between_words_or_at_least_between_characters() {
        let words = "word ".repeat(500);
        let passages = sliced(&words);
        assert!(texts_of(&passages).iter().all(|text| text.len() <= 1024 && text.ends_with("word")));
        let letters = "\u{65e5}".repeat(1000);
        assert_eq!(texts_of(&sliced(&letters)).concat(), letters);
    }

    #[test]
    fn short_rests_and_rejected_documents_make_no_passage() {
        assert_eq!(sliced(&"x".repeat(63)).num_rows(), 0);
        assert_eq!(sliced("").num_rows(), 0);
        let two = documents(&[("a", &"a".repeat(80)), ("b", &"b".repeat(80))]);
        let (passages, hashes) = slice(&two, &keep(vec![false, true])).unwrap();
        assert_eq!(texts_of(&passages), ["b".repeat(80)]);
        assert_eq!(hashes.len(), HASH_BYTES);
    }

    #[test]
    fn copies_are_marked_so_that_only_real_duplicates_are_equal() {
        let text = "t".repeat(80);
        let copy = |copy: i32| {
            let mut passages = Passages::with_capacity(0);
            passages.add_document(0, copy, &text);
            passages.finish().unwrap()
        };
        assert_eq!(copy(0).1, copy(0).1);
        assert_ne!(copy(0).1, copy(1).1);
        assert_eq!(texts_of(&copy(12).0), [format!("\u{a7}12 {text}")]);
    }

    #[test]
    fn rows_without_their_bit_go() {
        let texts: Vec<String> = (0..20).map(|row| format!("{row:080}")).collect();
        let documents: Vec<(&str, &str)> = texts.iter().map(|text| ("a", text.as_str())).collect();
        let (passages, _) = slice(&super::super::documents(&documents), &keep(vec![true; 20])).unwrap();
        let kept = drop_rows(&passages, &[0b1000_0001, 0b11, 0]).unwrap();
        assert_eq!(values::<Int32Type>(&kept, "file").unwrap(), [0, 7, 8, 9]);
        assert_eq!(texts_of(&kept), [&texts[0], &texts[7], &texts[8], &texts[9]]);
        assert!(matches!(drop_rows(&passages, &[0]), Err(OperatorError::Verdicts { rows: 20, verdicts: 8 })));
    }

    #[test]
    fn a_verdict_for_other_documents_is_refused() {
        let documents = documents(&[("a", "text")]);
        let verdict = filter(&super::super::documents(&[])).unwrap();
        assert!(matches!(slice(&documents, &verdict), Err(OperatorError::Verdicts { rows: 1, verdicts: 0 })));
    }
}
