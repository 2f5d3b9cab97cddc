//! The demo as a user runs it, in processes of its own, on a small corpus; and the demo's unit tests.
//!
//! The one thing to know: the demo's sources are part of this test, and a process that runs it is this
//! test again, so that nothing has to be built before and nothing stale is run. This file must not
//! know what operators do.

#[path = "../examples/demo/main.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example's sources, whose `main` runs elsewhere")]
mod demo;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The demo's arguments, one a line, for the process that is to run it.
const ARGUMENTS: &str = "RAYLET_TEST_DEMO_ARGUMENTS";

/// Not a test but the program, where another test asks for it.
#[test]
fn as_a_program() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let arguments = ["demo".to_owned()].into_iter().chain(arguments.lines().map(str::to_owned));
        std::process::exit(demo::program(arguments).into());
    }
}

fn program(folder: &Path, arguments: &[&str]) -> Output {
    let output = folder.join("output");
    let paths = [folder.join("corpus"), Path::new("--output").into(), output];
    let paths = paths.iter().map(|path| path.to_str().unwrap());
    let arguments: Vec<&str> = arguments.iter().copied().chain(paths).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_a_program", "--nocapture", "--test-threads=1"]);
    // No raylet that runs on this machine is joined.
    command.env("RAYLET_DIR", folder).env_remove("RAY_ADDRESS").env(ARGUMENTS, arguments.join("\n")).output().unwrap()
}

/// Files of all kinds: markup and not, with duplicates within and between, short and no text.
fn corpus() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("corpus/below");
    std::fs::create_dir_all(&below).unwrap();
    for number in 0..40 {
        let mut text = String::new();
        let (open, close) = if number % 2 == 0 { ("<p>", "</p>") } else { ("", "\n\n") };
        for paragraph in 0..12 {
            // Every third paragraph is in all files, and long enough for a passage.
            let seed = if paragraph % 3 == 0 { 0 } else { number };
            write!(text, "{open}n{seed}p{paragraph} ").unwrap();
            (0..140).for_each(|word| write!(text, "w{} ", seed * 7 + paragraph * 13 + word).unwrap());
            write!(text, "{close}").unwrap();
        }
        let name = if number % 2 == 0 { format!("{number}.html") } else { format!("{number}.txt") };
        std::fs::write(below.join(name), text).unwrap();
    }
    std::fs::write(below.join("short.txt"), "too short").unwrap();
    std::fs::write(below.join("repeated.txt"), "again ".repeat(200)).unwrap();
    std::fs::write(below.join("data.bin"), [0; 100]).unwrap();
    folder
}

/// The last line that is JSON.
fn json(output: &Output) -> Json {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find_map(|line| line.find('{').map(|at| &line[at..]));
    serde_json::from_str(line.expect("a line of JSON")).unwrap()
}

fn assert_success(output: &Output) {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
}

fn passages(folder: &TempDir) -> Vec<u8> {
    std::fs::read(folder.path().join("output/passages.arrow")).unwrap()
}

const SMALL: &[&str] = &["--local", "--batch-bytes", "16K"];

#[test]
fn the_demo_finds_what_a_plain_run_finds() {
    let folder = corpus();
    let output = program(folder.path(), SMALL);
    assert_success(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("found the same"), "{said}");
    let stats = std::fs::read(folder.path().join("output/stats.json")).unwrap();
    let stats: Json = serde_json::from_slice(&stats).unwrap();
    let found = |name: &str| stats["found"][name].as_u64().unwrap();
    assert_eq!([found("passages"), found("passages_kept")], [480, 4 + 40 * 8], "{stats}");
    assert_eq!([found("documents"), found("files_skipped"), found("documents_kept")], [42, 1, 40]);
    let digits: String = Sha256::digest(passages(&folder)).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.contains(&digits), "{said} is not about the file of {digits}");
}

#[test]
fn the_file_is_arrow_and_has_what_was_counted() {
    let folder = corpus();
    let output = program(folder.path(), &[SMALL, &["--json", "--no-check"]].concat());
    assert_success(&output);
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(passages(&folder)), None).unwrap();
    let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["path", "copy", "offset", "text"]);
    let rows: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(json(&output)["found"]["passages_kept"], rows);
}

#[test]
fn the_result_depends_on_no_shards_nor_on_an_actors_death() {
    let folder = corpus();
    assert_success(&program(folder.path(), SMALL));
    let wanted = passages(&folder);
    for more in [&["--shards", "3"][..], &["--kill-one", "actor"], &["--kill-one=actor", "--shards", "2"]] {
        assert_success(&program(folder.path(), &[SMALL, more].concat()));
        assert!(passages(&folder) == wanted, "{more:?}");
    }
}

#[test]
fn the_result_depends_on_no_workers_nor_on_a_killed_ones_death() {
    let folder = corpus();
    assert_success(&program(folder.path(), SMALL));
    let wanted = passages(&folder);
    for more in [&["--no-check"][..], &["--kill-one=worker"], &["--kill-one=actor", "--shards", "2"]] {
        let output = program(folder.path(), &[&["--batch-bytes", "16K"], more].concat());
        assert_success(&output);
        assert!(passages(&folder) == wanted, "{more:?}");
    }
}

#[test]
fn copies_of_the_corpus_are_no_duplicates_of_each_other() {
    let folder = corpus();
    let kept = |more: &[&str]| {
        let output = program(folder.path(), &[SMALL, more, &["--json"]].concat());
        assert_success(&output);
        json(&output)["found"]["passages_kept"].as_u64().unwrap()
    };
    assert_eq!(3 * kept(&[]), kept(&["--repeat", "3"]));
}

#[test]
fn plain_processes_are_measured_and_leave_nothing() {
    let folder = corpus();
    for mode in [&["--ideal"][..], &["--local", "--measure"]] {
        let output = program(folder.path(), &[mode, &["--batch-bytes", "16K", "--json"]].concat());
        assert_success(&output);
        let measured = json(&output);
        for field in ["map_seconds", "whole_seconds"] {
            assert!(measured[field].as_f64().is_some_and(|seconds| seconds > 0.0), "{measured}");
        }
        assert_eq!(std::fs::read_dir(folder.path().join("output")).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = corpus();
    let output = program(folder.path(), &["--local", "--kill-one", "worker"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains("no worker to kill")), (Some(1), true), "{said}");
    assert_eq!(program(folder.path(), &["--max-bytes", "many"]).status.code(), Some(2));
    std::fs::remove_dir_all(folder.path().join("corpus")).unwrap();
    assert_eq!(program(folder.path(), SMALL).status.code(), Some(1));
}
