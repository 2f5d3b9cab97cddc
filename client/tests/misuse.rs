//! What is wrong does not compile, and says so in words that help.
//!
//! The one thing to know: each file in `misuse/` is given to the compiler against the library that
//! this test was built with, which takes a fraction of a second: no second build of all
//! dependencies. A file's first line says which words must be among the errors; words of ours and
//! the plainest of the compiler's, so that another version of it passes, too. `control.rs` must
//! compile, which also shows that the library was found.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo put this test and what it was linked with.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("it lies in a directory").to_owned()
}

/// Libraries of other features or older sources may lie beside: the newest first.
fn libraries() -> Vec<PathBuf> {
    let files = std::fs::read_dir(built()).expect("the directory can be read").flatten();
    let is_ours = |name: &str| name.starts_with("libraylet_client-") && name.ends_with(".rlib");
    let ours = files.filter(|file| is_ours(&file.file_name().to_string_lossy()));
    let mut found: Vec<_> =
        ours.map(|file| (file.metadata().and_then(|data| data.modified()).ok(), file.path())).collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// What the compiler says of a file; `None` when it compiles.
fn errors(library: &Path, file: &Path, out: &Path) -> Option<String> {
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "--cap-lints=allow"]);
    compiler.arg("-L").arg(format!("dependency={}", built().display()));
    compiler.arg("--extern").arg(format!("raylet_client={}", library.display()));
    let output = compiler.arg("--out-dir").arg(out).arg(file).output().expect("the compiler starts");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn misuse_does_not_compile() {
    let out = tempfile::tempdir().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse");
    let control = directory.join("control.rs");
    let libraries = libraries();
    let fits = |library: &&PathBuf| errors(library, &control, out.path()).is_none();
    let library = libraries.iter().find(fits).unwrap_or_else(|| {
        panic!("control.rs does not compile: {:?}", errors(&libraries[0], &control, out.path()));
    });
    let mut count = 0;
    for file in std::fs::read_dir(&directory).unwrap().flatten().map(|file| file.path()) {
        if file == control {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("//! expect: "));
        let expected = expected.unwrap_or_else(|| panic!("{} does not say what to expect", file.display()));
        let found = errors(library, &file, out.path()).unwrap_or_else(|| panic!("{} compiles", file.display()));
        assert!(found.contains(expected), "{}: {expected:?} is not in:\n{found}", file.display());
        count += 1;
    }
    assert!(count >= 10, "{count} cases were found");
}
