//! One form for what looks the same.
//!
//! The one thing to know: any white space, Unicode's too, becomes one space, and with an empty line
//! in it one line feed, which ends a paragraph. Characters nobody sees go. Text that is in this
//! form already is copied in long pieces. This file must not change a letter, nor its case.

use super::{OperatorError, rewrite_texts};
use arrow_array::RecordBatch;

/// Documents with white space in one form, and without what nobody sees.
pub(crate) fn normalise(documents: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    rewrite_texts(documents, |_, text, out| normalise_text(text, out))
}

/// What a byte is the start of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Space,
    Blank,
    Control,
    Wide,
}

const KINDS: [Kind; 256] = kinds();

const fn kinds() -> [Kind; 256] {
    let mut kinds = [Kind::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b' ' => Kind::Space,
            b'\t'..=b'\r' => Kind::Blank,
            0..=31 | 127 => Kind::Control,
            128.. => Kind::Wide,
            _ => Kind::Plain,
        };
        byte += 1;
    }
    kinds
}

fn normalise_text(text: &str, out: &mut String) {
    let (start, mut left) = (out.len(), text);
    while !left.is_empty() {
        let regular = regular_bytes(left.as_bytes());
        out.push_str(&left[..regular]);
        left = irregular(&left[regular..], start, out);
    }
}

/// How many bytes from the front are in form: visible ASCII, and single spaces in between.
fn regular_bytes(bytes: &[u8]) -> usize {
    let kind = |at: usize| bytes.get(at).map(|byte| KINDS[usize::from(*byte)]);
    let mut at = 0;
    loop {
        match kind(at) {
            Some(Kind::Plain) => at += 1,
            Some(Kind::Space) if at > 0 && kind(at + 1) == Some(Kind::Plain) => at += 2,
            _ => return at,
        }
    }
}

/// Reads white space, or one character that is not in form; gives what is left behind it.
fn irregular<'a>(text: &'a str, start: usize, out: &mut String) -> &'a str {
    let bytes = text.as_bytes();
    let is_gap = |byte: &u8| matches!(KINDS[usize::from(*byte)], Kind::Space | Kind::Blank);
    let gap = bytes.iter().position(|byte| !is_gap(byte)).unwrap_or(bytes.len());
    match bytes.get(gap) {
        Some(next) if gap > 0 && KINDS[usize::from(*next)] == Kind::Plain => {
            if out.len() > start {
                let lines = memchr::memchr_iter(b'\n', &bytes[..gap]).count();
                out.push(if lines > 1 { '\n' } else { ' ' });
            }
            &text[gap..]
        }
        _ => wide(text, start, out),
    }
}

/// The same where ASCII does not do.
fn wide<'a>(text: &'a str, start: usize, out: &mut String) -> &'a str {
    let Some(first) = text.chars().next() else { return text };
    if !is_blank(first) && !is_unseen(first) {
        out.push(first);
        return &text[first.len_utf8()..];
    }
    let (mut lines, mut blanks) = (0, 0);
    let is_gap = |character: char| {
        lines += usize::from(matches!(character, '\n' | '\u{2028}')) + 2 * usize::from(character == '\u{2029}');
        blanks += usize::from(is_blank(character));
        is_blank(character) || is_unseen(character)
    };
    let left = text.trim_start_matches(is_gap);
    if blanks > 0 && out.len() > start && !left.is_empty() {
        out.push(if lines > 1 { '\n' } else { ' ' });
    }
    left
}

fn is_blank(character: char) -> bool {
    character.is_whitespace()
}

/// Controls, soft hyphens, and what has no width.
fn is_unseen(character: char) -> bool {
    character.is_control() && !is_blank(character)
        || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &str) {
        let mut out = "before".to_owned();
        normalise_text(text, &mut out);
        assert_eq!(&out["before".len()..], wanted, "of {text:?}");
        let mut again = String::new();
        normalise_text(wanted, &mut again);
        assert_eq!(again, wanted.replace('\n', " "), "one line feed is a space to who reads it first");
    }

    #[test]
    fn white_space_becomes_one_space() {
        check("a b", "a b");
        check("  a \t b\r\nc  ", "a b c");
        check("a\u{a0}\u{3000}b\u{2003}", "a b");
        check("", "");
        check(" \n\n ", "");
    }

    #[test]
    fn an_empty_line_ends_a_paragraph() {
        check("a\n\nb", "a\nb");
        check("a \r\n \t\r\n b\nc\u{2029}d\n\n", "a\nb c\nd");
    }

    #[test]
    fn what_nobody_sees_goes() {
        check("\u{feff}a\u{ad}b\u{200b}c\0d\u{1b}", "abcd");
        check("a \u{200b} b", "a b");
        check("a \0", "a");
    }

    #[test]
    fn letters_and_their_case_stay() {
        check("\u{c9}t\u{e9} 日本 Aa", "\u{c9}t\u{e9} 日本 Aa");
    }
}
