//! Which documents are worth keeping: long enough, and not mostly repetition.
//!
//! The one thing to know: the verdict is a bit for each document; no text is copied for it. This
//! file must not compare documents with each other.

use super::{OperatorError, batch, column, texts};
use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::DataType;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Shorter documents say too little.
const DOCUMENT_BYTES_MIN: usize = 256;
/// A document is compared with itself in pieces of so many words.
const WORDS_PER_PIECE: usize = 8;
/// How much of a document may be pieces that it had before, in percent.
const REPEATED_PERCENT_MAX: usize = 50;

/// A batch with one column `keep`.
pub(crate) fn filter(documents: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    let texts = texts(documents, "text")?;
    let mut seen = HashSet::default();
    let keep: BooleanArray = texts.iter().flatten().map(|text| Some(is_worth_it(text, &mut seen))).collect();
    batch(vec![("keep", Arc::new(keep))])
}

/// How many documents a verdict keeps.
pub(crate) fn kept_documents(verdict: &RecordBatch) -> Result<usize, OperatorError> {
    Ok(column::<BooleanArray>(verdict, "keep", DataType::Boolean)?.true_count())
}

fn is_worth_it(text: &str, seen: &mut Pieces) -> bool {
    text.len() >= DOCUMENT_BYTES_MIN && repeated_bytes(text, seen) * 100 <= text.len() * REPEATED_PERCENT_MAX
}

/// Hashes of pieces.
type Pieces = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// A hash needs no hashing.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Bytes in pieces that stand in the text before.
fn repeated_bytes(text: &str, seen: &mut Pieces) -> usize {
    seen.clear();
    let mut repeated = 0;
    for mut left in text.split('\n') {
        while !left.is_empty() {
            let (piece, rest) = left.split_at(piece_bytes(left));
            if !seen.insert(xxh3_64(piece.as_bytes())) {
                repeated += piece.len();
            }
            left = rest;
        }
    }
    repeated
}

/// Bytes of the first words of a paragraph, with the space behind them.
fn piece_bytes(text: &str) -> usize {
    let last_space = memchr::memchr_iter(b' ', text.as_bytes()).nth(WORDS_PER_PIECE - 1);
    last_space.map_or(text.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::super::documents;
    use super::*;

    fn check(text: &str, wanted: bool) {
        let verdict = filter(&documents(&[("a", "short"), ("b", text)])).unwrap();
        let keep: &BooleanArray = column(&verdict, "keep", DataType::Boolean).unwrap();
        assert_eq!(keep.iter().flatten().collect::<Vec<_>>(), [false, wanted], "of {} bytes", text.len());
    }

    fn counted(words: std::ops::Range<u32>) -> String {
        words.map(|word| format!("word{word}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn long_text_without_repetition_stays() {
        check(&counted(0..200), true);
    }

    #[test]
    fn the_shortest_document_has_256_bytes() {
        let text: String = counted(0..100);
        check(&text[..256], true);
        check(&text[..255], false);
    }

    #[test]
    fn repeated_paragraphs_go() {
        let (once, other) = (counted(0..64), counted(64..160));
        check(&format!("{once}\n{once}\n{other}"), true);
        check(&format!("{once}\n{once}\n{once}"), false);
    }

    #[test]
    fn repetition_within_a_paragraph_counts() {
        check(&"0x00, ".repeat(200), false);
        check(&"one two three ".repeat(100), false);
    }
}
