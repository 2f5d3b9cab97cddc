//! The repository checks itself: who depends on whom, where `unsafe` may be, how files begin.
//!
//! The one thing to know: the lists in here are the rules, exactly: a file that no longer needs its
//! line fails as one does that lacks it. It must not know what any code does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of ours each crate may depend on. Benches and tests may depend on all.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("store/shm", "store-shm", &[]),
    ("store", "store", &["store-shm"]),
    ("raylet/api", "raylet-api", &[]),
    ("raylet/core", "raylet-core", &[]),
    ("raylet", "raylet", &["raylet-core", "raylet-api", "store", "store-shm"]),
    // `raylet` by the feature `embedded` alone, see below.
    ("client", "raylet-client", &["raylet", "raylet-core", "raylet-api", "store", "store-shm", "raylet-macros"]),
    ("client/macros", "raylet-macros", &[]),
    ("client/python", "raylet-python", &["raylet-client", "raylet", "raylet-core", "raylet-api", "store", "store-shm"]),
];

/// Where nearly all of it lives, and the files beside that lift the workspace's `deny`.
const UNSAFE_DIRECTORY: &str = "store/shm/src/";
const UNSAFE_FILES: &[&str] = &[
    // System calls that have no safe wrapper, for what the store is compared with.
    "benches/compare/src/raw.rs",
    // Bytes across the boundary to Python.
    "client/python/src/buffer.rs",
    // Python's own hooks around a fork.
    "client/python/src/role.rs",
    // The named segment, behind a crate that maps it without saying so in types.
    "raylet/src/door.rs",
    // Arrays over bytes that were checked, or that this library wrote.
    "store/src/arrow/decode.rs",
    // Native numbers as bytes and back.
    "store/src/arrow/native.rs",
    // Stores that go past the caches.
    "store/src/copy.rs",
    // Which structures may lie in shared memory.
    "store/src/layout/shared.rs",
    // The two kinds of slices over an object.
    "store/src/object.rs",
    // Filters of system calls, forks by hand, and memory that a test and its children share.
    "tests/it/no_system_call.rs",
    "tests/it/unborn.rs",
    "tests/src/process.rs",
    "tests/src/reuse.rs",
    "tests/src/shared.rs",
];

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("this package lies in the workspace").to_path_buf()
}

/// Every file that belongs to the repository, from its root on; those that are about to, too.
fn files() -> Vec<String> {
    let listed = listed(&["--cached"]).map(|mut files| {
        let others = listed(&["--others", "--exclude-standard"]).unwrap_or_default();
        files.extend(others.into_iter().filter(|file| !is_left_over(file)));
        files
    });
    // A file that is deleted and not committed yet is listed all the same.
    let files = listed.unwrap_or_else(|| files_below(&root()));
    files.into_iter().filter(|file| root().join(file).is_file()).collect()
}

/// What git lists, if it may be asked: not of a copy without history, nor of a stranger's.
fn listed(which: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("git").args(["ls-files", "-z"]).args(which).current_dir(root()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.split_terminator('\0').map(str::to_owned).collect())
}

/// Whether a file that is not committed lies where builds and tools leave things, wherever the
/// machine that runs the tests has them put.
fn is_left_over(file: &str) -> bool {
    Path::new(file).ancestors().skip(1).filter(|directory| *directory != Path::new("")).any(is_for_tools)
}

fn is_for_tools(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    (name.starts_with('.') && name != ".ci") || name == "target" || root().join(directory).join("CACHEDIR.TAG").exists()
}

/// As [`files`], of a copy without history: everything but what building leaves.
fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the workspace can be read").flatten() {
        let path = entry.path();
        let below = path.strip_prefix(root()).expect("it lies below the root");
        if path.is_dir() && !is_for_tools(below) {
            found.extend(files_below(&path));
        } else if path.is_file() {
            found.push(below.to_string_lossy().into_owned());
        }
    }
    found
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|file| file.ends_with(".rs")).map(|file| {
        let text = fs::read_to_string(root().join(&file)).expect("source is text");
        (file, text)
    })
}

/// What ships with a manifest's crate: the name of each dependency as written, and its line. What
/// its tests alone depend on is no arrow.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut is_dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let is_tested_with = section.contains("dev-dependencies");
            is_dependencies = section.ends_with("dependencies") && !is_tested_with;
            // `[dependencies.name]`: one dependency with a section of its own.
            if let Some((_, name)) = section.split_once("dependencies.").filter(|_| !is_tested_with) {
                found.push((name.to_owned(), line.to_owned()));
            }
        } else if is_dependencies && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push((name.trim_matches('"').to_owned(), line.to_owned()));
        }
    }
    found
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let ours: BTreeSet<&str> =
        ARROWS.iter().map(|(_, name, _)| *name).chain(["tests", "benches", "benches-compare"]).collect();
    for (directory, name, allowed) in ARROWS {
        let path = root().join(directory).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{directory} holds another crate than {name}");
        for (dependency, line) in dependencies(&manifest) {
            let is_allowed = !ours.contains(dependency.as_str()) || allowed.contains(&dependency.as_str());
            assert!(is_allowed, "{name} must not depend on {dependency}: {line}");
        }
    }
}

#[test]
fn the_client_links_the_raylet_by_its_feature_alone() {
    let manifest = fs::read_to_string(root().join("client/Cargo.toml")).expect("the client is here");
    let found = dependencies(&manifest);
    let lines: Vec<_> = found.iter().filter(|(name, _)| name == "raylet").map(|(_, line)| line.as_str()).collect();
    assert!(lines.len() == 1 && lines[0].contains("optional = true"), "{lines:?}");
    let features: Vec<&str> = manifest.lines().filter(|line| line.contains("dep:raylet\"")).collect();
    assert!(features.len() == 1 && features[0].starts_with("embedded"), "{features:?}");
}

#[test]
fn every_crate_of_the_workspace_is_a_member_and_takes_its_lints() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    assert!(workspace.contains("unsafe_code = \"deny\""), "the workspace denies unsafe code");
    assert!(!workspace.contains("[package]"), "the root manifest is virtual");
    for file in files().into_iter().filter(|file| file.ends_with("/Cargo.toml")) {
        let directory = file.trim_end_matches("/Cargo.toml");
        assert!(workspace.contains(&format!("\"{directory}\"")), "{directory} is no member");
        let manifest = fs::read_to_string(root().join(&file)).expect("a manifest is text");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{file} does not take the workspace's lints");
    }
}

/// A line of code as the compiler sees it, near enough: without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn lifts_safety(text: &str) -> bool {
    // Spelled in two parts, so that this file does not find itself.
    let word = concat!("uns", "afe");
    let uses = [" {", " fn", " impl", " trait", " extern", "("].map(|next| format!("{word}{next}"));
    let lift = format!("allow({word}_code)");
    text.lines().map(code).any(|line| line.contains(&lift) || uses.iter().any(|found| line.contains(found.as_str())))
}

#[test]
fn unsafe_code_is_where_the_list_says_and_nowhere_else() {
    let found: BTreeSet<String> = rust_files()
        .filter(|(file, text)| !file.starts_with(UNSAFE_DIRECTORY) && lifts_safety(text))
        .map(|(file, _)| file)
        .collect();
    let listed: BTreeSet<String> = UNSAFE_FILES.iter().map(|&file| file.to_owned()).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let unneeded: Vec<_> = listed.difference(&found).collect();
    assert!(unlisted.is_empty(), "unsafe code outside the list: {unlisted:?}");
    assert!(unneeded.is_empty(), "listed, and without unsafe code: {unneeded:?}");
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<String> =
        rust_files().filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(silent.is_empty(), "these do not open with //!: {silent:?}");
}

#[test]
fn every_python_module_says_first_what_it_is() {
    let python = files().into_iter().filter(|file| file.ends_with(".py") || file.ends_with(".pyi"));
    let silent: Vec<String> = python
        .filter(|file| {
            let text = fs::read_to_string(root().join(file)).expect("source is text");
            let text = text.strip_prefix("#!/usr/bin/env python3\n").unwrap_or(&text);
            !text.starts_with("\"\"\"")
        })
        .collect();
    assert!(silent.is_empty(), "these do not open with a docstring: {silent:?}");
}

#[test]
fn nothing_is_ignored_or_left_to_do() {
    let needles =
        [concat!("#[ig", "nore"), concat!("to", "do!("), concat!("unimplem", "ented!("), concat!("db", "g!(")];
    for (file, text) in rust_files() {
        for needle in needles {
            assert!(!text.lines().any(|line| code(line).contains(needle)), "{file} has {needle}");
        }
    }
}

/// The files that are text, with the names of what is in them.
fn texts() -> BTreeMap<String, String> {
    let text = |file: String| fs::read_to_string(root().join(&file)).ok().map(|text| (file, text));
    files().into_iter().filter_map(text).collect()
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let here = fs::canonicalize(root()).expect("the workspace is here");
    // A short path may well be one of ours: who builds in `src` finds it everywhere.
    let is_telling = here.components().count() > 3;
    let here = if is_telling { format!("{}/", here.display()) } else { "/".to_owned() };
    let needles =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), here.as_str()];
    for (file, text) in texts() {
        for needle in needles {
            assert!(needle == "/" || !text.contains(needle), "{file} names {needle}");
        }
    }
}

#[test]
fn packages_come_from_the_default_registry() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let default = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let others: Vec<&str> = lock.lines().filter(|line| line.starts_with("source = ") && *line != default).collect();
    assert!(others.is_empty(), "{others:?}");
    let needles = [
        concat!("regis", "try+http"),
        concat!("spar", "se+http"),
        concat!("index", "-url"),
        concat!("replace", "-with"),
    ];
    for (file, text) in texts().into_iter().filter(|(file, _)| file != "Cargo.lock") {
        for needle in needles {
            let is_here = file == "tests/tidy.rs" && needle.starts_with("reg");
            assert!(is_here || !text.contains(needle), "{file} names a registry: {needle}");
        }
    }
}
