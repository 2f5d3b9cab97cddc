//! Markup away, text stays.
//!
//! The one thing to know: it is a scanner, not a parser: it knows where tags, comments, scripts and
//! entities end, and which tags end a paragraph. Broken markup never fails, it is text. This file
//! must not look at documents that are not markup, which stay as they are.

use super::{OperatorError, rewrite_texts, texts};
use arrow_array::RecordBatch;
use memchr::{memchr, memchr2, memchr3, memmem};

/// Files whose text is markup, by the ends of their names.
const MARKUP_ENDS: &[&str] = &[".html", ".htm", ".xhtml", ".xml", ".svg"];
/// Elements whose content is not text.
const SILENT: &[&str] = &["script", "style", "template", "noscript"];
/// Elements that are a paragraph, or in a paragraph of their own.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "title",
    "tr",
    "ul",
];
/// Elements between whose contents there is a gap.
const GAPS: &[&str] = &["br", "td", "th", "option", "button", "img", "input"];
/// Characters that markup has names for.
const ENTITIES: &[(&str, &str)] = &[
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("nbsp", "\u{a0}"),
    ("copy", "\u{a9}"),
    ("reg", "\u{ae}"),
    ("mdash", "\u{2014}"),
    ("ndash", "\u{2013}"),
    ("hellip", "\u{2026}"),
    ("lsquo", "\u{2018}"),
    ("rsquo", "\u{2019}"),
    ("ldquo", "\u{201c}"),
    ("rdquo", "\u{201d}"),
    ("times", "\u{d7}"),
    ("middot", "\u{b7}"),
];
/// No tag's and no entity's name is longer.
const NAME_BYTES_MAX: usize = 16;

/// Documents without their markup.
pub(crate) fn strip_markup(documents: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    let paths = texts(documents, "path")?;
    rewrite_texts(documents, |row, text, out| match is_markup(paths.value(row)) {
        true => strip(text, out),
        false => out.push_str(text),
    })
}

fn is_markup(path: &str) -> bool {
    MARKUP_ENDS.iter().any(|end| path.ends_with(end))
}

/// Appends the text that is in `text`.
fn strip(text: &str, out: &mut String) {
    let mut left = text;
    while let Some(at) = memchr2(b'<', b'&', left.as_bytes()) {
        out.push_str(&left[..at]);
        left = &left[at..];
        let used = if left.starts_with('<') { tag(left, out) } else { entity(left, out) };
        left = &left[used..];
    }
    out.push_str(left);
}

/// Reads what starts with `<`; says how many bytes it was.
fn tag(text: &str, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    if bytes.starts_with(b"<!--") {
        return behind(text, 4, "-->");
    }
    let is_end = bytes.get(1) == Some(&b'/');
    let start = 1 + usize::from(is_end);
    match bytes.get(start) {
        Some(first) if first.is_ascii_alphabetic() => {}
        Some(b'!' | b'?') => return end_of_tag(text),
        _ => {
            out.push('<');
            return 1;
        }
    }
    let mut buffer = [0; NAME_BYTES_MAX];
    let name = lower_name(&bytes[start..], &mut buffer);
    let end = end_of_tag(text);
    out.push_str(gap(name));
    if !is_end && SILENT.contains(&name) { end + silent(&text[end..], name) } else { end }
}

/// The name that `bytes` start with, in lower case; nothing known where it is too long.
fn lower_name<'a>(bytes: &[u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> &'a str {
    let mut len = 0;
    for byte in bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric()) {
        let Some(place) = buffer.get_mut(len) else { return "" };
        *place = byte.to_ascii_lowercase();
        len += 1;
    }
    std::str::from_utf8(&buffer[..len]).unwrap_or_default()
}

/// What stands for a tag in the text.
fn gap(name: &str) -> &'static str {
    match name {
        "span" | "a" | "code" => "",
        name if BLOCKS.binary_search(&name).is_ok() => "\n\n",
        name if GAPS.contains(&name) => " ",
        _ => "",
    }
}

/// How many bytes a tag has, whose values may hold `>`; all, where it does not end.
fn end_of_tag(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = memchr3(b'>', b'"', b'\'', &bytes[at..]) {
        at += found + 1;
        let quote = bytes[at - 1];
        if quote == b'>' {
            return at;
        }
        match memchr(quote, &bytes[at..]) {
            Some(end) => at += end + 1,
            None => break,
        }
    }
    bytes.len()
}

/// How many bytes until behind `end`; all, where it does not come.
fn behind(text: &str, start: usize, end: &str) -> usize {
    let found = memmem::find(&text.as_bytes()[start..], end.as_bytes());
    found.map_or(text.len(), |at| start + at + end.len())
}

/// How many bytes the content of a silent element has, its end tag not counted.
fn silent(text: &str, name: &str) -> usize {
    let bytes = text.as_bytes();
    let is_end = |at: &usize| {
        let tail = &bytes[at + 2..];
        tail.len() >= name.len() && tail[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    };
    memmem::find_iter(bytes, b"</").find(is_end).unwrap_or(bytes.len())
}

/// Reads what starts with `&`; says how many bytes it was.
fn entity(text: &str, out: &mut String) -> usize {
    let head = &text.as_bytes()[1..text.len().min(NAME_BYTES_MAX)];
    let end = head.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'#').unwrap_or(head.len());
    let name = &text[1..1 + end];
    let known = ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, character)| *character);
    if let Some(character) = known {
        out.push_str(character);
    } else if let Some(character) = name.strip_prefix('#').and_then(numbered) {
        out.push(character);
    } else {
        out.push('&');
        return 1;
    }
    1 + end + usize::from(head.get(end) == Some(&b';'))
}

/// The character of `65` or `x41`.
fn numbered(digits: &str) -> Option<char> {
    let hexadecimal = digits.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16));
    char::from_u32(hexadecimal.unwrap_or_else(|| digits.parse()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::documents;
    use super::*;

    fn check(markup: &str, wanted: &str) {
        let mut out = String::new();
        strip(markup, &mut out);
        assert_eq!(out, wanted, "of {markup:?}");
    }

    #[test]
    fn tags_go_and_blocks_part_paragraphs() {
        check("<p>one <b>two</b></p><P class='x'>three", "\n\none two\n\n\n\nthree");
        check("a<br/>b<td>c", "a b c");
        check("fn&lt;T&gt; <code>x</code>y", "fn<T> xy");
    }

    #[test]
    fn what_is_not_text_goes_with_its_content() {
        check("a<!-- <p>no</p> -->b", "ab");
        check("a<script>if (1 < 2) '</p>'</SCRIPT>b", "ab");
        check("a<style>p > b {}</style >b", "ab");
        check("<!DOCTYPE html><?xml version='1'?>b", "b");
    }

    #[test]
    fn quoted_values_may_hold_what_ends_a_tag() {
        check("a<i title=\"x > y\">b</i><i t='\">'>c", "abc");
    }

    #[test]
    fn entities_become_characters() {
        check("&amp;&#65;&#x42;&nbsp;&quot", "&AB\u{a0}\"");
        check("a & b &unknown; &#xD800; &#; &", "a & b &unknown; &#xD800; &#; &");
    }

    #[test]
    fn broken_markup_is_text_and_never_fails() {
        for markup in ["<", "a < b", "<>", "</", "</ x>", "<3", "&", "&#", "<\u{e9}>", "&\u{e9};"] {
            check(markup, markup);
        }
        for (markup, wanted) in [("a<p", "a\n\n"), ("a<!--", "a"), ("a<script>b", "a"), ("a<i t=\"", "a")] {
            check(markup, wanted);
        }
        for end in 0..40 {
            let whole = "\u{e9}<a href='\u{e9}'>\u{e9}</a><!--\u{e9}-->&eacute;<script>\u{e9}";
            let cut = whole.chars().take(end).collect::<String>();
            strip(&cut, &mut String::new());
        }
    }

    #[test]
    fn names_that_are_searched_are_sorted() {
        assert!(BLOCKS.is_sorted());
    }

    #[test]
    fn only_markup_is_stripped() {
        let stripped = strip_markup(&documents(&[("a.py", "x <b> y"), ("b.html", "x <b> y")])).unwrap();
        let texts: Vec<_> = texts(&stripped, "text").unwrap().iter().flatten().collect();
        assert_eq!(texts, ["x <b> y", "x  y"]);
    }
}
