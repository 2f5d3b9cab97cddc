//! The core is pure: its sources and its manifest name nothing that is not.
//!
//! The one thing to know: what cannot be named cannot be called. This file must not trust a lint for
//! it: it reads the sources.

use std::fs;
use std::path::Path;

const FORBIDDEN: [&str; 16] = [
    "tokio",
    "nix",
    "libc",
    "std::net",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::time",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand",
    concat!("uns", "afe {"),
    "static mut",
];

/// Whether `text` has `word` as a word of its own.
fn names(text: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

#[test]
fn sources_and_manifest_name_no_clock_socket_file_process_or_hash_order() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = fs::read_dir(package.join("src")).unwrap().map(|entry| entry.unwrap().path());
    for path in sources.chain([package.join("Cargo.toml")]) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let found = FORBIDDEN.iter().find(|word| names(line, word));
            assert!(found.is_none(), "{} names {found:?}: {line}", path.display());
        }
    }
    let root = fs::read_to_string(package.join("src/lib.rs")).unwrap();
    assert!(root.contains("#![forbid(unsafe_code)]"));
}
