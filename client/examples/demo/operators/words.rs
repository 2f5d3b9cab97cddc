//! How often each word stands in passages.
//!
//! The one thing to know: counts of parts add up to the counts of all, in any order, so they are merged
//! pairwise by whoever has time. The rows of a batch of counts have no order. This file must not
//! know languages: a word is a letter and the letters, digits and underscores behind it.

use super::{OperatorError, Texts, batch, numbers, text_bytes, texts, values};
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Batches of counts that one call merges.
pub(crate) const WORDS_MERGED_AT_ONCE: usize = 4;
/// Longer runs of letters are no words, but data.
const WORD_BYTES_MAX: usize = 64;

/// Counts by word.
type Counts<'a> = HashMap<&'a str, u64, BuildHasherDefault<WordHasher>>;

/// Made for a few bytes: one multiplication for eight of them.
#[derive(Default)]
struct WordHasher(u64);

impl WordHasher {
    fn mix(&mut self, number: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0 ^ number ^ ODD) * u128::from(ODD);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    fn write_u8(&mut self, _end: u8) {
        // Behind each text; the length is mixed in already.
    }
}

/// Words in lower case, with their counts.
pub(crate) fn count_words(passages: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    let texts = texts(passages, "text")?;
    let mut lower = String::with_capacity(text_bytes(texts) + texts.len());
    for text in texts.iter().flatten() {
        append_lower(text, &mut lower);
        lower.push('\n');
    }
    let mut counts = Counts::default();
    for_each_word(&lower, |word| *counts.entry(word).or_default() += 1);
    counts_batch(&counts)
}

fn append_lower(text: &str, out: &mut String) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        out[start..].make_ascii_lowercase();
    } else {
        out.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// The sum of several counts.
pub(crate) fn merge_words(parts: &[&RecordBatch]) -> Result<RecordBatch, OperatorError> {
    let rows = parts.iter().map(|part| part.num_rows()).max().unwrap_or_default();
    let mut counts = Counts::with_capacity_and_hasher(rows, BuildHasherDefault::default());
    for part in parts {
        let (words, numbers) = (texts(part, "word")?, values::<UInt64Type>(part, "count")?);
        for (word, number) in words.iter().flatten().zip(numbers) {
            *counts.entry(word).or_default() += number;
        }
    }
    counts_batch(&counts)
}

fn counts_batch(counts: &Counts<'_>) -> Result<RecordBatch, OperatorError> {
    let bytes = counts.keys().map(|word| word.len()).sum();
    let mut words = Texts::with_capacity(counts.len(), bytes);
    for word in counts.keys() {
        words.open().push_str(word);
        words.close();
    }
    let counts = numbers::<UInt64Type>(counts.values().copied().collect());
    batch(vec![("word", words.finish()?), ("count", counts)])
}

/// What a byte may be in a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Letter,
    /// In a word, but not at its start.
    Inner,
    Wide,
}

const KINDS: [Kind; 256] = kinds();

const fn kinds() -> [Kind; 256] {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Kind::Letter,
            b'0'..=b'9' | b'_' => Kind::Inner,
            128.. => Kind::Wide,
            _ => Kind::Other,
        };
        byte += 1;
    }
    kinds
}

/// Cuts a text into runs of letters, digits and underscores; those that begin with a letter and are
/// not too long are words.
fn for_each_word<'a>(text: &'a str, mut word: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, width) = kind_at(text, at);
        if kind == Kind::Other {
            at += width;
            continue;
        }
        let start = at;
        at = end_of_run(text, at);
        if kind == Kind::Letter && at - start <= WORD_BYTES_MAX {
            word(&text[start..at]);
        }
    }
}

fn end_of_run(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let (kind, width) = kind_at(text, at);
        if kind == Kind::Other {
            break;
        }
        at += width;
    }
    at
}

/// What the character at a place is, and how many bytes it has.
fn kind_at(text: &str, at: usize) -> (Kind, usize) {
    match KINDS[usize::from(text.as_bytes()[at])] {
        Kind::Wide => wide_kind_at(text, at),
        kind => (kind, 1),
    }
}

fn wide_kind_at(text: &str, at: usize) -> (Kind, usize) {
    let character = text[at..].chars().next().unwrap_or_default();
    let kind = match character {
        letter if letter.is_alphabetic() => Kind::Letter,
        digit if digit.is_alphanumeric() => Kind::Inner,
        _ => Kind::Other,
    };
    (kind, character.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::super::documents;
    use super::*;
    use std::collections::BTreeMap;

    fn counted(batch: &RecordBatch) -> BTreeMap<String, u64> {
        let (words, counts) = (texts(batch, "word").unwrap(), values::<UInt64Type>(batch, "count").unwrap());
        words.iter().flatten().map(str::to_owned).zip(counts.iter().copied()).collect()
    }

    fn check(texts: &[&str], wanted: &[(&str, u64)]) {
        let passages: Vec<(&str, &str)> = texts.iter().map(|text| ("path", *text)).collect();
        let wanted: BTreeMap<String, u64> = wanted.iter().map(|(word, count)| (word.to_string(), *count)).collect();
        assert_eq!(counted(&count_words(&documents(&passages)).unwrap()), wanted, "of {texts:?}");
    }

    #[test]
    fn words_are_counted_in_lower_case() {
        check(&["The the THE, cat.", "a cat"], &[("the", 3), ("cat", 2), ("a", 1)]);
        check(
            &["\u{c9}T\u{c9}\u{2014}\u{e9}t\u{e9} \u{65e5}\u{672c}"],
            &[("\u{e9}t\u{e9}", 2), ("\u{65e5}\u{672c}", 1)],
        );
    }

    #[test]
    fn a_word_begins_with_a_letter_and_ends_with_its_passage() {
        check(&["x_1 1x _y 42 \u{a7}3 z"], &[("x_1", 1), ("z", 1)]);
        check(&["left", "right"], &[("left", 1), ("right", 1)]);
        check(&[&"x".repeat(65), &"y".repeat(64), ""], &[(&"y".repeat(64), 1)]);
    }

    #[test]
    fn counts_of_parts_add_up() {
        let part = |text: &str| count_words(&documents(&[("a", text)])).unwrap();
        let (left, right, none) = (part("a b a"), part("b c"), part(""));
        let merged = counted(&merge_words(&[&left, &none, &right]).unwrap());
        assert_eq!(merged, counted(&part("a b a b c")));
        assert_eq!(merged, counted(&merge_words(&[&right, &left]).unwrap()));
    }
}
